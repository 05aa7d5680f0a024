"""Residual and plain networks of 20 to 1202 layers on CIFAR-10 (He, Zhang, Ren & Sun, CVPR 2016, section 4.2).

Deeper plain networks have a higher error, on the training set too; with shortcuts deeper networks have a lower one.
The paper's recipe: batches of 128, learning rate 0.1 divided by 10 at half and three quarters of 64,000 steps,
momentum 0.9, weight decay 1e-4, mean image subtracted, padding by 4, crops, flips. Very deep networks start at a
tenth of the learning rate, until the training error is below 80 %.

Run:      python -m experiments.convnets.resnet_cifar --manual_dir PATH
          ... --sweep figure_6 --manual_dir PATH; or --preset cpu --manual_dir PATH
Hardware: 2 CPU cores, cpu 3 min 14 s; 64,000 steps need an accelerator (ResNet-20 16 hours of two cores)
Results:  test error in %; the 64,000-step runs have not been made

          | network             | steps  | ours  | published                    |
          |---------------------|--------|-------|------------------------------|
          | ResNet-8, cpu       | 600    | 44.42 |                              |
          | ResNet-20           | 64,000 |       | 8.75                         |
          | ResNet-32, 44, 56   | 64,000 |       | 7.51, 7.17, 6.97             |
          | ResNet-110          | 64,000 |       | 6.43 (five runs 6.61 ± 0.16) |
          | ResNet-1202         | 64,000 |       | 7.93                         |

          ResNet-1202: 19.4 M parameters, 2.83 G multiply-adds; a step of 8 images takes 11 s on two busy cores
          (tests/benchmarks/resnet_1202.py), after 136 s to trace and 628 s to compile it with scanned blocks.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, images
from lecture4.data.images import normalize, transforms
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision import train_step
from lecture4.vision.models import resnet

EVAL_BATCH = 500
SMOOTHING = 0.01  # weight of a batch in the running mean of the training error, over about the last 100 batches


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    # Number of training steps; the learning rate is divided by 10 at half and three quarters of them.
    steps: train.AtLeast1 = 64_000
    steps_per_call: train.AtLeast1 = 100
    # Source of labeled square images: cifar10, digits, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'cifar10'
    # Number of layers, 6 n + 2: 20, 32, 44, 56, 110, 1202.
    depth: train.AtLeast8 = 20
    # Network with shortcuts (residual) or without (plain).
    kind: Literal['residual', 'plain'] = 'residual'
    # Shortcuts where shapes change: zero-padded subsampling (A, as in the paper) or projection (B).
    shortcut: Literal['A', 'B'] = 'A'
    # Initial learning rate.
    learning_rate: train.Positive = 0.1
    # Smallest depth at which training starts with a tenth of the learning rate.
    warm_up_depth: train.AtLeast1 = 110
    # Weight decay of all parameters.
    weight_decay: train.NonNegative = 1e-4
    # Zero padding in pixels around an image before a crop of its size.
    padding: train.AtLeast0 = 4
    # Compile the equal blocks of a stage once, as a loop, so that deep networks compile faster.
    scan: bool = False

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'depth', self.depth % 6 == 2, '6 n + 2: 20, 32, 44, 56, 110, ...')


METRICS = (
    train.Metric('test_error', 'fraction', 'lower', 'test error', primary=True),
    train.Metric('training_error', 'fraction', 'lower', 'training error'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('learning_rate', '', '', 'learning rate'),
)
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'source': 'digits', 'depth': 8, 'padding': 1}
    | {'steps_per_call': 2},
    'cpu': {'steps': 600, 'depth': 8, 'steps_per_call': 20},
}
SWEEPS = {
    'figure_6': (
        *train.grid(kind=('plain', 'residual'), depth=(20, 32, 44, 56)),
        {'kind': 'residual', 'depth': 110},
    ),
    'seeds': train.grid(depth=(20, 56), kind=('plain', 'residual'), seed=(0, 1, 2, 3, 4)),
}


def data(config):
    task = images.load(
        config.source,
        pixels='stored',
        group_by_class=False,
        seed=config.seed,
        **config.data_kwargs(),
    )
    x = task.train_images
    normalization = normalize.create('mean_image', x, 3)
    augmentation = transforms.Augmentation(x.shape[1], 'pad', config.padding, flips=True)
    tested = {'images': task.test_images, 'labels': task.test_labels}
    return train.image_batches(
        x,
        task.train_labels,
        config.batch_size,
        lambda key, stored: transforms.prepare(key, stored, augmentation, normalization),
        seed=config.seed,
        evaluation=batches.chunks(tested, EVAL_BATCH),
        spec=train.Spec((*x.shape[1:3], 3), task.class_names, {'normalization': normalization}),
        report_data=task,
    )


def network(config, spec):
    shortcut = config.shortcut if config.kind == 'residual' else None
    return resnet.cifar(config.depth, shortcut, spec.num_classes, scan_blocks=config.scan)


def predict(config, spec, state, x):
    """Class probabilities of stored images, [n, classes]."""
    x = normalize.normalize(x, spec.constants['normalization'])
    return jax.nn.softmax(network(config, spec).apply(train.variables(state), x)[0])


def build(config, spec):
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.5, 0.75))
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.inject_hyperparams(optax.sgd)(config.learning_rate, momentum=0.9),
    )
    task = train.supervised(network(config, spec), optimizer, train_step.loss)

    def init(key, batch):
        state = task.init(key, batch)
        is_deep = jnp.bool(config.depth >= config.warm_up_depth)
        running = {'training_error': jnp.ones(()), 'warm_up': is_deep}
        return state._replace(model_state=state.model_state | running)

    def step(state, batch, key, reduce):
        running, n = state.model_state, state.step
        rate = schedule(n) * jnp.where(running['warm_up'], 0.1, 1)
        decay, sgd = state.opt_state
        sgd = sgd._replace(hyperparams=sgd.hyperparams | {'learning_rate': jnp.asarray(rate)})
        state, metrics = task.step(state._replace(opt_state=(decay, sgd)), batch, key, reduce)
        weight = jnp.where(n == 0, 1, SMOOTHING)
        error = running['training_error']
        error = error + weight * (1 - metrics['accuracy'] - error)
        warm_up = running['warm_up'] & (error >= 0.8)
        running = {'training_error': error, 'warm_up': warm_up}
        state = state._replace(model_state=state.model_state | running)
        return state, {'loss': metrics['loss'], 'training_error': error, 'learning_rate': rate}

    def evaluate(state, evaluation):
        predict_fn = functools.partial(predict, config, spec, state)
        return {'test_error': train_step.error_of_chunks(predict_fn, evaluation)}

    return train.Task(init, step, evaluate)


def apply(config, spec):
    return {'predict': functools.partial(predict, config, spec)}


def report(config, state, data):
    from lecture4.figures import lines

    task = data.report_data
    run = jax.jit(functools.partial(predict, config, data.spec, state))
    probs = np.concatenate([run(x) for x in data.evaluation['images']])[: len(task.test_labels)]
    name = f'{config.kind.replace("residual", "ResNet")}-{config.depth}'
    error = np.mean(probs.argmax(1) != task.test_labels)
    known = resnet.CIFAR_ERRORS
    record = {
        'network': name,
        'steps': config.steps,
        'test_error': error,
        'published': known.get(config.depth) if name.startswith('ResNet') else None,
        'training_error': float(state.model_state['training_error']),
    }
    caption = 'Published: CIFAR-10, 64,000 steps, table 6. Training error: of about the last 100 batches, augmented.'
    rows = [{'network': f'ResNet-{n}, not run', 'published': known[n]} for n in (110, 1202)]
    table = train.Table(f'Error on {config.source}', [record, *rows], ('network',), caption=caption)
    curves = {'published': (list(known), list(known.values())), name: ([config.depth], [error])}
    axes = {'xlabel': 'layers', 'ylabel': 'test error', 'xscale': 'log'}
    depths = lines.panels({'residual networks, CIFAR-10': {'curves': curves, **axes}})
    figures = train.error_figures(task.test_images, probs, task.test_labels, task.class_names)
    figures['depth'] = train.Figure(depths, 'Published: 110 and 1202 layers were not run here.')
    summary = f'{name}: {100 * error:.2f} % test error after {config.steps} steps.'
    return train.Report({'test_error': error}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
