import functools

import jax
import numpy as np

from lecture4.vision.models.dropout_network import DropoutNetwork

X = np.random.default_rng(0).random((3, 5, 5, 1)).astype(np.float32)


def test_dropout_is_on_in_training_only():
    network = DropoutNetwork(features=4, hidden_dim=16, dropout_rate=0.5, n_classes=3)
    variables = jax.jit(network.init)(jax.random.key(0), X)
    head = variables['params']['head']
    assert head['fc6']['kernel'].shape == (3, 3, 4, 16) and head['fc8']['bias'].shape == (3,)
    logits = jax.jit(network.apply)(variables, X)
    keys = jax.random.split(jax.random.key(1), 2)

    @functools.partial(jax.jit, static_argnums=0)
    def train(network, key):
        return network.apply(variables, X, train=True, rngs={'dropout': key})

    first, second = (train(network, key) for key in keys)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 1e-3
    plain = train(network.clone(dropout_rate=0.0), keys[0])
    np.testing.assert_allclose(plain, logits, rtol=1e-6)
