"""Bilinear sampling compared with torch's grid_sample: milliseconds, forward, and forward with both gradients.

    python tests/benchmarks/sampling_speed.py [--repeats 100] [--threads 2]
    python tests/benchmarks/sampling_speed.py --tpu v5e:2x2    with libtpu: XLA's cost analysis instead

Both read the same images and take turns. 'grid to values' starts from a grid; 'theta to values' computes the grid from
affine parameters in the same program, as a spatial transformer does (torch: affine_grid, then grid_sample). The first
line printed names the processor and its vector instructions; then the ratios of medians and of minima. torch is not a
dependency: without it only ours is timed.

Two idle cores of an AMD EPYC with AVX2, jax 0.10.2, torch 2.13, medians in ms:

    | case                      | values: ours, torch | ratio | with gradients: ours, torch | ratio |
    |---------------------------|---------------------|-------|-----------------------------|-------|
    | 64 of 60x60, from a grid  | 0.73, 0.17          | 0.23  | 2.30, 0.79                  | 0.34  |
    | 64 of 60x60, from theta   | 0.69, 0.88          | 1.27  | 2.40, 1.70                  | 0.71  |
    | 64 of 60x60x3, from theta | 1.35, 1.65          | 1.22  | 6.69, 4.52                  | 0.68  |
    | 224x224x64, from a grid   | 1.92, 29.4          | 15.3  | 18.8, 109                   | 5.8   |
    | 224x224x64, from theta    | 3.69, 30.6          | 8.3   | 37.8, 100                   | 2.7   |

These are times of the plain form, with a slower gradient by theta than now. It is slower than torch for a single
channel. XLA's CPU backend compiles a gather to a loop over scalars (0.12 ms for four and their sum) and a scatter to
another one, on one core (0.36 ms for four); float to int32 is a saturating conversion that is not vectorized together
with a gather; and a cheap operation is fused into each of its users and computed again there. optimization_barrier does
not help, since it is removed before; a loop of at least two iterations does (ops/interpolate).

Where numba is installed, machine code samples images of one channel (ops/bilinear_cpu) on all of XLA's threads. Two
idle cores of an AMD EPYC (Zen 5) with AVX-512, jax 0.10.2, torch 2.14.1, numba 0.68, --repeats 100, medians in ms:

    | case                      | values: ours, torch | ratio | with gradients: ours, torch | ratio |
    |---------------------------|---------------------|-------|-----------------------------|-------|
    | 64 of 60x60, from a grid  | 0.04, 0.07          | 1.98  | 0.11, 0.22                  | 1.93  |
    | 64 of 60x60, from theta   | 0.13, 0.21          | 1.68  | 0.23, 0.68                  | 2.96  |
    | 64 of 60x60x3, from theta | 0.24, 0.27          | 1.13  | 1.27, 0.73                  | 0.58  |
    | 224x224x64, from a grid   | 0.54, 7.96          | 14.6  | 7.75, 36.7                  | 4.7   |
    | 224x224x64, from theta    | 0.51, 7.42          | 14.7  | 8.30, 37.7                  | 4.5   |

Three channels are sampled by the plain form. On an Intel Xeon with AVX-512, next to other programs, ratios varied from
run to run: 64 of 60x60 from a grid 0.66 to 0.97 and 1.74 to 1.91, from theta 1.2 to 1.9 and 1.7 to 2.4; 224x224x64 4.4
to 7.9 and 1.9 to 4.0.

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
import processor

from lecture4.ops import grids, sampling

# name: (n, h, w, c, output size)
CASES = {
    '64 of 60x60 to 28x28': (64, 60, 60, 1, (28, 28)),
    '64 of 60x60x3 to 28x28': (64, 60, 60, 3, (28, 28)),
    '224x224x64': (1, 224, 224, 64, (224, 224)),
}
TPU_CASES = {
    '64 of 28x28x32': (64, 28, 28, 32, (28, 28)),
    '16 of 128x128x3 to 64x64': (16, 128, 128, 3, (64, 64)),
}
POINTS = ('grid to values', 'theta to values')


def ours(images, points, cotangents, size):
    """(forward, gradients), both waiting for their results; points are a grid, or the affine theta of one."""

    def sample(images, points):
        grid = points if size is None else grids.grid(grids.affine(), points, size)
        return sampling.grid_sample(images, grid)

    forward = jax.jit(sample)

    @jax.jit
    def gradients(images, points, cotangents):
        values, vjp = jax.vjp(sample, images, points)
        return values, *vjp(cotangents)

    images, points, cotangents = map(jax.numpy.asarray, (images, points, cotangents))
    return (
        lambda: jax.block_until_ready(forward(images, points)),
        lambda: jax.block_until_ready(gradients(images, points, cotangents)),
    )


def torchs(torch, images, points, cotangents, size):
    """The same in torch, channels first, which is its own layout."""
    images, cotangents = (
        torch.from_numpy(np.moveaxis(a, -1, 1).copy()) for a in (images, cotangents)
    )
    points = torch.from_numpy(points if size is None else points.reshape(-1, 2, 3))
    functional = torch.nn.functional

    def sample(images, points):
        if size is not None:
            shape = (*images.shape[:2], *size)
            points = functional.affine_grid(points, shape, align_corners=True)
        return functional.grid_sample(images, points, align_corners=True)

    def forward():
        with torch.no_grad():
            return sample(images, points)

    def gradients():
        a, b = images.detach().requires_grad_(), points.detach().requires_grad_()
        sample(a, b).backward(cotangents)
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


def measure(runs, repeats):
    """{name: sorted milliseconds} of functions that take turns.

    A turn is calls in a row after a pause, the first third not counted: both libraries' threads spin for a while after
    their work, on cores that the other one needs then, and sleep later.
    """
    times = {name: [] for name in runs}
    turn = min(repeats, 20)
    for _ in range(-(-repeats // turn)):
        for name, run in runs.items():
            time.sleep(0.02)
            for i in range(turn + turn // 2):
                start = time.perf_counter()
                run()
                if i >= turn // 2:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: sorted(values) for name, values in times.items()}


def case(n, h, w, c, out):
    """(images, theta, grid, cotangents) with rotations, scales and translations as in distorted digits."""
    rng = np.random.default_rng(0)
    angle, scale = rng.uniform(-0.7, 0.7, n), rng.uniform(0.5, 1.2, n)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    shift = rng.uniform(-0.3, 0.3, n)
    theta = np.stack([cosine, -sine, shift, sine, cosine, shift], axis=1).astype(np.float32)
    grid = np.array(grids.grid(grids.affine(), theta, out))
    images = rng.uniform(size=(n, h, w, c)).astype(np.float32)
    return images, theta, grid, rng.uniform(size=(n, *out, c)).astype(np.float32)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--tpu', default='')
    parser.add_argument('--repeats', type=int, default=100)
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
    peer = f'torch {torch.__version__}' if torch else 'torch is not installed'
    print(f'{processor.describe()}; jax {jax.__version__}, {peer}; ms: median (minimum)')
    for name, shape in CASES.items():
        images, theta, grid, cotangents = case(*shape)
        for how, points, size in zip(POINTS, (grid, theta), (None, shape[-1]), strict=True):
            pairs = {'ours': ours(images, points, cotangents, size)}
            if torch is not None:
                pairs['torch'] = torchs(torch, images, points, cotangents, size)
            for i, what in enumerate(('forward', 'gradients')):
                # as many seconds for large images as for small ones
                repeats = max(5, options.repeats // (10 if images.size > 10**6 else 1))
                times = measure({who: pair[i] for who, pair in pairs.items()}, repeats)
                shown = [
                    f'{who} {statistics.median(values):6.2f} ({values[0]:5.2f})'
                    for who, values in times.items()
                ]
                if torch is not None:
                    medians, least = (
                        f(times['torch']) / f(times['ours']) for f in (statistics.median, min)
                    )
                    shown.append(f'torch / ours {medians:.2f} ({least:.2f})')
                print(f'{name + ", " + how + ", " + what:52s} {"  ".join(shown)}', flush=True)


if __name__ == '__main__':
    main()
