"""Loops over tiles of signals: each signal stops by its own certificate, and tiles fit in a core's cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int, Int32, PyTree, Shaped

from lecture4.ops.forward_mode import forward_only
from lecture4.ops.varying import vary_like
from lecture4.sparse.solvers.certificate import SolverStatus, is_unfinished, update_status
from lecture4.sparse.solvers.solution import Solution

# Number of tiles among which the unfinished signals are regrouped: their codes stay in a core's outer cache.
TILES_PER_BLOCK = 32

NO_GRADIENT = (
    'the solvers of lecture4.sparse.solvers have no gradient in reverse mode (their loops end when codes '
    'converge); use lecture4.sparse.implicit.codes(x, D, penalty_weight), whose gradient is that of the minimum'
)


def select(where: Bool[Array, ' n'], new: PyTree, old: PyTree) -> PyTree:
    """The tree `new` where the signals are marked, `old` elsewhere."""

    def pick(new, old):
        return jnp.where(where.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, new, old)


def no_iterations(x: Shaped[Array, 'n ...']) -> Int32[Array, ' n']:
    """A zero for every signal."""
    return vary_like(jnp.zeros(x.shape[:1], jnp.int32), x)


def run_chunk(
    step: Callable[[Any], Any],
    state: PyTree,
    status: SolverStatus,
    max_iterations: Int[ArrayLike, ''],
    check_every: Int[ArrayLike, ''],
) -> tuple[PyTree, Int32[Array, ' n']]:
    """The steps up to the next check: (state, iterations afterwards)."""
    active = is_unfinished(status, max_iterations)
    done = jnp.max(jnp.where(active, status.iterations, 0), initial=0)
    n_steps = jnp.minimum(check_every, max_iterations - done)
    state = vary_like(state, status)
    return lax.fori_loop(0, n_steps, lambda _, s: step(s), state), status.iterations + n_steps


def by_groups(
    solve: Callable[..., PyTree],
    size: int,
    *signals: Shaped[Array, 'n ...'],
    cuda: Callable[..., PyTree] | None = None,
) -> PyTree:
    """Apply `solve` to the arrays' rows, `size` of them at a time, so that no group waits for another.

    If the program is compiled for an accelerator, it is applied to all rows at once, on an NVIDIA GPU `cuda` if given.
    """
    n = signals[0].shape[0]
    if n <= size:
        return solve(*signals)

    def grouped(*signals):
        padding = -n % size
        rows = [jnp.pad(v, ((0, padding),) + ((0, 0),) * (v.ndim - 1)) for v in signals]
        rows = tuple(v.reshape(-1, size, *v.shape[1:]) for v in rows)
        solved = lax.map(lambda group: solve(*group), rows)
        return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[:n], solved)

    special = {} if cuda is None else {'cuda': cuda}
    return lax.platform_dependent(*signals, cpu=grouped, default=solve, **special)


def check_tile(tile: int | None) -> None:
    """Check the number of signals solved together.

    Raises:
      ValueError: It is below 1.
    """
    if tile is not None and tile < 1:
        raise ValueError(f'tile={tile}; expected at least 1 signal, or None for all at once')


def blocks_of(n: int, tile: int) -> tuple[int, int]:
    """Number of blocks of n signals, and of tiles in each: equally many, so that few rows are padding."""
    n_tiles = -(-n // tile)
    n_blocks = -(-n_tiles // TILES_PER_BLOCK)
    return n_blocks, -(-n_tiles // n_blocks)


def solve_in_tiles(
    init: Callable[..., tuple[PyTree, SolverStatus]],
    advance: Callable[..., tuple[PyTree, SolverStatus]],
    codes: Callable[[PyTree], Array],
    data: tuple[Any, ...],
    tile: int | None,
    max_iterations: Int[ArrayLike, ''],
) -> Solution:
    """Run a method on all signals, a tile at a time, and regroup the tiles after every chunk.

    Unfinished signals are regrouped between chunks, so that no tile waits for its slowest signal.

    Args:
      init: (x, weight, *others) -> (state, status).
      advance: ((x, weight, *others), state, status) -> (state, status) after one chunk of
        iterations; its result counts for unfinished signals only.
      codes: state -> [n, k].
      data: x, weight, *others: each is an array with a row per signal or one row for all, or None.
      tile: Signals solved together; None for all.
      max_iterations: Largest number of iterations for each signal.
    """
    x, weight = data[:2]
    n = x.shape[0]

    def start(*data):
        return vary_like(init(*data), data)

    def run(data, carry):
        state, status = advance(data, *carry)
        updated = state, update_status(status, carry[1])
        return select(is_unfinished(carry[1], max_iterations), updated, carry)

    if tile is None or tile >= n:
        state, status = lax.while_loop(
            lambda carry: jnp.any(is_unfinished(carry[1], max_iterations)),
            lambda carry: run(data, carry),
            start(*data),
        )
        return _solution(codes(state), status)

    # Signals of a tile should take about equally long: sorted by energy over weight.
    order = jnp.argsort(jnp.sum(x * x, axis=1) / jnp.mean(weight, axis=1) ** 2)
    n_blocks, block = blocks_of(n, tile)
    size = block * tile
    place = jnp.arange(n_blocks * size).reshape(n_blocks, size)
    rows = order[jnp.where(place < n, place, 0)]  # padding repeats the quickest signal

    def pick(data, rows):
        return [v if v is None or v.shape[0] != n else v[rows] for v in data]

    def solve_block(rows_and_place):
        rows, place = rows_and_place

        def in_tiles(tree):
            return jax.tree.map(lambda v: v.reshape(block, tile, *v.shape[1:]), tree)

        def together(tree):
            return jax.tree.map(lambda v: v.reshape(size, *v.shape[2:]), tree)

        state, status = together(lax.map(lambda rows: start(*pick(data, rows)), in_tiles(rows)))
        status = status._replace(converged=status.converged | (place >= n))

        def one_tile(carry_and_rows):
            carry, rows = carry_and_rows
            active = jnp.any(is_unfinished(carry[1], max_iterations))
            return lax.cond(active, lambda v: run(pick(data, rows), v), lambda v: v, carry)

        def one_round(everything):
            active = is_unfinished(everything[0][1], max_iterations)
            gathered = jnp.all(active[:-1] >= active[1:])
            order = jnp.argsort(~active, stable=True)
            carry, rows, place = lax.cond(
                gathered, lambda v: v, lambda v: jax.tree.map(lambda u: u[order], v), everything
            )
            # A map writes its output once; an update of the block in place makes XLA copy all of it.
            return together(lax.map(one_tile, in_tiles((carry, rows)))), rows, place

        everything = lax.while_loop(
            lambda v: jnp.any(is_unfinished(v[0][1], max_iterations)),
            one_round,
            vary_like(((state, status), rows, jnp.arange(size)), data),
        )
        (state, status), _, place = everything
        return _solution(codes(state), status), place

    (solved, moved) = lax.map(solve_block, (rows, place))
    # Undo the regrouping of the block's rows and the block's own order together.
    moved = (moved + size * jnp.arange(n_blocks)[:, None]).reshape(-1)
    back = jnp.argsort(moved)[jnp.argsort(order)]
    return jax.tree.map(lambda v: v.reshape(n_blocks * size, *v.shape[2:])[back], solved)


def _solution(codes, status):
    solution = Solution(
        codes=jnp.where(status.valid[:, None], codes, jnp.nan),
        gap=jnp.where(status.valid, status.gap, jnp.nan),
        iterations=status.iterations,
        converged=status.converged,
        limited_by_precision=status.limited_by_precision,
        objective=jnp.where(status.valid, status.objective, jnp.nan),
    )
    return forward_only(solution, NO_GRADIENT)
