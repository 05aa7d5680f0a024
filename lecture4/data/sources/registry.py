"""One door to every data set: `load('textures')`, `load('mnist')`, `load('dir:PATH')`, ...

    photos      nine photographs that come inside scikit-learn and scikit-image, uint8, unlabelled
    textures    brick, grass and gravel of scikit-image, uint8 512 x 512 x 1, labelled
    digits      scikit-learn's 1797 digits, 8 x 8 x 1, float32: the stored 0..16 divided by 16;
                splits all, and train (the first 1297) and test (the last 500)
    mnist       LeCun's digits, 28 x 28 x 1, uint8, ink 255; splits train, test
    omniglot    Lake's characters, 105 x 105 x 1, uint8, ink 0; splits train, test, small1, small2
    cifar10     Krizhevsky's ten classes, 32 x 32 x 3, uint8; splits train, test
    bsd400, set12, bsd68   grey pictures that denoisers learn from and are tested on, uint8
    olshausen   Olshausen and Field's ten whitened pictures, 512 x 512 x 1, float32
    dir:PATH    pictures in class folders; see `lecture4.data.sources.files.read_folder`
    npz:PATH    arrays in one file; see `lecture4.data.sources.files.read_npz`

The first three need no file and no network. mnist, omniglot and cifar10 are prepared once in
data_dir, from files in manual_dir or, if asked, from the network; olshausen and the denoising sets
are read from manual_dir. Importing this module loads numpy and no more.
"""

import difflib
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from lecture4.data.dataset import DataError, Dataset, checked
from lecture4.data.sources import archives

__all__ = ['DataError', 'Dataset', 'load']

# Which of the bundled pictures: camera scenes of things in daylight or indoors. Left out: drawings,
# text, charts, microscopes and telescopes, and motorcycle_right (motorcycle_left once more).
PHOTOS = (
    ('sklearn', 'datasets/images/china.jpg'),
    ('sklearn', 'datasets/images/flower.jpg'),
    ('skimage', 'data/astronaut.png'),
    ('skimage', 'data/chelsea.png'),
    ('skimage', 'data/coffee.png'),
    ('skimage', 'data/rocket.jpg'),
    ('skimage', 'data/motorcycle_left.png'),
    ('skimage', 'data/camera.png'),
    ('skimage', 'data/coins.png'),
)
TEXTURES = ('brick', 'grass', 'gravel')
DIGITS_TEST = 500  # the last of the 1797, as the file has them


def load(
    source: str,
    split: str = 'train',
    *,
    data_dir=None,
    manual_dir=None,
    download: bool = False,
    unreadable: Literal['refuse', 'skip'] = 'refuse',
    each: Callable | None = None,
) -> Dataset:
    """The split of a data set, in memory.

    source      a name or dir:PATH or npz:PATH, from the table above.
    split       one of the set's own; sets in one piece have train only.
    data_dir    where sets are prepared: else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    manual_dir  a folder of files fetched by hand, only ever read: else $LECTURE4_MANUAL_DIR. A file
                is looked for in manual_dir/NAME and in manual_dir.
    download    whether files that are not there may be fetched.
    unreadable  of a dir: source, whether pictures that cannot be read are left out ('skip').
    each        of a dir: source, what becomes of a picture [h, w, c] as soon as it is read.
    Errors      DataError: an unknown source or split, a set that is missing (says what to run),
                damaged, altered, or of the wrong form.
    """
    kind, _, path = source.partition(':')
    if kind in ('dir', 'npz') and path:
        from lecture4.data.sources import files

        folder = pathlib.Path(path).expanduser()
        if kind == 'dir':
            return files.read_folder(folder, split, unreadable, each)
        return files.read_npz(folder, split)
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    match source:
        case 'photos' | 'textures' | 'digits':
            return {'photos': _photos, 'textures': _textures, 'digits': _digits}[source](split)
        case 'olshausen':
            return _olshausen(split, manual_dir)
        case 'bsd400' | 'set12' | 'bsd68':
            from lecture4.data.sources import denoising_sets

            return denoising_sets.load(source, split, manual_dir)
        case 'mnist':
            from lecture4.data.sources.builders.mnist.builder import Mnist as builder
        case 'omniglot':
            from lecture4.data.sources.builders.omniglot.builder import Omniglot as builder
        case 'cifar10':
            from lecture4.data.sources.builders.cifar10.builder import Cifar10 as builder
        case _:
            raise DataError(_unknown(source))
    from lecture4.data.sources import prepared

    folder = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = pathlib.Path(folder).expanduser()
    make = functools.partial(builder, data_dir=folder, manual_dir=manual_dir)
    return prepared.load(make, source, split, download=download)


def _unknown(source):
    names = ['photos', 'textures', 'digits', 'mnist', 'omniglot', 'olshausen', 'cifar10']
    names += ['bsd400', 'set12', 'bsd68']
    near = difflib.get_close_matches(source, names, n=1)
    hint = ''
    if pathlib.Path(source).expanduser().exists():
        hint = f'did you mean {"npz" if source.endswith(".npz") else "dir"}:{source}? '
    elif near and ':' not in source:
        hint = f'did you mean {near[0]}? '
    return f'unknown data set {source!r}; {hint}there are {", ".join(names)}, dir:PATH, npz:PATH'


def _only(split, name, splits=('train',)):
    if split not in splits:
        raise DataError(f'{name} has no split {split!r}; it has {", ".join(splits)}')


def _bundled(package, path):
    """A picture inside an installed package, read as a file: no import, and never a download."""
    import importlib.util

    from lecture4.data.sources import files

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f'{package} is not installed and its pictures are wanted; install lecture4')
    return files.read_image(pathlib.Path(spec.submodule_search_locations[0]) / path)


def _photos(split):
    _only(split, 'photos')
    return checked('photos', [_bundled(package, path) for package, path in PHOTOS])


def _textures(split):
    _only(split, 'textures')
    images = [_bundled('skimage', f'data/{name}.png') for name in TEXTURES]
    return checked('textures', images, np.arange(len(TEXTURES)), TEXTURES)


def _digits(split):
    rows = {
        'train': slice(None, -DIGITS_TEST),
        'test': slice(-DIGITS_TEST, None),
        'all': slice(None),
    }
    _only(split, 'digits', tuple(rows))
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (np.asarray(pixels).reshape(-1, 8, 8) / 16).astype(np.float32)  # exact: sixteenths
    return checked('digits', images[rows[split]], labels[rows[split]], range(10))


def _olshausen(split, manual_dir):
    _only(split, 'olshausen')
    file = 'IMAGES_whitened_10x512x512_float32.npy'
    path = archives.locate(manual_dir, 'olshausen', [file]).get(file)
    if path is None:
        raise DataError(
            'olshausen cannot be downloaded; run with --manual_dir PATH where PATH or '
            f'PATH/olshausen holds {file} (IMAGES.mat of their sparsenet page, as [10, 512, 512])'
        )
    from lecture4.data.sources import files

    images = files.read_npy(path)
    if images.shape != (10, 512, 512) or images.dtype != np.float32:
        raise DataError(
            f'{path} holds {images.dtype} {images.shape}, wanted float32 (10, 512, 512); '
            'fetch or convert it again'
        )
    return checked('olshausen', images)
