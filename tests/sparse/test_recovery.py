"""Pursuit against scikit-learn, masked codes against its lasso, and images that must be recovered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft
from sklearn import linear_model

from lecture4.ops import metrics
from lecture4.sparse import recovery, solvers
from lecture4.sparse.masked import masked_codes
from lecture4.sparse.recovery import denoise, inpaint
from lecture4.sparse.solvers.pursuit import pursue

RNG = np.random.default_rng(0)


def dictionary(d, k, seed=0):
    D = np.random.default_rng(seed).standard_normal((d, k))
    return jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)


def image_of_steps(h=24, w=21):
    """Flat parts and two edges: a few atoms of steps explain any patch."""
    image = np.full((h, w), 0.3, np.float32)
    image[:, w // 2 :] = 0.7
    image[h // 2 :] += 0.15
    return jnp.asarray(image)


def step_atoms(size):
    """All ways to cut a patch by one vertical or one horizontal line, without means."""
    atoms = []
    for i in range(1, size):
        step = np.where(np.arange(size) < i, 1.0, 0.0)
        atoms += [np.tile(step, (size, 1)).ravel(), np.tile(step[:, None], (1, size)).ravel()]
    D = np.stack(atoms, 1)
    D = D - D.mean(0)
    return jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)


@pytest.mark.parametrize('tile', [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 128))])
def test_pursuit_is_that_of_scikit_learn(tile):
    D = dictionary(12, 30)
    x = RNG.standard_normal((20, 12)).astype(np.float32) * RNG.uniform(0.2, 3, (20, 1))
    x = jnp.asarray(x, jnp.float32)
    energy = RNG.uniform(0.1, 2, 20).astype(np.float32)
    recovered, count = pursue(x, D, jnp.asarray(energy), max_atoms=12, tile=tile)
    n_atoms = []
    for i in range(20):
        if (np.asarray(x[i], float) ** 2).sum() <= energy[i]:
            np.testing.assert_array_equal(recovered[i], 0)
            assert count[i] == 0
            continue
        peer = linear_model.OrthogonalMatchingPursuit(tol=energy[i], fit_intercept=False)
        peer.fit(np.asarray(D, float), np.asarray(x[i], float))
        n_atoms.append((peer.coef_ != 0).sum())
        assert count[i] == n_atoms[-1]
        np.testing.assert_allclose(recovered[i], np.asarray(D, float) @ peer.coef_, atol=2e-5)
    assert min(n_atoms) < 4 < max(n_atoms)
    left = ((np.asarray(x) - recovered) ** 2).sum(1)
    assert (left <= energy * (1 + 1e-5)).all()


def test_pursuit_stops_at_max_atoms_and_keeps_nan():
    D = dictionary(10, 25, seed=1)
    x = np.random.default_rng(2).standard_normal((6, 10)).astype(np.float32)
    x[3, 4] = np.nan
    recovered = pursue(jnp.asarray(x), D, 0.0, max_atoms=3)[0]
    assert np.isnan(recovered[3]).any()
    for i in (0, 1, 2, 4, 5):
        peer = linear_model.OrthogonalMatchingPursuit(n_nonzero_coefs=3, fit_intercept=False)
        peer.fit(np.asarray(D, float), x[i].astype(float))
        np.testing.assert_allclose(recovered[i], np.asarray(D, float) @ peer.coef_, atol=1e-5)
    assert pursue(jnp.zeros((0, 10)), D, 0.0)[0].shape == (0, 10)
    np.testing.assert_allclose(  # the atoms span the whole space: the residual is zero, and finite
        pursue(jnp.asarray(x[:3]), D, 0.0, max_atoms=99)[0], x[:3], atol=1e-5
    )
    doubled = jnp.concatenate([D[:, :4], D[:, :4], jnp.zeros((10, 1))], axis=1)
    span = np.linalg.qr(np.asarray(D[:, :4], float))[0]
    recovered, count = pursue(jnp.asarray(x[:3]), doubled, 0.0, max_atoms=9)
    np.testing.assert_allclose(recovered, x[:3] @ span @ span.T, atol=1e-5)
    np.testing.assert_array_equal(count, 4)  # a duplicate explains nothing more, nor a zero atom


def test_denoising_an_image_of_the_dictionary():
    """Atoms that can represent the image remove most of the noise."""
    truth = image_of_steps()
    noisy = truth + 0.05 * jax.random.normal(jax.random.key(0), truth.shape)
    D = step_atoms(6)
    recovered = denoise(noisy, D, 0.05, patch_size=6)
    before, after = metrics.psnr(noisy, truth), metrics.psnr(recovered, truth)
    assert 25.5 < before < 26.5 and after > before + 8
    # Without noise the image is unchanged; where all is noise the means of patches remain.
    np.testing.assert_allclose(denoise(truth, D, 0.0, patch_size=6), truth, atol=1e-5)
    flat = denoise(noisy, D, 10.0, patch_size=6)
    mean = np.zeros(truth.shape)
    count = np.zeros(truth.shape)
    for i in range(truth.shape[0] - 5):
        for j in range(truth.shape[1] - 5):
            mean[i : i + 6, j : j + 6] += np.asarray(noisy)[i : i + 6, j : j + 6].mean()
            count[i : i + 6, j : j + 6] += 1
    np.testing.assert_allclose(flat, mean / count, atol=1e-5)


def test_noisy_weight_and_stride():
    image = RNG.uniform(size=(14, 17)).astype(np.float32)
    D = dictionary(16, 20)
    recovered = np.asarray(denoise(jnp.asarray(image), D, 9.0, patch_size=4, stride=4))
    for i in range(3):
        for j in range(4):
            block = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
            np.testing.assert_allclose(recovered[block], image[block].mean(), atol=1e-6)
    np.testing.assert_array_equal(recovered[12:], image[12:])  # no patch there
    mixed = denoise(jnp.asarray(image), D, 9.0, patch_size=4, stride=4, noisy_weight=3.0)
    np.testing.assert_allclose(mixed, (recovered + 3 * image) / 4, atol=1e-6)


def test_noise_std_is_the_residual_of_a_patch():
    """Of white noise, the residual of a patch is at most gain * noise_std per pixel."""
    noise = 0.1 * jax.random.normal(jax.random.key(1), (40, 40))
    x = recovery.extract_signals(noise, 8, 8)
    recovered, _ = pursue(x, dictionary(64, 128), (1.15 * 0.1) ** 2 * 64)
    more = np.sqrt((x**2).mean(1)) > 1.15 * 0.1
    np.testing.assert_array_equal((recovered != 0).any(1), more)
    assert more.sum() < 4  # of 25, where chance has 4 in 100 beyond
    recovered, _ = pursue(x, dictionary(64, 128), (0.5 * 0.1) ** 2 * 64)
    left = np.sqrt(((x - recovered) ** 2).mean(1))
    assert (left <= 0.05 * (1 + 1e-5)).all() and (left > 0.04).all()


@pytest.mark.parametrize('weight', [0.05, 0.5])
def test_masked_codes_are_the_lasso_on_the_observed_rows(weight):
    D = dictionary(15, 24, seed=3)
    x = np.random.default_rng(4).standard_normal((8, 15)).astype(np.float32)
    observed = np.random.default_rng(5).uniform(size=x.shape) < 0.6
    observed[0], observed[1] = True, False
    mask = jnp.asarray(observed, jnp.float32)
    recovered = masked_codes(jnp.asarray(x), mask, D, weight, tolerance=3e-5)
    assert (recovered.converged | recovered.limited_by_precision).all()
    np.testing.assert_array_equal(recovered.codes[1], 0)
    for i in range(8):
        rows = observed[i]
        if not rows.any():
            continue
        peer = linear_model.Lasso(
            alpha=weight / rows.sum(), fit_intercept=False, tol=1e-10, max_iter=100_000
        )
        A, b = np.asarray(D, float)[rows], x[i, rows].astype(float)
        peer.fit(A, b)
        best = 0.5 * ((b - A @ peer.coef_) ** 2).sum() + weight * abs(peer.coef_).sum()
        a = np.asarray(recovered.codes[i], float)
        ours = 0.5 * ((b - A @ a) ** 2).sum() + weight * abs(a).sum()
        assert best * (1 - 1e-6) <= ours <= best * (1 + 4e-5)
        assert recovered.objective[i] == pytest.approx(ours, rel=1e-5)
        assert ours - best <= (recovered.gap[i] + 1e-6) * ours
    full = solvers.fista(jnp.asarray(x[:1]), D, weight, tolerance=1e-5)
    np.testing.assert_allclose(recovered.objective[:1], full.objective, rtol=5e-5)


def test_masked_values_and_invalid_signals_have_no_influence():
    D = dictionary(9, 16)
    x = np.random.default_rng(6).standard_normal((5, 9)).astype(np.float32)
    observed = np.random.default_rng(7).uniform(size=x.shape) < 0.5
    mask = jnp.asarray(observed, jnp.float32)
    first = masked_codes(jnp.asarray(x), mask, D, 0.1)
    other = masked_codes(jnp.asarray(np.where(observed, x, 77.0)), mask, D, 0.1)
    np.testing.assert_array_equal(first.codes, other.codes)
    x[2] = np.nan
    x[0] *= 100  # slower: this must not give the others more iterations
    with_bad = masked_codes(jnp.asarray(x), mask, D, 0.1)
    keep = np.array([1, 3, 4])
    np.testing.assert_array_equal(with_bad.codes[keep], first.codes[keep])
    keep = np.array([0, 1, 3, 4])
    done = with_bad.converged | with_bad.limited_by_precision
    assert not done[2] and done[keep].all()
    with pytest.raises(ValueError, match=r'mask of shape \(5, 4\) for signals \(5, 9\)'):
        masked_codes(jnp.asarray(x), mask[:, :4], D, 0.1)


def test_inpainting_recovers_images_of_the_dictionary():
    truth = image_of_steps()
    known = jnp.asarray(np.random.default_rng(8).uniform(size=truth.shape) < 0.5)
    incomplete = jnp.where(known, truth, jnp.nan)
    recovered = inpaint(incomplete, known, step_atoms(6), 1e-3, patch_size=6)
    np.testing.assert_array_equal(np.where(known, recovered, 0), np.where(known, truth, 0))
    assert metrics.psnr(recovered, truth) > 38
    blurred = inpaint(incomplete, known, step_atoms(6), 1e3, patch_size=6)  # means of patches alone
    assert metrics.psnr(blurred, truth) < 30
    nothing = inpaint(incomplete, jnp.zeros_like(known), step_atoms(6), 1e-3, patch_size=6)
    np.testing.assert_array_equal(nothing, 0)
    one = jnp.zeros_like(known).at[0, 0].set(True)
    np.testing.assert_allclose(
        inpaint(incomplete, one, step_atoms(6), 1e-3, patch_size=6), truth[0, 0], atol=1e-6
    )


def test_compression_by_cosines_is_the_transform_of_scipy():
    image = np.random.default_rng(9).uniform(size=(17, 24)).astype(np.float32)
    basis = recovery.cosine_dictionary(8)
    restored, original = recovery.compress(
        jnp.asarray(image), lambda x: recovery.keep_largest(x, basis, 5), patch_size=8
    )
    np.testing.assert_array_equal(original, image[:16])
    for top in (0, 8):
        for left in (0, 8, 16):
            block = image[top : top + 8, left : left + 8].astype(float)
            coefficients = fft.dctn(block, norm='ortho')
            ranked = np.sort(abs(coefficients).ravel()[1:])[::-1]
            largest = (abs(coefficients) >= ranked[4]) * coefficients
            largest[0, 0] = coefficients[0, 0]
            expected = fft.idctn(largest, norm='ortho')
            np.testing.assert_allclose(
                restored[top : top + 8, left : left + 8], expected, atol=1e-5
            )
    redundant = np.asarray(recovery.cosine_dictionary(8, 16))
    assert redundant.shape == (64, 255)
    np.testing.assert_allclose((redundant**2).sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(redundant.sum(0), 0, atol=1e-5)
    exact, original = recovery.compress(
        jnp.asarray(image), lambda x: recovery.keep_largest(x, basis, 63), patch_size=8
    )
    np.testing.assert_allclose(exact, original, atol=1e-5)


@pytest.mark.slow
def test_learning_lowers_the_objective_of_the_signals():
    truth = dictionary(16, 20, seed=11)
    codes = np.random.default_rng(12).standard_normal((600, 20))
    codes *= np.random.default_rng(13).uniform(size=codes.shape) < 0.1
    x = jnp.asarray(codes, jnp.float32) @ truth.T

    def loss(D):
        return float(solvers.fista(x, D, 0.1).objective.mean())

    learn = recovery.learn_dictionary
    options = {'n_atoms': 20, 'l1_penalty': 0.1, 'batch_size': 128}
    start = learn(jax.random.key(0), x, n_steps=1, **options)
    later = learn(jax.random.key(0), x, n_steps=40, **options)
    assert loss(later) < 0.85 * loss(start)
    warm = learn(jax.random.key(0), x, n_steps=40, init=truth, **options)
    assert loss(warm) < 1.05 * loss(truth)
    with pytest.raises(ValueError, match=r'init of shape \(16, 19\)'):
        recovery.learn_dictionary(
            jax.random.key(0), x, 20, l1_penalty=0.1, n_steps=1, init=truth[:, :19]
        )


@pytest.mark.parametrize('bad', [jnp.zeros((5, 5, 1)), jnp.zeros((5, 5), jnp.int32)])
def test_arrays_that_are_no_grayscale_images_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match='image'):
        denoise(bad, dictionary(16, 20), 0.1, patch_size=4)
    with pytest.raises(ValueError, match='do not match'):
        denoise(jnp.zeros((9, 9)), dictionary(9, 20), 0.1, patch_size=4)
