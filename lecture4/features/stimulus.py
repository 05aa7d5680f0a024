"""The optimal stimulus of a unit, by optimization, and the directions it is invariant to.

A response is any function of one input [...] -> scalar, differentiable. The optimal stimulus is
sought among inputs of one norm, since most responses grow with it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, ArrayLike, Float, Real, Shaped

from lecture4.ops.varying import vary_as_returned

FIRST_ANGLE = 0.5  # radians of the first step along the sphere


class Optimum(NamedTuple):
    """Optimal stimuli from several starts, best first.

    Attributes:
      stimuli: [m, *shape].
      responses: [m].
      gradient_norms: [m] norms of the gradient along the sphere: 0 at a maximum.
    """

    stimuli: Float[Array, 'm *shape']
    responses: Float[Array, ' m']
    gradient_norms: Float[Array, ' m']


def maximize(
    response: Callable[[Any], Any],
    starts: Float[Array, 'm *shape'],
    *,
    norm: Real[ArrayLike, ''] = 1.0,
    n_steps: int = 200,
) -> Optimum:
    """Maximize response(x) over ||x|| = norm by gradient ascent along the sphere.

    Each step follows a great circle in the direction of steepest ascent; a step that would not increase the response
    is rejected and halves the angle, a successful one increases it. So responses never decrease.

    Args:
      response: [*shape] -> scalar.
      starts: Starting points, of any norm but 0 (random ones, or the examples with the strongest responses).
      norm: Norm of the stimuli.
      n_steps: Number of steps, at least 1.

    Raises:
      ValueError: `n_steps` below 1.

    References:
      Erhan, Bengio, Courville & Vincent 2009; Le et al. 2012, section 4.3.
    """
    if n_steps < 1:
        raise ValueError(f'n_steps={n_steps}; expected at least 1')
    shape = starts.shape[1:]
    norm = jnp.asarray(norm, starts.dtype)

    def flat(v):
        return response(v.reshape(shape))

    def ascend(start):
        unit = start.reshape(-1) / jnp.linalg.norm(start)

        def step(_, carry):
            u, value, angle = carry
            tangent = _tangent(jax.grad(flat)(norm * u), u)
            length = jnp.linalg.norm(tangent)
            tangent = tangent / jnp.where(length > 0, length, 1)
            candidate = jnp.cos(angle) * u + jnp.sin(angle) * tangent
            candidate = candidate / jnp.linalg.norm(candidate)
            new = flat(norm * candidate)
            higher = new > value
            angle = jnp.where(higher, jnp.minimum(1.5 * angle, FIRST_ANGLE), 0.5 * angle)
            return jnp.where(higher, candidate, u), jnp.where(higher, new, value), angle

        first = (unit, flat(norm * unit), jnp.asarray(FIRST_ANGLE, unit.dtype))
        first = vary_as_returned(functools.partial(step, 0), first)
        u, value, _ = jax.lax.fori_loop(0, n_steps, step, first)
        slope = jnp.linalg.norm(_tangent(jax.grad(flat)(norm * u), u))
        return norm * u, value, slope

    stimuli, values, slopes = jax.vmap(ascend)(starts)
    order = jnp.argsort(-values)
    return Optimum(stimuli.reshape(starts.shape)[order], values[order], slopes[order])


def invariant_directions(
    response: Callable[[Any], Any], x: Float[Array, '*shape']
) -> tuple[Float[Array, ' m'], Float[Array, 'm *shape']]:
    """Second derivatives of the response along the sphere at x, and their directions.

    Moving from x by an angle a along direction v, the response is f(x) + norm^2 a^2 c / 2 with c the value of v (at a
    maximum, where the first derivative is 0). All c are then at most 0, and the directions of those nearest to 0 are
    the ones the unit is invariant to. Costs d derivatives of the gradient, and eigenvectors of [d, d].

    Args:
      response: [*shape] -> scalar.
      x: Input with d elements.

    Returns:
      Values [d - 1], descending, and directions [d - 1, *shape] of norm 1, orthogonal to x and to
      one another.

    References:
      Berkes & Wiskott 2006, On the analysis and interpretation of inhomogeneous quadratic forms as
      receptive fields, section 4.
    """
    flat_x = x.reshape(-1)
    d = flat_x.shape[0]
    unit = flat_x / jnp.linalg.norm(flat_x)

    def flat(v):
        return response(v.reshape(x.shape))

    gradient = jax.grad(flat)(flat_x)

    def column(direction):
        return jax.jvp(jax.grad(flat), (flat_x,), (direction,))[1]

    # A few columns at a time: d copies of a network's activations would not fit.
    hessian = jax.lax.map(column, jnp.eye(d, dtype=x.dtype), batch_size=min(d, 64))
    projector = jnp.eye(d, dtype=x.dtype) - jnp.outer(unit, unit)
    radial = jnp.dot(gradient, unit) / jnp.linalg.norm(flat_x)
    along_sphere = projector @ hessian @ projector - radial * projector
    # x itself gets an eigenvalue below all others.
    shift = 1 + 2 * jnp.linalg.norm(along_sphere)
    symmetric = 0.5 * (along_sphere + along_sphere.T) - shift * jnp.outer(unit, unit)
    values, vectors = jnp.linalg.eigh(symmetric)
    return values[:0:-1], vectors[:, :0:-1].T.reshape(d - 1, *x.shape)


def great_circle(
    x: Float[Array, '*shape'], direction: Float[Array, '*shape'], angles: Real[ArrayLike, ' m']
) -> Float[Array, 'm *shape']:
    """Stimuli along the great circle from x towards a direction, with the norm of x.

    Args:
      x: A stimulus.
      direction: Direction of norm 1, orthogonal to x.
      angles: Radians.
    """
    angles = jnp.asarray(angles, x.dtype).reshape((-1,) + (1,) * x.ndim)
    return jnp.cos(angles) * x[None] + jnp.sin(angles) * jnp.linalg.norm(x) * direction[None]


def tuning_curve(
    response: Callable[[Any], Any],
    x: Float[Array, '*shape'],
    transform: Callable[[Any, Any], Any],
    amounts: Shaped[Array, ' m'],
) -> Float[Array, ' m']:
    """Responses to a transformed stimulus relative to the response to the stimulus itself.

    Args:
      response: [*shape] -> scalar.
      x: The stimulus.
      transform: (x, amount) -> stimulus: translated, rotated, scaled, ...
      amounts: One for each point of the curve.
    """
    return jax.vmap(lambda amount: response(transform(x, amount)))(amounts) / response(x)


def translate(
    x: Float[Array, 'h w c'], down: Float[Array, ''], right: Float[Array, '']
) -> Float[Array, 'h w c']:
    """The image translated by a number of pixels, with zeros at the border."""
    return _resampled(x, jnp.eye(2, dtype=x.dtype), jnp.stack([down, right]).astype(x.dtype))


def rotate(x: Float[Array, 'h w c'], angle: Float[Array, '']) -> Float[Array, 'h w c']:
    """The image rotated about its center, counter-clockwise, by radians."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])])
    return _resampled(x, matrix.astype(x.dtype), jnp.zeros(2, x.dtype))


def scale(x: Float[Array, 'h w c'], factor: Float[Array, '']) -> Float[Array, 'h w c']:
    """The image enlarged about its center by a factor > 0."""
    return _resampled(x, jnp.eye(2, dtype=x.dtype) / factor, jnp.zeros(2, x.dtype))


def _resampled(x, matrix, offset):
    """The image resampled: its value at p is that of the old image at matrix (p - offset), about the center."""
    h, w, _ = x.shape
    center = jnp.array([(h - 1) / 2, (w - 1) / 2], x.dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing='ij')).astype(x.dtype)
    points = grid.reshape(2, -1) - (center + offset)[:, None]
    points = (matrix @ points + center[:, None]).reshape(2, h, w)

    def interpolate(channel):
        return map_coordinates(channel, list(points), order=1, mode='constant')

    return jax.vmap(interpolate, in_axes=2, out_axes=2)(x)


def _tangent(gradient, unit):
    return gradient - jnp.dot(gradient, unit) * unit
