"""Images as vectors: splits, shapes, and what is refused."""

import numpy as np
import pytest

from lecture4.data.dataset import DataError
from lecture4.data.images import vectors


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (('train', 12), ('test', 6)):
        arrays[f'{split}_images'] = rng.uniform(size=(n, 3, 4, 1)).astype(np.float32)
        arrays[f'{split}_labels'] = np.arange(n) % 2
    np.savez(tmp_path / 'set.npz', **arrays)
    return f'npz:{tmp_path / "set.npz"}', arrays


def test_splits_are_flattened_in_their_order(source):
    name, arrays = source
    loaded = vectors.load_splits(name, in_unit_interval=True)
    np.testing.assert_array_equal(loaded.train, arrays['train_images'].reshape(12, 12))
    np.testing.assert_array_equal(loaded.test_labels, arrays['test_labels'])
    assert loaded.image_shape == (3, 4, 1) and len(loaded.class_names) == 2


def test_labeled_images_are_grouped_by_class(source):
    loaded = vectors.load_labeled(source[0])
    assert loaded.train_labels.tolist() == [0] * 6 + [1] * 6
    assert loaded.train.shape == (12, 12) and loaded.test.shape == (6, 12)


def test_shuffled_parts_are_disjoint_and_labeled(source):
    splits, names, shape = vectors.load_shuffled(source[0], {'train': 10, 'test': 8}, seed=1)
    assert list(splits) == ['train', 'test'] and len(names) == 2 and shape == (3, 4)
    rows = np.concatenate([x for x, _ in splits.values()])
    assert len(np.unique(rows, axis=0)) == 18
    arrays = source[1]
    whole = np.concatenate([arrays['train_images'], arrays['test_images']]).reshape(18, 12)
    labels = np.concatenate([arrays['train_labels'], arrays['test_labels']])
    for x, own in splits.values():
        for row, label in zip(x, own, strict=True):
            assert labels[(whole == row).all(1)] == [label]


def test_pixels_outside_the_unit_interval_are_refused_where_they_matter():
    images = np.full((2, 2, 2, 1), 1.5, np.float32)
    with pytest.raises(ValueError, match=r'ink lies in \[1.5, 1.5\]'):
        vectors.flatten('ink', images)
    assert vectors.flatten('ink', images, in_unit_interval=False).shape == (2, 4)


def test_unlabeled_images_take_the_size_of_square_ones(source):
    like = np.zeros((1, 5, 5, 1), np.float32)
    assert vectors.load_unlabeled_like(like, source[0], 7).shape == (7, 25)
    with pytest.raises(DataError, match='labeled images are 3 x 4, expected squares'):
        vectors.load_unlabeled_like(np.zeros((1, 3, 4, 1), np.float32), source[0], 7)
