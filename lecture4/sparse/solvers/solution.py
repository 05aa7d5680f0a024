"""What every solver returns, the check that certifies it, and the loop over tiles of signals."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import objective, product, proximal_residual

# Below this share of ||x||^2 a float gap is rounding: no tolerance asks for less.
ROUNDING = 2.0
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


class Facts(NamedTuple):
    """What the last check of each signal found."""

    value: jax.Array  # [n]
    gap: jax.Array  # [n] relative
    converged: jax.Array  # [n]
    alive: jax.Array  # [n] False where a number is not finite
    iterations: jax.Array  # [n] int32, done before that check


def certificate(x, D, weight, penalty, L, tolerance):
    """Makes (codes, iterations) -> (Facts, correlation D'r), at full precision."""
    tiny = jnp.finfo(x.dtype).tiny
    eps = ROUNDING * jnp.finfo(x.dtype).eps
    scale = jnp.sum(x * x, axis=1)
    if penalty.gap is None:
        scale = jnp.linalg.norm(product(x, D), axis=1)

    def certify(a, iterations):
        residual = x - product(a, D.T)
        correlation = product(residual, D)
        value = objective(residual, a, weight, penalty)
        if penalty.gap is None:
            gap = proximal_residual(correlation, a, weight, penalty, 1 / L)
            relative, enough = gap / jnp.maximum(scale, tiny), gap <= (tolerance + eps) * scale
        else:
            gap = penalty.gap(residual, correlation, a, weight)
            relative = gap / jnp.maximum(value, tiny)
            enough = gap <= tolerance * value + eps * scale
        alive = jnp.isfinite(gap) & jnp.isfinite(value)
        return Facts(value, relative, enough & alive, alive, iterations), correlation

    return certify


def unfinished(facts, max_iterations):
    """Signals that still want work, [n] bool."""
    return facts.alive & ~facts.converged & (facts.iterations < max_iterations)


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
        moved = advance(data, *carry)
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
        data_of = lambda here: pick(data, rows[here])  # noqa: E731
        first = lax.map(lambda here: begin(*data_of(here)), jnp.arange(size).reshape(block, tile))
        state, facts = jax.tree.map(lambda v: v.reshape(size, *v.shape[2:]), first)
        facts = facts._replace(converged=facts.converged | (place >= n))

        def one_round(carry):
            active = unfinished(carry[1], max_iterations)
            gathered = jnp.argsort(~active, stable=True)
            n_wanted = -(-jnp.sum(active) // tile)

            def one_tile(i, carry):
                here = lax.dynamic_slice_in_dim(gathered, i * tile, tile)
                old = jax.tree.map(lambda v: v[here], carry)
                new = stretch(data_of(here), old)
                return jax.tree.map(lambda v, u: v.at[here].set(u, unique_indices=True), carry, new)

            return lax.fori_loop(0, n_wanted, one_tile, carry)

        state, facts = lax.while_loop(
            lambda carry: jnp.any(unfinished(carry[1], max_iterations)), one_round, (state, facts)
        )
        return _solution(codes(state), facts)

    solved = lax.map(solve_block, (rows, place))
    back = jnp.argsort(order)
    return jax.tree.map(lambda v: v.reshape(n_blocks * size, *v.shape[2:])[back], solved)


def _solution(codes, facts):
    return Solution(
        codes=jnp.where(facts.alive[:, None], codes, jnp.nan),
        gap=jnp.where(facts.alive, facts.gap, jnp.nan),
        iterations=facts.iterations,
        converged=facts.converged,
        objective=jnp.where(facts.alive, facts.value, jnp.nan),
    )
