"""Jacobians of encoders whose derivative is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.features import jacobian


@pytest.mark.parametrize('shape', [(6, 4), (4, 6)])
def test_singular_values_are_those_of_a_linear_encoder(shape, x64):
    W = jax.random.normal(jax.random.key(0), shape)
    x = jax.random.normal(jax.random.key(1), (3, shape[0]))
    values = jacobian.singular_values(lambda z: jnp.tanh(z) @ W, x)
    assert values.shape == (3, 4)
    for row, z in zip(values, x, strict=True):
        expected = np.linalg.svd((1 - np.tanh(z) ** 2)[:, None] * W, compute_uv=False)
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_effective_rank_counts_directions_up_to_the_energy():
    values = jnp.asarray([[3.0, 1.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]])  # 9 + 1 + 1/4; 1 each
    assert jacobian.effective_rank(values).tolist() == [2, 4]
    assert jacobian.effective_rank(values, 0.5).tolist() == [1, 2]
    assert int(jacobian.effective_rank(np.asarray(values[0]), 0.99)) == 3


def test_contraction_of_a_scaled_isometry_is_its_factor(x64):
    radii = jnp.array([0.1, 1.0, 5.0])
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(7), (6, 6)))[0]
    x = jax.random.normal(jax.random.key(1), (5, 6))
    ratios = jacobian.contraction(lambda z: 0.3 * rotation @ z, x, jax.random.key(8), radii)
    np.testing.assert_allclose(ratios, 0.3, rtol=1e-12)


def test_contraction_ratio_of_a_bounded_encoder_falls_with_the_radius():
    """The slope of tanh is 1 at 0 and its range is bounded: |f| / r falls as 1 / r."""
    ratios = jacobian.contraction(
        jnp.tanh, jnp.zeros((4, 3)), jax.random.key(0), jnp.array([1e-3, 1.0, 100.0])
    )
    assert ratios[0] == pytest.approx(1, abs=1e-3)
    assert ratios[0] > ratios[1] > ratios[2] and ratios[2] < 3**0.5 / 100 + 1e-6


def test_saturated_counts_both_ends():
    code = jnp.array([[0.0, 0.04, 0.06, 0.5], [0.94, 0.96, 1.0, 0.5]])
    assert float(jacobian.saturated(code)) == pytest.approx(4 / 8)


def test_measures_of_a_saturated_and_of_a_linear_encoder():
    """Of units so steep that all are saturated, and of one unit that is linear where it is measured."""
    x = jax.random.uniform(jax.random.key(0), (60, 5))
    weight = jnp.zeros((5, 4)).at[2, 1].set(0.01)  # sigmoid is 1/2 + a/4 near 0
    steep = jacobian.sensitivity(lambda x: jax.nn.sigmoid(x @ (0 * weight) + 9.0), x)
    assert steep.metrics['saturated'] == 1 and not steep.singular_values.any()
    np.testing.assert_allclose(steep.ratios[1], 0, atol=1e-6)
    linear = jacobian.sensitivity(lambda x: jax.nn.sigmoid(x @ weight), x)
    assert linear.metrics['saturated'] == 0 and linear.metrics['effective_rank'] == 1
    np.testing.assert_allclose(linear.singular_values, [0.01 / 4, 0, 0, 0], rtol=1e-3, atol=1e-9)
    # A random direction has a component of 1/5 on average, squared, along the one that counts.
    assert 0.2 * 0.01 / 4 < float(linear.metrics['contraction_ratio']) < 0.6 * 0.01 / 4
