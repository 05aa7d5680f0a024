"""Seconds of a VAE's training: against torch, against the limit of the cores, and vmapped variants.

    python -m tests.benchmarks.variational_speed [--rounds 5] [--steps 150] [--threads 1]

The network is 784-400-20 with Bernoulli decoder, batch 100, Adam and dynamic binarization; parts of an
epoch of ours (the program of the training loop), of its matrix products alone, and of torch (if it can
be imported; eager, with foreach and with fused Adam) take turns in one process. Torch's time over that
of the products alone is the most that the ratio can be while the products are computed so. Then small
networks: 8 and 64 variants (of beta and of seed) in one program, against one after another through one
compiled program. Run with as many cores as threads: taskset -c 0 for 1.

Results on an idle AMD EPYC (Zen 5) with AVX-512, float32, torch 2.14.1, medians of 5 rounds:
    one core     ours 1, products alone 0.64, fused Adam 2.61, foreach 3.00; ours 1.51 s an epoch of 60,000
    two cores    ours 1, products alone 0.63, fused Adam 2.75, foreach 3.07; ours 0.86 s an epoch
    8, 64 variants one after another take 1.09, 1.06 times as long as vmap on one core, 1.15, 1.46 on two

Results on an Intel Xeon with AVX-512, float32, torch 2.14.1, 7 rounds at high priority while other jobs
ran, which slow torch more than ours at two threads; so the fastest rounds are given with the medians:
    one core     ours 1, products alone 0.61 (fastest 0.53), fused Adam 1.79 (1.50), foreach 2.03 (2.03)
    two cores    ours 1, products alone 0.60 (fastest 0.58), fused Adam 2.05 (1.83), foreach 2.49 (2.46);
                 ours 2.89 s an epoch of 60,000, 4.65 s of CPU time
    8, 64 variants one after another take 1.25, 1.03 times as long as vmap on one core, 1.31, 1.14 on two

Results on one busy core (AMD EPYC, taskset -c 0, float32, torch 2.13, medians of 3 rounds): 4.26 s an
epoch, 59 % of the rate of a matrix product; torch's foreach Adam 1.47 times (1.43-1.75) as long, its
fused Adam 1.16 times (1.12-1.50). 8 variants one after another take 1.06 times as long as vmap, 64
1.12 times.
"""

import argparse
import functools
import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import binarization, vae
from lecture4.ops.reduce import Reduce
from lecture4.train import step
from tests.benchmarks import processor
from tests.benchmarks.autoencoder_speed import one_device, products_of

BATCH = 100
NETWORKS = (784, 400, 40), (20, 400, 784)


def make_task(n_pixels, hidden, width, beta):
    """Training of a VAE with Adam."""
    model = vae.mlp(n_pixels, (hidden,), width)

    def loss(params, x, key):
        return vae.loss(vae.bound(model, params, x, key), beta=beta), {}

    return train.optimize(lambda key, x: model.init(key), loss, optax.adam(1e-3))


def ours(pixels, hidden, width, n_steps):
    """A function that trains n_steps as the training loop does."""
    task = make_task(pixels.shape[1], hidden, width, 1.0)
    data = train.in_memory(pixels, BATCH, seed=0, augment=binarization.binarize)
    compiled = step.compile_task(step.bind(task, data, 0), one_device())
    box = [compiled.init(), 0]

    def run():
        box[0], metrics = compiled.run_steps(box[0], box[1], n_steps)
        box[1] += n_steps
        return float(metrics['loss'].mean())

    return run


def variant(n_pixels, hidden, width, n_steps):
    """(init, run): run trains n_steps in one call, for one beta and key."""

    def run(state, pixels, key, beta):
        order_key, key = jax.random.split(key)
        rows = jax.random.permutation(order_key, len(pixels))[: n_steps * BATCH]
        task = make_task(n_pixels, hidden, width, beta)

        def body(state, inputs):
            rows, key = inputs
            noise_key, step_key = jax.random.split(key)
            x = binarization.binarize(noise_key, pixels[rows])
            return task.step(state, x, step_key, Reduce())

        inputs = rows.reshape(n_steps, BATCH), jax.random.split(key, n_steps)
        state, metrics = jax.lax.scan(body, state, inputs)
        return state, metrics['loss'].mean()

    return lambda key: make_task(n_pixels, hidden, width, 1.0).init(key, None), run


def torch_run(torch, pixels, hidden, width, n_steps, **options):
    """A function that trains the same network for n_steps in torch."""
    linear = torch.nn.Linear
    d = pixels.shape[1]
    encoder = torch.nn.Sequential(linear(d, hidden), torch.nn.ReLU(), linear(hidden, 2 * width))
    decoder = torch.nn.Sequential(linear(width, hidden), torch.nn.ReLU(), linear(hidden, d))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, **options)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    data = torch.from_numpy(pixels)

    def run():
        rows = torch.randperm(len(data))[: n_steps * BATCH].reshape(n_steps, BATCH)
        total = torch.zeros(())
        for i in range(n_steps):
            x = torch.bernoulli(data[rows[i]])
            mean, log_std = encoder(x).chunk(2, dim=1)
            logits = decoder(mean + log_std.exp() * torch.randn_like(mean))
            kl = (0.5 * ((2 * log_std).exp() + mean**2 - 1) - log_std).sum()
            loss = (bce(logits, x, reduction='sum') + kl) / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total / n_steps)

    return run


def timed(function):
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def against_torch(rounds, n_steps, threads):
    """Interleaved parts of an epoch of the MNIST network."""
    rng = np.random.default_rng(0)
    strokes = rng.uniform(size=(60_000, 784)) < 0.19  # about as many lit pixels as digits have
    pixels = (strokes * rng.uniform(0.2, 1, size=(60_000, 784))).astype(np.float32)
    parts = {'lecture4': ours(pixels, 400, 20, n_steps)}
    parts['products alone'] = products_of(NETWORKS, jnp.asarray(pixels[: n_steps * BATCH]))
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        print('torch is not installed: ours alone')
    else:
        torch.set_num_threads(threads)
        for name, options in (('foreach', {'foreach': True}), ('fused', {'fused': True})):
            parts[f'torch {torch.__version__} {name}'] = torch_run(
                torch, pixels, 400, 20, n_steps, **options
            )
    square = jnp.ones((1536, 1536))
    product = jax.jit(lambda a: a @ a)
    parts['matrix product'] = lambda: float(product(square)[0, 0])
    for part in parts.values():
        part()  # compiles, and warms the allocators up
    seconds = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            wall, cpu, result = timed(part)
            seconds[name].append((wall, cpu, result))
    limit = 2 * 1536**3 / min(wall for wall, *_ in seconds.pop('matrix product'))
    sizes = [a * b for dims in NETWORKS for a, b in itertools.pairwise(dims)]
    work = (6 * sum(sizes) - 2 * sizes[0]) * BATCH * n_steps  # the input needs no gradient
    mine = [wall for wall, *_ in seconds['lecture4']]
    for name, values in seconds.items():
        wall = statistics.median(wall for wall, *_ in values)
        cpu = statistics.median(cpu for _, cpu, _ in values)
        ratios = [theirs / own for (theirs, *_), own in zip(values, mine, strict=True)]
        print(
            f'{name:24} {600 / n_steps * wall:6.2f} s/epoch wall {600 / n_steps * cpu:6.2f} CPU, '
            f'{statistics.median(ratios):.2f} x ours ({min(ratios):.2f}-{max(ratios):.2f}; '
            f'fastest {min(values)[0] / min(mine):.2f}), '
            f'{work / wall / 1e9:5.1f} GFLOP/s = {work / wall / limit:.0%} of a matrix product'
        )


def vmapped(rounds, n_steps=100):
    """Variants of a digits-sized network in one program against one after another."""
    pixels = jnp.asarray(np.random.default_rng(0).uniform(size=(10_000, 64)), jnp.float32)
    init, run = variant(64, 32, 5, n_steps)
    one = jax.jit(run)
    every = jax.jit(jax.vmap(run, (0, None, 0, 0)))
    for n in (8, 64):
        keys, betas = jax.random.split(jax.random.key(0), n), jnp.linspace(0.5, 4, n)
        states = jax.vmap(init)(keys)
        singles = [(jax.tree.map(lambda leaf, i=i: leaf[i], states), keys[i]) for i in range(n)]

        def loop(singles=singles, betas=betas):
            found = [
                one(state, pixels, key, beta)[1]
                for (state, key), beta in zip(singles, betas, strict=True)
            ]
            return np.asarray(jax.block_until_ready(found))

        together = functools.partial(every, states, pixels, keys, betas)

        def once(together=together):
            return np.asarray(together()[1])

        np.testing.assert_allclose(loop(), once(), rtol=1e-4)
        ratios = [timed(loop)[0] / timed(once)[0] for _ in range(rounds)]
        print(
            f'{n} variants, 64-32-5, {n_steps} steps: one after another takes '
            f'{statistics.median(ratios):.2f} x the time of vmap ({min(ratios):.2f}-{max(ratios):.2f})'
        )


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    print(processor.describe())
    against_torch(options.rounds, options.steps, options.threads)
    vmapped(options.rounds)


if __name__ == '__main__':
    main()
