"""Proximal maps of the penalties, and the projection that bounds the atoms."""

import jax
import jax.numpy as jnp

# Newton converges from both ends in 5 or 6 steps; the rest serve the neighbourhood of the triple
# root (t = 4, v = 3 sqrt 3), where the error falls by only a third a step.
N_NEWTON = 16


def soft_threshold(v, t):
    """Proximal map of t|x|: argmin_x 0.5 (x - v)^2 + t |x|, elementwise.

    Shapes  v [...] float; t scalar or broadcastable to v. Returns v's shape and dtype.
    Domain  t >= 0 (a traced negative t is not detected).
    Grad    1 where |v| > t, 0 where |v| < t, 1/2 at the kink.
    Errors  TypeError where v is not floating; ValueError where t does not broadcast to v.
    Source  Beck & Teboulle 2009, eq. 2.6.
    """
    v, t = _threshold_arguments(v, t)
    return jnp.maximum(v - t, 0) + jnp.minimum(v + t, 0)


def log_threshold(v, t):
    """Proximal map of t log(1 + x^2): argmin_x 0.5 (x - v)^2 + t log(1 + x^2), elementwise.

    A stationary point is a root of x^3 - v x^2 + (1 + 2 t) x - v. There are up to three where t > 4
    (below, the objective is convex); the global minimiser then jumps from the smallest root to the
    largest as |v| grows. The map is odd, and unlike the soft threshold it shrinks a large v by only
    about 2 t / v.

    Shapes  v [...] float; t scalar or broadcastable to v. Returns v's shape and dtype.
    Domain  t >= 0, v and t finite (float32: |v| and t below 1e18).
    Grad    by the implicit function theorem, in v and t; of the chosen branch at a jump.
    Errors  TypeError where v is not floating; ValueError where t does not broadcast to v.
    Source  The lecture's penalty log(1 + a^2), of Olshausen & Field 1996; the root finding is ours.
    """
    v, t = _threshold_arguments(v, t)
    return _log_threshold(v, jnp.broadcast_to(t, v.shape))


@jax.custom_jvp
def _log_threshold(v, t):
    # For w = |v| the derivative g(x) = x - w + t h(x), h(x) = 2 x / (1 + x^2), is negative at 0 and
    # positive at w; h is concave below sqrt 3 and convex above. So Newton from 0 climbs to a root
    # below sqrt 3 without passing it, and Newton from w descends to a root above. Where one of them
    # does not exist its candidate is left somewhere that is no minimum and loses the comparison.
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


def project_ball(D, norm_bound=1.0, axis=0):
    """Scales down every vector along `axis` whose squared norm exceeds norm_bound onto that sphere.

    Shapes  D [...] float, by default a dictionary [d, k] with its atoms in columns; norm_bound
            scalar (it may be traced). Returns D's shape and dtype.
    Domain  norm_bound > 0: the bound C of ||d_j||^2 <= C, not its root.
    Grad    1 inside, that of the projection outside; finite at a zero vector.
    Errors  TypeError where D is not floating.
    """
    D = require_floating('D', D)
    norm_bound = jnp.asarray(norm_bound, D.dtype)
    energy = jnp.sum(D * D, axis=axis, keepdims=True)
    outside = energy > norm_bound
    shrink = jnp.sqrt(norm_bound / jnp.where(outside, energy, norm_bound))
    return jnp.where(outside, D * shrink, D)


def require_floating(name, value):
    """The array itself; TypeError with the mend where it is not floating point."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f'{name} has dtype {value.dtype}, a floating dtype is wanted; '
            f'convert it, for instance {name}.astype("float32")'
        )
    return value


def _threshold_arguments(v, t):
    v = require_floating('v', v)
    t = jnp.asarray(t, v.dtype)
    if t.ndim and jnp.broadcast_shapes(t.shape, v.shape) != v.shape:
        raise ValueError(f't of shape {t.shape} does not broadcast to v of shape {v.shape}')
    # Ranks are aligned here: the caller's strict rank promotion need not concern a weight [k].
    return v, t.reshape((1,) * (v.ndim - t.ndim) + t.shape) if t.ndim else t
