"""Images that come with scikit-learn and scikit-image: no downloads.

They are read as files, so that these packages are not imported (except for the digits).
"""

import importlib.util
import pathlib

import numpy as np
from jaxtyping import UInt8

from lecture4.data.dataset import DataError, Dataset, validate
from lecture4.data.sources.decode import read_image

# Photographs among the bundled images, of things in daylight or indoors. Left out: drawings, text,
# charts, microscopy and astronomy, and motorcycle_right (motorcycle_left from another viewpoint).
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
NUM_TEST_DIGITS = 500  # number of test digits: the last of the 1797 in scikit-learn's order


def photos() -> Dataset:
    """Nine unlabeled photographs, uint8, at least 300 pixels high and wide."""
    return validate('photos', [_read(package, path) for package, path in PHOTOS])


def textures() -> Dataset:
    """Brick, grass and gravel of scikit-image, uint8 [3, 512, 512, 1], labeled."""
    images = [_read('skimage', f'data/{name}.png') for name in TEXTURES]
    return validate('textures', images, np.arange(len(TEXTURES)), TEXTURES)


def digits(split: str) -> Dataset:
    """scikit-learn's digits, float32 [n, 8, 8, 1]: the stored 0..16 divided by 16.

    Args:
      split: 'train' (the first 1297), 'test' (the last 500) or 'all'.
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (np.asarray(pixels).reshape(-1, 8, 8) / 16).astype(np.float32)  # exact: sixteenths
    rows = {
        'train': slice(None, -NUM_TEST_DIGITS),
        'test': slice(-NUM_TEST_DIGITS, None),
        'all': slice(None),
    }[split]
    return validate('digits', images[rows], labels[rows], range(10))


def _read(package: str, path: str) -> UInt8[np.ndarray, 'h w c']:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f'{package}, which has {path}, is not installed; install lecture4')
    return read_image(pathlib.Path(spec.submodule_search_locations[0]) / path)
