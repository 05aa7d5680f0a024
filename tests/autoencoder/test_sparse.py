import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from lecture4.autoencoder import network, sparse
from tests.gradients import check_grads


def test_laplace_nll_is_scipys_density(x64):
    h = np.random.default_rng(0).normal(size=(5, 3))
    weight = np.array([0.5, 2.0, 7.0])
    expected = -stats.laplace.logpdf(h, scale=1 / weight).sum(1)
    np.testing.assert_allclose(sparse.laplace_nll(jnp.asarray(h), weight), expected, rtol=1e-12)
    np.testing.assert_allclose(
        sparse.laplace_nll(jnp.asarray(h), 2.0),
        sparse.l1(jnp.asarray(h), 2.0) - 3 * np.log(2.0 / 2),
        rtol=1e-12,
    )

    def density(t):
        return np.exp(-float(sparse.laplace_nll(jnp.array([[t]]), 3.0)[0]))

    assert 2 * integrate.quad(density, 0, 20)[0] == pytest.approx(1, abs=1e-6)


def test_the_constant_makes_the_inverse_scale_identifiable(x64):
    """The most likely weight is 1 / mean |h|; without the constant it would be 0."""
    h = jnp.asarray(stats.laplace(scale=0.25).rvs(size=(400, 5), random_state=0))
    best = optimize.minimize_scalar(
        lambda t: float(sparse.laplace_nll(h, np.exp(t)).mean()), bounds=(-3, 5), method='bounded'
    )
    assert np.exp(best.x) == pytest.approx(1 / float(jnp.abs(h).mean()), rel=1e-4)


def test_kl_penalty_has_its_value_and_derivative(x64):
    mean = jnp.array([0.2, 0.05, 0.9])
    found = sparse.kl_penalty(mean, 0.05)
    assert float(found[0]) == pytest.approx(0.0939430, abs=1e-6)
    expected = [stats.entropy([0.05, 0.95], [m, 1 - m]) for m in np.asarray(mean)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    slope = jax.grad(lambda m: sparse.kl_penalty(m, 0.05).sum())(mean)
    np.testing.assert_allclose(slope, -0.05 / mean + 0.95 / (1 - mean), atol=1e-9)
    assert float(slope[0]) == pytest.approx(0.9375)


def test_kl_penalty_is_finite_for_units_always_off_or_on():
    mean = jnp.array([0.0, 1.0])
    value, slope = jax.value_and_grad(lambda m: sparse.kl_penalty(m, 0.05).sum())(mean)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert slope[0] < -1e3
    assert slope[1] > 1e3


def test_kl_penalty_of_batch_means_overstates():
    code = jax.random.uniform(jax.random.key(0), (1000, 4)) * 0.2
    whole = sparse.kl_penalty(code.mean(0), 0.05).sum()
    batches = sparse.kl_penalty(code.reshape(100, 10, 4).mean(1), 0.05).sum(1).mean()
    assert float(batches) > float(whole) * 1.02


def test_kl_loss_is_its_formula_and_its_gradient_is_right(x64):
    params = network.init_autoencoder(jax.random.key(0), (6, 4), dtype=jnp.float64)
    x = jax.random.uniform(jax.random.key(1), (7, 6), minval=0.1, maxval=0.9)
    (W, b), (U, c) = params.encoder[0], params.decoder[0]

    def logistic(t):
        return 1 / (1 + np.exp(-np.asarray(t)))

    h = logistic(x @ W + b[None, :])
    y = logistic(h @ U + c[None, :])
    rho = h.mean(0)
    kl = sum(stats.entropy([0.02, 0.98], [m, 1 - m]) for m in rho)
    expected = 0.5 * ((y - x) ** 2).sum() / 7 + 0.05 * ((W**2).sum() + (U**2).sum()) + 2 * kl
    run = jax.jit(lambda p: sparse.kl_loss(p, x, target=0.02, kl_weight=2.0, weight_decay=0.1)[0])
    assert float(run(params)) == pytest.approx(float(expected), rel=1e-9)
    check_grads(run, (params,), order=1, modes=['rev'], rtol=1e-5)


def test_l1_loss_cannot_be_cheated_by_a_growing_decoder(x64):
    params = network.init_autoencoder(jax.random.key(0), (6, 9), dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(1), (7, 6))
    layer = params.decoder[0]
    grown = network.Autoencoder(params.encoder, (network.Dense(layer.weight * 10, layer.bias),))
    value = sparse.l1_loss(params, x, 0.3)[0]
    assert float(sparse.l1_loss(grown, x, 0.3)[0]) == pytest.approx(float(value), rel=1e-12)
    rows = sparse.normalize_decoder(grown).decoder[0].weight
    np.testing.assert_allclose((rows**2).sum(1), 1, rtol=1e-12)
    h = np.maximum(x @ params.encoder[0].weight, 0)
    expected = ((x - h @ rows) ** 2).sum(1).mean() + 0.3 * abs(h).sum(1).mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    assert float(sparse.l1_loss(params, x, 0.3)[1]['l0']) == (h > 0).sum(1).mean()


def test_a_decoder_row_of_zeros_stays_finite():
    params = network.init_autoencoder(jax.random.key(0), (4, 3), scale=0.0)
    grads = jax.jit(jax.grad(lambda p: sparse.l1_loss(p, jnp.ones((2, 4)), 0.1)[0]))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_larger_weight_makes_sparser_codes():
    """On sparse sources through a known dictionary; the codes have exact zeros."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((16, 12))
    D /= np.linalg.norm(D, axis=0)
    sources = rng.exponential(size=(512, 12)) * (rng.uniform(size=(512, 12)) < 0.2)
    x = (sources @ D.T).astype(np.float32)

    @jax.jit
    def train(weight):
        params = network.init_autoencoder(jax.random.key(3), (16, 24))

        def body(params, _):
            grads = jax.grad(lambda p: sparse.l1_loss(p, x, weight)[0])(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        params = jax.lax.scan(body, params, None, 1500)[0]
        return sparse.l1_loss(params, x, weight)[1]

    found = [train(weight) for weight in (0.01, 0.1, 0.5)]
    density = [float(metrics['l0']) for metrics in found]
    error = [float(metrics['reconstruction']) for metrics in found]
    assert density[0] > density[1] > density[2]
    assert error[0] < error[1] < error[2]
    assert density[1] < 8


def test_sparseness_has_its_landmarks():
    rows = jnp.stack([jnp.ones(100), jnp.zeros(100).at[3].set(-7.0), jnp.zeros(100)])
    np.testing.assert_allclose(sparse.sparseness(rows), [0, 0.99, 1], atol=1e-6)
    normal = jax.random.normal(jax.random.key(0), (1, 100_000))
    assert float(sparse.sparseness(normal)[0]) == pytest.approx(1 - 2 / np.pi, abs=5e-3)
    np.testing.assert_allclose(sparse.sparseness(5 * normal), sparse.sparseness(normal), rtol=1e-5)


def test_evaluation_counts_variance_active_and_dead_units():
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    code = jnp.array([[1.0, 0, 0], [2.0, 1, 0], [0.0, 0, 0], [1.0, 0, 0]])
    exact = sparse.evaluate(x, code, x)
    assert float(exact['explained']) == 1 and float(exact['l0']) == 1 and float(exact['dead']) == 1
    half = sparse.evaluate(x, code, x * jnp.array([[0.0, 1.0]]))
    assert float(half['explained']) == pytest.approx(1 - 2 / 10)
