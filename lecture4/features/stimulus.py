"""What a unit answers to most, found by optimisation, and what may change without its noticing.

A response is any function of one input [...] -> scalar, differentiable. Its best stimulus is sought
among inputs of one norm, since most responses grow with it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

FIRST_ANGLE = 0.5  # radians of the first step along the sphere


class Optimum(NamedTuple):
    """Best stimuli of several starts, best first."""

    stimuli: jax.Array  # [m, *shape]
    responses: jax.Array  # [m]
    slopes: jax.Array  # [m] norm of the gradient along the sphere: 0 at a maximum


def best(response: Callable, starts, *, norm=1.0, n_steps: int = 200) -> Optimum:
    """Maximises response(x) over ||x|| = norm by gradient ascent along the sphere.

    Each step goes along a great circle in the direction of steepest ascent; one that would not rise
    is not taken and halves the angle, one that does lengthens it. So responses never fall.

    Shapes  starts [m, *shape], any norm but 0 (random ones, or the examples with the strongest
            responses). Returns Optimum.
    Errors  ValueError for n_steps below 1.
    Source  Erhan, Bengio, Courville & Vincent 2009; Le et al. 2012, section 4.3.
    """
    if n_steps < 1:
        raise ValueError(f'n_steps {n_steps} has to be at least 1')
    shape = starts.shape[1:]
    norm = jnp.asarray(norm, starts.dtype)

    def flat(v):
        return response(v.reshape(shape))

    def ascend(start):
        unit = start.reshape(-1) / jnp.linalg.norm(start)

        def climb(_, carry):
            u, value, angle = carry
            tangent = _tangent(jax.grad(flat)(norm * u), u)
            length = jnp.linalg.norm(tangent)
            tangent = tangent / jnp.where(length > 0, length, 1)
            moved = jnp.cos(angle) * u + jnp.sin(angle) * tangent
            moved = moved / jnp.linalg.norm(moved)
            reached = flat(norm * moved)
            rises = reached > value
            angle = jnp.where(rises, jnp.minimum(1.5 * angle, FIRST_ANGLE), 0.5 * angle)
            return jnp.where(rises, moved, u), jnp.where(rises, reached, value), angle

        first = (unit, flat(norm * unit), jnp.asarray(FIRST_ANGLE, unit.dtype))
        u, value, _ = jax.lax.fori_loop(0, n_steps, climb, first)
        slope = jnp.linalg.norm(_tangent(jax.grad(flat)(norm * u), u))
        return norm * u, value, slope

    stimuli, values, slopes = jax.vmap(ascend)(starts)
    order = jnp.argsort(-values)
    return Optimum(stimuli.reshape(starts.shape)[order], values[order], slopes[order])


def invariances(response: Callable, x):
    """Second derivatives of the response along the sphere at x, and their directions.

    Walking from x by an angle a along direction v, the response is f(x) + norm^2 a^2 c / 2 with c
    the value that belongs to v (at a maximum, where the first derivative is 0). All c are then at
    most 0, and the directions of those nearest to 0 are the ones that the unit does not notice.

    Shapes  x [*shape], d numbers. Returns values [d - 1], descending, and directions
            [d - 1, *shape] of norm 1, orthogonal to x and to one another.
    Cost    d derivatives of the gradient, and eigenvectors of [d, d].
    Source  Berkes & Wiskott 2006, On the analysis and interpretation of inhomogeneous quadratic
            forms as receptive fields, section 4.
    """
    flat_x = x.reshape(-1)
    d = flat_x.shape[0]
    unit = flat_x / jnp.linalg.norm(flat_x)
    flat = lambda v: response(v.reshape(x.shape))  # noqa: E731
    gradient = jax.grad(flat)(flat_x)

    def column(direction):
        return jax.jvp(jax.grad(flat), (flat_x,), (direction,))[1]

    # A few columns at a time: d copies of a network's activations would not fit.
    hessian = jax.lax.map(column, jnp.eye(d, dtype=x.dtype), batch_size=min(d, 64))
    projector = jnp.eye(d, dtype=x.dtype) - jnp.outer(unit, unit)
    radial = jnp.dot(gradient, unit) / jnp.linalg.norm(flat_x)
    bent = projector @ hessian @ projector - radial * projector
    # x itself is moved out of the way, below all others.
    low = 1 + 2 * jnp.linalg.norm(bent)
    values, vectors = jnp.linalg.eigh(0.5 * (bent + bent.T) - low * jnp.outer(unit, unit))
    return values[:0:-1], vectors[:, :0:-1].T.reshape(d - 1, *x.shape)


def walk(x, direction, angles):
    """Stimuli along the great circle from x towards a direction: [m] angles -> [m, *shape].

    direction  [*shape], of norm 1 and orthogonal to x. The norm of x is kept.
    """
    angles = jnp.asarray(angles, x.dtype).reshape((-1,) + (1,) * x.ndim)
    return jnp.cos(angles) * x[None] + jnp.sin(angles) * jnp.linalg.norm(x) * direction[None]


def tuning(response: Callable, x, change: Callable, amounts):
    """Responses to a stimulus changed by each of the amounts, over the response to itself: [m].

    change  (x, amount) -> stimulus: shifted along a side, turned, scaled, ...
    """
    return jax.vmap(lambda amount: response(change(x, amount)))(amounts) / response(x)


def shifted(x, down, right):
    """The picture [h, w, c] moved by that many pixels, zeros where nothing was."""
    return _resampled(x, jnp.eye(2, dtype=x.dtype), jnp.stack([down, right]).astype(x.dtype))


def turned(x, angle):
    """The picture [h, w, c] turned about its middle, counter-clockwise, by radians."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])])
    return _resampled(x, matrix.astype(x.dtype), jnp.zeros(2, x.dtype))


def scaled(x, factor):
    """The picture [h, w, c] enlarged about its middle by a factor > 0."""
    return _resampled(x, jnp.eye(2, dtype=x.dtype) / factor, jnp.zeros(2, x.dtype))


def _resampled(x, matrix, offset):
    """Value at p of the new picture: the old one's at matrix (p - offset), about the middle."""
    h, w, _ = x.shape
    middle = jnp.array([(h - 1) / 2, (w - 1) / 2], x.dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing='ij')).astype(x.dtype)
    at = grid.reshape(2, -1) - (middle + offset)[:, None]
    at = (matrix @ at + middle[:, None]).reshape(2, h, w)
    one = lambda channel: map_coordinates(channel, list(at), order=1, mode='constant')  # noqa: E731
    return jax.vmap(one, in_axes=2, out_axes=2)(x)


def _tangent(gradient, unit):
    return gradient - jnp.dot(gradient, unit) * unit
