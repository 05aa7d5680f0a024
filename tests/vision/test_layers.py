"""The parts that image networks share: ReLU's ways back, bins, refusals, the dense head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh

from lecture4.ops import conv as ops_conv
from lecture4.ops import norm, pool
from lecture4.vision import layers
from lecture4.vision.models import alexnet, resnet

RNG = np.random.default_rng(0)


def test_three_ways_back_through_a_rectifier():
    x = jnp.asarray([-1.0, -1.0, 2.0, 2.0])
    g = jnp.asarray([3.0, -3.0, 3.0, -3.0])
    backs = {
        'gradient': [0, 0, 3, -3],
        'deconvnet': [3, 0, 3, 0],
        'guided': [0, 0, 3, 0],
    }
    for rule, expected in backs.items():
        y, back = jax.vjp(lambda v, rule=rule: layers.relu(v, rule), x)
        np.testing.assert_array_equal(y, [0, 0, 2, 2])
        np.testing.assert_array_equal(back(g)[0], expected)
    with pytest.raises(ValueError, match="rule is 'deconv'"):
        layers.relu(x, 'deconv')


class Pair(nn.Module):
    """Two stages of convolution, ReLU, pooling, normalisation."""

    rule: layers.Rule

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = layers.relu(layers.conv(4, 3, 1, 1, use_bias=False, name=f'conv{i}')(x), self.rule)
            x = pool.max_pool(x, 3, 2, edge='caffe')
            x = layers.unless_deconvnet(norm.local_response, x, self.rule)
        return x


def test_a_deconvnet_is_unpooling_rectifying_and_transposed_filters():
    """The projection of one map of two stages, step by step as in the paper, by the ops alone."""
    x = jnp.asarray(RNG.standard_normal((1, 9, 9, 3)), jnp.float32)
    network = Pair('deconvnet')
    variables = jax.jit(network.init)(jax.random.key(0), x)
    y, back = jax.vjp(lambda v: network.apply(variables, v), x)
    signal = jnp.zeros_like(y).at[0, 1, 1, 2].set(y[0, 1, 1, 2])
    kernels = [variables['params'][f'conv{i}']['kernel'] for i in range(2)]
    switched, h = [], x
    for kernel in kernels:
        h = jnp.maximum(ops_conv.cross_correlate(h, kernel, 1, 1), 0)
        shape = h.shape
        h, switches = pool.max_pool_with_switches(h, 3, 2, edge='caffe')
        switched.append((switches, shape))
        h = norm.local_response(h)
    down = signal
    for kernel, (switches, shape) in reversed(list(zip(kernels, switched, strict=True))):
        down = jnp.maximum(pool.unpool(down, switches, shape, 'accumulate'), 0)
        down = ops_conv.adjoint(down, kernel, 1, 1)
    np.testing.assert_allclose(back(signal)[0], down, atol=1e-5)
    assert jnp.abs(down).max() > 0
    plain = jax.vjp(lambda v: Pair('gradient').apply(variables, v), x)[1](signal)[0]
    assert jnp.abs(plain - down).max() > 1e-3


@pytest.mark.parametrize('size, side', [(14, 4), (7, 7), (3, 7), (10, 3)])
def test_adaptive_bins_are_the_means_they_say(size, side):
    x = RNG.standard_normal((1, size, size, 2)).astype(np.float32)
    expected = np.empty((1, side, side, 2))
    for i in range(side):
        for j in range(side):
            rows = slice(i * size // side, -(-(i + 1) * size // side))
            columns = slice(j * size // side, -(-(j + 1) * size // side))
            expected[0, i, j] = x[0, rows, columns].mean((0, 1))
    np.testing.assert_allclose(layers.adaptive_mean_pool(jnp.asarray(x), side), expected, atol=1e-6)


def test_a_dense_head_moved_over_a_larger_map_is_the_head_at_every_place():
    small = layers.FullyConnected(5, 3, hidden=16)
    dense = layers.FullyConnected(5, 3, hidden=16, dense=True)
    x = jnp.asarray(RNG.standard_normal((2, 4, 5, 6)), jnp.float32)
    variables = small.init(jax.random.key(0), x[:, :3, :3])
    logits, hidden = dense.apply(variables, x)
    assert logits.shape == (2, 2, 3, 5) and hidden['fc6'].shape == (2, 2, 3, 16)
    for i in range(2):
        for j in range(3):
            alone, _ = small.apply(variables, x[:, i : i + 3, j : j + 3])
            np.testing.assert_allclose(logits[:, i, j], alone, atol=1e-5)
    with pytest.raises(ValueError, match='fc6 takes maps of 3 x 3, these are 4 x 5'):
        small.apply(variables, x)


@pytest.mark.parametrize(
    'shape, told',
    [
        ((2, 3, 64, 64), 'have their channels first; move them last'),
        ((2, 64, 64, 1), r'wanted \[n, h, w, 3\]'),
        ((64, 64, 3), r'wanted \[n, h, w, 3\]'),
        ((2, 16, 64, 3), 'pictures of 16 x 64 are too small; use 32 x 32 or larger'),
    ],
)
def test_pictures_that_do_not_fit_are_told_so(shape, told):
    network = resnet.imagenet(18)
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    with pytest.raises(TypeError, match='convert to float'):
        layers.check(jnp.zeros((1, 64, 64, 3), jnp.uint8), 32, 'ResNet')


def test_depths_that_do_not_exist():
    with pytest.raises(ValueError, match='depth is 19; one of 18, 34, 50, 101, 152'):
        resnet.imagenet(19)
    with pytest.raises(ValueError, match='6 n \\+ 2'):
        resnet.cifar(21)


def test_decay_leaves_out_biases_and_scales():
    parameters = {'conv': {'kernel': 1, 'bias': 2}, 'bn': {'scale': 3, 'bias': 4}}
    kernels = layers.decayed(parameters)
    assert kernels == {
        'conv': {'kernel': True, 'bias': False},
        'bn': {'scale': False, 'bias': False},
    }
    assert all(jax.tree.leaves(layers.decayed(parameters, 'all')))


@pytest.mark.slow
def test_alexnet_on_two_devices_gives_the_same_numbers():
    x = jnp.asarray(100 * RNG.standard_normal((2, 227, 227, 3)), jnp.float32)  # of pixels 0..255
    network = alexnet.AlexNet(n_classes=10)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    mesh = Mesh(np.array(jax.devices()[:2]), ('stream',))
    logits, _ = network.apply(variables, x)
    split = jax.jit(lambda v, x: alexnet.in_streams(v, x, mesh))(variables, x)
    np.testing.assert_allclose(split, logits, atol=1e-4 * float(jnp.abs(logits).max()))
    across, _ = alexnet.AlexNet(n_classes=10, across=True).apply(variables, x)
    assert jnp.abs(across - logits).max() > 1e-4 * jnp.abs(logits).max()
    with pytest.raises(ValueError, match='two devices along one axis'):
        alexnet.in_streams(variables, x, Mesh(np.array(jax.devices()[:4]), ('stream',)))
