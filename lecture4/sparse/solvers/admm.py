"""Alternating directions: the fast solver for codes that are not very sparse, and for accelerators."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.objective import (
    L1,
    bfloat16_product,
    check_codes,
    check_inputs,
    check_penalty_weight,
    product,
)
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.certificate import Certifier
from lecture4.sparse.solvers.polish import certify_and_polish, gram_for
from lecture4.sparse.solvers.proximal import initial_codes, load
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import check_tile, no_iterations, run_chunk, solve_in_tiles


def admm(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    init: Float[Array | np.ndarray, 'n k'] | None = None,
    rho: Real[ArrayLike, '...'] | None = None,
    relaxation: float = 1.7,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 1000,
    check_every: Int[ArrayLike, ''] = 10,
    bfloat16_iterations: int = 0,
    polish: bool = False,
    tile: int | None = None,
) -> Solution:
    """Over-relaxed alternating directions with one factorization for all signals, for any convex penalty.

    The factorization is the eigendecomposition of DD' or D'D, whichever is smaller. It serves any rho, so each signal
    has its own:
        rho_i = 2 * mean ||d_j||^2 * sqrt(min(1, weight / max_l1_penalty_i)),
    small for a signal to which many atoms will contribute, and invariant when signals and weight are scaled together.
    Codes are the thresholded variable, so zeros are exact.

    In float32 a relative gap below about 1e-6 may be out of reach; fista goes lower, and so does
    `polish`, which at every check solves for the codes that are not zero (L1 and non-negative
    only). With it the gap is nearly always at rounding once the support is right.

    Stopping, compilation and errors are those of `fista`.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      penalty_weight: Weight of the penalty, a scalar, [k], [n, 1] or [n, k], positive.
      penalty: Convex penalty with a gap.
      init: Initial codes; None takes zeros.
      rho: Step size, positive, a scalar or [n, 1]; None takes the rule above.
      relaxation: Over-relaxation, a Python number between 0 and 2.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of iterations for each signal.
      check_every: Number of iterations between two checks.
      bfloat16_iterations: Number of first iterations with products in bfloat16, for accelerators; 10 to 15 lose
        nothing. The others and every check are at full precision.
      polish: Whether to solve for the codes on their support at every check.
      tile: As in fista.

    Raises:
      TypeError: As in fista.
      ValueError: As in fista, and for a penalty without a gap or a rho of another shape.

    References:
      Boyd et al. 2011, sections 3.4.3 and 6.4; Eckstein & Bertsekas 1992 (relaxation).
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    check_tile(tile)
    if rho is not None:
        rho = jnp.asarray(rho, x.dtype)
        rho = rho.reshape((1,) * (2 - rho.ndim) + rho.shape)
        if rho.shape not in ((1, 1), (x.shape[0], 1)):
            raise ValueError(
                f'rho of shape {rho.shape}; expected a scalar or [{x.shape[0]}, 1], one per signal'
            )
    if penalty.gap is None:
        raise ValueError('admm needs a convex penalty with a duality gap; use fista for this one')
    init = None if init is None else check_codes(init, x, D)
    return _admm(
        x,
        D,
        weight,
        init,
        rho,
        tolerance,
        max_iterations,
        check_every,
        penalty=penalty,
        relaxation=relaxation,
        bfloat16_iterations=bfloat16_iterations,
        polish=polish,
        tile=tile,
    )


@functools.partial(
    jax.jit, static_argnames=('penalty', 'relaxation', 'bfloat16_iterations', 'polish', 'tile')
)
def _admm(
    x,
    D,
    weight,
    init,
    rho,
    tolerance,
    max_iterations,
    check_every,
    *,
    penalty,
    relaxation,
    bfloat16_iterations,
    polish,
    tile,
):
    x, D, weight, init, rho = vary_together(x, D, weight, init, rho)
    factors = factorize(D)
    gram = gram_for(D, penalty) if polish else None

    def make(x, weight, init, rho, times=product):
        return admm_steps(x, D, weight, init, rho, factors, relaxation, penalty, times)

    def examine(x, weight, codes, iterations):
        certifier = Certifier(x, D, weight, penalty, 1.0, tolerance)
        return certify_and_polish(certifier.certify, gram, codes, weight, iterations)

    def start(x, weight, init, rho):
        times = bfloat16_product if bfloat16_iterations else product
        step, codes, s = make(x, weight, init, rho, times)
        if bfloat16_iterations:
            s = lax.fori_loop(0, bfloat16_iterations, lambda _, s: step(s), s)
        certified, status = examine(x, weight, codes(s), no_iterations(x) + bfloat16_iterations)
        return (s, certified), status

    def advance(data, state, status):
        x, weight, _, rho = data
        step, codes, _ = make(x, weight, None, rho)
        s, iterations = run_chunk(step, state[0], status, max_iterations, check_every)
        certified, status = examine(x, weight, codes(s), iterations)
        return (s, certified), status

    data = (x, weight, init, rho)
    return solve_in_tiles(start, advance, lambda state: state[1], data, tile, max_iterations)


class Factors(NamedTuple):
    """D'(DD' + rho)^-1 (x - D q) = ((project(x) - damping * q V') / (values + rho)) V in rows.

    Attributes:
      project: [d, m], m = min(d, k).
      damping: [1, m].
      values: [1, m] the eigenvalues of DD' (or D'D).
      V: [m, k].
    """

    project: Float[Array, 'd m']
    damping: Float[Array, '1 m']
    values: Float[Array, '1 m']
    V: Float[Array, 'm k']


def factorize(D: Float[Array, 'd k']) -> Factors:
    """The eigendecomposition that serves every signal and every rho."""
    d, k = D.shape
    if d <= k:
        values, U = jnp.linalg.eigh(product(D, D.T))
        values = jnp.maximum(values, 0)[None, :]
        return Factors(U, jnp.ones_like(values), values, product(U.T, D))
    values, W = jnp.linalg.eigh(product(D.T, D))
    values = jnp.maximum(values, 0)[None, :]
    return Factors(product(D, W), values, values, W.T)


def admm_steps(
    x: Float[Array, 'n d'],
    D: Float[Array, 'd k'],
    weight: Float[Array, '_ _'],
    init: Float[Array, 'n k'] | None,
    rho: Float[Array, '_ 1'] | None,
    factors: Factors,
    relaxation: float,
    penalty: Penalty = L1,
    times: Callable[..., Any] = product,
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Any]:
    """One iteration (state -> state), state -> codes, and the initial state.

    Args:
      x: Signals.
      D: Dictionary.
      weight: Weight of the penalty, [1 or n, 1 or k].
      init: Initial codes; None takes zeros.
      rho: Step size; None takes the rule in `admm`.
      factors: Factors of D.
      relaxation: Over-relaxation, between 0 and 2.
      penalty: Convex penalty.
      times: Matrix product.
    """
    # The usual pair (z, scaled dual v) is carried as s = z + v: z is the soft threshold of s and v
    # the difference. One iteration is then one array in and out.
    correlation = product(x, D)
    if rho is None:
        fraction = 1 / jnp.maximum(load(correlation, weight), 1)
        energy = jnp.sum(D * D) / D.shape[1]
        rho = 2 * jnp.where(energy > 0, energy, 1) * jnp.sqrt(jnp.maximum(fraction, 1e-4))
    threshold = weight / rho
    target = product(x, factors.project)
    shrink = 1 / (factors.values + rho)

    def codes(s):
        return penalty.prox(s, jnp.broadcast_to(threshold, s.shape))

    def step(s):
        z = codes(s)
        v = s - z
        q = z - v
        u = q + times((target - factors.damping * times(q, factors.V.T)) * shrink, factors.V)
        return relaxation * u + (1 - relaxation) * z + v

    z = initial_codes(correlation, weight, init, penalty)
    if init is None:
        return step, codes, vary_like(z, (correlation, threshold))
    v = product(x - product(z, D.T), D) / rho
    if penalty != L1:
        return step, codes, z + v
    # The dual variable of the codes: on the boundary where they are not zero.
    v = jnp.clip(v, -threshold, threshold)
    return step, codes, z + jnp.where(z == 0, v, jnp.sign(z) * threshold)
