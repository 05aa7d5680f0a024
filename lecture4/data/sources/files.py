"""Pictures and arrays in the user's own files: one image, a folder of them, .npz, .npy."""

import concurrent.futures
import logging
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from lecture4.data.dataset import DataError, Dataset, checked

LOG = logging.getLogger(__name__)
Unreadable = Literal['refuse', 'skip']  # what becomes of a set with a picture that cannot be read
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
GREY = ('1', 'L', 'LA')
COLOUR = ('P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


def read_image(path) -> np.ndarray:
    """The picture at `path`, uint8 [h, w, 1] if grey, else [h, w, 3], turned as its EXIF data says.

    A palette becomes colours, transparency is dropped, of an animation the first frame is read.
    Errors  DataError naming the file: not a picture, cut short, or more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode not in GREY + COLOUR:
                raise DataError(f'{path} has pixels of kind {image.mode}; save it with 8 bits each')
            target = 'L' if image.mode in GREY else 'RGB'
            image = ImageOps.exif_transpose(image)
            if image.mode in ('P', 'PA'):
                image = image.convert('RGBA')  # the way that keeps a palette's transparency apart
            pixels = np.asarray(image.convert(target))
    except DataError:
        raise
    except Exception as error:  # a decoder raises anything on a broken file
        raise DataError(
            f'{path} cannot be read as a picture ({type(error).__name__}: {error}); '
            'remove or replace it'
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def as_colour(image) -> np.ndarray:
    """A picture [h, w, 1 or 3] with three channels: grey is three equal ones."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def read_folder(
    path, split: str = 'train', unreadable: Unreadable = 'refuse', each: Callable | None = None
) -> Dataset:
    """The pictures below a folder, sorted by name, decoded by several threads.

        PATH/CLASS/*.png            split train; classes are the folders in order of name
        PATH/SPLIT/CLASS/*.png      the split of that name
        PATH/*.png                  split train, unlabelled, where PATH holds no folder

    Files that end in one of SUFFIXES; others, and names that begin with a dot, are passed over.
    All pictures are held in memory; for a larger set see `streaming.Pictures`.

    unreadable  'skip' leaves out pictures that cannot be read, and tells each by name.
    each        what becomes of a picture [h, w, c] as soon as it is read, to keep less in memory.
    Shapes      as Dataset; grey pictures of a set with coloured ones get three equal channels.
    Errors      DataError: no such folder or split, a class without a picture (that can be read), a
                picture that cannot be read (by name).
    """
    where = f'dir:{path}'
    paths, labels, names = list_folder(path, split)
    rows, images = _read_all(paths, unreadable, each)
    if labels is None:
        return checked(where, images)
    for name, n in zip(names, np.bincount(labels[rows], minlength=len(names)), strict=True):
        if not n:
            raise DataError(
                f'{where}: {name} holds no picture that can be read; remove it or fill it'
            )
    return checked(where, images, labels[rows], names)


def list_folder(path, split: str = 'train'):
    """(files, their labels [n] or None, names of the classes) of a folder as `read_folder` takes it.

    Errors  DataError: no such folder or split, a class without a picture.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise DataError(f'{path} is not a folder; name one that holds pictures or class folders')
    classes = _folders(path)
    nested = [folder.name for folder in classes if _folders(folder)]
    if split in nested:
        classes = _folders(path / split)
    elif split != 'train' or nested:
        raise DataError(f'dir:{path} has no split {split!r}; it has {", ".join(nested) or "train"}')
    if not classes:
        return _pictures(path), None, ()
    files = [_pictures(folder) for folder in classes]
    for folder, inside in zip(classes, files, strict=True):
        if not inside:
            raise DataError(f'{folder} holds no picture; remove the folder or fill it')
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(inside) for inside in files])
    return [file for inside in files for file in inside], labels, tuple(f.name for f in classes)


def _folders(path):
    return sorted(
        p for p in path.iterdir() if p.is_dir() and not p.name.startswith(('.', '__MACOSX'))
    )


def _pictures(path):
    return sorted(
        p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith('.')
    )


def _read_all(paths, unreadable, each):
    """(numbers of the paths that were read, their pictures)."""

    def read(path):
        try:
            image = read_image(path)
        except DataError as error:
            if unreadable == 'refuse':
                raise refused(error) from error
            LOG.warning('left out: %s', error)
            return None
        return each(image) if each else image

    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = list(pool.map(read, paths))
    rows = [i for i, image in enumerate(found) if image is not None]
    return np.array(rows, int), [found[i] for i in rows]


def refused(error: DataError) -> DataError:
    """The error of a picture in a set that is to be whole, with the other mend."""
    return DataError(f'{error}, or leave such pictures out (unreadable="skip")')


def read_npz(path, split: str = 'train') -> Dataset:
    """The arrays of a split in an .npz file, by these names:

        images, labels                  split train
        SPLIT_images, SPLIT_labels      the split of that name
        x_SPLIT, y_SPLIT                the same, as Keras has them: x_train, y_train, x_test, ...
        names                           the classes' names, optional; else '0', '1', ...

    Labels may be left out. Forms and types as `dataset.checked` wants them.
    Errors  DataError: no such file or split, a file that is cut short or holds Python objects.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f'{path} is not a file; name an .npz file of images and labels')
    try:
        # numpy leaves a file open whose archive it cannot read, unless it is ours.
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            splits = _npz_splits(file.files)
            if split not in splits:
                raise DataError(
                    f'npz:{path} has no split {split!r}; it has {", ".join(splits)}'
                    if splits
                    else f'npz:{path} holds no images; wanted images, train_images or x_train'
                )
            images_key, labels_key = splits[split]
            images = file[images_key]
            labels = file.get(labels_key)
            names = [str(name) for name in file['names']] if 'names' in file else None
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a broken file
        raise DataError(
            f'{path} cannot be read as .npz ({type(error).__name__}: {error}); save it again with '
            'numpy.savez, arrays of numbers only'
        ) from error
    return checked(f'npz:{path}', images, labels, names)


def _npz_splits(keys):
    """Which splits the keys make up: {split: (key of its images, key of its labels)}."""
    splits = {}
    for key in keys:
        if key == 'images':
            splits['train'] = (key, 'labels')
        elif key.endswith('_images'):
            splits[key.removesuffix('_images')] = (key, key.removesuffix('images') + 'labels')
        elif key.startswith('x_'):
            splits[key.removeprefix('x_')] = (key, 'y_' + key.removeprefix('x_'))
    return splits


def read_npy(path) -> np.ndarray:
    """The array in an .npy file. DataError where it is cut short or holds Python objects."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f'{path} cannot be read as .npy ({error}); fetch it again') from error
