"""What is a suitable pooling size? Max, mean and subsampling by width and stride (Scherer, Mueller & Behnke 2010).

Networks of one convolution, a ReLU, a pooling and a dense layer differ in the pooling only: kind, width, stride, with
and without overlap (AlexNet's 3 / 2 compared with 2 / 2, which gains 0.4 % top-1 in the paper). Accuracy on test
images and on translated ones, movement of the features under translation, parameters and multiply-adds.

Run:      python -m experiments.convnets.pooling
          python -m experiments.convnets.pooling --preset mnist --manual_dir PATH
Hardware: one core (AMD EPYC), 3 minutes
Results:  digits, one run, 360 test images; accuracy (%) in place / translated by 2 pixels

          | window / stride | max         | mean        | subsampling | multiply-adds |
          |-----------------|-------------|-------------|-------------|---------------|
          | none            | 93.2 / 14.2 |             |             | 38,912        |
          | 2 / 2           | 89.2 / 14.9 | 88.4 / 14.6 | 87.6 / 15.2 | 23,552        |
          | 3 / 2, overlap  | 89.2 / 21.9 | 84.2 / 18.1 |             | 23,552        |
          | 4 / 2, overlap  | 92.0 / 22.7 | 83.4 / 16.0 |             | 22,352        |
          | 4 / 4           | 88.0 / 25.2 | 74.6 / 18.9 | 78.2 / 11.6 | 19,712        |
          | 8 / 4, overlap  | 84.6 / 46.7 | 54.8 / 15.7 |             | 19,152        |
          | 8 / 8           | 83.6 / 34.6 | 53.4 / 16.0 | 55.0 / 8.0  | 18,752        |

          No size is suitable by itself: wide max pooling buys invariance with accuracy in place, mean pooling and
          subsampling lose both. Overlap gains .0 at 3 / 2 against 2 / 2, 4.0 at 4 / 2 against 4 / 4. MNIST (13
          CPU-minutes): in place max 4 / 2 is best, 96.4 (no pooling 95.8; 4 / 4 94.1), translated max 16 / 8, 83.9
          (no pooling 75.0); mean 16 / 16 60.9 / 39.7. Overlap gains .0 at 3 / 2 there too, 2.3 at 4 / 2.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.features import invariance
from lecture4.ops import receptive_field
from lecture4.vision import pooling_sizes


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 400
    batch_size: train.AtLeast1 = 32
    steps_per_call: train.AtLeast1 = 20
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Border of zeros around every image, in pixels; images are translated within it.
    margin: train.AtLeast0 = 4
    # Largest translation of test images, in pixels.
    max_translation: train.AtLeast1 = 2
    # Widths of the pooling windows.
    windows: tuple[train.AtLeast2, ...] = (2, 3, 4, 8)
    # Number of filters of the convolution.
    num_filters: train.AtLeast1 = 8
    # Height and width of the filters; odd.
    kernel_size: train.AtLeast1 = 3
    # Learning rate of Adam.
    learning_rate: train.Positive = 3e-3
    # Number of test images.
    num_eval: train.AtLeast1 = 1000

    def __post_init__(self):
        super().__post_init__()
        limit = f'at most --margin {self.margin}, or images leave the frame'
        train.require(self, 'max_translation', self.max_translation <= self.margin, limit)


METRICS = (
    train.Metric(
        'best_accuracy', 'fraction', 'higher', 'accuracy of the best pooling', primary=True
    ),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('translated_accuracy', 'fraction', 'higher', 'accuracy, translated'),
    train.Metric('movement', '', 'lower', 'movement of the features'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('parameters', 'count', 'lower', 'parameters'),
    train.Metric('multiply_adds', 'count', 'lower', 'multiply-adds'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'windows': (3,), 'num_filters': 4, 'num_eval': 20},
    'mnist': {'source': 'mnist', 'kernel_size': 5, 'num_filters': 16, 'windows': (2, 3, 4, 8, 16)},
}
SWEEPS = {'num_filters': train.grid(num_filters=(4, 16, 64), seed=(0, 1, 2))}


def networks(config, spec):
    return {
        pooling.name: pooling_sizes.Network(
            pooling, config.num_filters, config.kernel_size, spec.num_classes
        )
        for pooling in pooling_sizes.poolings(config.windows)
    }


def data(config):
    options = {'pixels': 'float', 'group_by_class': False, **config.data_kwargs()}
    task = images.add_border(images.load(config.source, **options), config.margin)
    return train.in_memory(
        {'images': task.train_images, 'labels': task.train_labels.astype(np.int32)},
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(task.train_images.shape[1:], task.class_names),
        report_data=(task.test_images[: config.num_eval], task.test_labels[: config.num_eval]),
    )


def build(config, spec):
    optimizer = optax.adam(config.learning_rate)
    return train.parallel(
        {
            name: train.supervised(network, optimizer, pooling_sizes.cross_entropy)
            for name, network in networks(config, spec).items()
        }
    )


def apply(config, spec):
    name, network = list(networks(config, spec).items())[1]

    def predict(state, x):
        """Classes of images in [0, 1] with a border of --margin zeros, [n]."""
        return jnp.argmax(network.apply(train.variables(state[name]), x)[0], axis=1)

    return {'predict': predict}


def measure(network, variables, x, labels, max_pixels):
    """Accuracy, invariance and cost of a trained network, as a record."""

    def run(images):
        logits, maps = network.apply(variables, images)
        return jnp.argmax(logits, axis=1), maps

    first, *_, last = invariance.translation_records(run, x, labels, max_pixels)
    rows = receptive_field.summarize(network.stack(), x.shape[1:])
    parameters, multiply_adds = receptive_field.totals(rows)
    pooling = network.pooling
    return {
        'pooling': pooling.kind if pooling.window > 1 else 'none',
        'window': pooling.window,
        'stride': pooling.stride,
        'accuracy': first['accuracy'],
        'translated_accuracy': last['accuracy'],
        'movement': last['movement'],
        'parameters': parameters,
        'multiply_adds': multiply_adds,
    }


def report(config, state, data):
    from lecture4.figures import lines

    x, labels = data.report_data
    records = [
        measure(network, train.variables(state[name]), x, labels, config.max_translation)
        for name, network in networks(config, data.spec).items()
    ]
    none, *pooled = records
    panels = {}
    for entry in ('accuracy', 'translated_accuracy', 'movement', 'multiply_adds'):
        curves = {}
        for record in pooled:
            overlap = ', overlapping' if record['stride'] < record['window'] else ''
            curves.setdefault(record['pooling'] + overlap, []).append(
                (record['window'], record[entry])
            )
        curves = {name: tuple(np.array(points).T) for name, points in curves.items()}
        panels[entry.replace('_', ' ')] = {
            'curves': curves,
            'xlabel': 'width of the windows',
            'lines': {'no pooling': none[entry]},
        }
    best = max(records, key=lambda record: record['accuracy'])
    steady = max(records, key=lambda record: record['translated_accuracy'])
    pairs = {(r['pooling'], r['window'], r['stride']): r['accuracy'] for r in records}
    overlap = pairs.get(('max', 3, 2), np.nan) - pairs.get(('max', 2, 2), np.nan)
    caption = (
        f'Translated by {config.max_translation} pixels. Movement: distance of the features from those of the '
        'image in place, over the distance between two images.'
    )
    return train.Report(
        metrics={'best_accuracy': best['accuracy']},
        tables=(
            train.Table('Poolings', records, ('pooling', 'window', 'stride'), caption=caption),
        ),
        figures={'pooling': train.Figure(lines.panels(panels), caption)},
        summary=f'Best: {best["pooling"]} of {best["window"]} / {best["stride"]}, {best["accuracy"]:.1%}; translated: '
        f'{steady["pooling"]} of {steady["window"]} / {steady["stride"]}, {steady["translated_accuracy"]:.1%}. Max '
        f'of 3 / 2 against 2 / 2: {100 * overlap:+.1f} points.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
