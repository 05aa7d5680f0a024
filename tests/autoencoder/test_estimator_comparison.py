"""Gradient estimators: unbiased against enumeration, and in the order of their noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import estimator_comparison, stochastic, vae


@pytest.fixture(scope='module')
def problem():
    model = vae.mlp(4, (), 2, latent=stochastic.BERNOULLI)
    params = model.init(jax.random.key(0))
    x = jax.random.bernoulli(jax.random.key(1), 0.4, (5, 4)).astype(jnp.float32)
    return model, params, x


def test_estimators_are_unbiased_and_the_baseline_takes_noise_away(problem):
    states = stochastic.enumerate_states(2, 2)
    records, reference = estimator_comparison.compare(
        *problem, samples=(4,), num_gradients=300, states=jnp.asarray(states, jnp.float32)
    )
    score, baseline = records
    assert (score['estimator'], baseline['estimator']) == ('score', 'leave-one-out')
    assert reference == 'the sum over all latent states'
    assert 0.3 < score['bias_ratio'] < 2.5 and 0.3 < baseline['bias_ratio'] < 2.5
    assert baseline['noise'] < 0.7 * score['noise']


def test_without_enumeration_the_least_noisy_estimator_is_the_reference(problem):
    _, _, x = problem
    model = vae.mlp(4, (), 2)
    params = model.init(jax.random.key(0))
    records, reference = estimator_comparison.compare(
        model, params, x, samples=(2,), num_gradients=60
    )
    assert [r['estimator'] for r in records] == ['score', 'leave-one-out']
    assert reference == 'the mean of pathwise with 2 samples'
    assert np.isfinite([r['noise'] for r in records]).all()
