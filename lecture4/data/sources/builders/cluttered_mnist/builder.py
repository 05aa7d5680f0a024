"""Cluttered MNIST, 40 x 40: a digit anywhere, with five distractors. Sonderby et al., 2015; after Jaderberg et al.

10,000 training, 1000 validation and 1000 test images. The file has multiples of 1/256 up to 1; here they are
uint8 in units of 1/256, and the 1s are 255. The paper's own task is larger (60 x 60) and not published: see the
distortion 'TC' of `lecture4.data.images.distort`.
"""

import zipfile
import zlib
from os import PathLike

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives
from lecture4.data.sources.builders.pinned import PinnedBuilder

IMAGE_SIZE = 40
FILE = 'mnist_sequence1_sample_5distortions5x5.npz'
SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}


class ClutteredMnist(PinnedBuilder, skip_registration=True):
    """Splits train, validation and test; features image uint8 [40, 40, 1] and label."""

    name = 'lecture4_cluttered_mnist'

    def _info(self):
        return self.image_info(
            (IMAGE_SIZE, IMAGE_SIZE, 1),
            tfds.features.ClassLabel(num_classes=10),
            description='Handwritten digits among parts of others.',
            homepage='https://github.com/daviddao/spatial-transformer-tensorflow',
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, 'cluttered_mnist', self.pins, self.manual_dir)
        return {split: self._generate_examples(paths[FILE], split) for split in SPLITS}

    def _generate_examples(self, path, split):
        for i, (image, label) in enumerate(zip(*read_split(path, split), strict=True)):
            yield i, {'image': image, 'label': int(label)}


def read_split(
    path: str | PathLike[str], split: str
) -> tuple[UInt8[np.ndarray, 'n 40 40 1'], Int[np.ndarray, ' n']]:
    """Images and labels of a split of the file at `path`.

    Raises:
      DataError: The file is not such an archive.
    """
    key = SPLITS[split]
    try:
        with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays[f'X_{key}'], arrays[f'y_{key}']
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f'{path} cannot be read ({error}); download it again') from error
    if images.shape != (len(labels), IMAGE_SIZE**2) or labels.size != len(labels):
        raise DataError(
            f'{path} has images of shape {images.shape} and labels of shape {labels.shape} in {split}; '
            f'expected one label per image of {IMAGE_SIZE**2} pixels'
        )
    pixels = np.minimum(np.round(images * 256), 255).astype(np.uint8)
    return pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1), labels.ravel()
