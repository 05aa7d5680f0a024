"""Unlabeled images to learn features from, and labeled ones on which single neurons are tested as detectors."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lecture4.data.images import crops, distort, distorted, whiten

Labeled = tuple[Float[np.ndarray, 'n size size c'], np.ndarray]


class DetectorSets(NamedTuple):
    """Images of mean 0 and variance 1, each whitened image on its own, distorted images over the training set.

    Attributes:
      unlabeled: Images [n, wide, wide, c]; those of `size` in their corner are learned from, and the rest is for
        shifts.
      train: Labeled images [m, size, size, c] and their classes [m], to choose neurons and thresholds on.
      test: Labeled images and their classes, to test on.
      class_names: Names of the classes.
    """

    unlabeled: Float[np.ndarray, 'n wide wide c']
    train: Labeled
    test: Labeled
    class_names: tuple[str, ...]


def load(
    source: str,
    labeled: str,
    distortion: distort.Distortion,
    size: int,
    wide: int,
    *,
    num_images: int,
    num_labeled: int,
    is_white: bool = False,
    cutoff: float = 0.39,
    margin: int = 4,
    seed: int = 0,
    **options: Any,
) -> DetectorSets:
    """Crops of natural images and of labeled ones; or distorted objects, with and without their labels.

    Args:
      source: Source of unlabeled images, as in `load_images`, or of objects, as in `distorted.load`.
      labeled: Source of labeled images.
      distortion: 'none' for crops; or of objects, as in `distorted.load`.
      size: Height and width of the images.
      wide: Height and width of the unlabeled images.
      num_images: Number of unlabeled images.
      num_labeled: Largest number of distorted labeled images for training, and for testing.
      is_white: Whether the unlabeled images are whitened already.
      cutoff: As in `whiten.whiten`.
      margin: Border in pixels that whitening distorts, since it treats images as periodic.
      seed: Seed of crops and distortions.
      **options: Options of `load_images`.

    Raises:
      DataError: As in `load_images`, `distorted.load` and `crops`.
      ValueError: The labeled source has no classes, or distorted images have another size.
    """
    if distortion != 'none':
        options |= {'num_images': num_images, 'num_labeled': num_labeled, 'seed': seed}
        return distorted_objects(source, distortion, size, wide, **options)
    options |= {'cutoff': cutoff, 'margin': margin}
    images = whiten.load_whitened(source, is_white=is_white, **options).images
    x = crops.sample_patches(images, num_images, wide, seed)
    images, labels, names = whiten.load_whitened(labeled, **options)
    if labels is None or len(names) < 2:
        raise ValueError(f'--labeled {labeled} has no classes; name a labeled set')
    halves = crops.labeled_crops_of_halves(images, labels, size, max(size // 4, 1))
    return DetectorSets(x.reshape(-1, wide, wide, 1), *halves, tuple(names))


def distorted_objects(
    source: str,
    distortion: distort.Distortion,
    size: int,
    wide: int,
    *,
    num_images: int,
    num_labeled: int,
    seed: int = 0,
    **options: Any,
) -> DetectorSets:
    """Objects distorted once at random, such as digits at random positions, with and without their labels.

    Args:
      source: Source of labeled images, as in `distorted.load`.
      distortion: As in `distorted.load`.
      size: Expected height and width of the distorted images.
      wide: Height and width to which the unlabeled images are padded by their borders.
      num_images: Number of unlabeled images; they are among the training images.
      num_labeled: Largest number of labeled images for training, and for testing.
      seed: Seed of the distortions.
      **options: Options of `images.load`.

    Raises:
      DataError: As in `images.load`.
      ValueError: As in `distorted.load`, or the distorted images have another size.
    """
    num = {'num_train': max(num_images, num_labeled), 'num_test': num_labeled}
    task = distorted.load(source, distortion, **num, seed=seed, **options)
    if task.shape[0] != size:
        raise ValueError(
            f'images of {source} distorted by {distortion} are {task.shape[0]} x {task.shape[0]}, got '
            f'size {size}; use --crop_size {task.shape[0]}'
        )
    x = crops.to_floats(task.arrays['x'])
    # One mean and std of all images: with its own ones, the background of an image would tell how much ink it has.
    mean, std = x.mean(), x.std()
    x = (x - mean) / std
    is_kept = task.evaluation['mask'].astype(bool)
    test = (task.evaluation['images'][is_kept] - mean) / std
    margin = [(0, 0), (0, wide - size), (0, wide - size), (0, 0)]
    return DetectorSets(
        np.pad(x[:num_images], margin, 'edge'),
        (x[:num_labeled], task.arrays['labels'][:num_labeled]),
        (test, task.evaluation['labels'][is_kept]),
        task.class_names,
    )
