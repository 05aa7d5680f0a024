"""Bounds against probabilistic PCA, enumeration and quadrature; networks of the right form."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from scipy import optimize, special, stats

from lecture4.autoencoder import (
    binarization,
    convolutional_vae,
    importance_sampling,
    latent_space,
    stochastic,
    vae,
)
from lecture4.autoencoder.network import Dense
from lecture4.ops.updates import apply_gradients

D, K = 6, 3
RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.normal(size=(D, D)))[0]
X = RNG.normal(size=(40, D)) * np.sqrt([4, 2, 1, 0.4, 0.3, 0.2]) @ AXES + RNG.normal(size=D)


def probabilistic_pca(rotation=None):
    """The maximum likelihood solution of Tipping & Bishop 1999 and its exact log p(x)."""
    mu = X.mean(0)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    s2 = values[: D - K].mean()
    W = vectors[:, D - K :] * np.sqrt(values[D - K :] - s2)
    if rotation is not None:
        W = W @ rotation
    log_p = stats.multivariate_normal(mu, W @ W.T + s2 * np.eye(D)).logpdf(X)
    return mu, W, s2, log_p


def as_model(mu, W, s2, mean_scale=1.0, variance_scale=1.0):
    """That solution as parameters of a linear autoencoder, with the best diagonal posterior."""
    model = vae.mlp(D, (), K, pixels=stochastic.GAUSSIAN, learn_std=True)
    M = np.eye(K) + W.T @ W / s2
    read = W @ np.linalg.inv(M) / s2 * mean_scale
    std = np.sqrt(variance_scale / np.diag(M))
    encoder = Dense(
        jnp.asarray(np.concatenate([read, np.zeros((D, K))], axis=1)),
        jnp.asarray(np.concatenate([-mu @ read, np.log(std)])),
    )
    decoder = Dense(jnp.asarray(W.T), jnp.asarray(mu))
    params = vae.Params((encoder,), (decoder,), jnp.asarray(0.5 * np.log(s2)))
    return model, params


def exact_bound(model, params, x):
    """The bound without noise: at 2 k points E_q of a quadratic function is exact."""
    points = np.sqrt(K) * np.concatenate([np.eye(K), -np.eye(K)])

    def at(point):
        def sample(key, outputs):
            mean, log_std = stochastic.split_gaussian(outputs)
            return mean + jnp.exp(log_std) * point[None]

        code = model.latent._replace(sample=sample)
        return vae.bound(model._replace(latent=code), params, x, jax.random.key(0))

    at = jax.jit(at)
    every = [at(jnp.asarray(point)) for point in points]
    return vae.Bound(jnp.mean(jnp.stack([b.reconstruction for b in every]), 0), every[0].kl)


def test_a_linear_gaussian_bound_is_the_exact_log_likelihood(x64):
    *solution, log_p = probabilistic_pca()
    model, params = as_model(*solution)
    x = jnp.asarray(X)
    parts = exact_bound(model, params, x)
    np.testing.assert_allclose(parts.elbo, log_p, atol=1e-10, rtol=0)
    # ... and it is a stationary point of the mean bound in every parameter.
    grads = jax.grad(lambda params: vae.loss(exact_bound(model, params, x)))(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) < 1e-10


def test_a_rotated_code_costs_its_correlations(x64):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(K, K)))[0]
    mu, W, s2, log_p = probabilistic_pca(rotation)
    M = np.eye(K) + W.T @ W / s2
    drop = 0.5 * (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1])
    assert drop > 0.05
    found = exact_bound(*as_model(mu, W, s2), jnp.asarray(X)).elbo
    np.testing.assert_allclose(log_p - found, drop, atol=1e-10, rtol=0)


def trained(model):
    """Parameters that L-BFGS finds for the exact bound of a linear model from a random start."""
    params = jax.tree.map(lambda leaf: leaf.astype(float), model.init(jax.random.key(0)))
    start, restore = ravel_pytree(params)

    def loss(flat):
        return vae.loss(exact_bound(model, restore(flat), jnp.asarray(X)))

    value_and_grad = jax.jit(jax.value_and_grad(loss))

    def numbers(flat):
        return tuple(np.asarray(part) for part in value_and_grad(flat))

    limits = {'maxiter': 5000, 'maxfun': 10_000, 'ftol': 1e-15, 'gtol': 1e-9}
    found = optimize.minimize(
        numbers, np.asarray(start), jac=True, method='L-BFGS-B', options=limits
    )
    return restore(jnp.asarray(found.x))


def test_training_finds_the_likelihood_and_the_principal_axes(x64):
    """A diagonal posterior picks the principal axes among all rotations of the same density."""
    mu, W, s2, log_p = probabilistic_pca()
    model = vae.mlp(D, (), K, pixels=stochastic.GAUSSIAN, learn_std=True)
    params = trained(model)
    found = exact_bound(model, params, jnp.asarray(X)).elbo.mean()
    np.testing.assert_allclose(found, log_p.mean(), atol=1e-4)
    np.testing.assert_allclose(jnp.exp(2 * params.log_std), s2, rtol=1e-3)
    np.testing.assert_allclose(params.decoder[0].bias, mu, atol=1e-2)
    learned = np.asarray(params.decoder[0].weight)
    cosines = abs(learned @ W) / np.outer(
        np.linalg.norm(learned, axis=1), np.linalg.norm(W, axis=0)
    )
    np.testing.assert_allclose(np.sort(cosines.max(1)), 1, atol=1e-3)
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(learned, axis=1)), np.sort(np.linalg.norm(W, axis=0)), rtol=1e-2
    )


def test_a_fixed_std_decides_which_units_survive(x64):
    """Those whose variance in the data exceeds it: collapse of the others is the optimum."""
    values = np.sort(np.linalg.eigvalsh(np.cov(X.T, bias=True)))[::-1]
    model = vae.mlp(
        D, (), K, pixels=stochastic.gaussian(0.5 * float(np.log(np.sqrt(values[1] * values[2]))))
    )
    params = trained(model)
    means = model.latent.mean(model.encode(params, jnp.asarray(X)))
    assert int(vae.active_units(means).sum()) == 2


def test_equal_weights_where_the_encoder_is_the_posterior(x64):
    *solution, log_p = probabilistic_pca()
    model, params = as_model(*solution)
    x = jnp.asarray(X)
    weigh = jax.jit(functools.partial(importance_sampling.log_weights, model))
    for key in jax.random.split(jax.random.key(0), 3):
        np.testing.assert_allclose(weigh(params, x, key), log_p, atol=1e-10, rtol=0)
    tiled = (
        importance_sampling.log_likelihood(  # 40 examples in tiles of 16, 6 samples in chunks of 2
            model, params, x, jax.random.key(1), n_samples=6, chunk=2, tile=16
        )
    )
    np.testing.assert_allclose(tiled, log_p, atol=1e-10, rtol=0)


def test_importance_bounds_rise_towards_the_log_likelihood(x64):
    *solution, log_p = probabilistic_pca()
    model, params = as_model(*solution, mean_scale=0.8, variance_scale=2.0)
    x, draws = jnp.asarray(X[:8]), 400
    means, errors = [], []
    for n_samples in (1, 5, 100):

        @jax.jit
        def draw(keys, n=n_samples):
            def bound(key):
                return importance_sampling.importance_bound(model, params, x, key, n_samples=n)

            return jax.lax.map(lambda key: bound(key).mean(), keys)

        values = np.asarray(draw(jax.random.split(jax.random.key(n_samples), draws)))
        means.append(values.mean())
        errors.append(values.std() / np.sqrt(draws))
    exact = log_p[:8].mean()
    rises = np.diff([*means, exact])
    assert (rises > 3 * np.hypot(errors, [*errors[1:], 0])).all()
    assert exact - means[-1] < 0.1 * (exact - means[0])


def test_chunks_change_nothing(x64):
    *solution, _ = probabilistic_pca()
    model, params = as_model(*solution, mean_scale=0.5)
    x, key = jnp.asarray(X), jax.random.key(3)
    bound = functools.partial(importance_sampling.importance_bound, model, n_samples=12)
    whole, parts = (
        jax.jit(functools.partial(bound, chunk=chunk))(params, x, key) for chunk in (0, 3)
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    with pytest.raises(ValueError, match='use 5 or 15'):
        importance_sampling.importance_bound(model, params, x, key, n_samples=12, chunk=5)


def test_kl_is_the_integral_and_the_slide_s_is_none(x64):
    grid = np.linspace(-40, 40, 80_001)
    for mean, std in ((1.0, 2.0), (-0.3, 0.1), (2.0, 1.0)):
        log_q, log_p = stats.norm.logpdf(grid, mean, std), stats.norm.logpdf(grid)
        integral = np.trapezoid(np.exp(log_q) * (log_q - log_p), grid)
        found = vae.kl_standard_normal(jnp.float64(mean), jnp.log(jnp.float64(std)))
        np.testing.assert_allclose(found, integral, rtol=1e-8)
    within = {'bounds': (0.2, 3.0), 'options': {'xatol': 1e-9}}
    true = optimize.minimize_scalar(
        lambda s: float(vae.kl_standard_normal(0.0, np.log(s))), **within
    )
    np.testing.assert_allclose((true.x, true.fun), (1, 0), atol=1e-6)
    slide = optimize.minimize_scalar(lambda s: s**2 - np.log(s) - 1, **within)
    np.testing.assert_allclose((slide.x, slide.fun), (0.5**0.5, -0.1534), atol=1e-4)
    outputs = jnp.asarray(RNG.normal(size=(4, 6)))
    np.testing.assert_allclose(
        stochastic.GAUSSIAN.kl(outputs, jnp.zeros((4, 6))),
        vae.kl_standard_normal(*stochastic.split_gaussian(outputs)),
        rtol=1e-12,
    )


def enumerated(model, params, x):
    """log p(x) and the exact bound of a model with 4 binary codes."""
    z = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=4)))
    log_px = jnp.stack(
        [
            model.pixels.log_prob(model.decode(params, z), jnp.broadcast_to(row, (16, 5)))
            for row in x
        ]
    )
    outputs = model.encode(params, x)
    log_q = jnp.stack([model.latent.log_prob(jnp.broadcast_to(row, (16, 4)), z) for row in outputs])
    log_p = jax.nn.logsumexp(log_px - 4 * np.log(2), axis=1)
    elbo = jnp.sum(jnp.exp(log_q) * (log_px - 4 * np.log(2) - log_q), axis=1)
    return log_p, elbo


def test_binary_codes_by_enumeration(x64):
    """The bound, its gradient and the importance weights, at 4.5 standard errors of the mean."""
    model = vae.mlp(5, (), 4, latent=stochastic.BERNOULLI)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), model.init(jax.random.key(0))
    )
    x = jnp.asarray(RNG.integers(0, 2, size=(3, 5)).astype(float))
    log_p, elbo = jax.jit(functools.partial(enumerated, model))(params, x)
    assert (log_p > elbo).all()
    every = jax.jit(functools.partial(vae.enumerated_bound, model))
    found = every(params, x, jnp.asarray(stochastic.enumerate_states(4)))
    np.testing.assert_allclose(found, elbo, rtol=1e-10)
    exact = jax.jit(jax.grad(lambda params: enumerated(model, params, x)[1].mean()))(params)

    def once(params, key):
        parts = vae.bound(model, params, x, key, n_samples=4)
        return -vae.loss(parts), parts.elbo

    keys = jax.random.split(jax.random.key(1), 4000)
    grads, bounds = jax.jit(jax.vmap(jax.grad(once, has_aux=True), (None, 0)))(params, keys)
    weigh = functools.partial(importance_sampling.log_weights, model, params, x)
    weights = jax.jit(jax.vmap(weigh))(keys)
    within(bounds, elbo)
    within(jnp.exp(weights), jnp.exp(log_p))
    jax.tree.map(within, grads, exact)


def within(draws, exact):
    draws = np.asarray(draws)
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - exact) < 4.5 * error + 1e-12).all()


@pytest.mark.parametrize('pixels', [stochastic.GAUSSIAN, stochastic.BERNOULLI])
def test_extreme_decoders_are_finite(pixels):
    model = vae.mlp(4, (), 2, pixels=pixels)
    params = model.init(jax.random.key(0))
    layer = params.decoder[0]
    logits = 100.0 * jnp.where(jnp.arange(layer.bias.shape[0]) < 2, 1.0, -1.0)
    if pixels is stochastic.GAUSSIAN:  # means far off, standard deviations of 1
        logits = jnp.where(jnp.arange(8) < 4, logits, 0.0)
    params = params._replace(decoder=(layer._replace(bias=logits),))
    x = jnp.asarray([[0.0, 1.0, 0.0, 1.0]])
    value, grads = jax.jit(
        jax.value_and_grad(lambda params: vae.loss(vae.bound(model, params, x, jax.random.key(1))))
    )(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


@pytest.mark.parametrize('learn_std', [False, True])
def test_a_gaussian_decoder_trains_on_pixels_up_to_255(learn_std):
    """The loss starts finite, and hundreds of steps later it is far lower."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.choice([0, 128, 255], size=(64, 100), p=[0.6, 0.1, 0.3]), jnp.float32)
    model = vae.mlp(100, (32,), 4, pixels=stochastic.GAUSSIAN, learn_std=learn_std)
    params = model.init(jax.random.key(0))
    log_std = model.encode(params, x)[:, 4:]
    assert float(jnp.max(jnp.abs(log_std))) > 44  # exp(2 log_std) overflows
    optimizer = optax.adam(1e-3)

    def step(carry, key):
        params, opt_state = carry
        value, grads = jax.value_and_grad(
            lambda params: vae.loss(vae.bound(model, params, x, key))
        )(params)
        params, opt_state = apply_gradients(optimizer, grads, opt_state, params)
        return (params, opt_state), value

    keys = jax.random.split(jax.random.key(1), 300)
    (params, _), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(
        (params, optimizer.init(params))
    )
    assert np.isfinite(losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert losses[-10:].mean() < 0.2 * losses[0]


def test_free_bits_stop_the_gradient():
    kl = jnp.asarray([[0.1, 3.0], [0.3, 1.0]])
    parts = vae.Bound(jnp.asarray([-5.0, -7.0]), kl)
    np.testing.assert_allclose(vae.loss(parts), 6 + 0.2 + 2, rtol=1e-6)
    np.testing.assert_allclose(vae.loss(parts, beta=4.0), 6 + 4 * 2.2, rtol=1e-6)
    np.testing.assert_allclose(vae.loss(parts, free_bits=0.5), 6 + 0.5 + 2, rtol=1e-6)
    np.testing.assert_allclose(parts.elbo, [-8.1, -8.3], rtol=1e-6)
    grad = jax.grad(lambda kl: vae.loss(parts._replace(kl=kl), free_bits=0.5))(kl)
    np.testing.assert_allclose(grad, [[0, 0.5], [0, 0.5]])
    # The mean over the batch is what the threshold applies to: 0.5, of examples on both sides of it.
    straddling = parts._replace(kl=jnp.asarray([[0.1], [0.9]]))
    np.testing.assert_allclose(vae.loss(straddling, free_bits=0.6), 6 + 0.6, rtol=1e-6)
    np.testing.assert_allclose(vae.loss(straddling, free_bits=0.4), 6 + 0.5, rtol=1e-6)


def test_warm_up_rises_to_one_and_stays():
    found = [float(vae.warm_up(n, 10)) for n in (0, 5, 10, 25)]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1])
    assert vae.warm_up(0, 0) == 1


def test_variants_in_one_program_are_the_variants():
    model = vae.mlp(5, (4,), 2)
    params = model.init(jax.random.key(0))
    x = jnp.asarray(RNG.integers(0, 2, size=(8, 5)), jnp.float32)

    @jax.jit
    def loss(beta, seed):
        return vae.loss(vae.bound(model, params, x, jax.random.key(seed)), beta=beta)

    betas, seeds = jnp.asarray([0.0, 1.0, 4.0]), jnp.arange(3)
    together = jax.vmap(loss)(betas, seeds)
    np.testing.assert_allclose(
        together, [loss(*pair) for pair in zip(betas, seeds, strict=True)], rtol=1e-5
    )


def test_active_units_and_collapse():
    means = RNG.normal(size=(500, 4)) * np.array([1, 0.05, 0.2, 0]) + 3
    active = vae.active_units(jnp.asarray(means, jnp.float32))
    np.testing.assert_array_equal(active, [True, False, True, False])
    with pytest.warns(UserWarning, match='1 of 4 latent variables'):
        assert 'posterior collapse' in vae.warn_of_collapse(1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert vae.warn_of_collapse(2, 4) == ''


def test_interpolations_keep_to_the_sphere():
    a, b = (RNG.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    a, b = (2 * end / np.linalg.norm(end, axis=1, keepdims=True) for end in (a, b))
    interpolate = jax.jit(latent_space.interpolate, static_argnums=2)
    path = np.asarray(interpolate(a, b, 9))
    np.testing.assert_allclose(path[:, 0], a, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], b, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(path, axis=2), 2, rtol=1e-5)
    steps = np.linalg.norm(np.diff(path, axis=1), axis=2)
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones((1, 8)), rtol=1e-4)
    line = interpolate(a, 3 * a, 3)  # one direction: the arc is the line
    np.testing.assert_allclose(line[:, 1], 2 * a, rtol=1e-5)
    opposite = interpolate(a, -a, 3)
    np.testing.assert_allclose(opposite[:, 1], 0, atol=1e-6)
    with pytest.raises(ValueError, match='at least 2'):
        latent_space.interpolate(a, b, 1)


@pytest.mark.cases(1)
@pytest.mark.parametrize('n, ends', [(13, range(6, 12)), (5, [2, 3]), (1, [0])])
def test_few_examples_have_fewer_paths(n, ends):
    model = vae.mlp(4, (), 2)
    x = jnp.asarray(RNG.random((n, 4)), jnp.float32)
    survey = latent_space.survey(model, model.init(jax.random.key(0)), x, jax.random.key(1))
    means, paths = survey['means'], survey['paths']
    np.testing.assert_allclose(paths[:, 0], means[: len(ends)], atol=1e-6)
    np.testing.assert_allclose(paths[:, -1], means[np.array(ends)], atol=1e-6)


def test_binarization_samples_the_pixels():
    x = jnp.linspace(0, 1, 11, dtype=jnp.float32)[None] * jnp.ones((20_000, 1))
    drawn = np.asarray(binarization.binarize(jax.random.key(0), x))
    assert set(np.unique(drawn)) == {0.0, 1.0} and drawn.dtype == np.float32
    assert (np.abs(drawn.mean(0) - x[0]) <= 4.5 * drawn.std(0) / np.sqrt(20_000)).all()
    assert not drawn[:, 0].any() and drawn[:, -1].all()


def test_independent_pixels_is_their_likelihood():
    train, test = RNG.integers(0, 2, size=(2, 30, 4)).astype(np.float32)
    train[:, 0] = 0
    rate = (train.sum(0) + 0.5) / 31
    expected = stats.bernoulli.logpmf(test.astype(int), rate).sum(1).mean()
    np.testing.assert_allclose(binarization.independent_pixels(train, test), expected, rtol=1e-6)


def test_samples_and_reconstructions_have_the_images_shape():
    model = convolutional_vae.convolutional((8, 12, 1), (3, 5), 2, hidden_dim=4)
    params = model.init(jax.random.key(0))
    draw = jax.jit(functools.partial(vae.sample, model, n=7))
    z, pixels = draw(params, jax.random.key(1))
    assert z.shape == (7, 2) and pixels.shape == (7, 96)
    assert pixels.min() > 0 and pixels.max() < 1
    again = jax.jit(functools.partial(vae.reconstruct, model))(params, pixels)
    mean = jax.jit(model.encode)(params, pixels)[:, :2]
    logits = jax.jit(model.decode)(params, mean)
    np.testing.assert_allclose(again, special.expit(logits), rtol=1e-5)


def test_convolutional_layers_are_laxs(x64):
    """Values and both gradients, of images that are not square."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(3, 4, 6, 2)))
    layer = convolutional_vae.Conv(*map(jnp.asarray, (rng.normal(size=(4, 4, 2, 5)), np.ones(5))))
    numbers = ('NHWC', 'HWIO', 'NHWC')

    @jax.jit
    def everything(kernel, x):
        mine = [
            lambda k, x: convolutional_vae.downsample(layer._replace(kernel=k), x),
            lambda k, x: convolutional_vae.upsample(layer._replace(kernel=k), x),
        ]
        by_lax = [
            lambda k, x: (
                1 + lax.conv_general_dilated(x, k, (2, 2), 'SAME', dimension_numbers=numbers)
            ),
            lambda k, x: 1 + lax.conv_transpose(x, k, (2, 2), 'SAME', dimension_numbers=numbers),
        ]
        found = []
        for function in (*mine, *by_lax):
            y, back = jax.vjp(function, kernel, x)
            found.append((y, *back(jnp.sin(y))))
        return found

    shrunk, grown, *expected = everything(layer.kernel, x)
    assert shrunk[0].shape == (3, 2, 3, 5) and grown[0].shape == (3, 8, 12, 5)
    for ours, theirs in zip((shrunk, grown), expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('learn_std', [False, True])
def test_convolutional_outputs_are_means_then_log_stds(learn_std):
    """A bump in one cell of the smallest feature map moves the means of pixels near it, no standard deviation."""
    model = convolutional_vae.convolutional(
        (16, 16, 2), (3, 4), 2, hidden_dim=4, pixels=stochastic.GAUSSIAN, learn_std=learn_std
    )
    params = model.init(jax.random.key(0))
    last = params.decoder.conv[-1]
    n_means = (
        2  # channels of means; log standard deviations, where the network gives them, come after
    )
    kernel = last.kernel.at[..., n_means:].set(0.0) if not learn_std else last.kernel
    decoder = params.decoder._replace(conv=(params.decoder.conv[0], last._replace(kernel=kernel)))
    dense = decoder.dense[-1]
    one, other = (
        decoder._replace(dense=(decoder.dense[0], dense._replace(bias=bias)))
        for bias in (
            dense.bias + 1,
            (dense.bias + 1).reshape(4, 4, 4).at[1, 2].add(1.0).reshape(-1),
        )
    )
    z = jnp.zeros((1, 2))
    decode = jax.jit(model.decode)
    a, b = (decode(params._replace(decoder=decoder), z) for decoder in (one, other))
    means, log_stds = np.split(np.asarray(a != b)[0], 2)
    assert not log_stds.any()
    rows, columns, _ = np.nonzero(means.reshape(16, 16, 2))
    assert means.any() and set(rows) <= set(range(1, 11)) and set(columns) <= set(range(5, 15))


def test_bad_input_names_the_fix():
    with pytest.raises(ValueError, match='latent_dim to be at least 1, got 0'):
        vae.mlp(4, (3,), 0)
    with pytest.raises(ValueError, match='learn_std learns'):
        vae.mlp(4, (3,), 2, learn_std=True)
    with pytest.raises(ValueError, match='cannot be halved 3 times'):
        convolutional_vae.convolutional((28, 28, 1), (2, 2, 2), 2)
    with pytest.raises(ValueError, match="'straight' or 'sphere'"):
        latent_space.interpolate(jnp.zeros((1, 2)), jnp.ones((1, 2)), 3, 'line')  # pyright: ignore
    model = vae.mlp(4, (3,), 2)
    params = model.init(jax.random.key(0))
    for bad, words in ((2.0, 'Gaussian decoder'), (np.nan, 'is NaN')):
        with pytest.raises(ValueError, match=words):
            vae.bound(model, params, jnp.full((1, 4), bad), jax.random.key(0))
        with pytest.raises(ValueError, match=words):
            binarization.binarize(jax.random.key(0), jnp.full((1, 4), bad))


def test_latent_space_survey_and_functions_of_images():
    model = vae.mlp(6, (), 2)
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (14, 6))
    survey = latent_space.survey(model, params, x, jax.random.key(2))
    shapes = {name: value.shape for name, value in survey.items()}
    assert shapes == {'means': (14, 2), 'kl': (2,), 'samples': (100, 6), 'paths': (6, 10, 2)}
    functions = vae.image_functions(model, (2, 3))
    images = x.reshape(14, 2, 3)
    np.testing.assert_array_equal(functions['encode'](params, images), survey['means'])
    restored = functions['reconstruct'](params, images)
    np.testing.assert_array_equal(restored.reshape(14, 6), vae.reconstruct(model, params, x))
    samples = functions['sample'](params, jax.random.key(4), 3)
    _, expected = vae.sample(model, params, jax.random.key(4), 3)
    np.testing.assert_array_equal(samples, expected.reshape(3, 2, 3))
    rows = vae.sample_reconstructions(model, params, jax.random.key(3), x)
    assert rows.shape == (5, 14, 6) and set(np.unique(rows[-1])) <= {0.0, 1.0}
    np.testing.assert_array_equal(rows[0], x)


def test_training_loss_is_the_negative_of_either_bound():
    model = vae.mlp(6, (), 2)
    params, key = model.init(jax.random.key(0)), jax.random.key(2)
    x = jax.random.bernoulli(jax.random.key(1), 0.4, (9, 6)).astype(jnp.float32)
    given = (model, params, x, key)

    @jax.jit
    def values():
        loss = functools.partial(importance_sampling.training_loss, *given, n_samples=2)
        bound = importance_sampling.importance_bound(*given, n_samples=2).mean()
        elbo = vae.bound(*given, n_samples=2).elbo.mean()
        return loss(), elbo, loss(objective='importance')[0], bound

    (value, metrics), elbo, importance, bound = values()
    assert float(value) == pytest.approx(-float(elbo), rel=1e-6)
    assert float(metrics['elbo']) == pytest.approx(float(elbo), rel=1e-6)
    assert float(importance) == pytest.approx(-float(bound), rel=1e-6)
    records = importance_sampling.bound_records(model, params, x, key, (1, 20))
    assert [r['bound'] for r in records] == [
        'importance-weighted, k = 1',
        'importance-weighted, k = 20',
    ]


def test_decoders_by_name():
    assert vae.pixel_options('bernoulli', 0.1) == {'pixels': stochastic.BERNOULLI}
    assert vae.pixel_options('gaussian_learned', 0.1)['learn_std']
    mean, x = jnp.zeros((1, 2)), jnp.full((1, 2), 0.3)
    log_prob = vae.pixel_options('gaussian', 0.1)['pixels'].log_prob(mean, x)
    assert float(log_prob[0]) == pytest.approx(stats.norm.logpdf(0.3, 0, 0.1) * 2, rel=1e-5)
