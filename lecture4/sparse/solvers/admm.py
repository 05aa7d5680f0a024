"""Alternating directions: the fast solver for codes that are not very sparse, and for accelerators."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import (
    L1,
    check,
    check_codes,
    check_positive,
    product,
    rough_product,
)
from lecture4.sparse.solvers.polish import check_and_polish, gram_for
from lecture4.sparse.solvers.proximal import load, start
from lecture4.sparse.solvers.solution import Judge, repeat, solve_in_tiles


def admm(
    x,
    D,
    weight,
    *,
    penalty=L1,
    init=None,
    rho=None,
    relaxation=1.7,
    tolerance=1e-4,
    max_iterations=1000,
    check_every=10,
    early=0,
    polish=False,
    tile=None,
):
    """Alternating directions, over-relaxed, one factorisation for all signals, any convex penalty.

    The factorisation is the eigendecomposition of DD' or D'D, the smaller one. It serves any rho,
    so each signal has its own:
        rho_i = 2 * mean ||d_j||^2 * sqrt(min(1, weight / max_weight_i)),
    small for a signal that many atoms will share, and unchanged when signals and weight are scaled
    together. Codes are the thresholded variable: zeros are exact.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]; init [n, k]; rho scalar or [n, 1].
            Returns Solution.
    Domain  weight > 0, rho > 0, 0 < relaxation < 2. In float32 a relative gap below about 1e-6
            may be out of reach; fista goes lower, and so does polish, which at every check solves
            for the codes that are not zero (L1 and non-negative only). With it the gap is nearly
            always at rounding once the support is right. early: so many iterations to begin with
            in bfloat16, for accelerators; 10 to 15 lose nothing. The rest and every check do not.
    Stop, tile and errors as fista.
    Source  Boyd et al. 2011, sections 3.4.3 and 6.4; Eckstein & Bertsekas 1992 (relaxation).
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    factors = factorise(D)
    if rho is not None:
        rho = jnp.asarray(rho, x.dtype)
        rho = rho.reshape((1,) * (2 - rho.ndim) + rho.shape)
        if rho.shape not in ((1, 1), (x.shape[0], 1)):
            raise ValueError(f'rho of shape {rho.shape} is neither a scalar nor [{x.shape[0]}, 1]')

    if penalty.gap is None:
        raise ValueError('admm wants a convex penalty with a duality gap; use fista for this one')
    gram = gram_for(D, penalty) if polish else None

    def make(x, weight, init, rho, times=product):
        return admm_steps(x, D, weight, init, rho, factors, relaxation, penalty, times)

    def examine(x, weight, found, iterations):
        judge = Judge(x, D, weight, penalty, 1.0, tolerance)
        return check_and_polish(judge.certify, gram, found, weight, iterations)

    def begin(x, weight, init, rho):
        step, codes, s = make(x, weight, init, rho, rough_product if early else product)
        s = lax.fori_loop(0, early, lambda _, s: step(s), s) if early else s
        answer, facts = examine(x, weight, codes(s), jnp.full(x.shape[:1], early, jnp.int32))
        return (s, answer), facts

    def advance(data, state, facts):
        x, weight, _, rho = data
        step, codes, _ = make(x, weight, None, rho)
        s, iterations = repeat(step, state[0], facts, max_iterations, check_every)
        answer, facts = examine(x, weight, codes(s), iterations)
        return (s, answer), facts

    data = (x, weight, init if init is None else check_codes(init, x, D), rho)
    return solve_in_tiles(begin, advance, lambda state: state[1], data, tile, max_iterations)


class _Factors(NamedTuple):
    """D'(DD' + rho)^-1 (x - D q) = ((into(x) - damp * q V') / (values + rho)) V in rows."""

    into: jax.Array  # [d, m], m = min(d, k)
    damp: jax.Array  # [1, m]
    values: jax.Array  # [1, m] the eigenvalues of DD' (or D'D)
    V: jax.Array  # [m, k]


def factorise(D):
    """The eigendecomposition that serves every signal and every rho."""
    d, k = D.shape
    if d <= k:
        values, U = jnp.linalg.eigh(product(D, D.T))
        values = jnp.maximum(values, 0)[None, :]
        return _Factors(U, jnp.ones_like(values), values, product(U.T, D))
    values, W = jnp.linalg.eigh(product(D.T, D))
    values = jnp.maximum(values, 0)[None, :]
    return _Factors(product(D, W), values, values, W.T)


def admm_steps(x, D, weight, init, rho, factors, relaxation, penalty=L1, times=product):
    """One iteration (state -> state), state -> codes, and the first state."""
    # The usual pair (z, scaled dual v) is carried as s = z + v: z is the soft threshold of s and v
    # what it cuts off. One iteration is then one array in and out.
    correlation = product(x, D)
    if rho is None:
        share = 1 / jnp.maximum(load(correlation, weight), 1)
        energy = jnp.sum(D * D) / D.shape[1]
        rho = 2 * jnp.where(energy > 0, energy, 1) * jnp.sqrt(jnp.maximum(share, 1e-4))
    threshold = weight / rho
    target = product(x, factors.into)
    shrink = 1 / (factors.values + rho)

    def codes(s):
        return penalty.prox(s, jnp.broadcast_to(threshold, s.shape))

    def step(s):
        z = codes(s)
        v = s - z
        q = z - v
        u = q + times((target - factors.damp * times(q, factors.V.T)) * shrink, factors.V)
        return relaxation * u + (1 - relaxation) * z + v

    z = start(correlation, weight, init, penalty)
    if init is None:
        return step, codes, z
    v = product(x - product(z, D.T), D) / rho
    if penalty != L1:
        return step, codes, z + v
    # The dual that belongs to the codes: on the boundary where they are not zero.
    v = jnp.clip(v, -threshold, threshold)
    return step, codes, z + jnp.where(z == 0, v, jnp.sign(z) * threshold)
