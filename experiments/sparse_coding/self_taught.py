"""Self-taught learning (Raina, Battle, Lee, Packer & Ng, ICML 2007).

A dictionary is learned from unlabeled images of anything; labeled images of something else are
described by their sparse codes, and a linear SVM learns from few of them. Raw pixels and principal
components of the same unlabeled data get the same pooling, the same SVM and the same cross-validation
on the labeled training set alone. The preset cifar10 uses dense color patches, pooled over quadrants,
encoded by one thresholded product (Coates & Ng 2011); --encoder sparse is Raina's.

Run:      python -m experiments.sparse_coding.self_taught
          python -m experiments.sparse_coding.self_taught --preset cifar10 --manual_dir PATH
Hardware: 2 CPU cores, under a minute with compilation; handwriting 4.5, cifar10 12 CPU-minutes
Results:  test accuracy in % with 1, 2, 5, 20 labels per class

          | textures   | 1    | 2    | 5    | 20   |
          |------------|------|------|------|------|
          | raw pixels | 40.8 | 44.7 | 49.9 | 55.0 |
          | PCA        | 86.6 | 92.2 | 96.3 | 98.8 |
          | sparse     | 94.2 | 98.2 | 99.7 | 99.9 |

          digits: codes of whole images do not beat raw pixels (79.0 against 87.3 with 5 labels per
          class). handwriting, 100, 500, 1000 labels: pixels 73.8, 85.0, 87.3; PCA 74.8, 85.6, 87.6;
          codes 53.1, 74.3, 79.9; pixels and codes together 69.5, 83.3, 86.0. cifar10, all labels: 74.32;
          PCA 61.48, pixels 38.44; k-means with 1600 features 77.9 (cited from memory, unverified).
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.features import atoms, label_efficiency, self_taught
from lecture4.ops import linalg
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import online


@dataclasses.dataclass(frozen=True)
class Config(train.SelfTaught):
    steps: train.AtLeast1 = 300
    batch_size: train.AtLeast1 = 512
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 192
    # Encode patches by sparse codes, or by one thresholded product with the atoms.
    encoder: Literal['sparse', 'threshold'] = 'sparse'
    # Threshold of the thresholded product.
    threshold: train.NonNegative = 0.5
    # Weight of the L1 penalty; signals are whitened, so their coordinates have variance near 1.
    l1_penalty: train.Positive = 0.5
    # Labeled images per class from which small training sets are drawn.
    labeled_pool_size: train.AtLeast1 = 500
    # C of one more SVM on all labeled images, with standardized features; 0 trains none.
    full_data_C: train.NonNegative = 0.0


METRICS = (
    train.Metric('sparse_accuracy', 'fraction', 'higher', 'accuracy of sparse codes', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('full_data_accuracy', 'fraction', 'higher', 'test accuracy with all labels'),
    train.Metric('objective', better='lower', label='objective per signal'),
    train.Metric('reconstruction', better='lower', label='squared error / 2 per signal'),
    train.Metric('density', 'fraction', '', 'non-zero coefficients'),
    train.Metric('dead', 'count', 'lower', 'unused atoms'),
    train.Metric('replaced', 'count', '', 'replaced atoms'),
)
PRESETS = {
    'smoke': {'steps': 4, 'num_signals': 600, 'num_atoms': 16, 'batch_size': 64}
    | {'labels_per_class': (2,), 'num_trials': 2},
    'handwriting': {'unlabeled': 'omniglot', 'labeled': 'mnist', 'crop_size': 0, 'patch_size': 0}
    | {'num_atoms': 512, 'steps': 400, 'num_signals': 19_280, 'labels_per_class': (10, 50, 100)}
    | {'num_trials': 20},
    # Contrast and whitening as in Coates, Lee & Ng 2011: their 10 is of variances of 0..255.
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
}


def data(config):
    loaded = train.load_self_taught(config, config.num_atoms)
    constants = {'whitening': loaded.whitening, 'components': loaded.components}
    return dataclasses.replace(
        train.in_memory(
            loaded.signals,
            config.batch_size,
            seed=config.seed,
            evaluation=loaded.held_out,
            spec=train.Spec(loaded.signals.shape[1:], loaded.task.class_names, constants),
            report_data=loaded.task,
        ),
        rows=loaded.raw_signals,
    )


def sparse_codes(config, dictionary, signals):
    return solvers.admm(signals, dictionary.atoms, config.l1_penalty, tolerance=1e-3, tile=128)


def build(config, spec):
    def init(key, signals):
        return online.init(key, signals, config.num_atoms)

    def evaluate(dictionary, signals):
        solution = sparse_codes(config, dictionary, signals)
        return {
            'objective': solution.objective.mean(),
            'density': jnp.mean(solution.codes != 0, dtype=signals.dtype),
        }

    step = functools.partial(online.step, penalty_weight=config.l1_penalty)
    return train.from_learner(init, step, evaluate)


def features(config, spec):
    """{name: (state, images [n, h, w, c]) -> features [n, p]}."""

    def codes(state, signals):
        if config.encoder == 'threshold':
            return self_taught.threshold_encoder(state.params.atoms, config.threshold)(signals)
        return sparse_codes(config, state.params, signals).codes

    def image_features(encoder, whitening):
        def run(state, x):
            return self_taught.image_features(
                x,
                functools.partial(encoder, state),
                whitening,
                patch_size=config.patch_size,
                stride=config.stride,
                contrast_epsilon=config.contrast_epsilon,
                pooling_grid=config.pooling_grid,
                tile=4 if config.encoder == 'threshold' else 16,
            )

        return run

    functions = {
        'raw pixels': lambda state, x: x.reshape(len(x), -1),
        'PCA': image_features(lambda state, signals: signals, spec.constants['components']),
        'sparse codes': image_features(codes, spec.constants['whitening']),
    }
    if not config.patch_size:
        functions['raw + codes'] = lambda state, x: self_taught.with_raw(
            functions['sparse codes'](state, x), functions['raw pixels'](state, x)
        )
    return functions


def apply(config, spec):
    def encode(state, signals):
        whitened = self_taught.preprocess(
            signals, config.contrast_epsilon, spec.constants['whitening']
        )
        return sparse_codes(config, state.params, whitened).codes

    return {'encode': encode, 'features': features(config, spec)['sparse codes']}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    task, spec = data.report_data, data.spec
    pool = label_efficiency.first_per_class(task.train_labels, config.labeled_pool_size)
    draws, records, full = {}, [], []
    for name, function in features(config, spec).items():
        learned, tested = (
            np.asarray(jax.jit(function)(state, jnp.asarray(x)))
            for x in (task.train_images, task.test_images)
        )
        draws[name] = label_efficiency.label_curve(
            config.seed, learned[pool], task.train_labels[pool], tested, task.test_labels,
            labels_per_class=config.labels_per_class, num_trials=config.num_trials,
        )  # fmt: skip
        records += [
            {'features': name, 'labels_per_class': n, 'accuracy': values}
            for n, values in zip(config.labels_per_class, draws[name], strict=True)
        ]
        if config.full_data_C:
            accuracy = self_taught.full_data_accuracy(
                learned, tested, task.train_labels, task.test_labels, C=config.full_data_C
            )
            full.append({'features': name, 'full_data_accuracy': accuracy})
    caption = (
        f'{config.num_trials} draws of the labeled set. Unlabeled: {config.unlabeled}; labeled: '
        f'{config.labeled}, {spec.num_classes} classes, {len(task.test_labels)} test images. Linear '
        'SVM, C by cross-validation on the labeled set.'
    )
    table = train.Table(
        'Accuracy against labels', records, ('features',), caption=caption, pivot='labels_per_class'
    )
    all_labels = train.Table('Accuracy with all labels', full, ('features',))
    back = np.asarray(
        linalg.pseudo_inverse(spec.constants['whitening'])
    )  # shown as images, not whitened
    D, usage = back.T @ np.asarray(state.params.atoms), np.asarray(state.params.usage)
    shape = self_taught.signal_shape(task.train_images.shape[1:], config.patch_size)
    some = atoms.contrast_quantiles(data.evaluation)
    codes = np.asarray(sparse_codes(config, state.params, data.evaluation[some]).codes)
    return train.Report(
        metrics={'sparse_accuracy': draws['sparse codes'][-1].mean()},
        tables=(table, all_labels) if full else (table,),
        figures={
            'accuracy': train.Figure(
                curves.label_curve(draws, config.labels_per_class, chance=1 / spec.num_classes),
                'Test accuracy against labels per class, mean and standard error.',
            ),
            'dictionary': train.Figure(
                drawn.atoms(
                    D, shape, order=atoms.display_order(np.asarray(state.params.atoms), usage)
                ),
                f'The {config.num_atoms} atoms learned from {config.unlabeled}, most used first.',
            ),
            'codes': train.Figure(
                drawn.codes(data.evaluation[some] @ back, codes, D, codes @ D.T, shape),
                'Held-out signals as sums of few atoms.',
            ),
            'usage': train.Figure(
                curves.atom_usage(usage),
                f'Fraction of signals that use each atom; {int(atoms.dead(usage).sum())} of '
                f'{config.num_atoms} are unused.',
            ),
        },
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
