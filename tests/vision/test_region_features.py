"""Features of regions are the named activation of the network, averaged over space."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from lecture4.vision import region_features


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Conv(5, (3, 3), name='conv1')(x)
        return y.mean((1, 2)), {'conv1': y}


def test_features_are_the_means_of_an_activation():
    crops = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(Network().init)(jax.random.key(1), crops)
    settings = {'mean': np.full(3, 0.5), 'std': np.full(3, 2.0)}
    apply = jax.jit(region_features.activation_features(Network(), 'conv1', **settings))
    expected = jax.jit(Network().apply)(variables, (crops - 0.5) / 2)[0]
    np.testing.assert_allclose(apply(variables, crops), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"no activation 'conv9'; it has conv1"):
        region_features.activation_features(Network(), 'conv9')(variables, crops)
