"""A labeled task: training and test images of one size, and their labels."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Int32, Shaped

from lecture4.data import sources, splits
from lecture4.data.dataset import DataError, Dataset, SplitError
from lecture4.data.images import crops
from lecture4.data.images.loading import select_classes
from lecture4.data.images.on_disk import ImageFiles
from lecture4.data.images.squares import resize_to_square, square
from lecture4.data.sources import folders

Pixels = Literal['gray', 'float', 'stored']
NO_TEST_SPLIT = 'or test on a part of the training images with --held_out 0.1'
_CONVERSIONS = {'gray': crops.to_grayscale, 'float': crops.to_floats, 'stored': None}


class ImageTask(NamedTuple):
    """Training and test examples of one size.

    Attributes:
      train_images: [n, h, w, c], uint8, or float32 in [0, 1]; with `on_disk` an `ImageFiles`, which is indexed like
        an array.
      train_labels: [n], values in 0..len(class_names) - 1.
      test_images: [m, h, w, c], of the same dtype.
      test_labels: [m].
      class_names: Names of the classes.
    """

    train_images: Shaped[np.ndarray, 'n h w c']
    train_labels: Int32[np.ndarray, ' n']
    test_images: Shaped[np.ndarray, 'm h w c']
    test_labels: Int32[np.ndarray, ' m']
    class_names: tuple[str, ...]


def subsample_test(task: ImageTask, n: int, seed: int) -> ImageTask:
    """The task with n of its test images, chosen at random.

    Args:
      task: Task; its training images are unchanged.
      n: Number of test images; 0, or more than there are, shuffles all.
      seed: Seed of the random choice.
    """
    rows = np.random.default_rng(seed).permutation(len(task.test_labels))[: n or None]
    return task._replace(test_images=task.test_images[rows], test_labels=task.test_labels[rows])


def load(
    source: str,
    *,
    image_size: int = 0,
    crop_size: int = 0,
    classes: Sequence[int] = (),
    pixels: Pixels = 'gray',
    group_by_class: bool = True,
    test_split: str = 'test',
    held_out: float = 0.0,
    candidates_per_class: int = 0,
    on_disk: bool = False,
    seed: int = 0,
    **data_kwargs: Any,
) -> ImageTask:
    """The training and test images of a labeled source.

    Args:
      source: As in `sources.load`.
      image_size: Height and width to resize images to, see `resize_to_square`; 0 keeps them unchanged, and they must
        have one size.
      crop_size: Above 0, examples are crops of that size at every half crop: training ones from the
        left half of each image, test ones from the right; they share no pixel.
      classes: Indices of the classes to keep, renumbered 0, 1, ... in ascending order; () keeps all.
      pixels: 'gray' converts to float32 in [0, 1] with one channel, 'float' to float32 in [0, 1] with
        the channels that are stored; 'stored' keeps channels and dtype.
      group_by_class: Whether training examples are grouped by class, in random order within each;
        otherwise they keep the order of the source. Crops are grouped like their images.
        test_split: Split of the source to test on.
        held_out: Fraction of the training split, chosen at random, to test on instead; 0 uses `test_split`.
        candidates_per_class: Largest number of random training examples of each class to keep, grouped by class; 0
          keeps all.
      on_disk: Whether the images of a dir: source with an image_size are read whenever rows are taken, for sets
        larger than memory.
      seed: Seed of the random choices.
      **data_kwargs: data_dir, manual_dir, download and unreadable, as in `sources.load`.

    Raises:
      DataError: As in `sources.load`; there are no labels; the test split has classes that training does not have
        (the message names them); images have several sizes; options exclude one another.
    """
    if on_disk and (
        not source.startswith('dir:')
        or not image_size
        or crop_size
        or pixels != 'stored'
        or classes
    ):
        raise DataError(
            f'{source}: only stored pixels of dir:PATH, of all classes and with --image_size, can stay '
            'on the disk; name such a source and an --image_size, or keep the images in memory'
        )
    if crop_size and (image_size or held_out):
        raise DataError(
            f'{source}: --crop_size {crop_size} takes training and test crops from the halves of each '
            'image; it excludes --image_size and --held_out'
        )
    read = functools.partial(
        _list_files if on_disk else _read,
        source,
        image_size=image_size,
        convert=_CONVERSIONS[pixels],
        data_kwargs=data_kwargs,
    )
    train = read('train')
    _labels(source, train)
    if crop_size:
        task = _crops_of_halves(source, select_classes(source, train, classes), crop_size)
    elif held_out:
        task = _hold_out(source, select_classes(source, train, classes), held_out, seed)
    else:
        try:
            test = read(test_split)
        except SplitError as error:
            raise DataError(f'{error}; {NO_TEST_SPLIT}') from None
        task = _own_splits(source, train, test, test_split, classes)
    if candidates_per_class or (group_by_class and not crop_size):
        return _grouped(task, candidates_per_class or None, seed)
    return task


def load_squares(source: str, size: int, **data_kwargs: Any) -> ImageTask:
    """Labeled square images as stored, also for sources that have few images or no labels.

    For 'photos' and 'textures' they are crops at every half crop, training ones from the left half of each image,
    test ones from the right half; each photograph is a class. Images of other sources are whole.

    Args:
      source: As in `sources.load`.
      size: Height and width of the crops, or to which whole images are resized; 0 keeps that of whole images.
      **data_kwargs: Options of `load`.

    Raises:
      DataError: As in `load`; a crop does not fit; or `held_out` is given for crops of halves.
    """
    options = {'pixels': 'stored', 'group_by_class': False, **data_kwargs}
    if source in ('photos', 'textures') and options.get('held_out'):
        raise DataError(
            f'{source}: training and test crops are from the halves of each image; it excludes --held_out'
        )
    if source == 'textures':
        return load(source, crop_size=size, **options)
    if source != 'photos':
        return load(source, image_size=size, **options)
    photos = sources.load('photos').images
    halves = crops.split_left_right(photos)
    train, test = (crops.grid_crops(half, size, max(size // 2, 1)) for half in halves)
    return ImageTask(*train, *test, tuple(f'photo {i}' for i in range(len(photos))))


def add_border(task: ImageTask, margin: int) -> ImageTask:
    """The task with `margin` zero pixels around every image."""
    border = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    x, x_test = np.pad(task.train_images, border), np.pad(task.test_images, border)
    return task._replace(train_images=x, test_images=x_test)


def _grouped(task, candidates_per_class, seed):
    rng = np.random.default_rng(seed)
    labels = task.train_labels
    rows = [
        rng.permutation(np.flatnonzero(labels == c))[:candidates_per_class]
        for c in range(len(task.class_names))
    ]
    rows = np.concatenate(rows)
    return task._replace(train_images=_take(task.train_images, rows), train_labels=labels[rows])


def shuffled_splits(
    task: ImageTask, sizes: Sequence[int], seed: int
) -> list[tuple[Shaped[np.ndarray, '_n h w c'], Int32[np.ndarray, ' _n']]]:
    """All images of a task shuffled and split again.

    Args:
      task: A task in memory.
      sizes: Number of images in each part.
      seed: Seed of the shuffle.

    Returns:
      (images, labels) of each part.

    Raises:
      DataError: The sizes exceed the number of images.
    """
    images = np.concatenate([task.train_images[:], task.test_images[:]])
    labels = np.concatenate([task.train_labels, task.test_labels]).astype(np.int32)
    if sum(sizes) > len(images):
        raise DataError(
            f'expected at most {len(images)} images in all parts, got {" + ".join(map(str, sizes))}; '
            'use smaller parts'
        )
    rows = np.random.default_rng(seed).permutation(len(images))[: sum(sizes)]
    return [(images[part], labels[part]) for part in np.split(rows, np.cumsum(sizes)[:-1])]


def _read(source, split, *, image_size, convert, data_kwargs):
    """A split in memory; with an image_size only the resized images are ever in memory."""
    transform = functools.partial(square, image_size=image_size) if image_size else None
    dataset = sources.load(source, split, **data_kwargs, transform=transform)
    images = dataset.images
    if image_size:
        images = resize_to_square(source, images, image_size)
    return dataset._replace(images=convert(images) if convert else images)


def _list_files(source, split, *, image_size, convert, data_kwargs):
    folder = pathlib.Path(source.removeprefix('dir:')).expanduser()
    paths, labels, class_names = folders.list_folder(folder, split)
    transform = functools.partial(square, image_size=image_size)
    if labels is None:
        raise DataError(_unlabeled(source))
    unreadable = data_kwargs.get('unreadable', 'refuse')
    images = cast(Any, ImageFiles(paths, labels, transform, unreadable))
    return Dataset(images, labels, class_names)


def _crops_of_halves(source, train, crop_size):
    labels = _labels(source, train)
    stride = max(crop_size // 2, 1)
    left, right = crops.labeled_crops_of_halves(train.images, labels, crop_size, stride)
    return ImageTask(*left, *right, train.class_names)


def _hold_out(source, train, fraction, seed):
    labels, images = _labels(source, train), one_size(source, train.images)
    rows, test_rows = splits.hold_out(np.arange(len(images)), fraction, seed)
    return ImageTask(
        _take(images, rows),
        labels[rows],
        _take(images, test_rows),
        labels[test_rows],
        train.class_names,
    )


def _own_splits(source, train, test, test_split, classes):
    test_labels = _labels(source, test)
    unknown = sorted(set(test.class_names) - set(train.class_names))
    if unknown:
        raise DataError(
            f'{source}: {test_split} has classes that training does not have: '
            f'{", ".join(unknown[:5])}; give both the same classes'
        )
    index = np.array([train.class_names.index(name) for name in test.class_names], np.int32)
    test = Dataset(test.images, index[test_labels], train.class_names)
    train, test = (select_classes(source, part, classes) for part in (train, test))
    images, test_images = one_size(source, train.images), one_size(source, test.images)
    if images.shape[-1] != test_images.shape[-1] and not isinstance(images, ImageFiles):
        images, test_images = (
            np.repeat(x, 3, -1) if x.shape[-1] == 1 else x for x in (images, test_images)
        )
    if test_images.shape[1:] != images.shape[1:]:
        raise DataError(
            f'{source}: training images are {_by(images)}, those of {test_split} '
            f'{_by(test_images)}; bring them to one size with --image_size'
        )
    labels, test_labels = _labels(source, train), _labels(source, test)
    return ImageTask(cast(Any, images), labels, test_images, test_labels, train.class_names)


def _take(images, rows) -> Any:
    return images.take(rows) if isinstance(images, ImageFiles) else images[rows]


def one_size(source: str, images: Any) -> Any:
    """The images, if they have one size: an array, or an `ImageFiles`.

    Raises:
      DataError: They have several.
    """
    if isinstance(images, tuple):
        raise DataError(
            f'{source}: images have several sizes; bring them to one with --image_size, or take crops '
            'of one size with --crop_size'
        )
    return images


def _labels(source, dataset) -> np.ndarray:
    if dataset.labels is None:
        raise DataError(_unlabeled(source))
    return dataset.labels


def _unlabeled(source):
    return f'{source} has no labels; name a set that has some, dir: with class folders, or csv: with a column label'


def _by(images):
    return ' x '.join(map(str, images.shape[1:]))
