"""Feature-sign search: the exact solver, which guesses the signs of the codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.objective import (
    L1,
    NONNEGATIVE,
    check_codes,
    check_inputs,
    check_penalty_weight,
    product,
)
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.certificate import Certifier, is_unfinished, warm_start
from lecture4.sparse.solvers.polish import GROUP_SIZE, solve_on_support
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import by_groups, check_tile, no_iterations, solve_in_tiles

CHECK_EVERY = 16  # number of steps between two certificates


def feature_sign(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    init: Float[Array | np.ndarray, 'n k'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-6,
    max_iterations: Int[ArrayLike, ''] = 1000,
    tile: int | None = 128,
) -> Solution:
    """Guess which codes are not zero, and their signs, and solve for them: exact, in finitely many steps.

    A step adds the atom whose correlation exceeds its weight by most, once the codes so far are at
    their minimum; moves the codes towards the minimum for the guessed signs, no farther than where
    the objective is least among the points at which one changes sign and that minimum; and removes
    codes that reached 0 from the guess. The objective decreases at every step, so no guess occurs twice. From zero it
    takes about as many steps as there are non-zero codes, from nearby codes a few: it finishes the signals that other
    solvers leave. Supports have at most 512 atoms; the Gram matrix takes k^2 numbers of memory.

    Stops as in fista, checked every few steps; the default tolerance is about what float32 can
    certify. Compiled once per shapes, dtype, penalty and tile.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      penalty_weight: Scalar, [k], [n, 1] or [n, k], positive.
      penalty: L1 or NONNEGATIVE.
      init: Initial codes, zeros where None.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of steps for each signal.
      tile: As in fista.

    Returns:
      Solution, whose iterations count steps.

    Raises:
      TypeError: As in fista.
      ValueError: As in fista, and for another penalty.

    References:
      Lee, Battle, Raina & Ng 2006, algorithm 1.
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    check_tile(tile)
    if penalty not in (L1, NONNEGATIVE):
        raise ValueError('feature_sign supports L1 and NONNEGATIVE; use fista for other penalties')
    init = None if init is None else check_codes(init, x, D)
    return _feature_sign(x, D, weight, init, tolerance, max_iterations, penalty=penalty, tile=tile)


@functools.partial(jax.jit, static_argnames=('penalty', 'tile'))
def _feature_sign(x, D, weight, init, tolerance, max_iterations, *, penalty, tile):
    x, D, weight, init = vary_together(x, D, weight, init)
    gram = product(D.T, D)
    is_nonzero = jnp.diagonal(gram)[None, :] > 0

    def start(x, weight, init):
        if init is not None:
            init = warm_start(jnp.where(is_nonzero, init, 0), x, D, weight, penalty)
        certifier = Certifier(x, D, weight, penalty, 1.0, tolerance)
        status, correlation = certifier.certify(init, no_iterations(x))
        return (jnp.zeros_like(correlation) if init is None else init, correlation), status

    def advance(data, state, status):
        x, weight, _ = data
        budget = jnp.minimum(max_iterations - status.iterations, CHECK_EVERY)
        budget = jnp.where(is_unfinished(status, max_iterations), budget, 0)
        weight = jnp.broadcast_to(weight, (x.shape[0], weight.shape[1]))
        search = functools.partial(_search, gram=gram, penalty=penalty)
        a, steps = by_groups(search, GROUP_SIZE, *state, weight, budget)
        certifier = Certifier(x, D, weight, penalty, 1.0, tolerance)
        status, correlation = certifier.certify(a, status.iterations + steps)
        return (a, correlation), status

    data = (x, weight, init)
    return solve_in_tiles(start, advance, lambda state: state[0], data, tile, max_iterations)


def _search(a, c, weight, budget, gram, penalty):
    """Steps of feature-sign search from codes a with correlations c = D'(x - D a): (a, steps)."""
    signals = jnp.arange(a.shape[0])
    rounding = 32 * jnp.finfo(a.dtype).eps

    def body(carry):
        a, c, signs, at_minimum, steps, active = carry
        # Activate the zero code along which the objective decreases fastest.
        descent = c if penalty == NONNEGATIVE else jnp.abs(c)
        excess = jnp.where(signs == 0, descent / weight - 1, -1)
        best = jnp.argmax(excess, axis=1)
        add = active & at_minimum & (excess[signals, best] > rounding)
        new_sign = jnp.where(add, jnp.sign(c[signals, best]), 0)
        signs = signs.at[signals, best].add(new_sign)
        active = active & (add | ~at_minimum)
        # Move towards the minimum for these signs, as far as the objective decreases.
        targets = jnp.where(active[:, None], signs, 0)
        new, new_at_minimum = solve_on_support(a, targets, c, weight, gram)
        c = c - product(new - a, gram)
        steps = steps + active.astype(jnp.int32)
        signs = jnp.where(active[:, None], jnp.sign(new), signs)
        at_minimum = jnp.where(active, new_at_minimum, at_minimum)
        # An added atom whose code stays 0 is rounding: the search is over.
        active = active & ~(add & jnp.all(new == a, axis=1)) & (steps < budget)
        return new, c, signs, at_minimum, steps, active

    # Whether the initial codes are the minimum for their signs is not known.
    at_minimum = jnp.all(a == 0, axis=1)
    start = (a, c, jnp.sign(a), at_minimum, jnp.zeros(len(a), jnp.int32), budget > 0)
    start = vary_like(start, (a, c, weight, budget))
    carry = lax.while_loop(lambda carry: jnp.any(carry[5]), body, start)
    return carry[0], carry[4]
