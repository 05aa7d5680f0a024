"""Filters learned with labels: their features are those of self_taught, and they classify gratings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

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
    W, b = np.asarray(params['filters']), np.asarray(params['bias'])

    @functools.partial(jax.jit, static_argnums=0)
    def encode(encoder, images):
        return self_taught.encode_images(
            images, encoder, whitening=filters.no_whitening(16), **FORM
        )

    features = np.asarray(encode(filters.encoder(params), images))
    affine = linalg.Affine(jnp.asarray(-b @ np.linalg.pinv(W)), params['filters'])
    peer = encode(self_taught.linear_encoder(affine), images)
    np.testing.assert_allclose(features, peer, atol=1e-5)
    scores = np.asarray(features @ params['classifier'] + params['classifier_bias'][None, :])
    log_probs = special.log_softmax(scores, axis=1)[np.arange(6), labels]
    value, metrics = jax.jit(functools.partial(filters.loss, **FORM))(params, images, labels)
    np.testing.assert_allclose(value, -log_probs.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics['train_accuracy'], (scores.argmax(1) == labels).mean())
