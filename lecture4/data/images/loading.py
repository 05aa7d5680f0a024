"""Float images of a source, all or those of some classes."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lecture4.data import sources
from lecture4.data.dataset import DataError, Dataset
from lecture4.data.images import crops
from lecture4.data.images.squares import resize_to_square, square


def load_images(
    source: str,
    split: str = 'train',
    *,
    classes: Sequence[int] = (),
    grayscale: bool = True,
    image_size: int = 0,
    **data_kwargs: Any,
) -> Dataset:
    """Images, labels and class names of a source, as float32.

    Args:
      source: As in `sources.load`.
      split: As in `sources.load`.
      classes: Indices of the classes to keep, renumbered 0, 1, ... in ascending order; () keeps all.
      grayscale: Whether color images are converted to one channel.
      image_size: Height and width to bring images to, see `resize_to_square`; 0 keeps them as they are.
      **data_kwargs: data_dir, manual_dir and download, as in `sources.load`.

    Returns:
      Images as `crops.to_float` scales them, [n, h, w, c] or a tuple of [h, w, c].

    Raises:
      DataError: As in `sources.load`, or the source does not have one of the classes.
    """
    if image_size:
        data_kwargs['transform'] = functools.partial(square, image_size=image_size)
    dataset = select_classes(source, sources.load(source, split, **data_kwargs), classes)
    if image_size:
        dataset = dataset._replace(images=resize_to_square(source, dataset.images, image_size))
    convert = crops.to_grayscale if grayscale else crops.to_floats
    return dataset._replace(images=convert(dataset.images))


def select_classes(name: str, dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """The images of some classes, renumbered 0, 1, ... in ascending order; () keeps all.

    Raises:
      DataError: The data set does not have one of the classes; the message begins with `name`.
    """
    if not classes:
        return dataset
    images, labels, class_names = dataset
    if labels is None or not set(classes) <= set(range(len(class_names))):
        raise DataError(
            f'{name} has {len(class_names)} classes, numbered from 0; it does not have all of '
            f'{tuple(classes)}'
        )
    rows = np.flatnonzero(np.isin(labels, classes))
    chosen = sorted(set(classes))
    images = images[rows] if isinstance(images, np.ndarray) else tuple(images[i] for i in rows)
    labels = np.searchsorted(chosen, labels[rows]).astype(np.int32)
    return Dataset(images, labels, tuple(class_names[c] for c in chosen))
