"""Do rectifiers train faster than saturating units? (Krizhevsky, Sutskever & Hinton, NIPS 2012, figure 1)

"ReLU is several times faster than tanh." Small networks with rectifiers, tanh and logistic units, each at the fastest
of several learning rates and with initial weights that keep its scale: steps to a training error of 25 %.

Run:      python -m experiments.convnets.activations [--preset cifar10 --manual_dir PATH]
Hardware: one core (AMD EPYC), 1 minute; cifar10 33 CPU-minutes (Intel Xeon)
Results:  steps to a training error of 25 % by learning rate; CIFAR-10: 10,000 images, 2500 steps of 100; accuracy in %

          | units              | .003 | .01  | .03  | .1 | .3 | 1   | test accuracy |
          |--------------------|------|------|------|----|----|-----|---------------|
          | ReLU, digits       | 71   | 46   | 33   | 30 | -  | -   | 96.0          |
          | tanh, digits       | 200  | 94   | 44   | 30 | 19 | -   | 95.8          |
          | logistic, digits   | -    | 280  | 153  | 90 | 71 | 403 | 93.6          |
          | ReLU, CIFAR-10     | -    | 1877 | 1193 | -  |    |     | 58.0          |
          | tanh, CIFAR-10     | -    | 2038 | 1029 | -  |    |     | 56.3          |
          | logistic, CIFAR-10 | -    | -    | -    | -  |    |     | 56.2          |

          Not several times: on CIFAR-10 tanh needs 0.9 times as many steps (in the paper 6, cited from memory), each at
          its best rate, with momentum and scaled initial weights. Both are over twice as fast as logistic units.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.vision.models import cnn

# Variance of the initial kernels times their fan-in: keeps the scale of activations; of logistic units, of gradients.
GAINS = {'relu': 2.0, 'tanh': 1.0, 'sigmoid': 16.0}
MAX_LOGIT = 1e6  # diverged networks keep finite losses


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 500
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 50
    # Source of labeled images: digits, mnist, cifar10, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Number of training images, chosen at random; 0 takes all.
    num_train: train.AtLeast0 = 0
    # Number of test images.
    num_eval: train.Evaluation[train.AtLeast1] = 1000
    # Activation functions.
    activations: tuple[cnn.Activation, ...] = ('relu', 'tanh', 'sigmoid')
    # Learning rates of SGD; the one that is fastest counts, for each activation function.
    learning_rates: train.Floats = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    # Momentum of SGD.
    momentum: train.FractionBelow1 = 0.9
    # Numbers of filters of the convolutions.
    features: train.Ints = (16, 16, 32)
    # Height and width of the filters; odd.
    kernel_size: train.AtLeast1 = 3
    # Training error that is to be reached.
    threshold: train.InsideUnit = 0.25
    # Number of steps over which the training error is averaged.
    window: train.AtLeast1 = 10

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'kernel_size', self.kernel_size % 2 == 1, 'an odd number')
        train.require(self, 'window', self.window <= self.steps, f'at most --steps {self.steps}')


METRICS = (
    train.Metric('relu_speedup', '', 'higher', 'steps of tanh over those of ReLU', primary=True),
    train.Metric('steps_needed', 'count', 'lower', 'steps to the training error'),
    train.Metric('error', 'fraction', 'lower', 'training error'),
    train.Metric('last_error', 'fraction', 'lower', 'training error at the end'),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'batch_size': 8, 'features': (4,), 'window': 2}
    | {'learning_rates': (0.01, 0.1), 'num_eval': 20},
    'cifar10': {'source': 'cifar10', 'steps': 2500, 'num_train': 10_000, 'features': (16, 32, 32)}
    | {'batch_size': 100, 'window': 100, 'learning_rates': (0.003, 0.01, 0.03, 0.1)},
}
SWEEPS = {'features': train.grid(features=((8, 8, 16), (16, 16, 32), (32, 32, 64)))}


def data(config):
    task = images.load(config.source, pixels='float', group_by_class=False, **config.data_kwargs())
    rows = np.random.default_rng(config.seed).permutation(len(task.train_labels))
    rows = rows[: config.num_train or None]
    x, mean = task.train_images[rows], task.train_images.mean((0, 1, 2))
    return train.in_memory(
        {'images': x - mean, 'labels': task.train_labels[rows].astype(np.int32)},
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(x.shape[1:], task.class_names, {'mean': mean}),
        report_data=(task.test_images[: config.num_eval], task.test_labels[: config.num_eval]),
    )


def network(config, spec, activation):
    size, options = config.kernel_size, {'edge': 'torch', 'n_classes': spec.num_classes}
    return cnn.CNN(config.features, size, size // 2, activation, 'max', 2, **options)


def build(config, spec):
    names = [f'{learning_rate:g}' for learning_rate in config.learning_rates]

    def task_of(activation):
        net = network(config, spec, activation)

        def loss(params, batch, key):
            z, _ = cnn.apply(params, batch['images'], net)
            z = jnp.clip(z, -MAX_LOGIT, MAX_LOGIT)
            each = optax.softmax_cross_entropy_with_integer_labels(z, batch['labels'])
            wrong = jnp.mean(z.argmax(1) != batch['labels'], dtype=z.dtype)
            return each.mean(), {'error': wrong}

        def init(key, batch):
            return cnn.init(key, net, spec.shape, gain=GAINS[activation])

        def set_rates(state):
            rates = jnp.array(config.learning_rates, jnp.float32)
            state.opt_state.inner_state.hyperparams['learning_rate'] = rates
            return state

        sgd = optax.inject_hyperparams(optax.sgd)(1.0, config.momentum)
        optimizer = optax.apply_if_finite(sgd, max_consecutive_errors=config.steps)
        return train.stacked(train.optimize(init, loss, optimizer), names, vary=set_rates)

    task = train.parallel({activation: task_of(activation) for activation in config.activations})
    keys = [f'error/{rate}/{activation}' for activation in config.activations for rate in names]
    return train.record_metrics(task, keys, config.steps)


def apply(config, spec):
    activation = config.activations[0]

    def predict(recorded, x):
        """Classes of images in [0, 1] by the network with the first activation and learning rate, [n]."""
        params = jax.tree.map(lambda leaf: leaf[0], recorded.state[activation].params)
        mean = jnp.asarray(spec.constants['mean'])[None, None, None]
        return cnn.classify(params, x - mean, network(config, spec, activation))[0]

    return {'predict': predict}


def report(config, state, data):
    from lecture4.figures import lines

    x, labels = data.report_data
    x, window, rates = x - data.spec.constants['mean'], config.window, config.learning_rates
    history = np.asarray(state.history).reshape(len(config.activations), len(rates), config.steps)
    sums = np.cumsum(np.pad(history, ((0, 0), (0, 0), (1, 0))), axis=2)
    smooth = (sums[..., window:] - sums[..., :-window]) / window  # entry i: steps i to i + window
    steps = np.arange(config.steps - window + 1) + window
    reached = (smooth < config.threshold).any(2)
    needed = np.where(reached, steps[(smooth < config.threshold).argmax(2)], np.inf)
    records, by_rate, curves = [], [], {}
    for i, activation in enumerate(config.activations):
        # The fastest; if none reaches the training error, the one with the lowest.
        best = np.lexsort((smooth[i, :, -1], needed[i]))[0]
        params = jax.tree.map(lambda leaf, i=best: leaf[i], state.state[activation].params)
        net = network(config, data.spec, activation)
        accuracy = float(jax.jit(cnn.accuracy, static_argnums=3)(params, x, labels, net))
        for j in np.flatnonzero(reached[i]):
            own = {'learning_rate': rates[j], 'steps_needed': needed[i, j]}
            by_rate.append({'activation': activation, **own})
        record = {'activation': activation, 'fastest learning rate': rates[best]}
        records.append(record | {'last_error': smooth[i, best, -1], 'accuracy': accuracy})
        curves[activation] = (steps, smooth[i, best])
    fastest = dict(zip(config.activations, needed.min(1), strict=True))
    bounded = [min(fastest.get(name, np.inf), config.steps) for name in ('tanh', 'relu')]
    speedup = float(bounded[0] / bounded[1])
    needed[~reached] = np.nan
    all_rates = {name: (rates, each) for name, each in zip(config.activations, needed, strict=True)}
    goal = f'{config.threshold:.0%}'
    panels = {
        'at the fastest learning rate': {'curves': curves, 'lines': {goal: config.threshold}}
        | {'xlabel': 'steps', 'ylabel': f'training error, mean of {window} batches'},
        f'steps to a training error of {goal}': {'curves': all_rates, 'xlabel': 'learning rate'}
        | {'xscale': 'log', 'yscale': 'log'},
    }
    caption = 'Training error, and its dependence on the learning rate; it is not reached where points are missing.'
    texts = [f'{n} {k:.0f}' if k < np.inf else f'{n} never' for n, k in fastest.items()]
    return train.Report(
        metrics={'relu_speedup': speedup},
        tables=(
            train.Table('Steps', by_rate, ('activation',), pivot='learning_rate'),
            train.Table('At the fastest learning rate', records, ('activation',)),
        ),
        figures={'activations': train.Figure(lines.panels(panels), caption)},
        summary=f'Steps to a training error of {goal}: {", ".join(texts)}; tanh {speedup:.1f} times as many as ReLU '
        '(in the paper 6, on CIFAR-10; cited from memory, unverified).',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
