"""The lecture's map of learning: what each setting may look at, and what it makes of few labels.

A task of some classes with few labels, and besides them, by setting: nothing (supervised), unlabelled
examples of the task (semi-supervised), labelled examples of other classes (transfer), unlabelled
pictures of something else (self-taught), or an oracle that labels what it is asked for (active). The
classifier is the same everywhere: a linear SVM, C by cross-validation on the few labels. Where other
data may be seen it goes into features of one form, dense patches through a layer of filters,
rectified and pooled: filters that code unlabelled patches sparsely, or that tell other classes
apart. Random filters are the control. Raina et al. (2007) name the settings.

Run     python -m experiments.sparse_coding.learning_settings
        python -m experiments.sparse_coding.learning_settings --preset mnist --manual_dir PATH
Cost    85 CPU-seconds on one core as it stands, on digits. Result: with 20 labels a class 92.8 %
        supervised, 94.4 with random filters, 94.8 semi-supervised, 95.1 transfer and self-taught,
        95.7 and 94.9 active; with one label no other data beats pixels (72.1 %).
        mnist, 5 to 9 told apart, 3 CPU-minutes: with 1, 5, 20, 50 labels a class 51.7, 75.0, 86.2, 89.2 % supervised,
        54.2, 79.5, 90.7, 93.9 with random filters, 50.7, 76.6, 89.8, 93.5 semi-supervised, 59.2, 84.6, 93.1, 95.3
        transfer, 51.2, 77.0, 89.4, 93.6 self-taught; active 51.7, 72.4, 86.9, 90.3 by uncertainty, 51.7, 82.2,
        88.7, 90.2 by diversity. Filters learned from unlabelled strokes are no better than random ones.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.features import active_learning, filters, label_efficiency, self_taught
from lecture4.ops import linalg, patches
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import online


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of learning features.
    steps: int = 300
    # Patches (and pictures of other classes) in a step, over all devices.
    batch_size: int = 256
    # The labelled pictures: digits, mnist, or another source with splits train and test.
    source: str = 'digits'
    # Classes of the task.
    classes: tuple[int, ...] = (5, 6, 7, 8, 9)
    # Other classes of the source: with labels for transfer.
    others: tuple[int, ...] = (0, 1, 2, 3, 4)
    # Unlabelled pictures for self-taught learning; 'others' takes those classes without labels.
    elsewhere: str = 'others'
    # Side of the patches.
    patch: int = 4
    # Pixels between patches.
    stride: int = 1
    # Features are pooled over this many by as many regions of a picture.
    regions: int = 3
    # Filters of every kind of feature.
    atoms: int = 64
    # Weight of the L1 penalty on codes of whitened patches.
    weight: float = 0.3
    # Share of the mean variance that is added to every direction's before whitening.
    regulariser: float = 0.1
    # Standard deviation, of pixels in [0, 1], below which a patch counts as flat.
    floor: float = 0.1
    # Learning rate of the layer that transfer learns.
    learning_rate: float = 1e-2
    # Unlabelled patches that are drawn from the task's pictures, and as many from elsewhere.
    signals: int = 20_000
    # Pictures a class in the pool that labels are drawn from, or the oracle is asked about.
    pool: int = 100
    # Test pictures that accuracy is measured on; 0 takes all.
    n_tested: int = 0
    # Labels a class, on average where an oracle is asked.
    labels: tuple[int, ...] = (1, 2, 5, 10, 20)
    # Training sets drawn for every number of labels; each is the start of one round of queries.
    draws: int = 20

    def __post_init__(self):
        super().__post_init__()
        for name in ('patch', 'stride', 'regions', 'atoms', 'pool', 'draws'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('weight', 'floor', 'learning_rate'):
            train.require(self, name, 0 < getattr(self, name) < np.inf, 'above 0, and finite')
        train.require(self, 'classes', len(set(self.classes)) >= 2, 'two classes or more')
        train.require(self, 'others', len(set(self.others)) >= 2, 'two classes or more')
        apart = not set(self.classes) & set(self.others)
        train.require(self, 'others', apart, f'other classes than the task has: {self.classes}')
        rising = self.labels == tuple(sorted(set(self.labels))) and min(self.labels) >= 1
        train.require(self, 'labels', rising, 'rising numbers, each at least 1')
        fits = max(self.labels) <= self.pool
        train.require(self, 'labels', fits, f'at most the pool of {self.pool}')


PRESETS = {
    'smoke': {
        'steps': 3,
        'signals': 500,
        'batch_size': 32,
        'atoms': 8,
        'pool': 10,
        'labels': (2,),
        'draws': 2,
    },
    'mnist': {
        'source': 'mnist',
        'patch': 7,
        'stride': 3,
        'regions': 4,
        'atoms': 128,
        'signals': 100_000,
        'steps': 400,
        'pool': 400,
        'n_tested': 3000,
        'labels': (1, 2, 5, 10, 20, 50),
    },
}
PRESETS['omniglot'] = PRESETS['mnist'] | {'elsewhere': 'omniglot'}
SWEEPS = {'weight': train.grid(weight=(0.1, 0.3, 1.0)), 'atoms': train.grid(atoms=(32, 64, 128))}


class State(NamedTuple):
    """What is learned from other data: two dictionaries and a layer with its classifier on top."""

    task: online.State
    elsewhere: online.State
    transfer: Any  # the optimiser's state, params in it


def data(config):
    places = config.data_kwargs()
    task = image_data.load(
        config.source,
        classes=config.classes,
        candidates_per_class=config.pool,
        seed=config.seed,
        **places,
    )
    keep = np.random.default_rng(config.seed).permutation(len(task.test_labels))
    keep = keep[: config.n_tested or None]
    task = task._replace(test_images=task.test_images[keep], test_labels=task.test_labels[keep])
    others = image_data.load(config.source, classes=config.others, seed=config.seed, **places)
    side = task.train_images.shape[1]
    if config.elsewhere == 'others':
        unlabelled = others.train_images
    else:
        flat = image_data.load_signals(
            config.elsewhere, 20_000, image_size=side, seed=config.seed, **places
        )
        unlabelled = flat.reshape(-1, side, side, 1)
    fewest = np.bincount(task.train_labels).min()
    if max(config.labels) > fewest:
        raise ValueError(
            f'--labels {max(config.labels)}, but {config.source} has a class of {fewest} '
            f'examples; use at most {fewest}'
        )
    patches.grid((side, side), config.patch, config.stride)  # refuses what does not fit
    resident, whitening = {'images': others.train_images, 'labels': others.train_labels}, {}
    for name, images in (('task', task.train_images), ('elsewhere', unlabelled)):
        found = crops.sample_patches(images, config.signals, config.patch, config.seed)
        found = patches.normalize_contrast(jnp.asarray(found), config.floor)
        whitening[name] = linalg.zca(found, config.regulariser)
        resident[name] = np.asarray(linalg.apply(whitening[name], found))

    def batch(n):
        return {
            name: batches.indices(config.seed + i, n, len(resident[name]), config.batch_size)
            for i, name in enumerate(('task', 'elsewhere', 'images'))
        }

    def prepare(resident, rows, key):
        del key
        found = {name: resident[name][rows[name]] for name in rows}
        return found | {'labels': resident['labels'][rows['images']]}

    extra = {'task': task, 'whitening': whitening, 'unlabelled': unlabelled, 'others': others}
    return train.Data(batch, resident, prepare, extra=extra)


def build(config):
    size, n_features = config.patch**2, config.regions**2 * 2 * config.atoms

    def init_transfer(key, batch):
        del batch
        return filters.init(key, size, config.atoms, n_features, len(config.others))

    def loss(params, batch, key):
        del key
        return filters.loss(params, batch['images'], batch['labels'], **form(config))

    transfer = train.optimise(init_transfer, loss, optax.adam(config.learning_rate))

    def init(key, batch):
        keys = jax.random.split(key, 3)
        return State(
            online.init(keys[0], batch['task'], config.atoms),
            online.init(keys[1], batch['elsewhere'], config.atoms),
            transfer.init(keys[2], batch),
        )

    def step(state, batch, key, *, axis_name=None):
        keys = jax.random.split(key, 3)
        shared = {'weight': config.weight, 'axis_name': axis_name}
        task, one = online.step(state.task, batch['task'], keys[0], **shared)
        elsewhere, two = online.step(state.elsewhere, batch['elsewhere'], keys[1], **shared)
        third, metrics = transfer.step(state.transfer, batch, keys[2], axis_name=axis_name)
        kept = {'task_objective': one['objective'], 'elsewhere_objective': two['objective']}
        kept |= {'transfer_loss': metrics['loss'], 'transfer_accuracy': metrics['accuracy']}
        return State(task, elsewhere, third), kept

    return train.Task(init, step)


def form(config):
    """What features of all kinds share."""
    return {
        'patch_size': config.patch, 'stride': config.stride, 'contrast_epsilon': config.floor,
        'pooling_grid': config.regions, 'tile': 64,
    }  # fmt: skip


def features(config, state, whitening, images):
    """{setting: features [n, p]} of pictures of the task."""
    code = lambda D: functools.partial(solvers.approximate, D=D, weight=config.weight)  # noqa: E731
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    drawn = jax.random.normal(key, (config.patch**2, config.atoms))
    plain = filters.no_whitening(config.patch**2)
    arms = {
        'random filters': (lambda x: x @ drawn, plain),
        'semi-supervised': (code(state.task.atoms), whitening['task']),
        'transfer': (filters.encoder(state.transfer.params), plain),
        'self-taught': (code(state.elsewhere.atoms), whitening['elsewhere']),
    }
    images = jnp.asarray(images)
    found = {'supervised': images.reshape(len(images), -1)}
    for name, (encoder, affine) in arms.items():
        run = functools.partial(
            self_taught.encode_images, encoder=encoder, whitening=affine, **form(config)
        )
        found[name] = jax.jit(run)(images)
    return found


def accuracy(config, state, data):
    """{setting: accuracy [numbers of labels, draws]}; an oracle is asked about pixels.

    Pixels, so that what active learning adds to the supervised setting is the choice alone.
    """
    task, whitening = data.extra['task'], data.extra['whitening']
    pool = features(config, state, whitening, task.train_images)
    test = features(config, state, whitening, task.test_images)
    options = {
        'labels_per_class': config.labels, 'num_trials': config.draws,
    }  # fmt: skip

    def curve(label_curve, name):
        train, evaluated = (pool[name], task.train_labels), (test[name], task.test_labels)
        return label_curve(config.seed, *train, *evaluated, **options)

    found = {name: curve(label_efficiency.label_curve, name) for name in pool}
    asked = curve(active_learning.label_curves, 'supervised')
    return found | {f'active: {rule}': values for rule, values in asked.items()}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    task, whitening = data.extra['task'], data.extra['whitening']
    values = accuracy(config, state, data)
    n_draws, n_classes = config.draws, len(task.class_names)
    caption = (
        f'Test accuracy in %, mean and standard error over {n_draws} draws. {config.source}, classes '
        f'{", ".join(task.class_names)}; {len(task.test_labels)} test pictures. The same linear SVM for '
        'all, C by cross-validation on the labelled examples alone.'
    )
    rows = tuple(
        (name, *(train.mean_and_error(100 * draws) for draws in row))
        for name, row in values.items()
    )
    columns = ('setting', *(f'{n} labels a class' for n in config.labels))
    pictures_of = {
        'accuracy': train.Picture(
            curves.labelled_accuracy(values, config.labels, chance=1 / n_classes), caption
        ),
        'map': train.Picture(
            chart(config, data.extra, values),
            'What each setting may look at. A question mark: the label is hidden from the learner.',
        ),
    }
    side = (config.patch, config.patch)
    for name, learned in (('task', state.task), ('elsewhere', state.elsewhere)):
        D = np.asarray(linalg.pseudo_inverse(whitening[name]).T @ learned.atoms)
        order = np.argsort(-np.asarray(learned.usage))
        pictures_of[f'atoms_{name}'] = train.Picture(
            drawn.atoms(D, side, order=order, width=4.0),
            f'Atoms from unlabelled patches, {name}: most used first.',
        )
    pictures_of['filters_transfer'] = train.Picture(
        drawn.atoms(np.asarray(state.transfer.params['filters']), side, width=4.0),
        'Filters that tell the other classes apart.',
    )
    metrics = {
        f'accuracy_{name.replace(":", "").replace(" ", "_")}_{n}': float(draws.mean())
        for name, row in values.items()
        for n, draws in zip(config.labels, row, strict=True)
    }
    tables = (train.Table('Accuracy against labels', columns, rows, caption),)
    return train.Report(metrics, tables, pictures_of)


def chart(config, extra, values):
    """The map: settings by the data they may look at, with what they reach."""
    from lecture4.figures import label_efficiency as shown

    task, others, pool = extra['task'], extra['others'], extra['unlabelled']
    rng = np.random.default_rng(config.seed)
    few = [rng.choice(np.flatnonzero(task.train_labels == c)) for c in range(len(task.class_names))]
    n_each = f'{min(config.labels)} to {max(config.labels)} a class'
    labelled = shown.examples(task.train_images, few, task.class_names, n_each)
    unlabelled = shown.spread(task.train_images)
    transfer = shown.spread(
        others.train_images, [others.class_names[c] for c in others.train_labels]
    )
    asks = 'asks an oracle,\none label a class first'
    sees = {
        'semi-supervised': (unlabelled, None, None, 'chance'),
        'transfer': (None, transfer, None, 'chance'),
        'self-taught': (None, None, shown.spread(pool), 'chance'),
        'active: least certain': (unlabelled, None, None, asks),
        'active: most diverse': (unlabelled, None, None, asks),
    }
    reached = {
        name: ' / '.join(f'{100 * row.mean():.1f}' for row in (draws[0], draws[-1]))
        for name, draws in values.items()
    }
    columns = [
        'the task, labelled', 'the task, unlabelled', 'other classes, labelled',
        'something else, unlabelled', 'who chooses the labels',
        f'% right with\n{config.labels[0]} / {config.labels[-1]} labels a class',
    ]  # fmt: skip
    nothing = (None, None, None, 'chance')
    return shown.allowed(
        {name: [labelled, *sees.get(name, nothing), reached[name]] for name in values}, columns
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
