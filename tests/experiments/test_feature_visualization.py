"""Every network has a first layer of filters; the functions of a trained network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.convnets import feature_visualization as job
from lecture4.vision import visualization
from lecture4.vision.models import registry


@pytest.mark.cases(2)
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
    network = registry.create(name, 2)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    assert visualization.first_filters(variables['params']).shape == expected


@pytest.fixture(scope='module')
def smoke():
    """Config, data and initial state of the smoke preset."""
    config = job.Config(**job.PRESETS['smoke'])
    data, key = job.data(config), jax.random.key(0)
    task = job.build(config, data.spec)
    batch = data.prepare(data.device_arrays, data.batch(0), key)
    return config, data, jax.jit(task.init)(key, batch)


def test_functions_take_images_as_they_are_stored(smoke):
    config, data, state = smoke
    functions = job.apply(config, data.spec)
    images = data.report_data.test_images[:2]
    with jax.numpy_dtype_promotion('standard'):
        probs = jax.jit(functions['predict'])(state, images)
        features = jax.jit(functions['encode'])(state, images)
        pixels = jax.jit(functions['project'], static_argnums=2)(state, images, 1)
    assert probs.shape == (2, 9) and features.shape == (2, 32) and pixels.shape == (2, 48, 48, 3)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
