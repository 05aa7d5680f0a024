"""Distorted digits, made on the device: pure functions of (key, images), as `Data.prepare` calls them.

The distortions of Jaderberg et al. 2015, appendix A.4 (cited from memory, unverified). The paper's lengths are in
pixels of 28 x 28 digits; here they scale with the size of the digits, so that digits of 8 x 8 are equally difficult.

    'R'     rotated by up to 90 degrees either way
    'RTS'   rotated by up to 45 degrees, scaled by 0.7 to 1.2, anywhere on a canvas of 42 x 42
    'P'     scaled by 0.75 to 1, then each corner moved by N(0, 5 pixels) in x and y: a projective map
    'E'     scaled by 0.75 to 1, then 16 control points of a thin plate spline moved by N(0, 1.5 pixels)
    'TC'    anywhere on a canvas of 60 x 60, among 16 patches of 6 x 6 of other digits
    'none'  unchanged
"""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from lecture4.ops import grids, sampling
from lecture4.ops.prox import require_floating

Distortion = Literal['none', 'R', 'RTS', 'P', 'E', 'TC']
DISTORTIONS: tuple[Distortion, ...] = get_args(Distortion)
SIZE = 28  # size of the digits in whose pixels the paper's lengths are given
CANVAS = {'RTS': 42, 'TC': 60}
CORNER_STD = 5.0
CONTROL_STD = 1.5
NUM_PATCHES, PATCH_SIZE = 16, 6
Key = PRNGKeyArray | UInt32[Array, '2']


class Pose(NamedTuple):
    """Pose of a digit on its canvas: arrays [n], or numbers for all.

    Attributes:
      angle: Counterclockwise on the screen, radians.
      scale: Factor on the digit's size.
      x: Offset of its center from the canvas' center to the right, in canvas pixels.
      y: Offset downwards.
    """

    angle: Float[Array, 'n'] | float = 0.0
    scale: Float[Array, 'n'] | float = 1.0
    x: Float[Array, 'n'] | float = 0.0
    y: Float[Array, 'n'] | float = 0.0


def canvas_size(distortion: Distortion, size: int) -> int:
    """Height and width of the results of `distort` for digits of size x size.

    Raises:
      ValueError: The distortion is unknown.
    """
    if distortion not in DISTORTIONS:
        raise ValueError(f'expected one of {", ".join(DISTORTIONS)}, got {distortion!r}')
    return round(size * CANVAS.get(distortion, SIZE) / SIZE)


def distort(
    key: Key, images: Float[Array | np.ndarray, 'n h w c'], distortion: Distortion
) -> Float[Array, 'n s s c']:
    """Distort each image independently; beyond its border it is black.

    Args:
      key: Random key; equal keys give equal images.
      images: Square images in [0, 1] with a black background.
      distortion: Name of a distortion in the table above.

    Returns:
      Images of `canvas_size`, in [0, 1].

    Raises:
      TypeError: The images are integers.
      ValueError: The images are not square, or the distortion is unknown.
    """
    images = require_floating('images', images)
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ValueError(f'expected square images [n, h, h, c], got shape {images.shape}')
    n, size = images.shape[:2]
    canvas = canvas_size(distortion, size)
    match distortion:
        case 'R':
            angle = jax.random.uniform(key, (n,), minval=-math.pi / 2, maxval=math.pi / 2)
            return place(images, Pose(angle), canvas)
        case 'RTS':
            return place(images, random_pose(key, n, size, canvas), canvas)
        case 'P':
            return _projected(key, images)
        case 'E':
            return _warped(key, images)
        case 'TC':
            return _cluttered(key, images, canvas)
    return images


def digit_sums(
    key: Key,
    images: Float[Array | np.ndarray, 'n h w c'],
    labels: Int[Array | np.ndarray, 'n'],
    distortion: Distortion,
) -> tuple[Float[Array, 'n s s c2'], Int[Array, 'n']]:
    """Pairs of digits in two groups of channels, each distorted independently, and their sums.

    The paper's "MNIST addition": the first digit of each pair is the image itself, the second that of a random
    permutation of the batch.

    Args:
      key: Random key.
      images: As in `distort`.
      labels: The digits.
      distortion: As in `distort`.

    Returns:
      Images with twice the channels, and int32 sums.

    Raises:
      TypeError, ValueError: As in `distort`.

    References:
      Jaderberg et al. 2015, appendix A.1.
    """
    first, second, order = jax.random.split(key, 3)
    others = jax.random.permutation(order, len(images))
    images, labels = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    parts = distort(first, images, distortion), distort(second, images[others], distortion)
    return jnp.concatenate(parts, axis=-1), labels + labels[others]


def pose_series(
    images: Float[Array | np.ndarray, 'n h w c'], canvas: int
) -> dict[str, tuple[np.ndarray, list[Array]]]:
    """The same images in series of poses, to measure robustness: one property changes at a time.

    Args:
      images: Square images.
      canvas: Height and width of the results.

    Returns:
      {'rotation': (degrees counterclockwise, the images in each pose), 'scale': ..., 'offset': to the right,
      as a fraction of the images' width}. [k] values and k arrays each.
    """
    angles, scales = np.arange(-90.0, 91, 30), np.array([0.5, 0.7, 0.85, 1.0, 1.2])
    offsets = np.linspace(0, 0.4, 5)
    series = {
        'rotation': (angles, [Pose(angle=math.radians(v)) for v in angles]),
        'scale': (scales, [Pose(scale=float(v)) for v in scales]),
        'offset': (offsets, [Pose(x=float(v * images.shape[2])) for v in offsets]),
    }
    run = jax.jit(place, static_argnums=2)
    return {
        what: (v, [run(images, pose, canvas) for pose in poses])
        for what, (v, poses) in series.items()
    }


def random_pose(key: Key, n: int, size: int, canvas: int) -> Pose:
    """Poses of 'RTS': the scaled digit's square lies on the canvas before it is rotated about its center."""
    keys = jax.random.split(key, 3)
    angle = jax.random.uniform(keys[0], (n,), minval=-math.pi / 4, maxval=math.pi / 4)
    scale = jax.random.uniform(keys[1], (n,), minval=0.7, maxval=1.2)
    free = jnp.maximum(canvas - size * scale, 0) / 2
    x, y = free[None] * jax.random.uniform(keys[2], (2, n), minval=-1, maxval=1)
    return Pose(angle, scale, x, y)


def place(
    images: Float[Array | np.ndarray, 'n h w c'], pose: Pose, canvas: int
) -> Float[Array, 'n s s c']:
    """Images on black canvases of canvas x canvas, by interpolation, antialiased if they shrink.

    Args:
      images: Square images.
      pose: Poses of the images.
      canvas: Height and width of the result.
    """
    images = require_floating('images', images)
    n, size = images.shape[:2]
    angle, scale, x, y = (jnp.broadcast_to(jnp.asarray(a, jnp.float32), (n,)) for a in pose)
    # From canvas to image: inverse offset and inverse rotation, in units of half the image.
    cosine, sine, ratio = jnp.cos(angle), jnp.sin(angle), canvas / size / scale
    x, y = 2 * x / canvas, 2 * y / canvas
    theta = jnp.stack(
        [
            ratio * cosine, -ratio * sine, -ratio * (cosine * x - sine * y),
            ratio * sine, ratio * cosine, -ratio * (sine * x + cosine * y),
        ],
        axis=1,
    )  # fmt: skip
    return _sample(images, grids.grid(grids.affine(), theta, (canvas, canvas), False))


def _sample(images, grid):
    grid = grid.astype(jnp.float32)
    return jnp.clip(sampling.grid_sample(images, grid, align_corners=False, antialias=2), 0, 1)


def _shrunk(key, n):
    return jax.random.uniform(key, (n, 1, 1), minval=0.75, maxval=1.0)


def _projected(key, images):
    """The projective map from canvas to image that maps the moved corners to the image's corners."""
    n, size = images.shape[:2]
    scale_key, corner_key = jax.random.split(key)
    corners = jnp.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])[None]
    noise = jax.random.normal(corner_key, (n, 4, 2)) * (2 * CORNER_STD / SIZE)
    moved = corners * _shrunk(scale_key, n) + noise
    theta = homography(moved, jnp.broadcast_to(corners, moved.shape))
    return _sample(images, grids.grid(grids.projective(), theta, (size, size), False))


def homography(
    sources: Float[Array, 'n 4 2'], targets: Float[Array, 'n 4 2']
) -> Float[Array, 'n 8']:
    """Parameters of the projective map from four points to four others.

    They are not finite if three of the sources lie on a line; if the quadrilaterals have different orientations,
    points may lie behind the horizon, where images are black.
    """
    x, y = sources[..., 0], sources[..., 1]
    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    u, v = targets[..., 0], targets[..., 1]
    rows_u = jnp.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    rows_v = jnp.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    system = jnp.concatenate([rows_u, rows_v], axis=1)
    return jnp.linalg.solve(system, jnp.concatenate([u, v], axis=1)[..., None])[..., 0]


def _warped(key, images):
    n, size = images.shape[:2]
    scale_key, control_key = jax.random.split(key)
    spline = grids.thin_plate_spline(4)
    control = jnp.asarray(spline.identity, jnp.float32).reshape(1, -1, 2)
    noise = jax.random.normal(control_key, (n, *control.shape[1:])) * (2 * CONTROL_STD / SIZE)
    theta = (control / _shrunk(scale_key, n) + noise).reshape(n, -1)
    return _sample(images, grids.grid(spline, theta, (size, size), False))


def _cluttered(key, images, canvas):
    """The digit unchanged at an integer position, among patches of other images; the brightest is on top."""
    n, size, _, channels = images.shape
    patch = max(1, round(size * PATCH_SIZE / SIZE))
    digit_key, other_key, patch_key, place_key = jax.random.split(key, 4)
    at = jax.random.randint(digit_key, (n, 2), 0, canvas - size + 1)
    # other images of the batch; the image itself only if it is alone
    shift = jax.random.randint(other_key, (n, NUM_PATCHES), 1, max(n, 2))
    others = (jnp.arange(n)[:, None] + shift) % n
    taken = jax.random.randint(patch_key, (n, NUM_PATCHES, 2), 0, size - patch + 1)
    placed = jax.random.randint(place_key, (n, NUM_PATCHES, 2), 0, canvas - patch + 1)

    def one(image, at, others, taken, placed):
        result = jnp.zeros((canvas, canvas, channels), images.dtype)
        result = jax.lax.dynamic_update_slice(result, image, (at[0], at[1], 0))

        def add(result, part):
            other, (i, j), (row, column) = part
            shape = (1, patch, patch, channels)
            clutter = jax.lax.dynamic_slice(images, (other, i, j, 0), shape)[0]
            under = jax.lax.dynamic_slice(result, (row, column, 0), shape[1:])
            return jax.lax.dynamic_update_slice(
                result, jnp.maximum(under, clutter), (row, column, 0)
            ), None

        return jax.lax.scan(add, result, (others, taken, placed))[0]

    return jax.vmap(one)(images, at, others, taken, placed)
