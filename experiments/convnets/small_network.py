"""The lecture's small network: convolution, activation, pooling, and the effect of pooling.

One network per kind of pooling is trained on the same batches from the same initial filters; then test images are
translated: how far do the features move, and how much accuracy is left? 'subsample' keeps one value of a window.
Compared with 'max': 'manual_backprop', gradients from the delta rules; 'imbalanced', a training set in which the
second half of the classes is rare; 'balanced', the same set with the frequent classes downsampled in every epoch.

Run:      python -m experiments.convnets.small_network [--preset mnist --manual_dir PATH]
Hardware: one core, under a minute; mnist two to three minutes
Results:  seed 0

          |                                         | none | subsample | mean | max  |
          |-----------------------------------------|------|-----------|------|------|
          | MNIST, accuracy, %                      | 95.9 | 94.3      | 94.0 | 95.4 |
          | translated by 2 pixels                  | 78.0 | 72.5      | 73.0 | 78.0 |
          | features moved by 1 pixel (pixels 0.52) | 0.54 | 0.48      | 0.42 | 0.44 |
          | digits, accuracy, %                     | 92.2 | 91.6      | 90.4 | 92.8 |
          | translated by 1 pixel                   | 46.4 | 44.0      | 46.8 | 54.2 |

          Features move less with pooling, on digits (8 x 8) only at 1 pixel: at 3, 1.81 with maxima, 1.63 without.
          Maxima cost less accuracy than subsampling, on MNIST no more than no pooling. Losses of manual backpropagation
          differ by 2e-6. Recall of rare classes: MNIST (1 %) 42.2, balanced 86.1; digits 61.6 and 79.3.
"""

import dataclasses
from functools import partial
from typing import Literal

import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, images
from lecture4.features import invariance
from lecture4.ops import metrics
from lecture4.train.optimizers import weight_decay_mask
from lecture4.vision import multi_crop
from lecture4.vision.models import cnn

POOLINGS = ('none', 'subsample', 'mean', 'max')
MANUAL, IMBALANCED, BALANCED = 'manual_backprop', 'imbalanced', 'balanced'


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 64
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Width in pixels of the zero border around every image, so that translations lose nothing.
    margin: train.AtLeast0 = 3
    # Largest translation to evaluate, in pixels; at most the margin.
    max_translation: train.AtLeast0 = 3
    # Number of filters of each stage.
    num_filters: train.Ints = (16,)
    # Size of the filters.
    kernel_size: train.AtLeast1 = 3
    # Zero padding of the input of each convolution.
    padding: train.AtLeast0 = 0
    # Size and stride of the pooling windows; incomplete windows at the edge are kept.
    window: train.AtLeast1 = 2
    # Activation function between convolution and pooling (the lecture's detector stage).
    activation: cnn.Activation = 'relu'
    # Output units and loss: softmax with cross-entropy, or sigmoid units with the squared error.
    output: Literal['softmax', 'sigmoid'] = 'softmax'
    # Learning rate of SGD with momentum 0.9.
    learning_rate: train.Positive = 0.02
    # Weight decay of convolution kernels and dense weights, added to their gradients.
    weight_decay: train.NonNegative = 1e-3
    # Fraction of the training images of the second half of the classes that the imbalanced set keeps.
    minority_fraction: train.PositiveFraction = 0.05
    # Number of test images to evaluate and translate; 0 takes all.
    num_eval: train.AtLeast0 = 1000

    def __post_init__(self):
        super().__post_init__()
        limit = f'at most --margin {self.margin}, or images leave the frame'
        train.require(self, 'max_translation', self.max_translation <= self.margin, limit)


METRICS = (
    train.Metric('translated_accuracy', 'fraction', 'higher', 'shifted accuracy', primary=True),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('movement', '', 'lower', 'movement of the features'),
    train.Metric('recall', 'fraction', 'higher', 'recall, all classes'),
    train.Metric('frequent_recall', 'fraction', 'higher', 'recall, frequent classes'),
    train.Metric('rare_recall', 'fraction', 'higher', 'recall, rare classes'),
    train.Metric('max_difference', '', 'lower', 'largest relative difference of losses'),
)
_MNIST = {'source': 'mnist', 'kernel_size': 5, 'num_filters': (8,), 'steps': 500}
_MNIST |= {'minority_fraction': 0.01}
_SMOKE = {'steps': 4, 'batch_size': 16, 'num_filters': (4,), 'num_eval': 20, 'max_translation': 1}
PRESETS = {'smoke': _SMOKE, 'mnist': _MNIST, 'mnist_two_stages': _MNIST | {'num_filters': (8, 16)}}
SWEEPS = {'minority_fraction': train.grid(minority_fraction=(0.02, 0.05, 0.2, 1.0), seed=(0, 1, 2))}


def networks(config, num_classes) -> dict[str, cnn.CNN]:
    fields = ('kernel_size', 'padding', 'activation', 'window', 'output')
    network = cnn.CNN(config.num_filters, edge='torch', n_classes=num_classes)
    network = network._replace(**{name: getattr(config, name) for name in fields})
    kinds = {pooling: network._replace(pooling=pooling) for pooling in POOLINGS}
    return kinds | dict.fromkeys((MANUAL, IMBALANCED, BALANCED), kinds['max'])


def data(config):
    options = {'pixels': 'float', 'group_by_class': False, **config.data_kwargs()}
    task = images.add_border(images.load(config.source, **options), config.margin)
    x, labels, n_eval = task.train_images, task.train_labels, config.num_eval or None
    cnn.check_fit(networks(config, len(task.class_names)), x.shape[1:])
    kept = batches.subsample_minority(labels, config.minority_fraction, config.seed)
    balanced = batches.balanced(labels[kept], config.batch_size, seed=config.seed)
    sample = partial(batches.indices, config.seed, batch_size=config.batch_size)

    def batch(n):
        rows = {IMBALANCED: kept[sample(n, num_examples=len(kept))], BALANCED: kept[balanced(n)]}
        return dict.fromkeys((*POOLINGS, MANUAL), sample(n, num_examples=len(x))) | rows

    return train.Data(
        batch,
        device_arrays=(x, labels),
        prepare=train.gather_each,
        evaluation=(task.test_images[:n_eval], task.test_labels[:n_eval]),
        spec=train.Spec(x.shape[1:], task.class_names),
        report_data=task,
    )


def build(config, spec):
    decay = optax.add_decayed_weights(config.weight_decay, weight_decay_mask)
    optimizer = optax.chain(decay, optax.sgd(config.learning_rate, momentum=0.9))

    def task(name, network):
        loss = cnn.loss_fn(network, manual=name == MANUAL)
        return train.optimize(
            lambda key, batch: cnn.init(key, network, spec.shape),
            lambda params, batch, key: (loss(params, *batch), {}),
            optimizer,
            lambda params, evaluation: {
                'accuracy': cnn.accuracy(params, *evaluation, network=network)
            },
        )

    nets = networks(config, spec.num_classes)
    both = train.parallel({name: task(name, network) for name, network in nets.items()})
    return train.record_metrics(both, ('loss/max', f'loss/{MANUAL}'), config.steps)


def apply(config, spec):
    network = networks(config, spec.num_classes)['max']

    def predict(state, x):
        """Classes of images in [0, 1] with a border of --margin zeros, [n]."""
        return cnn.classify(state.state['max'].params, x, network)[0]

    return {'predict': predict}


def report(config, state, data):
    from lecture4.figures import feature_maps, lines

    names, (x, labels) = data.spec.class_names, data.evaluation
    nets, half, largest = networks(config, len(names)), len(names) // 2, config.max_translation
    trained, losses, recall, task = state.state, np.asarray(state.history), {}, data.report_data
    runs = {n: partial(cnn.classify, trained[n].params, network=net) for n, net in nets.items()}
    records = invariance.compare_translations({n: runs[n] for n in POOLINGS}, x, labels, largest)
    at = {(r['network'], r['pixels']): r['accuracy'] for r in records if 'accuracy' in r}
    for name, run in runs.items():
        predicted = multi_crop.map_batches(lambda x, run=run: run(x)[0], task.test_images, 500)
        recall[name] = metrics.recall_per_class(predicted, task.test_labels, len(names))
    recalls = [{'network': n, **metrics.recall_record(r, half)} for n, r in recall.items()]
    params, shown = trained['max'].params, np.asarray(x[:4])
    maps = feature_maps.activations(shown, cnn.feature_maps(params, shown, nets['max']))
    translations = lines.by_entry(records, 'pixels', 'network', ('movement', 'accuracy'))
    by_class = lines.by_class({n: recall[n] for n in ('max', IMBALANCED, BALANCED)}, 'recall')
    gradients = lines.coincidence(('jax.grad', 'delta rules'), *losses)
    filters = feature_maps.filters(params['conv1']['kernel'])
    kept = f'{100 * config.minority_fraction:g} % of the images of classes {half} and up are kept.'
    moved = f'{invariance.MOVEMENT} {invariance.moves_less(records, "max", "none")}'
    difference = (abs(losses[1] - losses[0]) / losses[0]).max()
    return train.Report(
        metrics={'translated_accuracy': at['max', largest], 'max_difference': difference},
        tables=(
            train.Table('Translated test images', records, ('network',), (), moved, 'pixels'),
            train.Table('Recall, mean over classes', recalls, ('network',), caption=kept),
        ),
        figures={
            'translations': train.Figure(translations, 'Movement of features, and accuracy.'),
            'manual_backprop': train.Figure(gradients, 'Losses; 1e-9 stands for no difference.'),
            'recall': train.Figure(by_class, "'max' on all images, imbalanced and balanced."),
            'filters': train.Figure(filters, "The first filters of 'max'."),
            'maps': train.Figure(maps, "Test images and the feature maps of 'max'."),
        },
        summary=f'Accuracy for translations by 0 and {largest} pixels: '
        + ', '.join(f'{n} {100 * at[n, 0]:.1f} and {100 * at[n, largest]:.1f} %' for n in POOLINGS),
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
