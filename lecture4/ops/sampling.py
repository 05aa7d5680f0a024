"""Samplers of images at any points: bilinear, nearest, or any separable kernel, in 2-D and in volumes.

Points are (x, y) or (x, y, z): x along columns, y along rows, z along the first axis of a volume, the order of
torch's grid_sample. In pixel coordinates pixel i of an axis lies at i. In normalized coordinates an axis runs
from -1 to 1, and `align_corners` (torch's term) says where these ends lie:

    True    at the centers of the first and the last pixel: x pixels = (x + 1) (w - 1) / 2. The paper's
            own code, and torch before 1.3.
    False   at their outer edges: x pixels = ((x + 1) w - 1) / 2. torch's default since.

The paper says only that coordinates are normalized within the image's bounds. Layers that multiply by w / 2 without
the shift of half a pixel do not reproduce an image under the identity.

On a CPU, `grid_sample` takes bilinear samples of float32 images of one channel by machine code where numba is
installed, with padding 'zeros': see `ops.bilinear_cpu`.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lecture4.ops import bilinear_cpu
from lecture4.ops.interpolate import Method, interpolate
from lecture4.ops.prox import require_floating
from lecture4.ops.varying import vary_together

Padding = Literal['zeros', 'edge', 'reflect', 'symmetric']
PADDINGS = ('zeros', 'edge', 'reflect', 'symmetric')
FARTHEST = 2.0**30  # largest number of pixels, so that positions fit in int32
TORCH_PADDINGS = {'border': 'edge', 'reflection': 'reflect'}


class Kernel(NamedTuple):
    """A separable sampling kernel: the k of the paper's equation 3.

    Attributes:
      weight: Weight as an elementwise function of the distance from a point to a pixel along one axis, in pixels.
      radius: Integer number of pixels beyond which `weight` is zero (or treated as zero).
    """

    weight: Callable[[Array], Array]
    radius: int


def cubic(a: float = -0.75) -> Kernel:
    """Keys' cubic convolution kernel; a = -0.75 is torch's 'bicubic', a = -0.5 is third-order exact.

    References:
      Keys 1981, eq. 4.
    """

    def weight(t):
        t = jnp.abs(t)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return jnp.where(t <= 1, near, jnp.where(t < 2, far, 0))

    return Kernel(weight, 2)


def _triangle(t):
    return jnp.maximum(1 - jnp.abs(t), 0)


def grid_sample(
    images: Float[ArrayLike, '*image'],
    grid: Float[ArrayLike, '*grid'],
    kernel: Literal['bilinear', 'nearest'] | Kernel = 'bilinear',
    padding: Padding = 'zeros',
    *,
    align_corners: bool = True,
    antialias: int = 1,
    method: Method = 'auto',
) -> Float[Array, '*out']:
    """Values of images at the points of a grid in normalized coordinates.

    The same numbers, and gradients, as torch's grid_sample with mode 'bilinear', 'nearest' or (`cubic()`)
    'bicubic' and padding_mode 'zeros', 'border' (here 'edge') or 'reflection' (here 'reflect').

    Args:
      images: [*batch, h, w, c], or volumes [*batch, d, h, w, c].
      grid: [*batch, *out, 2], or [*batch, *out, 3] for volumes, with the same leading axes; see the module's
        docstring for the order and units of the last axis.
      kernel: As in `sample`.
      padding: As in `sample`, except that 'reflect' is about the ends of the normalized range: `sample`'s 'reflect'
        with align_corners, otherwise its 'symmetric'.
      align_corners: Where -1 and 1 lie, see the module's docstring.
      antialias: As in `sample`.
      method: As in `interpolate`.

    Returns:
      [*batch, *out, c], of the dtype of `images`.

    Raises:
      TypeError, ValueError: As in `sample`.

    References:
      Jaderberg et al. 2015, section 3.3.
    """
    images, grid = require_floating('images', images), require_floating('grid', grid)
    size = _spatial_size(images, grid)
    if padding == 'reflect' and not align_corners:
        padding = 'symmetric'
    is_default = kernel == 'bilinear' and antialias == 1 and method == 'auto'
    if is_default and bilinear_cpu.applies(images, grid, padding):
        return _bilinear(*vary_together(images, grid), bool(align_corners))
    positions = to_pixels(grid, size, align_corners)
    return sample(images, positions, kernel, padding, antialias=antialias, method=method)


@bilinear_cpu.accelerated
def _bilinear(images, grid, align_corners):
    return sample(images, to_pixels(grid, images.shape[-3:-1], align_corners))


def sample(
    images: Float[ArrayLike, '*image'],
    positions: Float[ArrayLike, '*positions'],
    kernel: Literal['bilinear', 'nearest'] | Kernel = 'bilinear',
    padding: Padding = 'zeros',
    *,
    antialias: int = 1,
    method: Method = 'auto',
) -> Float[Array, '*out']:
    """Values of images at points in pixel coordinates.

    At integer positions within the image the values are exactly the pixels. A point that is NaN yields NaN and does
    not affect other points; an infinite point lies outside.

    Gradients: with respect to images, exact. With respect to positions, the bilinear kernel has at an integer
    position (where the identity puts all points) the right-hand difference, pixel i + 1 minus pixel i, and 0 at and
    beyond the first and the last pixel with 'edge' and the reflections, all as in torch. (The paper's equation 7
    would give pixel i alone there, which is not between the two slopes.) Only pixels under the kernel contribute.
    With 'nearest' positions have no gradient. Reverse mode only, unless method is 'matrix'.

    Args:
      images: [*batch, h, w, c], or volumes [*batch, d, h, w, c].
      positions: [*batch, *out, 2 or 3] with the same leading axes, in pixels; float32 or wider, not rounded to the
        dtype of `images` (bfloat16 has exact integers only up to 256).
      kernel: 'bilinear'; 'nearest', halves to the even pixel; or a `Kernel`, whose weights are not normalized.
      padding: Values outside the image: 'zeros'; 'edge', the nearest pixel; 'reflect', the image mirrored about the
        centers of its outermost pixels; 'symmetric', about their edges.
      antialias: Largest shrinking factor, an integer, up to which the kernel is widened according to the local scale
        of the points, so that a sample is a mean over the area it represents (as in jax.image.resize). 1 is the
        paper's sampler, which skips pixels. Takes (2 r antialias)^2 taps per point.
      method: As in `interpolate`.

    Returns:
      [*batch, *out, c], of the dtype of `images`.

    Raises:
      TypeError: Images or positions are integers.
      ValueError: The shapes do not fit, there are no pixels or no points, or an option is unknown.

    References:
      Jaderberg et al. 2015, eqs. 3 to 7.
    """
    images, positions = require_floating('images', images), require_floating('positions', positions)
    size = _spatial_size(images, positions)
    _check_options(kernel, padding, antialias)
    if antialias > 1 and kernel == 'nearest':
        raise ValueError("antialias needs a kernel that can be widened; use 'bilinear', or 1")
    axes = len(size)
    batch, out = images.shape[: -axes - 1], positions.shape[len(images.shape) - axes - 1 : -1]
    dtype = max(positions.dtype, images.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    q = positions.reshape(math.prod(batch), *out, axes)
    scales = _local_scales(q) if antialias > 1 else None
    flat = images.reshape(-1, *size, images.shape[-1]).astype(dtype)
    indices, weights = [], []
    columns = jnp.moveaxis(q, -1, 0).reshape(axes, len(q), -1)
    for axis, length in enumerate(size):
        column = axes - 1 - axis
        points = columns[column]
        scale = None if scales is None else scales[..., column].reshape(points.shape)
        index, weight = _taps(points, length, kernel, padding, scale, antialias)
        indices.append(index)
        weights.append([w.astype(dtype) for w in weight])
    values = interpolate(flat, indices, weights, method)
    return values.reshape(*batch, *out, images.shape[-1]).astype(images.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def shrink(
    images: Float[ArrayLike, 'n h w c'], factor: int, antialias: int = 1
) -> Float[Array, 'n h2 w2 c']:
    """Images sampled at h // factor x w // factor points, which include the corner pixels.

    Args:
      images: Images.
      factor: Factor by which the image shrinks, at least 1.
      antialias: As in `sample`: 1 is the paper's sampler, which skips pixels under a large scale; `factor` averages.

    Raises:
      ValueError: No pixel would be left, or as in `sample`.
    """
    images = require_floating('images', images)
    n, h, w, _ = images.shape
    if factor < 1 or min(h, w) < factor:
        raise ValueError(f'expected a factor from 1 to {min(h, w)}, got {factor}')
    axes = [jnp.linspace(0, length - 1, length // factor, dtype=jnp.float32) for length in (h, w)]
    y, x = jnp.meshgrid(*axes, indexing='ij')
    points = jnp.broadcast_to(jnp.stack([x, y], axis=-1)[None], (n, *x.shape, 2))
    return sample(images, points, padding='edge', antialias=antialias)


def to_pixels(
    grid: Float[ArrayLike, '*grid'], size: tuple[int, ...], align_corners: bool = True
) -> Float[Array, '*grid']:
    """Normalized coordinates as pixel coordinates.

    Args:
      grid: [..., 2 or 3], (x, y[, z]).
      size: Height and width of the image, or depth, height and width of the volume.
      align_corners: Where -1 and 1 lie, see the module's docstring.
    """
    grid = require_floating('grid', grid)
    columns = []
    for axis, length in enumerate(reversed(size)):
        x = grid[..., axis]
        half, shift = ((length - 1) / 2, 0.0) if align_corners else (length / 2, -0.5)
        # Computed from the nearer end, where the difference is exact: far from it x + 1 would be rounded.
        columns.append(jnp.where(x < 0, (x + 1) * half + shift, 2 * half + shift - (1 - x) * half))
    return jnp.stack(columns, axis=-1)


def _taps(q, length, kernel, padding, scale, antialias):
    """Pixels and their weights, each [n, p], of one axis of `length` pixels, for points q [n, p]."""
    radius = 1 if isinstance(kernel, str) else kernel.radius
    reach = radius * antialias
    if padding == 'zeros':  # beyond, the kernel covers only padding
        q = jnp.clip(q, -reach - 1, length + reach)
    elif padding == 'edge':
        q = jnp.clip(q, -FARTHEST, FARTHEST)
    if reach == 1:
        q = _fold(q, length, padding)
    if kernel == 'nearest':
        first, weights = jnp.round(q), [jnp.ones_like(q)]
    elif kernel == 'bilinear' and reach == 1:
        first = jnp.floor(q)
        weights = [1 - (q - first), q - first]
    else:
        first = jnp.floor(q) - (reach - 1)
        weight = _triangle if isinstance(kernel, str) else kernel.weight
        distances = [q - first - tap for tap in range(2 * reach)]
        if scale is None:
            weights = [weight(distance) for distance in distances]
        else:
            scale = jnp.minimum(scale, antialias)
            weights = [weight(distance / scale) for distance in distances]
            total = sum(weights[1:], weights[0])
            weights = [w / total for w in weights]
    is_nan = jnp.isnan(q)
    weights = [jnp.where(is_nan, q, w) for w in weights]
    first = jnp.where(is_nan, 0, first).astype(jnp.int32)
    indices = [first + tap for tap in range(len(weights))]
    if padding == 'zeros':
        # Products, not selects, so that NaN weights stay NaN.
        inside = [((i >= 0) & (i < length)).astype(q.dtype) for i in indices]
        weights = [w * factor for w, factor in zip(weights, inside, strict=True)]
    elif padding != 'edge':
        indices = [_mirror(i, length, padding) for i in indices]
    return [jnp.clip(i, 0, length - 1) for i in indices], weights


def _fold(q, length, padding):
    """Points outside are moved to points within the image that have the same value."""
    if padding == 'zeros':
        return q
    if padding != 'edge':
        low, span = (0, length - 1) if padding == 'reflect' else (-0.5, length)
        if span == 0:
            q = q * 0
        else:
            q = jnp.abs(q - low)
            flips, rest = jnp.floor(q / span), jnp.fmod(q, jnp.asarray(span, q.dtype))
            q = jnp.where(flips % 2 == 0, rest, span - rest) + low
    # No gradient at the ends themselves, unlike jnp.clip.
    return jnp.where(q <= 0, 0, jnp.where(q >= length - 1, length - 1, q))


def _mirror(index, length, padding):
    period = max(2 * (length - 1) if padding == 'reflect' else 2 * length, 1)
    index = index % period
    return jnp.minimum(index, (period if padding == 'reflect' else period - 1) - index)


def _local_scales(q):
    """Distance in image pixels between neighboring points, at least 1, by axis: of q's shape [n, *out, axes]."""
    squares = jnp.zeros_like(q)
    for axis in range(1, q.ndim - 1):
        if q.shape[axis] > 1:
            squares = squares + jnp.asarray(jnp.gradient(q, axis=axis)) ** 2
    return jnp.sqrt(jnp.where((squares > 1) & jnp.isfinite(squares), squares, 1))


def _spatial_size(images, points) -> tuple[int, ...]:
    """(h, w) or (d, h, w) of the images, after a check that shapes fit."""
    axes = points.shape[-1] if points.ndim else 0
    if axes not in (2, 3):
        raise ValueError(
            f'points have shape {points.shape}; expected a last axis of 2, (x, y), or of 3 for volumes'
        )
    batch = images.shape[: -axes - 1]
    if images.ndim < axes + 1 or points.ndim <= len(batch) + 1:
        raise ValueError(
            f'images of shape {images.shape} and points of shape {points.shape} do not fit; expected '
            f'[*batch, {"h, w" if axes == 2 else "d, h, w"}, c] and [*batch, *out, {axes}]'
        )
    if points.shape[: len(batch)] != batch:
        raise ValueError(
            f'images have the leading axes {batch}, points {points.shape[: len(batch)]}; expected the '
            'same (images are [*batch, h, w, c]: channels come last)'
        )
    size = images.shape[-axes - 1 : -1]
    if 0 in images.shape or 0 in points.shape:
        raise ValueError(
            f'expected at least one pixel and one point, got images of shape {images.shape} and points '
            f'of shape {points.shape}'
        )
    return size


def _check_options(kernel, padding, antialias):
    if not isinstance(kernel, Kernel) and kernel not in ('bilinear', 'nearest'):
        raise ValueError(f"expected kernel 'bilinear', 'nearest' or a Kernel, got {kernel!r}")
    if padding not in PADDINGS:
        same = TORCH_PADDINGS.get(padding)
        hint = f"; torch's {padding!r} is {same!r}" if same else ''
        raise ValueError(f'expected padding one of {", ".join(PADDINGS)}, got {padding!r}{hint}')
    if not isinstance(antialias, int) or antialias < 1:
        raise ValueError(f'expected antialias to be an integer of at least 1, got {antialias!r}')
