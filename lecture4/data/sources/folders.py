"""Folders of image files: `dir:PATH`."""

import concurrent.futures
import logging
import pathlib
from collections.abc import Callable
from os import PathLike
from typing import Literal

import numpy as np
from jaxtyping import Int32

from lecture4.data.dataset import DataError, Dataset, validate
from lecture4.data.sources.decode import SUFFIXES, read_image

LOG = logging.getLogger(__name__)
Unreadable = Literal['refuse', 'skip']  # what to do with a set that has an unreadable image


def read_folder(
    path: str | PathLike[str],
    split: str = 'train',
    unreadable: Unreadable = 'refuse',
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """The images below a folder, sorted by name, decoded by several threads.

        PATH/CLASS/*.png            split train; classes are the folders in order of name
        PATH/SPLIT/CLASS/*.png      the split of that name
        PATH/*.png                  split train, unlabeled, if PATH has no folders

    Files that end in one of `decode.SUFFIXES`; others, and names that begin with a dot, are skipped.
    All images are held in memory; for a larger set see `images.on_disk.ImageFiles`.

    Args:
      path: The folder.
      split: 'train', or the name of a folder.
      unreadable: 'skip' leaves out images that cannot be read, and logs each by name.
      transform: Applied to each image [h, w, c] as soon as it is read, to keep less in memory.

    Returns:
      The images and labels; grayscale images of a set with color ones get three equal channels.

    Raises:
      DataError: No such folder or split, a class without an image (that can be read), an image that
        cannot be read (by name).
    """
    name = f'dir:{path}'
    paths, labels, class_names = list_folder(path, split)
    rows, images = _read_all(paths, unreadable, transform)
    if labels is None:
        return validate(name, images)
    counts = np.bincount(labels[rows], minlength=len(class_names))
    for class_name, count in zip(class_names, counts, strict=True):
        if not count:
            raise DataError(f'{name}: {class_name} has no readable image; remove it or fill it')
    return validate(name, images, labels[rows], class_names)


def list_folder(
    path: str | PathLike[str], split: str = 'train'
) -> tuple[list[pathlib.Path], Int32[np.ndarray, ' n'] | None, tuple[str, ...]]:
    """The files of a folder in the layouts that `read_folder` takes, without reading them.

    Returns:
      (paths, labels [n] or None, class names).

    Raises:
      DataError: No such folder or split, a class without an image.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise DataError(f'{path} is not a folder; name one that holds images or class folders')
    classes = _folders(path)
    nested = [folder.name for folder in classes if _folders(folder)]
    if split in nested:
        classes = _folders(path / split)
    elif split != 'train' or nested:
        raise DataError(f'dir:{path} has no split {split!r}; it has {", ".join(nested) or "train"}')
    if not classes:
        return _images(path), None, ()
    files = [_images(folder) for folder in classes]
    for folder, inside in zip(classes, files, strict=True):
        if not inside:
            raise DataError(f'{folder} has no images; remove the folder or fill it')
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(inside) for inside in files])
    return [file for inside in files for file in inside], labels, tuple(f.name for f in classes)


def _folders(path):
    return sorted(
        p for p in path.iterdir() if p.is_dir() and not p.name.startswith(('.', '__MACOSX'))
    )


def _images(path):
    return sorted(
        p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith('.')
    )


def _read_all(paths, unreadable, transform):
    """(indices of the paths that were read, their images)."""

    def read(path):
        try:
            image = read_image(path)
        except DataError as error:
            if unreadable == 'refuse':
                raise unreadable_error(error) from error
            LOG.warning('skipped: %s', error)
            return None
        return transform(image) if transform else image

    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(pool.map(read, paths))
    rows = [i for i, image in enumerate(images) if image is not None]
    return np.array(rows, int), [images[i] for i in rows]


def unreadable_error(error: DataError) -> DataError:
    """The error of an unreadable image in a set that must be complete, with the other fix."""
    return DataError(f'{error}, or skip such images with unreadable="skip"')
