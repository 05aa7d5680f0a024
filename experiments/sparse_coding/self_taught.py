"""Self-taught learning (Raina, Battle, Lee, Packer & Ng, ICML 2007).

A dictionary is learned from arbitrary unlabeled images; labeled images of other things are described by their sparse
codes, and a linear SVM learns from a few of them. Raw pixels and principal components of the same unlabeled data get
the same pooling, the same SVM and the same cross-validation on the labeled training set alone. The preset cifar10
uses dense color patches, pooled over quadrants, encoded by one thresholded product (Coates & Ng 2011); --encoder
sparse is Raina's.

Run:      python -m experiments.sparse_coding.self_taught
          python -m experiments.sparse_coding.self_taught --preset cifar10 --manual_dir PATH
Hardware: 2 CPU cores, under a minute with compilation; handwriting 4.5, cifar10 32 CPU-minutes
Results:  test accuracy in % with 1, 2, 5, 20 labels per class

          | textures   | 1    | 2    | 5    | 20   |
          |------------|------|------|------|------|
          | raw pixels | 40.8 | 44.7 | 49.9 | 55.0 |
          | PCA        | 86.6 | 92.2 | 96.3 | 98.8 |
          | sparse     | 94.2 | 98.2 | 99.7 | 99.9 |

          digits: codes of whole images do not beat raw pixels (79.0 against 87.3 with 5 labels per
          class). handwriting, 100, 500, 1000 labels: pixels 73.8, 85.0, 87.3; PCA 74.8, 85.6, 87.6;
          codes 53.1, 74.3, 79.9; pixels and codes together 69.5, 83.3, 86.0. cifar10, all labels: 74.56;
          PCA 61.69, pixels 38.72; k-means with 1600 features 77.9 (cited from memory, unverified).
"""

import dataclasses
from typing import Literal

import numpy as np
import optax

from lecture4 import train
from lecture4.features import atoms, image_accuracy, label_efficiency, self_taught
from lecture4.ops import linalg
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import learners, statistics


@dataclasses.dataclass(frozen=True)
class Config(train.SelfTaught):
    steps: train.AtLeast1 = 300
    batch_size: train.AtLeast1 = 512
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 192
    # Learner of the dictionary: online (Mairal et al. 2009), lagrange_dual (Lee et al. 2006, as in the
    # paper; it needs a large --batch_size), or projected_gradient (Adam).
    learner: learners.Name = 'online'
    # Learning rate of Adam, for --learner projected_gradient.
    learning_rate: train.Positive = 0.02
    # Encode patches by sparse codes, or by one thresholded product with the atoms.
    encoder: Literal['sparse', 'threshold'] = 'sparse'
    # Threshold of the thresholded product.
    threshold: train.NonNegative = 0.5
    # Weight of the L1 penalty; signals are whitened, so their coordinates have variance near 1.
    l1_penalty: train.Positive = 0.5
    # Number of labeled images per class from which small training sets are sampled.
    labeled_pool_size: train.AtLeast1 = 500
    # C of an additional linear classifier on all labeled images, with standardized features; 0 trains none.
    full_data_C: train.NonNegative = 0.0
    # Loss of the classifier on all labeled images.
    full_data_loss: Literal['squared hinge', 'hinge', 'softmax'] = 'squared hinge'


METRICS = (
    train.Metric('sparse_accuracy', 'fraction', 'higher', 'accuracy of sparse codes', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('full_data_accuracy', 'fraction', 'higher', 'test accuracy with all labels'),
    train.Metric('dual_gap', '', 'lower', 'relative duality gap of the dictionary given its codes'),
    *train.DICTIONARY_METRICS,
)
PRESETS = {
    'smoke': {'steps': 4, 'num_signals': 600, 'num_atoms': 16, 'batch_size': 64}
    | {'labels_per_class': (2,), 'num_trials': 2},
    'handwriting': {'unlabeled': 'omniglot', 'labeled': 'mnist', 'crop_size': 0, 'patch_size': 0}
    | {'num_atoms': 512, 'steps': 400, 'num_signals': 19_280, 'labels_per_class': (10, 50, 100)}
    | {'num_trials': 20},
    # Contrast and whitening as in Coates, Lee & Ng 2011: their 10 is for variances of pixels in 0..255.
    'cifar10': {'unlabeled': 'cifar10', 'labeled': 'cifar10', 'color': True, 'crop_size': 0}
    | {'patch_size': 6, 'stride': 1, 'pooling_grid': 2, 'num_atoms': 400, 'encoder': 'threshold'}
    | {'l1_penalty': 1.0, 'contrast_epsilon': 10**0.5 / 255, 'num_signals': 400_000, 'steps': 600}
    | {'candidates_per_class': 5000, 'labels_per_class': (1, 10), 'num_trials': 10}
    | {'full_data_C': 0.01},
    'digits': {'unlabeled': 'digits', 'labeled': 'digits', 'unlabeled_classes': (0, 1, 2, 3, 4)}
    | {'labeled_classes': (5, 6, 7, 8, 9), 'crop_size': 0, 'patch_size': 0, 'num_signals': 10_000},
}
SWEEPS = {
    'l1_penalty': train.grid(l1_penalty=(0.25, 0.5, 1.0, 1.5), seed=(0, 1, 2)),
    'num_atoms': train.grid(num_atoms=(32, 64, 128, 256), seed=(0, 1, 2)),
    'learner': train.grid(learner=('online', 'lagrange_dual', 'projected_gradient')),
}


def data(config):
    return train.self_taught_data(config, config.num_atoms, config.batch_size)


def sparse_codes(config, dictionary, signals):
    return solvers.admm(signals, dictionary.atoms, config.l1_penalty, tolerance=1e-3, tile=128)


def build(config, spec):
    adam = optax.adam(config.learning_rate)
    init, step = learners.make(config.learner, config.num_atoms, config.l1_penalty, optimizer=adam)

    def evaluate(dictionary, signals):
        return statistics.held_out_metrics(sparse_codes(config, dictionary, signals))

    return train.from_learner(init, step, evaluate, model_axes=learners.MODEL_AXES)


def features(config, spec):
    """{name: (state, images [n, h, w, c]) -> features [n, p]}."""
    options = {'tile': 4 if config.encoder == 'threshold' else 16, **config.patch_options()}

    def encoder(state):
        if config.encoder == 'threshold':
            return self_taught.threshold_encoder(state.params.atoms, config.threshold)
        return lambda signals: sparse_codes(config, state.params, signals).codes

    def pooled(encoder, name):
        affine = spec.constants[name]
        return lambda state, x: self_taught.image_features(x, encoder(state), affine, **options)

    functions = {
        'raw pixels': lambda state, x: x.reshape(len(x), -1),
        'PCA': pooled(lambda state: lambda signals: signals, 'components'),
        'sparse codes': pooled(encoder, 'whitening'),
    }
    if not config.patch_size:
        functions['raw + codes'] = lambda state, x: self_taught.with_raw(
            functions['sparse codes'](state, x), functions['raw pixels'](state, x)
        )
    return functions


def apply(config, spec):
    whitening = spec.constants['whitening']

    def encode(state, signals):
        whitened = self_taught.preprocess(signals, config.contrast_epsilon, whitening)
        return sparse_codes(config, state.params, whitened).codes

    return {'encode': encode, 'features': features(config, spec)['sparse codes']}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    task, spec, index = data.report_data, data.spec, ('features',)
    names = ('seed', 'labels_per_class', 'num_trials', 'labeled_pool_size', 'full_data_C')
    options = {name: getattr(config, name) for name in (*names, 'full_data_loss')}
    draws, full = image_accuracy.accuracies(features(config, spec), state, task, **options)
    caption = (
        f'{config.num_trials} random labeled sets. Unlabeled: {config.unlabeled}; labeled: '
        f'{config.labeled}, {spec.num_classes} classes, {len(task.test_labels)} test images. Linear '
        'SVM, C by cross-validation on the labeled set.'
    )
    records = label_efficiency.curve_records(draws, config.labels_per_class)
    tables = (
        train.Table(
            'Accuracy against labels', records, index, caption=caption, pivot='labels_per_class'
        ),
    )
    if full:
        tables += (train.Table('Accuracy with all labels', full, index),)
    back = np.asarray(
        linalg.pseudo_inverse(spec.constants['whitening'])
    )  # map atoms back to pixels
    learned, usage = np.asarray(state.params.atoms), np.asarray(state.params.usage)
    D, order = back.T @ learned, atoms.display_order(learned, usage)
    shape = self_taught.signal_shape(task.train_images.shape[1:], config.patch_size)
    some = data.evaluation[atoms.contrast_quantiles(data.evaluation)]
    codes = np.asarray(sparse_codes(config, state.params, some).codes)
    figures = {
        'accuracy': train.Figure(
            curves.label_curve(draws, config.labels_per_class, chance=1 / spec.num_classes),
            'Test accuracy against labels per class, mean and standard error.',
        ),
        'dictionary': train.Figure(
            drawn.atoms(D, shape, order=order),
            f'The {config.num_atoms} atoms learned from {config.unlabeled}, most used first.',
        ),
        'codes': train.Figure(
            drawn.codes(some @ back, codes, D, codes @ D.T, shape),
            'Held-out signals as sums of few atoms.',
        ),
        'usage': train.Figure(
            curves.atom_usage(usage),
            f'Fraction of signals that use each atom; {int(atoms.dead(usage).sum())} of them unused.',
        ),
    }
    return train.Report({'sparse_accuracy': draws['sparse codes'][-1].mean()}, tables, figures)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
