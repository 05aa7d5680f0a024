"""CIFAR-10 color images. Krizhevsky, Learning multiple layers of features, 2009.

50,000 training and 10,000 test images of ten classes, 32 x 32 x 3, uint8. Written without
TensorFlow, from either of two forms:

    cifar-10-binary.tar.gz      the original archive, in its own order: what --download fetches
    {train,test}_NN.webp, .csv  the same images, lossless, in sheets of 50 columns of 32 x 32 pixels;
                                line k of the csv, after its header, is the image in row k // 50 and
                                column k % 50, its first column the label. In order of the sheets,
                                which is not the archive's. Only from manual_dir.

An image is a uint8 Tensor stored as its raw bytes.
"""

import csv
import functools
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from os import PathLike

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, decode
from lecture4.data.sources.builders.pinned import PinnedBuilder

IMAGE_SIZE, COLUMNS = 32, 50
ARCHIVE = 'cifar-10-binary.tar.gz'
FOLDER = 'cifar-10-batches-bin'
MEMBERS = {'train': [f'data_batch_{i}.bin' for i in range(1, 6)], 'test': ['test_batch.bin']}
CLASS_NAMES = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip


class Cifar10(PinnedBuilder, skip_registration=True):
    """Splits train and test; features image uint8 [32, 32, 3] and label."""

    # Its own name: tensorflow-datasets' cifar10 in the same data_dir has another format.
    name = 'lecture4_cifar10'

    @functools.cached_property
    def pins(self) -> tuple[archives.Pin, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The files of one form: the sheets if manual_dir has them all and not the archive."""
        archive = tuple(pin for pin in self.known_pins if pin.file == ARCHIVE)
        sheets = tuple(pin for pin in self.known_pins if pin.file != ARCHIVE)
        paths = archives.locate(self.manual_dir, 'cifar10', self.known_pins)
        complete = sheets and all(pin.file in paths for pin in sheets)
        return sheets if complete and ARCHIVE not in paths else archive

    def _info(self):
        return self.image_info(
            (IMAGE_SIZE, IMAGE_SIZE, 3),
            tfds.features.ClassLabel(names=CLASS_NAMES),
            description='Small color images of animals and vehicles.',
            homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
        )

    def _split_generators(self, dl_manager):
        paths = archives.obtain(dl_manager, 'cifar10', self.pins, self.manual_dir)
        return {split: self._generate_examples(split, paths) for split in MEMBERS}

    def _generate_examples(self, split, paths):
        if ARCHIVE in paths:
            parts = read_archive(paths[ARCHIVE], split)
        else:
            sheets = sorted(f for f in paths if f.startswith(split) and f.endswith('.webp'))
            parts = (read_sheet(paths[f], paths[f.replace('.webp', '.csv')]) for f in sheets)
        number = 0
        for images, labels in parts:
            for image, label in zip(images, labels, strict=True):
                yield number, {'image': image, 'label': int(label)}
                number += 1


def read_archive(
    path: str | PathLike[str], split: str
) -> Iterator[tuple[UInt8[np.ndarray, 'n 32 32 3'], UInt8[np.ndarray, ' n']]]:
    """Yield the images and labels of each binary file of a split.

    Format: a record is the label in one byte, then 1024 bytes each of red, green and blue.

    Raises:
      DataError: The archive cannot be read, or a file has an incomplete record.
    """
    record = 1 + 3 * IMAGE_SIZE * IMAGE_SIZE
    try:
        with tarfile.open(path, 'r:gz') as archive:
            for member in MEMBERS[split]:
                stream = archive.extractfile(f'{FOLDER}/{member}')
                data = stream.read() if stream else b''
                if not data or len(data) % record:
                    raise DataError(
                        f'{path}: {member} has {len(data)} bytes, expected a multiple of {record}'
                    )
                rows = np.frombuffer(data, np.uint8).reshape(-1, record)
                planes = rows[:, 1:].reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
                yield planes.transpose(0, 2, 3, 1), rows[:, 0]
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise DataError(f'{path} cannot be read ({error}); download it again') from error


def read_sheet(
    image_path: str | PathLike[str], csv_path: str | PathLike[str]
) -> tuple[UInt8[np.ndarray, 'n 32 32 3'], UInt8[np.ndarray, ' n']]:
    """The images and labels of one sheet and its csv.

    Raises:
      DataError: The sheet is not in color, or has other than the n tiles that the csv lists.
    """
    with pathlib.Path(csv_path).open(newline='', encoding='utf-8') as file:
        labels = np.array([int(row['label']) for row in csv.DictReader(file)], np.uint8)
    sheet = decode.read_image(image_path)
    rows = -(-len(labels) // COLUMNS)
    if sheet.shape != (rows * IMAGE_SIZE, COLUMNS * IMAGE_SIZE, 3):
        raise DataError(
            f'{image_path} is {" x ".join(map(str, sheet.shape))} and {csv_path} has {len(labels)} '
            f'lines, expected {rows * IMAGE_SIZE} x {COLUMNS * IMAGE_SIZE} x 3; download both again'
        )
    tiles = (
        sheet.reshape(rows, IMAGE_SIZE, COLUMNS, IMAGE_SIZE, 3)
        .swapaxes(1, 2)
        .reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    return tiles[: len(labels)], labels
