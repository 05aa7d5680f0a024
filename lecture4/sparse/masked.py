"""Codes of partly observed signals, such as patches of images with missing pixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from lecture4.ops.linalg import lipschitz
from lecture4.ops.prox import soft_threshold
from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.objective import (
    L1,
    check_inputs,
    check_penalty_weight,
    objective_of_residual,
    product,
)
from lecture4.sparse.penalties import l1_gap
from lecture4.sparse.solvers.certificate import ROUNDING
from lecture4.sparse.solvers.tiling import select


class MaskedCodes(NamedTuple):
    """Codes of partly observed signals with their certificate, as solvers.Solution.

    Attributes:
      codes: [n, k].
      gap: [n] duality gap divided by the objective.
      objective: [n].
      converged: [n], gap <= tolerance.
      limited_by_precision: [n].
    """

    codes: Float[Array, 'n k']
    gap: Float[Array, ' n']
    objective: Float[Array, ' n']
    converged: Bool[Array, ' n']
    limited_by_precision: Bool[Array, ' n']


def masked_codes(
    x: Float[Array | np.ndarray, 'n d'],
    mask: Float[Array | np.ndarray, '_ _'],
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, '...'],
    *,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 1000,
    check_every: Int[ArrayLike, ''] = 10,
) -> MaskedCodes:
    """L1 codes of partly observed signals: the minimum of 0.5 |mask (x - D a)|^2 + weight |a|_1.

    Every signal has a different dictionary, the observed rows of D, so nothing is factorized: the method is
    accelerated proximal gradient, with a restart of the momentum per signal. In one iteration all signals share the
    two products with D. Each stops by its own gap <= tolerance * objective, or <= 2 eps |x|^2 (limited by precision).
    Compiled once per shapes.

    Args:
      x: Signals; values that are masked out have no influence, but must be finite.
      mask: [n, d] of 0 and 1 (or weights in between, which multiply the residual).
      D: Dictionary, atoms in columns.
      l1_penalty: Scalar, [k] or [n, 1], positive.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of iterations, for all signals together.
      check_every: Number of iterations between two checks.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The sizes disagree or the penalty is not positive.

    References:
      Beck & Teboulle 2009; O'Donoghue & Candes 2015 (restart); the gap as in objective.
    """
    check_penalty_weight(l1_penalty)
    x, D, weight = check_inputs(x, D, l1_penalty)
    if mask.shape != x.shape:
        raise ValueError(f'mask of shape {mask.shape} for signals {x.shape}; expected one for each')
    mask = jnp.asarray(mask, x.dtype)
    return _masked_codes(x, mask, D, weight, tolerance, max_iterations, check_every)


@jax.jit
def _masked_codes(x, mask, D, weight, tolerance, max_iterations, check_every):
    x, mask, D, weight = vary_together(x, mask, D, weight)
    x = x * mask
    L = lipschitz(D)
    L = jnp.where(L > 0, L, 1)
    rounding = ROUNDING * jnp.finfo(x.dtype).eps * jnp.sum(x * x, axis=1)

    def residual_of(a):
        return x - mask * product(a, D.T)

    def step(_, state):
        a, y, t = state
        moved = soft_threshold(y + product(mask * residual_of(y), D) / L, weight / L)
        uphill = jnp.sum((y - moved) * (moved - a), axis=1, keepdims=True) > 0
        t_next = jnp.where(uphill, 1, 0.5 * (1 + jnp.sqrt(1 + 4 * t * t)))
        beta = jnp.where(uphill, 0, (t - 1) / t_next)
        return moved, moved + beta * (moved - a), t_next

    def certify(a):
        residual = residual_of(a)
        value = objective_of_residual(residual, a, weight, L1)
        gap = l1_gap(residual, product(mask * residual, D), a, weight)
        return gap, value, gap <= tolerance * value + rounding

    def unfinished(carry):
        _, (gap, _, done), count = carry
        return (count < max_iterations) & jnp.any(jnp.isfinite(gap) & ~done)

    def chunk(carry):
        state, certificate, count = carry
        n_steps = jnp.minimum(check_every, max_iterations - count)
        moved = lax.fori_loop(0, n_steps, step, state)
        # A signal that is done stays unchanged: others do not influence it by taking longer.
        new = (moved, certify(moved[0]))
        return *select(~certificate[2], new, (state, certificate)), count + n_steps

    zero = jnp.zeros((x.shape[0], D.shape[1]), x.dtype)
    start = vary_like((zero, zero, jnp.ones((x.shape[0], 1), x.dtype)), x)
    carry = (start, certify(start[0]), jnp.zeros((), jnp.int32))
    state, (gap, value, done), _ = lax.while_loop(unfinished, chunk, carry)
    converged = gap <= tolerance * value
    tiny = jnp.finfo(x.dtype).tiny
    relative = gap / jnp.maximum(value, tiny)
    return MaskedCodes(state[0], relative, value, converged, done & ~converged)
