"""Supervised, semi-supervised, transfer, active and self-taught learning compared (Raina et al., 2007).

A task with few labels, and besides them, by setting: nothing (supervised), unlabeled examples of the task
(semi-supervised), labeled examples of other classes (transfer), unlabeled images of something else
(self-taught), or an oracle that labels selected examples (active). The classifier is always the same linear
SVM, C by cross-validation on the few labels. Other data are used for features of one form, dense patches
through a layer of filters, rectified and pooled: filters that encode unlabeled patches sparsely, or that
classify other classes. Random filters are the control.

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
          | active, least certain    | 95.7   | 51.7, 72.4, 86.9, 90.3 |
          | active, most diverse     | 94.9   | 51.7, 82.2, 88.7, 90.2 |

          digits with one label: no other data beats pixels (72.1). Filters learned from unlabeled strokes
          are no better than random ones.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, images
from lecture4.data.images import crops
from lecture4.features import active_learning, filters, label_efficiency, self_taught
from lecture4.ops import linalg, patches
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import online


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Number of steps of feature learning.
    steps: train.AtLeast1 = 300
    # Number of patches (and of images of other classes) per step, over all devices.
    batch_size: train.AtLeast1 = 256
    # Source of labeled images with splits train and test: digits, mnist, ...
    source: str = 'digits'
    # Classes of the task.
    classes: train.Classes = (5, 6, 7, 8, 9)
    # Other classes of the source, whose labels transfer uses.
    other_classes: train.Classes = (0, 1, 2, 3, 4)
    # Source of unlabeled images for self-taught learning; 'others' takes the other classes.
    unlabeled: str = 'others'
    # Size of the patches.
    patch_size: train.AtLeast1 = 4
    # Distance in pixels between patches.
    stride: train.AtLeast1 = 1
    # Features are pooled over a grid of this many by as many cells.
    pooling_grid: train.AtLeast1 = 3
    # Number of filters of every kind of feature.
    num_filters: train.AtLeast1 = 64
    # Weight of the L1 penalty on codes of whitened patches.
    l1_penalty: train.Positive = 0.3
    # Fraction of the mean variance that is added to every variance before whitening.
    zca_epsilon: train.NonNegative = 0.1
    # Standard deviation, of pixels in [0, 1], below which a patch counts as flat.
    contrast_epsilon: train.Positive = 0.1
    # Learning rate of the layer that transfer trains.
    learning_rate: train.Positive = 1e-2
    # Number of unlabeled patches of the task's images, and as many of the other ones.
    num_patches: train.AtLeast1 = 20_000
    # Images per class from which labels are drawn, or selected by active learning.
    candidates_per_class: train.AtLeast1 = 100
    # Number of test images; 0 takes all.
    num_eval: train.AtLeast0 = 0
    # Numbers of labels per class, increasing; averages where an oracle is queried.
    labels_per_class: train.Ints = (1, 2, 5, 10, 20)
    # Number of training sets drawn for every number of labels.
    num_trials: train.AtLeast1 = 20

    def __post_init__(self):
        super().__post_init__()
        disjoint = not set(self.classes) & set(self.other_classes)
        train.require(self, 'other_classes', disjoint, f'classes other than {self.classes}')
        labels = self.labels_per_class
        is_increasing = labels == tuple(sorted(set(labels)))
        train.require(self, 'labels_per_class', is_increasing, 'increasing numbers')
        fits = max(labels) <= self.candidates_per_class
        limit = f'at most --candidates_per_class {self.candidates_per_class}'
        train.require(self, 'labels_per_class', fits, limit)


METRICS = (
    train.Metric(
        'self_taught_accuracy', 'fraction', 'higher', 'self-taught accuracy', primary=True
    ),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('objective', '', 'lower', 'objective per signal'),
    train.Metric('transfer_loss', 'nats', 'lower', 'cross-entropy of transfer'),
    train.Metric('transfer_accuracy', 'fraction', 'higher', 'training accuracy of transfer'),
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
    load = functools.partial(images.load, config.source, seed=config.seed, **config.data_kwargs())
    task = load(classes=config.classes, candidates_per_class=config.candidates_per_class)
    keep = np.random.default_rng(config.seed).permutation(len(task.test_labels))
    keep = keep[: config.num_eval or None]
    task = task._replace(test_images=task.test_images[keep], test_labels=task.test_labels[keep])
    others, size = load(classes=config.other_classes), task.train_images.shape[1]
    unlabeled = others.train_images
    if config.unlabeled != 'others':
        options = {'image_size': size, 'seed': config.seed, **config.data_kwargs()}
        unlabeled = images.load_signals(config.unlabeled, 20_000, **options)
        unlabeled = unlabeled.reshape(-1, size, size, 1)
    label_efficiency.sample_training_sets(
        config.seed, task.train_labels, max(config.labels_per_class), 1
    )  # refuses a class with too few examples
    patches.grid((size, size), config.patch_size, config.stride)  # refuses what does not fit
    arrays, whitening = {'images': others.train_images, 'labels': others.train_labels}, {}
    for name, x in (('task', task.train_images), ('elsewhere', unlabeled)):
        raw = crops.sample_patches(x, config.num_patches, config.patch_size, config.seed)
        normalized = patches.normalize_contrast(jnp.asarray(raw), config.contrast_epsilon)
        whitening[name] = linalg.zca(normalized, config.zca_epsilon)
        arrays[name] = np.asarray(linalg.apply(whitening[name], normalized))

    def batch(n):
        return {
            name: batches.indices(config.seed + i, n, len(arrays[name]), config.batch_size)
            for i, name in enumerate(('task', 'elsewhere', 'images'))
        }

    def prepare(arrays, rows, key):
        del key
        transfer = {name: arrays[name][rows['images']] for name in ('images', 'labels')}
        signals = {name: arrays[name][rows[name]] for name in ('task', 'elsewhere')}
        return signals | {'transfer': transfer}

    spec = train.Spec(task.train_images.shape[1:], task.class_names, {'whitening': whitening})
    report_data = {'task': task, 'unlabeled': unlabeled, 'others': others}
    return train.Data(batch, arrays, prepare, spec=spec, report_data=report_data)


def build(config, spec):
    patch_dim, n_features = config.patch_size**2, config.pooling_grid**2 * 2 * config.num_filters

    def init_filters(key, batch):
        del batch
        n_classes = len(config.other_classes)
        return filters.init(key, patch_dim, config.num_filters, n_features, n_classes)

    def loss(params, batch, key):
        del key
        return filters.loss(params, batch['images'], batch['labels'], **form(config))

    transfer = train.optimize(init_filters, loss, optax.adam(config.learning_rate))
    learn = functools.partial(online.step, penalty_weight=config.l1_penalty)

    def init(key, batch):
        keys = jax.random.split(key, 3)
        return {
            'task': online.init(keys[0], batch['task'], config.num_filters),
            'elsewhere': online.init(keys[1], batch['elsewhere'], config.num_filters),
            'transfer': transfer.init(keys[2], batch['transfer']),
        }

    def step(state, batch, key, reduce):
        keys = dict(zip(('task', 'elsewhere', 'transfer'), jax.random.split(key, 3), strict=True))
        new, metrics = {}, {}
        for name in ('task', 'elsewhere'):
            new[name], own = learn(state[name], batch[name], keys[name], reduce=reduce)
            metrics[f'objective/{name}'] = own['objective']
        own_key = keys['transfer']
        new['transfer'], own = transfer.step(state['transfer'], batch['transfer'], own_key, reduce)
        metrics |= {f'transfer_{name}': own[name] for name in ('loss', 'accuracy')}
        return new, metrics

    return train.Task(init, step)


def form(config):
    """What features of all kinds share."""
    return {
        'patch_size': config.patch_size,
        'stride': config.stride,
        'contrast_epsilon': config.contrast_epsilon,
        'pooling_grid': config.pooling_grid,
        'tile': 64,
    }


def features(config, spec, state, x):
    """{setting: features [n, p]} of images of the task."""

    def sparse_codes(D):
        return functools.partial(solvers.approximate, D=D, penalty_weight=config.l1_penalty)

    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    random = jax.random.normal(key, (config.patch_size**2, config.num_filters))
    plain, whitening = filters.no_whitening(config.patch_size**2), spec.constants['whitening']
    methods = {
        'random filters': (lambda x: x @ random, plain),
        'semi-supervised': (sparse_codes(state['task'].atoms), whitening['task']),
        'transfer': (filters.encoder(state['transfer'].params), plain),
        'self-taught': (sparse_codes(state['elsewhere'].atoms), whitening['elsewhere']),
    }
    x = jnp.asarray(x)
    result = {'supervised': x.reshape(len(x), -1)}
    for name, (encoder, affine) in methods.items():
        run = functools.partial(
            self_taught.encode_images, encoder=encoder, whitening=affine, **form(config)
        )
        result[name] = jax.jit(run)(x)
    return result


def apply(config, spec):
    return {'features': lambda state, x: features(config, spec, state, x)['self-taught']}


def accuracies(config, state, data):
    """{setting: accuracy [numbers of labels, trials]}; active learning selects by pixels.

    By pixels, so that what it adds to the supervised setting is the selection alone.
    """
    task = data.report_data['task']
    train_features = features(config, data.spec, state, task.train_images)
    test_features = features(config, data.spec, state, task.test_images)
    options = {'labels_per_class': config.labels_per_class, 'num_trials': config.num_trials}

    def curve(label_curve, name):
        pool = (train_features[name], task.train_labels)
        return label_curve(config.seed, *pool, test_features[name], task.test_labels, **options)

    result = {name: curve(label_efficiency.label_curve, name) for name in train_features}
    active = curve(active_learning.label_curves, 'supervised')
    return result | {f'active: {rule}': values for rule, values in active.items()}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    task, values = data.report_data['task'], accuracies(config, state, data)
    caption = (
        f'{config.num_trials} trials. {config.source}, classes {", ".join(task.class_names)}; '
        f'{len(task.test_labels)} test images. The same linear SVM for all, C by cross-validation on '
        'the labeled examples alone.'
    )
    records = [
        {'setting': name, 'labels_per_class': n, 'accuracy': draws}
        for name, row in values.items()
        for n, draws in zip(config.labels_per_class, row, strict=True)
    ]
    chance, shape = 1 / len(task.class_names), (config.patch_size, config.patch_size)
    figures = {
        'accuracy': train.Figure(
            curves.label_curve(values, config.labels_per_class, chance=chance),
            'Test accuracy against labels per class, mean and standard error.',
        ),
        'map': train.Figure(
            chart(config, data.report_data, values),
            'The data that each setting uses. A question mark: the label is hidden.',
        ),
    }
    for name in ('task', 'elsewhere'):
        back = linalg.pseudo_inverse(data.spec.constants['whitening'][name]).T
        order = np.argsort(-np.asarray(state[name].usage))
        figures[f'atoms_{name}'] = train.Figure(
            drawn.atoms(np.asarray(back @ state[name].atoms), shape, order=order, width=4.0),
            f'Atoms from unlabeled patches, {name}: most used first.',
        )
    figures['filters_transfer'] = train.Figure(
        drawn.atoms(np.asarray(state['transfer'].params['filters']), shape, width=4.0),
        'Filters that classify the other classes.',
    )
    index = ('setting',)
    table = train.Table(
        'Accuracy against labels', records, index, caption=caption, pivot='labels_per_class'
    )
    primary = {'self_taught_accuracy': float(values['self-taught'][-1].mean())}
    return train.Report(primary, (table,), figures)


def chart(config, loaded, values):
    """The map: settings by the data they use, with the accuracies they reach."""
    from lecture4.figures import label_efficiency as drawn

    task, others, elsewhere = loaded['task'], loaded['others'], loaded['unlabeled']
    rng = np.random.default_rng(config.seed)
    few = [rng.choice(np.flatnonzero(task.train_labels == c)) for c in range(len(task.class_names))]
    n_each = f'{min(config.labels_per_class)} to {max(config.labels_per_class)} per class'
    labeled = drawn.select(task.train_images, few, task.class_names, n_each)
    unlabeled = drawn.evenly_spaced(task.train_images)
    transfer = drawn.evenly_spaced(
        others.train_images, [others.class_names[c] for c in others.train_labels]
    )
    oracle = 'queries an oracle,\none label per class first'
    uses = {
        'semi-supervised': (unlabeled, None, None, 'random'),
        'transfer': (None, transfer, None, 'random'),
        'self-taught': (None, None, drawn.evenly_spaced(elsewhere), 'random'),
        'active: least certain': (unlabeled, None, None, oracle),
        'active: most diverse': (unlabeled, None, None, oracle),
    }
    reached = {
        name: ' / '.join(f'{100 * row.mean():.1f}' for row in (draws[0], draws[-1]))
        for name, draws in values.items()
    }
    first, last = config.labels_per_class[0], config.labels_per_class[-1]
    columns = ['the task, labeled', 'the task, unlabeled', 'other classes, labeled']
    columns += ['other images, unlabeled', 'how labels are chosen']
    columns.append(f'accuracy (%) with\n{first} / {last} labels per class')
    nothing = (None, None, None, 'random')
    rows = {name: [labeled, *uses.get(name, nothing), reached[name]] for name in values}
    return drawn.data_table(rows, columns)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
