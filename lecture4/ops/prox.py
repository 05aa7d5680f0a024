"""Proximal operators of the penalties, and the projection that bounds the atoms of a dictionary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real, Shaped

# Newton converges from both ends in 5 or 6 steps; more are needed near the triple root (scale = 4, v = 3 sqrt 3),
# where the error decreases by only a third per step.
N_NEWTON = 16


def soft_threshold(
    v: Float[ArrayLike, '*batch'], threshold: Real[ArrayLike, '...']
) -> Float[Array, '*batch']:
    """Proximal operator of threshold * |x|: argmin_x 0.5 (x - v)^2 + threshold * |x|, elementwise.

    Gradient: 1 where |v| > threshold, 0 where |v| < threshold, 1/2 at the kink.

    Args:
      v: Input of any shape.
      threshold: Threshold, nonnegative, a scalar or broadcastable to v; a traced negative value is not detected.

    Raises:
      TypeError: v is not floating point.
      ValueError: threshold does not broadcast to v.

    References:
      Beck & Teboulle 2009, eq. 2.6.
    """
    v, threshold = _broadcast('threshold', threshold, v)
    return jnp.maximum(v - threshold, 0) + jnp.minimum(v + threshold, 0)


def log_threshold(
    v: Float[ArrayLike, '*batch'], scale: Real[ArrayLike, '...']
) -> Float[Array, '*batch']:
    """Proximal operator of scale * log(1 + x^2): argmin_x 0.5 (x - v)^2 + scale * log(1 + x^2), elementwise.

    A stationary point is a root of x^3 - v x^2 + (1 + 2 scale) x - v. There are up to three if scale > 4 (otherwise
    the objective is convex); the global minimizer then jumps from the smallest root to the largest as |v| grows. The
    map is odd, and unlike the soft threshold it shrinks a large v by only about 2 scale / v.

    Gradient: by the implicit function theorem, with respect to v and scale; that of the chosen branch
    at a jump.

    Args:
      v: Input of any shape, finite (float32: |v| and scale below 1e18).
      scale: Weight of the penalty, nonnegative and finite, a scalar or broadcastable to v.

    Raises:
      TypeError: v is not floating point.
      ValueError: scale does not broadcast to v.

    References:
      The lecture's penalty log(1 + a^2), of Olshausen & Field 1996; the root finding is ours.
    """
    v, scale = _broadcast('scale', scale, v)
    return _log_threshold(v, jnp.broadcast_to(scale, v.shape))


@jax.custom_jvp
def _log_threshold(v, t):
    # For w = |v| the derivative g(x) = x - w + t h(x), h(x) = 2 x / (1 + x^2), is negative at 0 and
    # positive at w; h is concave below sqrt 3 and convex above. So Newton from 0 ascends to a root below sqrt 3
    # without passing it, and Newton from w descends to a root above. If one of them does not exist, its candidate
    # ends at a point that is not a minimum and loses the comparison.
    w = jnp.abs(v)
    inflection = jnp.asarray(3**0.5, v.dtype)

    def newton(x, low, high):
        u = 1 / (1 + x * x)
        g = x - w + 2 * t * x * u
        slope = 1 + 2 * t * u * (2 * u - 1)
        # Past a fold of g the slope is not positive: the candidate leaves for its far end.
        step = jnp.where(slope > 0, g / jnp.where(slope > 0, slope, 1), jnp.sign(g) * w)
        return jnp.clip(x - step, low, high)

    def body(_, pair):
        below, above = pair
        below = newton(below, jnp.zeros_like(w), jnp.minimum(w, inflection))
        return below, newton(above, jnp.minimum(w, inflection), w)

    below, above = jax.lax.fori_loop(0, N_NEWTON, body, (jnp.zeros_like(w), w))

    # The difference of the two objectives, factored so that a large w does not cancel.
    ratio = (above - below) * (above + below) / (1 + below * below)
    excess = (above - below) * (0.5 * (above + below) - w) + t * jnp.log1p(ratio)
    return jnp.sign(v) * jnp.where(excess < 0, above, below)


@_log_threshold.defjvp
def _log_threshold_jvp(primals, tangents):
    v, t = primals
    v_dot, t_dot = tangents
    x = _log_threshold(v, t)
    u = 1 / (1 + x * x)
    # At a minimum the slope is not negative; it vanishes only at the triple root.
    slope = jnp.maximum(1 + 2 * t * u * (2 * u - 1), jnp.finfo(v.dtype).eps)
    return x, (v_dot - 2 * x * u * t_dot) / slope


def project_ball(
    D: Float[ArrayLike, '*shape'], norm_bound: Real[ArrayLike, ''] = 1.0, axis: int = 0
) -> Float[Array, '*shape']:
    """Project every vector along `axis` whose squared norm exceeds norm_bound onto the sphere of that squared norm.

    Gradient: 1 inside, that of the projection outside; finite at a zero vector.

    Args:
      D: Array of any shape, by default a dictionary [d, k] with its atoms in columns.
      norm_bound: The bound C of ||d_j||^2 <= C, not its root; positive, may be traced.
      axis: Axis along which the norms are taken.

    Raises:
      TypeError: D is not floating point.
    """
    D = require_floating('D', D)
    norm_bound = jnp.asarray(norm_bound, D.dtype)
    energy = jnp.sum(D * D, axis=axis, keepdims=True)
    outside = energy > norm_bound
    shrink = jnp.sqrt(norm_bound / jnp.where(outside, energy, norm_bound))
    return jnp.where(outside, D * shrink, D)


def require_floating(name: str, value: Shaped[ArrayLike, '*shape']) -> Float[Array, '*shape']:
    """The value as a JAX array, checked to be floating point.

    Args:
      name: Name of the value in the error message.
      value: Array or number.

    Raises:
      TypeError: The value is not floating point; the message says how to convert it.
    """
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f'{name} has dtype {value.dtype}, expected a floating dtype; '
            f'convert it, for instance {name}.astype("float32")'
        )
    return value


def _broadcast(name, value, v):
    v = require_floating('v', v)
    value = jnp.asarray(value, v.dtype)
    if value.ndim and jnp.broadcast_shapes(value.shape, v.shape) != v.shape:
        raise ValueError(
            f'{name} of shape {value.shape} does not broadcast to v of shape {v.shape}'
        )
    # Ranks are aligned here: the caller's strict rank promotion need not concern a threshold [k].
    return v, value.reshape((1,) * (v.ndim - value.ndim) + value.shape) if value.ndim else value
