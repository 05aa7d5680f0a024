"""Codes of any number of signals: on all devices in parallel, and from sets larger than memory."""

import functools
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops import cores
from lecture4.sparse import solvers
from lecture4.sparse.objective import check_inputs, check_penalty_weight


def over_devices(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    init: Float[Array | np.ndarray, 'n k'] | str | None = None,
    parallel: Literal['threads', 'pmap', 'jit'] | None = None,
    devices: Sequence[Any] | None = None,
    **options: Any,
) -> solvers.Solution:
    """solvers.encode with the signals split over devices or over the cores of a CPU, each of which stops independently.

    XLA's own threads gain little with products this small: on two cores one call takes 1.4 to 1.7 times as long as two
    calls from two threads, each with half of the signals; 0.9 to 1.2 times where machine code runs (extra numba). The
    compiled program is reused by the next call with the same shapes and options.

    Args:
      x: Signals, any number of them.
      D: Dictionary, atoms in columns.
      penalty_weight: Scalar, [k], [n, 1] or [n, k].
      init: Initial codes, or 'l1' (see fista).
      parallel: 'threads': one for every core of a CPU; 'pmap'; 'jit': the same program over a mesh.
        None: threads where the only device is a CPU, else pmap.
      devices: Devices to use; None takes all of this process. Threads use the first.
      **options: Options of solvers.encode, as Python values: they are part of the program.

    Returns:
      Solution, on the devices where it was computed.

    Raises:
      TypeError: An option that is an array; otherwise as solvers.encode.
      ValueError: Another `parallel`; otherwise as solvers.encode.
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    devices = tuple(devices or jax.local_devices())
    if parallel is None:
        single_cpu = len(devices) == 1 and devices[0].platform == 'cpu'
        parallel = 'threads' if single_cpu else 'pmap'
    if parallel not in ('threads', 'pmap', 'jit'):
        raise ValueError(f"parallel={parallel!r}; expected 'threads', 'pmap', 'jit' or None")
    for name, value in options.items():
        if isinstance(value, jax.Array | np.ndarray):
            raise TypeError(f'{name} is an array; expected a Python value, such as float({name})')
    options = {'platform': devices[0].platform, **options}
    if isinstance(init, str):  # not a row for each signal
        options, init = options | {'init': init}, None
    n = x.shape[0]
    if n == 0:
        return solvers.encode(x, D, weight, **{'init': init, **options})
    count = min(cores.n_cores(), n) if parallel == 'threads' else len(devices)
    n_rows = -(-n // count)
    rows = (x, weight if weight.shape[0] == n else None, init)
    shared = (D, weight if rows[1] is None else None)
    run: Any = _compiled(devices, parallel, tuple(sorted(options.items())))
    if parallel == 'threads':
        return run(n_rows, rows, *shared)
    # If signals run out, the last device repeats the last one.
    place = jnp.minimum(jnp.arange(n_rows * count), n - 1)
    rows = jax.tree.map(lambda v: jnp.asarray(v)[place].reshape(count, n_rows, *v.shape[1:]), rows)
    solution = run(rows, *shared)
    return jax.tree.map(lambda v: v.reshape(count * n_rows, *v.shape[2:])[:n], solution)


@functools.lru_cache(maxsize=32)
def _compiled(devices, parallel, options):
    def solve(rows, D, weight):
        x, own_weight, init = rows
        weight = weight if own_weight is None else own_weight
        return solvers.encode(x, D, weight, **{'init': init, **dict(options)})

    if parallel == 'threads':
        return functools.partial(_in_threads, jax.jit(solve), devices[0])
    if parallel == 'pmap':
        return jax.pmap(solve, in_axes=(0, None, None), devices=devices)

    def solve_part(rows, D, weight):
        solution = solve(jax.tree.map(lambda v: v[0], rows), D, weight)
        return jax.tree.map(lambda v: v[None], solution)

    mesh = Mesh(np.asarray(devices), ('device',))
    split, replicated = PartitionSpec('device'), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            solve_part, mesh=mesh, in_specs=(split, replicated, replicated), out_specs=split
        )
    )


def _in_threads(solve, device, n_rows, rows, D, weight):
    """`solve` for n_rows of the rows at a time, each in its own thread."""
    rows, D, weight = jax.device_put((rows, D, weight), device)
    return cores.map_rows(lambda part: solve(part, D, weight), rows, n_rows)


def stream(
    signals: Any,
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    batch_size: int = 16384,
    out: Any = None,
    progress_fn: Callable[[int, int | None], Any] | None = None,
    **options: Any,
) -> Iterator[solvers.Solution]:
    """Codes of signals that do not fit in memory, batch by batch: yields NumPy Solutions.

    While the host processes one batch, accelerators compute the next. All batches have the same size (the last is
    padded, and its result truncated), so that one program serves all. Memory is that of a few batches for any number
    of signals: pages of memory-mapped signals and codes are released after each.

    Args:
      signals: An array or np.memmap [n, d], or an iterable of arrays [m, d] of any m.
      D: Dictionary, atoms in columns.
      penalty_weight: Scalar or [k].
      batch_size: Signals per batch, at least 1.
      out: Array or np.memmap [n, k] into which codes are written, from the first row on; None writes none.
      progress_fn: Function called with (number of signals done, total number or None) after every batch.
      **options: Options of over_devices.

    Raises:
      TypeError: As in over_devices, at the first batch.
      ValueError: batch_size or penalty_weight out of its domain, or out has too few rows; otherwise as
        over_devices, at the first batch.
    """
    D = jnp.asarray(D)
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size}; expected at least 1 signal')
    if np.ndim(penalty_weight) > 1:
        raise ValueError(
            f'penalty weight of shape {np.shape(penalty_weight)}; expected a scalar or [k] for a '
            'stream: one for all signals, or one for each atom'
        )
    total = len(signals) if hasattr(signals, 'shape') else None
    if out is not None and total is not None and len(out) < total:
        raise ValueError(f'out has {len(out)} rows for {total} signals; expected one row for each')
    done = 0

    def fetch(pending):
        nonlocal done
        solution, m = pending
        solution = jax.tree.map(lambda v: np.asarray(v)[:m], solution)
        if out is not None:
            if done + m > len(out):
                raise ValueError(
                    f'out has {len(out)} rows for more signals; expected one row for each'
                )
            out[done : done + m] = solution.codes
            _release(out)
        done += m
        if progress_fn is not None:
            progress_fn(done, total)
        return solution

    pending = None
    for batch in _batches(signals, batch_size):
        m = len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - m, axis=0)])
        _release(signals)
        dispatched = over_devices(jnp.asarray(padded), D, penalty_weight, **options), m
        if pending is not None:
            yield fetch(pending)
        pending = dispatched
    if pending is not None:
        yield fetch(pending)


def _batches(signals, size):
    """Arrays of `size` rows and one of the remaining ones."""
    if hasattr(signals, 'shape'):
        for start in range(0, len(signals), size):
            yield np.asarray(signals[start : start + size])
        return
    buffer, count = [], 0
    for part in signals:
        part = np.asarray(part)
        while len(part):
            piece, part = part[: size - count], part[size - count :]
            buffer.append(piece)
            count += len(piece)
            if count == size:
                yield np.concatenate(buffer)
                buffer, count = [], 0
    if buffer:
        yield np.concatenate(buffer)


def _release(array):
    """Unmap the pages of a memory-mapped array: the file has them, also those written and not yet on the disk."""
    if not isinstance(array, np.memmap) or array.mode == 'c':  # copies on write are not in the file
        return
    mapping = array
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, 'MADV_DONTNEED'):
        mapping.madvise(mmap.MADV_DONTNEED)
