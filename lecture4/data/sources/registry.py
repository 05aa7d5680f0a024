"""Data sets by name: `load('textures')`, `load('mnist')`, `load('dir:PATH')`, ...

    photos      nine photographs that come with scikit-learn and scikit-image, uint8, unlabeled
    textures    brick, grass and gravel of scikit-image, uint8 512 x 512 x 1, labeled
    digits      scikit-learn's 1797 digits, 8 x 8 x 1, float32: the stored 0..16 divided by 16;
                splits all, and train (the first 1297) and test (the last 500)
    mnist       LeCun's digits, 28 x 28 x 1, uint8, ink 255; splits train, test
    cluttered_mnist   a digit with five distractors, 40 x 40 x 1, uint8 in units of 1/256; splits train,
                validation, test
    omniglot    Lake's characters, 105 x 105 x 1, uint8, ink 0; splits train, test, small1, small2
    cifar10     Krizhevsky's ten classes, 32 x 32 x 3, uint8; splits train, test
    gtsrb       German traffic signs, 32 x 32 x 3, uint8, 43 classes; splits train (half of the frames), test
    bsd400, set12, bsd68   grayscale images that denoisers are trained and tested on, uint8
    olshausen   Olshausen and Field's ten whitened images, 512 x 512 x 1, float32
    dir:PATH    images in class folders; see `lecture4.data.sources.folders.read_folder`
    npz:PATH    arrays in one file; see `lecture4.data.sources.arrays.read_npz`
    csv:PATH    a table of image files, or of pixels; see `lecture4.data.sources.tables.read_csv`
    tfds:NAME   a set that tensorflow-datasets has prepared in data_dir, read without TensorFlow; see
                `lecture4.data.sources.tfds_sets.load`
    random:HxWxC:CLASSES   random pixels of that shape, for measuring and compiling without files; see
                `lecture4.data.sources.random_images.load`

The first three need no file and no network. mnist, cluttered_mnist, omniglot and cifar10 are prepared
once in data_dir, from files in manual_dir or, with `download`, from the network; gtsrb, olshausen and
the denoising sets are read from manual_dir. Importing this module imports only numpy.
"""

import difflib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Literal

import numpy as np

from lecture4.data.dataset import DataError, Dataset, SplitError, validate
from lecture4.data.sources import archives

SPLITS = {
    'photos': ('train',),
    'textures': ('train',),
    'digits': ('train', 'test', 'all'),
    'olshausen': ('train',),
}
PREPARED = ('mnist', 'cluttered_mnist', 'omniglot', 'cifar10')
NAMES = (*SPLITS, *PREPARED, 'gtsrb', 'bsd400', 'set12', 'bsd68')
FORMS = ('dir:PATH', 'npz:PATH', 'csv:PATH', 'tfds:NAME', 'random:HxWxC:CLASSES')


def load(
    source: str,
    split: str = 'train',
    *,
    data_dir: str | PathLike[str] | None = None,
    manual_dir: str | PathLike[str] | None = None,
    download: bool = False,
    unreadable: Literal['refuse', 'skip'] = 'refuse',
    image_shape: Sequence[int] = (),
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """The split of a data set, in memory.

    Args:
      source: A name, dir:PATH, npz:PATH, csv:PATH, tfds:NAME or random:HxWxC:CLASSES, from the table above.
      split: A split of the set; sets without splits have only train.
      data_dir: Directory of prepared sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: Directory of downloaded files, only read; by default $LECTURE4_MANUAL_DIR. A file may be in
        manual_dir/NAME or in manual_dir.
      download: Whether missing files may be downloaded.
      unreadable: What to do with files of a dir: or csv: source that cannot be read: 'refuse', or 'skip' to leave
        them out.
      image_shape: (height, width) or (height, width, channels) of images that an npz: or csv: source stores as rows.
      transform: Function applied to each image [h, w, c] of a dir:, csv: (of files) or tfds: source as soon as it
        is read.

    Returns:
      The images, labels and class names.

    Raises:
      DataError: The source or split is unknown, or the set is missing (the message says what to run), damaged,
        altered, or of the wrong form.
    """
    kind, _, path = source.partition(':')
    if kind == 'dir' and path:
        from lecture4.data.sources import folders

        return folders.read_folder(pathlib.Path(path).expanduser(), split, unreadable, transform)
    if kind == 'npz' and path:
        from lecture4.data.sources import arrays

        return arrays.read_npz(pathlib.Path(path).expanduser(), split, image_shape)
    if kind == 'csv' and path:
        from lecture4.data.sources import tables

        options = {'image_shape': image_shape, 'unreadable': unreadable, 'transform': transform}
        return tables.read_csv(pathlib.Path(path).expanduser(), split, **options)
    if kind == 'random' and path:
        from lecture4.data.sources import random_images

        return random_images.load(path, split)
    folder = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = pathlib.Path(folder).expanduser()
    if kind == 'tfds' and path:
        from lecture4.data.sources import tfds_sets

        return tfds_sets.load(path, split, folder, transform)
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    if source in SPLITS:
        return _load_array_set(source, split, manual_dir)
    if source in ('bsd400', 'set12', 'bsd68'):
        from lecture4.data.sources import denoising_sets

        return denoising_sets.load(source, split, manual_dir)
    if source == 'gtsrb':
        from lecture4.data.sources import traffic_signs

        return traffic_signs.load(split, manual_dir)
    match source:
        case 'mnist':
            from lecture4.data.sources.builders.mnist.builder import Mnist as builder
        case 'cluttered_mnist':
            from lecture4.data.sources.builders.cluttered_mnist.builder import (
                ClutteredMnist as builder,
            )
        case 'omniglot':
            from lecture4.data.sources.builders.omniglot.builder import Omniglot as builder
        case 'cifar10':
            from lecture4.data.sources.builders.cifar10.builder import Cifar10 as builder
        case _:
            raise DataError(_unknown(source))
    from lecture4.data.sources import prepared

    make = functools.partial(builder, data_dir=folder, manual_dir=manual_dir)
    return prepared.load(make, source, split, download=download)


def _load_array_set(source, split, manual_dir):
    if split not in SPLITS[source]:
        raise SplitError(f'{source} has no split {split!r}; it has {", ".join(SPLITS[source])}')
    if source == 'olshausen':
        return _olshausen(manual_dir)
    from lecture4.data.sources import bundled

    return bundled.digits(split) if source == 'digits' else getattr(bundled, source)()


def _unknown(source):
    near = difflib.get_close_matches(source, NAMES, n=1)
    hint = ''
    if pathlib.Path(source).expanduser().exists():
        hint = f'did you mean {_form(source)}:{source}? '
    elif near and ':' not in source:
        hint = f'did you mean {near[0]}? '
    return f'unknown data set {source!r}; {hint}available are {", ".join((*NAMES, *FORMS))}'


def _form(path):
    return pathlib.Path(path).suffix[1:] if path.endswith(('.npz', '.csv')) else 'dir'


def _olshausen(manual_dir):
    file = 'IMAGES_whitened_10x512x512_float32.npy'
    pin = archives.Pin(file, '', -1, '')
    path = archives.locate(manual_dir, 'olshausen', [pin]).get(file)
    if path is None:
        raise DataError(
            'olshausen cannot be downloaded; run with --manual_dir PATH where PATH or '
            f'PATH/olshausen has {file} (IMAGES.mat of their sparsenet page, as [10, 512, 512])'
        )
    from lecture4.data.sources import arrays

    images = arrays.read_npy(path)
    if images.shape != (10, 512, 512) or images.dtype != np.float32:
        raise DataError(
            f'{path}: expected float32 (10, 512, 512), got {images.dtype} {images.shape}; '
            'download or convert it again'
        )
    return validate('olshausen', images)
