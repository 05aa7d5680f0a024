"""Sets of images corrupted and recovered, of whatever sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import recovery, restoration


def two_images():
    """Two images of flat parts and edges, of different sizes."""
    images = []
    for h, w in ((30, 26), (24, 33)):
        image = np.full((h, w), 0.3, np.float32)
        image[:, w // 2 :] = 0.7
        image[h // 2 :] += 0.15
        images.append(image)
    return images


def steps(size=4):
    """Atoms: a patch cut by one vertical or one horizontal line."""
    atoms = []
    for i in range(1, size):
        step = np.where(np.arange(size) < i, 1.0, 0.0)
        atoms += [np.tile(step, (size, 1)).ravel(), np.tile(step[:, None], (1, size)).ravel()]
    D = np.stack(atoms, 1)
    D = D - D.mean(0)
    return jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)


def test_noise_and_missing_pixels_are_functions_of_the_seed():
    images = [np.full((80, 90), 0.5, np.float32), np.full((70, 60), 0.5, np.float32)]
    first, again, other = (restoration.add_noise(images, 25, seed) for seed in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.std(np.asarray(one)) == pytest.approx(25 / 255, rel=0.05)
        assert abs(np.mean((one - 0.5) * (three - 0.5))) < 5e-4
    assert restoration.mean_psnr(first, images) == pytest.approx(20 * np.log10(255 / 25), abs=0.3)
    incomplete = restoration.remove_pixels(images, 0.3, 0)
    for image in incomplete:
        assert np.isnan(image).mean() == pytest.approx(0.3, abs=0.03)
        assert set(image[~np.isnan(image)]) == {0.5}


def test_values_beyond_black_and_white_are_clipped():
    truth = jnp.asarray([[0.0, 1.0]])
    assert restoration.clipped_psnr(jnp.asarray([[-3.0, 1.1]]), truth) == np.inf
    assert restoration.clipped_psnr(jnp.asarray([[-3.0, 0.9]]), truth) == pytest.approx(
        -10 * np.log10(0.01 / 2)
    )


@pytest.mark.slow
def test_denoising_helps_and_the_best_gain_is_moderate():
    images, D = two_images(), steps()
    noisy = restoration.add_noise(images, 20, 3)
    recovered = restoration.denoise(noisy, D, 20, 1.1, patch_size=4)
    assert restoration.mean_psnr(recovered, images) > restoration.mean_psnr(noisy, images) + 5
    alone = recovery.denoise(noisy[1], D, 20 / 255, patch_size=4, gain=1.1)
    np.testing.assert_allclose(recovered[1], alone, atol=1e-6)
    gains = (0.2, 1.1, 6.0)
    tried = restoration.gain_curve(images, D, 20, gains, patch_size=4, seed=3)
    assert np.argmax(tried) == 1
    assert tried[1] == pytest.approx(restoration.mean_psnr(recovered, images), abs=1e-4)


def test_a_dictionary_adapted_to_the_image_beats_one_of_noise():
    images = two_images()[:1]
    rng = np.random.default_rng(0)
    D = rng.standard_normal((16, 12))
    D = D - D.mean(0)
    D = jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)
    noisy = restoration.add_noise(images, 15, 0)
    own = restoration.adapt_dictionaries(
        noisy, D, 15, patch_size=4, l1_penalty=1.5, n_steps=25, seed=0, batch_size=200
    )
    assert len(own) == 1 and own[0].shape == D.shape
    before, after = (
        restoration.mean_psnr(restoration.denoise(noisy, atoms, 15, 1.1, patch_size=4), images)
        for atoms in (D, own)
    )
    assert after > before + 1


def test_nan_pixels_are_inpainted():
    images = two_images()
    (record,), restored = restoration.measure_inpainting(
        images, steps(), (0.4,), 1e-3, patch_size=4, seed=1
    )
    filled = restored[0.4]['inpainted']
    assert record == {
        'method': 'inpainted',
        'missing': '40%',
        'psnr': restoration.mean_psnr(filled, images),
    }
    assert record['psnr'] > 30
    assert all(np.isfinite(image).all() for image in filled)


def test_compression_is_exact_with_all_coefficients():
    images = two_images()[:1]
    signals = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    signals -= signals.mean(1, keepdims=True)
    records, recovered = restoration.measure_compression(
        images, steps(), signals, (2, 15), patch_size=4
    )
    assert set(recovered) == {'learned', 'PCA', 'DCT'}
    assert records[1] | {'psnr': 0} == {
        'task': 'compression',
        'method': 'learned',
        'non-zeros': 15,
        'psnr': 0,
    }
    for values in recovered.values():
        assert values.shape == (2, 1) and values[1] > values[0] - 1e-3
    assert recovered['PCA'][1] > 60 and recovered['DCT'][1] > 60
    assert recovered['learned'][0] > 60  # at most one edge in each direction
    assert recovered['PCA'][0] < 45 and recovered['DCT'][0] < 45


def test_measured_images_are_recorded_by_method():
    images, D = two_images()[:1], steps()
    records, restored = restoration.measure_denoising(
        images, images, D, (20,), patch_size=4, seed=3, gains=(1.1,), cosines=False
    )
    noisy = restoration.add_noise(images, 20, 3)
    np.testing.assert_array_equal(restored[20]['noisy'][0], noisy[0])
    assert [record['method'] for record in records] == ['noisy', 'learned', 'gain']
    assert records[1]['psnr'] == restoration.mean_psnr(restored[20]['learned'], images)
    assert records[1]['psnr'] > records[0]['psnr'] + 5
    assert records[2] == {'task': 'denoising', 'sigma': 20, 'method': 'gain', 'gain': 1.1}


def test_published_numbers_are_those_of_the_noise():
    records = restoration.published_denoising('set12', (25, 30))
    assert [(r['method'], r['sigma'], r['psnr']) for r in records] == [
        ('BM3D (published)', 25, 29.97),
        ('DnCNN (published)', 25, 30.44),
    ]
    assert restoration.published_denoising('photos', (25,)) == []
