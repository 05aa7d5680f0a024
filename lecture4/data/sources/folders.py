"""Folders of image files: `dir:PATH`."""

import collections
import concurrent.futures
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from lecture4.data.dataset import (
    DataError,
    Dataset,
    SplitError,
    readable_name,
    sort_class_names,
    validate,
)
from lecture4.data.sources.decode import SUFFIXES, read_image

LOG = logging.getLogger(__name__)
ANNOTATIONS = 'val_annotations.txt'
SPLIT_NAMES = ('train', 'training', 'val', 'valid', 'validation', 'dev', 'test', 'testing')
SYSTEM_FILES = ('Thumbs.db', 'desktop.ini')
Unreadable = Literal['refuse', 'skip']  # treatment of a set that has an unreadable image


def read_folder(
    path: str | PathLike[str],
    split: str = 'train',
    unreadable: Unreadable = 'refuse',
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """The images in a folder, sorted by name, decoded by several threads.

        PATH/CLASS/*.png            split train; classes are the folders in order of name, or of number if all names
        are numbers PATH/SPLIT/CLASS/*.png      the split with this name
        PATH/*.png                  split train, unlabeled, if PATH has no folders

    A class has the images of its folder and of all folders inside it, as in torchvision's ImageFolder
    (tiny-imagenet: train/CLASS/images/*.JPEG, and val/images with val_annotations.txt). Files that end
    in one of `decode.SUFFIXES` are read; others are counted and reported once in a warning, and names that begin with
    a dot are skipped. Names that differ in Unicode normalization are one class.

    All images are kept in memory; for a larger set see `images.on_disk.ImageFiles`.

    Args:
      path: The folder.
      split: 'train', or the name of a folder.
      unreadable: 'skip' leaves out images that cannot be read, and logs each by name.
      transform: Function applied to each image [h, w, c] as soon as it is read, to save memory.

    Returns:
      The images and labels; grayscale images of a set that also has color images get three equal channels.

    Raises:
      DataError: There is no such folder or split, a class has no (readable) image, or an image cannot be read (the
        message names it).
    """
    name = f'dir:{path}'
    paths, labels, class_names = list_folder(path, split)
    rows, images = read_files(paths, unreadable, transform)
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
    """The files of a folder in the layouts of `read_folder`, without reading them.

    Returns:
      (paths, labels [n] or None, class names).

    Raises:
      DataError: There is no such folder or split, or a class has no image.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise DataError(f'{path} is not a folder; name one that contains images or class folders')
    root = _split_folder(path, split)
    if (root / ANNOTATIONS).is_file():
        return _annotated(root)
    classes = {}
    for folder in _scan(root)[1]:
        classes.setdefault(readable_name(folder.name), []).append(folder)
    listing = _Listing([], [], [])
    if not classes:
        _list_files(root, listing, nested=False)
        _warn_unread(path, listing)
        return listing.images, None, ()
    class_names = sort_class_names(classes)
    counts = []
    for class_name in class_names:
        before = len(listing.images)
        for folder in classes[class_name]:
            _list_files(folder, listing, nested=True)
        if len(listing.images) == before:
            raise DataError(f'{classes[class_name][0]} has no images; remove the folder or fill it')
        counts.append(len(listing.images) - before)
    outside = _Listing([], [], [])
    _list_files(root, outside, nested=False)
    listing.unread.extend(outside.images)
    _warn_unread(path, listing)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return listing.images, labels, class_names


def _split_folder(path, split):
    """The folder that has the split's class folders; folders inside class folders are not splits."""
    nested = {readable_name(f.name): f for f in _scan(path)[1] if _scan(f)[1]}
    if readable_name(split) in nested:
        return nested[readable_name(split)]
    splits = [name for name in nested if name.lower() in SPLIT_NAMES]
    if split == 'train' and not splits:
        return path
    reason = f'it has {", ".join(splits) or "train"}'
    if (path / split).is_dir():
        reason = f'{path / split} has no class folders'
    raise SplitError(f'dir:{path} has no split {split!r}; {reason}')


class _Listing(NamedTuple):
    """Files to read, files that are not read, and folders inside class folders that have images."""

    images: list[pathlib.Path]
    unread: list[pathlib.Path]
    mixed: list[pathlib.Path]


def _list_files(folder, listing, *, nested, seen=frozenset()):
    """Add the files of a folder in order of name, then those of its folders."""
    files, folders = _scan(folder)
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    listing.images.extend(images)
    listing.unread.extend(file for file in files if file.suffix.lower() not in SUFFIXES)
    seen = seen | {folder.resolve()} if nested and folders else seen
    for inner in folders if nested else ():
        if inner.resolve() in seen:  # a link to a parent folder
            continue
        before = len(listing.images)
        _list_files(inner, listing, nested=True, seen=seen)
        if images and len(listing.images) > before:
            listing.mixed.append(inner)


def _scan(folder):
    """The files and the folders in a folder, in order of name."""
    with os.scandir(folder) as entries:
        entries = sorted((entry for entry in entries if entry.name[0] != '.'), key=lambda e: e.name)
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [e.name for e in entries if not e.is_dir() and e.name not in SYSTEM_FILES]
    return (
        [folder / name for name in files],
        [folder / name for name in folders if not name.startswith('__MACOSX')],
    )


def _annotated(root):
    """tiny-imagenet's val: images in one folder, and lines of file, class, box."""
    annotations = root / ANNOTATIONS
    lines = [line.split('\t') for line in annotations.read_text(encoding='utf-8').splitlines()]
    labels = {line[0]: line[1] for line in lines if len(line) > 1}
    files = sorted(file for file in labels if (root / 'images' / file).is_file())
    if not files:
        raise DataError(f'{annotations} names no file of {root / "images"}; download both again')
    class_names = sort_class_names(set(labels.values()))
    index = {class_name: i for i, class_name in enumerate(class_names)}
    return (
        [root / 'images' / file for file in files],
        np.array([index[labels[file]] for file in files], np.int32),
        class_names,
    )


def _warn_unread(path, listing):
    if listing.unread:
        counts = collections.Counter(file.suffix.lower() or 'no suffix' for file in listing.unread)
        kinds = ', '.join(f'{n} {suffix}' for suffix, n in counts.most_common())
        outside = sum(file.suffix.lower() in SUFFIXES for file in listing.unread)
        reason = f'; {outside} images are outside of class folders' if outside else ''
        _warn_once(
            f'dir:{path}: {len(listing.unread)} files are not read ({kinds}), such as '
            f'{str(listing.unread[0])!r}{reason}; files that end in {" ".join(SUFFIXES)} are read'
        )
    if listing.mixed:
        names = ', '.join(repr(str(folder)) for folder in listing.mixed[:3])
        _warn_once(
            f'dir:{path}: {len(listing.mixed)} folders of images next to images of a class are read as '
            f'that class, such as {names}; move them if they are not'
        )


@functools.cache
def _warn_once(message):
    LOG.warning(message)


def read_files(
    paths: Sequence[pathlib.Path],
    unreadable: Unreadable,
    transform: Callable[[np.ndarray], np.ndarray] | None,
) -> tuple[Int[np.ndarray, ' m'], list[np.ndarray]]:
    """Decode image files by several threads.

    Args:
      paths: The files.
      unreadable: Whether files that cannot be read are left out and logged ('skip').
      transform: Function applied to each image [h, w, c], or None.

    Returns:
      (indices of the paths that can be read, their images).

    Raises:
      DataError: A file cannot be read.
    """

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
    decoded = [(i, image) for i, image in enumerate(images) if image is not None]
    return np.array([i for i, _ in decoded], int), [image for _, image in decoded]


def unreadable_error(error: DataError) -> DataError:
    """The error of an unreadable image in a set that must be complete, with the alternative to skip it."""
    return DataError(f'{error}, or skip such images with --unreadable skip')
