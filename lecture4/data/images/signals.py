"""Pictures made ready for an experiment: grey or coloured, chosen, cropped and split, or as signals."""

from typing import NamedTuple

import numpy as np

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.images import crops


class Labelled(NamedTuple):
    """A labelled task: float32 pictures [n, h, w, c] in [0, 1], labels int32 [n] from 0.

    c is 1, but 3 where colours were asked for and the source has them.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    names: tuple[str, ...]


def grey(source: str, split: str = 'train', *, classes=(), colour: bool = False, **places):
    """Grey float pictures, labels and class names of a source, or of some of its classes.

    colour   keeps the channels of coloured pictures.
    classes  numbers of the classes to keep, renumbered 0, 1, ... in rising order; () keeps all.
    places   data_dir, manual_dir and download, as sources.load takes them.
    Errors   DataError as sources.load, and for a class that the source does not have.
    """
    found = sources.load(source, split, **places)
    convert = crops.floats if colour else crops.grey
    if not classes:
        return convert(found.images), found.labels, found.names
    if found.labels is None or not set(classes) <= set(range(len(found.names))):
        raise DataError(
            f'{source} has {len(found.names)} classes, numbered from 0, so not all of {classes}'
        )
    rows = np.flatnonzero(np.isin(found.labels, classes))
    chosen = sorted(set(classes))
    images = found.images
    images = images[rows] if isinstance(images, np.ndarray) else tuple(images[i] for i in rows)
    labels = np.searchsorted(chosen, found.labels[rows]).astype(np.int32)
    return convert(images), labels, tuple(found.names[c] for c in chosen)


def labelled(
    source: str,
    *,
    classes=(),
    crop: int = 0,
    pool: int | None = None,
    seed: int = 0,
    colour: bool = False,
    **places,
) -> Labelled:
    """The train and test examples of a labelled source, grey or, if asked, coloured.

    crop  0 takes the source's own splits. Else examples are crops of crop x crop pixels at every
          half crop, training ones from the left half of each picture, test ones from the right:
          they share no pixel.
    pool  of the source's own training split, at most this many of each class, drawn with the seed.
    Errors  DataError where there are no labels, or pictures of several sizes uncropped, or as grey.
    """
    images, labels, names = grey(source, classes=classes, colour=colour, **places)
    if labels is None:
        raise DataError(f'{source} has no labels; name a set that has, or dir: with class folders')
    if crop:
        (train, first), (test, second) = (
            crops.grid_crops(half, crop, max(crop // 2, 1)) for half in crops.halves(images)
        )
        return Labelled(train, labels[first], test, labels[second], names)
    test, test_labels, _ = grey(source, 'test', classes=classes, colour=colour, **places)
    if test_labels is None:
        raise DataError(f'the test split of {source} has no labels')
    if not isinstance(images, np.ndarray) or not isinstance(test, np.ndarray):
        raise DataError(f'the pictures of {source} have different sizes; take crops of one size')
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == c))[:pool] for c in range(len(names))]
    )
    return Labelled(images[rows], labels[rows], test, test_labels, names)


def mixed(found: Labelled, counts, seed: int):
    """All pictures of a task mixed and dealt out anew: [(images, labels), ...], one for each count.

    Errors  DataError where more are wanted than there are.
    """
    images = np.concatenate([found.train_images, found.test_images])
    labels = np.concatenate([found.train_labels, found.test_labels]).astype(np.int32)
    if sum(counts) > len(images):
        raise DataError(
            f'{" + ".join(map(str, counts))} pictures are wanted, and there are {len(images)}: ask '
            'for fewer'
        )
    rows = np.random.default_rng(seed).permutation(len(images))[: sum(counts)]
    return [(images[part], labels[part]) for part in np.split(rows, np.cumsum(counts)[:-1])]


def signals(
    source: str,
    n: int,
    *,
    patch: int = 0,
    side: int = 0,
    seed: int = 0,
    classes=(),
    colour: bool = False,
    **places,
) -> np.ndarray:
    """Unlabelled signals [n, d] in [0, 1]: patches of patch x patch, or whole pictures.

    patch   0 takes at most n whole pictures, brought to side x side pixels. There, dark strokes on
            a light ground are turned to light on dark, as digits are usually stored.
    colour  keeps the channels of patches, d = patch * patch * 3; whole pictures are always grey.
    """
    images, _, _ = grey(source, classes=classes, colour=colour and patch > 0, **places)
    if patch:
        return crops.sample_patches(images, n, patch, seed)
    rows = np.random.default_rng(seed).permutation(len(images))[:n]
    found = crops.resize([images[i] for i in rows], side).reshape(len(rows), side * side)
    return 1 - found if found.mean() > 0.5 else found
