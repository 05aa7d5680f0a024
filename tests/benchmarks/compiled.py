"""A table of programs compiled for TPUs or GPUs: what fits, what bounds a step, how many examples a second at most.

    pip install libtpu
    python -m tests.benchmarks.compiled [--only resnet_50 ...] [--workdir runs/compiled]
    pip install 'jax[cuda12]'
    python -m tests.benchmarks.compiled --topology h200:8 --workdir runs/compiled_h200

Compilations, not runs: no accelerator was attached. Bytes are those of XLA's programs, per chip; the time is the
largest of flops, bytes moved and bytes of collectives, each divided by the peak rate of a chip
(lecture4/train/chips.py), and a real step takes longer. Bodies of loops without a fixed trip count, those of solvers,
count once: the time is that of one iteration. `encode` is a call of `--stage encode`, with blocks of signals for all
chips. A program that --workdir holds is not compiled again, so that an interrupted command continues. The README has
the tables.
"""

import argparse
import importlib
import json
import math
import os
import pathlib
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax.numpy as jnp
import numpy as np

# name: (slice, preset of image_classification, network, image size, batch size, ResNet(scan_blocks=True))
NETWORKS: dict[str, tuple[str, str, str, int, int, bool]] = {
    'resnet_50': ('v5e:8x8', 'resnet', 'resnet_50', 224, 4096, False),
    'resnet_152_scan': ('v5e:8x8', 'resnet', 'resnet_152', 224, 4096, True),
    'vgg_16': ('v5e:4x4', 'vgg', 'vgg_d', 224, 1024, False),
    'alexnet': ('v5e:4x4', 'alexnet', 'alexnet', 227, 2048, False),
}
CAT_NEURON = ('--preset', 'cat_neuron', '--model_parallel', '8', '--batch_size', '64')
# name: (slice, program, experiment, options)
OTHERS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    'encode': ('v5e:4x4', 'encode', 'sparse_coding.natural_image_bases', ()),
    'cat_neuron': ('v5e:8x8', 'step', 'autoencoders.layered', CAT_NEURON),
}
NUM_SIGNALS = 1_000_000  # of natural_image_bases' dictionary of 256 atoms
HEADER = (
    'program', 'chips', 'batch', 'memory per chip', 'bound by', 'a step at least', 'examples/s at most', 'compiled in',
)  # fmt: skip


def classifier(preset: str, name: str, image_size: int, batch_size: int, scan: bool):
    """A network's training by its recipe, in bfloat16, on arrays of zeros: only shapes are compiled.

    Returns:
      (experiment, config, data); images arrive as bytes and are normalized inside the step.
    """
    from experiments.convnets import image_classification as module
    from lecture4 import train
    from lecture4.train import experiment
    from lecture4.vision import train_step
    from lecture4.vision.models import registry

    fields = {'network': name, 'batch_size': batch_size, 'dtype': 'bfloat16'}
    config = module.Config(**{**module.PRESETS[preset], **fields, 'steps_per_call': 1})
    network = registry.create(name, 1000, dtype=jnp.bfloat16)
    network = network.clone(scan_blocks=True) if scan else network
    task = train.supervised(network, train.sgd_recipe(config), train_step.loss)
    shape = (batch_size, image_size, image_size, 3)
    batch = {'images': np.zeros(shape, np.uint8), 'labels': np.zeros(batch_size, np.int32)}

    def prepare(arrays, batch, key):
        del arrays, key
        return {**batch, 'images': batch['images'].astype(jnp.float32) / 128 - 1}

    data = train.Data(lambda n: batch, prepare=prepare, spec=train.Spec(shape[1:]))
    this = experiment.from_module(module)
    return this._replace(build=lambda config, spec: task), config, data


def program(name: str, chips: str = '') -> dict[str, Any]:
    """Compile one program of the table.

    Args:
      name: One of NETWORKS or OTHERS.
      chips: A topology in place of the program's slice.

    Returns:
      The record of `launch.compile`, with the batch size.
    """
    from launch import compile as launcher
    from lecture4.train import cli, experiment, topology
    from lecture4.train import compile as compiler

    kind = 'step'
    if name in NETWORKS:
        own, preset, network, image_size, batch_size, scan = NETWORKS[name]
        this, config, data = classifier(preset, network, image_size, batch_size, scan)
    else:
        own, kind, module, options = OTHERS[name]
        this = experiment.from_module(importlib.import_module(f'experiments.{module}'))
        config = cli.parse(this, list(options))
        data = experiment.load(this, config)
    on = topology.target(chips or own)
    (made,) = compiler.compile_experiment(this, config, data, on, (kind,))
    return {**launcher.record(made, on), 'program': name, 'batch': made.examples}


def row(record: dict[str, Any]) -> tuple[str, ...]:
    """One row of the table, see HEADER."""
    seconds = record['seconds'][record['bound']]
    fits = 'fits' if record['peak_memory'] <= record['memory'] else 'does not fit'
    return (
        record['program'],
        f'{record["chips"]} ({record["topology"]})',
        f'{record["batch"]:,}',
        f'{record["peak_memory"] / 1e9:.2f} of {record["memory"] / 1e9:.0f} GB, {fits}',
        record['bound'],
        f'{1e3 * seconds:.3g} ms' + (' *' if record['unknown_loops'] else ''),
        '' if record['unknown_loops'] else f'{record["examples_per_second"]:,.0f}',
        f'{record["compile_seconds"]:.0f} s',
    )


def main():
    """Compile what --workdir does not hold, then print the table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*NETWORKS, *OTHERS]
    parser.add_argument('--only', nargs='+', choices=names, default=names)
    parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/compiled'))
    parser.add_argument('--topology', default='', help='Such as h200:8, in place of the slices.')
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = options.workdir / f'{name}.json'
        if not path.exists():
            path.write_text(json.dumps(program(name, options.topology)))
            print(f'compiled {name}', flush=True)
    print('| ' + ' | '.join(HEADER) + ' |')
    print('|---' * len(HEADER) + '|')
    for name in names:
        if (path := options.workdir / f'{name}.json').exists():
            print('| ' + ' | '.join(row(json.loads(path.read_text()))) + ' |')
    print('\n* one iteration of a solver')
    if (path := options.workdir / 'encode.json').exists():
        calls = math.ceil(NUM_SIGNALS / json.loads(path.read_text())['batch'])
        print(f'encode is called {calls} times for {NUM_SIGNALS:,} signals')


if __name__ == '__main__':
    main()
