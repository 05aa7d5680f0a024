"""Feature-sign search: the exact solver, by guesses of the codes' signs."""

import functools

import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, check, check_codes, check_positive, product
from lecture4.sparse.solvers.polish import GROUP, solve_on_support
from lecture4.sparse.solvers.solution import (
    Judge,
    begin_with,
    in_groups,
    solve_in_tiles,
    unfinished,
)

STEPS = 16  # guesses between two certificates


def feature_sign(
    x,
    D,
    weight,
    *,
    penalty=L1,
    init=None,
    tolerance=1e-6,
    max_iterations=1000,
    tile: int | None = 128,
):
    """Guesses which codes are not zero, with their signs, and solves for them: exact, and finite.

    A step adds the atom whose correlation exceeds its weight by most, once the codes so far are at
    their minimum; moves the codes towards the minimum for the guessed signs, no farther than where
    the objective is least among the points at which one changes sign and that minimum; and takes
    codes that came to 0 out of the guess. The objective falls at every step, so no guess comes
    twice. From zero it takes as many steps as codes are in use, from codes nearby a few: it
    finishes what other solvers leave.

    Shapes  x [n, d], D [d, k], weight scalar, [k], [n, 1] or [n, k]; init [n, k]. Returns Solution,
            whose iterations count steps.
    Domain  penalty L1 or NONNEGATIVE; weight > 0; supports up to 512 atoms. k^2 numbers are held.
    Stop    as fista, checked every few steps. The default tolerance is about what float32 can tell.
    Errors  ValueError for another penalty; otherwise as fista.
    Source  Lee, Battle, Raina & Ng 2006, algorithm 1.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    if penalty not in (L1, NONNEGATIVE):
        raise ValueError('feature_sign knows L1 and NONNEGATIVE; use fista for other penalties')
    gram = product(D.T, D)
    alive = jnp.diagonal(gram)[None, :] > 0

    def begin(x, weight, init):
        if init is not None:
            init = begin_with(jnp.where(alive, init, 0), x, D, weight, penalty)
        judge = Judge(x, D, weight, penalty, 1.0, tolerance)
        facts, correlation = judge.certify(init, jnp.zeros(x.shape[:1], jnp.int32))
        return (jnp.zeros_like(correlation) if init is None else init, correlation), facts

    def advance(data, state, facts):
        x, weight, _ = data
        budget = jnp.minimum(max_iterations - facts.iterations, STEPS)
        budget = jnp.where(unfinished(facts, max_iterations), budget, 0)
        weight = jnp.broadcast_to(weight, (x.shape[0], weight.shape[1]))
        search = functools.partial(_search, gram=gram, penalty=penalty)
        a, steps = in_groups(search, GROUP, *state, weight, budget)
        judge = Judge(x, D, weight, penalty, 1.0, tolerance)
        facts, correlation = judge.certify(a, facts.iterations + steps)
        return (a, correlation), facts

    data = (x, weight, init if init is None else check_codes(init, x, D))
    return solve_in_tiles(begin, advance, lambda state: state[0], data, tile, max_iterations)


def _search(a, c, weight, budget, gram, penalty):
    """Steps of feature-sign search from codes a with correlations c = D'(x - D a): (a, steps)."""
    here = jnp.arange(a.shape[0])
    noise = 32 * jnp.finfo(a.dtype).eps

    def body(carry):
        a, c, signs, settled, steps, going = carry
        # Activate: the zero code that the objective falls with fastest.
        pull = c if penalty == NONNEGATIVE else jnp.abs(c)
        excess = jnp.where(signs == 0, pull / weight - 1, -1)
        best = jnp.argmax(excess, axis=1)
        add = going & settled & (excess[here, best] > noise)
        signs = signs.at[here, best].add(jnp.where(add, jnp.sign(c[here, best]), 0))
        going = going & (add | ~settled)
        # Move towards the minimum for these signs, as far as the objective falls.
        wanted = jnp.where(going[:, None], signs, 0)
        new, settled_now = solve_on_support(a, wanted, c, weight, gram)
        c = c - product(new - a, gram)
        steps = steps + going.astype(jnp.int32)
        signs = jnp.where(going[:, None], jnp.sign(new), signs)
        settled = jnp.where(going, settled_now, settled)
        # An atom let in that does not move is rounding: the search is over.
        going = going & ~(add & jnp.all(new == a, axis=1)) & (steps < budget)
        return new, c, signs, settled, steps, going

    # Whether the codes at the start are the minimum for their signs is not known.
    start = (a, c, jnp.sign(a), jnp.all(a == 0, axis=1), jnp.zeros(len(a), jnp.int32), budget > 0)
    carry = lax.while_loop(lambda carry: jnp.any(carry[5]), body, start)
    return carry[0], carry[4]
