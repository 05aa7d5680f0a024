"""Supervised, semi-supervised, transfer, active and self-taught learning compared (Raina et al., 2007).

A task with few labels, and in addition, by setting: nothing (supervised), unlabeled examples of the task
(semi-supervised), labeled examples of other classes (transfer), unlabeled images of other things (self-taught), or an
oracle that labels selected examples (active). The classifier is a linear SVM, C by cross-validation on the few
labels. Other data are used for features of one form, dense patches through a layer of filters, rectified and pooled:
filters that encode unlabeled patches sparsely, or that classify other classes. Random filters are the control.

Run:      python -m experiments.sparse_coding.learning_settings
          python -m experiments.sparse_coding.learning_settings --preset mnist --manual_dir PATH
Hardware: one core, 85 CPU-seconds; mnist 3 CPU-minutes
Results:  test accuracy in %; labels per class: digits 20, mnist (classes 5 to 9) 1, 5, 20, 50

          | setting                  | digits | mnist                  |
          |--------------------------|--------|------------------------|
          | supervised               | 92.8   | 51.7, 75.0, 86.2, 89.2 |
          | random filters           | 94.4   | 54.2, 79.5, 90.7, 93.9 |
          | semi-supervised          | 94.8   | 50.7, 76.6, 89.8, 93.5 |
          | transfer                 | 95.1   | 59.2, 84.6, 93.1, 95.3 |
          | self-taught              | 95.1   | 51.2, 77.0, 89.4, 93.6 |
          | active, least certain    | 95.9   | 51.7, 72.4, 86.9, 90.3 |
          | active, most diverse     | 94.9   | 51.7, 82.2, 88.7, 90.2 |

          digits, one label: no other data beat pixels (72.1). Filters of unlabeled strokes are no better than random
          ones.
"""

import dataclasses

import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.data.images import whiten
from lecture4.features import filters, label_efficiency, learning_settings
from lecture4.ops import linalg, patches
from lecture4.sparse.dictionary import learners


@dataclasses.dataclass(frozen=True)
class Config(train.PatchFeatures):
    # Number of steps of feature learning.
    steps: train.AtLeast1 = 300
    # Number of patches (and of images of other classes) per step, over all devices.
    batch_size: train.AtLeast1 = 256
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Classes of the task.
    classes: train.Classes = (5, 6, 7, 8, 9)
    # Other classes of the source, with labels for transfer learning.
    other_classes: train.Classes = (0, 1, 2, 3, 4)
    # Source of unlabeled images for self-taught learning; 'others' takes the other classes.
    unlabeled: str = 'others'
    # Size of the patches.
    patch_size: train.AtLeast1 = 4
    stride: train.AtLeast1 = 1
    pooling_grid: train.AtLeast1 = 3
    # Number of filters of every kind of feature.
    num_filters: train.AtLeast1 = 64
    # Weight of the L1 penalty on codes of whitened patches.
    l1_penalty: train.Positive = 0.3
    contrast_epsilon: train.Positive = 0.1
    # Learning rate of the layer trained by transfer learning.
    learning_rate: train.Positive = 1e-2
    # Number of unlabeled patches of the task's images, and of the other unlabeled images.
    num_patches: train.AtLeast1 = 20_000
    candidates_per_class: train.AtLeast1 = 100
    # Number of test images; 0 takes all.
    num_eval: train.AtLeast0 = 0
    # Numbers of labels per class, increasing; averages over classes where an oracle is queried.
    labels_per_class: train.Evaluation[train.Ints] = (1, 2, 5, 10, 20)
    num_trials: train.Evaluation[train.AtLeast1] = 20

    def __post_init__(self):
        super().__post_init__()
        disjoint = not set(self.classes) & set(self.other_classes)
        train.require(self, 'other_classes', disjoint, f'classes other than {self.classes}')
        labels = self.labels_per_class
        increasing = labels == tuple(sorted(set(labels)))
        train.require(self, 'labels_per_class', increasing, 'increasing numbers')


METRICS = (
    train.Metric('self_taught_accuracy', 'fraction', 'higher', 'self-taught', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('train_accuracy', 'fraction', 'higher', 'training accuracy'),
    *train.DICTIONARY_METRICS,
)
PRESETS = {
    'smoke': {'steps': 3, 'num_patches': 500, 'batch_size': 32, 'num_filters': 8}
    | {'candidates_per_class': 10, 'labels_per_class': (2,), 'num_trials': 2},
    'mnist': {'source': 'mnist', 'patch_size': 7, 'stride': 3, 'pooling_grid': 4, 'steps': 400}
    | {'num_filters': 128, 'num_patches': 100_000, 'candidates_per_class': 400, 'num_eval': 3000}
    | {'labels_per_class': (1, 2, 5, 10, 20, 50)},
}
PRESETS['omniglot'] = PRESETS['mnist'] | {'unlabeled': 'omniglot'}
SWEEPS = {
    'l1_penalty': train.grid(l1_penalty=(0.1, 0.3, 1.0)),
    'num_filters': train.grid(num_filters=(32, 64, 128)),
}


def data(config):
    names = 'classes other_classes unlabeled candidates_per_class num_eval image_size held_out seed'
    options = {name: getattr(config, name) for name in names.split()} | config.data_kwargs()
    sets = images.load_related(config.source, **options)
    task, size = sets.task, sets.task.train_images.shape[1]
    # Both refuse options that do not fit the data.
    label_efficiency.sample_training_sets(0, task.train_labels, max(config.labels_per_class), 1)
    patches.grid((size, size), config.patch_size, config.stride)
    sources, whitening = {}, {}
    names = ('num_patches', 'patch_size', 'seed', 'contrast_epsilon', 'zca_epsilon')
    options = {name: getattr(config, name) for name in names}
    for name, x in (('task', task.train_images), ('elsewhere', sets.unlabeled)):
        sources[name], whitening[name] = whiten.whitened_patches(x, **options)
    sources['transfer'] = {'images': sets.others.train_images, 'labels': sets.others.train_labels}
    spec = train.Spec(task.train_images.shape[1:], task.class_names, {'whitening': whitening})
    return train.sources_in_memory(
        sources, config.batch_size, seed=config.seed, spec=spec, report_data=sets
    )


def build(config, spec):
    sizes = config.patch_size**2, config.num_filters, len(config.other_classes)

    def init(key, batch):
        return filters.init(key, *sizes, pooling_grid=config.pooling_grid)

    def loss(params, batch, key):
        options = {'tile': 64, **config.patch_options()}
        return filters.loss(params, batch['images'], batch['labels'], **options)

    transfer = train.optimize(init, loss, optax.adam(config.learning_rate))
    dictionary = train.from_learner(*learners.make('online', config.num_filters, config.l1_penalty))
    tasks = {'task': dictionary, 'elsewhere': dictionary, 'transfer': transfer}
    return train.parallel(tasks, split_keys=True)


def features(config, spec):
    """{setting: (learned filters, images [n, h, w, 1]) -> features [n, p]}."""
    options = {name: getattr(config, name) for name in ('num_filters', 'l1_penalty', 'seed')}
    whitening = spec.constants['whitening']
    return learning_settings.feature_functions(whitening, **options, **config.patch_options())


def learned(state):
    dictionaries = {name: state[name].params.atoms for name in ('task', 'elsewhere')}
    return {**dictionaries, 'transfer': state['transfer'].params}


def apply(config, spec):
    return {'features': lambda state, x: features(config, spec)['self-taught'](learned(state), x)}


def report(config, state, data):
    from lecture4.figures import curves, dictionary
    from lecture4.figures import label_efficiency as settings

    task, labels = data.report_data.task, config.labels_per_class
    options = {name: getattr(config, name) for name in ('seed', 'labels_per_class', 'num_trials')}
    functions = features(config, data.spec)
    values = learning_settings.accuracies(functions, learned(state), task, **options)
    caption = (
        f'{config.num_trials} trials. {config.source}, classes {", ".join(task.class_names)}; '
        f'{len(task.test_labels)} test images. The same linear SVM for all, C by cross-validation on '
        'the labeled examples alone.'
    )
    records = label_efficiency.curve_records(values, labels, 'setting')
    title, index = 'Accuracy against labels', ('setting',)
    table = train.Table(title, records, index, caption=caption, pivot='labels_per_class')
    chance, shape = 1 / len(task.class_names), (config.patch_size, config.patch_size)
    figures = {
        'accuracy': train.Figure(
            curves.label_curve(values, labels, chance=chance),
            'Test accuracy against labels per class, mean and standard error.',
        ),
        'map': train.Figure(
            settings.learning_settings(values, labels, *data.report_data, seed=config.seed),
            'The data that each setting uses; a question mark stands for a hidden label.',
        ),
        'filters_transfer': train.Figure(
            dictionary.atoms(np.asarray(state['transfer'].params['filters']), shape, width=4.0),
            'Filters that classify the other classes.',
        ),
    }
    for name in ('task', 'elsewhere'):
        back = linalg.pseudo_inverse(data.spec.constants['whitening'][name]).T
        D, usage = back @ state[name].params.atoms, np.asarray(state[name].params.usage)
        figures[f'atoms_{name}'] = train.Figure(
            dictionary.atoms(np.asarray(D), shape, order=np.argsort(-usage), width=4.0),
            f'Atoms from unlabeled patches, {name}: most used first.',
        )
    accuracy = values['self-taught'][-1].mean()
    return train.Report({'self_taught_accuracy': accuracy}, (table,), figures)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
