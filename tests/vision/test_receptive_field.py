"""Receptive fields of the units of every network, by name, and projections inside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision import deconvnet
from lecture4.vision.models import registry

IMAGE_SIZES = {'alexnet': 227}
SMALL = (
    'alexnet_v2',
    'zfnet',
    'vgg_a_lrn',
    'googlenet',
    'googlenet_torchvision',
    'plain_18',
    'resnet_50_v1_5',
)


def image_size(name):
    return 32 if name.startswith('cifar') else IMAGE_SIZES.get(name, 224)


def activations(network, size):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.eval_shape(network.apply, variables, x)[1]


@pytest.mark.cases(5)
@pytest.mark.parametrize('name', [*SMALL, 'alexnet', 'cifar_resnet_8'])
def test_every_activation_has_a_receptive_field(name):
    network = registry.NETWORKS[name](n_classes=10)
    shape = (image_size(name), image_size(name), 3)
    for layer, a in activations(network, image_size(name)).items():
        row = registry.receptive_field_of(network, layer, shape)
        if a.ndim == 4:
            assert row.output[:2] == a.shape[1:3], layer
        else:
            assert row.box((0, 0)) == ((0, shape[0]), (0, shape[1])), layer
    with pytest.raises(KeyError, match="'conv9' is not a layer of"):
        registry.receptive_field_of(network, 'conv9', shape)


def test_images_of_another_size_have_receptive_fields_too():
    network = registry.NETWORKS['resnet_18'](n_classes=10)
    row = registry.receptive_field_of(network, 'conv3_2', (64, 96, 3))
    assert row.output == (8, 12, 128) and row.receptive_field == (99, 99)
    with pytest.raises(TypeError, match='is not an image network'):
        registry.receptive_field_of(object(), 'conv1', (64, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize('name', registry.NETWORKS)
def test_projections_stay_inside_the_receptive_field(name):
    """Of a layer in the middle, by each rule."""
    network = registry.NETWORKS[name](n_classes=10)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, image_size(name), image_size(name), 3)), jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    a = activations(network, image_size(name))
    layers = [layer for layer, shape in a.items() if shape.ndim == 4 and '/' not in layer]
    layer = layers[len(layers) // 3]
    row = registry.receptive_field_of(network, layer, x.shape[1:])
    pixels = {}
    for rule in ('deconvnet', 'guided', 'gradient'):
        project = jax.jit(lambda v, x, r=rule: deconvnet.project(network, v, x, layer, 0, r))
        projection = project(variables, x)
        pixels[rule] = np.asarray(projection.pixels[0])
        (top, bottom), (left, right) = row.box(np.asarray(projection.position[0]))
        inside = pixels[rule][max(top, 0) : bottom, max(left, 0) : right]
        assert projection.value[0] > 0 and np.isfinite(inside).all(), layer
        assert np.count_nonzero(inside) == np.count_nonzero(pixels[rule]) > 0, layer
    if layer != 'conv1':  # below the first ReLU the rules agree
        assert not np.allclose(pixels['deconvnet'], pixels['gradient'])
