"""Every network has a first layer of filters."""

import jax
import jax.numpy as jnp
import pytest

from experiments.convnets import feature_visualization


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('small', (7, 7, 3, 32)),
        ('alexnet', (11, 11, 3, 96)),
        ('zfnet', (7, 7, 3, 96)),
        ('vgg_a', (3, 3, 3, 64)),
        ('vgg_b_bn', (3, 3, 3, 64)),
        ('googlenet', (7, 7, 3, 64)),
        ('googlenet_torchvision', (7, 7, 3, 64)),
        ('plain_18', (7, 7, 3, 64)),
        ('cifar_resnet_8', (3, 3, 3, 16)),
    ],
)
def test_first_filters(name, expected):
    x = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    network = feature_visualization.NETWORKS[name](n_classes=2)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    assert feature_visualization.first_filters(variables['params']).shape == expected
