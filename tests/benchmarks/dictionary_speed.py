"""CPU-seconds to a dictionary of a given quality: ours, SPAMS trainDL and scikit-learn, interleaved.

    taskset -c 0 python -m tests.benchmarks.dictionary_speed [--rounds 3] [--target 31]

All start from the same atoms and learn from the same 50,000 whitened patches of 12 x 12 of the images that come with
scikit-learn and scikit-image; d = 144, k = 256, penalty weight 1. The objective is the mean over 4,000 held-out
patches, by our solver to a gap of 1e-4, untimed. All run in one process, in turn; times are CPU-seconds without
compilation. SPAMS (package spams-bin, GPL) is left out where it is not installed. Prints the median over rounds of the
seconds to the target objective, by interpolation, and the table of objectives.

Measured on one core of an AVX2 machine (jax 0.10.2, spams-bin 2.6.14, scikit-learn 1.9.1): seconds from 37.1 to 31.0,
median of 3, and their ratio to the first row:

    online                           0.42            SPAMS, batches of 256     3.92    9.3
    online, 6 inner iterations       0.88    2.1     SPAMS, batches of 512     2.91    6.9
    online, 32 atoms at once         0.53    1.3     scikit-learn             12.73   30.4
    Lagrange dual                    4.33   10.3     projected gradient        6.37   15.2

What limits it: most of a step is matrix products at the core's rate (inner iterations, the sums of a a' and x a', the
residual); the rest is the eigenvectors of DD' and the atoms' sequential updates. Only fewer steps would be faster, but
smaller batches, or a single inner iteration, need more of them.
"""

import argparse
import functools
import itertools
import os
import time

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.ops import linalg, patches
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import init as initialization
from lecture4.sparse.dictionary import lagrange_dual, projected_gradient
from lecture4.sparse.dictionary import online as dictionary
from tests.benchmarks import processor

SIDE, K, WEIGHT, BATCH = 12, 256, 1.0, 1024
PEER_BATCH = 256  # scikit-learn's default; SPAMS gets 512 too
N_TRAIN, N_TEST = 50_000, 4_000


def signals():
    """(train, test) patches, whitened."""
    images, _, _ = image_data.load_images('photos')
    found = crops.sample_patches(images, N_TRAIN + N_TEST, SIDE, 0)
    found = patches.normalize_contrast(jnp.asarray(found), 0.04)
    found = linalg.apply(linalg.zca(found, 0.1), found)
    return found[N_TEST:], found[:N_TEST]


def rows_of(n):
    """Batch n of a shuffled pass over the training patches, a new order each pass."""
    a_pass, n = divmod(n, N_TRAIN // BATCH)
    return np.random.default_rng(a_pass).permutation(N_TRAIN)[n * BATCH : (n + 1) * BATCH]


class Ours:
    """A learner of ours, some steps at a time in one compiled scan."""

    def __init__(self, init, step, x, batches_of, n_steps):
        self.x, self.batches_of, self.n_steps, self.n = x, batches_of, n_steps, 0

        def run(state, rows, n):
            def body(state, given):
                rows, n = given
                return step(state, x[rows], jax.random.fold_in(jax.random.key(0), n))[0], None

            return jax.lax.scan(body, state, (rows, n))[0]

        self.run = jax.jit(run)
        self.start = self.state = init
        jax.block_until_ready(self.run(self.state, *self.next()))  # compiles
        self.n = 0

    def next(self):
        numbers = np.arange(self.n, self.n + self.n_steps)
        return np.stack([self.batches_of(n) for n in numbers]), numbers

    def advance(self, seconds):
        """Some steps more: the seconds so far."""
        given = self.next()
        began = time.process_time()
        self.state = jax.block_until_ready(self.run(self.state, *given))
        self.n += self.n_steps
        return seconds + time.process_time() - began

    def atoms(self):
        return self.state.atoms


class Spams:
    """trainDL from the start, every turn with a quarter more steps: to go on from its model is slower."""

    def __init__(self, spams, start, x, batch):
        self.spams, self.batch, self.n_steps, self.D = spams, batch, 12_800 // batch, None
        self.x, self.start = np.asfortranarray(np.asarray(x).T), np.asarray(start)

    def advance(self, seconds):
        del seconds
        self.n_steps += self.n_steps // 4
        options = {'lambda1': WEIGHT, 'batchsize': self.batch, 'numThreads': 1, 'verbose': False}
        start = np.asfortranarray(self.start)
        began = time.process_time()
        self.D = self.spams.trainDL(self.x, D=start, iter=self.n_steps, **options)
        return time.process_time() - began

    def atoms(self):
        return jnp.asarray(self.D, jnp.float32)


class Sklearn:
    """MiniBatchDictionaryLearning.partial_fit in float64, which its coordinate descent is faster in."""

    def __init__(self, start, x, n_steps):
        from sklearn.decomposition import MiniBatchDictionaryLearning

        self.x, self.n, self.n_steps = np.asarray(x, np.float64), 0, n_steps
        self.peer = MiniBatchDictionaryLearning(
            K, alpha=WEIGHT, batch_size=PEER_BATCH, fit_algorithm='cd',
            dict_init=np.asarray(start.T, np.float64),
        )  # fmt: skip

    def advance(self, seconds):
        for _ in range(self.n_steps):
            rows = np.random.default_rng(self.n).integers(0, N_TRAIN, PEER_BATCH)
            began = time.process_time()
            self.peer.partial_fit(self.x[rows])
            seconds += time.process_time() - began
            self.n += 1
        return seconds

    def atoms(self):
        return jnp.asarray(self.peer.components_.T, jnp.float32)


def contenders(x, start, spams):
    """{name: function that makes a fresh learner}."""
    key = jax.random.key(0)
    empty = dictionary.init(key, x[:1000], K)._replace(atoms=start)
    adam = optax.adam(0.02)
    gradient = projected_gradient.init(key, x[:1000], K, optimizer=adam)._replace(atoms=start)
    dual = lagrange_dual.init(key, x[:1000], K)._replace(atoms=start)
    # Two inner iterations reach every quality sooner than three, four or six, and than one.
    online = functools.partial(dictionary.step, penalty_weight=WEIGHT, n_iterations=2)
    by_gradient = functools.partial(
        projected_gradient.step, penalty_weight=WEIGHT, optimizer=adam, n_iterations=4
    )
    by_dual = functools.partial(lagrange_dual.step, penalty_weight=WEIGHT, n_iterations=12)

    def large(n):
        return np.random.default_rng(n).permutation(N_TRAIN)[: 10 * BATCH]

    made = {
        'online': lambda: Ours(empty, online, x, rows_of, 4),
        'online, 6 inner iterations': lambda: Ours(
            empty, functools.partial(online, n_iterations=6), x, rows_of, 4
        ),
        'online, 32 atoms at once': lambda: Ours(
            empty, functools.partial(online, block_size=32), x, rows_of, 4
        ),
        'projected gradient (adam)': lambda: Ours(gradient, by_gradient, x, rows_of, 8),
        'Lagrange dual, 10,240 a step': lambda: Ours(dual, by_dual, x, large, 1),
        'scikit-learn': lambda: Sklearn(start, x, 25),
    }
    if spams is not None:
        made['SPAMS, batches of 256'] = lambda: Spams(spams, start, x, 256)
        made['SPAMS, batches of 512'] = lambda: Spams(spams, start, x, 512)
    return made


def seconds_to(curve, target):
    """When a curve of (seconds, objective) passes the target, linearly between its points."""
    for (s, high), (t, low) in itertools.pairwise(curve):
        if low <= target:
            return s + (t - s) * (high - target) / (high - low)
    return np.nan


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--target', type=float, default=31.0)
    parser.add_argument('--only', nargs='+', default=[], help='beginnings of names; online always')
    parser.add_argument('--most', type=float, default=40.0, help='seconds after which one gives up')
    options = parser.parse_args()
    print(processor.describe())
    try:
        import spams  # pyright: ignore[reportMissingImports]
    except ImportError:
        spams = None
    x, test = signals()
    start = initialization.from_signals(jax.random.key(0), x, K)
    solve = jax.jit(functools.partial(solvers.admm, tolerance=1e-4, tile=128))

    def quality(learner):
        return float(solve(test, learner.atoms(), WEIGHT).objective.mean())

    made = contenders(x, start, spams)
    if options.only:
        prefixes = tuple(options.only)
        made = {n: m for n, m in made.items() if n == 'online' or n.startswith(prefixes)}
    first = float(solve(test, start, WEIGHT).objective.mean())
    print(f'{jax.devices()[0].device_kind}; start {first:.3f}, target {options.target}', flush=True)
    reached = {name: [] for name in made}
    for number in range(options.rounds):
        learners = {name: make() for name, make in made.items()}
        curves = {name: [(0.0, first)] for name in made}
        going = set(made)
        while going:
            for name in [name for name in made if name in going]:
                seconds = learners[name].advance(curves[name][-1][0])
                curves[name].append((seconds, quality(learners[name])))
                if curves[name][-1][1] <= options.target or seconds > options.most:
                    going.remove(name)
                    print(f'  {name}: {len(curves[name]) - 1} turns, {seconds:.2f} s', flush=True)
        for name, curve in curves.items():
            reached[name].append(seconds_to(curve, options.target))
            if not number:
                points = ', '.join(f'{s:.2f} ({value:.3f})' for s, value in curve[1:])
                print(f'  {name}: {points}')
    ours = np.median(reached['online'])
    for name, seconds in reached.items():
        each = ', '.join(f'{s:.2f}' for s in seconds)
        print(
            f'{name:30s} {np.median(seconds):7.2f} s to {options.target} ({each}), '
            f'{np.median(seconds) / ours:.1f} times ours'
        )


if __name__ == '__main__':
    main()
