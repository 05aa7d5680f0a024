"""Proximal gradient: fista for every penalty, ista as the plain reference."""

import jax.numpy as jnp
from jax import lax

from lecture4.ops.linalg import lipschitz
from lecture4.sparse.objective import (
    L1,
    check,
    check_codes,
    check_positive,
    objective,
    product,
    rough_product,
)
from lecture4.sparse.solvers.polish import check_and_polish, gram_for
from lecture4.sparse.solvers.solution import Judge, repeat, solve_in_tiles

N_START = 30  # iterations of L1 that a start 'l1' takes


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
    early=0,
    polish=False,
    tile=None,
):
    """Accelerated proximal gradient; each signal's momentum restarts when it points uphill.

    For a penalty other than L1 a step that would raise the objective is replaced by a plain one, so
    the objective never rises; the result is a stationary point that depends on init. init='l1'
    begins there at what a few iterations make of L1 codes: for the log penalty at weights where it
    is not convex a lower objective than from zero, as a rule.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]; init [n, k] (zeros where None).
            Returns Solution. n may be 0.
    Domain  weight > 0; it may be traced. tile: signals solved together (None: all of them); about
            128 keeps a CPU core in its cache, an accelerator wants None or many thousands. early
            and polish: see admm.
    Stop    gap <= tolerance * objective + 2 eps ||x||^2, looked at every check_every iterations.
            For weight >= max_weight(x, D) the L1 codes are exactly 0.
    Errors  TypeError for integers; ValueError where sizes disagree, naming both.
    Source  Beck & Teboulle 2009, eq. 4.1-4.3; O'Donoghue & Candes 2015, section 3.2 (gradient).
    """
    stop = (tolerance, max_iterations, check_every)
    return _proximal(x, D, weight, init, tile, penalty, stop, True, early, polish)


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
    stop = (tolerance, max_iterations, check_every)
    return _proximal(x, D, weight, init, tile, penalty, stop, False, 0, False)


def _proximal(x, D, weight, init, tile, penalty, stop, momentum, early, polish):
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    shared = slope(D)
    tolerance, max_iterations, check_every = stop
    gram = gram_for(D, penalty) if polish else None
    like_l1 = isinstance(init, str)
    if like_l1 and init != 'l1':
        raise ValueError(f"init {init!r} is neither codes [n, k] nor 'l1'")

    def examine(x, weight, codes, iterations):
        judge = Judge(x, D, weight, penalty, shared[0], tolerance)
        return check_and_polish(judge.certify, gram, codes, weight, iterations)

    def begin(x, weight, init):
        if like_l1:
            step, codes, state = proximal_steps(x, D, weight, None, L1, shared, True)
            init = codes(lax.fori_loop(0, N_START, lambda _, state: step(state), state))
        times = rough_product if early else product
        step, codes, state = proximal_steps(x, D, weight, init, penalty, shared, momentum, times)
        if early:
            state = lax.fori_loop(0, early, lambda _, state: step(state), state)
        iterations = jnp.full(x.shape[:1], early, jnp.int32)
        answer, facts = examine(x, weight, codes(state), iterations)
        return (state, answer), facts

    def advance(data, state, facts):
        x, weight, _ = data
        step, codes, _ = proximal_steps(x, D, weight, None, penalty, shared, momentum)
        state, iterations = repeat(step, state[0], facts, max_iterations, check_every)
        answer, facts = examine(x, weight, codes(state), iterations)
        return (state, answer), facts

    data = (x, weight, None if init is None or like_l1 else check_codes(init, x, D))
    return solve_in_tiles(begin, advance, lambda state: state[1], data, tile, max_iterations)


def slope(D):
    """The Lipschitz constant, and the Gram matrix where a product with it is the cheaper one."""
    L = lipschitz(D)
    d, k = D.shape
    return jnp.where(L > 0, L, 1), product(D.T, D) if k < 2 * d else None


def proximal_steps(x, D, weight, init, penalty, slope, momentum, times=product):
    """One iteration (state -> state), state -> codes, and the first state."""
    L, gram = slope
    correlation = product(x, D)
    threshold = jnp.broadcast_to(weight / L, correlation.shape)

    def gradient(y):
        if gram is None:
            return times(times(y, D.T) - x, D)
        return times(y, gram) - correlation

    def step(state):
        a, y, t, value = state
        moved = penalty.prox(y - gradient(y) / L, threshold)
        if not momentum:
            return moved, moved, t, value
        restart = jnp.sum((y - moved) * (moved - a), axis=1, keepdims=True) > 0
        if penalty.gap is None:
            # Rejected: keep a, and leave the next step to the plain map, which cannot rise.
            risen = objective(x - product(moved, D.T), moved, weight, penalty)[:, None]
            eps = 8 * jnp.finfo(x.dtype).eps
            rejected = (t > 1) & ~(risen <= value * (1 + eps))
            moved, value = jnp.where(rejected, a, moved), jnp.where(rejected, value, risen)
            restart = restart | rejected
        t_next = jnp.where(restart, 1, 0.5 * (1 + jnp.sqrt(1 + 4 * t * t)))
        beta = jnp.where(restart, 0, (t - 1) / t_next)
        return moved, moved + beta * (moved - a), t_next, value

    a = start(correlation, weight, init, penalty)
    t = jnp.ones((x.shape[0], 1), x.dtype)
    value = t
    if momentum and penalty.gap is None:
        value = objective(x - product(a, D.T), a, weight, penalty)[:, None]
    return step, lambda state: state[0], (a, a, t, value)


def load(correlation, weight):
    """max_j |d_j'x| / weight_j, [n, 1]: at most 1 where the L1 codes are 0."""
    ratio = jnp.where(correlation == 0, 0, jnp.abs(correlation) / weight)
    return jnp.max(ratio, axis=1, keepdims=True, initial=0)


def start(correlation, weight, init, penalty):
    """Codes to begin with; zero where zero is known to be the solution."""
    if init is None:
        return jnp.zeros_like(correlation)
    if penalty != L1:
        return init
    # A warm start at a solution that is 0 would approach it without ever being it.
    zero = load(correlation, weight) <= 1 + 8 * jnp.finfo(correlation.dtype).eps
    return jnp.where(zero, 0, init)
