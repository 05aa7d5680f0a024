"""Sampling grids: the input position of each output point, for a transformation with a few parameters.

A `Transformation` maps parameters, which a localization network predicts for each example, and points of the output
to points of the input, both normalized as in `ops.sampling`: (x, y) from -1 to 1. Grids of equal parameters agree in
either convention of `align_corners`, which only says where the output's pixels are.

    affine()              6  [[t1, t2, t3], [t4, t5, t6]] row by row, times (x, y, 1); 12 in a volume
    attention()           3  (s, tx, ty): a scale and a translation, the crop of the paper's section 3.2
    projective()          8  the 3 x 3 matrix row by row, its last entry 1; divided by the third coordinate
    thin_plate_spline()   2 K  the input positions of K control points, (x1, y1, x2, y2, ...)
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from lecture4.ops.prox import require_floating

HORIZON = 1e-6  # smallest third coordinate of a projection that still lies in front of the camera


class Transformation(NamedTuple):
    """A family of maps from the output's points to the input's.

    Attributes:
      name: Name for error messages.
      identity: Parameters [t] of the identity, float64.
      apply: (theta [*batch, t], points [p, axes] of numpy) -> points [*batch, p, axes]; use `grid` or
        `transform`, which check their arguments.
      axes: 2 for images, 3 for volumes.
    """

    name: str
    identity: np.ndarray
    apply: Callable[[Array, np.ndarray], Array]
    axes: int = 2


def grid(
    transformation: Transformation,
    theta: Float[ArrayLike, '*batch t'],
    size: tuple[int, ...],
    align_corners: bool = True,
) -> Float[Array, '*grid']:
    """The input point of every output pixel, for `sampling.grid_sample`.

    Parameters that are NaN make only the points of their example NaN. Degenerate maps (of zero area) are allowed: all
    points lie on a line, or coincide.

    Args:
      transformation: A transformation of this module, or another one.
      theta: Parameters of the transformation, in float32 or wider; affine matrices [*batch, 2, 3] as in torch's
        affine_grid have to be reshaped to [*batch, 6].
      size: Height and width of the output; depth, height and width in a volume.
      align_corners: Whether -1 and 1 are the centers of the corner pixels, or their outer edges.

    Raises:
      TypeError: `theta` is an integer array.
      ValueError: The number of parameters is wrong; a size is 0, or the number of sizes differs from the number of
        axes.

    References:
      Jaderberg et al. 2015, section 3.2.
    """
    size = tuple(size)
    sources = transform(transformation, theta, pixel_centers(size, align_corners))
    return sources.reshape(*sources.shape[:-2], *size, len(size))


def transform(
    transformation: Transformation,
    theta: Float[ArrayLike, '*batch t'],
    points: Float[ArrayLike, 'p d'],
) -> Float[Array, '*batch p d']:
    """The input positions for points of the output, both (x, y) or (x, y, z) from -1 to 1.

    Args:
      transformation: As in `grid`.
      theta: As in `grid`.
      points: Points of the output, a NumPy array (not traced).

    Raises:
      TypeError, ValueError: As in `grid`.
    """
    theta = require_floating('theta', theta)
    wanted = len(transformation.identity)
    if not theta.ndim or theta.shape[-1] != wanted:
        hint = ''
        if theta.ndim > 1 and math.prod(theta.shape[-2:]) == wanted:
            hint = f'; use theta.reshape({(*theta.shape[:-2], wanted)})'
        raise ValueError(
            f'{transformation.name}: expected {wanted} parameters in the last axis of theta, got shape '
            f'{theta.shape}{hint}'
        )
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != transformation.axes:
        raise ValueError(
            f'{transformation.name}: expected points [p, {transformation.axes}] (of an output with as many '
            f'axes), got {points.shape}'
        )
    return transformation.apply(theta, points)


def pixel_centers(size: tuple[int, ...], align_corners: bool = True) -> np.ndarray:
    """Normalized points [p, d] of the pixels of an image, (x, y[, z]), in the order of its rows; float64.

    Raises:
      ValueError: A size is below 1, or there are not two or three axes.
    """
    if len(size) not in (2, 3) or min(size) < 1:
        raise ValueError(
            f'expected an output size of at least 1 x 1, or 1 x 1 x 1 for volumes, got {size}'
        )
    axes = []
    for n in size:
        i = np.arange(n)
        if not align_corners:
            axes.append((2 * i + 1) / n - 1)
        else:  # a single pixel lies at the center, as in torch
            axes.append(2 * i / (n - 1) - 1 if n > 1 else np.zeros(1))
    mesh = np.meshgrid(*axes, indexing='ij')
    return np.stack([a.ravel() for a in reversed(mesh)], axis=-1)


def outline(n: int = 1) -> np.ndarray:
    """Points [4 n, 2] on the border of a 2-D output, clockwise from (-1, -1): n per side.

    `transform` maps them to the outline of the sampled region.
    """
    side = np.linspace(-1, 1, n, endpoint=False)
    end = np.ones(n)
    sides = [(side, -end), (end, side), (-side, end), (-end, -side)]
    return np.concatenate([np.stack(points, axis=1) for points in sides])


def affine(axes: int = 2) -> Transformation:
    """All affine maps of the plane (6 parameters) or of space (12): the paper's equation 1."""
    identity = np.eye(axes, axes + 1).ravel()

    def apply(theta, points):
        matrix = theta.reshape(*theta.shape[:-1], axes, axes + 1)
        return _affine_points(matrix, points)

    return Transformation('affine', identity, apply, axes)


def attention() -> Transformation:
    """A scale and a translation, (s, tx, ty): the paper's equation 2."""

    def apply(theta, points):
        scaled = theta[..., None, :1] * _constant(points, theta, 1)
        return scaled + theta[..., None, 1:]

    return Transformation('attention', np.array([1.0, 0.0, 0.0]), apply)


def projective() -> Transformation:
    """All projective maps of the plane, [[t1, t2, t3], [t4, t5, t6], [t7, t8, 1]].

    The third coordinate is that of a camera in front of the plane: where it is below HORIZON, points are infinite, so
    that a sampler reads the padding and not the image mirrored a second time.
    """

    def apply(theta, points):
        matrix = jnp.concatenate([theta, jnp.ones_like(theta[..., :1])], axis=-1)
        homogeneous = _affine_points(matrix.reshape(*theta.shape[:-1], 3, 3), points)
        depth = homogeneous[..., 2:]
        behind = depth < HORIZON
        finite = homogeneous[..., :2] / jnp.where(behind, 1, depth)
        return jnp.where(behind, jnp.inf, finite)

    return Transformation('projective', np.eye(3).ravel()[:8], apply)


def thin_plate_spline(
    control_points: Float[np.ndarray, 'k 2'] | int = 4,
) -> Transformation:
    """The smoothest maps from control points of the output to points of the input given by theta.

    f minimizes the integral of f_xx^2 + 2 f_xy^2 + f_yy^2 among all maps with f(control point k) =
    (theta[2 k], theta[2 k + 1]). It is linear in theta: a matrix [p, k] that depends on nothing else is computed at
    tracing time. The unit and base of its kernel r^2 log r^2 do not affect f.

    Args:
      control_points: Points (x, y) of the output; an int k stands for k x k points from -1 to 1, row by row (4 x 4 in
        the paper); theta has the same order.

    Raises:
      ValueError: There are fewer than three points, points are equal, or all lie on a line.

    References:
      Bookstein 1989; Jaderberg et al. 2015, section 3.2.
    """
    if isinstance(control_points, int):
        ends = np.linspace(-1, 1, control_points) if control_points > 1 else np.zeros(1)
        control_points = np.array([(x, y) for y, x in itertools.product(ends, ends)])
    control = np.asarray(control_points, np.float64)
    k = len(control)
    if control.ndim != 2 or control.shape[1] != 2 or not np.isfinite(control).all():
        raise ValueError(f'expected finite control points [k, 2], got shape {control.shape}')
    if len(np.unique(control, axis=0)) < k:
        raise ValueError('control points of the thin plate spline are not all different')
    if k < 3 or np.linalg.matrix_rank(control - control.mean(0), tol=1e-6) < 2:
        raise ValueError(
            f'the {k} control points of the thin plate spline lie on a line; expected at least three '
            'that span the plane'
        )
    system = np.zeros((k + 3, k + 3))
    system[:k] = _spline_basis(control, control)
    system[k:, :k] = system[:k, k:].T

    def apply(theta, points):
        # basis(points) @ inverse(system), of which the last three right-hand sides are zero
        weights = np.linalg.solve(system, _spline_basis(points, control).T)[:k].T
        # As a displacement, so that the identity is exact in any precision.
        moved = (theta - _constant(control.ravel(), theta)).reshape(*theta.shape[:-1], k, 2)
        moved = jnp.matmul(_constant(weights, theta, 1), moved, precision=lax.Precision.HIGHEST)
        return _constant(points, theta, 1) + moved

    return Transformation('thin plate spline', control.ravel(), apply)


def compose_affine(
    first: Float[ArrayLike, '*batch 6'], second: Float[ArrayLike, '*batch 6']
) -> Float[Array, '*batch 6']:
    """Parameters of the map first(second(x)): sampling by `first`, then sampling the result by `second`.

    It composes grids rather than images, so that one interpolation suffices instead of two.
    """
    a, b = _matrices(first), _matrices(second)
    linear = jnp.matmul(a[..., :2], b[..., :2], precision=lax.Precision.HIGHEST)
    shift = jnp.matmul(a[..., :2], b[..., 2:], precision=lax.Precision.HIGHEST) + a[..., 2:]
    return jnp.concatenate([linear, shift], axis=-1).reshape(*linear.shape[:-2], 6)


def invert_affine(theta: Float[ArrayLike, '*batch 6']) -> Float[Array, '*batch 6']:
    """Parameters of the inverse map: the output position of a point of the input.

    A map of zero area has none: its row is NaN, and no other row is affected.
    """
    matrix = _matrices(theta)
    (a, b), (c, d) = (tuple(jnp.moveaxis(matrix[..., i, :2], -1, 0)) for i in (0, 1))
    area = a * d - b * c
    area = jnp.where(area == 0, jnp.nan, area)[..., None, None]
    rows = [jnp.stack([d, -b], axis=-1), jnp.stack([-c, a], axis=-1)]
    inverse = jnp.stack(rows, axis=-2) / area
    shift = -jnp.matmul(inverse, matrix[..., 2:], precision=lax.Precision.HIGHEST)
    return jnp.concatenate([inverse, shift], axis=-1).reshape(*inverse.shape[:-2], 6)


def rotation_angle(theta: Float[ArrayLike, '*batch 6']) -> Float[Array, '*batch']:
    """Angle in radians of the rotation nearest to an affine map: positive turns x towards y."""
    matrix = _matrices(theta)
    sine, cosine = matrix[..., 1, 0] - matrix[..., 0, 1], matrix[..., 0, 0] + matrix[..., 1, 1]
    return jnp.arctan2(sine, cosine)


def _matrices(theta):
    theta = require_floating('theta', theta)
    if not theta.ndim or theta.shape[-1] != 6:
        raise ValueError(f'expected affine parameters [*batch, 6], got shape {theta.shape}')
    return theta.reshape(*theta.shape[:-1], 2, 3)


@jax.custom_jvp
@jax.jit
def _affine_points(matrix, points):
    """Matrix [*batch, r, d + 1] times (point, 1) for points [p, d]: [*batch, p, r], in matrix' own precision."""
    columns = _constant(points, matrix)
    y = matrix[..., None, :, -1]
    for axis in reversed(range(points.shape[-1])):
        y = y + columns[..., axis, None] * matrix[..., None, :, axis]
    return y


@_affine_points.defjvp
def _affine_tangent(primals, tangents):
    """A product of matrices, since XLA's CPU backend sums the products over points, its transpose, slowly."""
    matrix, points = primals
    ones = jnp.concatenate([points, jnp.ones_like(points[:, :1])], axis=1).astype(matrix.dtype)
    tangent = jnp.einsum('...rd,pd->...pr', tangents[0], ones, precision=lax.Precision.HIGHEST)
    return _affine_points(matrix, points), tangent


def _constant(values, like, more=0):
    """An array of numpy in the type of `like`, with leading axes of 1 up to its rank, or `more` than that."""
    values = jnp.asarray(values, like.dtype)
    return values.reshape((1,) * (like.ndim + more - values.ndim) + values.shape)


def _spline_basis(points, control):
    """[p, k + 3]: the kernel from every control point, then 1, x, y."""
    squares = np.sum((points[:, None] - control[None]) ** 2, axis=-1)
    kernel = squares * np.log(np.where(squares > 0, squares, 1))
    return np.concatenate([kernel, np.ones((len(points), 1)), points], axis=1)
