"""Self-taught learning: bases from unlabelled pictures make better features for a labelled task.

Raina, Battle, Lee, Packer & Ng, ICML 2007. A dictionary is learned from unlabelled pictures of
anything; labelled pictures of something else are described by their sparse codes, and a linear
SVM learns from few of them. Raw pixels and principal components of the same unlabelled data get
the same pooling, the same SVM and the same cross-validation on the labelled training set alone.

The preset cifar10 does it with dense coloured patches, pooled over quadrants, first as Coates & Ng
(2011) encode them, by one thresholded product; --encoder sparse is Raina's. Beside few labels it
learns from all 50,000, standardised, and reports test accuracy.

Run     python -m experiments.sparse_coding.self_taught
        python -m experiments.sparse_coding.self_taught --preset cifar10 --manual_dir PATH
Cost    Under a minute on 2 cores, compilation included. Test accuracy with 1, 2, 5, 20 labels a class: sparse
        codes 94.2, 98.2, 99.7, 99.9 %; principal components 86.6, 92.2, 96.3, 98.8; pixels 40.8, 44.7, 49.9, 55.0.
        digits: whole-picture codes do not beat raw pixels (79.0 against 87.3 with 5 labels a class).
        handwriting: 4.5 CPU-minutes. 100, 500, 1000 labels: pixels 73.8, 85.0, 87.3 %; principal components
        74.8, 85.6, 87.6; codes 53.1, 74.3, 79.9; pixels and codes together 69.5, 83.3, 86.0.
        cifar10: 12 CPU-minutes on one core. Test accuracy with all labels: 74.32 %; the same with
        principal components 61.48, with pixels 38.44. k-means with 1600 filters has
        77.9 (as published, recalled).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.classifiers import newton
from lecture4.data import images as image_data
from lecture4.features import atoms, label_curve, self_taught
from lecture4.ops import linalg, patches
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import online


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
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
    # Keep the colours of pictures (in patches only).
    colour: bool = False
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
    # Describe patches by sparse codes, or by one product with the atoms, thresholded.
    encoder: Literal['sparse', 'threshold'] = 'sparse'
    # The threshold of that.
    threshold: float = 0.5
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
    # Pictures a class of the pool that training sets of few labels are drawn from.
    drawn_from: int = 500
    # Learn from the whole pool too, with one SVM on standardised features of this penalty C; 0: no.
    whole: float = 0.0
    # Labels a class that the classifier gets to see.
    labels: tuple[int, ...] = (1, 2, 5, 20)
    # Training sets drawn for every number of labels.
    draws: int = 30

    def __post_init__(self):
        super().__post_init__()
        for name in ('atoms', 'stride', 'regions', 'draws', 'pool', 'drawn_from'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        train.require(self, 'weight', 0 < self.weight < np.inf, 'above 0, and finite')
        for name in ('regulariser', 'floor', 'threshold', 'whole'):
            train.require(self, name, 0 <= getattr(self, name) < np.inf, 'at least 0, and finite')
        for name in ('crop', 'patch'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        fits = self.patch > 0 or (not self.colour and self.encoder == 'sparse')
        train.require(self, 'patch', fits, 'at least 1 for colours or thresholds')
        train.require(self, 'signals', self.signals >= 10, 'at least 10')
        train.require(
            self, 'labels', min(self.labels, default=0) >= 1, 'one or more numbers, each >= 1'
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
    # Contrast and whitening as in Coates, Lee & Ng 2011: their 10 is of variances of 0..255.
    'cifar10': {
        'unlabelled': 'cifar10',
        'labelled': 'cifar10',
        'colour': True,
        'crop': 0,
        'patch': 6,
        'stride': 1,
        'regions': 2,
        'atoms': 400,
        'encoder': 'threshold',
        'weight': 1.0,
        'regulariser': 0.1,
        'floor': 10**0.5 / 255,
        'signals': 400_000,
        'steps': 600,
        'pool': 5000,
        'labels': (1, 10),
        'draws': 10,
        'whole': 0.01,
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
    places = config.data_kwargs()
    labelled = image_data.load(
        config.labelled,
        classes=config.labelled_classes,
        crop_size=config.crop,
        candidates_per_class=0 if config.crop else config.pool,
        seed=config.seed,
        pixels='float' if config.colour else 'gray',
        **places,
    )
    if len(labelled.class_names) < 2:
        raise ValueError(
            f'{config.labelled} has one class; a labelled set needs two classes or more'
        )
    fewest = int(np.bincount(labelled.train_labels, minlength=len(labelled.class_names)).min())
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
    found = image_data.load_signals(
        config.unlabelled,
        config.signals,
        patch_size=config.patch,
        image_size=width,
        seed=config.seed,
        classes=config.unlabelled_classes,
        grayscale=not config.colour,
        **places,
    )
    signals = patches.normalize_contrast(jnp.asarray(found), config.floor)
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
        return online.init(key, signals, config.atoms)

    def step(state, signals, key, *, axis_name=None):
        return online.step(state, signals, key, weight=config.weight, axis_name=axis_name)

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
    if config.encoder == 'threshold':
        code = self_taught.threshold_encoder(state.atoms, config.threshold)
    identity = lambda x: x  # noqa: E731
    if not config.patch:
        signals = self_taught.preprocess(raw, config.floor, whitening)
        codes = jax.jit(code)(signals)
        principal = self_taught.preprocess(raw, config.floor, components)
        both = self_taught.with_raw(codes, raw)
        found = {'raw pixels': raw, 'PCA': principal, 'sparse codes': codes, 'raw + codes': both}
    else:
        dense = jax.jit(
            self_taught.encode_images,
            static_argnames=('encoder', 'size', 'stride', 'regions', 'tile'),
        )
        shared = {
            'size': config.patch,
            'stride': config.stride,
            'floor': config.floor,
            'regions': config.regions,
            'tile': 4 if config.encoder == 'threshold' else 16,
        }
        images = jnp.asarray(images)
        found = {
            'raw pixels': raw,
            'PCA': dense(images, identity, whitening=components, **shared),
            'sparse codes': dense(images, code, whitening=whitening, **shared),
        }
    return {name: np.asarray(value) for name, value in found.items()}


def few_of_each(labels, n):
    """Rows of the first n examples of every class."""
    return np.concatenate([np.flatnonzero(labels == c)[:n] for c in np.unique(labels)])


def whole(config, learned, tested, labelled):
    """Test accuracy of one linear SVM on the whole pool."""
    learned, tested = self_taught.standardise(jnp.asarray(learned), jnp.asarray(tested))
    fit = newton.fit(
        learned, labelled.train_labels, n_classes=len(labelled.class_names), C=config.whole
    )
    return float((np.asarray(newton.predict(fit, tested)) == labelled.test_labels).mean())


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    labelled = data.extra['labelled']
    learned, tested = (
        features(config, state, data.extra, images)
        for images in (labelled.train_images, labelled.test_images)
    )
    few = few_of_each(labelled.train_labels, config.drawn_from)
    accuracy = {
        name: label_curve.label_curve(
            config.seed,
            learned[name][few],
            labelled.train_labels[few],
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
    n_classes = len(labelled.class_names)
    caption = (
        f'Test accuracy in %, mean and standard error over {config.draws} draws of the labelled '
        f'set. Unlabelled: {config.unlabelled}; labelled: {config.labelled}, {n_classes} classes, '
        f'{len(labelled.test_labels)} test pictures. Linear SVM, C by cross-validation on the labelled set.'
    )
    columns = ('features', *(f'{n} labels a class' for n in config.labels))
    tables = (train.Table('Accuracy against labels', columns, rows, caption),)
    metrics = {
        f'accuracy_{name.replace(" ", "_")}_{n}': float(value)
        for name in mean
        for n, value in zip(config.labels, mean[name], strict=True)
    }
    if config.whole:
        reached = {name: whole(config, learned[name], tested[name], labelled) for name in learned}
        metrics |= {f'accuracy_{n.replace(" ", "_")}_whole': v for n, v in reached.items()}
        rows = tuple((name, f'{100 * value:.2f}') for name, value in reached.items())
        n_train, n_test = len(labelled.train_labels), len(labelled.test_labels)
        caption_whole = (
            f'Linear SVM on {n_train} pictures, C = {config.whole}; {n_test} test pictures.'
        )
        tables += (train.Table('Accuracy of all labels', ('features', '%'), rows, caption_whole),)
    signals = data.evaluation
    found = encode(config, state, signals)
    back = linalg.pseudo_inverse(data.extra['whitening']).T  # seen as pictures, not as whitened signals
    side = config.patch or labelled.train_images.shape[1]
    order = atoms.display_order(np.asarray(state.atoms), np.asarray(state.usage))
    rising = np.argsort(np.sum(signals**2, axis=1))  # four of rising contrast, none of them flat
    some = rising[(len(rising) * np.array([0.4, 0.6, 0.8, 0.95])).astype(int)]
    shape = (side, side, signals.shape[1] // side**2)
    return train.Report(
        metrics=metrics,
        tables=tables,
        pictures={
            'accuracy': train.Picture(
                curves.labelled_accuracy(accuracy, config.labels, chance=1 / n_classes), caption
            ),
            'dictionary': train.Picture(
                drawn.atoms(np.asarray(back @ state.atoms), shape, order=order),
                f'The {config.atoms} atoms learned from {config.unlabelled}, most used first.',
            ),
            'codes': train.Picture(
                drawn.codes(
                    np.asarray(signals[some] @ back.T),
                    np.asarray(found.codes)[some],
                    np.asarray(back @ state.atoms),
                    np.asarray((found.codes @ state.atoms.T)[some] @ back.T),
                    shape,
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
