"""Any number of signals: split over devices by pmap and by jit, and streamed from disk."""

import pathlib
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import cores
from lecture4.sparse import parallel_encode, solvers
from lecture4.sparse.objective import LOG
from tests.sparse.solving import done, few, problem, solve

CHEAP = {'method': 'fista', 'finish': False}  # to compile


@pytest.mark.parametrize('parallel', few('jit', 'threads', of=('threads', 'pmap', 'jit')))
def test_devices_give_the_codes_of_one(parallel, monkeypatch):
    """Also where the signals do not divide evenly, with separate weights and initial codes."""
    x, D = problem(n=10, dtype=np.float32)
    x[3] = np.nan
    weight = np.linspace(0.04, 0.1, 10, dtype=np.float32)[:, None]
    init = np.full((10, 24), 0.1, np.float32)
    assert len(jax.local_devices()) == 4
    monkeypatch.setattr(cores, 'n_cores', lambda: 3)
    options = {'method': 'admm', 'tolerance': 1e-5, 'finish': False}
    split = parallel_encode.over_devices(x, D, weight, init=init, parallel=parallel, **options)
    whole = jax.jit(lambda *v: solvers.encode(*v[:3], init=v[3], **options))(x, D, weight, init)
    for field, one, two in zip(whole._fields, whole, split, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6, err_msg=field)
    assert (len(split.codes.sharding.device_set) > 1) == (parallel != 'threads')
    none = parallel_encode.over_devices(x[:0], D, 0.1, **CHEAP)
    assert none.codes.shape == (0, 24)
    with pytest.raises(ValueError, match="parallel='mpi'; expected"):
        parallel_encode.over_devices(x, D, 0.1, parallel='mpi')


def test_a_single_cpu_runs_threads(monkeypatch):
    x, D = problem(n=8, dtype=np.float32)
    threads, shapes, solve = set(), set(), solvers.encode

    def spy(signals, *args, **options):
        threads.add(threading.get_ident())
        shapes.add(signals.shape)
        return solve(signals, *args, **options)

    monkeypatch.setattr(solvers, 'encode', spy)
    monkeypatch.setattr(cores, 'n_cores', lambda: 2)
    parallel_encode._compiled.cache_clear()
    solution = parallel_encode.over_devices(x, D, 0.1, devices=jax.local_devices()[1:2], **CHEAP)
    parallel_encode._compiled.cache_clear()
    assert shapes == {(4, x.shape[1])} and threading.get_ident() not in threads
    assert solution.codes.devices() == {jax.local_devices()[1]}


@pytest.mark.slow
def test_devices_start_log_codes_from_those_of_l1():
    x, D = problem(n=6, dtype=np.float32)
    options = {'penalty': LOG, 'init': 'l1', 'tolerance': 1e-5}
    split = parallel_encode.over_devices(5 * x, D, 2.0, **options)
    whole = solvers.encode(jnp.asarray(5 * x), jnp.asarray(D), 2.0, **options)
    assert split.converged.all()
    np.testing.assert_allclose(split.codes, whole.codes, atol=1e-4)
    initial = parallel_encode.over_devices(5 * x, D, 2.0, max_iterations=0, **options)
    assert (initial.codes == 0).any() and (
        initial.codes != 0
    ).any()  # zeros are L1's, not those of log


def test_options_that_cannot_be_split_are_refused():
    x, D = problem(n=6, dtype=np.float32)
    with pytest.raises(ValueError, match=r'penalty weight 0\.0; expected a positive'):
        parallel_encode.over_devices(x, D, 0.0)
    with pytest.raises(TypeError, match=r'rho is an array; expected a Python value'):
        parallel_encode.over_devices(x, D, 0.1, method='admm', rho=jnp.float32(0.1))
    bad_options = (
        ({'batch_size': 0}, 'batch_size=0'),
        ({'penalty_weight': np.full((4, 1), 0.1)}, r'\(4, 1\)'),
    )
    for bad, message in bad_options:
        options = {'penalty_weight': 0.1, 'batch_size': 4} | bad
        with pytest.raises(ValueError, match=message):
            next(parallel_encode.stream(iter([x]), D, **options))


@pytest.mark.parametrize('source', few('memmap', of=('memmap', 'iterator')))
def test_a_stream_equals_the_whole(source, tmp_path):
    x, D = problem(n=37, dtype=np.float32)
    options = {**CHEAP, 'tolerance': 1e-6}
    whole = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, **options)
    if source == 'memmap':
        np.save(tmp_path / 'x.npy', x)
        signals = np.load(tmp_path / 'x.npy', mmap_mode='r')
    else:
        signals = (x[a:b] for a, b in ((0, 3), (3, 3), (3, 30), (30, 37)))
    out = np.lib.format.open_memmap(tmp_path / 'a.npy', 'w+', np.float32, (37, 24))
    progress = []
    parts = list(
        parallel_encode.stream(
            signals,
            D,
            0.05,
            batch_size=16,
            out=out,
            progress_fn=lambda *v: progress.append(v),
            **options,
        )
    )
    total = 37 if source == 'memmap' else None
    assert progress == [(16, total), (32, total), (37, total)]
    assert [len(part.codes) for part in parts] == [16, 16, 5]
    np.testing.assert_allclose(out, whole.codes, atol=1e-4)  # other tiles, other rounding
    np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), out)
    gathered = solvers.summarize(solvers.Solution(*map(np.concatenate, zip(*parts, strict=True))))
    assert gathered.n_signals == 37 and gathered.n_unconverged == gathered.n_invalid == 0


def test_a_stream_reads_no_further_than_one_batch_ahead():
    x, D = problem(n=8, dtype=np.float32)
    read = []

    def signals():
        for i in range(8):
            read.append(i)
            yield x[i : i + 1]

    stream = parallel_encode.stream(signals(), D, 0.05, batch_size=2, **CHEAP)
    next(stream)
    assert len(read) == 4


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_of_a_stream_does_not_grow_with_signals(tmp_path):
    """Arrays of JAX, results, and pages of mapped files."""
    _, D = problem(n=1, dtype=np.float32)
    batch_size, peaks = 2000, []
    for n in (8000, 32000):
        for name, width in (('x', 16), ('a', 24)):
            np.save(tmp_path / f'{name}{n}.npy', np.zeros((n, width), np.float32))
        signals = np.load(tmp_path / f'x{n}.npy', mmap_mode='r')
        out = np.load(tmp_path / f'a{n}.npy', mmap_mode='r+')
        before = {id(array) for array in jax.live_arrays()}
        results, sizes = [], []

        def measure(*_, n=n, before=before, results=results, sizes=sizes):
            arrays = sum(v.nbytes for v in jax.live_arrays() if id(v) not in before)
            alive = sum(result() is not None for result in results)
            sizes.append((arrays, mapped_bytes(tmp_path, f'{n}.npy'), alive))

        options = {'batch_size': batch_size, 'out': out, 'progress_fn': measure, **CHEAP}
        for solution in parallel_encode.stream(signals, D, 0.05, **options):
            results.append(weakref.ref(solution.codes))
            measure()
        peaks.append(np.max(sizes, axis=0))
    # Without a bound they would grow by 12 batches.
    batch_bytes = 4 * batch_size * (16 + 24)
    assert (peaks[1] - peaks[0] <= [batch_bytes, batch_bytes, 0]).all()


def mapped_bytes(folder, suffix):
    """Memory that pages of files in the folder take in this process."""
    total, inside = 0, False
    for line in pathlib.Path('/proc/self/smaps').read_text().splitlines():
        words = line.split()
        if not words[0].endswith(':'):
            inside = words[-1].startswith(str(folder)) and words[-1].endswith(suffix)
        elif inside and words[0] == 'Rss:':
            total += 1024 * int(words[1])
    return total


def test_pages_of_copies_on_write_are_kept(tmp_path):
    """They are in no file."""
    _, D = problem(n=1, dtype=np.float32)
    for name, width in (('x', 16), ('a', 24)):
        np.save(tmp_path / f'{name}.npy', np.zeros((8, width), np.float32))
    signals = np.load(tmp_path / 'x.npy', mmap_mode='c')
    out = np.load(tmp_path / 'a.npy', mmap_mode='c')
    signals[:] = problem(n=8, dtype=np.float32)[0]
    (solution,) = parallel_encode.stream(signals, D, 0.05, batch_size=8, out=out, **CHEAP)
    assert np.any(signals) and np.any(solution.codes)
    np.testing.assert_array_equal(out, solution.codes)


def test_too_few_rows_for_a_stream_are_refused(tmp_path):
    x, D = problem(n=6, dtype=np.float32)
    with pytest.raises(ValueError, match='out has 5 rows for 6 signals'):
        list(parallel_encode.stream(x, D, 0.05, out=np.zeros((5, 24), np.float32), **CHEAP))
    with pytest.raises(ValueError, match='out has 5 rows for more signals'):
        list(parallel_encode.stream(iter([x]), D, 0.05, out=np.zeros((5, 24), np.float32), **CHEAP))


def test_the_summary_names_the_worst_signal():
    x, D = problem(dtype=np.float32)
    x[7] = np.nan
    solution = solve('fista', x, D, 0.02, max_iterations=10, tolerance=1e-3)
    summary = solvers.summarize(solution)
    gap = np.asarray(solution.gap)
    assert summary.worst_signal == np.nanargmax(gap) and summary.worst_gap == np.nanmax(gap)
    assert summary.n_invalid == 1 and summary.n_signals == 12
    assert summary.n_unconverged == 11 - done(solution).sum() > 0
    np.testing.assert_allclose(summary.mean_gap, np.nanmean(gap), rtol=1e-5)
    assert solvers.summarize(jax.tree.map(lambda v: v[7:8], solution)).worst_signal == -1
