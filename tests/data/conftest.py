"""Tiny archives in the formats of the real ones, with pins made from them."""

import dataclasses
import functools
import gzip
import hashlib
import io
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from lecture4.data.sources import archives
from lecture4.data.sources.builders.mnist.builder import Mnist
from lecture4.data.sources.builders.omniglot.builder import FILES, Omniglot


@dataclasses.dataclass
class Tiny:
    """Archives of a small set: their folder, their pins, and what is in them."""

    folder: pathlib.Path
    pins: tuple[archives.Pin, ...]
    arrays: dict
    make: functools.partial

    def __getitem__(self, file):
        return self.folder / file

    def pinned(self, url='http://example.invalid/'):
        """Pins of the files as they are now, downloaded from `url`."""
        pins = []
        for pin in self.pins:
            data = self[pin.file].read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            pins.append(pin._replace(url=url + pin.file, size=len(data), sha256=sha256))
        return tuple(pins)


def idx(array):
    lengths = b''.join(n.to_bytes(4, 'big') for n in array.shape)
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + lengths + array.tobytes(), mtime=0)


@pytest.fixture
def tiny_mnist(tmp_path):
    """Five training and three test digits."""
    folder = tmp_path / 'manual'
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for split, prefix, n in (('train', 'train', 5), ('test', 't10k', 3)):
        images = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = rng.integers(10, size=n, dtype=np.uint8)
        (folder / f'{prefix}-images-idx3-ubyte.gz').write_bytes(idx(images))
        (folder / f'{prefix}-labels-idx1-ubyte.gz').write_bytes(idx(labels))
        arrays[split] = images, labels
    files = sorted(path.name for path in folder.iterdir())
    tiny = Tiny(folder, tuple(archives.Pin(f, '', 0, '') for f in files), arrays, None)
    return _with_builder(tiny, Mnist, tmp_path)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).convert('1').save(file, 'png')
    return file.getvalue()


@pytest.fixture
def tiny_omniglot(tmp_path):
    """Two alphabets of two and one characters in train, another in test; two drawers each."""
    folder = tmp_path / 'manual'
    folder.mkdir()
    rng = np.random.default_rng(1)
    drawings = {}

    def drawing(*name):
        if name not in drawings:
            drawings[name] = (rng.integers(2, size=(105, 105), dtype=np.uint8) * 255).astype(
                np.uint8
            )
        return drawings[name]

    greek = [('Greek', 'character01', 11), ('Greek', 'character02', 12)]
    contents = {
        'train': [*greek, ('Braille', 'character01', 3)],
        'test': [('Angelic', 'character01', 20)],
        'small1': greek[:1],
        'small2': greek[1:],
    }
    arrays = {}
    for split, characters in contents.items():
        file = FILES[split]
        arrays[split] = []
        with zipfile.ZipFile(folder / file, 'w', zipfile.ZIP_DEFLATED) as archive:
            top = file.removesuffix('.zip')
            archive.writestr(f'{top}/', b'')
            for alphabet, character, number in characters:
                for drawer in (2, 1):
                    pixels = drawing(number, drawer)
                    member = f'{top}/{alphabet}/{character}/{number:04}_{drawer:02}.png'
                    archive.writestr(member, png(pixels))
                    arrays[split].append((alphabet, character, drawer, pixels))
    pins = []
    for file in sorted(FILES.values()):
        size, digest = archives.content_digest(folder / file)
        pins.append(archives.Pin(file, '', 0, '', digest, size))
    tiny = Tiny(folder, tuple(pins), arrays, None)
    return _with_builder(tiny, Omniglot, tmp_path)


def _with_builder(tiny, builder, tmp_path):
    tiny.pins = tiny.pinned()
    tiny.make = functools.partial(
        builder, data_dir=tmp_path / 'prepared', manual_dir=tiny.folder, pins=tiny.pins
    )
    return tiny
