"""Dropout against overfitting, by the number of training images (Srivastava et al., JMLR 2014; AlexNet, NIPS 2012).

"Dropout combats overfitting." A convolution, two hidden dense layers (AlexNet's head) and a classifier are trained
with and without dropout on labeled sets of several sizes, from several random starts: training and test error during
training, and the test error at the end against the number of images. In the paper's figure 10 (MNIST, dense layers)
dropout gains nothing with 100 and 500 images, most at 10,000 or so, and less with all.

Run:      python -m experiments.convnets.dropout
          python -m experiments.convnets.dropout --preset mnist --manual_dir PATH
Hardware: one core (AMD EPYC), 2 minutes
Results:  digits, 500 test images, means of 3 labeled sets; error (%) on test images (training images)

          | images | without dropout | with dropout | gain |
          |--------|-----------------|--------------|------|
          | 50     | 16.1 (0.0)      | 16.0 (0.0)   | 0.1  |
          | 200    | 10.8 (0.0)      | 8.8 (0.0)    | 2.1  |
          | 1000   | 6.0 (0.0)       | 5.6 (0.3)    | 0.3  |

          Standard errors are 1.6 points at 50 images and at most 0.7 at the others, so that only the gain at 200 is
          clear. It trains more slowly: in the first 200 steps the test error with dropout is the higher one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.vision.models.dropout_network import DropoutNetwork

NUM_POINTS = 25  # of the curves
PLAIN, DROPOUT = 'plain', 'dropout'


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 1000
    batch_size: train.AtLeast1 = 32
    steps_per_call: train.AtLeast1 = 50
    # Source of labeled images: digits, mnist, cifar10, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Numbers of training images.
    num_train: train.Ints = (50, 200, 1000)
    # Number of labeled sets and random starts of each size.
    num_trials: train.AtLeast1 = 3
    # Number of test images.
    num_eval: train.AtLeast1 = 1000
    # Fraction of hidden units that are set to 0.
    dropout_rate: train.FractionBelow1 = 0.5
    # Number of filters of the convolution.
    features: train.AtLeast1 = 16
    # Number of units of each hidden dense layer.
    hidden_dim: train.AtLeast1 = 128
    # Learning rate of Adam.
    learning_rate: train.Positive = 1e-3


METRICS = (
    train.Metric('dropout_error', 'fraction', 'lower', 'error, most images', primary=True),
    train.Metric('test_error', 'fraction', 'lower', 'test error'),
    train.Metric('train_error', 'fraction', 'lower', 'training error'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'batch_size': 8, 'num_train': (20, 30)}
    | {'num_trials': 1, 'num_eval': 20, 'features': 2, 'hidden_dim': 8},
    'mnist': {'source': 'mnist', 'num_train': (100, 1000, 10_000), 'num_trials': 1, 'steps': 2000}
    | {'batch_size': 64},
}
SWEEPS = {'dropout_rate': train.grid(dropout_rate=(0.25, 0.5, 0.75), hidden_dim=(64, 256))}


def networks(config, spec):
    def network(dropout_rate):
        return DropoutNetwork(config.features, config.hidden_dim, dropout_rate, spec.num_classes)

    return {PLAIN: network(0.0), DROPOUT: network(config.dropout_rate)}


def data(config):
    options = {'pixels': 'float', 'group_by_class': False, **config.data_kwargs()}
    task, num_eval = images.load(config.source, **options), config.num_eval
    training = (task.train_images, task.train_labels.astype(np.int32))
    test = (task.test_images[:num_eval], task.test_labels[:num_eval])
    cases, subsets = train.random_subsets(
        len(training[0]), config.num_train, config.num_trials, config.seed
    )
    shown = np.stack([np.resize(rows, num_eval) for rows in subsets])
    is_shown = np.stack([np.arange(num_eval) < len(rows) for rows in subsets])  # each image once
    own_training = (*(array[shown] for array in training), is_shown)
    every = np.ones(len(test[1]), bool)
    constants = {'cases': cases, 'train': own_training, 'test': (*test, every)}
    return train.subsets_in_memory(
        {'images': training[0], 'labels': training[1]},
        subsets,
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(training[0].shape[1:], task.class_names, constants),
    )


def classification_error(net, variables, x, labels, is_counted):
    wrong = jnp.asarray(net.apply(variables, x)).argmax(1) != labels
    return jnp.mean(wrong, dtype=jnp.float32, where=is_counted)


def build(config, spec):
    names = [f'{n}_{trial}' for n, trial in spec.constants['cases']]

    def loss(logits, batch):
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels'])
        return each.mean(), {}

    tasks = {}
    for name, net in networks(config, spec).items():
        task = train.supervised(net, optax.adam(config.learning_rate), loss)
        tasks[name] = train.stacked(task, names, split_keys=True, split_batch=True)

    def errors(state):
        """Training and test error [cases] of all networks."""
        measured = {}
        for name, net in networks(config, spec).items():

            def error(args, net=net):
                variables, *own_training = args
                sets = (own_training, spec.constants['test'])
                return [classification_error(net, variables, *each) for each in sets]

            variables = train.variables(state[name])
            measured[name] = jax.lax.map(error, (variables, *spec.constants['train']))
        return measured

    return train.record(
        train.parallel(tasks), errors, steps=config.steps, num=min(NUM_POINTS, config.steps)
    )


def apply(config, spec):
    net = networks(config, spec)[DROPOUT]

    def predict(recorded, x):
        """Classes of images in [0, 1] by the last network with dropout, [n]."""
        own = recorded.state[DROPOUT]
        variables = jax.tree.map(lambda leaf: leaf[-1], train.variables(own))
        return jnp.asarray(net.apply(variables, x)).argmax(1)

    return {'predict': predict}


def report(config, state, data):
    from lecture4.figures import lines

    each, sizes = data.spec.constants['cases'], sorted(set(config.num_train))
    rows = {n: [i for i, (size, _) in enumerate(each) if size == n] for n in sizes}
    entries = train.entries(state, config.steps)
    steps = [step for step, _ in entries]
    names, records, panels = list(entries[0][1]), [], {}
    curves = {  # [points, train or test, cases]
        name: np.array([measured[name] for _, measured in entries]) for name in names
    }
    last = {name: curve[-3:].mean(0) for name, curve in curves.items()}
    for n in sizes:
        for name in names:
            record = {'network': name, 'images': n, 'train_error': last[name][0, rows[n]]}
            records.append(record | {'test_error': last[name][1, rows[n]]})
        panels[f'{n} images'] = {
            'curves': {
                f'{part}, {name}': (steps, curves[name][:, i, rows[n]].mean(1))
                for i, part in enumerate(('training', 'test'))
                for name in names
            },
            'xlabel': 'steps',
            'ylabel': 'error',
        }
    at_end = {
        f'test, {name}': (sizes, [last[name][1, rows[n]].mean() for n in sizes]) for name in names
    }
    panels['at the end'] = {'curves': at_end, 'xlabel': 'training images', 'xscale': 'log'}
    panels['at the end']['ylabel'] = 'test error'
    gains = {n: (last[PLAIN] - last[DROPOUT])[1, rows[n]].mean() for n in sizes}
    texts = ', '.join(f'{100 * gain:+.1f} points with {n} images' for n, gain in gains.items())
    caption = 'Means over labeled sets; at the end: mean of the last three points of the curves.'
    return train.Report(
        metrics={'dropout_error': float(last[DROPOUT][1, rows[sizes[-1]]].mean())},
        tables=(train.Table('Error', records, ('images', 'network'), caption=caption),),
        figures={'dropout': train.Figure(lines.panels(panels), caption)},
        summary=f'Dropout lowers the test error by {texts}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
