"""What a unit of any network sees, by its name; and seeing inside every one of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision import deconvnet
from lecture4.vision.models import registry

SIDES = {'alexnet': 227}
SMALL = (
    'one_tower',
    'zfnet',
    'vgg_a_lrn',
    'googlenet',
    'googlenet_torchvision',
    'plain_18',
    'resnet_50_v1_5',
)


def side(name):
    return 32 if name.startswith('cifar') else SIDES.get(name, 224)


def activations(network, side):
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.eval_shape(network.apply, variables, x)[1]


@pytest.mark.parametrize('name', [*SMALL, 'alexnet', 'cifar_resnet_8'])
def test_every_activation_has_a_field_of_its_size(name):
    network = registry.NETWORKS[name](n_classes=10)
    shape = (side(name), side(name), 3)
    for layer, a in activations(network, side(name)).items():
        row = registry.field(network, layer, shape)
        if a.ndim == 4:
            assert row.output[:2] == a.shape[1:3], layer
        else:
            assert row.box((0, 0)) == ((0, shape[0]), (0, shape[1])), layer
    with pytest.raises(KeyError, match="'conv9' is no layer of"):
        registry.field(network, 'conv9', shape)


def test_pictures_of_another_size_have_fields_too():
    network = registry.NETWORKS['resnet_18'](n_classes=10)
    row = registry.field(network, 'conv3_2', (64, 96, 3))
    assert row.output == (8, 12, 128) and row.receptive_field == (99, 99)
    with pytest.raises(TypeError, match='is no image network'):
        registry.field(object(), 'conv1', (64, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize('name', registry.NETWORKS)
def test_one_unit_of_every_network_is_seen_inside_its_field(name):
    """Of a layer in the middle: by the three rules, nothing outside what the unit sees."""
    network = registry.NETWORKS[name](n_classes=10)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, side(name), side(name), 3)), jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    a = activations(network, side(name))
    maps = [layer for layer, shape in a.items() if shape.ndim == 4 and '/' not in layer]
    layer = maps[len(maps) // 3]
    row = registry.field(network, layer, x.shape[1:])
    seen = {}
    for rule in ('deconvnet', 'guided', 'gradient'):
        project = jax.jit(lambda v, x, r=rule: deconvnet.project(network, v, x, layer, 0, r))
        found = project(variables, x)
        seen[rule] = np.asarray(found.pixels[0])
        (top, bottom), (left, right) = row.box(np.asarray(found.place[0]))
        inside = seen[rule][max(top, 0) : bottom, max(left, 0) : right]
        assert found.value[0] > 0 and np.isfinite(inside).all(), layer
        assert np.count_nonzero(inside) == np.count_nonzero(seen[rule]) > 0, layer
    if layer != 'conv1':  # below a first ReLU's own layer the rules are one
        assert not np.allclose(seen['deconvnet'], seen['gradient'])
