"""Spatial transformers (Jaderberg, Simonyan, Zisserman & Kavukcuoglu, NIPS 2015, tables 1 and 4).

Networks with and without transformers, which learn from class labels alone where to sample, on the same batches.

Run:      python -m experiments.convnets.spatial_transformer
          ... --sweep table_1 --preset mnist --steps 1200, or --preset paper (150,000 steps), with --manual_dir PATH
          ... --sweep examples (digits), or mnist_examples --preset mnist --steps 1200
Hardware: 2 CPU cores: digits 4, mnist 5, table_1 49, mnist_examples 21 CPU-minutes
Results:  test error in %, MNIST at 16 x 16, 50,000 parameters, 1200 steps of 64, 2000 test images; (published: 28 x 28,
          400,000 parameters, 150,000 steps of 256, cited from memory, unverified)

          | network           | R          | RTS        | P          | E          |
          |-------------------|------------|------------|------------|------------|
          | FCN               | 15.7 (2.1) | 51.5 (5.2) | 45.1 (3.1) | 17.6 (3.2) |
          | CNN               | 11.7 (1.2) | 20.1 (0.8) | 33.0 (1.5) | 9.7 (1.4)  |
          | ST-FCN-affine     | 14.2 (1.2) | 26.4 (0.8) | 32.0 (1.5) | 13.2 (2.7) |
          | ST-FCN-projective | 14.4 (1.3) | 28.0 (0.9) | 31.8 (1.4) | 13.2 (2.6) |
          | ST-FCN-tps        | 14.5 (1.1) | 25.3 (0.8) | 32.4 (1.4) | 12.6 (2.4) |
          | ST-CNN-affine     | 14.5 (0.7) | 9.4 (0.5)  | 25.5 (0.8) | 8.4 (1.2)  |
          | ST-CNN-projective | 14.1 (0.8) | 8.9 (0.6)  | 25.0 (0.8) | 8.3 (1.3)  |
          | ST-CNN-tps        | 13.1 (0.7) | 9.7 (0.5)  | 24.5 (0.8) | 9.0 (1.1)  |

          Transformers lower the error as in the paper, except that of the CNN with R. One seed.
          Digits (default, RTS, 600 steps): FCN 54.0, CNN 38.8, ST-FCN-affine 31.4, ST-CNN-affine 16.6, -tps 19.0.
          Training images (MNIST) 100, 300, 1000, 3000, 10,000, 60,000: CNN 75.8, 59.0, 40.0, 24.7, 21.0, 19.1;
          ST-CNN-affine 75.9, 60.6, 25.9, 12.2, 10.6, 8.2. Digits 100, 300, 1000: 71.6, 53.6, 44.4; 71.2, 48.8, 19.2.
          --preset cluttered_mnist: FCN 31.4, CNN 15.3, ST-FCN-affine 24.6, ST-CNN-affine 13.9 (1000 test images).
          --preset traffic_signs --steps 3000: CNN 17.2 (16.5 to 17.8), ST-CNN-affine 13.0 (12.4 to 13.6; published .3).
          Too few steps to help: --preset clutter --steps 2400: CNN and ST-CNN-affine 11.3 (3.5, 1.7); --preset addition
          --distortion R --steps 3000: CNN 70.6, 2xST-CNN-affine 71.7; RTS, 4000: CNN 83.4 (14.7), 2xST-FCN-affine 90.8.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from lecture4 import train
from lecture4.data.images import distort, distorted
from lecture4.ops import sampling
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision import attention, pose_robustness, train_step
from lecture4.vision import spatial_transformer as st
from lecture4.vision.models import distorted_digits

NUM_FRAMES, SHRINKING = 16, 3


@dataclasses.dataclass(frozen=True)
class Config(train.Distorted):
    # Number of training steps; the learning rate is divided by 10 at a third and two thirds of them.
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 25
    image_size: train.AtLeast0 = 12
    # Networks to train on the same batches; ST- stands for a spatial transformer, of the kind that ends the name.
    networks: tuple[distorted_digits.Name, ...] = distorted_digits.SMALL
    # Approximate number of parameters of each network.
    num_params: train.AtLeast1 = 30_000
    # Optimizer: adam, or the paper's plain SGD.
    optimizer: Literal['adam', 'sgd'] = 'adam'
    # Initial learning rate.
    learning_rate: train.Positive = 2e-3
    # Factor on the learning rate of the localization networks.
    localization_lr_multiplier: train.Positive = 0.3


METRICS = (
    train.Metric('best_test_error', 'fraction', 'lower', 'lowest test error', primary=True),
    train.Metric('published_error', 'fraction', '', 'published test error'),
    train.Metric('parameters', 'count', '', 'parameters'),
    train.Metric('test_error', 'fraction', 'lower', 'test error'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('accuracy', 'fraction', 'higher', 'training accuracy'),
)
MNIST = {'source': 'mnist', 'image_size': 16, 'num_params': 50_000, 'num_test': 2000}
MNIST |= {'networks': distorted_digits.COMPARED}
PAPER = {'image_size': 0, 'num_params': 400_000, 'num_test': 0, 'steps': 150_000, 'batch_size': 256}
PAPER |= {'optimizer': 'sgd', 'learning_rate': 0.01, 'localization_lr_multiplier': 1.0}
STORED = {'distortion': 'none', 'image_size': 20, 'num_test': 0}
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 8, 'steps_per_call': 2, 'num_params': 9000, 'image_size': 8}
    | {'networks': ('FCN', 'ST-FCN-affine'), 'num_train': 64, 'num_test': 50},
    'mnist': MNIST,
    'clutter': MNIST | {'distortion': 'TC'},
    'cluttered_mnist': MNIST | STORED | {'source': 'cluttered_mnist'},
    'addition': MNIST | {'addition': True, 'networks': distorted_digits.SUMS},
    'traffic_signs': MNIST | STORED | {'source': 'gtsrb', 'networks': distorted_digits.SIGNS},
    'paper': MNIST | PAPER | {'networks': distorted_digits.TABLE_1},
}
ALONE, FEW = tuple((name,) for name in distorted_digits.TABLE_1), (100, 300, 1000)
SWEEPS = {
    'table_1': train.grid(networks=ALONE, distortion=('R', 'RTS', 'P', 'E')),
    'examples': train.grid(networks=ALONE[1::4], num_train=FEW),
    'mnist_examples': train.grid(networks=ALONE[1::4], num_train=(*FEW, 3000, 10_000, 60_000)),
}


def data(config):
    return train.distorted_data(config)


def network(config, spec, name):
    size = spec.constants['digit_size']
    return distorted_digits.create(name, spec.shape, size, spec.num_classes, config.num_params)


def attend(config, spec, name, states, x):
    run = jax.jit(functools.partial(attention.attend, network(config, spec, name)))
    return run(train.variables(states[name]), x)


def build(config, spec):
    schedule = piecewise_constant(config.learning_rate, config.steps, (1 / 3, 2 / 3))
    optimizer = optax.chain(
        {'adam': optax.adam, 'sgd': optax.sgd}[config.optimizer](schedule),
        st.localization_lr_multiplier(config.localization_lr_multiplier),
    )

    def task(name):
        net = network(config, spec, name)

        def evaluate(variables, chunks):
            error = train_step.error_of_chunks(lambda x: net.apply(variables, x)[0], chunks)
            return {'test_error': error}

        return train.supervised(net, optimizer, train_step.loss, evaluate)

    def attended(states):
        name, x = config.networks[-1], jnp.asarray(spec.constants['examples'])
        return attend(config, spec, name, states, x) if distorted_digits.kind_of(name) else ()

    tasks = train.parallel({name: task(name) for name in config.networks})
    return train.record(tasks, attended, steps=config.steps, num=NUM_FRAMES)


def apply(config, spec):
    name = config.networks[-1]

    def predict(state, x):
        variables, x = train.variables(state.state[name]), distorted.to_unit(x)
        return jax.nn.softmax(network(config, spec, name).apply(variables, x)[0])

    def warp(state, x):
        return attend(config, spec, name, state.state, distorted.to_unit(x)).warped

    return {'predict': predict} | ({'warp': warp} if distorted_digits.kind_of(name) else {})


def figures(config, state, spec, networks, images, labels):
    from lecture4.figures import spatial_transformer as drawing

    def views(name, entry):
        inputs = x, entry, spec.class_names, spec.constants['labels']
        return attention.views(kinds[name], *inputs, objects=1 + config.addition)

    x, kinds = spec.constants['examples'], distorted_digits.kinds(config.networks)
    attended = {name: attend(config, spec, name, state.state, x) for name in kinds}
    drawn = drawing.of_networks({name: views(name, attended[name]) for name in kinds})
    if not config.addition:
        series = distort.pose_series(images, spec.shape[0])
        poses = pose_robustness.measure(networks, kinds, series, labels)
        shrunk = (sampling.shrink(x, SHRINKING, antialias) for antialias in (1, SHRINKING))
        drawn |= drawing.of_meshes(x, attention.meshes(kinds, attended))
        drawn |= drawing.of_poses(*poses) | drawing.of_shrinking(x, *shrunk)
    result = {name: train.Figure(*pair) for name, pair in drawn.items()}
    if (last := config.networks[-1]) in kinds:
        history = train.entries(state, config.steps)
        frames = [drawing.attended(*views(last, y), title=f'step {step}') for step, y in history]
        result['training'] = train.Figure(frames, f'{last}: sampling grids during training.')
    return result


def report(config, state, data):
    spec, names = data.spec, config.networks
    variables = {name: train.variables(state.state[name]) for name in names}
    compiled = {name: jax.jit(network(config, spec, name).apply) for name in names}
    networks = {n: functools.partial(compiled[n], variables[n]) for n in sorted(names)}
    errors = train.evaluate(build(config, spec), state, data.evaluation)
    task = 'sums' if config.addition else config.distortion
    records = distorted_digits.records(
        {name: errors[f'test_error/{name}'] for name in names},
        int(data.evaluation['mask'].sum()),
        {name: sum(leaf.size for leaf in jax.tree.leaves(variables[name])) for name in names},
        distorted_digits.PUBLISHED.get(task) if config.source == 'mnist' else None,
    )
    best = min(records, key=lambda record: record['test_error'])
    metrics = {'best_test_error': best['test_error']}
    metrics |= {'published_error': best['published']} if best['published'] else {}
    table = train.Table(f'Test error on {config.source}, {task}', tuple(records), ('network',))
    summary = f'{best["network"]}: {100 * best["test_error"]:.2f} % test error.'
    drawn = figures(config, state, spec, networks, *data.report_data)
    return train.Report(metrics, (table,), drawn, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
