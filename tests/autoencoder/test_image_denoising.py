"""Denoised images by hand, the best linear denoiser against the noise that it has to leave."""

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import image_denoising
from lecture4.ops.metrics import psnr


def test_images_denoised_by_nothing_are_unchanged_and_by_their_mean_are_blurred():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 9, 9, 1)), jnp.float32)
    same = image_denoising.denoise_images(images, 4, lambda x: x)
    np.testing.assert_allclose(same, images, atol=1e-6)
    flat = image_denoising.denoise_images(
        images, 3, lambda x: jnp.broadcast_to(x.mean(1, keepdims=True), x.shape)
    )
    # The middle pixel lies in nine patches of three by three, whose means it gets the mean of.
    means = [images[0, r : r + 3, c : c + 3].mean() for r in (2, 3, 4) for c in (2, 3, 4)]
    assert float(flat[0, 4, 4, 0]) == pytest.approx(float(np.mean(means)), rel=1e-5)


def test_the_best_linear_denoiser_leaves_the_noise_of_few_directions():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 16))).astype(np.float32)
    noisy = (x + 0.5 * rng.normal(size=x.shape)).astype(np.float32)
    left = float(((image_denoising.best_linear(x, noisy)(noisy) - x) ** 2).sum(1).mean())
    # In three directions and the mean noise stays, but for what a prior of finite variance takes.
    assert 0.8 * 3 * 0.25 < left < 1.1 * 4 * 0.25


@pytest.mark.parametrize(
    'corruption, name', [('gaussian', 'non-local means'), ('masking', 'median')]
)
def test_records_hold_the_psnr_of_each_image_and_method(corruption, name):
    clean = np.full((2, 12, 12, 1), 0.5, np.float32)
    noise = 0.1 * np.random.default_rng(0).normal(size=clean.shape)
    noisy = (clean + noise).astype(np.float32)
    records, results = image_denoising.compare(
        clean, noisy, {'own': lambda x: x}, patch_size=3, corruption=corruption, level=0.1
    )
    assert list(results) == ['noisy', name, 'own']
    means = {r['method']: r['mean_psnr'] for r in records if 'mean_psnr' in r}
    each = [r['psnr'] for r in records if r['method'] == 'noisy' and 'psnr' in r]
    np.testing.assert_allclose(each, psnr(noisy, clean, axis=(1, 2, 3)), rtol=1e-6)
    assert means['noisy'] == pytest.approx(np.mean(each)) == pytest.approx(means['own'], rel=1e-4)
    assert means[name] > means['noisy'] + 3
