"""Unlabeled and labeled images for tests of single neurons: sizes, scale, and which labels belong to which."""

import numpy as np
import pytest

from lecture4.data.images import detector_sets, distorted


def test_distorted_objects_are_standardized_and_keep_their_labels():
    sizes = {'num_images': 30, 'num_labeled': 20}
    sets = detector_sets.load('digits', 'textures', 'RTS', 12, 15, seed=3, **sizes)
    assert sets.unlabeled.shape == (30, 15, 15, 1) and len(sets.class_names) == 10
    corner = sets.unlabeled[:, :12, :12]
    np.testing.assert_allclose([corner.mean(), corner.std()], [0, 1], atol=1e-5)
    assert np.ptp(corner[:, 0, 0]) == 0  # the background
    np.testing.assert_array_equal(sets.unlabeled[:, 12:, :12], np.repeat(corner[:, 11:], 3, 1))
    task = distorted.load('digits', 'RTS', num_train=30, num_test=20, seed=3)
    pixels = task.arrays['x'] / 255
    for (x, labels), (images, expected) in (
        (sets.train, (task.arrays['x'], task.arrays['labels'])),
        (sets.test, (task.evaluation['images'][0], task.evaluation['labels'][0])),
    ):
        np.testing.assert_array_equal(labels, expected[:20])
        scale = 255 if images.dtype == np.uint8 else 1
        images = (images[:20] / scale - pixels.mean()) / pixels.std()
        np.testing.assert_allclose(x, images, atol=1e-4)


def test_distorted_objects_of_another_size_are_refused():
    with pytest.raises(ValueError, match='are 12 x 12, got size 16; use --crop_size 12'):
        sizes = {'num_images': 5, 'num_labeled': 5}
        detector_sets.load('digits', 'textures', 'RTS', 16, 18, **sizes)


def test_whitened_crops_come_from_two_halves_of_labeled_images(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 1)).astype(np.uint8)
    np.savez(tmp_path / 'own.npz', x=images, y=[0, 1, 0, 1, 1, 1])
    own = f'npz:{tmp_path}/own.npz'
    sizes = {'num_images': 9, 'num_labeled': 20}
    sets = detector_sets.load(own, own, 'none', 8, 10, margin=2, cutoff=0.3, **sizes)
    assert sets.unlabeled.shape == (9, 10, 10, 1)
    assert sets.train[0].shape == sets.test[0].shape == (6 * 4 * 11, 8, 8, 1)
    np.testing.assert_array_equal(np.unique(sets.test[1], return_counts=True)[1], [88, 176])
    assert not np.isin(sets.train[0][:, 0, 0, 0], sets.test[0]).any()
    unlabeled = f'npz:{tmp_path}/unlabeled.npz'
    np.savez(tmp_path / 'unlabeled.npz', x=images)
    with pytest.raises(ValueError, match='has no classes; name a labeled set'):
        detector_sets.load(own, unlabeled, 'none', 8, 10, **sizes)
