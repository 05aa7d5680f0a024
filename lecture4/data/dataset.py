"""The data set that every image source returns: images, their labels and the names of the classes."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

MAX_CLASSES = 2**20  # larger labels are identifiers, not class indices

# Images of one size in one array [n, h, w, c], or of several sizes as [h, w, c] each.
Images = Shaped[np.ndarray, '_n _h _w _c'] | Sequence[Shaped[np.ndarray, '_h _w _c']]


class DataError(ValueError):
    """A data set is missing, damaged, misnamed or of the wrong form. The message has the fix."""


class SplitError(DataError):
    """A data set has no split of this name."""


class Dataset(NamedTuple):
    """Labeled or unlabeled images in memory.

    Attributes:
      images: uint8 or float32 [n, h, w, c], or a tuple of [h, w, c] arrays if the sizes differ;
        c is 1 or 3 and the same for all.
      labels: int32 [n], values in 0..len(class_names) - 1; None for an unlabeled set.
      class_names: One name per class; () for an unlabeled set.
    """

    images: Shaped[np.ndarray, 'n h w c'] | tuple[np.ndarray, ...]
    labels: Int32[np.ndarray, ' n'] | None = None
    class_names: tuple[str, ...] = ()


def validate(
    name: str, images: Any, labels: Any = None, class_names: Iterable[Any] | None = None
) -> Dataset:
    """Check arrays, and return them as a `Dataset`.

    Args:
      name: Prefix of error messages, such as 'npz:digits.npz'.
      images: [n, h, w], [n, h, w, c], or a sequence of [h, w] or [h, w, c]; uint8, or floating
        (converted to float32) and finite. A grayscale image of a set that also has color images
        gets three equal channels.
      labels: Integers >= 0, [n] or [n, 1]; None for an unlabeled set.
      class_names: Names of the classes; None stands for '0', '1', ...

    Returns:
        The data set, see `Dataset`.

    Raises:
      DataError: The shape or dtype is wrong, the set is empty, images contain NaN or infinity (the message has the
        index of the image), or a label is missing, negative or without a name.
    """
    if isinstance(images, np.ndarray) and images.dtype != object:
        images = _validate_images(name, images)
    else:
        images = _stack(
            name,
            [
                _validate_images(f'{name}, image {i}', np.asarray(image)[None])[0]
                for i, image in enumerate(images)
            ],
        )
    n = len(images)
    if not n:
        raise DataError(f'{name} has no images; name a set that has some')
    if labels is None:
        return Dataset(images)
    return Dataset(images, *_validate_labels(name, n, np.asarray(labels), class_names))


def readable_name(name: str) -> str:
    """Make a class name comparable and printable.

    Composed and decomposed accents (Unicode NFC and NFD) are unified; characters that are not Unicode, such as bytes
    of a file name that are not UTF-8, are escaped.
    """
    return unicodedata.normalize('NFC', name.encode('utf-8', 'backslashreplace').decode('utf-8'))


def sort_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in alphabetical order, or by value if all are integers: 2 before 10."""
    names = sorted(names)
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return tuple(names)


def _validate_images(name, images):
    if images.ndim == 3:
        images = images[..., None]
    shape = tuple(images.shape[1:])
    if images.ndim == 4 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        raise DataError(
            f'{name}: images have shape {shape}, channels first; store the channels last, '
            '[n, height, width, channels]'
        )
    if images.ndim != 4 or shape[-1] not in (1, 3) or 0 in shape:
        raise DataError(
            f'{name}: expected images of shape [height, width] or [height, width, channels] with 1 '
            f'or 3 channels, got {shape}; reshape or transpose them'
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f'{name}: expected images of dtype uint8 (0..255) or floating, got {images.dtype}; '
            'convert them'
        )
    finite = np.isfinite(images).all((1, 2, 3))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DataError(
            f'{name}: {bad.size} of {len(images)} images contain NaN or infinity, the first at '
            f'index {bad[0]}; remove or correct them'
        )
    with np.errstate(over='ignore'):
        converted = images.astype(np.float32)
    if not np.isfinite(converted).all():
        raise DataError(f'{name}: images have values beyond the range of float32; rescale them')
    return converted


def _stack(name, images):
    if len({image.dtype for image in images}) > 1:
        raise DataError(f'{name}: some images are uint8 and some float; convert them to one dtype')
    if len({image.shape[-1] for image in images}) > 1:
        images = [np.repeat(x, 3, -1) if x.shape[-1] == 1 else x for x in images]
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    return tuple(images)


def _validate_labels(name, n, labels, class_names):
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f'{name}: expected one integer label per image, got shape {tuple(labels.shape)} and '
            f'dtype {labels.dtype}; store class numbers in place of one-hot rows'
        )
    if len(labels) != n:
        raise DataError(
            f'{name}: expected one label per image, got {n} images, {len(labels)} labels'
        )
    low, high = int(labels.min()), int(labels.max())
    if class_names is None:
        class_names = range(min(high + 1, MAX_CLASSES))
    class_names = tuple(readable_name(str(class_name)) for class_name in class_names)
    if low < 0 or high >= len(class_names):
        raise DataError(
            f'{name}: expected labels from 0 to {len(class_names) - 1}, got {low} to {high}; number '
            'the classes from 0, with one name per class if names are given'
        )
    return labels.astype(np.int32), class_names
