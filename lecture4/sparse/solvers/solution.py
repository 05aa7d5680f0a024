"""What every solver returns, the check that certifies it, and the loop over tiles of signals."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.sparse.objective import objective, product, proximal_residual
from lecture4.sparse.penalties import NONNEGATIVE, Penalty

# Below this share of ||x||^2 a float gap is rounding: no tolerance asks for less.
ROUNDING = 2.0
# So many checks in a row without progress, and a signal is left as it is: its floats spin.
PATIENCE = 50
# Tiles among which the unfinished signals are gathered: their codes stay in a core's outer cache.
TILES_PER_BLOCK = 32


class Solution(NamedTuple):
    """Codes and, per signal, what is known about them.

    For a convex penalty the gap is the duality gap divided by the objective: the codes are at most
    that far, in relative terms, above the minimum. For another it is the norm of the proximal
    gradient divided by that of D'x: it says stationary, not globally minimal.
    A signal with a NaN or an infinity, or whose numbers overflow, has NaN codes, gap and objective,
    and converged False.
    """

    codes: jax.Array  # [n, k]
    gap: jax.Array  # [n]
    iterations: jax.Array  # [n] int32, counted until the check that found it converged
    converged: jax.Array  # [n] bool
    objective: jax.Array  # [n]


class Summary(NamedTuple):
    """What became of many signals: counts, and the worst beside the typical one."""

    n_signals: int
    n_unconverged: int  # finite, but not within the tolerance
    n_marked: int  # not finite, or of a weight that is not positive
    mean_gap: float  # of those that are finite, as the others below
    gap_99: float  # 1 % of the signals have a larger gap
    worst_gap: float
    worst_signal: int  # its row; -1 where there is none


def summarise(solution):
    """The Summary of a Solution, on the host."""
    gap, converged = np.asarray(solution.gap), np.asarray(solution.converged)
    finite = np.isfinite(gap)
    if not finite.any():
        return Summary(len(gap), 0, len(gap), 0.0, 0.0, 0.0, -1)
    worst = int(np.argmax(np.where(finite, gap, -1)))
    return Summary(
        n_signals=len(gap),
        n_unconverged=int((finite & ~converged).sum()),
        n_marked=int((~finite).sum()),
        mean_gap=float(gap[finite].mean(dtype=np.float64)),
        gap_99=float(np.quantile(gap[finite], 0.99)),
        worst_gap=float(gap[worst]),
        worst_signal=worst,
    )


class Facts(NamedTuple):
    """What the last check of each signal found."""

    value: jax.Array  # [n]
    gap: jax.Array  # [n] relative
    converged: jax.Array  # [n]
    alive: jax.Array  # [n] False where a number is not finite, or a weight not positive
    iterations: jax.Array  # [n] int32, done before that check
    best: jax.Array  # [n] the gap at the last progress
    idle: jax.Array  # [n] int32, checks since


class Judge(NamedTuple):
    """What it takes to say how good codes of the signals x are."""

    x: jax.Array
    D: jax.Array
    weight: jax.Array
    penalty: Penalty
    L: jax.Array | float  # Lipschitz constant, for penalties without a gap
    tolerance: float | jax.Array

    def certify(self, a, iterations):
        """(Facts, correlation D'r) of codes (None: zeros), at full precision."""
        residual = self.x if a is None else self.x - product(a, self.D.T)
        correlation = product(residual, self.D)
        a = jnp.zeros_like(correlation) if a is None else a
        return self.facts(residual, correlation, a, iterations), correlation

    def facts(self, residual, correlation, a, iterations):
        """Facts of codes whose residual and correlation are known."""
        tiny, eps = (getattr(jnp.finfo(a.dtype), name) for name in ('tiny', 'eps'))
        value = objective(residual, a, self.weight, self.penalty)
        if self.penalty.gap is None:
            gap = proximal_residual(correlation, a, self.weight, self.penalty, 1 / self.L)
            scale = jnp.linalg.norm(product(self.x, self.D), axis=1)
            relative = gap / jnp.maximum(scale, tiny)
            enough = gap <= (self.tolerance + ROUNDING * eps) * scale
        else:
            gap = self.penalty.gap(residual, correlation, a, self.weight)
            relative = gap / jnp.maximum(value, tiny)
            scale = jnp.sum(self.x * self.x, axis=1)
            enough = gap <= self.tolerance * value + ROUNDING * eps * scale
        # A weight of 0 asks for least squares: nothing here certifies that.
        alive = jnp.isfinite(gap) & jnp.isfinite(value) & jnp.all(self.weight > 0, axis=1)
        idle = jnp.zeros(alive.shape, jnp.int32)
        return Facts(value, relative, enough & alive, alive, iterations, relative, idle)


def unfinished(facts, max_iterations):
    """Signals that still want work, [n] bool.

    Not those whose gap has come to rest: in floats it does, now and then above the tolerance.
    """
    going = (facts.iterations < max_iterations) & (facts.idle < PATIENCE)
    return facts.alive & ~facts.converged & going


def remember(new, old):
    """The new facts, with what the old ones know of the best gap and of how long there is no progress.

    Progress is a gap that falls by a tenth, or an objective that falls by more than its rounding.
    """
    rounding = 4 * jnp.finfo(new.value.dtype).eps * jnp.abs(old.value)
    fell = (new.gap < 0.9 * old.best) | (new.value < old.value - rounding)
    return new._replace(
        best=jnp.where(fell, new.gap, old.best), idle=jnp.where(fell, 0, old.idle + 1)
    )


def begin_with(init, x, D, weight, penalty):
    """Codes to begin with: of the penalty's sign, and zeros where zeros are the minimum.

    Where every |d_j'x| is at most its weight; from elsewhere no iteration need reach them exactly.
    """
    pull = product(x, D)
    pull = pull if penalty == NONNEGATIVE else jnp.abs(pull)
    init = jnp.maximum(init, 0) if penalty == NONNEGATIVE else init
    return jnp.where(jnp.all(pull <= weight, axis=1, keepdims=True), 0, init)


def select(where, new, old):
    """The tree new where the signals are marked, old elsewhere."""

    def pick(new, old):
        return jnp.where(where.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, new, old)


def repeat(step, state, facts, max_iterations, check_every):
    """One stretch of steps up to the next check: (state, iterations afterwards)."""
    active = unfinished(facts, max_iterations)
    done = jnp.max(jnp.where(active, facts.iterations, 0), initial=0)
    n_steps = jnp.minimum(check_every, max_iterations - done)
    return lax.fori_loop(0, n_steps, lambda _, s: step(s), state), facts.iterations + n_steps


def in_groups(solve, size, *signals):
    """What solve makes of the arrays' rows, `size` of them at a time: none waits for the others.

    An accelerator takes them all at once.
    """
    n = signals[0].shape[0]
    if n <= size or jax.default_backend() != 'cpu':
        return solve(*signals)
    padding = -n % size
    grouped = [jnp.pad(v, ((0, padding),) + ((0, 0),) * (v.ndim - 1)) for v in signals]
    grouped = tuple(v.reshape(-1, size, *v.shape[1:]) for v in grouped)
    solved = lax.map(lambda group: solve(*group), grouped)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[:n], solved)


def solve_in_tiles(begin, advance, codes, data, tile, max_iterations):
    """Runs a method on all signals, a tile at a time, and packs the tiles again after every stretch.

    begin(x, weight, *others) -> (state, facts); advance((x, weight, *others), state, facts) ->
    (state, facts), whose result counts for unfinished signals only; codes(state) -> [n, k]. In data
    every array has a row per signal, or one row for all, or is None. Between stretches the
    unfinished signals move together, so that no tile waits for its hardest member.
    """
    x, weight = data[:2]
    n = x.shape[0]
    if tile is not None and tile < 1:
        raise ValueError(f'tile {tile} must be at least 1 signal, or None for all at once')

    def stretch(data, carry):
        state, facts = advance(data, *carry)
        moved = state, remember(facts, carry[1])
        return select(unfinished(carry[1], max_iterations), moved, carry)

    if tile is None or tile >= n:
        state, facts = lax.while_loop(
            lambda carry: jnp.any(unfinished(carry[1], max_iterations)),
            lambda carry: stretch(data, carry),
            begin(*data),
        )
        return _solution(codes(state), facts)

    # Neighbours should take about as long as each other: sorted by energy over weight.
    order = jnp.argsort(jnp.sum(x * x, axis=1) / jnp.mean(weight, axis=1) ** 2)
    n_tiles = -(-n // tile)
    block = min(TILES_PER_BLOCK, n_tiles)
    n_blocks = -(-n_tiles // block)
    size = block * tile
    place = jnp.arange(n_blocks * size).reshape(n_blocks, size)
    rows = order[jnp.minimum(place, n - 1)]

    def pick(data, rows):
        return [v if v is None or v.shape[0] != n else v[rows] for v in data]

    def solve_block(rows_and_place):
        rows, place = rows_and_place

        def in_tiles(tree):
            return jax.tree.map(lambda v: v.reshape(block, tile, *v.shape[1:]), tree)

        def together(tree):
            return jax.tree.map(lambda v: v.reshape(size, *v.shape[2:]), tree)

        state, facts = together(lax.map(lambda rows: begin(*pick(data, rows)), in_tiles(rows)))
        facts = facts._replace(converged=facts.converged | (place >= n))

        def one_tile(carry_and_rows):
            carry, rows = carry_and_rows
            wanted = jnp.any(unfinished(carry[1], max_iterations))
            return lax.cond(wanted, lambda v: stretch(pick(data, rows), v), lambda v: v, carry)

        def one_round(everything):
            active = unfinished(everything[0][1], max_iterations)
            gathered = jnp.all(active[:-1] >= active[1:])
            order = jnp.argsort(~active, stable=True)
            carry, rows, place = lax.cond(
                gathered, lambda v: v, lambda v: jax.tree.map(lambda u: u[order], v), everything
            )
            # A map writes what it makes once; updating the block in place, XLA copies all of it.
            return together(lax.map(one_tile, in_tiles((carry, rows)))), rows, place

        everything = lax.while_loop(
            lambda v: jnp.any(unfinished(v[0][1], max_iterations)),
            one_round,
            ((state, facts), rows, jnp.arange(size)),
        )
        (state, facts), _, place = everything
        return _solution(codes(state), facts), place

    (solved, moved) = lax.map(solve_block, (rows, place))
    # Where the block's rows came to lie, and the block's own order undone together.
    moved = (moved + size * jnp.arange(n_blocks)[:, None]).reshape(-1)
    back = jnp.argsort(moved)[jnp.argsort(order)]
    return jax.tree.map(lambda v: v.reshape(n_blocks * size, *v.shape[2:])[back], solved)


def _solution(codes, facts):
    return Solution(
        codes=jnp.where(facts.alive[:, None], codes, jnp.nan),
        gap=jnp.where(facts.alive, facts.gap, jnp.nan),
        iterations=facts.iterations,
        converged=facts.converged,
        objective=jnp.where(facts.alive, facts.value, jnp.nan),
    )
