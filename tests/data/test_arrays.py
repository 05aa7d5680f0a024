"""Arrays in .npz files: names, forms, and files that are broken."""

import numpy as np
import pytest

from lecture4.data import sources
from lecture4.data.dataset import DataError


@pytest.mark.parametrize(
    ('keys', 'splits'),
    [
        (('images', 'labels'), ['train']),
        (('x_train', 'y_train', 'x_test', 'y_test'), ['train', 'test']),
        (('train_images', 'train_labels', 'valid_images', 'valid_labels'), ['train', 'valid']),
    ],
)
def test_npz_keys(tmp_path, keys, splits):
    arrays = {
        key: np.full((i + 1, 4, 4), i, np.uint8) if i % 2 == 0 else np.arange(i)[:, None]
        for i, key in enumerate(keys)
    }
    np.savez(tmp_path / 'x.npz', **arrays)
    for i, split in enumerate(splits):
        data = sources.load(f'npz:{tmp_path}/x.npz', split)
        assert data.images.shape == (2 * i + 1, 4, 4, 1) and (data.images == 2 * i).all()
        np.testing.assert_array_equal(data.labels, np.arange(2 * i + 1))
    with pytest.raises(DataError, match=f'no split .other.; it has {", ".join(splits)}'):
        sources.load(f'npz:{tmp_path}/x.npz', 'other')


def test_npz_names_and_missing_labels(tmp_path):
    images = np.zeros((2, 4, 4), np.float16)
    np.savez(tmp_path / 'a.npz', images=images, labels=[1, 0], names=['cat', 'dog'])
    data = sources.load(f'npz:{tmp_path}/a.npz')
    assert data.class_names == ('cat', 'dog') and data.images.dtype == np.float32
    np.savez(tmp_path / 'a.npz', images=images, labels=[1, 0], class_names=['cat', 'dog'])
    assert sources.load(f'npz:{tmp_path}/a.npz').class_names == ('cat', 'dog')
    np.savez(tmp_path / 'b.npz', images=images)
    assert sources.load(f'npz:{tmp_path}/b.npz').labels is None


def test_bad_npz(tmp_path):
    path = tmp_path / 'x.npz'
    with pytest.raises(DataError, match='not a file'):
        sources.load(f'npz:{path}')
    np.savez(path, photos=np.zeros(3))
    with pytest.raises(DataError, match='has no images; expected images'):
        sources.load(f'npz:{path}')
    np.savez(path, images=np.array([None, {}], object))
    with pytest.raises(DataError, match='arrays of numbers only'):
        sources.load(f'npz:{path}')
    np.savez(path, images=np.zeros((9, 40, 40)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r'x\.npz cannot be read as \.npz'):
        sources.load(f'npz:{path}')
    np.save(tmp_path / 'y.npy', np.zeros((9, 4, 4)))
    (tmp_path / 'y.npy').rename(path)
    with pytest.raises(DataError, match=r'x\.npz cannot be read as \.npz'):
        sources.load(f'npz:{path}')
