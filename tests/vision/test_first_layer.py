"""Aliasing and reconstruction of first layers, against the theory of sampling."""

import numpy as np
import pytest

from lecture4.vision import first_layer
from lecture4.vision.first_layer import FirstLayer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('stride', [2, 4])
def test_outputs_have_the_folded_frequency_of_a_grating(stride):
    layer, kernel = FirstLayer(3, stride), RNG.normal(size=(3, 3, 1, 4)).astype(np.float32)
    frequencies = np.array([0.05, 0.11, 0.2, 0.31, 0.45])
    folded = abs(frequencies - np.round(frequencies * stride) / stride)
    measured = first_layer.output_frequencies(layer, kernel, frequencies)
    np.testing.assert_allclose(measured, folded, atol=0.006)


def test_aliased_power_is_that_above_the_nyquist_frequency():
    image = first_layer.grating(64, 12 / 64)[..., None, None]  # 0.1875 cycles per pixel
    assert first_layer.aliased_fraction(FirstLayer(64, 2), image) < 1e-6
    assert first_layer.aliased_fraction(FirstLayer(64, 4), image) > 1 - 1e-6


def test_bands_of_gratings():
    frequencies = (2 / 64, 10 / 64, 25 / 64, 26 / 64)
    kernel = np.stack([first_layer.grating(64, f) for f in frequencies], -1)[:, :, None]
    assert first_layer.band_fractions(kernel) == (0.25, 0.5)


@pytest.mark.parametrize('layer', [FirstLayer(5, 2), FirstLayer(4, 4)])
def test_overcomplete_outputs_recover_the_image(layer):
    """As many filters as pixels of a window: every window alone determines its pixels."""
    size = layer.kernel_size
    kernel = RNG.normal(size=(size, size, 1, size**2)).astype(np.float32)
    x = RNG.normal(size=(40, 20, 20, 1)).astype(np.float32)

    def outputs(images):
        return layer.responses(kernel, images)

    images, inside = first_layer.reconstruct(layer, outputs, x[:30], x[30:])
    assert images.shape == inside.shape and np.mean((images - inside) ** 2) < 0.01
    np.testing.assert_array_equal(inside[0, 0, 0], x[30, _offset(layer), _offset(layer)])


def _offset(layer):
    window = -(-(layer.kernel_size + 3) // layer.stride)
    return ((window - 1) * layer.stride + layer.kernel_size - 4) // 2


def test_too_few_outputs_lose_the_image():
    layer = FirstLayer(4, 4)
    kernel = RNG.normal(size=(4, 4, 1, 4)).astype(np.float32)  # a quarter of the values
    x = RNG.normal(size=(60, 20, 20, 1)).astype(np.float32)
    images, inside = first_layer.reconstruct(
        layer, lambda images: layer.responses(kernel, images), x[:40], x[40:]
    )
    assert 0.6 < np.mean((images - inside) ** 2) < 0.9  # 3 / 4 of the variance is lost


def test_error_by_frequency_is_that_of_the_missing_gratings():
    gratings = [first_layer.grating(48, f, phase=1.0)[None, ..., None] for f in (0.1, 0.3)]
    centers, ratios = first_layer.error_by_frequency(gratings[0], sum(gratings), num_bands=5)
    np.testing.assert_allclose(centers, [0.05, 0.15, 0.25, 0.35, 0.45])
    assert ratios[:2].max() < 0.01 and ratios[2:4].min() > 0.99
