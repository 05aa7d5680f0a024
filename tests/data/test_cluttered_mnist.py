"""Cluttered MNIST: what is written in a tiny file of its form comes out; the real one where it is."""

import functools
import hashlib

import numpy as np
import pytest

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, prepared
from lecture4.data.sources.builders.cluttered_mnist import builder


@pytest.fixture
def tiny(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for key, n in (('train', 5), ('valid', 2), ('test', 3)):
        arrays[f'X_{key}'] = (rng.integers(257, size=(n, 1600)) / 256).astype(np.float32)
        arrays[f'y_{key}'] = rng.integers(10, size=(n, 1)).astype(np.int32)
    path = tmp_path / builder.FILE
    np.savez_compressed(path, **arrays)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    pin = archives.Pin(builder.FILE, 'http://example.invalid/', len(data), digest)
    make = functools.partial(
        builder.ClutteredMnist, data_dir=tmp_path / 'prepared', manual_dir=tmp_path, pins=(pin,)
    )
    return path, arrays, make


def test_prepared_set_is_what_the_file_holds(tiny):
    _, arrays, make = tiny
    for split, key in builder.SPLITS.items():
        data = prepared.load(make, 'cluttered_mnist', split)
        assert data.images.dtype == np.uint8 and data.images.shape[1:] == (40, 40, 1)
        exact = np.minimum(256 * arrays[f'X_{key}'], 255).reshape(data.images.shape)
        np.testing.assert_array_equal(data.images, exact)
        np.testing.assert_array_equal(data.labels, arrays[f'y_{key}'].ravel())


def test_damaged_file_is_named(tiny):
    path, arrays, _ = tiny
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match='download it again'):
        builder.read_split(path, 'train')
    np.savez(path, X_train=arrays['X_train'][:, :-1], y_train=arrays['y_train'])
    with pytest.raises(DataError, match='1600 pixels'):
        builder.read_split(path, 'train')
    np.savez(path, x=1)
    with pytest.raises(DataError, match='download it again'):
        builder.read_split(path, 'train')


@pytest.mark.data
def test_real_set_has_digits_of_all_classes_and_clutter(manual_dir, tmp_path):
    for split, n in (('train', 10_000), ('validation', 1000), ('test', 1000)):
        data = sources.load('cluttered_mnist', split, data_dir=tmp_path, manual_dir=manual_dir)
        assert data.images.shape == (n, 40, 40, 1)
        assert set(np.unique(data.labels)) == set(range(10))
    ink = (data.images > 127).mean((1, 2, 3))
    assert 0.05 < ink.mean() < 0.2
