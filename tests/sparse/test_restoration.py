"""Sets of pictures spoiled and recovered: the numbers are those of the pictures, whatever their sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import recovery, restoration


def pictures():
    """Two pictures of flat parts and edges, of different sizes."""
    made = []
    for h, w in ((30, 26), (24, 33)):
        image = np.full((h, w), 0.3, np.float32)
        image[:, w // 2 :] = 0.7
        image[h // 2 :] += 0.15
        made.append(image)
    return made


def steps(size=4):
    """Atoms: a patch cut by one vertical or one horizontal line."""
    atoms = []
    for i in range(1, size):
        step = np.where(np.arange(size) < i, 1.0, 0.0)
        atoms += [np.tile(step, (size, 1)).ravel(), np.tile(step[:, None], (1, size)).ravel()]
    D = np.stack(atoms, 1)
    D = D - D.mean(0)
    return jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)


def test_noise_and_holes_are_functions_of_the_seed_and_have_their_size():
    images = [np.full((80, 90), 0.5, np.float32), np.full((70, 60), 0.5, np.float32)]
    first, again, other = (restoration.noisy(images, 25, seed) for seed in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.std(np.asarray(one)) == pytest.approx(25 / 255, rel=0.05)
        assert abs(np.mean((one - 0.5) * (three - 0.5))) < 5e-4
    assert restoration.mean_psnr(first, images) == pytest.approx(20 * np.log10(255 / 25), abs=0.3)
    holed = restoration.holed(images, 0.3, 0)
    for image in holed:
        assert np.isnan(image).mean() == pytest.approx(0.3, abs=0.03)
        assert set(image[~np.isnan(image)]) == {0.5}


def test_values_beyond_black_and_white_are_cut_off():
    truth = jnp.asarray([[0.0, 1.0]])
    assert restoration.clipped_psnr(jnp.asarray([[-3.0, 1.1]]), truth) == np.inf
    assert restoration.clipped_psnr(jnp.asarray([[-3.0, 0.9]]), truth) == pytest.approx(
        -10 * np.log10(0.01 / 2)
    )


@pytest.mark.slow
def test_denoising_helps_and_the_gain_that_scores_best_is_a_real_one():
    images, D = pictures(), steps()
    spoiled = restoration.noisy(images, 20, 3)
    found = restoration.denoise(spoiled, D, 20, 1.1, size=4)
    assert restoration.mean_psnr(found, images) > restoration.mean_psnr(spoiled, images) + 5
    alone = recovery.denoise(spoiled[1], D, 20 / 255, size=4, gain=1.1)
    np.testing.assert_allclose(found[1], alone, atol=1e-6)
    gains = (0.2, 1.1, 6.0)
    tried = restoration.gain_curve(images, D, 20, gains, size=4, seed=3)
    assert np.argmax(tried) == 1
    assert tried[1] == pytest.approx(restoration.mean_psnr(found, images), abs=1e-4)


def test_a_dictionary_adapted_to_the_picture_beats_one_of_noise():
    images = pictures()[:1]
    rng = np.random.default_rng(0)
    D = rng.standard_normal((16, 12))
    D = D - D.mean(0)
    D = jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)
    spoiled = restoration.noisy(images, 15, 0)
    own = restoration.adapt(spoiled, D, 15, size=4, weight=1.5, n_steps=25, seed=0, batch_size=200)
    assert len(own) == 1 and own[0].shape == D.shape
    before, after = (
        restoration.mean_psnr(restoration.denoise(spoiled, atoms, 15, 1.1, size=4), images)
        for atoms in (D, own)
    )
    assert after > before + 1


def test_inpainting_takes_holes_from_nan():
    images = pictures()
    filled = restoration.inpaint(restoration.holed(images, 0.4, 1), steps(), 1e-3, size=4)
    assert restoration.mean_psnr(filled, images) > 30
    assert all(np.isfinite(image).all() for image in filled)


def test_compression_is_exact_with_all_coefficients_and_best_with_the_right_atoms():
    images = pictures()[:1]
    signals = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    signals -= signals.mean(1, keepdims=True)
    found = restoration.compress(images, steps(), signals, (2, 15), size=4)
    assert set(found) == {'learned', 'PCA', 'DCT'}
    for values in found.values():
        assert values.shape == (2, 1) and values[1] > values[0] - 1e-3
    assert found['PCA'][1] > 60 and found['DCT'][1] > 60
    assert found['learned'][0] > 60  # an edge each way at most
    assert found['PCA'][0] < 45 and found['DCT'][0] < 45
