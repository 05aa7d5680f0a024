"""Networks written by hand compute their functions exactly, with the numbers of units of the theory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.features import depth

X = np.linspace(0, 1, 1025, dtype=np.float32)[:, None]


@pytest.mark.parametrize('n', [1, 3, 6])
def test_two_units_a_layer_compute_the_sawtooth(n):
    layers = depth.sawtooth_network(n)
    values = depth.evaluate(layers, X)
    np.testing.assert_allclose(values, depth.tent(X[:, 0], n), atol=1e-5)
    slopes = np.diff(np.asarray(values)) * (len(X) - 1)
    assert 1 + np.sum(np.abs(np.diff(slopes)) > 1) == 2**n
    np.testing.assert_allclose(np.abs(slopes), 2**n, rtol=1e-3)
    assert depth.n_units(layers) == 2 * n


def test_one_layer_needs_a_unit_for_every_piece_of_the_sawtooth():
    n = 4
    exact = depth.interpolation_network(lambda x: np.asarray(depth.tent(x, n)), 2**n)
    np.testing.assert_allclose(depth.evaluate(exact, X), depth.tent(X[:, 0], n), atol=1e-4)
    fewer = depth.interpolation_network(lambda x: np.asarray(depth.tent(x, n)), 2**n - 1)
    assert np.abs(depth.evaluate(fewer, X) - depth.tent(X[:, 0], n)).max() > 0.1


@pytest.mark.parametrize('deep', [True, False])
def test_parity_is_exact_deep_and_in_one_layer(deep):
    bits = np.array(list(itertools.product((0, 1), repeat=8)), np.float32)
    layers = depth.parity_network(8, deep)
    np.testing.assert_allclose(depth.evaluate(layers, bits), bits.sum(1) % 2, atol=1e-5)
    assert depth.n_units(layers) == (14 if deep else 8)
    assert len(layers) == (4 if deep else 2)


def test_pairwise_parity_of_six_bits_is_refused():
    with pytest.raises(ValueError, match='got 6 bits'):
        depth.parity_network(6, True)


@pytest.mark.parametrize('m', [4, 16])
def test_one_layer_approximates_with_the_rate_of_interpolation(m):
    layers = depth.interpolation_network(lambda x: np.sin(2 * np.pi * x), m)
    error = np.abs(depth.evaluate(layers, X) - np.sin(2 * np.pi * X[:, 0])).max()
    bound = (2 * np.pi) ** 2 / (8 * m**2)
    assert 0.5 * bound < error <= bound


@pytest.mark.parametrize('target', [depth.sawtooth(3), depth.parity(8), depth.radial(3)])
def test_targets_have_mean_0_and_variance_1(target):
    x = target.sample(jax.random.key(0), 20_000)
    y = target.function(x)
    assert x.shape == (20_000, target.dim)
    np.testing.assert_allclose((y.mean(), y.var()), (0, 1), atol=0.03)


@pytest.mark.slow
def test_padded_networks_are_the_narrow_ones():
    stack = depth.init_stack(jax.random.key(0), 2, (2, 5), (1, 3))
    x = jax.random.normal(jax.random.key(1), (2, 7, 3)).at[0, :, 1:].set(0)
    outputs = depth.apply_stack(stack, x)
    (w0, b0), (w1, b1), (w2, b2) = ((w[0], b[0]) for w, b in stack.layers)
    narrow = ((w0[:1, :2], b0[:2]), (w1[:2, :2], b1[:2]), (w2[:2], b2))
    np.testing.assert_allclose(outputs[0], depth.evaluate(narrow, x[0, :, :1]), atol=1e-5)
    grads = jax.grad(lambda s: jnp.sum(depth.apply_stack(s, x)))(stack)
    assert float(jnp.abs(grads.layers[1][0][0, 2:]).max()) == 0


def test_the_start_of_lowest_training_error_counts():
    cases = depth.cases(('sawtooth',), (2, 4), (8, 16), 2)
    assert [case[1:] for case in cases[::2]] == [(2, 16), (4, 16), (4, 8)]
    stack = depth.init_stack(jax.random.key(0), 1, [case.units for case in cases], [1] * len(cases))
    training = depth.sample_targets({'sawtooth': depth.sawtooth(2)}, 16, 0)
    x, y = (jnp.asarray(training[k][:, 0]) for k in ('x', 'y'))
    every = jnp.stack([x] * len(cases))
    expected = jnp.mean((depth.apply_stack(stack, every) - y[None]) ** 2, 1).reshape(-1, 2).min(1)
    by_units, few = depth.records({'1': stack}, cases, ('sawtooth',), training, training, 2)
    errors = [record['error'] for record in by_units] + [few[1]['few_error']]
    np.testing.assert_allclose(errors, np.minimum(expected, 1), rtol=1e-5)
    assert few[0]['few_error'] == by_units[1]['error']
