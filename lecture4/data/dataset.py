"""What every source hands on: pictures, their labels and the names of the classes."""

from typing import NamedTuple

import numpy as np

MOST_CLASSES = 2**20  # a label beyond it is no class number


class DataError(ValueError):
    """A data set is missing, damaged, misnamed or of the wrong form. The message says the mend."""


class Dataset(NamedTuple):
    """A set of labelled or unlabelled pictures in memory.

    images  uint8 or float32 [n, h, w, c], or a tuple of [h, w, c] arrays where the sizes differ;
            c is 1 or 3 and the same for all.
    labels  int32 [n], values in 0..len(names)-1; None for an unlabelled set.
    names   the classes' names; () for an unlabelled set.
    """

    images: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()


def checked(where: str, images, labels=None, names=None) -> Dataset:
    """A Dataset in the form that the class states, or a DataError that begins with `where`.

    Shapes  images [n, h, w], [n, h, w, c], or a sequence of [h, w] or [h, w, c]. A grey picture in
            a set that has coloured ones gets three equal channels. labels [n] or [n, 1].
    Domain  images uint8 or floating (made float32), finite; labels whole numbers >= 0.
            names None stands for '0', '1', ...
    Errors  DataError: another shape or dtype, an empty set, NaN or infinity (with the index of the
            picture), a label that is missing, negative or without a name.
    """
    if isinstance(images, np.ndarray) and images.dtype != object:
        images = _checked_images(where, images)
    else:
        pictures = [
            _checked_images(f'{where}, picture {i}', np.asarray(picture)[None])[0]
            for i, picture in enumerate(images)
        ]
        images = _gathered(where, pictures)
    n = len(images)
    if not n:
        raise DataError(f'{where} holds no picture; name a set that has some')
    if labels is None:
        return Dataset(images)
    return Dataset(images, *_checked_labels(where, n, np.asarray(labels), names))


def _checked_images(where, images):
    if images.ndim == 3:
        images = images[..., None]
    shape = tuple(images.shape[1:])
    if images.ndim == 4 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        raise DataError(
            f'{where}: images have shape {shape}, channels first; move them last: '
            'images.transpose(0, 2, 3, 1)'
        )
    if images.ndim != 4 or shape[-1] not in (1, 3) or 0 in shape:
        raise DataError(
            f'{where}: images have shape {shape}, wanted [height, width] or '
            '[height, width, channels] with 1 or 3 channels; reshape or transpose them'
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f'{where}: images have dtype {images.dtype}, wanted uint8 (0..255) or a float type; '
            'convert them'
        )
    finite = np.isfinite(images).all((1, 2, 3))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DataError(
            f'{where}: {bad.size} of {len(images)} images hold NaN or infinity, the first is '
            f'number {bad[0]} (from 0); remove or mend them'
        )
    with np.errstate(over='ignore'):
        converted = images.astype(np.float32)
    if not np.isfinite(converted).all():
        raise DataError(f'{where}: images hold values beyond float32; rescale them')
    return converted


def _gathered(where, pictures):
    if len({picture.dtype for picture in pictures}) > 1:
        raise DataError(f'{where}: some pictures are uint8 and some float; make them all one type')
    if len({picture.shape[-1] for picture in pictures}) > 1:
        pictures = [np.repeat(p, 3, -1) if p.shape[-1] == 1 else p for p in pictures]
    if len({picture.shape for picture in pictures}) == 1:
        return np.stack(pictures)
    return tuple(pictures)


def _checked_labels(where, n, labels, names):
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f'{where}: labels have shape {tuple(labels.shape)} and dtype {labels.dtype}, wanted '
            'one whole number an image; turn one-hot rows into numbers with argmax'
        )
    if len(labels) != n:
        raise DataError(f'{where}: {n} images and {len(labels)} labels; there must be one for each')
    low, high = int(labels.min()), int(labels.max())
    if names is None:
        names = range(min(high + 1, MOST_CLASSES))
    if low < 0 or high >= len(names):
        raise DataError(
            f'{where}: labels run from {low} to {high}, wanted 0 to {len(names) - 1}; number the '
            'classes from 0, with a name for each if there are names'
        )
    return labels.astype(np.int32), tuple(str(name) for name in names)
