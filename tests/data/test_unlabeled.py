"""Unlabeled signals: patches, and whole images as vectors."""

import numpy as np
import pytest

from lecture4.data.dataset import DataError
from lecture4.data.images import crops
from lecture4.data.images.loading import load_images
from lecture4.data.images.unlabeled import load_signals


def npz(tmp_path, images):
    path = tmp_path / 'set.npz'
    np.savez(path, images=images, labels=np.zeros(len(images), int))
    return f'npz:{path}'


def test_patches_and_whole_images():
    patches = load_signals('photos', 50, patch_size=6, seed=3)
    assert patches.shape == (50, 36) and patches.min() >= 0 and patches.max() <= 1
    whole = load_signals('digits', 20, image_size=8)
    flat = load_images('digits').images.reshape(-1, 64)
    assert all((flat == row).all(1).any() for row in whole)  # 8 x 8 already: not resampled


def test_dark_strokes_on_a_light_background_are_inverted(tmp_path):
    paper = np.full((4, 9, 9), 255, np.uint8)
    paper[:, 4] = 0
    signals = load_signals(npz(tmp_path, paper), 4, image_size=9)
    assert signals.reshape(4, 9, 9)[0, 4].min() == 1 and signals.mean() < 0.2


def test_resize_keeps_the_mean_and_refuses_color():
    ramp = np.linspace(0, 1, 32, dtype=np.float32)[None, :, None].repeat(32, 0)[None]
    small = crops.resize(ramp, 8)
    assert small.shape == (1, 8, 8, 1)
    np.testing.assert_allclose(small.mean(), 0.5, atol=1e-3)
    np.testing.assert_allclose(np.diff(small[0, 4, 1:-1, 0]), 4 / 31, atol=1e-3)
    with pytest.raises(DataError, match=r'expected images of shape \[height, width, 1\]'):
        crops.resize(np.zeros((1, 4, 4, 3), np.float32), 2)
    with pytest.raises(DataError, match='expected an image_size of at least 1, got 0'):
        load_signals('digits', 2)


def test_color_patches_keep_their_channels(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(6, 9, 9, 3), dtype=np.uint8)
    patches = load_signals(npz(tmp_path, images), 20, patch_size=4, grayscale=False)
    assert patches.shape == (20, 48)
    corners = {tuple(p) for p in (255 * patches.reshape(20, 16, 3)[:, 0]).round().astype(int)}
    assert corners <= {tuple(p) for p in images.reshape(-1, 3)}
    # Whole images are always grayscale.
    assert load_signals('photos', 3, image_size=8, grayscale=False).shape == (3, 64)
