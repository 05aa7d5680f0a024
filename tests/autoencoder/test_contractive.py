import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import contractive, network

D, K = 12, 7


@pytest.fixture
def layer(x64):
    (made,) = network.init(jax.random.key(0), (D, K), scale='sigmoid', dtype=jnp.float64)
    return network.Dense(made.weight, jax.random.normal(jax.random.key(9), (K,)))


@pytest.fixture
def x(x64):
    return jax.random.normal(jax.random.key(1), (5, D))


def one(layers, activation):
    return lambda x: network.apply(layers, x, activation, activation)


@pytest.mark.parametrize('activation', [jax.nn.sigmoid, jnp.tanh, jax.nn.relu, jnp.sin])
def test_closed_form_is_the_jacobians_norm(layer, x, activation):
    found = contractive.layer_penalty(layer, x, activation)
    jacobian = jax.vmap(jax.jacrev(one((layer,), activation)))(x)
    np.testing.assert_allclose(found, (jacobian**2).sum((1, 2)), rtol=1e-12)


def test_logistic_closed_form_is_the_papers(layer, x):
    h = jax.nn.sigmoid(x @ layer.weight + layer.bias[None, :])
    papers = ((h * (1 - h)) ** 2 * (layer.weight**2).sum(0)[None, :]).sum(1)
    found = contractive.layer_penalty(layer, x, jax.nn.sigmoid)
    np.testing.assert_allclose(found, papers, rtol=1e-12)


@pytest.mark.parametrize('widths', [(D, 9, 4), (3, 9, 8)])
def test_exact_penalty_is_finite_differences_in_both_modes(x64, widths):
    layers = network.init(jax.random.key(0), widths, scale='sigmoid', dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(1), (2, widths[0]))
    encode = one(layers, jnp.tanh)
    step = 1e-5
    basis = step * jnp.eye(widths[0])
    numeric = jnp.stack(
        [(encode(x + e[None, :]) - encode(x - e[None, :])) / (2 * step) for e in basis], axis=2
    )
    jacobian, penalty = (
        jax.jit(functools.partial(function, encode))(x)
        for function in (contractive.jacobian, contractive.exact_penalty)
    )
    np.testing.assert_allclose(jacobian, numeric, atol=1e-8)
    np.testing.assert_allclose(penalty, (numeric**2).sum((1, 2)), rtol=1e-7)


def test_deep_encoders_estimates_agree_with_the_exact_penalty(x64):
    """Where there is no closed form: three layers, means of 4000 probes within 4 standard errors."""
    layers = network.init(jax.random.key(0), (D, 9, 8, 5), scale='sigmoid', dtype=jnp.float64)
    encode, x = one(layers, jax.nn.sigmoid), jax.random.normal(jax.random.key(1), (2, D))
    exact = jax.jit(functools.partial(contractive.exact_penalty, encode))(x)
    for direction in ('forward', 'backward'):
        estimate = functools.partial(contractive.estimated_penalty, encode, direction=direction)
        keys = jax.random.split(jax.random.key(2), 4000)
        draws = jax.jit(lambda keys, run=estimate: jax.lax.map(lambda key: run(x, key), keys))(keys)
        error = draws.std(0) / np.sqrt(len(draws))
        assert (abs(draws.mean(0) - exact) < 4 * error).all() and (error < 0.02 * exact).all()


@pytest.mark.parametrize('direction', ['forward', 'backward'])
@pytest.mark.parametrize('probes', ['rademacher', 'gaussian'])
def test_estimates_are_unbiased_with_the_known_variance(layer, x, direction, probes):
    encode = one((layer,), jax.nn.sigmoid)
    point = x[:1]
    n = 20_000
    estimate = functools.partial(
        contractive.estimated_penalty, encode, direction=direction, probes=probes
    )
    draws = jax.jit(estimate)(jnp.broadcast_to(point, (n, D)), jax.random.key(3))
    exact = float(contractive.layer_penalty(layer, point, jax.nn.sigmoid)[0])
    J = np.asarray(contractive.jacobian(encode, point))[0]
    A = J.T @ J if direction == 'forward' else J @ J.T
    variance = 2 * (A**2).sum()
    if probes == 'rademacher':
        variance -= 2 * (np.diag(A) ** 2).sum()
    assert abs(float(draws.mean()) - exact) < 4 * np.sqrt(variance / n)
    assert float(draws.std()) == pytest.approx(np.sqrt(variance), rel=0.05)


def test_more_probes_average_and_gradients_agree_in_expectation(layer, x):
    def estimate(layer, key):
        return contractive.estimated_penalty(
            one((layer,), jax.nn.sigmoid), x, key, n_probes=2000
        ).mean()

    def closed(layer):
        return contractive.layer_penalty(layer, x, jax.nn.sigmoid).mean()

    found = jax.jit(jax.grad(estimate))(layer, jax.random.key(4))
    exact = jax.jit(jax.grad(closed))(layer)
    for ours, expected in zip(found, exact, strict=True):
        assert float(jnp.linalg.norm(ours - expected)) < 0.06 * float(jnp.linalg.norm(expected))


def test_curvature_forms_agree_and_tend_to_the_hessian(layer, x):
    encode, key, x = one((layer,), jax.nn.sigmoid), jax.random.key(5), x[:2]

    @functools.partial(jax.jit, static_argnames='n_samples')
    def closed(std, n_samples):
        return contractive.layer_curvature(
            layer, x, jax.nn.sigmoid, key, std=std, n_samples=n_samples
        )

    probed = jax.jit(functools.partial(contractive.estimated_curvature, encode, n_samples=4000))
    found = closed(0.1, 4000)
    np.testing.assert_allclose(found, probed(x, key, std=0.1), rtol=0.1)
    small = closed(1e-4, 4000)
    hessian = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(encode))))(x)
    np.testing.assert_allclose(small / 1e-8, (hessian**2).sum((1, 2, 3)), rtol=0.1)


def test_curvature_is_the_distance_of_two_jacobians(layer, x):
    """One draw of noise, by the definition."""
    encode, key = one((layer,), jax.nn.sigmoid), jax.random.key(5)
    found = contractive.layer_curvature(layer, x, jax.nn.sigmoid, key, std=0.7, n_samples=1)
    noise = 0.7 * jax.random.normal(jax.random.split(key, 1)[0], x.shape)
    difference = contractive.jacobian(encode, x) - contractive.jacobian(encode, x + noise)
    np.testing.assert_allclose(found, (difference**2).sum((1, 2)), rtol=1e-10)


def test_unknown_probes_and_directions_are_named():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="got 'reverse'"):
        contractive.estimated_penalty(jnp.tanh, x, jax.random.key(0), direction='reverse')
    with pytest.raises(ValueError, match="got 'normal'"):
        contractive.estimated_penalty(jnp.tanh, x, jax.random.key(0), probes='normal')
