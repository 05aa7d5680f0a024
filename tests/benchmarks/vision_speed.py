"""Image networks on a CPU beside torchvision's: forward, training step, compile time; shares of the limit.

    LECTURE4_TORCH_PYTHON=/path/to/python python tests/benchmarks/vision_speed.py [--networks resnet18 vgg16]
    python tests/benchmarks/vision_speed.py --compile

Batches of 8 pictures of 224 x 224, float32; a training step is cross-entropy, gradients and momentum. Ours
and torch's (channels last, its own process, which waits while the other runs) take turns; medians. The
limit is the rate of a product of 2048 x 2048 matrices by XLA in the same run; flops are 2 a multiply-add
of convolutions and dense layers, three times that for a training step.

Seen on two cores of an AVX2 machine with nothing beside, torch 2.13, --repeats 4, a product at 97 GFLOP/s:
seconds of ours and of torch, torch / ours, share of the limit (other runs: resnet18 0.69 and 0.80, vgg16 0.79
and 1.29):

    alexnet    forward   0.18  0.14  0.77  65 %     training   0.70  0.70  1.01  51 %
    resnet18   forward   0.44  0.30  0.69  69 %     training   1.44  1.12  0.78  62 %
    googlenet  forward   0.35  0.33  0.95  71 %     training   1.40  1.03  0.74  53 %
    resnet50   forward   0.96  0.82  0.85  70 %     training   3.58  2.74  0.77  56 %
    vgg16      forward   3.21  2.12  0.66  79 %     training  11.72 12.49  1.07  65 %

What was done (ops/conv_cpu): XLA takes 3 to 10 GFLOP/s for gradients by a kernel on large maps, and for
1 x 1 ones, against 50 to 100 forward. As products of matrices over a few pictures at a time: 3 x 3 of 16
to 16 on 128 maps of 32 x 32 from 116 ms to 9, of 128 to 128 on 8 of 112 x 112 from 3.0 s to 0.30, 1 x 1 of
64 to 256 on 8 of 56 x 56 from 132 ms to 9. Inside a loop (every scan of steps) it takes gradients by the
input ten times slower too, unless the turned kernel is put behind a barrier: a step of the 8-layer network
for CIFAR-10, batch 128, from 0.67 s to 0.25. These products write no transposed copy of the maps:
8 % of a ResNet-50 step. First layers' gradients (three channels) go by whole planes, and a kernel as large
as its picture (VGG's fc6) is a product.

What limits the rest, by profiles: forward, nine tenths are XLA's convolutions (ResNet-18: 397 of 444 ms),
which run at 50 to 80 % of the limit where torch's (oneDNN) run at 90 % and more; batch norm and ReLU together
are under 5 %, so folding them into the kernels cannot pay. Nothing written in XLA was quicker than its own
convolution at more than single sizes: 3 x 3 windows written out, whole or by strips that stay in the cache,
columns side by side, nine products, Winograd's F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3), whole or by strips (they
halve and quarter the products, but their transforms move more memory than that saves); nor do XLA's flags for
oneDNN and XNNPACK change it. Training a ResNet-50, two fifths are batch norm, ReLU and the windows written
out: memory, not flops.

Compiling a ResNet-50 step takes 23 s cold, 11 s with the cache (tracing and lowering); 44 and 17 s beside other
work. ResNet(scan=True) makes a loop of every stage's equal blocks and gives the same numbers: one of ResNet-152
compiles in 34 s in place of 58 and takes 11.7 s in place of 12.2 (beside other work), one of CIFAR's ResNet-110
with batches of 128 in 13 s in place of 30 and takes 5.5 in place of 6.1.
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

BATCH, SIDE, RATE = 8, 224, 0.01
NAMES = ('alexnet', 'resnet18', 'googlenet', 'resnet50', 'vgg16')


def ours(name):
    """{'forward': a function that runs it and waits, 'training': the same}, and multiply-adds of a batch."""
    from lecture4.ops import receptive_field
    from lecture4.vision.models import registry

    made = {
        'alexnet': 'alexnet_v2', 'resnet18': 'resnet_18', 'resnet50': 'resnet_50_v1_5', 'vgg16': 'vgg_d',
        'googlenet': 'googlenet_torchvision',
    }[name]  # fmt: skip
    network, shape = registry.NETWORKS[made](), (BATCH, SIDE, SIDE, 3)
    rows = receptive_field.summarize(registry.layer_stack(network), shape[1:])
    return runs(network, shape), BATCH * receptive_field.totals(rows)[1]


def runs(network, shape):
    """{'forward': a function that runs the network on pictures of that shape and waits, 'training': a step}."""
    import jax
    import jax.numpy as jnp
    import optax

    from lecture4.vision import train_step

    key = jax.random.key(0)
    x = jax.random.normal(key, shape)
    batch = {'images': x, 'labels': jnp.arange(len(x)) % 8}
    variables = jax.jit(network.init)(key, x[:1])
    optimizer = optax.sgd(RATE, momentum=0.9)
    state = [variables, optimizer.init(variables['params'])]
    forward = jax.jit(lambda variables, x: network.apply(variables, x)[0])

    def step(variables, memory):
        return train_step.train_step(network, optimizer, variables, memory, batch, key)[:2]

    train = jax.jit(step, donate_argnums=(0, 1))

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
    x = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)

    def forward():
        network.eval()
        with torch.inference_mode():
            network(x)

    def training():
        network.train()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()

    return {'forward': forward, 'training': training}


def serve(threads):
    """Torch's side: a line 'NAME KIND' on stdin is run and answered by its seconds."""
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
    command = [*python, str(pathlib.Path(__file__)), '--serve', '--threads', str(threads)]
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
    """Flops a second of a float32 product."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    seconds = [timed(lambda: product(a).block_until_ready()) for _ in range(6)][1:]
    return 2 * n**3 / statistics.median(seconds)


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
            ('ResNet-152', functools.partial(resnet.imagenet, 152), (BATCH, SIDE, SIDE, 3)),
            ("CIFAR's ResNet-110", functools.partial(resnet.cifar, 110), (128, 32, 32, 3)),
        ):
            for scan in (False, True):
                run = runs(network(n_classes=10, scan_blocks=scan), shape)['training']
                first = timed(run)
                median = statistics.median(timed(run) for _ in range(3))
                kind = 'as loops' if scan else 'one by one'
                told = f'compiled in {first - median:.0f} s, {median:.2f} s a step'
                print(f'{name}, equal blocks {kind}: {told}', flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--networks', nargs='+', choices=NAMES, default=NAMES)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--serve', action='store_true', help='be the side of torch')
    parser.add_argument('--compile', action='store_true', help='compile times instead')
    options = parser.parse_args()
    if options.serve:
        return serve(options.threads)
    if options.compile:
        return compile_times()
    from lecture4.ops import onednn

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
                with mock.patch.object(onednn, 'installed', lambda: False):
                    compiled = {'oneDNN': compiled['ours'], 'plain': timed(plain[kind])}
            times = {form: [] for form in (*runs, 'torch')}
            for repeat in range(options.repeats + 1):
                turn = {form: timed(run) for form, run in runs.items()}
                if ask is not None:
                    turn['torch'] = ask(name, kind)
                for form, seconds in turn.items() if repeat else ():  # the first warms up
                    times[form].append(seconds)
            for form in runs:
                seconds = statistics.median(times[form])
                fraction = 2 * macs * (3 if kind == 'training' else 1) / seconds / rate
                ratio = statistics.median(times['torch']) / seconds if ask is not None else math.nan
                line = f'{name:10s} {kind:8s} {form:7s} {compiled[form]:7.1f}s {seconds:7.3f}s'
                print(f'{line} {ratio:12.2f} {fraction:6.0%}', flush=True)


if __name__ == '__main__':
    main()
