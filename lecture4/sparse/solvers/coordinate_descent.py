"""Greedy coordinate descent: the fast solver on a CPU."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, check, check_codes, check_positive, product
from lecture4.sparse.solvers.polish import bits_for, fold, polish, slices_of
from lecture4.sparse.solvers.solution import (
    Judge,
    begin_with,
    in_groups,
    solve_in_tiles,
    unfinished,
)

FINER = 0.25  # every stretch stops at moves smaller than those of the last by so much
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
    first=None,
    stop='gap',
    tile: int | None = 128,
):
    """Always moves the code that would move farthest, keeping D'(x - D a) by the Gram matrix.

    An update costs one row of D'D instead of two products with D. The farthest atom is one maximum
    over integers, the bits of |move| with the atom's index in place of the lowest ones. When no code
    would move by more than a fraction of its weight, the codes are solved for on their support (see
    polish) and certified; a signal that does not pass goes on with a smaller fraction.

    Shapes  x [n, d], D [d, k], weight scalar, [k], [n, 1] or [n, k]; init [n, k]. Returns Solution,
            whose iterations count updates of single codes.
    Domain  penalty L1 or NONNEGATIVE; weight > 0; an atom of zeros has code 0. first: that fraction
            in the first stretch (None: by the tolerance). k^2 numbers are held in memory.
    Stop    'gap': as fista, or where max_iterations single updates were not enough. 'moves': where
            no code would move by more than tolerance * weight. The excess over the minimum is of
            the order of that squared (on patches 1e-4 of it for 0.05). The gap is of its own order,
            and reported from the correlations kept by the updates: what a certificate costs is saved.
    Errors  ValueError for another penalty or stop; otherwise as fista.
    Source  Li & Osher 2009 (greedy choice); Wu & Lange 2008, section 3. The packing is ours.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    if penalty not in (L1, NONNEGATIVE):
        raise ValueError(
            'coordinate_descent knows L1 and NONNEGATIVE; use fista for other penalties'
        )
    if stop not in ('gap', 'moves'):
        raise ValueError(f"stop {stop!r} is neither 'gap' nor 'moves'")
    if stop == 'moves':
        first = tolerance
    elif first is None:
        first = jnp.clip(jnp.sqrt(jnp.asarray(tolerance, x.dtype)), 1e-3, 0.1)
    units = _units(D, weight)
    gram = product(D.T, D)

    def begin(x, weight, init):
        if init is not None:
            init = begin_with(jnp.where(units.alive, init, 0), x, D, weight, penalty)
        judge = Judge(x, D, weight, penalty, 1.0, tolerance)
        facts, correlation = judge.certify(init, jnp.zeros(x.shape[:1], jnp.int32))
        a = jnp.zeros_like(correlation) if init is None else init
        return (a, correlation, jnp.full(x.shape[:1], first, x.dtype)), facts

    def advance(data, state, facts):
        x, weight, _ = data
        a, correlation, fine = state
        active = unfinished(facts, max_iterations)
        ours, price = units.split(weight)
        y, c = units.enter(a, correlation, ours)
        budget = jnp.where(active, max_iterations - facts.iterations, 0)

        def solve(y, c, fine, budget, price=1):
            return _descend(y, c, fine, budget, price, units.rows, penalty)

        signals = (y, c, fine, budget) + (() if price is None else (price,))
        y, c, updates, done = in_groups(solve, GROUP, *signals)
        moved, kept = units.leave(y, c, ours)
        iterations = facts.iterations + updates
        judge = Judge(x, D, weight, penalty, 1.0, tolerance)
        if stop == 'moves':
            # |r|^2 without a product: r + D moved = r before + D a.
            energy = 2 * (facts.value - jnp.sum(weight * jnp.abs(a), axis=1))
            energy = energy - jnp.sum((moved - a) * (correlation + kept), axis=1)
            size = jnp.sqrt(jnp.maximum(energy, 0))[:, None]
            facts = judge.facts(size, kept, moved, iterations)
            return (moved, kept, fine), facts._replace(converged=facts.alive & done)
        a = polish(moved, kept, weight, gram)
        facts, correlation = judge.certify(a, iterations)
        return (a, correlation, fine * FINER), facts

    data = (x, weight, init if init is None else check_codes(init, x, D))
    return solve_in_tiles(begin, advance, lambda state: state[0], data, tile, max_iterations)


class _Units(NamedTuple):
    """Codes in units in which every weight is 1 and every atom alike.

    y_j = a_j |d_j|^2 / weight_j, c_j = d_j'r / weight_j: the best y_j is the soft threshold at 1 of
    y_j + c_j whatever atoms and weights are, and moving it by s takes s times row j off c.
    """

    rows: jax.Array  # [k', k'], k' = k padded to whole slices
    curve: jax.Array  # [1, k] |d_j|^2
    price: jax.Array  # [1, k] the part of the weights that belongs to the atoms
    alive: jax.Array  # [1, k] atoms that are not zero

    def split(self, weight):
        """The part of the weights that belongs to signals [n or 1, 1], and what is left over."""
        if weight.shape[1] == 1:
            return weight, None
        ones = jnp.ones((1, 1), weight.dtype)
        padding = ((0, 0), (0, self.rows.shape[0] - weight.shape[1]))
        if weight.shape[0] == 1:
            return ones, None
        return ones, jnp.pad(weight, padding, constant_values=1)

    def enter(self, a, c, ours):
        padding = ((0, 0), (0, self.rows.shape[0] - a.shape[1]))
        c = jnp.where(self.alive, c, 0) / (self.price * ours)
        return jnp.pad(a * (self.curve / (self.price * ours)), padding), jnp.pad(c, padding)

    def leave(self, y, c, ours):
        k = self.curve.shape[1]
        scale = self.price * ours
        return y[:, :k] * (scale / jnp.where(self.alive, self.curve, 1)), c[:, :k] * scale


def _units(D, weight):
    k = D.shape[1]
    curve = jnp.sum(D * D, axis=0)[None, :]
    alive = curve > 0
    shared = weight.shape[0] == 1 and weight.shape[1] == k
    price = weight if shared else jnp.ones((1, 1), D.dtype)
    atoms = D / price
    safe = jnp.where(alive, curve / (price * price), 1)
    rows = jnp.where(alive.T, product(atoms.T, atoms), 0) / safe.T
    padding = -k % slices_of(k)
    return _Units(jnp.pad(rows, ((0, padding), (0, padding))), curve, price, alive)


def _descend(y, c, fine, budget, price, rows, penalty):
    """Greedy updates until every signal's farthest move is below fine * price, or out of budget.

    y, c [n, k] in units of weights; price 1 or [n, k]; fine, budget [n]; rows [k, k].
    Returns y, c, the number of updates [n] and who came to the end of them [n].
    """
    n, k = y.shape
    low = (1 << bits_for(k)) - 1
    n_slices = slices_of(k)
    width = k // n_slices
    here = jnp.arange(n)
    at = {'mode': 'promise_in_bounds', 'unique_indices': True}

    def move(y, c, price):
        u = y + c
        inside = jnp.clip(u, -price, price) if penalty == L1 else jnp.minimum(u, price)
        return u - inside - y

    def keys(y, c):
        def part(i):
            cut = slice(i * width, (i + 1) * width)
            index = i * width + lax.broadcasted_iota(jnp.int32, (n, width), 1)
            ours = price if isinstance(price, int) else price[:, cut]
            size = jnp.abs(move(y[:, cut], c[:, cut], ours)).astype(jnp.float32)
            return (lax.bitcast_convert_type(size, jnp.int32) & ~low) | index

        return jnp.max(fold(part, n_slices), axis=1)

    def body(carry):
        y, c, _, updates, _ = carry
        index = keys(y, c) & low
        ours = price if isinstance(price, int) else price.at[here, index].get(**at)
        step = move(y.at[here, index].get(**at), c.at[here, index].get(**at), ours)
        far = jnp.abs(step) > fine * ours
        going = far & (updates < budget)
        step = jnp.where(going, step, 0)
        y = y.at[here, index].add(step, **at)
        c = c - step[:, None] * rows.at[index].get(mode='promise_in_bounds')
        return y, c, going, updates + going.astype(jnp.int32), ~far

    start = (y, c, budget > 0, jnp.zeros((n,), jnp.int32), budget < 0)
    y, c, _, updates, done = lax.while_loop(lambda carry: jnp.any(carry[2]), body, start)
    return y, c, updates, done
