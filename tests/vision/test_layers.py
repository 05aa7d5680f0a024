"""Building blocks of the image networks: backward rules, adaptive pooling, input checks, the dense head."""

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
KEY = jax.random.key(0)


def test_backward_rules_of_relu():
    x = jnp.asarray([-1.0, -1.0, 2.0, 2.0])
    g = jnp.asarray([3.0, -3.0, 3.0, -3.0])
    signals = {
        'gradient': [0, 0, 3, -3],
        'deconvnet': [3, 0, 3, 0],
        'deconvnet_assign': [3, 0, 3, 0],
        'guided': [0, 0, 3, 0],
    }
    for rule, expected in signals.items():
        y, backward = jax.vjp(lambda v, rule=rule: layers.relu(v, rule), x)
        np.testing.assert_array_equal(y, [0, 0, 2, 2])
        np.testing.assert_array_equal(backward(g)[0], expected)
    with pytest.raises(ValueError, match="backward_rule is 'deconv'"):
        layers.relu(x, 'deconv')


class Pair(nn.Module):
    """Two stages of convolution, ReLU, overlapping pooling, normalization."""

    rule: layers.BackwardRule

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = layers.relu(layers.conv(4, 3, 1, 1, use_bias=False, name=f'conv{i}')(x), self.rule)
            x = layers.max_pool(x, 3, 2, edge='caffe', backward_rule=self.rule)
            x = layers.local_response_norm(x, backward_rule=self.rule)
        return x


@pytest.mark.parametrize(
    'rule, mode', [('deconvnet', 'accumulate'), ('deconvnet_assign', 'assign')]
)
def test_a_deconvnet_unpools_rectifies_and_transposes_filters(rule, mode):
    """The projection of one feature map of two stages, step by step as in the paper, by the ops alone."""
    x = jnp.asarray(RNG.standard_normal((1, 9, 9, 3)), jnp.float32)
    variables = jax.jit(Pair(rule).init)(jax.random.key(0), x)

    @jax.jit
    def projections(variables, x):
        y, backward = jax.vjp(lambda v: Pair(rule).apply(variables, v), x)
        # The feature map whose two overlapping windows have a common maximum, where the rules differ.
        signal = jnp.zeros_like(y).at[0, :, :, 1].set(y[0, :, :, 1])
        plain = jax.vjp(lambda v: Pair('gradient').apply(variables, v), x)[1]
        return signal, backward(signal)[0], plain(signal)[0]

    @jax.jit
    def by_hand(variables, x, signal):
        kernels = [variables['params'][f'conv{i}']['kernel'] for i in range(2)]
        switched, h, result = [], x, {}
        for kernel in kernels:
            h = jnp.maximum(ops_conv.cross_correlate(h, kernel, 1, 1), 0)
            shape = h.shape
            h, switches = pool.max_pool_with_switches(h, 3, 2, edge='caffe')
            switched.append((switches, shape))
            h = norm.local_response(h)
        for mode in ('accumulate', 'assign'):
            down = signal
            for kernel, (switches, shape) in reversed(list(zip(kernels, switched, strict=True))):
                down = jnp.maximum(pool.unpool(down, switches, shape, mode), 0)
                down = ops_conv.adjoint(down, kernel, 1, 1)
            result[mode] = down
        return result

    signal, projected, plain = jax.device_get(projections(variables, x))
    expected = jax.device_get(by_hand(variables, x, signal))
    down = expected.pop(mode)
    np.testing.assert_allclose(projected, down, atol=1e-5)
    (other,) = expected.values()
    assert np.abs(down - other).max() > 1e-2 * np.abs(down).max() > 0
    assert np.abs(plain - down).max() > 1e-3


@pytest.mark.parametrize('size, output_size', [(14, 4), (7, 7), (3, 7), (10, 3)])
def test_adaptive_mean_pooling_averages_its_bins(size, output_size):
    x = RNG.standard_normal((1, size, size, 2)).astype(np.float32)
    expected = np.empty((1, output_size, output_size, 2))
    for i in range(output_size):
        for j in range(output_size):
            rows = slice(i * size // output_size, -(-(i + 1) * size // output_size))
            columns = slice(j * size // output_size, -(-(j + 1) * size // output_size))
            expected[0, i, j] = x[0, rows, columns].mean((0, 1))
    np.testing.assert_allclose(
        layers.adaptive_mean_pool(jnp.asarray(x), output_size), expected, atol=1e-6
    )


def test_a_dense_head_on_larger_maps_is_the_head_everywhere():
    small = layers.FullyConnected(5, 3, hidden_dim=16)
    dense = layers.FullyConnected(5, 3, hidden_dim=16, dense=True)
    x = jnp.asarray(RNG.standard_normal((2, 4, 5, 6)), jnp.float32)
    variables = small.init(jax.random.key(0), x[:, :3, :3])
    logits, hidden = dense.apply(variables, x)
    assert logits.shape == (2, 2, 3, 5) and hidden['fc6'].shape == (2, 2, 3, 16)
    for i in range(2):
        for j in range(3):
            alone, _ = small.apply(variables, x[:, i : i + 3, j : j + 3])
            np.testing.assert_allclose(logits[:, i, j], alone, atol=1e-5)
    with pytest.raises(ValueError, match='fc6: expected feature maps of 3 x 3, got 4 x 5'):
        small.apply(variables, x)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((2, 3, 64, 64), 'have their channels first; move them last'),
        ((2, 64, 64, 1), r'expected images \[n, h, w, 3\]'),
        ((64, 64, 3), r'expected images \[n, h, w, 3\]'),
        ((2, 16, 64, 3), 'images of 16 x 64 are too small; use 32 x 32 or larger'),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    network = resnet.imagenet(18)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    with pytest.raises(TypeError, match='convert them to float'):
        layers.check_images(jnp.zeros((1, 64, 64, 3), jnp.uint8), 32, 'ResNet')


def test_unknown_depths_are_refused():
    with pytest.raises(ValueError, match='depth is 19; expected one of 18, 34, 50, 101, 152'):
        resnet.imagenet(19)
    with pytest.raises(ValueError, match='6 n \\+ 2'):
        resnet.cifar(21)


@pytest.mark.slow
def test_alexnet_on_two_devices_gives_the_same_numbers():
    x = jnp.asarray(100 * RNG.standard_normal((2, 227, 227, 3)), jnp.float32)  # of pixels 0..255
    network = alexnet.AlexNet(n_classes=10)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    mesh = Mesh(np.array(jax.devices()[:2]), ('group',))
    logits, _ = network.apply(variables, x)
    divided = jax.jit(lambda v, x: alexnet.apply_on_two_devices(v, x, mesh))(variables, x)
    np.testing.assert_allclose(divided, logits, atol=1e-4 * float(jnp.abs(logits).max()))
    across, _ = alexnet.AlexNet(n_classes=10, lrn_across_groups=True).apply(variables, x)
    assert jnp.abs(across - logits).max() > 1e-4 * jnp.abs(logits).max()
    with pytest.raises(ValueError, match='two devices along one axis'):
        alexnet.apply_on_two_devices(variables, x, Mesh(np.array(jax.devices()[:4]), ('group',)))


def norms(axis_name=None):
    """Ours and linen's batch norm in training, variables with running statistics, and their input."""
    options = {'momentum': 0.9, 'epsilon': 1e-3, 'axis_name': axis_name}
    pair = layers.BatchNorm(False, **options), nn.BatchNorm(False, **options)
    x = 2 + jax.random.normal(KEY, (4, 3, 3, 5))
    variables = pair[0].init(KEY, x)
    variables = jax.tree.map(lambda leaf: leaf + jnp.arange(5.0) / 4, variables)
    return *pair, variables, x


def test_batch_norm_trains_as_linens():
    ours, theirs, variables, x = norms()
    assert_trees_equal(ours.init(KEY, x), theirs.init(KEY, x))

    def run(network):
        def objective(params, x):
            y, updated = network.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.value_and_grad(objective, (0, 1), has_aux=True)(variables['params'], x)

    assert_trees_equal(run(ours), run(theirs))
    forward = jax.make_jaxpr(lambda: ours.apply(variables, x, mutable=['batch_stats']))()
    assert 'custom_vjp' in str(forward)  # of ops.norm


def test_batch_norm_is_linens_with_running_statistics_and_with_a_device_axis():
    ours, theirs, variables, x = norms('data')

    def program(network, **options):
        def fn(variables, x):
            return network.apply(variables, x, mutable=['batch_stats'], **options)

        return str(jax.make_jaxpr(fn, axis_env=[('data', 2)])(variables, x))

    assert 'psum' in program(ours) and program(ours) == program(theirs)
    ours, theirs = (n.clone(use_running_average=None, axis_name=None) for n in (ours, theirs))
    for options in ({'use_running_average': True}, {'use_running_average': False, 'mask': x > 0}):
        assert program(ours, **options) == program(theirs, **options)


def assert_trees_equal(tree, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tree, expected
    )
