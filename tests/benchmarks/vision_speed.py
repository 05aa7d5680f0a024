"""Image networks on a CPU compared with torchvision's: forward pass, training step, compile time, and the limit.

    LECTURE4_TORCH_PYTHON=/path/to/python python tests/benchmarks/vision_speed.py [--networks resnet18 vgg16]
    python tests/benchmarks/vision_speed.py --layers
    python tests/benchmarks/vision_speed.py --compile

Batches of 8 images of 224 x 224, float32; a training step is cross-entropy, gradients and momentum. A turn of training
is four steps (--steps), of ours one program, as with --steps_per_call 4: a call finds its memory in fresh pages, for
ResNet-50 0.7 GB, which take a sixth of the time of a single step. Ours and torch's (channels last, a process of its own
that waits while the other runs) take turns; medians. With lecture4[onednn] installed, ours is measured with it (oneDNN)
and without (plain, also without numba's machine code). The limit is the best rate of a product of 2048 x 2048 matrices
by XLA in the same run; flops are 2 per multiply-add of convolutions and dense layers, and three times that for a
training step. In the tables of the first two machines, each training step is a call, and the limit a median.

Two otherwise idle cores of an AVX2 machine, torch 2.13, --repeats 4, a product at 97 GFLOP/s, plain: seconds of ours
and of torch, torch / ours, fraction of the limit (other runs: resnet18 0.69 and 0.80, vgg16 0.79 and 1.29):

    alexnet    forward   0.18  0.14  0.77  65 %     training   0.70  0.70  1.01  51 %
    resnet18   forward   0.44  0.30  0.69  69 %     training   1.44  1.12  0.78  62 %
    googlenet  forward   0.35  0.33  0.95  71 %     training   1.40  1.03  0.74  53 %
    resnet50   forward   0.96  0.82  0.85  70 %     training   3.58  2.74  0.77  56 %
    vgg16      forward   3.21  2.12  0.66  79 %     training  11.72 12.49  1.07  65 %

Two idle cores of an Intel Xeon with AVX-512, torch 2.14, --repeats 4: torch / ours, plain (a product at 180 GFLOP/s)
and, in a second run (211 GFLOP/s), with lecture4[onednn]; seconds and fraction of the limit of the latter:

    alexnet    forward   0.80  0.91   0.09  59 %     training   0.76  1.03   0.40  41 %
    resnet18   forward   0.71  1.02   0.21  65 %     training   0.66  0.92   0.71  58 %
    googlenet  forward   1.00  1.05   0.21  54 %     training   0.65  0.86   0.73  47 %
    resnet50   forward   0.82  1.07   0.47  67 %     training   0.69  0.78   1.87  50 %

Two idle cores of an AMD EPYC (Zen 5) with AVX-512, torch 2.14, --repeats 4, a product at 460 GFLOP/s, batch norm's
gradient by ops/norm and max pooling by machine code on both cores (ops/pool_cpu): torch / ours, plain and with
lecture4[onednn]; seconds and fraction of the limit of the latter:

    alexnet    forward   0.91  0.93   0.04  61 %     training   1.00  1.26   0.14  53 %
    resnet18   forward   0.76  1.23   0.08  81 %     training   0.71  1.01   0.27  69 %
    googlenet  forward   0.74  0.90   0.08  63 %     training   0.79  0.96   0.28  56 %
    resnet50   forward   0.90  1.03   0.22  65 %     training   0.80  0.95   0.74  58 %
    vgg16      forward   0.82  1.04   0.58  93 %     training   0.94  1.08   2.22  73 %

At a slower moment of the same machine torch / ours of resnet50's step was 0.85. With --steps 1, with lecture4[onednn]:
resnet18 0.86, googlenet 0.73 (0.91 since both cores pool), resnet50 0.77.

The same on the Xeon, with --steps 1, next to other jobs (load averages of 8 to 10), torch / ours in two runs,
with lecture4[onednn] and plain (in the first run with max pooling by numba):

    googlenet  0.90 1.33   plain  0.86 1.01
    resnet50   0.93 1.06   plain  0.98 1.02
    resnet18   1.14 0.96   plain  0.85 0.73

With lecture4[onednn], --networks resnet18 resnet50 --repeats 5 on the AVX2 machine next to other jobs (so without torch
and without the limit, whose product was measured at a slow moment): seconds with oneDNN and plain, plain / oneDNN:

    resnet18   forward   0.54  0.65  1.21     training   2.09  2.28  1.09
    resnet50   forward   1.47  1.56  1.06     training   5.98  6.29  1.05

OpenMP's threads have to sleep between convolutions: where they spin, its default, plain / oneDNN of ResNet-18's step
was 1.08 instead of 1.16 (three processes in turns, 7 steps).

oneDNN (ops/onednn; onednn-cpu-gomp 2023.2, numba) by layers, --layers --repeats 7 on one core of the AVX2 machine
(taskset -c 1) next to other jobs: plain / oneDNN of the forward pass, the gradient by the input and the gradient by the
kernel:

    56 x 56, 64 to 64, 3 x 3          1.16  1.22  0.97
    28 x 28, 128 to 128, 3 x 3        1.84  1.13  0.96
    14 x 14, 256 to 256, 3 x 3        1.10  1.40  1.00
    7 x 7, 512 to 512, 3 x 3          1.15  1.37  0.73
    56 x 56, 128 to 128, 3 x 3 / 2    1.31  1.25  1.05
    224 x 224, 3 to 64, 7 x 7 / 2     1.09  1.50  2.27
    56 x 56, 64 to 256, 1 x 1         0.81  1.09  2.48
    14 x 14, 1024 to 256, 1 x 1       0.74  0.76  1.08
    32 x 32, 16 to 16, 3 x 3          1.51  1.58  1.99

The same on two idle cores of an Intel Xeon with AVX-512, --repeats 9:

    56 x 56, 64 to 64, 3 x 3          1.73  2.10  3.16
    28 x 28, 128 to 128, 3 x 3        1.21  1.24  2.11
    14 x 14, 256 to 256, 3 x 3        1.34  1.28  1.80
    7 x 7, 512 to 512, 3 x 3          1.18  1.64  0.91
    56 x 56, 128 to 128, 3 x 3 / 2    1.34  1.62  2.22
    224 x 224, 3 to 64, 7 x 7 / 2     1.74  1.37  3.33
    56 x 56, 64 to 256, 1 x 1         0.73  1.07  3.54
    14 x 14, 1024 to 256, 1 x 1       1.14  0.98  1.00
    32 x 32, 16 to 16, 3 x 3          2.40  1.68  2.82

So the library takes oneDNN for all but products (1 x 1) in the forward pass and the gradient by the input, and for all
gradients by the kernel but those of 64 and more channels at no more than 64 positions. Activations stay NHWC (oneDNN's
blocked layouts cost 1.1 to 2 times as much with the reordering), kernels are reordered in each call. The index's
package `onednn` (2026.1) is built for SYCL and brings 2 GB; jaxlib's own oneDNN (`__onednn$convolution`) has no
gradients and cannot be serialized.

What ops/conv_cpu does without it: XLA takes 3 to 10 GFLOP/s for gradients by the kernel on large feature maps, and for
1 x 1 kernels, compared with 50 to 100 in the forward pass. As products of matrices over a few images at a time: 3 x 3
of 16 to 16 channels on 128 feature maps of 32 x 32 from 116 ms to 9, of 128 to 128 on 8 of 112 x 112 from 3.0 s to
0.30, 1 x 1 of 64 to 256 on 8 of 56 x 56 from 132 ms to 9. Inside a loop (every scan of steps) XLA also computes
gradients by the input ten times slower, unless the flipped kernel is behind a barrier: a step of the 8-layer network
for CIFAR-10, batch 128, from 0.67 s to 0.25. These products write no transposed copy of the feature maps: 8 % of a
ResNet-50 step. Gradients of first layers (three channels) go by whole planes, and a kernel as large as its image (VGG's
fc6) is a product.

What limits the rest, by profiles, plain: in the forward pass nine tenths are XLA's convolutions (ResNet-18: 397 of 444
ms), which reach 50 to 80 % of the limit where torch's (oneDNN) reach 90 % and more; batch norm and ReLU together are
under 5 %, so folding them into the kernels cannot pay. Nothing written in XLA was faster than its own convolution at
more than single sizes: 3 x 3 windows materialized, whole or by strips that stay in the cache, concatenated columns,
nine products, Winograd's F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3), whole or by strips (they halve and quarter the products,
but their transforms move more memory than that saves); nor do XLA's flags for oneDNN and XNNPACK change it.

Compiling a ResNet-50 step takes 23 s cold, 11 s with the cache (tracing and lowering); 44 and 17 s next to other work.
ResNet(scan_blocks=True) makes a loop of the equal blocks of each stage and gives the same numbers: one of ResNet-152
compiles in 34 s instead of 58 and takes 11.7 s instead of 12.2 (next to other work), one of CIFAR's ResNet-110 with
batches of 128 in 13 s instead of 30 and takes 5.5 instead of 6.1.
"""

import argparse
import functools
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from unittest import mock

import processor

BATCH, IMAGE_SIZE, LEARNING_RATE = 8, 224, 0.01
STEPS = {'forward': 1, 'training': 4}  # of a call; --steps sets the latter
NAMES = ('alexnet', 'resnet18', 'googlenet', 'resnet50', 'vgg16')


def ours(name):
    """{'forward': a function that runs it and waits, 'training': the same}, and multiply-adds of a batch."""
    from lecture4.ops import receptive_field
    from lecture4.vision.models import registry

    made = {
        'alexnet': 'alexnet_v2', 'resnet18': 'resnet_18', 'resnet50': 'resnet_50_v1_5', 'vgg16': 'vgg_d',
        'googlenet': 'googlenet_torchvision',
    }[name]  # fmt: skip
    network, shape = registry.NETWORKS[made](), (BATCH, IMAGE_SIZE, IMAGE_SIZE, 3)
    rows = receptive_field.summarize(registry.layer_stack(network), shape[1:])
    return runs(network, shape), BATCH * receptive_field.totals(rows)[1]


def runs(network, shape):
    """{'forward': a function that runs the network on images of that shape and waits, 'training': steps}."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax import lax

    from lecture4.train.step import CPU_OPTIONS
    from lecture4.vision import train_step

    key = jax.random.key(0)
    x = jax.random.normal(key, shape)
    batch = {'images': x, 'labels': jnp.arange(len(x)) % 8}
    variables = jax.jit(network.init)(key, x[:1])
    optimizer = optax.sgd(LEARNING_RATE, momentum=0.9)
    state = [variables, optimizer.init(variables['params'])]
    forward = jax.jit(lambda variables, x: network.apply(variables, x)[0])

    def steps(*state):
        def step(state, _):
            return train_step.train_step(network, optimizer, *state, batch, key)[:2], None

        return lax.scan(step, state, length=STEPS['training'])[0]

    # As the training loop compiles --steps_per_call 4.
    train = jax.jit(steps, donate_argnums=(0, 1), compiler_options=CPU_OPTIONS)

    def run_forward():
        forward(state[0], x).block_until_ready()

    def run_training():
        state[:] = train(*state)
        jax.block_until_ready(state)

    return {'forward': run_forward, 'training': run_training}


def theirs(name, threads):
    """The same in torch."""
    import torch  # pyright: ignore[reportMissingImports]
    from torchvision import models  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    options = {'aux_logits': False, 'init_weights': False} if name == 'googlenet' else {}
    network = getattr(models, name)(**options).to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def forward():
        network.eval()
        with torch.inference_mode():
            network(x)

    def training():
        network.train()
        for _ in range(STEPS['training']):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(x), labels).backward()
            optimizer.step()

    return {'forward': forward, 'training': training}


def serve(threads):
    """Torch's process: for each line 'NAME KIND' on stdin, run it and print its seconds."""
    made = {}
    for line in sys.stdin:
        name, kind = line.split()
        if name not in made:
            made = {name: theirs(name, threads)}  # one network at a time in memory
        began = time.perf_counter()
        made[name][kind]()
        print(time.perf_counter() - began, flush=True)


def peer(threads):
    """A function (name, kind) -> seconds that torch takes, or None where there is no torch."""
    python = os.environ.get('LECTURE4_TORCH_PYTHON', '').split()
    if not python:
        return None
    options = ['--serve', '--threads', str(threads), '--steps', str(STEPS['training'])]
    command = [*python, str(pathlib.Path(__file__)), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(name, kind):
        process.stdin.write(f'{name} {kind}\n')
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError('torch ended; see its message above')
        return float(answer)

    return ask


def timed(run):
    """Seconds of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def product_rate(n=2048):
    """Largest rate of a float32 product, in flops a second."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    return 2 * n**3 / min(timed(lambda: product(a).block_until_ready()) for _ in range(20))


LAYERS = {  # image size, input and output channels, kernel size, stride, padding; batches of 8
    '56 x 56, 64 to 64, 3 x 3': (56, 64, 64, 3, 1, 1),
    '28 x 28, 128 to 128, 3 x 3': (28, 128, 128, 3, 1, 1),
    '14 x 14, 256 to 256, 3 x 3': (14, 256, 256, 3, 1, 1),
    '7 x 7, 512 to 512, 3 x 3': (7, 512, 512, 3, 1, 1),
    '56 x 56, 128 to 128, 3 x 3 / 2': (56, 128, 128, 3, 2, 1),
    '224 x 224, 3 to 64, 7 x 7 / 2': (224, 3, 64, 7, 2, 3),
    '56 x 56, 64 to 256, 1 x 1': (56, 64, 256, 1, 1, 0),
    '14 x 14, 1024 to 256, 1 x 1': (14, 1024, 256, 1, 1, 0),
    '32 x 32, 16 to 16, 3 x 3': (32, 16, 16, 3, 1, 1),
}


def compare_layers(repeats):
    """Print plain / oneDNN of single convolutions and their gradients, wherever oneDNN has a primitive."""
    import jax

    from lecture4.ops import conv_cpu, onednn

    if not onednn.installed():
        raise SystemExit('--layers compares with oneDNN: pip install "lecture4[onednn]"')
    forms = conv_cpu._convolve, conv_cpu._input_gradient, conv_cpu._kernel_gradient
    onednn._pays = lambda *_: True
    for name, (n, c, o, k, stride, padding) in LAYERS.items():
        m = (n + 2 * padding - k) // stride + 1
        shapes = (BATCH, n, n, c), (k, k, c, o), (BATCH, m, m, o)
        x, kernel, g = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes))
        options = {'strides': (stride,) * 2, 'padding': ((padding,) * 2,) * 2, 'precision': None}
        ratios = []
        for form, arrays, more in zip(
            forms,
            ((x, kernel), (g, kernel), (x, g)),
            ({}, {'size': (n, n)}, {'size': (k, k)}),
            strict=True,
        ):
            runs = [
                jax.jit(functools.partial(f, **options, **more)) for f in (form.__wrapped__, form)
            ]
            times = [[], []]
            for _ in range(repeats + 1):
                for run, seconds in zip(runs, times, strict=True):
                    seconds.append(timed(lambda f=run, a=arrays: f(*a).block_until_ready()))
            plain, fast = (statistics.median(seconds[1:]) for seconds in times)
            ratios.append(plain / fast)
        print(f'    {name:32s}' + ''.join(f'{ratio:6.2f}' for ratio in ratios), flush=True)


def compile_times():
    """Seconds to compile a ResNet-50 step without and with the cache, and deep ones with equal blocks as loops."""
    import tempfile

    import jax

    from lecture4.vision.models import resnet

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        jax.config.update('jax_compilation_cache_dir', cache)
        for kind in ('cold', 'cached'):
            jax.clear_caches()
            print(f'ResNet-50 step, {kind}: {timed(ours("resnet50")[0]["training"]):.1f} s')
        jax.config.update('jax_enable_compilation_cache', False)
        for name, network, shape in (
            (
                'ResNet-152',
                functools.partial(resnet.imagenet, 152),
                (BATCH, IMAGE_SIZE, IMAGE_SIZE, 3),
            ),
            ("CIFAR's ResNet-110", functools.partial(resnet.cifar, 110), (128, 32, 32, 3)),
        ):
            for scan in (False, True):
                run = runs(network(n_classes=10, scan_blocks=scan), shape)['training']
                first = timed(run)
                median = statistics.median(timed(run) for _ in range(3))
                kind = 'as loops' if scan else 'one by one'
                per_step = median / STEPS['training']
                times = f'compiled in {first - median:.0f} s, {per_step:.2f} s per step'
                print(f'{name}, equal blocks {kind}: {times}', flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--networks', nargs='+', choices=NAMES, default=NAMES)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--steps', type=int, default=STEPS['training'], help='Steps of a call.')
    parser.add_argument('--serve', action='store_true', help='Run as the process of torch.')
    parser.add_argument('--compile', action='store_true', help='Measure compile times instead.')
    parser.add_argument('--layers', action='store_true', help='Measure single layers instead.')
    options = parser.parse_args()
    STEPS['training'] = options.steps
    if options.serve:
        return serve(options.threads)
    print(processor.describe())
    if options.layers:
        return compare_layers(options.repeats)
    if options.compile:
        return compile_times()
    from lecture4.ops import machine_code, onednn

    rate, ask = product_rate(), peer(options.threads)
    print(f'product of matrices: {rate / 1e9:.0f} GFLOP/s')
    print(
        f'{"":10s} {"":8s} {"form":7s} {"compile":>8s} {"ours":>8s} {"torch / ours":>12s} {"limit":>6s}'
    )
    for name in options.networks:
        made, macs = ours(name)
        plain = ours(name)[0] if onednn.installed() else {}
        for kind, run in made.items():
            compiled, runs = {'ours': timed(run)}, {'ours': run}
            if plain:
                runs = {'oneDNN': run, 'plain': plain[kind]}
                with (
                    mock.patch.object(onednn, 'installed', lambda: False),
                    mock.patch.object(machine_code, 'supported', lambda: False),
                ):
                    compiled = {'oneDNN': compiled['ours'], 'plain': timed(plain[kind])}
            times = {form: [] for form in (*runs, 'torch')}
            for repeat in range(options.repeats + 1):
                turn = {form: timed(run) for form, run in runs.items()}
                if ask is not None:
                    turn['torch'] = ask(name, kind)
                for form, seconds in turn.items() if repeat else ():  # the first warms up
                    times[form].append(seconds / STEPS[kind])
            for form in runs:
                seconds = statistics.median(times[form])
                compiled[form] = max(compiled[form] - STEPS[kind] * seconds, 0)
                fraction = 2 * macs * (3 if kind == 'training' else 1) / seconds / rate
                ratio = statistics.median(times['torch']) / seconds if ask is not None else math.nan
                line = f'{name:10s} {kind:8s} {form:7s} {compiled[form]:7.1f}s {seconds:7.3f}s'
                print(f'{line} {ratio:12.2f} {fraction:6.0%}', flush=True)


if __name__ == '__main__':
    main()
