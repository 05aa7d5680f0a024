"""German traffic signs (GTSRB), 32 x 32 x 3: every second training frame, and the whole test set.

They are read from two zip archives and two tables in manual_dir, and kept in memory (99 MB):

    {train,test}.zip      sheets of 50 columns and at most 20 rows of 32 x 32 pixels, AVIF (Pillow 11.3 or newer
                          reads it); image k is in row k // 50 and column k % 50 of all sheets in a row
    {train,test}.csv.gz   a line for each image, its last column the class

The images are from a copy that was resized to 32 x 32 (bilinear, without preserving the aspect ratio, including the
margin around the sign) and compressed again at about 34 dB. Published results use the original sizes and twice the
training set.

References:
  Stallkamp et al., Neural Networks 32, 2012.
"""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike

import numpy as np
from jaxtyping import Int32, UInt8

from lecture4.data.dataset import DataError, Dataset, SplitError, validate
from lecture4.data.sources import archives

IMAGE_SIZE, COLUMNS = 32, 50
REPOSITORY = 'https://github.com/hergerr/traffic-sign-recognition'
SHA256 = {
    'train.zip': (5858356, '19c4f81e48b7ac242c443261d60f5904f94a4add90ec95cb3d283116265903f0'),
    'train.csv.gz': (135935, '1e7cb38f9d2f63aa3317786cee1712046f9ad76bea2bca47bfb9dfd4ad9c4489'),
    'test.zip': (3812677, '579e0c91205029dcd5325afa4aefcbef3c873c1fd7c60d50ff0a1797e9ac3759'),
    'test.csv.gz': (99277, '07e0c1465e0d866d037d48e3f67f30996d73f9e968df0ff8f94224cf45343be4'),
}
PINS = {name: archives.Pin(name, REPOSITORY, *known) for name, known in SHA256.items()}
SPLITS = ('train', 'test')
CLASS_NAMES = (
    'speed limit 20', 'speed limit 30', 'speed limit 50', 'speed limit 60', 'speed limit 70',
    'speed limit 80', 'end of speed limit 80', 'speed limit 100', 'speed limit 120', 'no passing',
    'no passing for trucks', 'right of way', 'priority road', 'yield', 'stop', 'no vehicles', 'no trucks',
    'no entry', 'danger', 'curve to the left', 'curve to the right', 'double curve', 'bumpy road',
    'slippery road', 'road narrows', 'road work', 'traffic signals', 'pedestrians', 'children', 'bicycles',
    'snow', 'wild animals', 'end of all limits', 'turn right', 'turn left', 'ahead only',
    'straight or right', 'straight or left', 'keep right', 'keep left', 'roundabout', 'end of no passing',
    'end of no passing for trucks',
)  # fmt: skip


def load(
    split: str,
    manual_dir: str | PathLike[str] | None,
    pins: Mapping[str, archives.Pin] | None = None,
) -> Dataset:
    """The images and labels of a split, in the original order (training: class, track, frame).

    Frames of one track are nearly equal: never divide a track between training and validation.

    Args:
      split: 'train' or 'test'.
      manual_dir: Directory of the files.
      pins: Checksums of the files; by default `PINS`.

    Raises:
      DataError: The split is unknown; or a file is missing (the message says which), altered, or cannot be read.
    """
    if split not in SPLITS:
        raise SplitError(f'gtsrb has no split {split!r}; it has {", ".join(SPLITS)}')
    known = [(pins or PINS)[f'{split}.{suffix}'] for suffix in ('zip', 'csv.gz')]
    paths = archives.locate(manual_dir, 'gtsrb', known)
    if missing := [pin.file for pin in known if pin.file not in paths]:
        raise DataError(
            f'gtsrb cannot be downloaded as sheets; run with --manual_dir PATH where PATH or PATH/gtsrb '
            f'has {" and ".join(missing)} (made of {REPOSITORY})'
        )
    for pin in known:
        archives.verify(paths[pin.file], pin)
    labels = read_labels(paths[known[1].file])
    return validate('gtsrb', read_sheets(paths[known[0].file], len(labels)), labels, CLASS_NAMES)


def read_labels(path: str | PathLike[str]) -> Int32[np.ndarray, ' n']:
    """The classes in the last column of a table.

    Raises:
      DataError: The table cannot be read.
    """
    try:
        with gzip.open(path, 'rt', newline='', encoding='utf-8') as file:
            return np.array([int(row['class']) for row in csv.DictReader(file)], np.int32)
    except (OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise DataError(f'{path} cannot be read ({error}); replace it') from error


def read_sheets(path: str | PathLike[str], n: int) -> UInt8[np.ndarray, 'n 32 32 3']:
    """The first n tiles of all sheets of an archive, in order of their names.

    Raises:
      DataError: The archive cannot be read, a sheet is of another size, or there are fewer than n tiles.
    """
    from PIL import Image

    tiles = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                sheet = np.asarray(Image.open(io.BytesIO(archive.read(member))).convert('RGB'))
                h, w, _ = sheet.shape
                if h % IMAGE_SIZE or w != COLUMNS * IMAGE_SIZE:
                    raise DataError(
                        f'{path}: {member} is {h} x {w}; expected rows of {COLUMNS} images of '
                        f'{IMAGE_SIZE} x {IMAGE_SIZE}'
                    )
                rows = sheet.reshape(h // IMAGE_SIZE, IMAGE_SIZE, COLUMNS, IMAGE_SIZE, 3)
                tiles.append(rows.swapaxes(1, 2).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3))
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f'{path} cannot be read ({error}); replace it, or install Pillow 11.3 or newer for AVIF'
        ) from error
    images = np.concatenate(tiles)[:n] if tiles else np.empty((0, 32, 32, 3), np.uint8)
    if len(images) < n:
        raise DataError(f'{path} has {len(images)} images, its table {n} lines; replace both')
    return images
