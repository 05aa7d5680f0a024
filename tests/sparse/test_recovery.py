"""Pursuit against scikit-learn, masked codes against its lasso, and pictures that must come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft
from sklearn import linear_model

from lecture4.ops import metrics
from lecture4.sparse import recovery, solvers

RNG = np.random.default_rng(0)
denoise = jax.jit(recovery.denoise, static_argnames=('size', 'stride', 'max_atoms', 'tile'))
inpaint = jax.jit(recovery.inpaint, static_argnames=('size', 'stride', 'max_iterations', 'tile'))
masked_codes = jax.jit(recovery.masked_codes, static_argnames=('max_iterations', 'check_every'))
pursue = jax.jit(recovery.pursue, static_argnames=('max_atoms', 'tile'))


def dictionary(d, k, seed=0):
    D = np.random.default_rng(seed).standard_normal((d, k))
    return jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)


def steps_picture(h=24, w=21):
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


@pytest.mark.parametrize('tile', [1, 7, 128])
def test_pursuit_is_scikit_learn_s(tile):
    D = dictionary(12, 30)
    x = RNG.standard_normal((20, 12)).astype(np.float32) * RNG.uniform(0.2, 3, (20, 1))
    x = jnp.asarray(x, jnp.float32)
    energy = RNG.uniform(0.1, 2, 20).astype(np.float32)
    found, count = pursue(x, D, jnp.asarray(energy), max_atoms=12, tile=tile)
    n_atoms = []
    for i in range(20):
        if (np.asarray(x[i], float) ** 2).sum() <= energy[i]:
            np.testing.assert_array_equal(found[i], 0)
            assert count[i] == 0
            continue
        peer = linear_model.OrthogonalMatchingPursuit(tol=energy[i], fit_intercept=False)
        peer.fit(np.asarray(D, float), np.asarray(x[i], float))
        n_atoms.append((peer.coef_ != 0).sum())
        assert count[i] == n_atoms[-1]
        np.testing.assert_allclose(found[i], np.asarray(D, float) @ peer.coef_, atol=2e-5)
    assert min(n_atoms) < 4 < max(n_atoms)
    left = ((np.asarray(x) - found) ** 2).sum(1)
    assert (left <= energy * (1 + 1e-5)).all()


def test_pursuit_stops_at_its_atoms_and_leaves_nan_alone():
    D = dictionary(10, 25, seed=1)
    x = np.random.default_rng(2).standard_normal((6, 10)).astype(np.float32)
    x[3, 4] = np.nan
    found = pursue(jnp.asarray(x), D, 0.0, max_atoms=3)[0]
    assert np.isnan(found[3]).any()
    for i in (0, 1, 2, 4, 5):
        peer = linear_model.OrthogonalMatchingPursuit(n_nonzero_coefs=3, fit_intercept=False)
        peer.fit(np.asarray(D, float), x[i].astype(float))
        np.testing.assert_allclose(found[i], np.asarray(D, float) @ peer.coef_, atol=1e-5)
    assert pursue(jnp.zeros((0, 10)), D, 0.0)[0].shape == (0, 10)
    np.testing.assert_allclose(  # all of space is spanned: nothing is left, and nothing blows up
        pursue(jnp.asarray(x[:3]), D, 0.0, max_atoms=99)[0], x[:3], atol=1e-5
    )
    twins = jnp.concatenate([D[:, :4], D[:, :4], jnp.zeros((10, 1))], axis=1)
    span = np.linalg.qr(np.asarray(D[:, :4], float))[0]
    found, count = pursue(jnp.asarray(x[:3]), twins, 0.0, max_atoms=9)
    np.testing.assert_allclose(found, x[:3] @ span @ span.T, atol=1e-5)
    np.testing.assert_array_equal(count, 4)  # a twin explains nothing more, nor a zero atom


def test_denoising_a_picture_of_the_dictionary():
    """With atoms that can say what the picture is, most of the noise goes; without, it stays."""
    truth = steps_picture()
    noisy = truth + 0.05 * jax.random.normal(jax.random.key(0), truth.shape)
    D = step_atoms(6)
    found = denoise(noisy, D, 0.05, size=6)
    before, after = metrics.psnr(noisy, truth), metrics.psnr(found, truth)
    assert 25.5 < before < 26.5 and after > before + 8
    # Where nothing is noise everything is kept, and where all is noise the means of patches are.
    np.testing.assert_allclose(denoise(truth, D, 0.0, size=6), truth, atol=1e-5)
    flat = denoise(noisy, D, 10.0, size=6)
    mean = np.zeros(truth.shape)
    count = np.zeros(truth.shape)
    for i in range(truth.shape[0] - 5):
        for j in range(truth.shape[1] - 5):
            mean[i : i + 6, j : j + 6] += np.asarray(noisy)[i : i + 6, j : j + 6].mean()
            count[i : i + 6, j : j + 6] += 1
    np.testing.assert_allclose(flat, mean / count, atol=1e-5)


def test_share_and_stride():
    image = RNG.uniform(size=(14, 17)).astype(np.float32)
    D = dictionary(16, 20)
    found = np.asarray(denoise(jnp.asarray(image), D, 9.0, size=4, stride=4))
    for i in range(3):
        for j in range(4):
            block = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
            np.testing.assert_allclose(found[block], image[block].mean(), atol=1e-6)
    np.testing.assert_array_equal(found[12:], image[12:])  # no patch there
    mixed = denoise(jnp.asarray(image), D, 9.0, size=4, stride=4, share=3.0)
    np.testing.assert_allclose(mixed, (found + 3 * image) / 4, atol=1e-6)


def test_sigma_is_the_noise_left_in_a_patch():
    """Of white noise, patches are explained until gain * sigma a pixel is left, at most."""
    noise = 0.1 * jax.random.normal(jax.random.key(1), (40, 40))
    x = recovery.cut(noise, 8, 8)
    found, _ = pursue(x, dictionary(64, 128), (1.15 * 0.1) ** 2 * 64)
    more = np.sqrt((x**2).mean(1)) > 1.15 * 0.1
    np.testing.assert_array_equal((found != 0).any(1), more)
    assert more.sum() < 4  # of 25, where chance has 4 in 100 beyond
    found, _ = pursue(x, dictionary(64, 128), (0.5 * 0.1) ** 2 * 64)
    left = np.sqrt(((x - found) ** 2).mean(1))
    assert (left <= 0.05 * (1 + 1e-5)).all() and (left > 0.04).all()


@pytest.mark.parametrize('weight', [0.05, 0.5])
def test_masked_codes_are_the_lasso_on_the_seen_rows(weight):
    D = dictionary(15, 24, seed=3)
    x = np.random.default_rng(4).standard_normal((8, 15)).astype(np.float32)
    seen = np.random.default_rng(5).uniform(size=x.shape) < 0.6
    seen[0], seen[1] = True, False
    mask = jnp.asarray(seen, jnp.float32)
    found = masked_codes(jnp.asarray(x), mask, D, weight, tolerance=3e-5)
    assert found.converged.all()
    np.testing.assert_array_equal(found.codes[1], 0)
    for i in range(8):
        rows = seen[i]
        if not rows.any():
            continue
        peer = linear_model.Lasso(
            alpha=weight / rows.sum(), fit_intercept=False, tol=1e-10, max_iter=100_000
        )
        A, b = np.asarray(D, float)[rows], x[i, rows].astype(float)
        peer.fit(A, b)
        best = 0.5 * ((b - A @ peer.coef_) ** 2).sum() + weight * abs(peer.coef_).sum()
        a = np.asarray(found.codes[i], float)
        ours = 0.5 * ((b - A @ a) ** 2).sum() + weight * abs(a).sum()
        assert best * (1 - 1e-6) <= ours <= best * (1 + 4e-5)
        assert found.objective[i] == pytest.approx(ours, rel=1e-5)
        assert ours - best <= (found.gap[i] + 1e-6) * ours
    full = solvers.fista(jnp.asarray(x[:1]), D, weight, tolerance=1e-5)
    np.testing.assert_allclose(found.objective[:1], full.objective, rtol=5e-5)


def test_unseen_values_do_not_matter_and_a_bad_signal_stays_alone():
    D = dictionary(9, 16)
    x = np.random.default_rng(6).standard_normal((5, 9)).astype(np.float32)
    seen = np.random.default_rng(7).uniform(size=x.shape) < 0.5
    mask = jnp.asarray(seen, jnp.float32)
    first = masked_codes(jnp.asarray(x), mask, D, 0.1)
    other = masked_codes(jnp.asarray(np.where(seen, x, 77.0)), mask, D, 0.1)
    np.testing.assert_array_equal(first.codes, other.codes)
    x[2] = np.nan
    x[0] *= 100  # slower: nor may that keep the others going
    with_bad = masked_codes(jnp.asarray(x), mask, D, 0.1)
    keep = np.array([1, 3, 4])
    np.testing.assert_array_equal(with_bad.codes[keep], first.codes[keep])
    keep = np.array([0, 1, 3, 4])
    assert not with_bad.converged[2] and with_bad.converged[keep].all()
    with pytest.raises(ValueError, match=r'seen has shape \(5, 4\), the signals \(5, 9\)'):
        masked_codes(jnp.asarray(x), mask[:, :4], D, 0.1)


def test_inpainting_brings_back_what_the_dictionary_knows():
    truth = steps_picture()
    known = jnp.asarray(np.random.default_rng(8).uniform(size=truth.shape) < 0.5)
    holed = jnp.where(known, truth, jnp.nan)
    found = inpaint(holed, known, step_atoms(6), 1e-3, size=6)
    np.testing.assert_array_equal(np.where(known, found, 0), np.where(known, truth, 0))
    assert metrics.psnr(found, truth) > 38
    blurred = inpaint(holed, known, step_atoms(6), 1e3, size=6)  # means of patches alone
    assert metrics.psnr(blurred, truth) < 30
    nothing = inpaint(holed, jnp.zeros_like(known), step_atoms(6), 1e-3, size=6)
    np.testing.assert_array_equal(nothing, 0)
    one = jnp.zeros_like(known).at[0, 0].set(True)
    np.testing.assert_allclose(
        inpaint(holed, one, step_atoms(6), 1e-3, size=6), truth[0, 0], atol=1e-6
    )


def test_storing_by_cosines_is_scipy_s_transform():
    image = np.random.default_rng(9).uniform(size=(17, 24)).astype(np.float32)
    basis = recovery.cosines(8)
    restored, original = recovery.store(
        jnp.asarray(image), lambda x: recovery.largest(x, basis, 5), size=8
    )
    np.testing.assert_array_equal(original, image[:16])
    for top in (0, 8):
        for left in (0, 8, 16):
            block = image[top : top + 8, left : left + 8].astype(float)
            coefficients = fft.dctn(block, norm='ortho')
            ranked = np.sort(abs(coefficients).ravel()[1:])[::-1]
            kept = (abs(coefficients) >= ranked[4]) * coefficients
            kept[0, 0] = coefficients[0, 0]
            want = fft.idctn(kept, norm='ortho')
            np.testing.assert_allclose(restored[top : top + 8, left : left + 8], want, atol=1e-5)
    redundant = np.asarray(recovery.cosines(8, 16))
    assert redundant.shape == (64, 255)
    np.testing.assert_allclose((redundant**2).sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(redundant.sum(0), 0, atol=1e-5)
    exact, original = recovery.store(
        jnp.asarray(image), lambda x: recovery.largest(x, basis, 63), size=8
    )
    np.testing.assert_allclose(exact, original, atol=1e-5)


@pytest.mark.slow
def test_learning_on_these_signals_explains_them_better():
    truth = dictionary(16, 20, seed=11)
    codes = np.random.default_rng(12).standard_normal((600, 20))
    codes *= np.random.default_rng(13).uniform(size=codes.shape) < 0.1
    x = jnp.asarray(codes, jnp.float32) @ truth.T

    def loss(D):
        return float(solvers.fista(x, D, 0.1).objective.mean())

    learn = jax.jit(recovery.learn, static_argnames=('n_atoms', 'n_steps', 'batch_size'))
    options = {'n_atoms': 20, 'weight': 0.1, 'batch_size': 128}
    start = learn(jax.random.key(0), x, n_steps=1, **options)
    later = learn(jax.random.key(0), x, n_steps=40, **options)
    assert loss(later) < 0.85 * loss(start)
    kept = learn(jax.random.key(0), x, n_steps=40, init=truth, **options)
    assert loss(kept) < 1.05 * loss(truth)
    with pytest.raises(ValueError, match=r'init has shape \(16, 19\)'):
        recovery.learn(jax.random.key(0), x, 20, weight=0.1, n_steps=1, init=truth[:, :19])


@pytest.mark.parametrize('bad', [jnp.zeros((5, 5, 1)), jnp.zeros((5, 5), jnp.int32)])
def test_what_is_no_grey_picture_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match='image'):
        denoise(bad, dictionary(16, 20), 0.1, size=4)
    with pytest.raises(ValueError, match='do not fit'):
        denoise(jnp.zeros((9, 9)), dictionary(9, 20), 0.1, size=4)
