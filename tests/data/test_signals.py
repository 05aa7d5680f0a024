import itertools

import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.images import crops, signals


def npz(tmp_path, images, labels):
    path = tmp_path / 'set.npz'
    np.savez(path, images=images, labels=labels)
    return f'npz:{path}'


def test_classes_are_chosen_and_renumbered():
    images, labels, names = signals.grey('digits', 'all', classes=(7, 2))
    everything, all_labels, _ = signals.grey('digits', 'all')
    assert names == ('2', '7')
    assert set(labels) == {0, 1} and labels.dtype == np.int32
    np.testing.assert_array_equal(images[labels == 1], everything[all_labels == 7])
    with pytest.raises(DataError, match='10 classes'):
        signals.grey('digits', classes=(3, 10))


def test_crops_of_the_two_halves_share_no_pixel():
    """Every pixel of a picture of distinct values is in the training crops or in the test ones."""
    found = signals.labelled('textures', crop=64)
    assert found.train_images.shape[1:] == (64, 64, 1)
    assert len(found.train_images) == len(found.test_images) == 3 * 15 * 7
    assert np.bincount(found.train_labels).tolist() == [105, 105, 105]
    image = np.arange(40 * 32, dtype=np.float32).reshape(1, 40, 32, 1)
    left, right = crops.halves(image)
    first, second = (set(crops.grid_crops(half, 8, 4)[0].ravel()) for half in (left, right))
    assert len(first) == len(second) == 40 * 16 and not first & second


def test_own_splits_with_a_pool():
    found = signals.labelled('digits', pool=5, classes=(5, 6), seed=1)
    assert np.bincount(found.train_labels).tolist() == [5, 5]
    again = signals.labelled('digits', pool=5, classes=(5, 6), seed=1)
    other = signals.labelled('digits', pool=5, classes=(5, 6), seed=2)
    np.testing.assert_array_equal(found.train_images, again.train_images)
    assert (found.train_images != other.train_images).any()
    test, _, _ = signals.grey('digits', 'test', classes=(5, 6))
    np.testing.assert_array_equal(found.test_images, test)


def test_unlabelled_sources_have_no_labelled_task():
    with pytest.raises(DataError, match='photos has no labels'):
        signals.labelled('photos', crop=32)


def test_pictures_of_several_sizes_are_cropped_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for split, name, side in itertools.product(('train', 'test'), 'ab', (9, 12)):
        folder = tmp_path / split / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{side}.png')
    with pytest.raises(DataError, match='have different sizes; take crops'):
        signals.labelled(f'dir:{tmp_path}')
    assert signals.labelled(f'dir:{tmp_path}', crop=4).train_images.shape[1:] == (4, 4, 1)


def test_signals():
    patches = signals.signals('photos', 50, patch=6, seed=3)
    assert patches.shape == (50, 36) and patches.min() >= 0 and patches.max() <= 1
    whole = signals.signals('digits', 20, side=8)
    images, _, _ = signals.grey('digits')
    flat = images.reshape(-1, 64)
    assert all((flat == row).all(1).any() for row in whole)  # 8 x 8 already: not resampled


def test_ink_on_paper_is_turned(tmp_path):
    paper = np.full((4, 9, 9), 255, np.uint8)
    paper[:, 4] = 0
    found = signals.signals(npz(tmp_path, paper, np.zeros(4, int)), 4, side=9)
    assert found.reshape(4, 9, 9)[0, 4].min() == 1 and found.mean() < 0.2


def test_resize_keeps_the_mean_and_refuses_colour():
    ramp = np.linspace(0, 1, 32, dtype=np.float32)[None, :, None].repeat(32, 0)[None]
    small = crops.resize(ramp, 8)
    assert small.shape == (1, 8, 8, 1)
    np.testing.assert_allclose(small.mean(), 0.5, atol=1e-3)
    np.testing.assert_allclose(np.diff(small[0, 4, 1:-1, 0]), 4 / 31, atol=1e-3)
    with pytest.raises(DataError, match='wanted'):
        crops.resize(np.zeros((1, 4, 4, 3), np.float32), 2)


def test_colours_are_kept_where_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(6, 9, 9, 3), dtype=np.uint8)
    labels = np.arange(6) % 2
    path = tmp_path / 'set.npz'
    arrays = {'train_images': images, 'train_labels': labels}
    np.savez(path, **arrays, test_images=images[:2], test_labels=labels[:2])
    found = signals.labelled(f'npz:{path}', colour=True)
    np.testing.assert_array_equal(
        found.test_images, images[:2].astype(np.float32) / np.float32(255)
    )
    assert found.train_images.shape == (6, 9, 9, 3)
    assert signals.labelled(f'npz:{path}').train_images.shape == (6, 9, 9, 1)
    patches = signals.signals(f'npz:{path}', 20, patch=4, colour=True)
    assert patches.shape == (20, 48)
    corners = {tuple(p) for p in (255 * patches.reshape(20, 16, 3)[:, 0]).round().astype(int)}
    assert corners <= {tuple(p) for p in images.reshape(-1, 3)}
    assert signals.signals('photos', 3, patch=4, colour=True).shape == (3, 48)
    assert signals.signals('photos', 3, side=8, colour=True).shape == (3, 64)
