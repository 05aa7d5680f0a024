"""Whitening of images: the resulting spectrum, and what is refused."""

import numpy as np
import pytest

from lecture4.data import sources
from lecture4.data.images import whiten
from lecture4.data.images.crops import to_grayscale


def radial(image):
    """Mean power in rings of 0.04 cycles per pixel, from 0.02 on."""
    h, w = image.shape[:2]
    power = np.abs(np.fft.fft2(image[:, :, 0])) ** 2
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    ring = ((frequency - 0.02) // 0.04).astype(int)
    return np.array([power[ring == i].mean() for i in range(9)])


def test_a_one_over_f_spectrum_becomes_the_low_pass_alone():
    h = w = 128
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    phase = np.angle(np.fft.fft2(np.random.default_rng(0).standard_normal((h, w))))
    amplitude = np.where(frequency > 0, 1 / np.where(frequency > 0, frequency, 1), 0)
    image = np.fft.ifft2(amplitude * np.exp(1j * phase)).real[:, :, None]
    (white,) = whiten.whiten([image.astype(np.float32)])
    amplitude = np.abs(np.fft.fft2(white[:, :, 0]))
    expected = np.exp(-((frequency / 0.39) ** 4))
    inside = frequency > 0
    ratio = amplitude[inside] / expected[inside]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-3)


def test_natural_images_get_a_flat_spectrum():
    images = to_grayscale(sources.load('photos').images)
    for image, white in zip(images, whiten.whiten(images), strict=True):
        before, after = radial(image), radial(white)
        assert before[0] / before[6] > 30  # 0.04 against 0.28 cycles per pixel
        assert after.max() / after[:7].min() < 0.2 * before[0] / before[6]
        assert white.dtype == np.float32
        np.testing.assert_allclose([white.mean(), white.var()], [0, 1], atol=1e-4)


def test_a_constant_image_becomes_zero():
    (white,) = whiten.whiten(np.full((1, 9, 7, 1), 0.3, np.float32))
    assert not white.any()


def test_sets_that_are_whitened_already_are_only_standardized():
    image = np.random.default_rng(0).normal(3, 5, (8, 9, 1))
    (scaled,) = whiten.standardize([image])
    np.testing.assert_allclose(scaled, (image - image.mean()) / image.std())
    (still,) = whiten.standardize([np.ones((4, 4, 1))])
    assert not still.any()


@pytest.mark.parametrize(
    'images, cutoff, message',
    [
        ([np.zeros((8, 8, 3))], 0.39, 'image 0: expected shape'),
        ([np.zeros((8, 8, 1))], 0.0, 'positive cutoff in cycles per pixel, got 0.0'),
    ],
)
def test_color_images_and_cutoff_0_are_refused(images, cutoff, message):
    with pytest.raises(ValueError, match=message):
        whiten.whiten(images, cutoff)


def test_whitened_patches_are_white_and_repeat():
    images = np.random.default_rng(3).uniform(size=(2, 12, 12, 1)).astype(np.float32)
    options = {'contrast_epsilon': 0.01, 'zca_epsilon': 0.0}
    x, whitening = whiten.whitened_patches(images, 400, 2, 5, **options)
    assert x.shape == (400, 4) and whitening.matrix.shape == (4, 4)
    again, _ = whiten.whitened_patches(images, 400, 2, 5, **options)
    np.testing.assert_array_equal(x, again)
    # Contrast normalization removes the mean: three directions of variance 1 are left.
    values = np.linalg.eigvalsh(np.cov(np.asarray(x).T))
    np.testing.assert_allclose(values[1:], 1, atol=0.02)


def test_loaded_images_are_whitened_or_standardized_and_lose_their_borders(tmp_path):
    image = np.random.default_rng(0).uniform(size=(1, 12, 14, 1)).astype(np.float32)
    np.savez(tmp_path / 'set.npz', train_images=image, train_labels=np.array([0]))
    source = f'npz:{tmp_path / "set.npz"}'
    white = whiten.load_whitened(source, margin=2)
    np.testing.assert_array_equal(white.images[0], whiten.whiten(image)[0][2:-2, 2:-2])
    assert white.labels.tolist() == [0]
    plain = whiten.load_whitened(source, is_white=True).images[0]
    np.testing.assert_allclose(plain, (image[0] - image.mean()) / image.std(), atol=1e-5)
