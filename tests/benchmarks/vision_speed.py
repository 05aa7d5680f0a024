"""Image networks on a CPU beside torchvision's: forward, training step, compile time; shares of the limit.

    LECTURE4_TORCH_PYTHON=/path/to/python python tests/benchmarks/vision_speed.py [--networks resnet18 vgg16]

Batches of 8 pictures of 224 x 224, float32; a training step is cross-entropy, gradients and momentum. Ours
and torch's (channels last, its own process, which waits while the other runs) take turns; medians. The
limit is the rate of a product of 2048 x 2048 matrices by XLA in the same run; flops are 2 a multiply-add
of convolutions and dense layers, three times that for a training step.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

BATCH, SIDE, RATE = 8, 224, 0.01
NAMES = ('alexnet', 'resnet18', 'googlenet', 'resnet50', 'vgg16')


def ours(name):
    """{'forward': a function that runs it and waits, 'training': the same}, and multiply-adds of a batch."""
    import jax
    import jax.numpy as jnp
    import optax

    from lecture4.ops import geometry
    from lecture4.vision import classifier, networks

    made = {
        'alexnet': 'one_tower', 'resnet18': 'resnet_18', 'resnet50': 'resnet_50_v1_5', 'vgg16': 'vgg_d',
        'googlenet': 'googlenet_torchvision',
    }[name]  # fmt: skip
    network = networks.NETWORKS[made]()
    key = jax.random.key(0)
    x = jax.random.normal(key, (BATCH, SIDE, SIDE, 3))
    batch = {'images': x, 'labels': jnp.arange(BATCH)}
    variables = jax.jit(network.init)(key, x[:1])
    optimizer = optax.sgd(RATE, momentum=0.9)
    state = [variables, optimizer.init(variables['params'])]
    forward = jax.jit(lambda variables, x: network.apply(variables, x)[0])

    def step(variables, memory):
        return classifier.descend(network, optimizer, variables, memory, batch, key)[:2]

    train = jax.jit(step, donate_argnums=(0, 1))

    def run_forward():
        forward(state[0], x).block_until_ready()

    def run_training():
        state[:] = train(*state)
        jax.block_until_ready(state)

    rows = geometry.trace(networks.layout(network), (SIDE, SIDE, 3))
    return {'forward': run_forward, 'training': run_training}, BATCH * geometry.totals(rows)[1]


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


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--networks', nargs='+', choices=NAMES, default=NAMES)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--serve', action='store_true')
    options = parser.parse_args()
    if options.serve:
        serve(options.threads)
        return
    rate, ask = product_rate(), peer(options.threads)
    print(f'product of matrices: {rate / 1e9:.0f} GFLOP/s')
    print(
        f'{"":10s} {"":8s} {"compile":>8s} {"ours":>8s} {"torch":>8s} {"ratio":>6s} {"limit":>6s}'
    )
    for name in options.networks:
        runs, macs = ours(name)
        for kind, run in runs.items():
            compiled = timed(run)
            times = {'ours': [], 'torch': []}
            for repeat in range(options.repeats + 1):
                pair = {'ours': timed(run)}
                if ask is not None:
                    pair['torch'] = ask(name, kind)
                for who, seconds in pair.items() if repeat else ():  # the first warms up
                    times[who].append(seconds)
            mine = statistics.median(times['ours'])
            share = 2 * macs * (3 if kind == 'training' else 1) / mine / rate
            line = f'{name:10s} {kind:8s} {compiled:7.1f}s {mine:7.3f}s'
            if ask is not None:
                other = statistics.median(times['torch'])
                line += f' {other:7.3f}s {other / mine:6.2f}'
            print(f'{line} {share:6.0%}', flush=True)


if __name__ == '__main__':
    main()
