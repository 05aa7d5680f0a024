"""Codes of many signals through one dictionary, each returned with a certificate.

fista works for every penalty and needs no tuning; admm is the faster one for L1, most of all for
badly conditioned dictionaries; ista is the plain reference. All run on a batch of signals at once
and stop each signal by its own duality gap: nothing that happens to one depends on the others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.ops.linalg import lipschitz
from lecture4.ops.prox import soft_threshold
from lecture4.sparse.objective import (
    L1,
    check,
    check_codes,
    gap_of_residual,
    objective,
    product,
    proximal_residual,
)

# Below this share of ||x||^2 a float gap is rounding: no tolerance asks for less.
ROUNDING = 2.0


class Solution(NamedTuple):
    """Codes and, per signal, what is known about them.

    For L1 the gap is the duality gap divided by the objective: the codes are at most that far, in
    relative terms, above the minimum. For another penalty it is the norm of the proximal gradient
    divided by that of D'x: it says stationary, not globally minimal.
    A signal with a NaN or an infinity, or whose numbers overflow, has NaN codes, gap and objective,
    and converged False.
    """

    codes: jax.Array  # [n, k]
    gap: jax.Array  # [n]
    iterations: jax.Array  # [n] int32, counted until the check that found it converged
    converged: jax.Array  # [n] bool
    objective: jax.Array  # [n]


def fista(
    x,
    D,
    weight,
    *,
    penalty=L1,
    init=None,
    tolerance=1e-4,
    max_iterations=1000,
    check_every=10,
    tile=None,
):
    """Accelerated proximal gradient; each signal's momentum restarts when it points uphill.

    For a penalty other than L1 a step that would raise the objective is replaced by a plain one, so
    the objective never rises; the result is a stationary point that depends on init.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]; init [n, k] (zeros where None).
            Returns Solution. n may be 0.
    Domain  weight > 0; it may be traced. tile: signals solved together (None: all of them); about
            128 keeps a CPU core in its cache, an accelerator wants None or many thousands.
    Stop    gap <= tolerance * objective + 2 eps ||x||^2, looked at every check_every iterations.
            For weight >= max_weight(x, D) the L1 codes are exactly 0.
    Errors  TypeError for integers; ValueError where sizes disagree, naming both.
    Source  Beck & Teboulle 2009, eq. 4.1-4.3; O'Donoghue & Candes 2015, section 3.2 (gradient).
    """
    return _proximal(
        x, D, weight, init, tile, penalty, (tolerance, max_iterations, check_every), momentum=True
    )


def ista(
    x,
    D,
    weight,
    *,
    penalty=L1,
    init=None,
    tolerance=1e-4,
    max_iterations=1000,
    check_every=10,
    tile=None,
):
    """Proximal gradient of constant step: the slow reference whose objective falls every step.

    Shapes, domain, stop and errors as fista.
    Source  Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, eq. 3.1.
    """
    return _proximal(
        x, D, weight, init, tile, penalty, (tolerance, max_iterations, check_every), momentum=False
    )


def admm(
    x,
    D,
    weight,
    *,
    init=None,
    rho=None,
    relaxation=1.7,
    tolerance=1e-4,
    max_iterations=1000,
    check_every=10,
    tile=None,
):
    """Alternating directions for L1, over-relaxed, one factorisation for all signals.

    The factorisation is the eigendecomposition of DD' or D'D, the smaller one. It serves any rho,
    so each signal has its own:
        rho_i = 2 * mean ||d_j||^2 * sqrt(min(1, weight / max_weight_i)),
    small for a signal that many atoms will share, and unchanged when signals and weight are scaled
    together. Codes are the thresholded variable: zeros are exact.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]; init [n, k]; rho scalar or [n, 1].
            Returns Solution.
    Domain  weight > 0, rho > 0, 0 < relaxation < 2. In float32 a relative gap below about 1e-6
            may be out of reach; fista goes lower.
    Stop, tile and errors as fista.
    Source  Boyd et al. 2011, sections 3.4.3 and 6.4; Eckstein & Bertsekas 1992 (relaxation).
    """
    x, D, weight = check(x, D, weight)
    factors = _factorise(D)
    if rho is not None:
        rho = jnp.asarray(rho, x.dtype)
        rho = rho.reshape((1,) * (2 - rho.ndim) + rho.shape)
        if rho.shape not in ((1, 1), (x.shape[0], 1)):
            raise ValueError(f'rho of shape {rho.shape} is neither a scalar nor [{x.shape[0]}, 1]')

    def solve(x, weight, init, rho):
        step, codes, start = _admm_steps(x, D, weight, init, rho, factors, relaxation)
        return _iterate(
            step, codes, start, _certificate(x, D, weight, L1, None, tolerance),
            max_iterations, check_every,
        )  # fmt: skip

    return _tiled(solve, tile, x, weight, init if init is None else check_codes(init, x, D), rho)


SOLVERS = {'fista': fista, 'ista': ista, 'admm': admm}


def encode(x, D, weight, *, method='fista', tile=None, **options):
    """Codes by the named solver, over tiles of signals; options are the solver's own.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]. Returns Solution.
    Errors  ValueError for an unknown method; otherwise as the solver.
    """
    if method not in SOLVERS:
        raise ValueError(f'method {method!r} is not one of {", ".join(map(repr, SOLVERS))}')
    return SOLVERS[method](x, D, weight, tile=tile, **options)


def approximate(x, D, weight, *, penalty=L1, n_iterations=8):
    """Codes [n, k] after a fixed number of iterations from zero, without a certificate.

    What a learner wants in its inner loop: admm for L1, fista for other penalties. The cost is
    known beforehand, vmap costs nothing, and it may be differentiated through.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]. Returns [n, k].
    Errors  as fista.
    """
    x, D, weight = check(x, D, weight)
    if penalty == L1:
        step, codes, start = _admm_steps(x, D, weight, None, None, _factorise(D), 1.7)
    else:
        step, codes, start = _proximal_steps(x, D, weight, None, penalty, _slope(D), True)
    return codes(lax.fori_loop(0, n_iterations, lambda _, state: step(state), start))


def _proximal(x, D, weight, init, tile, penalty, stop, momentum):
    x, D, weight = check(x, D, weight)
    slope = _slope(D)
    tolerance, max_iterations, check_every = stop

    def solve(x, weight, init):
        step, codes, start = _proximal_steps(x, D, weight, init, penalty, slope, momentum)
        certify = _certificate(x, D, weight, penalty, slope[0], tolerance)
        return _iterate(step, codes, start, certify, max_iterations, check_every)

    return _tiled(solve, tile, x, weight, init if init is None else check_codes(init, x, D))


def _slope(D):
    """The Lipschitz constant, and the Gram matrix where a product with it is the cheaper one."""
    L = lipschitz(D)
    d, k = D.shape
    return jnp.where(L > 0, L, 1), product(D.T, D) if k < 2 * d else None


def _proximal_steps(x, D, weight, init, penalty, slope, momentum):
    L, gram = slope
    correlation = product(x, D)
    threshold = jnp.broadcast_to(weight / L, correlation.shape)

    def gradient(y):
        if gram is None:
            return product(product(y, D.T) - x, D)
        return product(y, gram) - correlation

    def step(state):
        a, y, t, value = state
        moved = penalty.prox(y - gradient(y) / L, threshold)
        if not momentum:
            return moved, moved, t, value
        restart = jnp.sum((y - moved) * (moved - a), axis=1, keepdims=True) > 0
        if penalty != L1:
            # Rejected: keep a, and leave the next step to the plain map, which cannot rise.
            risen = objective(x - product(moved, D.T), moved, weight, penalty)[:, None]
            eps = 8 * jnp.finfo(x.dtype).eps
            rejected = (t > 1) & ~(risen <= value * (1 + eps))
            moved, value = jnp.where(rejected, a, moved), jnp.where(rejected, value, risen)
            restart = restart | rejected
        t_next = jnp.where(restart, 1, 0.5 * (1 + jnp.sqrt(1 + 4 * t * t)))
        beta = jnp.where(restart, 0, (t - 1) / t_next)
        return moved, moved + beta * (moved - a), t_next, value

    a = _start(correlation, weight, init, penalty)
    t = jnp.ones((x.shape[0], 1), x.dtype)
    value = t
    if momentum and penalty != L1:
        value = objective(x - product(a, D.T), a, weight, penalty)[:, None]
    return step, lambda state: state[0], (a, a, t, value)


class _Factors(NamedTuple):
    """D'(DD' + rho)^-1 (x - D q) = ((into(x) - damp * q V') / (values + rho)) V in rows."""

    into: jax.Array  # [d, m], m = min(d, k)
    damp: jax.Array  # [1, m]
    values: jax.Array  # [1, m] the eigenvalues of DD' (or D'D)
    V: jax.Array  # [m, k]


def _factorise(D):
    d, k = D.shape
    if d <= k:
        values, U = jnp.linalg.eigh(product(D, D.T))
        values = jnp.maximum(values, 0)[None, :]
        return _Factors(U, jnp.ones_like(values), values, product(U.T, D))
    values, W = jnp.linalg.eigh(product(D.T, D))
    values = jnp.maximum(values, 0)[None, :]
    return _Factors(product(D, W), values, values, W.T)


def _admm_steps(x, D, weight, init, rho, factors, relaxation):
    # The usual pair (z, scaled dual v) is carried as s = z + v: z is the soft threshold of s and v
    # what it cuts off. One iteration is then one array in and out.
    correlation = product(x, D)
    if rho is None:
        share = 1 / jnp.maximum(_load(correlation, weight), 1)
        energy = jnp.sum(D * D) / D.shape[1]
        rho = 2 * jnp.where(energy > 0, energy, 1) * jnp.sqrt(jnp.maximum(share, 1e-4))
    threshold = weight / rho
    target = product(x, factors.into)
    shrink = 1 / (factors.values + rho)

    def codes(s):
        return soft_threshold(s, jnp.broadcast_to(threshold, s.shape))

    def step(s):
        z = codes(s)
        v = s - z
        q = z - v
        u = q + product((target - factors.damp * product(q, factors.V.T)) * shrink, factors.V)
        return relaxation * u + (1 - relaxation) * z + v

    z = _start(correlation, weight, init, L1)
    if init is None:
        return step, codes, z
    # The dual that belongs to the codes: on the boundary where they are not zero.
    v = jnp.clip(product(x - product(z, D.T), D) / rho, -threshold, threshold)
    return step, codes, z + jnp.where(z == 0, v, jnp.sign(z) * threshold)


def _load(correlation, weight):
    """max_j |d_j'x| / weight_j, [n, 1]: at most 1 where the L1 codes are 0."""
    ratio = jnp.where(correlation == 0, 0, jnp.abs(correlation) / weight)
    return jnp.max(ratio, axis=1, keepdims=True, initial=0)


def _start(correlation, weight, init, penalty):
    if init is None:
        return jnp.zeros_like(correlation)
    if penalty != L1:
        return init
    # A warm start at a solution that is 0 would approach it without ever being it.
    zero = _load(correlation, weight) <= 1 + 8 * jnp.finfo(correlation.dtype).eps
    return jnp.where(zero, 0, init)


def _certificate(x, D, weight, penalty, L, tolerance):
    """Makes codes -> (objective, relative gap, converged), each [n], at full precision."""
    tiny = jnp.finfo(x.dtype).tiny
    eps = ROUNDING * jnp.finfo(x.dtype).eps
    scale = jnp.sum(x * x, axis=1)
    if penalty != L1:
        scale = jnp.linalg.norm(product(x, D), axis=1)

    def certify(a):
        residual = x - product(a, D.T)
        correlation = product(residual, D)
        value = objective(residual, a, weight, penalty)
        if penalty == L1:
            gap = gap_of_residual(residual, correlation, a, weight)
            return value, gap / jnp.maximum(value, tiny), gap <= tolerance * value + eps * scale
        gap = proximal_residual(correlation, a, weight, penalty, 1 / L)
        return value, gap / jnp.maximum(scale, tiny), gap <= (tolerance + eps) * scale

    return certify


def _iterate(step, codes, start, certify, max_iterations, check_every):
    """Runs step in blocks; a signal whose check has passed, or failed for good, stands still."""

    def look(state):
        value, gap, converged = certify(codes(state))
        alive = jnp.isfinite(gap) & jnp.isfinite(value)
        return value, gap, converged & alive, alive

    def unfinished(carry):
        _, (_, _, converged, alive), _, count = carry
        return jnp.any(alive & ~converged) & (count < max_iterations)

    def block(carry):
        state, facts, iterations, count = carry
        active = facts[3] & ~facts[2]
        n_steps = jnp.minimum(check_every, max_iterations - count)
        moved = lax.fori_loop(0, n_steps, lambda _, s: step(s), state)
        keep = lambda new, old: jnp.where(  # noqa: E731
            active.reshape((-1,) + (1,) * (new.ndim - 1)), new, old
        )
        state = jax.tree.map(keep, moved, state)
        facts = jax.tree.map(keep, look(state), facts)
        return state, facts, jnp.where(active, iterations + n_steps, iterations), count + n_steps

    facts = look(start)
    zero = jnp.zeros((), jnp.int32)
    carry = (start, facts, jnp.zeros(facts[0].shape, jnp.int32), zero)
    state, (value, gap, converged, alive), iterations, _ = lax.while_loop(unfinished, block, carry)
    return Solution(
        codes=jnp.where(alive[:, None], codes(state), jnp.nan),
        gap=jnp.where(alive, gap, jnp.nan),
        iterations=iterations,
        converged=converged,
        objective=jnp.where(alive, value, jnp.nan),
    )


def _tiled(solve, tile, x, weight, *others):
    """solve(x, weight, *others) by tiles of signals.

    weight and others have a row per signal, or one for all, or are None.
    """
    n = x.shape[0]
    if tile is not None and tile < 1:
        raise ValueError(f'tile {tile} must be at least 1 signal, or None for all at once')
    if tile is None or tile >= n:
        return solve(x, weight, *others)
    # A tile takes as long as its hardest signal. Sorted by energy over weight, neighbours take
    # about as long as each other, which halves the time (and changes no result).
    order = jnp.argsort(jnp.sum(x * x, axis=1) / jnp.mean(weight, axis=1) ** 2)
    n_tiles = -(-n // tile)
    padded = jnp.pad(order, (0, n_tiles * tile - n), mode='edge').reshape(n_tiles, tile)

    def body(rows):
        def pick(array):
            return array if array is None or array.shape[0] != n else array[rows]

        return solve(x[rows], *map(pick, (weight, *others)))

    solution = lax.map(body, padded)
    place = jnp.argsort(order)
    return jax.tree.map(lambda tiles: tiles.reshape(-1, *tiles.shape[2:])[place], solution)
