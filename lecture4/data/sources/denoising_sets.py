"""The grayscale images of denoising papers: BSD400 for training, Set12 and BSD68 for testing.

They are read from zip archives in manual_dir, which are the folders data/train, data/Set12 and data/Set68 of
github.com/SaoYan/DnCNN-PyTorch, each zipped, and kept in memory (40 MB at most).
"""

import io
import zipfile
from collections.abc import Mapping
from os import PathLike

import numpy as np
from PIL import Image

from lecture4.data.dataset import DataError, Dataset, SplitError, validate
from lecture4.data.sources import archives

REPOSITORY = 'https://github.com/SaoYan/DnCNN-PyTorch'
# Checksums of one zip archive of each folder; other archives are accepted by their contents.
PINS = {
    'bsd400': archives.Pin(
        'train.zip',
        REPOSITORY + '/tree/master/data/train',
        8287397,
        'd944eee66d463d2c5eec6241835f536230f6cf28506fb59424363cda1fef719f',
        'fe09282c0d0a4e2babf09b924617e00e4bffa6e567d5846fb14b0099b05ec919',
        8242575,
    ),
    'set12': archives.Pin(
        'Set12.zip',
        REPOSITORY + '/tree/master/data/Set12',
        1197127,
        'bb6633ebb60f913e2afdf3e706a7835aac08bb9df00737eee410756c4f6fd8aa',
        '550467952bd13a2afc29a2e454e07691cca900a227e8eac0078dae277013b699',
        1195905,
    ),
    'bsd68': archives.Pin(
        'Set68.zip',
        REPOSITORY + '/tree/master/data/Set68',
        6458107,
        'be1ee04cb0cca14226a6e4bd1bdf322b885b83b9c673bb5b7062faced363adda',
        'da6aa2c6a077b83dc5844e7714dde5c7b035de29c460f58ecc80581bf4f5538d',
        6450605,
    ),
}


def load(
    name: str,
    split: str,
    manual_dir: str | PathLike[str] | None,
    pins: Mapping[str, archives.Pin] | None = None,
) -> Dataset:
    """The images of 'bsd400' (180 x 180), 'set12' (256 or 512 square) or 'bsd68' (481 x 321).

    They are unlabeled, uint8, with one channel, in order of their names.

    Args:
      name: Name of one of the three sets.
      split: 'train', as for all sets without splits.
      manual_dir: Directory of the archives.
      pins: Checksums of the archives; by default `PINS`.

    Raises:
      DataError: The archive is missing (the message says which), altered, or has other contents.
    """
    pin = (pins or PINS)[name]
    if split != 'train':
        raise SplitError(f'{name} has no split {split!r}; it has train')
    path = archives.locate(manual_dir, 'bsd_denoising', [pin]).get(pin.file)
    if path is None:
        raise DataError(
            f'{name} cannot be downloaded as one file; run with --manual_dir PATH where PATH or '
            f'PATH/bsd_denoising has {pin.file} (the folder {pin.url}, zipped), or name a copy '
            'of that folder: dir:PATH'
        )
    archives.verify(path, pin)
    with zipfile.ZipFile(path) as archive:
        members = sorted(m for m in archive.namelist() if m.endswith('.png'))
        images = [
            np.asarray(Image.open(io.BytesIO(archive.read(member))).convert('L'))
            for member in members
        ]
    return validate(name, images)
