"""Labelled pictures of any sizes as squares of one size: what a network is trained on."""

import functools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lecture4.data import sources, splits
from lecture4.data.dataset import DataError, Dataset
from lecture4.data.images import crops
from lecture4.data.images.prefetch import Pictures
from lecture4.data.sources import files
from lecture4.ops import resize


class Squares(NamedTuple):
    """A labelled task. Images uint8, or float32 on [0, 1], [n, side, side, c]; labels int32 [n]."""

    train_images: np.ndarray | Pictures
    train_labels: np.ndarray
    test_images: np.ndarray | Pictures
    test_labels: np.ndarray
    names: tuple[str, ...]


def load(
    source: str,
    side: int = 0,
    *,
    cut: bool = False,
    test_split: str = 'test',
    held_out: float = 0.0,
    on_disk: bool = False,
    seed: int = 0,
    **places: Any,
) -> Squares:
    """The training and test pictures of a labelled source.

    side        0 takes pictures as they are; else see `square`, or with `cut` the side of the crops.
    cut         examples are crops at every half crop instead: training ones from the left half of
                each picture, test ones from the right; they share no pixel.
    test_split  the source's split to test on.
    held_out    above 0: a random share of the training split is tested on instead, drawn with the seed.
    on_disk     of a dir: source with a side: pictures are read, and squares made, whenever rows are
                taken. For sets larger than memory.
    places      as sources.load takes them.
    Errors      DataError: as sources.load; no labels; classes of the test split that training has
                not (by name); pictures of several sizes with side 0, or not square; another source
                on the disk.
    """
    if on_disk and (not source.startswith('dir:') or not side or cut):
        raise DataError(
            f'{source}: only whole pictures of dir:PATH, brought to a side, can stay on the disk; '
            'name such a source and a side, or keep the pictures in memory'
        )
    read = _from_disk if on_disk else _in_memory
    if cut:
        train = sources.load(source, 'train', **places)
        return _cut(train, _labels(source, train), side)
    images, labels, names = read(source, 'train', side, places)
    if held_out:
        kept, out = splits.hold_out(np.arange(len(images)), held_out, seed)
        taken = images.take if isinstance(images, Pictures) else images.__getitem__
        return Squares(taken(kept), labels[kept], taken(out), labels[out], names)
    test_images, test_labels, test_names = read(source, test_split, side, places)
    unknown = sorted(set(test_names) - set(names))
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
    number = np.array([names.index(name) for name in test_names], np.int32)
    return Squares(images, labels, test_images, number[test_labels], names)


def _in_memory(source, split, side, places):
    """(squares, labels, names) of a split; no more than the squares are ever held."""
    each = functools.partial(_square, side=side) if side else None
    found = sources.load(source, split, **places, each=each)
    return square(source, found.images, side), _labels(source, found), found.names


def _from_disk(source, split, side, places):
    folder = pathlib.Path(source.removeprefix('dir:')).expanduser()
    paths, labels, names = files.list_folder(folder, split)
    labels = _labels(source, Dataset(np.zeros(0), labels))
    each = functools.partial(_square, side=side)
    return Pictures(paths, labels, each, places.get('unreadable', 'refuse')), labels, names


def _cut(train, labels, side) -> Squares:
    if side < 2:
        raise DataError(f'crops of {side} x {side}; 2 or more are wanted')
    (images, first), (test, second) = (
        crops.grid_crops(half, side, side // 2) for half in crops.halves(train.images)
    )
    return Squares(images, labels[first], test, labels[second], train.names)


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

    h, w = resize.scaled_shape(image.shape[:2], side)
    top, left = resize.center_corner((h, w), (side, side))
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        whole = Image.fromarray(np.ascontiguousarray(image))
        resized = np.asarray(whole.resize((w, h), Image.Resampling.BILINEAR))
        return resized[top : top + side, left : left + side]
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(plane.resize((w, h), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized, -1)[top : top + side, left : left + side]


def _labels(source, found: Dataset) -> np.ndarray:
    if found.labels is None:
        raise DataError(f'{source} has no labels; name a set that has, or dir: with class folders')
    return found.labels


def _by(images):
    return ' x '.join(map(str, images.shape[1:]))
