"""MNIST handwritten digits. LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998.

60,000 training and 10,000 test digits, 28 x 28, uint8, ink 255 on background 0, kept in the order of
the original files. Written without TensorFlow: a digit is a uint8 Tensor stored as its raw bytes
(array_record compresses them: 18 MB for the training digits), so reading needs no image decoder.
"""

import math
from os import PathLike

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives
from lecture4.data.sources.builders.pinned import PinnedBuilder

IMAGE_SIZE = 28


class Mnist(PinnedBuilder, skip_registration=True):
    """Splits train and test; features image uint8 [28, 28, 1] and label."""

    # Its own name: tensorflow-datasets' mnist in the same data_dir has another format.
    name = 'lecture4_mnist'

    def _info(self):
        return self.image_info(
            (IMAGE_SIZE, IMAGE_SIZE, 1),
            tfds.features.ClassLabel(num_classes=10),
            description='Handwritten digits.',
            homepage='http://yann.lecun.com/exdb/mnist/',
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, 'mnist', self.pins, self.manual_dir)
        files = {pin.file: (paths[pin.file], pin) for pin in self.pins}
        return {
            split: self._generate_examples(
                files[f'{file}-images-idx3-ubyte.gz'], files[f'{file}-labels-idx1-ubyte.gz']
            )
            for split, file in (('train', 'train'), ('test', 't10k'))
        }

    def _generate_examples(self, images_file, labels_file):
        (images_path, images_pin), (labels_path, labels_pin) = images_file, labels_file
        images = read_idx(images_path, archives.read_contents(images_path, images_pin), 3)
        labels = read_idx(labels_path, archives.read_contents(labels_path, labels_pin), 1)
        if images.shape != (len(labels), IMAGE_SIZE, IMAGE_SIZE):
            raise DataError(
                f'{images_path} has images of shape {images.shape} and {labels_path} {len(labels)} '
                f'labels; expected one label per image of {IMAGE_SIZE} x {IMAGE_SIZE}'
            )
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {'image': image[..., None], 'label': int(label)}


def read_idx(path: str | PathLike[str], data: bytes, num_axes: int) -> UInt8[np.ndarray, '...']:
    """The uint8 array in the idx format.

    Format: two zero bytes, the type (8: unsigned byte), the number of axes; each axis' length as a
    big-endian 32-bit number; the values in C order.

    Args:
      path: The file, for messages.
      data: Its content.
      num_axes: That the array must have.

    Raises:
      DataError: The data are not such an array, to the last byte.
    """
    start = 4 + 4 * num_axes
    shape = tuple(int.from_bytes(data[i : i + 4], 'big') for i in range(4, start, 4))
    if data[:4] != bytes((0, 0, 8, num_axes)) or len(data) - start != math.prod(shape):
        raise DataError(
            f'{path} is not an idx file of unsigned bytes with {num_axes} axes: it starts with '
            f'{data[:4].hex(" ")}, lengths {shape}, and has {len(data)} bytes; download it again'
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
