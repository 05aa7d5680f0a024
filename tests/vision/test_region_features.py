"""Features of regions are the named activation of the network, averaged over space."""

import pickle

import jax
import jax.numpy as jnp
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


def test_features_of_boxes_are_means_over_the_covered_cells():
    maps = jnp.arange(32, dtype=jnp.float32).reshape(1, 4, 4, 2)
    boxes = np.array([[[0, 0, 1, 1], [0, 0.5, 0.25, 1], [0.125, 0, 0.5, 0.25]]], np.float32)
    computed = region_features.box_means(maps, boxes)
    expected = [
        maps[0].mean((0, 1)),
        maps[0, 2:, 0].mean(0),
        (maps[0, 0, 0] + 2 * maps[0, 0, 1]) / 3,
    ]
    np.testing.assert_allclose(computed[0], expected, rtol=1e-6)


def test_convolutions_of_a_pickle_give_features_of_boxes(tmp_path):
    shapes = ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256))
    layers = {
        f'Conv_{i}': {
            'kernel': np.zeros((k, k, m, n), np.float32),
            'bias': np.arange(n) / np.float32(n),
        }
        for i, (k, m, n) in enumerate(shapes)
    }
    path = tmp_path / 'alexnet.ckpt'
    path.write_bytes(pickle.dumps({'AlexNet_0': layers}))
    apply, variables, normalization = region_features.load_pooled('alexnet_v2', 'pool5', path, 64)
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 0.5, 0.5]]], np.float32)
    features = jax.jit(apply)(variables, jnp.ones((1, 64, 64, 3)), boxes)
    np.testing.assert_allclose(features[0], [np.arange(256) / 256] * 2, rtol=1e-6)
    assert normalization == 'torchvision'
    with pytest.raises(ValueError, match='googlenet cannot be without its dense layers'):
        region_features.load_pooled('googlenet', 'pool5', path, 64)
    with pytest.raises(ValueError, match='pickle of arrays'):
        path.write_bytes(b'nothing')
        region_features.load_pooled('alexnet_v2', 'pool5', path, 64)
