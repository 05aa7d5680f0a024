"""Features of regions are the named activation of the network, averaged over space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision import region_features
from lecture4.vision.models import registry


def test_features_are_the_means_of_an_activation():
    network = registry.create('cifar_resnet_8', 10)
    crops = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    variables = jax.jit(network.init)(jax.random.key(1), crops)
    apply = region_features.activation_features(
        network, 'conv1', mean=np.full(3, 0.5), std=np.full(3, 2.0)
    )
    found = jax.jit(apply)(variables, crops)
    expected = network.apply(variables, (crops - 0.5) / 2)[1]['conv1'].mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"no activation 'conv9'; it has .*conv1"):
        region_features.activation_features(network, 'conv9')(variables, jnp.asarray(crops))
