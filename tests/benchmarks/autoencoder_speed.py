"""Seconds per epoch of two autoencoders, ours and torch's, interleaved; and variants under vmap.

    python -m tests.benchmarks.autoencoder_speed [--examples 10000] [--epochs 5] [--threads 1]

Ours: the program of the training loop, an epoch a call: gather, noise and Adam in one compiled scan.
Torch: the same arithmetic written as its users do, data in memory as one tensor, rows by index, fused
Adam. Images are random numbers: the time does not depend on them. Without torch (it is no
dependency) only ours is timed. Prints medians; the fraction of the measured rate of a product of
1024^3 that the epoch's flops come to; the time of the products of all layers alone, at the shapes of
training and compiled by XLA; torch's time over both, which is what the ratio is and the most that it
can be while the products are computed so; and the same ratios of the fastest epochs. Run with as many
cores as threads: taskset -c 0 for 1.

Results on an idle AMD EPYC (Zen 5) with AVX-512, float32, torch 2.14.1; seconds per epoch of 10,000:
    784-500-784, one core        0.245, products alone 0.182; torch 0.582, ratio 2.40, at most 3.23
    784-500-784, two cores       0.156, products alone 0.111; torch 0.400, ratio 2.54, at most 3.68
    784-1000-500-250-30 and mirror, one core   1.06, products alone 0.84; torch 2.06, ratio 1.94, at most 2.44
    the same, two cores          0.643, products alone 0.515; torch 1.372, ratio 2.06, at most 2.61
    8, 16, 64 variants: one by one takes 1.27, 1.32, 1.34 times as long as vmap on one core, 1.19, 1.92,
    1.57 times on two

Results on an Intel Xeon with AVX-512, float32, torch 2.14.1, 7 epochs at high priority while other
jobs ran. They slow torch more than ours at two threads, whose medians are no comparison; the fastest
epochs are the better one:
    784-500-784, one core        0.666 s per epoch of 10,000, products alone 0.468 s; torch 0.965 s,
                                 ratio 1.34, at most 1.98; fastest 1.31, at most 1.99
    784-500-784, two cores       0.488 s, products alone 0.343 s; fastest 1.64, at most 2.24
    784-1000-500-250-30 and mirror, one core   2.81 s, products alone 2.09 s; torch 3.28 s,
                                 ratio 1.11, at most 1.48; fastest 1.02, at most 1.40
    the same, two cores          1.87 s, products alone 1.39 s; fastest 1.28, at most 1.91
    8, 16, 64 variants: one by one takes 1.31, 1.23, 0.99 times as long as vmap on one core, 1.68, 1.71,
    1.57 times on two
A ratio of 1.5 for the deep network on one core of the Xeon is out of reach of these products: they
alone take torch's time over 1.40 to 1.48. What else an epoch of ours takes is mostly Adam, whose state
is read and written in three passes.

Results on one busy core (AMD EPYC, taskset -c 0, float32, torch 2.13), before the loop's program was
what is timed; rates count the gradient of the input, which is not computed:
    784-500-784     0.94 s per epoch of 10,000, 78 % of the product rate; torch 1.13 s, ratio 1.23
    784-1000-500-250-30 and mirror  3.25 s, 81 %; torch 3.15 s, ratio 0.98
    8, 16, 64 variants: one by one takes 1.28, 1.33, 1.35 times as long as vmap
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
from lecture4.autoencoder import deep, denoising, network
from lecture4.ops.losses import bernoulli_nll
from lecture4.train import step
from tests.benchmarks import processor

D, BATCH = 784, 100
SHALLOW = D, 500, D
HINTON = D, 1000, 500, 250, 30, 250, 500, 1000, D


def shallow(key):
    """784-500-784 logistic, masking noise: (params, loss)."""
    params = network.init_autoencoder(key, SHALLOW[:2], scale='sigmoid')

    def loss(params, x, key):
        def run(noisy):
            code = network.encode(params, noisy, network.identity, jax.nn.sigmoid)
            return network.decode(params, code, network.identity)

        corrupt = functools.partial(denoising.masking, mask_rate=0.5)
        return jnp.mean(denoising.loss(run, bernoulli_nll, corrupt, x, key))

    return params, loss


def hinton(key):
    """784-1000-500-250-30 and mirror, ReLU: (params, loss)."""
    params = network.init_autoencoder(key, HINTON[:5], scale='he')
    return params, lambda params, x, key: jnp.mean(deep.loss(params, x, activation=jax.nn.relu))


def ours(build, x):
    """A function that runs one epoch as the training loop does and returns its seconds."""
    params, loss = build(jax.random.key(0))
    task = train.optimize(
        lambda key, x: params, lambda p, x, key: (loss(p, x, key), {}), optax.adam(1e-3)
    )
    data = train.in_memory(x, BATCH, seed=0)
    compiled = step.compile_task(step.bind(task, data, 0), one_device())
    n_steps = len(x) // BATCH
    box = [compiled.init(), 0]

    def run():
        began = time.perf_counter()
        box[0], metrics = compiled.run_steps(box[0], box[1], n_steps)
        metrics['loss'].block_until_ready()
        box[1] += n_steps
        return time.perf_counter() - began

    return run


def one_device():
    """The mesh of this process's first device."""
    return jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))


def products_of(networks, x):
    """A function that runs only the matrix products of an epoch and returns its seconds.

    The products are those of training: of every layer forward, for the gradient of its weight, and, but for the first
    layer of each network, for the gradient of its input.

    Args:
      networks: Layers' dimensions of each network.
      x: Examples [n, d]; their first values are the input of each network.
    """
    keys = jax.random.split(jax.random.key(0), len(networks))
    weights = [
        tuple(layer.weight for layer in network.init(key, dims))
        for key, dims in zip(keys, networks, strict=True)
    ]

    def forward(weights, x):
        for weight in weights:
            x = x @ weight
        return x

    @jax.jit
    def epoch(x):
        def body(grads, batch):
            grads = []
            for layers in weights:
                inputs = batch[:, : len(layers[0])]
                outputs, backward = jax.vjp(lambda w, inputs=inputs: forward(w, inputs), layers)
                grads += backward(outputs)
            return grads, None

        batches = x.reshape(-1, BATCH, x.shape[1])
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return jax.lax.scan(body, zeros, batches)[0]

    def run():
        began = time.perf_counter()
        jax.block_until_ready(epoch(x))
        return time.perf_counter() - began

    return run


def theirs(torch, name, x, n_threads):
    """The same in torch."""
    from torch import nn

    torch.set_num_threads(n_threads)
    if name == 'shallow':
        model = nn.Sequential(nn.Linear(D, 500), nn.Sigmoid(), nn.Linear(500, D))
    else:
        layers = []
        for i, (a, b) in enumerate(itertools.pairwise(HINTON)):
            layers += [nn.Linear(a, b)] + ([nn.ReLU()] if i not in (3, 7) else [])
        model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x = torch.tensor(np.asarray(x))

    def run():
        began = time.perf_counter()
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            batch = x[order[start : start + BATCH]]
            noisy = batch * (torch.rand_like(batch) >= 0.5) if name == 'shallow' else batch
            logits = model(noisy)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction='sum')
            optimizer.zero_grad(set_to_none=True)
            (loss / len(batch)).backward()
            optimizer.step()
        return time.perf_counter() - began

    return run


def matmul_rate(n=1024):
    """Flops a second of a float32 product as large as the layers'."""
    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times)


def ratio(times, who):
    """Median of torch's times over those measured next to them."""
    pairs = zip(times['torch'], times[who], strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def variants(counts, n_steps=100):
    """Small autoencoders with different seeds and rates: one program against one after another."""
    x = jax.random.uniform(jax.random.key(0), (1000, 64))

    def train_one(key, rate):
        params = network.init_autoencoder(key, (64, 32), scale='sigmoid')

        def body(params, n):
            rows = jax.random.randint(jax.random.fold_in(key, n), (50,), 0, 1000)

            def loss(params):
                code = network.encode(params, x[rows], network.identity, jax.nn.sigmoid)
                return jnp.mean(
                    bernoulli_nll(network.decode(params, code, network.identity), x[rows])
                )

            grads = jax.grad(loss)(params)
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

        return jax.lax.scan(body, params, jnp.arange(n_steps))[0]

    alone, together = jax.jit(train_one), jax.jit(jax.vmap(train_one))
    for count in counts:
        keys, rates = jax.random.split(jax.random.key(1), count), jnp.linspace(0.01, 0.1, count)

        def one_by_one(keys=keys, rates=rates):
            for key, rate in zip(keys, rates, strict=True):
                jax.block_until_ready(alone(key, rate))

        def at_once(keys=keys, rates=rates):
            jax.block_until_ready(together(keys, rates))

        times = {one_by_one: [], at_once: []}
        for i in range(6):
            for run in times:
                began = time.perf_counter()
                run()
                if i:
                    times[run].append(time.perf_counter() - began)
        a, b = (statistics.median(values) for values in times.values())
        print(f'{count:3d} variants: one by one {a:.3f} s, vmapped {b:.3f} s, ratio {a / b:.2f}')


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--examples', type=int, default=10_000)
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    print(processor.describe())
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        torch = None
    x = jax.random.uniform(jax.random.key(0), (options.examples // BATCH * BATCH, D))
    rate = matmul_rate()
    print(f'{jax.devices()[0].device_kind}; a product of 1024^3: {rate / 1e9:.0f} GFLOP/s')
    for name, build, dims in (('shallow', shallow, SHALLOW), ('hinton', hinton, HINTON)):
        runs = {'ours': ours(build, x), 'products': products_of([dims], x)}
        if torch is not None:
            runs['torch'] = theirs(torch, name, x, options.threads)
        times = {who: [] for who in runs}
        for i in range(options.epochs + 1):
            for who, run in runs.items():
                seconds = run()
                if i:  # the first compiles
                    times[who].append(seconds)
        sizes = [a * b for a, b in itertools.pairwise(dims)]
        flops = (6 * sum(sizes) - 2 * sizes[0]) * len(x)  # without the gradient of the input
        median = {who: statistics.median(values) for who, values in times.items()}
        line = f'{name}: ours {median["ours"]:.3f} s an epoch of {len(x)}'
        line += f' ({flops / median["ours"] / rate:.0%} of the product rate)'
        line += f', its products alone {median["products"]:.3f} s'
        if torch is not None:
            line += f', torch {median["torch"]:.3f} s, ratio {ratio(times, "ours"):.2f}'
            line += f', of the products alone {ratio(times, "products"):.2f}'
            fastest = {who: min(values) for who, values in times.items()}
            line += f'; of the fastest epochs {fastest["torch"] / fastest["ours"]:.2f}'
            line += f' and {fastest["torch"] / fastest["products"]:.2f}'
        print(line)
    variants((8, 16, 64))


if __name__ == '__main__':
    main()
