"""Gradients of codes with respect to signals, dictionary and penalty weight, for any solver.

Where a code is not zero the objective is smooth and its slope vanishes,
    D'(D a - x) + weight phi'(a) = 0 on the support;
where it is zero it stays zero under small changes. So the derivative of the codes is that of a linear system on the
support, and no iteration of the solver has to be stored: memory is proportional to the codes, and the gradient is as
accurate as the codes.

When to use it: for a dictionary learned for a task (task-driven dictionary learning), or a penalty
weight chosen by the gradient of a validation loss. For learning by reconstruction alone
`sparse.dictionary` needs no gradient of codes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.varying import vary_together
from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, check_inputs, check_penalty_weight, product
from lecture4.sparse.penalties import Penalty


def codes(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    solver: Callable[..., solvers.Solution] = solvers.encode,
    penalty: Penalty = L1,
    **options: Any,
) -> Float[Array, 'n k']:
    """The solver's codes, differentiable (in reverse) with respect to x, D and penalty_weight.

    Use a small tolerance: the gradient is that of the minimum, evaluated at the codes. A solver has
    to end with the support of the minimum, as encode does: atoms about to leave the support make the system singular.
    At a minimum whose support is about to change (|d_j'r| = weight_j and a_j = 0, which has probability zero) this is
    one of the one-sided derivatives. If the atoms of a support are linearly dependent, the codes are not determined;
    the gradient is then that of the codes of smallest norm. A signal that is NaN does not influence the gradients of
    others, nor those of D and the weight.

    The backward pass runs conjugate gradients on the support, to rounding: about as many products with D as the
    largest support has atoms, for all signals at once.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      penalty_weight: Weight of the penalty, a scalar, [k], [n, 1] or [n, k], positive.
      solver: One of lecture4.sparse.solvers.
      penalty: Penalty on the codes.
      **options: Options of the solver, as Python values.

    Raises:
      TypeError: As in the solver.
      ValueError: As in the solver.

    Example:
      Atoms trained together with a linear readout of their codes:

          def risk(D, readout):
              a = implicit.codes(x, D, 0.2, tolerance=1e-6)
              return jnp.mean((a @ readout - targets) ** 2)

          by_D, by_readout = jax.grad(risk, argnums=(0, 1))(D, readout)

    References:
      Mairal, Bach & Ponce 2012 (task-driven dictionaries), proposition 1.
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    x, D, weight = vary_together(x, D, weight)
    return _codes((solver, penalty, tuple(sorted(options.items()))), x, D, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _codes(static, x, D, weight):
    solver, penalty, options = static
    return solver(x, D, weight, penalty=penalty, **dict(options)).codes


def _forward(static, x, D, weight):
    a = _codes(static, x, D, weight)
    return a, (a, x, D, weight)


def _backward(static, residuals, cotangent):
    return _gradients(*residuals, cotangent, penalty=static[1])


_codes.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames='penalty')
def _gradients(a, x, D, weight, cotangent, *, penalty):
    valid = jnp.all(jnp.isfinite(a), axis=1, keepdims=True)
    a, x = jnp.where(valid, a, 0), jnp.where(valid, x, 0)
    support = a != 0
    slope = jax.grad(lambda v: jnp.sum(penalty.value(v)))
    inside = jnp.where(support, a, 1)
    first, second = jax.jvp(slope, (inside,), (jnp.ones_like(a),))
    first, second = jnp.where(support, first, 0), jnp.where(support, second, 0)

    def curvature(v):
        return jnp.where(support, product(product(v, D.T), D) + weight * second * v, 0)

    v = _conjugate_gradients(curvature, jnp.where(support & valid, cotangent, 0), D.shape[1])
    residual, Dv = x - product(a, D.T), product(v, D.T)
    by_weight = -v * first
    return (
        jnp.where(valid, Dv, jnp.nan),
        product(residual.T, v) - product(Dv.T, a),
        _sum_to(by_weight, weight.shape),
    )


def _conjugate_gradients(apply, b, max_steps):
    """Solves apply(v) = b for every row separately, to rounding, in at most 2 `max_steps` steps."""
    eps = jnp.finfo(b.dtype).eps
    enough = (eps * eps) * jnp.sum(b * b, axis=1, keepdims=True)

    def unfinished(state):
        n, _, _, _, energy = state
        return (n < 2 * max_steps) & jnp.any(energy > enough)

    def step(state: Any):
        n, v, r, p, energy = state
        q = apply(p)
        curvature = jnp.sum(p * q, axis=1, keepdims=True)
        active = (energy > enough) & (curvature > 0)
        alpha = jnp.where(active, energy / jnp.where(active, curvature, 1), 0)
        v, r = v + alpha * p, r - alpha * q
        new = jnp.where(active, jnp.sum(r * r, axis=1, keepdims=True), 0)
        beta = jnp.where(active, new / jnp.where(active, energy, 1), 0)
        return n + 1, v, r, r + beta * p, new

    energy = jnp.sum(b * b, axis=1, keepdims=True)
    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, energy)
    return lax.while_loop(unfinished, step, start)[1]


def _sum_to(v, shape):
    """The sum of v [n, k] over the axes along which a weight of that shape was broadcast."""
    axes = tuple(
        axis for axis, (size, kept) in enumerate(zip(v.shape, shape, strict=True)) if kept < size
    )
    return jnp.sum(v, axis=axes, keepdims=True)
