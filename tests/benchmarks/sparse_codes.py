"""CPU time of L1 codes, compared with SPAMS (LARS) and scikit-learn's lasso_cd: interleaved, medians.

    python tests/benchmarks/sparse_codes.py [--only 0,3] [--signals 4000] [--rounds 3] [--kinds paths] [--many 100000]
    python tests/benchmarks/sparse_codes.py --cores --signals 20000    and the same after taskset -c 0
    python tests/benchmarks/sparse_codes.py --stream 10000000

Signals: contrast-normalized, whitened patches of the images that come with scikit-learn and scikit-image, with
dictionaries learned here (stored in the temporary folder), and raw digits with digits as atoms, which is
ill-conditioned. Penalty weights give the fraction of nonzero codes in the table. "to 1e-4": the fastest of our solvers
with sum(P - P*) / sum(P*) <= 1e-4, where P* is the objective of LARS in float64; "certified": with such a mean duality
gap, recomputed in float64. SPAMS (spams-bin, not a dependency; 2.6.14 was used) in float32 on one thread is exact up to
rounding, so it has one time per row. scikit-learn is timed on a tenth of the signals. CPU-seconds of one thread without
compilation. With --many: the largest relative error over that number of signals, of SPAMS and of ours.

Measured on one core of an AVX2 machine while the other was busy (jax 0.10.2, spams-bin 2.6.14, scikit-learn
1.9.1; runs differ by 10 %): microseconds per signal, and the ratio of SPAMS' time to ours:

      d     k   non-zero    SPAMS scikit-       to 1e-4      to 1e-6   certified    certified
                                    learn                               to 1e-3      to 1e-4
    144   256       7.4%     56.6     168     14.5 3.90    24.9 2.27    18.1 3.13    27.9 2.03
    144   256       2.2%     19.7     148      8.2 2.40    12.8 1.54    10.3 1.90    12.8 1.54
    144   512       5.6%    147.5     433     55.4 2.66   105.0 1.41   105.0 1.41   137.5 1.07
    144   512       1.8%     37.0     229     22.7 1.63    29.4 1.26    27.0 1.37    35.4 1.04
    256   512       5.8%    165.8     340     41.1 4.03    61.3 2.71    56.4 2.94    92.8 1.79
    256   512       1.2%     39.3     248     25.6 1.53    30.8 1.28    28.9 1.36    30.8 1.28
    144  1024       1.8%    151.2     633     73.7 2.05   114.8 1.32   114.8 1.32   164.5 0.92
     64   256 raw digits     45.5    1994    108.5 0.42   143.3 0.32   143.3 0.32   143.3 0.32
    144   256      20.0%    215.3     540    156.8 1.37   179.1 1.20   179.1 1.20   200.0 1.08

The last row was measured next to a compilation; ADMM is fastest there, except to 1e-4.

Largest relative error of 100,000 signals, SPAMS in float32 and ours (encode, tolerance 1e-6):
k = 256 at 7.4 %: 2.4e-1 and 6e-8, 2.2 %: 4e-13 and 4e-7; k = 512 at 5.6 %: 3.6e-1 and 1e-10, 1.8 %: 2e-12 and
4e-7. The largest gap that ours reports, of all 400,000, is 2.5e-6.

Both cores against one, by --cores --only 0,1 --rounds 7 with --signals 20000 and 4000 on an idle AMD EPYC (Zen 5,
AVX-512), and by taskset -c 0 with the same: thousand signals per second of walltime, certified to 1e-4, by a thread per
core (parallel_encode.over_devices) and by a single call under jit; and the ratio of both cores' rate to one's:

    signals   non-zero           SPAMS            machine code             without it
                                           threads    single call     threads    single call
     20,000       7.4%      58.4  1.81    173.2  1.72    147.7  1.44     86.5  1.72     52.5  1.01
     20,000       2.2%     211.2  1.74    358.0  1.63    288.1  1.25    207.6  1.94    137.0  1.22
      4,000       7.4%      58.3  1.81    156.9  1.65    158.9  1.60     93.3  1.91     56.2  1.12
      4,000       2.2%     206.4  1.80    263.1  1.37    296.4  1.37    180.1  1.86    128.0  1.31

Two processes, each on its own core, are twice as fast as one. What threads of one process lose against that was not
found; neither huge pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1) nor smaller parts of the signals change it. XLA's
threads share the machine code of a single call, not its other operations. Blocks of tiles are filled evenly: padding
blocks to 32 tiles made a half of 20,000 signals take as long as 12,288, and threads gain a factor of 1.2. Without
machine code, XLA divides operations of more than 256 atoms over the cores (see greedy_updates), which gains little.

Paths of the codes by machine code (extra numba, coordinate_descent(kernel='cpu'), which encode takes on a CPU), by
taskset -c 0 python tests/benchmarks/sparse_codes.py --only 7,0,1,3,6,2 --rounds 5 --kinds paths
on one core of an AMD EPYC (Zen 3, AVX2) next to other jobs. One time for all goals, since the codes are exact: errors
of 1e-11, gaps of at most 3e-6. The last two columns are ratios of SPAMS' time to ours in runs with and without machine
code (--kinds paths,gap; raw digits: all kinds), certified to 1e-4 as by encode.

      d     k   non-zero    SPAMS          paths     paths  without
     64   256 raw digits     56.3     25.1  2.24      2.84     0.28
    144   256       7.4%     70.7     28.9  2.44      2.59     1.26
    144   256       2.2%     13.9     10.8  1.29      1.31     0.66
    144   512       1.8%     64.6     34.2  1.89      1.68     0.79
    144   512       5.6%    213.5     85.0  2.51
    144  1024       1.8%    219.6    109.6  2.00

On raw digits the machine code alone takes 11 us where SPAMS takes 33; the rest is three products with the dictionary,
two of them for the certificate, and copies. Without a certificate, other solvers take less to 1e-4 at 7.4 % (3.90), and
about as much at 2.2 % (1.51 and 1.39 in one run).

Greedy updates by machine code (updates: coordinate_descent(kernel='cpu', stop='step')) and paths, on one core of an
Intel Xeon with AVX-512 (2 cores, with other jobs on both; times vary by a quarter, ratios by less), by
taskset -c 0 python tests/benchmarks/sparse_codes.py --only 7,0,1,3,6,2 --rounds 5 --kinds KIND
with KIND updates, paths, and for the last column moves,updates,paths: microseconds per signal, and the ratio of SPAMS'
time of the same run to ours. To 1e-4 and 1e-6 by updates (raw digits: by paths, 18.3), certified to 1e-4 by paths, and
to 1e-4 without machine code:

      d     k   non-zero    SPAMS       to 1e-4       to 1e-6     certified   without
     64   256 raw digits     46.7    18.3  2.55    18.3  2.55    20.8  2.29      0.41
    144   256       7.4%     61.8     6.3  9.89     8.8  7.03    22.0  3.15      4.99
    144   256       2.2%     16.5     4.3  3.81     4.8  3.44     9.5  1.93      2.05
    144   512       1.8%     50.0    11.7  4.25    13.7  3.65    26.9  2.43      2.18
    144   512       5.6%    210.8    21.7  9.69    35.3  5.98    56.3  3.07      3.71
    144  1024       1.8%    205.9    39.6  5.20    48.0  4.29    71.5  2.79      2.74

The same on one core of the Zen 5, --kinds moves,updates,paths; certified by updates (raw digits: by paths); without
machine code, ratios to 1e-4 and certified to 1e-4:

      d     k   non-zero    SPAMS       to 1e-4       to 1e-6     certified       without
     64   256 raw digits     23.2     8.3  2.80     8.3  2.80     8.3  2.80    0.43
    144   256       7.4%     30.8     3.0 10.17     4.7  6.63     5.6  5.46    5.16  2.27
    144   256       2.2%      8.6     1.8  4.75     2.1  4.08     2.2  3.91    2.77  1.98
    144   512       1.8%     24.4     5.3  4.59     5.9  4.14     6.5  3.78    2.04  1.35
    144   512       5.6%     81.6     8.4  9.68    13.3  6.15    16.6  4.92    3.28  1.31
    144  1024       1.8%     93.9    11.9  7.92    15.1  6.22    17.5  5.37    2.64  1.21

An update takes 90 to 100 ns at k = 256, 180 at 512 and 350 at 1024, in vectors of 8 numbers: LLVM prefers these to 16
on this processor. At k = 512 and 1.8 % that is 3 us of the 12; the rest are a product with the dictionary (1.6) and
passes over the codes, some of them through fresh pages of memory.

Streams from a file of signals into a file of codes (parallel_encode.stream with its defaults, machine code), by
--stream 10000000 on both cores of that Xeon next to other jobs; pages of mapped files are part of the peak:

     signals   thousand per second    peak       files
      20,000      (compiles)        0.70 GB
     100,000         117            0.77 GB    0.08 GB
   1,000,000         146            0.79 GB    0.77 GB
  10,000,000         107            0.81 GB    7.68 GB

d = 64, k = 128, 8.4 % nonzero; every signal is certified to a gap of 1e-4.

What limits it. A greedy update reads a signal's k codes and one row of the Gram matrix, bound by loads from the L1
cache; finer tolerances need more updates. ADMM's iterations are matrix products at the core's rate, but it needs more
of them; starting from a few of them saves fewer updates than they cost. LARS is exact after about as many steps as
there are nonzero codes, so it gains where these are few, tolerances fine, and atoms similar, as in raw digits, where
coordinate descent converges slowly.
"""

import argparse
import functools
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

os.environ.setdefault('XLA_FLAGS', '--xla_cpu_multi_thread_eigen=false')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax
import jax.numpy as jnp
import numpy as np
import processor
import skimage.data
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import sparse_encode

from lecture4.ops import cores, machine_code
from lecture4.ops.linalg import apply, zca
from lecture4.sparse import parallel_encode, solvers
from lecture4.sparse.dictionary import online
from lecture4.train import progress

KEPT = pathlib.Path(tempfile.gettempdir()) / 'lecture4_sparse_codes'
# d, k, fraction of nonzero codes, penalty weight of dictionary learning.
PROBLEMS = [
    (144, 256, 0.074, 1.2),
    (144, 256, 0.022, 2.0),
    (144, 512, 0.056, 1.0),
    (144, 512, 0.018, 1.9),
    (256, 512, 0.058, 1.2),
    (256, 512, 0.012, 2.6),
    (144, 1024, 0.018, 1.4),
    (64, 256, None, 0.1),
    (144, 256, 0.2, 1.2),
]
IMAGES = ('astronaut', 'camera', 'coins', 'coffee', 'chelsea', 'moon', 'rocket', 'brick', 'grass')


def patches(side, n, seed=0):
    """Whitened patches [n, side^2] of images that need no download."""
    images = [getattr(skimage.data, name)() for name in IMAGES] + load_sample_images().images
    rng, sampled = np.random.default_rng(seed), []
    for image in images:
        gray = image if image.ndim == 2 else image[..., :3].mean(-1)
        gray = gray.astype(np.float32) / 255
        windows = np.lib.stride_tricks.sliding_window_view(gray, (side, side))
        at = [rng.integers(0, size, 2 * n // len(images)) for size in windows.shape[:2]]
        sampled.append(windows[at[0], at[1]].reshape(-1, side * side))
    x = rng.permutation(np.concatenate(sampled))
    x = x[x.std(axis=1) > 0.02][:n]
    x = x - x.mean(axis=1, keepdims=True)
    x = jnp.asarray(x / np.sqrt(x.var(axis=1, keepdims=True) + 1e-4))
    return np.asarray(apply(zca(x[:20000], 0.1), x))


def dictionary(x, k, weight, name):
    """Unit atoms [d, k] learned from the signals."""
    path = KEPT / f'{name}.npy'
    if not path.exists():
        state = online.init(jax.random.key(0), jnp.asarray(x[:20000]), k)
        step = jax.jit(lambda s, b, key: online.step(s, b, key, penalty_weight=weight)[0])
        for i in range(100):
            key = jax.random.key(i)
            rows = np.random.default_rng(i).integers(0, len(x), 1024)
            state = step(state, jnp.asarray(x[rows]), key)
        KEPT.mkdir(exist_ok=True)
        np.save(path, state.atoms / jnp.linalg.norm(state.atoms, axis=0))
    return np.load(path)


def problem(spams, d, k, fraction, weight, n):
    """Signals [n, d], unit atoms [d, k] and the weight that gives that fraction of nonzero codes."""
    if fraction is None:
        x = load_digits().data.astype(np.float32) / 16
        atoms = x[np.random.default_rng(0).permutation(len(x))[:k]].T
        return x, atoms / np.linalg.norm(atoms, axis=0), weight
    x = patches(int(d**0.5), max(n, 20000))
    D, low, high = dictionary(x, k, weight, f'{d}_{k}_{fraction}'), 0.05, 20.0
    for _ in range(10):
        weight = (low * high) ** 0.5
        more = (lars(spams, x[:600], D, weight) != 0).mean() > fraction
        low, high = (weight, high) if more else (low, weight)
    return x[-n:], D, round(weight, 2)


def lars(spams, x, D, weight, dtype=np.float32):
    options = {'D': np.asfortranarray(D, dtype), 'lambda1': float(weight), 'mode': 2}
    codes = spams.lasso(np.asfortranarray(x.T, dtype), numThreads=1, **options)
    return codes.toarray().T


def value(x, D, a, weight):
    x, D, a = (np.asarray(v, np.float64) for v in (x, D, a))
    return 0.5 * ((x - a @ D.T) ** 2).sum(1) + weight * np.abs(a).sum(1)


def gap(x, D, a, weight):
    """The duality gap of the scaled residual in float64, in units of the objective."""
    x, D, a = (np.asarray(v, np.float64) for v in (x, D, a))
    residual = x - a @ D.T
    largest = np.abs(residual @ D).max(1, initial=0)
    scale = np.minimum(1, weight / np.maximum(largest, 1e-300))[:, None]
    dual = 0.5 * (x * x).sum(1) - 0.5 * ((x - scale * residual) ** 2).sum(1)
    primal = value(x, D, a, weight)
    return (primal - dual) / primal


def candidates():
    """Name -> (x, D, weight) -> codes: one compiled program for all tolerances of a kind."""
    moves = jax.jit(
        lambda x, D, w, t: solvers.coordinate_descent(x, D, w, tolerance=t, stop='step').codes
    )
    certified = jax.jit(
        lambda x, D, w, t, first: (
            solvers.coordinate_descent(x, D, w, tolerance=t, first_step_tolerance=first).codes
        )
    )
    directions = jax.jit(
        lambda x, D, w, t: solvers.admm(x, D, w, tolerance=t, tile=128, polish=True).codes
    )
    finer = (0.03, 0.02, 0.015, 0.01, 0.006, 3e-3, 1e-3, 4e-4, 2e-4)
    several = {f'moves {t}': lambda *v, t=t: moves(*v, t) for t in finer}
    for t, first in ((1e-3, 0.1), (1e-3, 0.03), (1e-4, 0.03), (1e-4, 0.01), (1e-6, 1e-3)):
        several[f'gap {t} from {first}'] = lambda *v, t=t, first=first: certified(*v, t, first)
    several |= {f'admm {t}': lambda *v, t=t: directions(*v, t) for t in (1e-3, 1e-4)}
    if machine_code.supported():
        updates = jax.jit(
            lambda x, D, w, t: (
                solvers.coordinate_descent(x, D, w, tolerance=t, stop='step', kernel='cpu').codes
            )
        )
        several |= {f'updates {t}': lambda *v, t=t: updates(*v, t) for t in finer}
        paths = jax.jit(
            lambda x, D, w, t: solvers.coordinate_descent(x, D, w, tolerance=t, kernel='cpu').codes
        )
        several |= {f'paths {t}': lambda *v, t=t: paths(*v, t) for t in (1e-3, 1e-4, 1e-6)}
    return several


def seconds(run):
    began = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - began


def compare(spams, x, D, weight, rounds, kinds):
    """Prints one problem's rows."""
    n, few = len(x), max(len(x) // 10, 1)
    best = value(x, D, lars(spams, x, D, weight, np.float64), weight)
    ours = tuple(map(jnp.asarray, (x, D, np.float32(weight))))
    runs = {name: lambda run=run: run(*ours) for name, run in candidates().items()}
    runs = {name: run for name, run in runs.items() if name.split()[0] in kinds}
    codes = {name: np.asarray(run()) for name, run in runs.items()}  # compiles, too
    X, atoms = np.asfortranarray(x.T), np.asfortranarray(D)
    runs['SPAMS'] = lambda: spams.lasso(X, D=atoms, lambda1=weight, mode=2, numThreads=1)
    x64, D64 = x[:few].astype(np.float64), D.T.astype(np.float64)
    runs['scikit-learn'] = lambda: sparse_encode(
        x64, D64, algorithm='lasso_cd', alpha=weight, check_input=False, max_iter=10000
    )
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    cost = {name: statistics.median(t) / n * 1e6 for name, t in times.items()}
    cost['scikit-learn'] *= n / few
    print(f'  SPAMS {cost["SPAMS"]:.1f} us per signal, scikit-learn {cost["scikit-learn"]:.1f}')
    error = {name: (value(x, D, a, weight) - best) / best.mean() for name, a in codes.items()}
    proven = {name: gap(x, D, a, weight).mean() for name, a in codes.items()}
    for goal, reached in (
        ('to 1e-4', {name: e.mean() <= 1e-4 for name, e in error.items()}),
        ('to 1e-6', {name: e.mean() <= 1e-6 for name, e in error.items()}),
        ('certified 1e-3', {name: g <= 1e-3 for name, g in proven.items()}),
        ('certified 1e-4', {name: g <= 1e-4 for name, g in proven.items()}),
    ):
        able = [name for name, yes in reached.items() if yes]
        if not able:
            print(f'  {goal:15s} not reached')
        # By machine code, and without it.
        compiled = ('updates', 'paths')
        groups = ([name for name in able if name.startswith(compiled) == new] for new in (1, 0))
        for name in (min(group, key=cost.get) for group in groups if group):
            print(
                f'  {goal:15s} {cost[name]:7.2f} us  {cost["SPAMS"] / cost[name]:5.2f}x SPAMS '
                f'{cost["scikit-learn"] / cost[name]:6.1f}x scikit-learn   by {name:18s} mean '
                f'{error[name].mean():.0e} worst {(error[name] * best.mean() / best).max():.0e} '
                f'gap {proven[name]:.0e}',
                flush=True,
            )


def worst(spams, x, D, weight):
    """Prints the largest relative error of SPAMS in float32 and of ours, both at their best."""
    best = value(x, D, lars(spams, x, D, weight, np.float64), weight)
    run = jax.jit(lambda *v: solvers.encode(*v, tolerance=1e-6))
    solution = run(*map(jnp.asarray, (x, D, np.float32(weight))))
    for name, codes in (('SPAMS', lars(spams, x, D, weight)), ('ours', np.asarray(solution.codes))):
        error = (value(x, D, codes, weight) - best) / best
        print(
            f'  worst of {len(x)}: {name} {error.max():.1e}, 99.9 % {np.quantile(error, 0.999):.1e}'
        )
    print(f'  {solvers.summarize(solution)}')


def on_cores(spams, x, D, weight, rounds):
    """Prints thousands of signals per second of walltime on all cores that this process may use."""
    n_cores = cores.n_cores()
    ours = tuple(map(jnp.asarray, (x, D, np.float32(weight))))
    one = jax.jit(
        lambda *v, kernel: solvers.encode(*v, tolerance=1e-4, kernel=kernel).codes,
        static_argnames='kernel',
    )
    X, atoms = np.asfortranarray(x.T), np.asfortranarray(D)
    options = {'D': atoms, 'lambda1': weight, 'mode': 2, 'numThreads': n_cores}
    runs = {'SPAMS': lambda: spams.lasso(X, **options)}
    for kernel in ('cpu', 'none'):  # with machine code, where numba is installed, and without it
        split = functools.partial(parallel_encode.over_devices, *ours, tolerance=1e-4)
        runs[f'over_devices ({kernel})'] = lambda run=split, k=kernel: run(kernel=k).codes
        runs[f'one call ({kernel})'] = lambda k=kernel: one(*ours, kernel=k)
    times = {name: [] for name in runs}
    for repeat in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            if repeat:
                times[name].append(time.perf_counter() - began)
    rates = {name: len(x) / 1e3 / statistics.median(t) for name, t in times.items()}
    text = ', '.join(f'{name} {rate:.1f}' for name, rate in rates.items())
    print(f'  {n_cores} cores, thousand signals per second to a gap of 1e-4: {text}', flush=True)


def streamed(largest, d=64, k=128, weight=1.2, chunk=20_000):
    """Prints the rate and the peak of memory of streams from a file of signals to a file of codes."""
    sizes = [n for n in (100_000, 1_000_000, 10_000_000) if n < largest] + [largest]
    D = dictionary(patches(int(d**0.5), 20000), k, weight, f'{d}_{k}_stream')
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = pathlib.Path(folder, 'signals'), pathlib.Path(folder, 'codes')
        with inputs.open('wb') as file:
            for start in range(0, largest, chunk):
                x = patches(int(d**0.5), chunk, seed=start)
                x = np.resize(x, (min(chunk, largest - start), d))  # the few that are flat again
                x.tofile(file)
        signals = np.memmap(inputs, np.float32, 'r', shape=(largest, d))
        list(parallel_encode.stream(signals[:20_000], D, weight))  # compiles
        print(f'20,000 signals: peak {peak():.2f} GB', flush=True)
        for n in sizes:
            out = np.memmap(outputs, np.float32, 'w+', shape=(n, k))
            nonzero = unconverged = 0
            began = time.perf_counter()
            with progress.display('auto' if sys.stderr.isatty() else 'none', 0, n, 'codes') as show:
                for solution in parallel_encode.stream(
                    signals[:n], D, weight, out=out, progress_fn=lambda done, _: show(done, {})
                ):
                    nonzero += np.count_nonzero(solution.codes)
                    unconverged += np.count_nonzero(~solution.converged)
            seconds = time.perf_counter() - began
            print(
                f'{n:>10,} signals, d={d} k={k}: {n / seconds / 1e3:6.1f} thousand per second, '
                f'peak {peak():.2f} GB, files {(d + k) * n * 4 / 1e9:.2f} GB, '
                f'{nonzero / n / k:.1%} nonzero, {unconverged} not converged',
                flush=True,
            )
            del out
            outputs.unlink()


def peak():
    """The largest memory of this process until now in GB, pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', default='')
    parser.add_argument('--signals', type=int, default=4000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--kinds', default='moves,gap,admm,updates,paths')  # fewer compile sooner
    parser.add_argument('--many', type=int, default=0)
    parser.add_argument('--cores', action='store_true')
    parser.add_argument('--stream', type=int, default=0)  # signals; 10 million need 8 GB of disk
    args = parser.parse_args()
    if args.stream:
        print(f'{processor.describe()}; jax {jax.__version__}')
        streamed(args.stream)
        return
    try:
        import spams
    except ImportError:
        raise SystemExit('this benchmark compares with SPAMS: pip install spams-bin') from None
    print(f'{processor.describe()}; jax {jax.__version__}')
    for i in map(int, args.only.split(',')) if args.only else range(len(PROBLEMS)):
        d, k, fraction, weight = PROBLEMS[i]
        x, D, weight = problem(spams, d, k, fraction, weight, args.many or args.signals)
        kind = f'{fraction:.1%} nonzero' if fraction else 'raw digits'
        print(f'{i}: d={d} k={k} {kind}, weight {weight}, {len(x)} signals', flush=True)
        if args.many:
            worst(spams, x, D, weight)
        elif args.cores:
            on_cores(spams, x, D, weight, args.rounds)
        else:
            compare(spams, x, D, weight, args.rounds, args.kinds.split(','))


if __name__ == '__main__':
    main()
