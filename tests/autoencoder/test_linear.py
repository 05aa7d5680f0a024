import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from lecture4.autoencoder import linear, network

D2 = 28 * 28
D, K = 64, 4  # the fifth eigenvalue is 0.69 of the fourth: a gap to converge by


@pytest.fixture(scope='module')
def digits():
    pixels, _ = load_digits(return_X_y=True)
    return np.asarray(pixels) / 16


@pytest.fixture(scope='module')
def pca(digits):
    return PCA(K, svd_solver='full').fit(digits)


def converged(digits, tied, k=K, n_steps=8000):
    """Adam on the exact mean loss, the rate falling to 0."""
    mean, covariance = linear.moments(jnp.asarray(digits, jnp.float32))
    params = linear.init(jax.random.key(0), D, k, tied=tied)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.01, n_steps))

    @jax.jit
    def run(params):
        def body(carry, _):
            params, opt_state = carry
            grads = jax.grad(linear.expected_loss)(params, mean, covariance)
            with jax.numpy_dtype_promotion('standard'):
                updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(body, (params, optimizer.init(params)), None, n_steps)[0][0]

    return run(params)


@pytest.mark.parametrize('tied', [False, True])
def test_gradient_descent_ends_in_the_principal_subspace(digits, pca, tied):
    params = converged(digits, tied)
    angles = subspace_angles(np.asarray(linear.decoder_matrix(params), float), pca.components_.T)
    assert angles.max() < 1e-3
    error = np.asarray(linear.loss(params, jnp.asarray(digits, jnp.float32)), float).mean()
    tail = ((digits - pca.inverse_transform(pca.transform(digits))) ** 2).sum(1).mean()
    assert tail * (1 - 1e-5) <= error <= tail * 1.0001
    W = np.asarray(params.encoder[0].weight, float)
    gram = W.T @ W
    cosine = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    off = abs(cosine - np.eye(K)).max()
    if tied:  # a projection is only made by orthonormal columns; they are turned all the same
        np.testing.assert_allclose(gram, np.eye(K), atol=2e-3)
        turned = W.T @ pca.components_.T
        assert abs(turned).max(0).min() < 0.9
    else:
        assert off > 0.1


def test_the_loss_of_the_moments_is_the_mean_loss(digits, x64):
    params = network.init_autoencoder(
        jax.random.key(1), (D, 20, 5), decoder_dims=(5, D), dtype=jnp.float64
    )
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, params)
    exact = jax.jit(lambda p, x: linear.loss(p, x).mean())(params, digits)
    found = jax.jit(lambda p, x: linear.expected_loss(p, *linear.moments(x)))(params, digits)
    assert float(found) == pytest.approx(float(exact), rel=1e-10)


def test_alternating_least_squares_falls_to_pca(digits, pca):
    mean, covariance = linear.moments(jnp.asarray(digits, jnp.float32))
    params = linear.init(jax.random.key(2), D, K)

    @jax.jit
    def run(params):
        def step(params, _):
            params = linear.alternating_least_squares(params, mean, covariance)
            return params, linear.expected_loss(params, mean, covariance)

        return jax.lax.scan(step, params, length=150)

    params, losses = run(params)
    losses = losses.tolist()
    assert all(b <= a * (1 + 1e-5) for a, b in itertools.pairwise(losses))
    angles = subspace_angles(np.asarray(linear.decoder_matrix(params), float), pca.components_.T)
    assert angles.max() < 1e-3


def test_an_overcomplete_linear_autoencoder_copies_its_input(digits):
    params = converged(digits, tied=False, k=96, n_steps=3000)
    x = jnp.asarray(digits[:50], jnp.float32)
    variance = ((digits - digits.mean(0)) ** 2).sum(1).mean()
    assert float(linear.loss(params, x).mean()) < 1e-4 * variance


@pytest.mark.parametrize('shapes', [(9, 3, 3), (9, 4, 2), (9, 2, 5), (4, 3, 3)])
def test_principal_angles_are_scipys(x64, shapes):
    d, k, m = shapes
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(d, k)), rng.normal(size=(d, m))
    found = linear.principal_angles(jnp.asarray(A), jnp.asarray(B))
    np.testing.assert_allclose(found, np.sort(subspace_angles(A, B)), atol=1e-7)


def test_principal_components_are_scikit_learns(digits, pca):
    found = linear.principal_components(digits.astype(np.float32))
    np.testing.assert_allclose(
        found.variances[:K], pca.explained_variance_ * 1796 / 1797, rtol=1e-9
    )
    restored = pca.inverse_transform(pca.transform(digits[:5]))
    np.testing.assert_allclose(found.reconstruct(digits[:5], K), restored, atol=1e-10)
    np.testing.assert_allclose(
        found.reconstruction_error(digits, K), found.variances[K:].sum(), rtol=1e-9
    )
    assert abs(found.reconstruction_error(digits, D)) < 1e-20


@pytest.mark.data
def test_principal_components_of_mnist_have_the_published_error(manual_dir, tmp_path):
    """The protocol of all errors here: fitted on 60,000, summed over pixels, mean of 10,000.

    Hinton & Salakhutdinov 2006 print 13.87 for 30 components (cited from memory, unverified).
    """
    from lecture4.data import sources

    x, test = (
        sources.load('mnist', split, data_dir=tmp_path, manual_dir=manual_dir).images.reshape(
            -1, D2
        )
        / np.float32(255)
        for split in ('train', 'test')
    )
    found = linear.principal_components(x)
    reached = [found.reconstruction_error(test, k) for k in (2, 6, 30, 32, 64)]
    np.testing.assert_allclose(reached, [43.645, 32.651, 13.866, 13.193, 7.093], atol=1e-3)


def test_small_principal_angles_are_exact(x64):
    t = 1e-9
    A = jnp.eye(4)[:, :2]
    B = jnp.array([[1.0, 0], [0, np.cos(t)], [0, np.sin(t)], [0, 0]])
    np.testing.assert_allclose(linear.principal_angles(A, B), [0, t], rtol=1e-6, atol=1e-20)


def test_bad_input_is_refused():
    mean, covariance = jnp.zeros(4), jnp.eye(4)
    with pytest.raises(ValueError, match=r'at least 1, got \(4, 0\)'):
        linear.init(jax.random.key(0), 4, 0)
    with pytest.raises(ValueError, match='untied'):
        linear.alternating_least_squares(
            linear.init(jax.random.key(0), 4, 2, tied=True), mean, covariance
        )
    with pytest.raises(ValueError, match='latent dimension 5 exceeds the data dimension 4'):
        linear.alternating_least_squares(linear.init(jax.random.key(0), 4, 5), mean, covariance)
    with pytest.raises(ValueError, match=r'got \(4, 2\) and \(5, 2\)'):
        linear.principal_angles(jnp.ones((4, 2)), jnp.ones((5, 2)))


def test_convergence_repeats_alternating_least_squares(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)) * [3, 2, 1, 0.5])
    components = linear.principal_components(x).components[:, :2]
    params = linear.init(jax.random.key(0), 4, 2, dtype=jnp.float64)
    found, angles = linear.converge(params, x, components, 8)
    assert angles.shape == (8,) and float(angles[-1]) < float(angles[0])
    expected = params
    for _ in range(8):
        expected = linear.alternating_least_squares(expected, *linear.moments(x))
    np.testing.assert_allclose(found.decoder[0].weight, expected.decoder[0].weight, rtol=1e-9)


def test_largest_cosine_between_columns():
    weight = np.array([[1.0, 0, 1], [0, 2, 1], [0, 0, 0]])
    assert linear.max_cosine(weight) == pytest.approx(1 / 2**0.5)
    assert linear.max_cosine(weight[:, :2]) == 0
