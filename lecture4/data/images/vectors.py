"""Images as vectors of pixels, for fully connected networks."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped

from lecture4.data import splits
from lecture4.data.dataset import DataError, SplitError
from lecture4.data.images import crops
from lecture4.data.images.loading import load_images
from lecture4.data.images.task import NO_TEST_SPLIT, load, one_size, shuffled_splits
from lecture4.data.images.unlabeled import load_signals
from lecture4.ops.losses import check_unit_interval


class Vectors(NamedTuple):
    """Training and test images as vectors.

    Attributes:
      train: Training images [n, d], float32.
      train_labels: [n]; empty if there are no labels.
      test: Test images [m, d].
      test_labels: [m]; empty if there are no labels.
      class_names: Names of the classes.
      image_shape: (height, width, channels) of the images, with product d.
    """

    train: Float32[np.ndarray, 'n d']
    train_labels: Int[np.ndarray, '_']
    test: Float32[np.ndarray, 'm d']
    test_labels: Int[np.ndarray, '_']
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]


def load_splits(
    source: str,
    *,
    in_unit_interval: bool = False,
    image_size: int = 0,
    crop_size: int = 0,
    held_out: float = 0.0,
    seed: int = 0,
    **data_kwargs: Any,
) -> Vectors:
    """The training and test images of a source, which may have no labels, in their order.

    Args:
      source: As in `load_images`.
      in_unit_interval: Whether to refuse pixels outside [0, 1], as needed for a Bernoulli decoder.
      image_size: As in `load_images`.
      crop_size: Above 0, examples are crops of that size at every half crop, training ones from the left half of
        each training image, test ones from the right.
      held_out: Above 0, a random fraction of the training images takes the place of the test split.
      seed: Seed of the random choice.
      **data_kwargs: Options of `load_images`.

    Raises:
      DataError: As in `load_images`, images of several sizes, or options that exclude one another.
      ValueError: Pixels lie outside [0, 1].
    """
    if crop_size and (image_size or held_out):
        raise DataError(f'{source}: --crop_size excludes --image_size and --held_out')
    read = functools.partial(load_images, source, image_size=image_size, **data_kwargs)
    train = read('train')
    labels = np.zeros(len(train.images), np.int32) if train.labels is None else train.labels
    if crop_size:
        stride = max(crop_size // 2, 1)
        parts = crops.labeled_crops_of_halves(train.images, labels, crop_size, stride)
    elif held_out:
        images = one_size(source, train.images)
        rows = splits.hold_out(np.arange(len(images)), held_out, seed)
        parts = [(images[part], labels[part]) for part in rows]
    else:
        try:
            test = read('test')
        except SplitError as error:
            raise DataError(f'{error}; {NO_TEST_SPLIT}') from None
        parts = [(train.images, labels), (test.images, test.labels)]
    x, y = [], []
    for split, (images, split_labels) in zip(('train', 'test'), parts, strict=True):
        images = one_size(source, images)
        x.append(flatten(f'{source}, split {split},', images, in_unit_interval=in_unit_interval))
        y.append(
            np.zeros(0, np.int32) if split_labels is None or train.labels is None else split_labels
        )
    return Vectors(
        x[0], y[0], x[1], y[1], train.class_names, one_size(source, parts[0][0]).shape[1:]
    )


def load_labeled(source: str, *, in_unit_interval: bool = True, **options: Any) -> Vectors:
    """The training and test images of a labeled source, training images grouped by class.

    Args:
      source: As in `load`.
      in_unit_interval: Whether to refuse pixels outside [0, 1], as needed for a Bernoulli decoder.
      **options: Options of `load`.

    Raises:
      DataError: As in `load`.
      ValueError: Pixels lie outside [0, 1].
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
      ValueError: Pixels lie outside [0, 1].
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
      images: The other images, square.
      source: As in `load_signals`.
      num_signals: Largest number of images.
      **options: Options of `load_signals`.

    Raises:
      DataError: As in `load_signals`, or the images are not square.
      ValueError: Pixels lie outside [0, 1].
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
      name: Name of the images in error messages.
      images: Float images.
      in_unit_interval: Whether to refuse pixels outside [0, 1].

    Raises:
      ValueError: Pixels lie outside [0, 1].
    """
    x = images.reshape(len(images), -1)
    return np.asarray(check_unit_interval(x, name)) if in_unit_interval else x
