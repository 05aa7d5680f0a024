"""Normalization: against means and standard deviations that numpy computes of the whole set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.data.images import normalize

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (1100, 3, 4, 3), np.uint8)  # more than are summed at once


def applied(images, normalization):
    return np.asarray(normalize.normalize(images, normalization))


def test_standard_gives_every_channel_mean_0_and_std_1():
    result = applied(IMAGES, normalize.create('standard', IMAGES, 3))
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize('kind, axes', [('mean_color', (0, 1, 2)), ('mean_image', 0)])
def test_means_are_subtracted_from_pixels_of_0_to_255(kind, axes):
    result = applied(IMAGES[:20], normalize.create(kind, IMAGES, 3))
    expected = IMAGES[:20] - IMAGES.mean(axes, keepdims=True)
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_grayscale_becomes_three_channels_and_a_constant_zero():
    gray = np.repeat(IMAGES[:1, :, :, :1], 5, 0)
    gray[:, 1:] = 0
    result = applied(gray, normalize.create('standard', gray, 3))
    assert result.shape == (5, 3, 4, 3)
    np.testing.assert_array_equal(result[..., 0], result[..., 2])
    flat = np.full((4, 2, 2, 1), 0.25, np.float32)
    np.testing.assert_array_equal(applied(flat, normalize.create('standard', flat, 3)), 0)
    with pytest.raises(ValueError, match='images with 3 channels for a network of 1'):
        normalize.to_unit_interval(IMAGES, 1)


def test_published_normalizations():
    gray = jnp.full((1, 1, 1, 3), 0.5)
    result = normalize.normalize(gray, normalize.create('inception', IMAGES, 3))
    np.testing.assert_array_equal(result, 0)
    caffe = jax.jit(normalize.normalize)(gray, normalize.create('caffe', IMAGES, 3))
    np.testing.assert_allclose(
        caffe.ravel(), 127.5 - np.array([103.939, 116.779, 123.68]), rtol=1e-4
    )
    torch = normalize.normalize(gray, normalize.create('torchvision', IMAGES, 3))
    np.testing.assert_allclose(torch.ravel(), [0.0655, 0.1964, 0.4178], atol=1e-4)
    with pytest.raises(
        ValueError, match=r"expected normalization standard, mean_color, .* got 'mean'"
    ):
        normalize.create('mean', IMAGES, 3)
