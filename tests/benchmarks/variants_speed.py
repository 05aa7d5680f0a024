"""N variants in one program against one after another, each already a scan on the device.

    python tests/benchmarks/variants_speed.py [--variants 8 32 128] [--repeats 5] [--steps 20]

A small autoencoder (64-32-64, batch 32, Adam) and dictionary learning (64 atoms of 64, batch 64). One
call is a scan of --steps steps; the variants differ in learning rate or penalty. The two ways are timed
in turns, medians of --repeats; `ratio` is steps of variants a second, together over apart, and `of one`
is how many times the call of a single variant one call of all takes.

On 2 shared cores of an EPYC with other work (ratios are of one run, in turns):

                            N    apart  together  ratio  of one
    autoencoder             8     0.48      0.24   1.99     2.2
    autoencoder            32     2.33      0.71   3.29     9.3
    autoencoder           128     8.36      4.23   1.97    46.6
    dictionary              8     8.63      8.91   0.97     8.3
    dictionary             32    46.03     38.31   1.20    27.5
    dictionary            128   124.45    114.79   1.08   104.7

So on a CPU a program of many variants pays for tiny networks only, where calls cost more than their
arithmetic; --vectorize auto chooses so. No accelerator was at hand: that 32 variants there cost less
than 3 times one is not shown.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lecture4 import train
from lecture4.sparse.dictionary import online
from lecture4.train.step import bind, compile_task
from lecture4.train.sweep import variants as sweep

D = 64


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    """The swept field is a learning rate, or the weight of the penalty."""

    learning_rate: float = 1e-3
    batch_size: int = 32


def data(config):
    """Random numbers: the time does not depend on them."""
    x = np.random.default_rng(0).normal(size=(2048, D)).astype(np.float32)
    return train.in_memory(x, config.batch_size, seed=0)


def autoencoder(config, spec):
    """64-32-64, untied weights, ReLU."""

    def init(key, batch):
        keys = jax.random.split(key)
        return [jax.random.normal(keys[0], (D, 32)) / 8, jax.random.normal(keys[1], (32, D)) / 6]

    def loss(params, x, key):
        return jnp.mean(jnp.square(jax.nn.relu(x @ params[0]) @ params[1] - x)), {}

    return train.optimize(init, loss, optax.adam(config.learning_rate))


def learner(config, spec):
    """Online dictionary learning, 64 atoms."""

    def init(key, x):
        return online.init(key, x, D)

    def step(state, x, key, *, reduce):
        weight = 100 * config.learning_rate
        return online.step(state, x, key, penalty_weight=weight, reduce=reduce)

    return train.from_learner(init, step)


def seconds(function, repeats):
    """Median time of a call that returns when its arrays are there."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(build, config, n_variants, options):
    """(seconds of one call of one, of n one after another, of n together)."""
    mesh = Mesh(np.array(jax.devices()[:1]), ('data',))
    variants = [{'learning_rate': 1e-3 * (1 + i / n_variants)} for i in range(n_variants)]
    single = compile_task(bind(build(config, None), data(config), 0), mesh)
    stacked = compile_task(sweep.stack(config, variants, data, build), mesh)
    states = [single.init() for _ in range(n_variants)]
    whole = [stacked.init()]

    def advance(i):
        states[i], metrics = single.run_steps(states[i], 0, options.steps)
        return metrics

    def apart():
        return [advance(i) for i in range(n_variants)]

    def together():
        whole[0], metrics = stacked.run_steps(whole[0], 0, options.steps)
        return metrics

    for function in (apart, together):
        jax.block_until_ready(function())
    found = [
        (seconds(lambda: advance(0), 3), seconds(apart, 1), seconds(together, 1))
        for _ in range(options.repeats)
    ]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def main():
    """The table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--variants', type=int, nargs='+', default=[8, 32, 128])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--steps', type=int, default=20)
    options = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f'{device}: ms a step of all variants')
    print(f'{"":20} {"N":>4} {"apart":>8} {"together":>9} {"ratio":>6} {"of one":>7}')
    for name, build, batch in (('autoencoder', autoencoder, 32), ('dictionary', learner, 64)):
        for n_variants in options.variants:
            config = Config(batch_size=batch)
            one, apart, together = measure(build, config, n_variants, options)
            print(
                f'{name:20} {n_variants:4} {1e3 * apart / options.steps:8.2f} '
                f'{1e3 * together / options.steps:9.2f} {apart / together:6.2f} '
                f'{together / one:7.1f}',
                flush=True,
            )


if __name__ == '__main__':
    main()
