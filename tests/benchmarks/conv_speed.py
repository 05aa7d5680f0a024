"""Convolution and pooling compared with plain jax.lax and torch: milliseconds, forward and with gradients.

    python tests/benchmarks/conv_speed.py [--repeats 15] [--threads 1]

All three get the same arrays (torch in its own layout, channels first) and are interleaved; medians of the CPU time of
all threads. 'program' says whether ours and that of jax.lax compile to the same text: then they differ by noise only.
Torch (not a dependency; 2.13 was used) is timed where it can be imported.

Measured on one core (AMD EPYC, torch 2.13). Convolutions, and means over disjoint windows, are the programs of
jax.lax. Other poolings are faster than its reduce_window: gradients of a maximum over 3 x 3 with stride 2 on 4 images
of 55 x 55 x 96 take 3.0 ms instead of 20.4 (torch 13.7), of a mean 1.9 instead of 9.5 (13.3). Torch and XLA: 5 x 5 in 2
groups, 20 and 116 ms forward, 69 and 639 with gradients, since XLA has no fast form of it on a CPU; 11 x 11 with stride
4, 10 and 14, 86 and 76; 3 x 3 of 128 to 128 channels, 16.5 and 17, 48 and 76. vision/ uses ops/conv_cpu, whose
gradients of plain convolutions are faster.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import processor
from jax import lax

from lecture4.ops import conv, norm, pool

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
# name: (input, kernel, stride, padding, groups)
CONVOLUTIONS = {
    '5x5, 1 to 16, 64 of 28x28': ((64, 28, 28, 1), (5, 5, 1, 16), 1, 0, 1),
    '11x11 stride 4, 3 to 96, 4 of 227x227': ((4, 227, 227, 3), (11, 11, 3, 96), 4, 0, 1),
    '5x5 in 2 groups, 96 to 256, 4 of 27x27': ((4, 27, 27, 96), (5, 5, 48, 256), 1, 2, 2),
    '3x3, 128 to 128, 4 of 28x28': ((4, 28, 28, 128), (3, 3, 128, 128), 1, 1, 1),
}
# name: (input, window, stride)
POOLINGS = {
    '2x2, 64 of 24x24x16': ((64, 24, 24, 16), 2, 2),
    '3x3 stride 2, 4 of 55x55x96': ((4, 55, 55, 96), 3, 2),
}


def lax_convolution(x, kernel, stride, padding, groups):
    """What one writes without lecture4."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def lax_max(x, window, stride):
    """Max pooling by reduce_window."""
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, (1, stride, stride, 1), 'VALID')


def lax_mean(x, window, stride):
    """Mean pooling by reduce_window."""
    sides = (1, window, window, 1)
    total = lax.reduce_window(x, 0.0, lax.add, sides, (1, stride, stride, 1), 'VALID')
    return total / window**2


def with_gradients(fn):
    """The gradients of a sum of squares of fn's values by all its arguments."""
    return lambda *args: jax.grad(lambda args: 0.5 * (fn(*args) ** 2).sum())(args)


def jitted(fn, args):
    """(a function that runs it and waits, its optimised program without names)."""
    compiled = jax.jit(fn).lower(*args).compile()
    lines = [line.split(', metadata=')[0] for line in compiled.as_text().splitlines()]
    text = '\n'.join(line for line in lines if ' = ' in line and 'HloModule' not in line)
    return lambda: jax.block_until_ready(compiled(*args)), text


def in_torch(torch, fn, args, gradients):
    """The same in torch: arrays channels first."""
    order = {4: (0, 3, 1, 2)}
    turned = [torch.from_numpy(args[0].transpose(order[4]).copy())]
    turned += [torch.from_numpy(a.transpose(3, 2, 0, 1).copy()) for a in args[1:]]

    def run():
        if not gradients:
            with torch.no_grad():
                return fn(*turned)
        for tensor in turned:
            tensor.requires_grad_(True).grad = None
        return (0.5 * (fn(*turned) ** 2).sum()).backward()

    return run


def cases(torch):
    """(name, ours, jax.lax's or None, torch's or None, arguments)."""
    functional = torch.nn.functional if torch else None
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.normal(size=shape).astype(np.float32)

    for name, (shape, kernel, stride, padding, groups) in CONVOLUTIONS.items():
        given = (stride, padding, groups)
        yield (
            f'conv {name}',
            lambda x, w, given=given: conv.cross_correlate(x, w, *given),
            lambda x, w, given=given: lax_convolution(x, w, *given),
            torch
            and (lambda x, w, g=given: functional.conv2d(x, w, None, g[0], g[1], groups=g[2])),
            (draw(shape), draw(kernel)),
        )
    for name, (shape, *given) in POOLINGS.items():
        kinds = {
            'max': (pool.max_pool, lax_max, torch and functional.max_pool2d),
            'mean': (pool.mean_pool, lax_mean, torch and functional.avg_pool2d),
        }
        for kind, (mine, plain, theirs) in kinds.items():
            yield (
                f'{kind} {name}',
                lambda x, mine=mine, given=given: mine(x, *given),
                lambda x, plain=plain, given=given: plain(x, *given),
                torch and (lambda x, theirs=theirs, given=given: theirs(x, *given)),
                (draw(shape),),
            )
    yield (
        'local response, 4 of 27x27x96',
        lambda x: norm.local_response(x, convention='caffe'),
        None,
        torch and (lambda x: functional.local_response_norm(x, 5)),
        (draw((4, 27, 27, 96)),),
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    print(processor.describe())
    try:
        import torch  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(options.threads)
    except ImportError:
        torch = None
    print(f'torch {torch.__version__ if torch else "is not there"}')
    print(f'{"":46s} {"":9s} {"ours":>8s} {"jax.lax":>8s} {"torch":>8s}   program')
    for name, ours, plain, theirs, args in cases(torch):
        for gradients in (False, True):
            change = with_gradients if gradients else (lambda fn: fn)
            runs, texts = {}, {}
            for who, fn in (('ours', ours), ('jax.lax', plain)):
                if fn is not None:
                    runs[who], texts[who] = jitted(change(fn), args)
            if torch is not None:
                runs['torch'] = in_torch(torch, theirs, args, gradients)
            times = {who: [] for who in runs}
            for repeat in range(options.repeats + 2):
                for who, run in runs.items():
                    began = time.process_time()
                    run()
                    if repeat >= 2:
                        times[who].append(time.process_time() - began)
            medians = {who: 1e3 * statistics.median(v) for who, v in times.items()}
            shown = ' '.join(
                f'{medians[who]:8.2f}' if who in medians else f'{"":8s}'
                for who in ('ours', 'jax.lax', 'torch')
            )
            same = '' if plain is None else 'same' if len(set(texts.values())) == 1 else 'another'
            print(f'{name:46s} {"gradients" if gradients else "forward":9s} {shown}   {same}')


if __name__ == '__main__':
    main()
