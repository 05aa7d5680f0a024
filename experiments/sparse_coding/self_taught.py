"""Self-taught learning: bases from unlabelled pictures make better features for a labelled task.

Raina, Battle, Lee, Packer & Ng, ICML 2007. A dictionary is learned from unlabelled pictures of
anything; labelled pictures of something else are described by their sparse codes, and a linear
SVM learns from few of them. Raw pixels and principal components of the same unlabelled data get
the same pooling, the same SVM and the same cross-validation on the labelled training set alone.

Run     python -m experiments.sparse_coding.self_taught
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.classifiers import validation
from lecture4.data import pictures
from lecture4.ops import linalg, patches
from lecture4.sparse import atoms, dictionary, selftaught, solvers


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    # Steps of dictionary learning.
    steps: int = 300
    # Unlabelled signals in a step, over all devices.
    batch_size: int = 512
    # Where unlabelled pictures come from: photos, textures, digits, mnist, omniglot, dir:, npz:.
    unlabelled: str = 'photos'
    # Where labelled pictures come from.
    labelled: str = 'textures'
    # Classes of the unlabelled set that are used; none given: all.
    unlabelled_classes: tuple[int, ...] = ()
    # Classes of the labelled set that are used; none given: all.
    labelled_classes: tuple[int, ...] = ()
    # Side of the crops that stand for labelled examples, train and test from the two halves of each
    # picture; 0 takes the pictures as they are, with their own split.
    crop: int = 32
    # Side of the patches that are coded; 0 codes whole pictures.
    patch: int = 8
    # Pixels between the patches of a labelled picture.
    stride: int = 2
    # Features are pooled over this many by as many regions of a picture.
    regions: int = 1
    # Atoms of the dictionary.
    atoms: int = 192
    # Weight of the L1 penalty; signals are whitened, so their coordinates have variance near 1.
    weight: float = 0.5
    # Share of the mean variance that is added to every direction's before whitening.
    regulariser: float = 0.1
    # Standard deviation, of pixels in [0, 1], below which a patch counts as flat.
    floor: float = 0.04
    # Unlabelled signals that are drawn; a tenth of them is held out to evaluate on.
    signals: int = 40_000
    # Labelled examples a class to draw the training sets from, where the pictures are not crops.
    pool: int = 500
    # Labels a class that the classifier gets to see.
    labels: tuple[int, ...] = (1, 2, 5, 20)
    # Training sets drawn for every number of labels.
    draws: int = 30

    def __post_init__(self):
        super().__post_init__()
        for name in ('atoms', 'stride', 'regions', 'draws', 'pool'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('weight', 'regulariser', 'floor'):
            train.require(self, name, 0 <= getattr(self, name) < np.inf, 'at least 0, and finite')
        for name in ('crop', 'patch'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        train.require(self, 'signals', self.signals >= 10, 'at least 10')
        train.require(
            self, 'labels', self.labels and min(self.labels) >= 1, 'one or more numbers, each >= 1'
        )


PRESETS = {
    'smoke': {
        'steps': 4,
        'signals': 600,
        'atoms': 16,
        'batch_size': 64,
        'labels': (2,),
        'draws': 2,
    },
    'handwriting': {
        'unlabelled': 'omniglot',
        'labelled': 'mnist',
        'crop': 0,
        'patch': 0,
        'atoms': 512,
        'steps': 400,
        'signals': 19_280,
        'labels': (10, 50, 100),
        'draws': 20,
    },
    'digits': {
        'unlabelled': 'digits',
        'labelled': 'digits',
        'unlabelled_classes': (0, 1, 2, 3, 4),
        'labelled_classes': (5, 6, 7, 8, 9),
        'crop': 0,
        'patch': 0,
        'signals': 10_000,
        'labels': (1, 2, 5, 20),
    },
}
SWEEPS = {
    'weight': train.grid(weight=(0.25, 0.5, 1.0, 1.5), seed=(0, 1, 2)),
    'atoms': train.grid(atoms=(32, 64, 128, 256), seed=(0, 1, 2)),
}


def data(config):
    places = config.places()
    labelled = pictures.labelled(
        config.labelled,
        classes=config.labelled_classes,
        crop=config.crop,
        pool=config.pool,
        seed=config.seed,
        **places,
    )
    if len(labelled.names) < 2:
        raise ValueError(f'{config.labelled} has one class; a labelled set needs two classes or more')
    fewest = int(np.bincount(labelled.train_labels, minlength=len(labelled.names)).min())
    if max(config.labels) > fewest:
        raise ValueError(
            f'--labels {max(config.labels)}, but {config.labelled} has a class of {fewest} training '
            f'examples; use at most {fewest}'
        )
    _, height, width, _ = labelled.train_images.shape
    if config.patch > min(height, width) or (not config.patch and height != width):
        raise ValueError(
            f'--patch {config.patch} does not fit pictures of {height} x {width}; use 1 to '
            f'{min(height, width)}, or 0 where they are square'
        )
    found = pictures.signals(
        config.unlabelled,
        config.signals,
        patch=config.patch,
        side=width,
        seed=config.seed,
        classes=config.unlabelled_classes,
        **places,
    )
    signals = patches.normalise_contrast(jnp.asarray(found), config.floor)
    n_held_out = max(len(signals) // 10, 1)
    whitening = linalg.zca(signals[n_held_out:], config.regulariser)
    components, _ = linalg.pca(signals[n_held_out:], min(config.atoms, signals.shape[1] - 1))
    signals = np.asarray(linalg.apply(whitening, signals))
    return train.in_memory(
        signals[n_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:n_held_out],
        extra={'labelled': labelled, 'whitening': whitening, 'components': components},
    )


def build(config):
    def init(key, signals):
        return dictionary.init(key, signals, config.atoms)

    def step(state, signals, key, *, axis_name=None):
        return dictionary.step(state, signals, key, weight=config.weight, axis_name=axis_name)

    def evaluate(state, signals):
        found = encode(config, state, signals)
        return {
            'objective': found.objective.mean(),
            'density': jnp.mean(found.codes != 0, dtype=found.codes.dtype),
        }

    return train.Task(init, step, evaluate)


def encode(config, state, signals):
    return solvers.admm(signals, state.atoms, config.weight, tolerance=1e-3, tile=128)


def features(config, state, extra, images):
    """{name: features [n, p]} of labelled pictures: raw pixels, principal components, codes."""
    whitening, components = extra['whitening'], extra['components']
    raw = jnp.asarray(images).reshape(len(images), -1)
    code = lambda x: encode(config, state, x).codes  # noqa: E731
    identity = lambda x: x  # noqa: E731
    if not config.patch:
        signals = selftaught.preprocess(raw, config.floor, whitening)
        codes = jax.jit(code)(signals)
        principal = selftaught.preprocess(raw, config.floor, components)
        both = selftaught.with_raw(codes, raw)
        found = {'raw pixels': raw, 'PCA': principal, 'sparse codes': codes, 'raw + codes': both}
    else:
        dense = jax.jit(
            selftaught.encode_images,
            static_argnames=('encoder', 'size', 'stride', 'regions'),
        )
        shared = {
            'size': config.patch,
            'stride': config.stride,
            'floor': config.floor,
            'regions': config.regions,
        }
        images = jnp.asarray(images)
        found = {
            'raw pixels': raw,
            'PCA': dense(images, identity, whitening=components, **shared),
            'sparse codes': dense(images, code, whitening=whitening, **shared),
        }
    return {name: np.asarray(value) for name, value in found.items()}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    labelled = data.extra['labelled']
    learned, tested = (
        features(config, state, data.extra, images)
        for images in (labelled.train_images, labelled.test_images)
    )
    accuracy = {
        name: validation.label_curve(
            config.seed,
            learned[name],
            labelled.train_labels,
            tested[name],
            labelled.test_labels,
            labels_per_class=config.labels,
            n_draws=config.draws,
        )
        for name in learned
    }
    mean = {name: values.mean(1) for name, values in accuracy.items()}
    rows = tuple(
        (name, *(train.mean_and_error(100 * draws) for draws in values))
        for name, values in accuracy.items()
    )
    n_classes = len(labelled.names)
    caption = (
        f'Test accuracy in %, mean and standard error over {config.draws} draws of the labelled '
        f'set. Unlabelled: {config.unlabelled}; labelled: {config.labelled}, {n_classes} classes, '
        f'{len(labelled.test_labels)} test pictures. Linear SVM, C by cross-validation on the labelled set.'
    )
    columns = ('features', *(f'{n} labels a class' for n in config.labels))
    signals = data.evaluation
    found = encode(config, state, signals)
    back = linalg.inverse(data.extra['whitening']).T  # seen as pictures, not as whitened signals
    side = config.patch or labelled.train_images.shape[1]
    order = atoms.display_order(np.asarray(state.atoms), np.asarray(state.usage))
    few = np.linspace(0, len(signals) - 1, 4).astype(int)
    return train.Report(
        metrics={
            f'accuracy_{name.replace(" ", "_")}_{n}': float(value)
            for name in mean
            for n, value in zip(config.labels, mean[name], strict=True)
        },
        tables=(train.Table('Accuracy against labels', columns, rows, caption),),
        pictures={
            'accuracy': train.Picture(
                curves.labelled_accuracy(accuracy, config.labels, chance=1 / n_classes), caption
            ),
            'dictionary': train.Picture(
                drawn.atoms(np.asarray(back @ state.atoms), (side, side), order=order),
                f'The {config.atoms} atoms learned from {config.unlabelled}, most used first.',
            ),
            'codes': train.Picture(
                drawn.codes(
                    np.asarray(signals[few] @ back.T),
                    np.asarray(found.codes)[few],
                    np.asarray(back @ state.atoms),
                    np.asarray((found.codes @ state.atoms.T)[few] @ back.T),
                    (side, side),
                ),
                'Held-out signals as sums of few atoms.',
            ),
            'usage': train.Picture(
                curves.usage(np.asarray(state.usage)),
                f'Share of signals that use each atom; {int(atoms.dead(state.usage).sum())} of '
                f'{config.atoms} are dead.',
            ),
        },
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
