import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from lecture4.ops import linalg


def orthogonal(key, n):
    return jnp.linalg.qr(jax.random.normal(jax.random.key(key), (n, n)))[0]


def with_spectrum(values, n_cols):
    n = len(values)
    return (orthogonal(0, n) * jnp.sqrt(jnp.asarray(values))[None, :]) @ orthogonal(1, n_cols)[:n]


@pytest.mark.parametrize(
    'values',
    [
        [9.0, 3.0, 1.0, 0.1, 0.0],
        [2.0, 1.9999, 1.9998, 1.0, 0.5],  # nearly degenerate
        [1.0, 1.0, 1.0, 1.0, 1.0],  # the worst case of the bound
        [1e-20, 0.0, 0.0, 0.0, 0.0],
        [1e20, 1e19, 1.0, 1.0, 1.0],
    ],
)
def test_lipschitz_bounds_the_largest_eigenvalue_tightly(values):
    D = with_spectrum(values, 8)
    true = np.linalg.eigvalsh(np.asarray(D @ D.T, np.float64))[-1]
    for matrix in (D, D.T):
        L = float(linalg.lipschitz(matrix))
        assert true * (1 - 1e-6) <= L <= true * 5 ** (1 / 256) * (1 + 1e-4)


def test_lipschitz_of_degenerate_matrices():
    assert float(linalg.lipschitz(jnp.zeros((4, 7)))) == 0
    assert float(linalg.lipschitz(jnp.zeros((4, 0)))) == 0
    np.testing.assert_allclose(linalg.lipschitz(jnp.full((1, 1), 3.0)), 9, rtol=1e-5)
    # Power iteration from the vector of ones would never find the largest eigenvalue of this one.
    D = jnp.diag(jnp.asarray([3.0, 1.0])) @ jnp.asarray([[1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(linalg.lipschitz(D), 18, rtol=1e-4)
    with pytest.raises(TypeError, match='floating'):
        linalg.lipschitz(jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match=r'\(3,\)'):
        linalg.lipschitz(jnp.ones(3))


def signals(n=200, d=6):
    x = jax.random.normal(jax.random.key(3), (n, d)) * jnp.geomspace(0.1, 3, d)[None, :]
    return x @ orthogonal(4, d) + jnp.arange(d, dtype=x.dtype)[None, :]


def test_pca_agrees_with_scikit_learn():
    x = signals()
    affine, variances = linalg.pca(x, 4)
    oracle = PCA(4).fit(np.asarray(x, np.float64))
    np.testing.assert_allclose(variances, oracle.explained_variance_ * 199 / 200, rtol=1e-4)
    signs = np.sign((np.asarray(affine.matrix) * oracle.components_.T).sum(0))
    np.testing.assert_allclose(affine.matrix, oracle.components_.T * signs[None, :], atol=1e-4)
    expected = oracle.transform(np.asarray(x)) * signs[None, :]
    np.testing.assert_allclose(linalg.apply(affine, x), expected, atol=1e-3)
    largest = np.abs(np.asarray(affine.matrix)).argmax(0)
    assert np.all(np.asarray(affine.matrix)[largest, np.arange(4)] > 0)


@pytest.mark.parametrize('epsilon', [0.0, 0.1, 2.0])
def test_zca_covariance_is_lambda_over_lambda_plus_r(epsilon):
    x = signals()
    y = np.asarray(linalg.apply(linalg.zca(x, epsilon), x), np.float64)
    covariance = np.cov(np.asarray(x, np.float64).T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    expected = (vectors * (values / (values + epsilon * values.mean()))) @ vectors.T
    np.testing.assert_allclose(np.cov(y.T, bias=True), expected, atol=2e-3)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)


def test_zca_is_symmetric_and_invariant_to_scale():
    x = signals()
    small, large = linalg.zca(x, 0.1), linalg.zca(100 * x, 0.1)
    np.testing.assert_allclose(small.matrix, small.matrix.T, atol=1e-5)
    expected = linalg.apply(small, x)
    np.testing.assert_allclose(linalg.apply(large, 100 * x), expected, atol=1e-3)


def test_zca_without_variance_gives_zeros_not_infinities():
    flat = jnp.concatenate([signals(), jnp.full((200, 1), 0.3)], axis=1)
    y = linalg.apply(linalg.zca(flat, 0.0), flat)
    assert np.all(np.isfinite(y))
    np.testing.assert_allclose(y[:, -1], 0, atol=1e-3)
    constant = jnp.full((5, 3), 7.0)
    np.testing.assert_array_equal(linalg.apply(linalg.zca(constant, 0.1), constant), 0)


def test_the_inverse_transform_restores_the_signals():
    x = signals()
    affine = linalg.zca(x, 0.1)
    np.testing.assert_allclose(affine.matrix @ linalg.pseudo_inverse(affine), np.eye(6), atol=1e-4)
    np.testing.assert_allclose(
        linalg.inverse_transform(affine, linalg.apply(affine, x)), x, atol=1e-3
    )
    affine, _ = linalg.pca(x, 2)
    embedded = linalg.inverse_transform(affine, linalg.apply(affine, x))
    # The residual of the projection is orthogonal to the components.
    np.testing.assert_allclose((x - embedded) @ affine.matrix, 0, atol=1e-4)


def test_affine_maps_take_leading_axes_and_name_wrong_sizes():
    affine = linalg.zca(signals(), 0.1)
    x = signals(24).reshape(2, 3, 4, 6)
    assert linalg.apply(affine, x).shape == (2, 3, 4, 6)
    with pytest.raises(ValueError, match=r'5 values.* 6'):
        linalg.apply(affine, jnp.ones((2, 5)))
    with pytest.raises(ValueError, match='n_components 7'):
        linalg.pca(signals(), 7)
    with pytest.raises(ValueError, match=r'\(0, 3\)'):
        linalg.zca(jnp.ones((0, 3)), 0.1)
    with pytest.raises(TypeError, match='int32'):
        linalg.pca(jnp.ones((4, 3), jnp.int32), 1)
