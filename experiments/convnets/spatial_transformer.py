"""Spatial transformers (Jaderberg, Simonyan, Zisserman & Kavukcuoglu, NIPS 2015, tables 1 and 4).

Fully connected and convolutional networks of about the same number of parameters, with and without spatial
transformers, on the same batches of distorted digits: every batch is distorted again, on the device. A
transformer learns from the class labels alone where to read its input.

Run:      python -m experiments.convnets.spatial_transformer
          ... --preset mnist, clutter, cluttered_mnist, addition or traffic_signs, with --manual_dir PATH
          ... --sweep table_1 --preset paper --manual_dir PATH          (150,000 steps; for an accelerator)
          ... --sweep examples: error against the number of training images, with and without transformers
Hardware: 2 CPU cores, shared with other programs: digits 4, mnist 5 CPU-minutes
Results:  RTS, seed 0: test error in % after 600 steps of 64, with 95 % intervals; digits 30,000 parameters and 500
          test images, mnist 50,000 parameters, digits of 16 x 16, and 2000 test images; published: 28 x 28,
          400,000 parameters, 150,000 steps of 256 (table 1, cited from memory, unverified)

          | network       | digits              | mnist               | published |
          |---------------|---------------------|---------------------|-----------|
          | FCN           | 54.0 (49.6 to 58.3) | 63.5 (61.4 to 65.6) | 5.2       |
          | CNN           | 38.8 (34.6 to 43.1) | 31.3 (29.4 to 33.4) | 0.8       |
          | ST-FCN-affine | 31.4 (27.5 to 35.6) | 53.5 (51.3 to 55.7) | 0.8       |
          | ST-CNN-affine | 16.6 (13.6 to 20.1) | 16.5 (14.9 to 18.2) | 0.5       |
          | ST-CNN-tps    | 19.0 (15.8 to 22.7) |                     | 0.5       |

          After so few steps a network with a transformer already has a lower error than without one, as in the
          paper; its error rates are far away. On digits theta follows place and size (accuracy hardly falls
          where that of the CNN does), and turns by 12 degrees (median) where a digit turns by 30. The other
          presets and the sweeps were not run.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches
from lecture4.data.images import distort, distorted
from lecture4.ops import sampling
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision import attention, pose_robustness, train_step
from lecture4.vision import spatial_transformer as st
from lecture4.vision.models import distorted_digits

NUM_FRAMES, NUM_POSED, SHRINKING = 16, 200, 3


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Number of training steps; the learning rate is divided by 10 at a third and two thirds of them.
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 25
    # Source of labeled images: digits, mnist, cluttered_mnist, gtsrb, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Height and width to bring the images to before they are distorted; 0 keeps them.
    image_size: train.AtLeast0 = 12
    # Distortion: none, R (rotation), RTS (rotation, scale, translation), P (projective), E (elastic), TC (clutter).
    distortion: distort.Distortion = 'RTS'
    # Classify pairs of digits, each in channels of its own, by their sum (MNIST addition).
    addition: bool = False
    # Networks to train on the same batches: ST- with a spatial transformer, of the kind behind the name.
    networks: tuple[distorted_digits.Name, ...] = (
        'FCN', 'CNN', 'ST-FCN-affine', 'ST-CNN-tps', 'ST-CNN-affine',
    )  # fmt: skip
    # Number of parameters of each network, about.
    num_params: train.AtLeast1 = 30_000
    # Optimizer: adam, or the paper's plain SGD.
    optimizer: Literal['adam', 'sgd'] = 'adam'
    # Initial learning rate.
    learning_rate: train.Positive = 2e-3
    # Factor on the learning rate of localization networks.
    localization_lr_multiplier: train.Positive = 0.3
    # Number of training images, a random choice; 0 takes all.
    num_train: train.AtLeast0 = 0
    # Number of test images, the first ones; 0 takes all.
    num_test: train.AtLeast0 = 0


METRICS = (
    train.Metric('best_test_error', 'fraction', 'lower', 'lowest test error', primary=True),
    train.Metric('published_error', 'fraction', '', 'published test error'),
    train.Metric('parameters', 'count', '', 'parameters'),
    train.Metric('test_error', 'fraction', 'lower', 'test error'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('accuracy', 'fraction', 'higher', 'training accuracy'),
)
MNIST = {'source': 'mnist', 'image_size': 16, 'num_params': 50_000, 'num_test': 2000}
MNIST |= {'evaluate_every': 300, 'networks': distorted_digits.COMPARED}
PAPER = {'image_size': 0, 'num_params': 400_000, 'num_test': 0, 'evaluate_every': 0}
PAPER |= {'steps': 150_000, 'batch_size': 256, 'optimizer': 'sgd', 'learning_rate': 0.01}
PAPER |= {'localization_lr_multiplier': 1.0, 'networks': distorted_digits.TABLE_1}
STORED = {'distortion': 'none', 'image_size': 20, 'num_test': 0}
SIGNS = ('CNN', 'ST-CNN-affine', 'ST-CNN-deep')
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 8, 'steps_per_call': 2, 'num_params': 9000, 'image_size': 8}
    | {'networks': ('FCN', 'ST-FCN-affine', 'ST-CNN-tps'), 'num_train': 64, 'num_test': 50},
    'mnist': MNIST,
    'clutter': MNIST | {'distortion': 'TC'},
    'cluttered_mnist': MNIST | STORED | {'source': 'cluttered_mnist'},
    'addition': MNIST | {'addition': True, 'networks': distorted_digits.SUMS},
    'traffic_signs': MNIST | STORED | {'source': 'gtsrb', 'networks': SIGNS},
    'paper': MNIST | PAPER,
}
ALONE = tuple((name,) for name in distorted_digits.TABLE_1)
NUM_TRAIN = (100, 300, 1000, 3000, 10_000, 60_000)
SWEEPS = {
    'table_1': train.grid(networks=ALONE, distortion=('R', 'RTS', 'P', 'E')),
    'examples': train.grid(networks=ALONE[:3:2], num_train=NUM_TRAIN[:3]),
    'mnist_examples': train.grid(networks=(('CNN',), ('ST-CNN-affine',)), num_train=NUM_TRAIN),
}


def data(config):
    fields = ('addition', 'image_size', 'num_train', 'num_test', 'seed')
    options = {name: getattr(config, name) for name in fields} | config.data_kwargs()
    task = distorted.load(config.source, config.distortion, **options)
    n_train = len(task.arrays['x'])
    return train.Data(
        lambda n: batches.indices(config.seed, n, n_train, config.batch_size),
        device_arrays=task.arrays,
        prepare=task.prepare,
        evaluation=task.evaluation,
        spec=train.Spec(task.shape, task.class_names, task.constants),
        report_data=(task.test_images[:NUM_POSED], task.test_labels[:NUM_POSED]),
    )


def network(config, spec, name):
    size, n_classes = spec.constants['digit_size'], spec.num_classes
    return distorted_digits.create(name, spec.shape, size, n_classes, config.num_params)


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

        def evaluate(variables, evaluation):
            error = train_step.error_of_chunks(lambda x: net.apply(variables, x)[0], evaluation)
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


def draw(config, spec, kind, attended, title=''):
    """Inputs, the outline of what is sampled, samples and predictions."""
    from lecture4.figures import spatial_transformer as figures

    x = spec.constants['examples']
    views = attention.views(kind, x, attended, objects=2 if config.addition else 1)
    predicted = np.argmax(attended.logits, axis=1)
    repeats = len(views.images) // len(x)
    names = [spec.class_names[i] for i in predicted]
    is_correct = np.tile(predicted == spec.constants['labels'], repeats)
    return figures.attended(*views, names * repeats, is_correct=is_correct, title=title)


def report(config, state, data):
    from lecture4.figures import spatial_transformer as drawing

    spec, x, figures, last = data.spec, data.spec.constants['examples'], {}, config.networks[-1]
    kinds = {name: distorted_digits.kind_of(name) for name in config.networks}
    variables = {name: train.variables(state.state[name]) for name in kinds}
    networks = {
        name: functools.partial(jax.jit(network(config, spec, name).apply), variables[name])
        for name in kinds
    }
    for name, kind in kinds.items():
        if kind is None:
            continue
        attended, key = attend(config, spec, name, state.state, x), name.lower().replace('-', '_')
        caption = f'{name}: inputs and what is sampled, samples, predictions (in red if wrong).'
        figures[f'attention_{key}'] = train.Figure(draw(config, spec, kind, attended), caption)
        if kind == 'tps' and not config.addition:
            drawn = drawing.meshes(x, np.asarray(attention.mesh(kind, attended.theta[:, 0])))
            caption = f'{name}: where a mesh over the output reads the input.'
            figures[f'mesh_{key}'] = train.Figure(drawn, caption)
    if not config.addition:
        images, labels = data.report_data
        series = distort.pose_series(images, spec.shape[0])
        affine = [name for name, kind in kinds.items() if kind == 'affine']
        curves, turns = pose_robustness.measure(networks, affine, series, labels)
        caption = 'Test accuracy against rotation (degrees), scale, and offset (of the width).'
        figures['robustness'] = train.Figure(drawing.robustness(curves), caption)
        if turns:
            drawn = drawing.equivariance(series['rotation'][0], turns)
            caption = 'Rotation of the sampled region when the input turns: median and quartiles.'
            figures['equivariance'] = train.Figure(drawn, caption)
        drawn = drawing.downscaled(x, *(sampling.shrink(x, SHRINKING, a) for a in (1, SHRINKING)))
        caption = (
            'Shrinking: the sampler of the paper skips pixels, a widened kernel averages them.'
        )
        figures['antialiasing'] = train.Figure(drawn, caption)
    if kinds[last]:
        steps = range(0, config.steps, max(config.steps // NUM_FRAMES, 1))[:NUM_FRAMES]
        history = [attention.Attention(*(a[i] for a in state.history)) for i in range(len(steps))]
        frames = [
            draw(config, spec, kinds[last], attended, f'step {step}')
            for step, attended in zip(steps, history, strict=True)
        ]
        figures['training'] = train.Figure(frames, f'{last}: attention in the course of training.')
    errors = train.evaluate(build(config, spec), state, data.evaluation)
    task = 'sums' if config.addition else config.distortion
    records = distorted_digits.records(
        {name: errors[f'test_error/{name}'] for name in kinds},
        int(data.evaluation['mask'].sum()),
        {name: sum(leaf.size for leaf in jax.tree.leaves(variables[name])) for name in kinds},
        distorted_digits.PUBLISHED.get(task) if config.source == 'mnist' else None,
    )
    best = min(records, key=lambda record: record['test_error'])
    values = {'best_test_error': best['test_error'], 'published_error': best['published']}
    return train.Report(
        {name: value for name, value in values.items() if value is not None},
        (train.Table(f'Test error on {config.source}, {task}', tuple(records), ('network',)),),
        figures,
        f'{best["network"]}: {100 * best["test_error"]:.2f} % test error.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
