"""Labelled pictures of any sizes as squares of one size, in memory: what a network is trained on."""

import functools
from typing import NamedTuple

import numpy as np

from lecture4.data import crops, folds, sources
from lecture4.data.dataset import DataError, Dataset
from lecture4.ops import resize


class Squares(NamedTuple):
    """A labelled task. Images uint8, or float32 on [0, 1], [n, side, side, c]; labels int32 [n]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    names: tuple[str, ...]


def load(
    source: str,
    side: int = 0,
    *,
    cut: bool = False,
    test_split: str = 'test',
    held_out: float = 0.0,
    seed: int = 0,
    **places,
) -> Squares:
    """The training and test pictures of a labelled source.

    side        0 takes pictures as they are; else see `square`, or with `cut` the side of the crops.
    cut         examples are crops at every half crop instead: training ones from the left half of
                each picture, test ones from the right; they share no pixel.
    test_split  the source's split to test on.
    held_out    above 0: a random share of the training split is tested on instead, drawn with the seed.
    places      as sources.load takes them.
    Errors      DataError: as sources.load; no labels; classes of the test split that training has
                not (by name); pictures of several sizes with side 0, or not square.
    """
    if side and not cut:  # so that no more than the squares are ever held
        places['each'] = functools.partial(_square, side=side)
    train = sources.load(source, 'train', **places)
    images, labels = train.images, _labels(source, train)
    if cut:
        if side < 2:
            raise DataError(f'crops of {side} x {side}; 2 or more are wanted')
        (images, first), (test, second) = (
            crops.grid_crops(half, side, side // 2) for half in crops.halves(images)
        )
        return Squares(images, labels[first], test, labels[second], train.names)
    images = square(source, images, side)
    if held_out:
        kept, out = folds.hold_out(np.arange(len(images)), held_out, seed)
        return Squares(images[kept], labels[kept], images[out], labels[out], train.names)
    test = sources.load(source, test_split, **places)
    test_labels, test_images = _labels(source, test), square(source, test.images, side)
    unknown = sorted(set(test.names) - set(train.names))
    if unknown:
        raise DataError(
            f'{source}: {test_split} has {", ".join(unknown[:5])}, which training has not; give both '
            'the same classes'
        )
    if test_images.shape[1:] != images.shape[1:]:
        raise DataError(
            f'{source}: training pictures are {_by(images)}, those of {test_split} {_by(test_images)}; '
            'make them alike'
        )
    number = np.array([train.names.index(name) for name in test.names], np.int32)
    return Squares(images, labels, test_images, number[test_labels], train.names)


def square(where: str, images, side: int) -> np.ndarray:
    """The middle square of each picture, its side brought to `side` by antialiased interpolation.

    The shorter side is resized and the longer one cut (Krizhevsky et al. 2012, section 2).
    Shapes  images [n, h, w, c] or a tuple of [h, w, c], uint8 or float -> [n, side, side, c] of that
            type. Side 0 changes nothing.
    Errors  DataError with side 0 where pictures differ in size or are not square.
    """
    if not side:
        if not isinstance(images, np.ndarray) or images.shape[1] != images.shape[2]:
            raise DataError(
                f'{where}: pictures are not all squares of one size; name the side to bring them to'
            )
        return images
    if isinstance(images, np.ndarray) and images.shape[1:3] == (side, side):
        return images
    return np.stack([_square(image, side) for image in images])


def _square(image, side):
    from PIL import Image

    h, w = resize.shorter_side(image.shape[:2], side)
    top, left = (h - side) // 2, (w - side) // 2
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(plane.resize((w, h), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized, -1)[top : top + side, left : left + side]


def _labels(source, found: Dataset) -> np.ndarray:
    if found.labels is None:
        raise DataError(f'{source} has no labels; name a set that has, or dir: with class folders')
    return found.labels


def _by(images):
    return ' x '.join(map(str, images.shape[1:]))
