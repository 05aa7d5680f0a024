"""Codes of any number of signals: over all devices at once, and from sets larger than memory."""

import concurrent.futures
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lecture4.sparse import solvers
from lecture4.sparse.objective import check, check_positive


def over_devices(x, D, weight, *, init=None, parallel=None, devices=None, **options):
    """solvers.encode with the signals shared out over devices, or over a CPU's cores, each of which stops
    by its own.

    XLA's own threads make products this small slower: on two cores one call takes twice to three times as
    long as two calls, of half of the signals each, from two threads. The compiled program is kept for
    the next call with the same shapes and options.

    Shapes   x [n, d], any n; D [d, k]; weight scalar, [k], [n, 1] or [n, k]; init [n, k], or 'l1'
             (see fista). Returns Solution, on the devices where it was found.
    parallel 'threads': one for every core of a CPU; 'pmap'; 'jit': the same program over a mesh. None:
             threads where the only device is a CPU, else pmap.
    devices  a list of them; all of this process where None. Threads use the first.
    options  of solvers.encode, as Python values: they belong to the program.
    Errors   ValueError for another parallel; TypeError for an option that is an array; otherwise as
             solvers.encode.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    devices = tuple(devices or jax.local_devices())
    if parallel is None:
        alone = len(devices) == 1 and devices[0].platform == 'cpu'
        parallel = 'threads' if alone else 'pmap'
    if parallel not in ('threads', 'pmap', 'jit'):
        raise ValueError(f"parallel {parallel!r} is none of 'threads', 'pmap' and 'jit'")
    for name, value in options.items():
        if isinstance(value, jax.Array | np.ndarray):
            raise TypeError(
                f'{name} is an array; over devices an option is a Python value, such as float({name})'
            )
    if isinstance(init, str):  # not a row for each signal
        options, init = options | {'init': init}, None
    n = x.shape[0]
    if n == 0:
        return solvers.encode(x, D, weight, **{'init': init, **options})
    count = min(n_cores(), n) if parallel == 'threads' else len(devices)
    share = -(-n // count)
    rows = (x, weight if weight.shape[0] == n else None, init)
    # Short by some, the last device repeats the last signal.
    place = jnp.minimum(jnp.arange(share * count), n - 1)
    rows = jax.tree.map(lambda v: jnp.asarray(v)[place].reshape(count, share, *v.shape[1:]), rows)
    run = _compiled(devices, parallel, tuple(sorted(options.items())))
    found = run(rows, D, weight if rows[1] is None else None)
    return jax.tree.map(lambda v: v.reshape(count * share, *v.shape[2:])[:n], found)


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.lru_cache(maxsize=32)
def _compiled(devices, parallel, options):
    def solve(rows, D, weight):
        x, own, init = rows
        given = {'init': init, **dict(options)}
        return solvers.encode(x, D, weight if own is None else own, **given)

    if parallel == 'threads':
        return functools.partial(_in_threads, jax.jit(solve), devices[0])
    if parallel == 'pmap':
        return jax.pmap(solve, in_axes=(0, None, None), devices=devices)

    def part(rows, D, weight):
        found = solve(jax.tree.map(lambda v: v[0], rows), D, weight)
        return jax.tree.map(lambda v: v[None], found)

    mesh = Mesh(np.asarray(devices), ('device',))
    split, whole = PartitionSpec('device'), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            part, mesh=mesh, in_specs=(split, whole, whole), out_specs=split, check_vma=False
        )
    )


def _in_threads(solve, device, rows, D, weight):
    """Solve for every share of the rows [count, share, ...], each in its own thread."""
    rows, D, weight = jax.device_put((rows, D, weight), device)

    def one(i):
        return jax.block_until_ready(solve(jax.tree.map(lambda v: v[i], rows), D, weight))

    with concurrent.futures.ThreadPoolExecutor(len(rows[0])) as pool:
        found = list(pool.map(one, range(len(rows[0]))))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found)


def stream(signals, D, weight, *, batch_size=16384, out=None, progress_fn=None, **options):
    """Codes of signals that do not fit in memory, a batch after the other: yields numpy Solutions.

    While the host takes up one batch the devices work at the next. Batches have one size (the last
    is filled up, and cut again), so that one program serves all.

    signals      an array or np.memmap [n, d], or an iterable of arrays [m, d], m as it comes.
    out          where codes go: an array or np.memmap [n, k], filled from the top; None keeps none.
    progress_fn  called with (signals done, signals in all or None) after every batch.
    options      those of over_devices.
    Domain       weight scalar or [k]; batch_size >= 1.
    Errors       ValueError for another of these, or where out has too few rows, or signals hold none
                 of d values; otherwise as over_devices, at the first batch.
    """
    D = jnp.asarray(D)
    if batch_size < 1:
        raise ValueError(f'batch_size {batch_size} must be at least 1 signal')
    if np.ndim(weight) > 1:
        raise ValueError(
            f'weight has shape {np.shape(weight)}; for a stream give a scalar or [k], one weight for '
            'all signals or for each atom'
        )
    total = len(signals) if hasattr(signals, 'shape') else None
    if out is not None and total is not None and len(out) < total:
        raise ValueError(f'out has {len(out)} rows for {total} signals; give one row for each')
    done = 0

    def take(pending):
        nonlocal done
        found, m = pending
        found = jax.tree.map(lambda v: np.asarray(v)[:m], found)
        if out is not None:
            if done + m > len(out):
                raise ValueError(f'out has {len(out)} rows and the signals are more than that')
            out[done : done + m] = found.codes
        done += m
        if progress_fn is not None:
            progress_fn(done, total)
        return found

    pending = None
    for batch in _batches(signals, batch_size):
        m = len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], batch_size - m, axis=0)])
        ahead = over_devices(jnp.asarray(filled), D, weight, **options), m
        if pending is not None:
            yield take(pending)
        pending = ahead
    if pending is not None:
        yield take(pending)


def _batches(signals, size):
    """Arrays of `size` rows and one of the rest."""
    if hasattr(signals, 'shape'):
        for start in range(0, len(signals), size):
            yield np.asarray(signals[start : start + size])
        return
    held, count = [], 0
    for part in signals:
        part = np.asarray(part)
        while len(part):
            piece, part = part[: size - count], part[size - count :]
            held.append(piece)
            count += len(piece)
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)
