"""Images as vectors of pixels, as fully connected networks take them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped

from lecture4.data.dataset import DataError
from lecture4.data.images.loading import load_images
from lecture4.data.images.task import load, shuffled_splits
from lecture4.data.images.unlabeled import load_signals
from lecture4.ops.losses import check_unit_interval


class Vectors(NamedTuple):
    """Training and test images as vectors.

    Attributes:
      train: [n, d], float32.
      train_labels: [n]; empty where there are none.
      test: [m, d].
      test_labels: [m]; empty where there are none.
      class_names: One per class.
      image_shape: (height, width, channels) of the images, with product d.
    """

    train: Float32[np.ndarray, 'n d']
    train_labels: Int[np.ndarray, '_']
    test: Float32[np.ndarray, 'm d']
    test_labels: Int[np.ndarray, '_']
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]


def load_splits(source: str, *, in_unit_interval: bool = False, **data_kwargs: Any) -> Vectors:
    """The training and test images of a source, which may have no labels, in their order.

    Args:
      source: As in `load_images`.
      in_unit_interval: Whether pixels outside [0, 1] are refused, as a Bernoulli decoder needs.
      **data_kwargs: Options of `load_images`.

    Raises:
      DataError: As in `load_images`, or images of several sizes.
      ValueError: Pixels outside [0, 1].
    """
    x, labels, class_names, shape = [], [], (), ()
    for split in ('train', 'test'):
        part = load_images(source, split, **data_kwargs)
        if isinstance(part.images, tuple):
            raise DataError(f'{source} has images of several sizes; crop them to one')
        name, class_names, shape = f'{source}, split {split},', part.class_names, part.images.shape
        x.append(flatten(name, part.images, in_unit_interval=in_unit_interval))
        labels.append(np.zeros(0, np.int32) if part.labels is None else part.labels)
    return Vectors(x[0], labels[0], x[1], labels[1], class_names, shape[1:])


def load_labeled(source: str, *, in_unit_interval: bool = True, **options: Any) -> Vectors:
    """The training and test images of a labeled source, training images grouped by class.

    Args:
      source: As in `load`.
      in_unit_interval: Whether pixels outside [0, 1] are refused, as a Bernoulli decoder needs.
      **options: Options of `load`.

    Raises:
      DataError: As in `load`.
      ValueError: Pixels outside [0, 1].
    """
    task = load(source, **options)
    x, test = (
        flatten(source, images, in_unit_interval=in_unit_interval)
        for images in (task.train_images, task.test_images)
    )
    shape = task.train_images.shape[1:]
    return Vectors(x, task.train_labels, test, task.test_labels, task.class_names, shape)


def load_shuffled(
    source: str, sizes: Mapping[str, int], *, seed: int = 0, **data_kwargs: Any
) -> tuple[
    dict[str, tuple[Float32[np.ndarray, '_n d'], Int[np.ndarray, ' _n']]],
    tuple[str, ...],
    tuple[int, ...],
]:
    """All images of a labeled source, shuffled and split again; pixels have to lie in [0, 1].

    Args:
      source: As in `load`.
      sizes: Name of a part -> number of images.
      seed: Seed of the shuffle.
      **data_kwargs: Options of `load`.

    Returns:
      ({name: (images as vectors, labels)}, class names, (height, width)).

    Raises:
      DataError: As in `load`, or the sizes exceed the number of images.
      ValueError: Pixels outside [0, 1].
    """
    task = load(source, seed=seed, **data_kwargs)
    parts = shuffled_splits(task, tuple(sizes.values()), seed)
    splits = {
        name: (flatten(source, images), labels)
        for name, (images, labels) in zip(sizes, parts, strict=True)
    }
    return splits, task.class_names, task.train_images.shape[1:3]


def load_unlabeled_like(
    images: Shaped[np.ndarray, 'n h w 1'], source: str, num_signals: int, **options: Any
) -> Float32[np.ndarray, '_n d']:
    """Unlabeled images of a source as vectors, resized to the size of others; pixels lie in [0, 1].

    Args:
      images: The others, square.
      source: As in `load_signals`.
      num_signals: At most how many.
      **options: Options of `load_signals`.

    Raises:
      DataError: As in `load_signals`, or images that are not square.
      ValueError: Pixels outside [0, 1].
    """
    height, width = images.shape[1:3]
    if height != width:
        raise DataError(
            f'labeled images are {height} x {width}, expected squares; crop or pad them'
        )
    x = load_signals(source, num_signals, image_size=width, **options)
    return np.asarray(check_unit_interval(x, source))


def flatten(
    name: str, images: Shaped[np.ndarray, 'n h w c'], *, in_unit_interval: bool = True
) -> Float32[np.ndarray, 'n d']:
    """Images as vectors.

    Args:
      name: What error messages call them.
      images: Float images.
      in_unit_interval: Whether pixels outside [0, 1] are refused.

    Raises:
      ValueError: Pixels outside [0, 1].
    """
    x = images.reshape(len(images), -1)
    return np.asarray(check_unit_interval(x, name)) if in_unit_interval else x
