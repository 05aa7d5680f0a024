"""Greedy coordinate descent: the fast solver on a CPU for codes that are mostly zero."""

import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, check, check_codes, product
from lecture4.sparse.solvers.polish import N_SLICES, bits_for, fold, polish
from lecture4.sparse.solvers.solution import certificate, solve_in_tiles, unfinished

FIRST = 0.1  # the first stretch stops where no code would move by more than this times its weight
FINER = 0.25  # and every further one by so much less
GROUP = 16  # signals that move together: their codes and correlations fit a core's inner cache


def coordinate_descent(
    x,
    D,
    weight,
    *,
    penalty=L1,
    init=None,
    tolerance=1e-4,
    max_iterations=20_000,
    first=FIRST,
    tile=None,
):
    """Always moves the code that would move farthest, keeping D'(x - D a) by the Gram matrix.

    An update costs one row of D'D instead of two products with D: cheap where codes are sparse. The
    farthest atom is one maximum over integers, the bits of |move| with the atom's index in place of
    the lowest ones. When no code would move by more than a fraction of its weight, the codes are
    solved for exactly on their support (see polish) and certified; a signal that does not pass goes
    on with a smaller fraction. Atoms need not have unit norm; one that is zero has code 0.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]; init [n, k]. Returns Solution, whose
            iterations count updates of single codes.
    Domain  penalty L1 or NONNEGATIVE; weight > 0. first: that fraction in the first stretch. tile:
            as fista; 128 on a CPU.
    Stop    as fista, or where max_iterations single updates were not enough.
    Errors  ValueError for another penalty; otherwise as fista.
    Source  Li & Osher 2009 (greedy choice); Wu & Lange 2008, section 3. The packing is ours.
    """
    x, D, weight = check(x, D, weight)
    if penalty not in (L1, NONNEGATIVE):
        raise ValueError(
            'coordinate_descent knows L1 and NONNEGATIVE; use fista for other penalties'
        )
    k = D.shape[1]
    gram = product(D.T, D)
    norm = jnp.sqrt(jnp.sum(D * D, axis=0))
    safe = jnp.where(norm > 0, norm, 1)
    # Rows of the Gram matrix of the unit atoms, padded so that a row splits into equal slices.
    padding = -k % N_SLICES
    rows = jnp.pad(gram / (safe[:, None] * safe[None, :]), ((0, 0), (0, padding)))
    scale = jnp.pad(safe, (0, padding), constant_values=1)[None, :]
    alive = jnp.pad(norm > 0, (0, padding))[None, :]

    def widen(v):
        return jnp.pad(v, ((0, 0), (0, padding)))

    def examine(x, weight, a, iterations):
        facts, correlation = certificate(x, D, weight, penalty, None, tolerance)(a, iterations)
        return correlation, facts

    def begin(x, weight, init):
        a = jnp.zeros((x.shape[0], k), x.dtype) if init is None else init
        if init is not None and penalty == NONNEGATIVE:
            a = jnp.maximum(a, 0)
        correlation, facts = examine(x, weight, a, jnp.zeros(x.shape[:1], jnp.int32))
        fine = jnp.full(x.shape[:1], first, x.dtype)
        return (a, correlation, fine), facts

    def advance(data, state, facts):
        x, weight, _ = data
        a, correlation, fine = state
        active = unfinished(facts, max_iterations)
        price = widen(jnp.broadcast_to(weight, (weight.shape[0], k))) / scale
        price = jnp.where(alive, price, jnp.inf)
        budget = jnp.where(active, max_iterations - facts.iterations, 0)
        start = (widen(a) * scale, widen(correlation) / scale)
        signals = (*start, jnp.broadcast_to(price, start[0].shape), fine, budget)
        b, drifted, updates = _in_groups(lambda *v: _descend(*v, rows, penalty), *signals)
        a = polish((b / scale)[:, :k], (drifted * scale)[:, :k], weight, gram)
        correlation, facts = examine(x, weight, a, facts.iterations + updates)
        return (a, correlation, fine * FINER), facts

    data = (x, weight, init if init is None else check_codes(init, x, D))
    return solve_in_tiles(begin, advance, lambda state: state[0], data, tile, max_iterations)


def _in_groups(solve, *signals):
    """Apply solve by groups of signals: an update waits for the slowest signal of its group only."""
    n = signals[0].shape[0]
    if n <= GROUP:
        return solve(*signals)
    padding = -n % GROUP
    grouped = [jnp.pad(v, ((0, padding),) + ((0, 0),) * (v.ndim - 1)) for v in signals]
    grouped = [v.reshape(-1, GROUP, *v.shape[1:]) for v in grouped]
    solved = lax.map(lambda group: solve(*group), tuple(grouped))
    return [v.reshape(-1, *v.shape[2:])[:n] for v in solved]


def _descend(a, c, price, fine, budget, gram, penalty):
    """Greedy updates until every signal's farthest move is below fine * price, or out of budget.

    a, c, price [n, k] in units of unit atoms, c = D'(x - D a); fine, budget [n]; gram [k, k].
    Returns a, c and the number of updates [n].
    """
    n, k = a.shape
    low = (1 << bits_for(k)) - 1
    width = k // N_SLICES
    here = jnp.arange(n)
    at = {'mode': 'promise_in_bounds', 'unique_indices': True}

    def move(a, c, price):
        u = a + c
        inside = jnp.clip(u, -price if penalty == L1 else -jnp.inf, price)
        return u - inside - a

    def keys(a, c):
        def part(i):
            cut = slice(i * width, (i + 1) * width)
            index = i * width + lax.broadcasted_iota(jnp.int32, (n, width), 1)
            size = jnp.abs(move(a[:, cut], c[:, cut], price[:, cut])).astype(jnp.float32)
            return (lax.bitcast_convert_type(size, jnp.int32) & ~low) | index

        return jnp.max(fold(part), axis=1)

    def body(carry):
        a, c, _, updates = carry
        index = keys(a, c) & low
        ours = price.at[here, index].get(**at)
        old = a.at[here, index].get(**at)
        step = move(old, c.at[here, index].get(**at), ours)
        going = (jnp.abs(step) > fine * ours) & (updates < budget)
        step = jnp.where(going, step, 0)
        a = a.at[here, index].add(step, **at)
        c = c - step[:, None] * gram.at[index].get(mode='promise_in_bounds')
        return a, c, going, updates + going.astype(jnp.int32)

    start = (a, c, budget > 0, jnp.zeros((n,), jnp.int32))
    a, c, _, updates = lax.while_loop(lambda carry: jnp.any(carry[2]), body, start)
    return a, c, updates
