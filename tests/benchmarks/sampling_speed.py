"""Bilinear sampling compared with torch's grid_sample: milliseconds, forward, and forward with both gradients.

    python tests/benchmarks/sampling_speed.py [--repeats 25] [--threads 2]
    python tests/benchmarks/sampling_speed.py --tpu v5e:2x2    with libtpu: XLA's cost analysis instead

Both read the same images and affine grids, interleaved; wall-clock minimum and median. torch is not a dependency:
without it only ours is timed.

Seen on two cores (AMD EPYC) that other programs kept busy, torch 2.13: the least of 10 to 25 runs of each, not all
from one run of this file. torch waits for all of its threads, so that its median is many times its minimum
on a busy machine; measure again on an idle one.

    | case                            | ours, ms | torch, ms | ratio |
    |---------------------------------|----------|-----------|-------|
    | 64 of 60x60 to 28x28, forward   | 0.7      | 0.9       | 1.4   |
    | 64 of 60x60 to 28x28, gradients | 1.9      | 2.5       | 1.3   |
    | 224x224x64, forward             | 3.5      | 25        | 7     |
    | 224x224x64, gradients           | 32       | 100       | 3     |

One run of 25 repeats with a load of 14 on the two cores, median (minimum), ms; ratios of such runs say little:

    | case                            | ours       | torch     |
    |---------------------------------|------------|-----------|
    | 64 of 60x60 to 28x28, forward   | 16 (1.7)   | 44 (0.75) |
    | 64 of 60x60 to 28x28, gradients | 61 (21)    | 116 (2.2) |
    | 224x224x64, forward             | 46 (12)    | 274 (140) |

For a TPU (v5e, compiled by libtpu on a CPU, method 'gather' against 'matrix'), bytes accessed by XLA's count:

    | case                            | gather  | matrix  |
    |---------------------------------|---------|---------|
    | 64 of 60x60 to 28x28, forward   | 1.09 GB | 0.02 GB |
    | 64 of 60x60 to 28x28, gradients | 2.54 GB | 0.05 GB |
    | 64 of 28x28x32, forward         | 1.67 GB | 0.49 GB |
    | 16 of 128x128x3 to 64x64        | 1.66 GB | 0.96 GB |
    | the same, gradients             | 2.53 GB | 1.19 GB |
    | 224x224x64, forward             | 1.32 GB | 0.24 GB |

224x224x64 takes 324 GFLOP as a product of matrices, in float32 six passes of a v5e's units, against 0.03: its
estimated times are equal (1.87 and 1.79 ms) before that factor. So 'auto' takes the matrix form on a TPU up to
128 x 128 pixels.
"""

import argparse
import functools
import statistics
import time

import jax
import numpy as np

from lecture4.ops import grids, sampling

# name: (n, h, w, c, output size)
CASES = {
    '64 of 60x60 to 28x28': (64, 60, 60, 1, (28, 28)),
    '224x224x64': (1, 224, 224, 64, (224, 224)),
}
TPU_CASES = {
    '64 of 28x28x32': (64, 28, 28, 32, (28, 28)),
    '16 of 128x128x3 to 64x64': (16, 128, 128, 3, (64, 64)),
}


def ours(images, grid, cotangents):
    """(forward, gradients), both waiting for their results."""
    forward = jax.jit(sampling.grid_sample)

    @jax.jit
    def gradients(images, grid, cotangents):
        values, vjp = jax.vjp(sampling.grid_sample, images, grid)
        return values, *vjp(cotangents)

    images, grid, cotangents = map(jax.numpy.asarray, (images, grid, cotangents))
    return (
        lambda: jax.block_until_ready(forward(images, grid)),
        lambda: jax.block_until_ready(gradients(images, grid, cotangents)),
    )


def torchs(torch, images, grid, cotangents):
    """The same in torch, channels first, which is its own layout."""
    images, cotangents = (
        torch.from_numpy(np.moveaxis(a, -1, 1).copy()) for a in (images, cotangents)
    )
    grid = torch.from_numpy(grid)
    sample = torch.nn.functional.grid_sample

    def forward():
        with torch.no_grad():
            return sample(images, grid, align_corners=True)

    def gradients():
        a, b = images.detach().requires_grad_(), grid.detach().requires_grad_()
        sample(a, b, align_corners=True).backward(cotangents)
        return a.grad, b.grad

    return forward, gradients


def costs(topology_name):
    """Print what XLA counts for each form on one chip of a TPU that need not be there."""
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    topology = topologies.get_topology_desc(platform='tpu', topology_name=topology_name)
    sharding = SingleDeviceSharding(topology.devices[0])
    for name, (n, h, w, c, out) in {**CASES, **TPU_CASES}.items():
        for what in ('forward', 'gradients'):
            shown = []
            for method in ('gather', 'matrix'):
                sample = functools.partial(sampling.grid_sample, method=method)

                def gradients(images, grid, cotangents, sample=sample):
                    values, vjp = jax.vjp(sample, images, grid)
                    return values, *vjp(cotangents)

                shapes = [(n, h, w, c), (n, *out, 2), (n, *out, c)][: 2 + (what == 'gradients')]
                arguments = [jax.ShapeDtypeStruct(s, np.float32, sharding=sharding) for s in shapes]
                run = jax.jit(sample if what == 'forward' else gradients, out_shardings=sharding)
                compiled = run.trace(*arguments).lower(lowering_platforms=('tpu',)).compile()
                cost = compiled.cost_analysis()
                size, work = cost.get('bytes accessed', 0) / 1e9, cost.get('flops', 0) / 1e9
                shown.append(f'{method} {size:.2f} GB {work:.2f} GFLOP')
            print(f'{name + ", " + what:34s} {"   ".join(shown)}', flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--tpu', default='')
    parser.add_argument('--repeats', type=int, default=25)
    parser.add_argument('--threads', type=int, default=2)
    options = parser.parse_args()
    if options.tpu:
        costs(options.tpu)
        return
    try:
        import torch  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(options.threads)
    except ImportError:
        torch = None
    print(f'torch {torch.__version__ if torch else "is not installed"}; minimum (median), ms')
    rng = np.random.default_rng(0)
    for name, (n, h, w, c, out) in CASES.items():
        angle, scale = rng.uniform(-0.7, 0.7, n), rng.uniform(0.5, 1.2, n)
        cosine, sine, shift = (
            scale * np.cos(angle),
            scale * np.sin(angle),
            rng.uniform(-0.3, 0.3, n),
        )
        theta = np.stack([cosine, -sine, shift, sine, cosine, shift], axis=1).astype(np.float32)
        grid = np.array(grids.grid(grids.affine(), theta, out))
        images = rng.uniform(size=(n, h, w, c)).astype(np.float32)
        cotangents = rng.uniform(size=(n, *out, c)).astype(np.float32)
        runs = {'ours': ours(images, grid, cotangents)}
        if torch is not None:
            runs['torch'] = torchs(torch, images, grid, cotangents)
        for i, what in enumerate(('forward', 'gradients')):
            times = {who: [] for who in runs}
            for repeat in range(options.repeats + 3):
                for who, pair in runs.items():
                    start = time.perf_counter()
                    pair[i]()
                    if repeat >= 3:
                        times[who].append(1e3 * (time.perf_counter() - start))
            low = {who: min(values) for who, values in times.items()}
            shown = [
                f'{who} {low[who]:.2f} ({statistics.median(values):.2f})'
                for who, values in times.items()
            ]
            ratio = f'   {low["torch"] / low["ours"]:.2f} x torch' if 'torch' in low else ''
            print(f'{name + ", " + what:34s} {"   ".join(shown)}{ratio}', flush=True)


if __name__ == '__main__':
    main()
