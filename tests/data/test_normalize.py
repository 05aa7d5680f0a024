"""Scales of colours: against means and deviations that numpy computes of the whole set at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.data.images import normalize

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (1100, 3, 4, 3), np.uint8)  # more than are summed at once


def applied(images, found):
    return np.asarray(normalize.normalise(images, found))


def test_standard_gives_every_channel_mean_0_and_deviation_1():
    found = applied(IMAGES, normalize.named('standard', IMAGES, 3))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize('kind, axes', [('mean_colour', (0, 1, 2)), ('mean_picture', 0)])
def test_means_are_subtracted_from_pixels_of_0_to_255(kind, axes):
    found = applied(IMAGES[:20], normalize.named(kind, IMAGES, 3))
    expected = IMAGES[:20] - IMAGES.mean(axes, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_grey_pictures_become_three_equal_channels_and_a_constant_is_left_alone():
    grey = np.repeat(IMAGES[:1, :, :, :1], 5, 0)
    grey[:, 1:] = 0
    found = applied(grey, normalize.named('standard', grey, 3))
    assert found.shape == (5, 3, 4, 3)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    flat = np.full((4, 2, 2, 1), 0.25, np.float32)
    np.testing.assert_array_equal(applied(flat, normalize.named('standard', flat, 3)), 0)
    with pytest.raises(ValueError, match='pictures of 3 channels for a network of 1'):
        normalize.to_unit(IMAGES, 1)


def test_the_published_ones():
    grey = jnp.full((1, 1, 1, 3), 0.5)
    found = normalize.normalise(grey, normalize.named('inception', IMAGES, 3))
    np.testing.assert_array_equal(found, 0)
    caffe = jax.jit(normalize.normalise)(grey, normalize.named('caffe', IMAGES, 3))
    np.testing.assert_allclose(
        caffe.ravel(), 127.5 - np.array([103.939, 116.779, 123.68]), rtol=1e-4
    )
    torch = normalize.normalise(grey, normalize.named('torchvision', IMAGES, 3))
    np.testing.assert_allclose(torch.ravel(), [0.0655, 0.1964, 0.4178], atol=1e-4)
    with pytest.raises(ValueError, match="normalisation 'mean'; standard, mean_colour"):
        normalize.named('mean', IMAGES, 3)
