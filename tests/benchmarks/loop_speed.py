"""Overhead of the training loop: host time per step, saving, and the time to the first step.

    python tests/benchmarks/loop_speed.py [--steps 200] [--repeats 3]

A 784-256-784 autoencoder, batch size 128, Adam. `bare` is its compiled step in a Python loop, the lower bound; the
others are lecture4.train.loop with everything it does (metrics, log, signals): data on the device or from the host at
each step, one step or ten per call, and saves every 20 steps. Interleaved; medians. Then the time from a command to the
log line of its first step, with an empty compilation cache and with a full one.

On 2 cores of an EPYC next to other jobs (differences below 0.5 ms are noise there), ms per step:

    bare, resident                      5.65   +0.00  x 1.00
    loop, resident                      5.29   -0.37  x 0.94
    loop, resident, 10 per call         5.29   -0.36  x 0.94
    loop, streamed                      5.79   +0.14  x 1.03
    loop, resident, saves every 20     12.55   +6.90  x 2.22
    seconds from the command to its first step: 7.8 with an empty cache, 3.2 with a full one

A save of this state, 4.8 MB with Adam's two moments, costs 0.14 s.
"""

import argparse
import functools
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import processor
from jax.sharding import Mesh

from lecture4 import train
from lecture4.data import batches
from lecture4.ops.reduce import Reduce
from lecture4.train import loop
from lecture4.train.distributed.runtime import Runtime
from lecture4.train.step import bind, compile_task

ROOT = pathlib.Path(__file__).parents[2]
D, HIDDEN, BATCH, N = 784, 256, 128, 10_000
COMMAND = ['-m', 'experiments.sparse_coding.natural_image_bases', '--preset', 'smoke']


def task():
    """The autoencoder."""

    def init(key, batch):
        keys = jax.random.split(key)
        into = jax.random.normal(keys[0], (D, HIDDEN)) / D**0.5
        return [into, jax.random.normal(keys[1], (HIDDEN, D)) / HIDDEN**0.5]

    def loss(params, x, key):
        return jnp.mean(jnp.square(jax.nn.relu(x @ params[0]) @ params[1] - x)), {}

    return train.optimize(init, loss, optax.adam(1e-3))


def resident(x):
    """All data on the device."""
    return train.in_memory(x, BATCH, seed=0)


def streamed(x):
    """Rows gathered by the host and sent at each step."""
    return train.Data(batch=lambda n: x[batches.indices(0, n, N, BATCH)])


def bare(data, n_steps):
    """Seconds of n steps by the compiled program alone, one call each."""
    mesh = Mesh(np.array(jax.devices()[:1]), ('data',))
    compiled = compile_task(bind(task(), data, 0), mesh)
    given = jax.device_put(data.batch(0))
    step = jax.jit(
        lambda state, arrays, n: task().step(
            state, data.prepare(arrays, given, jax.random.key(0)), jax.random.key(0), Reduce()
        ),
        donate_argnums=0,
    )
    state, kept = compiled.init(), jax.device_put(data.device_arrays)
    state, metrics = step(state, kept, 0)
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    for n in range(n_steps):
        state, metrics = step(state, kept, n)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - began


def looped(data, n_steps, per_call=1, save_every=0):
    """Seconds of n steps of the loop, read from its own rows: compilation is before the first."""
    mesh = Mesh(np.array(jax.devices()[:1]), ('data',))
    config = train.Config(
        steps=n_steps + 40,
        batch_size=BATCH,
        steps_per_call=per_call,
        log_every=20,
        evaluate_every=20,
        save_every=save_every or 1000,
        progress='none',
    )
    with tempfile.TemporaryDirectory() as folder:
        program = bind(task(), data, 0)
        loop.run(program, config, Runtime(mesh), folder)
        rows = loop.read(pathlib.Path(folder) / 'metrics.jsonl')
    at = {row['step']: row['seconds'] for row in rows}
    return at[n_steps + 20] - at[20]


def first_step(cache):
    """Seconds from the command to the line of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [
            '--workdir',
            folder,
            '--cache_dir',
            cache,
            '--log_every',
            '1',
            '--progress',
            'plain',
        ]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *COMMAND, *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        found = next(
            (time.perf_counter() - began for line in process.stderr if ' 1/4 ' in line),
            float('nan'),
        )
        process.kill()
        process.communicate()
    return found


def main():
    """The tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--repeats', type=int, default=3)
    options = parser.parse_args()
    print(processor.describe())
    x = np.random.default_rng(0).random((N, D), dtype=np.float32)
    ways = {
        'bare, resident': functools.partial(bare, resident(x)),
        'loop, resident': functools.partial(looped, resident(x)),
        'loop, resident, 10 per call': functools.partial(looped, resident(x), per_call=10),
        'loop, streamed': functools.partial(looped, streamed(x)),
        'loop, resident, saves every 20': functools.partial(looped, resident(x), save_every=20),
    }
    times = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(1e3 * way(options.steps) / options.steps)
    base = statistics.median(times['bare, resident'])
    print(f'{jax.devices()[0].device_kind}: ms per step, difference from the bare step, ratio')
    for name, found in times.items():
        middle = statistics.median(found)
        print(f'{name:32} {middle:7.2f} {middle - base:+7.2f}  x {middle / base:.2f}')
    cold, warm = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_step(cache))
            warm.append(first_step(cache))
    print(
        f'seconds from the command to its first step: {statistics.median(cold):.1f} with an empty'
    )
    print(f'cache, {statistics.median(warm):.1f} with the one left ({" ".join(COMMAND[1:])})')


if __name__ == '__main__':
    main()
