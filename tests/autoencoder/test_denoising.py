import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from lecture4.autoencoder import denoising, network, stochastic
from lecture4.ops import losses

SHAPE = (200, 500)


def test_gaussian_noise_has_its_moments():
    x = jnp.full(SHAPE, 0.3)
    noise = np.asarray(denoising.gaussian(jax.random.key(0), x, 0.25) - x)
    assert noise.mean() == pytest.approx(0, abs=4 * 0.25 / noise.size**0.5)
    assert noise.std() == pytest.approx(0.25, rel=0.01)
    assert stats.kstest(noise.ravel()[:5000] / 0.25, 'norm').pvalue > 0.01


def test_masking_zeroes_a_fraction_and_leaves_the_rest_unchanged():
    x = jax.random.uniform(jax.random.key(1), SHAPE, minval=0.5)
    y = denoising.masking(jax.random.key(0), x, 0.3)
    hit = np.asarray(y == 0)
    assert hit.mean() == pytest.approx(0.3, abs=4 * (0.21 / x.size) ** 0.5)
    np.testing.assert_array_equal(np.asarray(y)[~hit], np.asarray(x)[~hit])  # no rescaling
    assert hit.mean(0).max() < 0.5  # every example has its own mask


def test_salt_and_pepper_are_equally_frequent():
    x = jnp.full(SHAPE, 0.5)
    y = np.asarray(denoising.salt_and_pepper(jax.random.key(0), x, 0.4, -1.0, 2.0))
    for value, rate in ((-1.0, 0.2), (2.0, 0.2), (0.5, 0.6)):
        assert (y == value).mean() == pytest.approx(rate, abs=4 * (0.25 / x.size) ** 0.5)


@pytest.mark.parametrize('corrupt', [denoising.masking, denoising.salt_and_pepper])
def test_the_ends_of_the_domain(corrupt):
    x = jax.random.uniform(jax.random.key(1), (50, 40), minval=0.1, maxval=0.9)
    np.testing.assert_array_equal(corrupt(jax.random.key(0), x, 0.0), x)
    assert not (corrupt(jax.random.key(0), x, 1.0) == x).any()
    np.testing.assert_array_equal(denoising.gaussian(jax.random.key(0), x, 0.0), x)


@pytest.mark.parametrize(
    'corrupt, level, message',
    [
        (denoising.gaussian, -0.1, 'expected std at least 0, got -0.1'),
        (denoising.masking, 1.5, 'expected mask_rate between 0 and 1, got 1.5'),
        (denoising.masking, float('nan'), 'got nan'),
        (denoising.salt_and_pepper, -0.2, 'between 0 and 1'),
    ],
)
def test_levels_outside_the_domain_are_refused(corrupt, level, message):
    with pytest.raises(ValueError, match=message):
        corrupt(jax.random.key(0), jnp.ones((2, 3)), level)


def test_the_target_is_the_clean_example():
    x = jnp.ones((3, 4))
    found = denoising.loss(
        lambda noisy: noisy, losses.squared_error, lambda key, x: x - 2, x, jax.random.key(0)
    )
    np.testing.assert_allclose(found, 4 * 4.0)


def test_a_users_corruption_receives_keys_and_keeps_the_shape():
    def roll(key, x):
        return jnp.roll(x, jax.random.randint(key, (), 1, 4), axis=1)

    x = jnp.arange(8.0).reshape(2, 4)
    keys = jax.random.split(jax.random.key(0), 30)
    found = {
        float(denoising.loss(lambda v: v, losses.squared_error, roll, x, key).sum()) for key in keys
    }
    assert found == {24.0, 32.0}  # one or three places, two places
    with pytest.raises(ValueError, match=r'keeps the shape \(2, 4\) of x, got \(2, 2\)'):
        denoising.loss(lambda v: v, losses.squared_error, lambda key, x: x[:, :2], x, keys[0])


@pytest.mark.parametrize('nll', [losses.squared_error, losses.bernoulli_nll])
def test_emphasis_weights_changed_and_unchanged_values(nll):
    x = jax.random.uniform(jax.random.key(1), (5, 6), minval=0.1)

    def corrupt(key, x):
        return x.at[:, :2].set(0.0)

    def run(e):
        return denoising.loss(lambda v: v + 0.3, nll, corrupt, x, jax.random.key(0), emphasis=e)

    changed = nll(jnp.full((5, 2), 0.3), x[:, :2])
    kept = nll(x[:, 2:] + 0.3, x[:, 2:])
    np.testing.assert_allclose(run((2.0, 0.5)), 2 * changed + 0.5 * kept, rtol=1e-5)
    np.testing.assert_allclose(run((1.0, 1.0)), run(None), rtol=1e-5)


def fit_linear(x, noisy):
    """The best affine map from noisy to clean, by least squares: a linear denoiser, converged."""
    design = np.concatenate([noisy, np.ones((len(noisy), 1))], 1)
    return np.linalg.lstsq(design, x, rcond=None)[0]


@pytest.mark.parametrize('std', [0.1, 0.5])
def test_a_gaussians_denoiser_is_the_smoothed_densitys_score(x64, std):
    """r* = mu + C (C + s^2)^-1 (x - mu), and (r* - x) / s^2 the score of N(mu, C + s^2)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3)) / 2
    mu, C = np.array([1.0, -2, 0.5]), root @ root.T + 0.1 * np.eye(3)
    x = jnp.asarray(rng.multivariate_normal(mu, C, 400_000))
    noisy = denoising.gaussian(jax.random.key(0), x, std)
    coefficients = fit_linear(np.asarray(x), np.asarray(noisy))
    smoothed = C + std**2 * np.eye(3)
    np.testing.assert_allclose(coefficients[:3].T, C @ np.linalg.inv(smoothed), atol=0.01)

    def denoise(v):
        return v @ coefficients[:3] + coefficients[3][None, :]

    found = np.asarray(denoising.smoothed_score(denoise, noisy[:5000], std))
    away = np.asarray(noisy[:5000]) - mu
    score, clean = (-away @ np.linalg.inv(matrix) for matrix in (smoothed, C))

    def size(v):
        return np.sqrt((v**2).sum(1).mean())

    assert size(found - score) < 0.02 * size(score)
    if std == 0.5:  # the density's own score is another thing
        assert size(found - clean) > 0.2 * size(clean)
    reached = float(losses.squared_error(x, denoise(noisy)).mean())
    assert reached == pytest.approx(np.trace(C - C @ np.linalg.inv(smoothed) @ C), rel=0.01)


def test_training_on_fresh_noise_ends_at_the_score():
    """A linear autoencoder of full width learns by `loss` what the closed form says, and no input."""
    C, mu, std = np.array([[1.0, 0.6], [0.6, 0.5]]), np.array([0.5, -1.0]), 0.5
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 3000))
    root = jnp.asarray(np.linalg.cholesky(C), jnp.float32)

    def reconstruct(params, noisy):
        code = network.encode(params, noisy, network.identity)
        return network.decode(params, code, network.identity)

    def step(carry, key):
        params, opt_state = carry
        data_key, noise_key = jax.random.split(key)
        x = jax.random.normal(data_key, (256, 2)) @ root.T + jnp.asarray(mu, jnp.float32)[None]
        corrupt = functools.partial(denoising.gaussian, std=std)

        def value(params):
            run = functools.partial(reconstruct, params)
            return denoising.loss(run, losses.squared_error, corrupt, x, noise_key).mean()

        updates, opt_state = optimizer.update(jax.grad(value)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    params = network.init_autoencoder(jax.random.key(0), (2, 2))
    with jax.numpy_dtype_promotion('standard'):
        keys = jax.random.split(jax.random.key(1), 3000)
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0][0])
        params = run((params, optimizer.init(params)))
    offset = np.asarray(reconstruct(params, jnp.zeros((1, 2))))[0]
    slope = (np.asarray(reconstruct(params, jnp.eye(2))) - offset).T
    smoothed = C + std**2 * np.eye(2)
    np.testing.assert_allclose(slope, C @ np.linalg.inv(smoothed), atol=0.01)
    x = jnp.asarray(np.random.default_rng(0).multivariate_normal(mu, smoothed, 2000), jnp.float32)
    found = denoising.smoothed_score(functools.partial(reconstruct, params), x, std)
    score = (mu - np.asarray(x)) @ np.linalg.inv(smoothed)
    assert np.linalg.norm(found - score) < 0.03 * np.linalg.norm(score)


def test_the_two_best_linear_denoisers_agree_with_least_squares():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(200_000, 3)) @ rng.normal(size=(3, 3)) + 5
    noisy = clean + 0.7 * rng.normal(size=clean.shape)
    fit, known = denoising.best_linear(clean, noisy), denoising.wiener(clean, 0.7)
    np.testing.assert_allclose(fit.matrix, known.matrix, atol=0.01)
    np.testing.assert_allclose(fit.offset, known.offset, atol=0.05)
    expected = np.concatenate([noisy, np.ones((len(noisy), 1))], 1) @ fit_linear(clean, noisy)
    np.testing.assert_allclose(fit(noisy), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['bernoulli', 'gaussian'])
def test_the_loss_is_minus_the_log_of_the_decoders_density(name):
    """-log p_decoder(x | f(x~)), with scipy's densities; the Gaussian decoder outputs its standard deviation."""
    x = np.asarray(jax.random.bernoulli(jax.random.key(1), 0.5, (4, 3)), np.float32)
    outputs = np.asarray(jax.random.normal(jax.random.key(2), (4, 6)), np.float32)
    mean, log_std = np.split(outputs, 2, axis=1)
    if name == 'bernoulli':
        family, outputs = stochastic.BERNOULLI, mean
        expected = -stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-mean))).sum(1)
    else:
        family = stochastic.GAUSSIAN
        expected = -stats.norm.logpdf(x, mean, np.exp(log_std)).sum(1)

    def corrupt(key, x):
        return x + 1

    def decode(noisy):
        np.testing.assert_array_equal(noisy, x + 1)
        return jnp.asarray(outputs)

    def nll(out, x):
        return -family.log_prob(out, x)

    found = denoising.loss(decode, nll, corrupt, jnp.asarray(x), jax.random.key(0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if name == 'gaussian':
        with pytest.raises(ValueError, match='use a decoder of means alone'):
            denoising.loss(decode, nll, corrupt, jnp.asarray(x), jax.random.key(0), emphasis=(2, 1))
