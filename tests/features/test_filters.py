"""Filters learned with labels: their features are those of self_taught, and they classify gratings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.features import filters, self_taught
from lecture4.ops import linalg

FORM = {'patch_size': 4, 'stride': 2, 'contrast_epsilon': 0.05, 'pooling_grid': 1}


def gratings(n, seed):
    """Vertical or horizontal bars [n, 10, 10, 1], of any phase, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    bars = np.sin(2 * np.pi * (np.arange(10)[None] / 3 + rng.uniform(size=(n, 1))))
    images = np.where(labels[:, None, None] == 0, bars[:, :, None], bars[:, None, :])
    noise = 0.5 * rng.standard_normal((n, 10, 10))
    return jnp.asarray((images + noise)[..., None], jnp.float32), jnp.asarray(labels)


@pytest.mark.slow
def test_filters_learn_orientation_from_labels():
    images, labels = gratings(300, 0)
    params = filters.init(jax.random.key(0), 16, 8, 2)
    value = jax.jit(functools.partial(filters.loss, **FORM))
    first, _ = value(params, images, labels)
    np.testing.assert_allclose(first, np.log(2), rtol=0.05)  # chance
    optimizer = optax.adam(0.02)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        slope = jax.grad(filters.loss, has_aux=True)(params, images, labels, **FORM)[0]
        with jax.numpy_dtype_promotion('standard'):
            update, state = optimizer.update(slope, state)
        return optax.apply_updates(params, update), state

    for _ in range(60):
        params, state = step(params, state)
    last, metrics = value(params, *gratings(200, 1))
    assert last < 0.3 and metrics['train_accuracy'] > 0.9


def test_the_layer_is_an_encoder_of_self_taught():
    images, labels = gratings(6, 2)
    params = filters.init(jax.random.key(1), 16, 3, 2)
    params['bias'] = jnp.asarray([0.1, -0.2, 0.3])
    features = self_taught.encode_images(
        images, filters.encoder(params), whitening=filters.no_whitening(16), **FORM
    )
    affine = linalg.Affine(-params['bias'] @ jnp.linalg.pinv(params['filters']), params['filters'])
    peer = self_taught.encode_images(
        images, self_taught.linear_encoder(affine), whitening=filters.no_whitening(16), **FORM
    )
    np.testing.assert_allclose(features, peer, atol=1e-5)
    scores = features @ params['classifier'] + params['classifier_bias'][None, :]
    log_probs = jax.nn.log_softmax(scores)[jnp.arange(6), labels]
    value, metrics = filters.loss(params, images, labels, **FORM)
    np.testing.assert_allclose(value, -log_probs.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics['train_accuracy'], (scores.argmax(1) == labels).mean())
