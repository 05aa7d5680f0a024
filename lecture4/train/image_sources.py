"""Options shared by experiments on images, and the data they describe."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lecture4.data import images
from lecture4.ops import linalg, patches
from lecture4.train.fields import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Evaluation,
    FractionBelow1,
    Ints,
    NonNegative,
)
from lecture4.train.image_options import ImageOptions
from lecture4.train.metrics import Metric
from lecture4.train.task import Data, Spec, in_memory

# Metrics of dictionary learners and their evaluation.
DICTIONARY_METRICS = (
    Metric('objective', better='lower', label='objective per signal'),
    Metric('reconstruction', better='lower', label='squared error / 2 per signal'),
    Metric('density', 'fraction', '', 'non-zero coefficients'),
    Metric('dead', 'count', 'lower', 'unused atoms'),
    Metric('replaced', 'count', '', 'replaced atoms'),
)


@dataclasses.dataclass(frozen=True)
class PatchFeatures(ImageOptions):
    """Features of dense patches, pooled, and the labeled sets that a classifier learns from."""

    # Height and width to which labeled images are cropped and resized; 0 keeps their size.
    image_size: AtLeast0 = 0
    # Fraction of the labeled training images to test on in place of their test split.
    held_out: FractionBelow1 = 0.0
    # Number of labeled images per class to load, where they are not crops.
    candidates_per_class: AtLeast1 = 500
    # Size of the patches to encode; 0 encodes whole images.
    patch_size: AtLeast0 = 8
    # Distance in pixels between the patches of a labeled image.
    stride: AtLeast1 = 2
    # Number of rows and columns of the grid of cells over which features are pooled.
    pooling_grid: AtLeast1 = 1
    # Fraction of the mean variance that is added to every variance before whitening.
    zca_epsilon: NonNegative = 0.1
    # Standard deviation (of pixels in [0, 1]) below which a patch counts as flat.
    contrast_epsilon: NonNegative = 0.04
    # Numbers of labels per class.
    labels_per_class: Evaluation[Ints] = (1, 2, 5, 20)
    # Number of training sets sampled for each number of labels.
    num_trials: Evaluation[AtLeast1] = 30

    def patch_options(self) -> dict[str, Any]:
        """Patches and pooling, as lecture4.features.self_taught.encode_images takes them."""
        names = ('patch_size', 'stride', 'contrast_epsilon', 'pooling_grid')
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class SelfTaught(PatchFeatures):
    """Unlabeled images to learn features from, labeled images to test them on."""

    # Source of unlabeled images: photos, textures, digits, mnist, omniglot, cifar10, dir:, npz:.
    unlabeled: str = 'photos'
    # Source of labeled images.
    labeled: str = 'textures'
    # Classes of the unlabeled set to use; by default all.
    unlabeled_classes: tuple[AtLeast0, ...] = ()
    # Classes of the labeled set to use; by default all.
    labeled_classes: tuple[AtLeast0, ...] = ()
    # Keep the colors of images (in patches only).
    color: bool = False
    # Size of the crops that are the labeled examples, training and test ones from the two halves of
    # each image; 0 takes whole images and their own split.
    crop_size: AtLeast0 = 32
    # Height and width to which labeled images are cropped and resized, with --crop_size 0; 0 keeps their size.
    image_size: AtLeast0 = 0
    # Fraction of the labeled training images to test on in place of their test split, with --crop_size 0.
    held_out: FractionBelow1 = 0.0
    # Number of unlabeled signals; a tenth of them is held out for evaluation.
    num_signals: AtLeast2 = 40_000


class SelfTaughtData(NamedTuple):
    """The sets that `load_self_taught` returns.

    Attributes:
      task: The labeled images.
      signals: Unlabeled signals [n, d], contrast-normalized and whitened.
      held_out: Held-out signals, a tenth as many, preprocessed in the same way.
      whitening: The affine map of the whitening.
      components: The affine map to principal components of the same signals.
      raw_signals: `signals` before contrast normalization and whitening, pixels in [0, 1].
    """

    task: images.ImageTask
    signals: np.ndarray
    held_out: np.ndarray
    whitening: linalg.Affine
    components: linalg.Affine
    raw_signals: np.ndarray


def check_label_counts(task: images.ImageTask, labels_per_class: Sequence[int], source: str):
    """Raise a ValueError where a class has fewer training examples than --labels_per_class."""
    fewest = int(np.bincount(task.train_labels, minlength=len(task.class_names)).min())
    if max(labels_per_class) > fewest:
        raise ValueError(
            f'--labels_per_class {max(labels_per_class)}, but {source} has a class of {fewest} training '
            f'examples; use at most {fewest}'
        )


def load_self_taught(
    config: SelfTaught, num_components: int, *, min_std: float = 0.0
) -> SelfTaughtData:
    """Labeled images, and unlabeled signals prepared for a dictionary.

    Args:
      config: Config that says what to load.
      num_components: Largest number of principal components to keep.
      min_std: Unlabeled signals with a standard deviation at or below this are left out, such as blank paper among
        images of strokes.

    Raises:
      ValueError: The sources, the patch size and the numbers of labels do not fit one another.
    """
    task = images.load(
        config.labeled,
        classes=config.labeled_classes,
        crop_size=config.crop_size,
        image_size=config.image_size,
        held_out=config.held_out,
        candidates_per_class=0 if config.crop_size else config.candidates_per_class,
        seed=config.seed,
        pixels='float' if config.color else 'gray',
        **config.data_kwargs(),
    )
    if len(task.class_names) < 2:
        raise ValueError(f'{config.labeled} has one class; a labeled set needs two or more')
    check_label_counts(task, config.labels_per_class, config.labeled)
    _, height, width, _ = task.train_images.shape
    if config.patch_size > min(height, width) or (not config.patch_size and height != width):
        raise ValueError(
            f'--patch_size {config.patch_size} does not fit images of {height} x {width}; use 1 to '
            f'{min(height, width)}, or 0 where they are square'
        )
    if config.color and not config.patch_size:
        raise ValueError('--patch_size is 0; expected at least 1 with colors')
    signals = images.load_signals(
        config.unlabeled,
        config.num_signals,
        patch_size=config.patch_size,
        image_size=width,
        seed=config.seed,
        classes=config.unlabeled_classes,
        grayscale=not config.color,
        **config.data_kwargs(),
    )
    if min_std:
        signals = signals[signals.std(1) > min_std]
    normalized = patches.normalize_contrast(jnp.asarray(signals), config.contrast_epsilon)
    num_held_out = max(len(signals) // 10, 1)
    whitening = linalg.zca(normalized[num_held_out:], config.zca_epsilon)
    num_components = min(num_components, signals.shape[1] - 1)
    components, _ = linalg.pca(normalized[num_held_out:], num_components)
    whitened = np.asarray(linalg.apply(whitening, normalized))
    return SelfTaughtData(
        task=task,
        signals=whitened[num_held_out:],
        held_out=whitened[:num_held_out],
        whitening=whitening,
        components=components,
        raw_signals=signals[num_held_out:],
    )


def self_taught_data(
    config: SelfTaught,
    num_components: int,
    batch_size: int,
    *,
    min_std: float = 0.0,
    num_eval: int = 0,
) -> Data:
    """The sets of `load_self_taught` as data of a training run.

    Args:
      config: As in `load_self_taught`.
      num_components: As in `load_self_taught`.
      batch_size: Signals per batch.
      min_std: As in `load_self_taught`.
      num_eval: Number of random test images to keep; 0 keeps all, in their order.

    Returns:
      Data: batches of whitened signals; `evaluation` the held-out signals; the spec's constants
      `whitening`, `unwhitening` (its pseudo-inverse, a matrix), `components`, and `signal_shape`, height,
      width and channels of a signal; `report_data` the labeled images; `rows` the raw signals.

    Raises:
      ValueError: As in `load_self_taught`.
    """
    loaded = load_self_taught(config, num_components, min_std=min_std)
    task = loaded.task
    if num_eval:
        rows = np.random.default_rng(config.seed).permutation(len(task.test_labels))[:num_eval]
        task = task._replace(test_images=task.test_images[rows], test_labels=task.test_labels[rows])
    _, height, width, channels = task.train_images.shape
    constants = {
        'whitening': loaded.whitening,
        'unwhitening': np.asarray(linalg.pseudo_inverse(loaded.whitening)),
        'components': loaded.components,
        'signal_shape': (config.patch_size or height, config.patch_size or width, channels),
    }
    data = in_memory(
        loaded.signals,
        batch_size,
        seed=config.seed,
        evaluation=loaded.held_out,
        spec=Spec(loaded.signals.shape[1:], task.class_names, constants),
        report_data=task,
    )
    return dataclasses.replace(data, rows=loaded.raw_signals)
