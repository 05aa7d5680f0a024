"""The lecture's network trained by jax.grad and by manual backpropagation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import receptive_field
from lecture4.vision.models import cnn
from lecture4.vision.models.cnn import CNN

SHAPE = (11, 10, 2)
NETWORKS = [
    CNN((3,), 3, 0, 'relu', 'max', 2),
    CNN((3, 4), 3, 1, 'relu', 'max', 2, 'caffe'),  # 11 -> 6 -> 3, ragged both times
    CNN((3, 2), 2, 0, 'sigmoid', 'mean', 3, 'torch', output='sigmoid'),
    CNN((3, 2), 3, 2, 'relu', 'subsample', 2),
    CNN((2, 3), 3, 0, 'sigmoid', 'none', output='sigmoid'),
    CNN((2,), 3, 1, 'tanh', 'mean', 2),
]


def batch(n=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *SHAPE)).astype(dtype), rng.integers(0, 10, n)


@pytest.mark.cases(3)
@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.pooling)
def test_manual_gradients_equal_those_of_jax(network, x64):
    x, labels = batch()
    params = cnn.init(jax.random.key(0), network, SHAPE, jnp.float64)
    params = jax.tree.map(lambda p: p + 0.1, params)  # nonzero biases

    @jax.jit
    def both(params):
        by_jax = jax.value_and_grad(cnn.loss)(params, x, labels, network)
        return by_jax, cnn.manual_value_and_grad(params, x, labels, network)

    by_jax, manual = both(params)
    assert jax.tree.structure(by_jax[1]) == jax.tree.structure(manual[1])
    for actual, expected in zip(jax.tree.leaves(manual), jax.tree.leaves(by_jax), strict=True):
        assert np.abs(expected).max() > 1e-8
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize('network', NETWORKS[1:3], ids=lambda network: network.pooling)
def test_manual_backpropagation_gives_the_same_loss_curve(network):
    x, labels = batch(32, np.float32)

    def by_jax(params):
        return jax.value_and_grad(cnn.loss)(params, x, labels, network)

    def manual(params):
        return cnn.manual_value_and_grad(params, x, labels, network)

    def curve(value_and_grad):
        def step(params, _):
            value, grads = value_and_grad(params)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), value

        params = cnn.init(jax.random.key(1), network, SHAPE)
        return jax.jit(lambda params: jax.lax.scan(step, params, length=60))(params)

    (params, values), (manual_params, manual_values) = curve(by_jax), curve(manual)
    assert values[-1] < 0.8 * values[0]
    np.testing.assert_allclose(manual_values, values, rtol=2e-4)
    for actual, expected in zip(
        jax.tree.leaves(manual_params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.pooling)
def test_sizes_and_parameters_are_those_of_the_layer_stack(network):
    rows = receptive_field.summarize(cnn.layer_stack(network), SHAPE)
    params = cnn.init(jax.random.key(0), network, SHAPE)
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert n_parameters == receptive_field.totals(rows)[0]
    x = np.zeros((1, *SHAPE), np.float32)
    z, activations = jax.eval_shape(lambda p: cnn.apply(p, x, network), params)
    assert z.shape == (1, 10)
    for row in rows:
        assert activations[row.name].shape == (1, *row.output)


def test_the_error_names_the_stage_that_does_not_fit():
    network = CNN((3, 4, 5), 5)
    with pytest.raises(ValueError, match='conv2: a window of 5 does not fit axis 0 of the input 3'):
        cnn.init(jax.random.key(0), network, SHAPE)


def test_images_of_another_dtype_or_layout_are_refused():
    network = NETWORKS[0]
    params = cnn.init(jax.random.key(0), network, SHAPE)
    x, labels = batch(2, np.float32)
    for wrong, kind, match in (
        (x.astype(np.uint8), TypeError, 'floating'),
        (x.transpose(0, 3, 1, 2), ValueError, 'channels first'),
    ):
        with pytest.raises(kind, match=match):
            cnn.loss(params, wrong, labels, network)
    with pytest.raises(ValueError, match='labels range from'):
        cnn.loss(params, x, labels + 10, network)


def test_max_pooling_is_invariant_to_shifts_inside_a_window():
    """A shift inside one pooling window leaves the pooled map unchanged; without pooling it moves."""
    x = np.zeros((1, 9, 9, 1), np.float32)
    kernels = {'kernel': jnp.ones((1, 1, 1, 1)), 'bias': jnp.zeros(1)}
    maps = {}
    for pooling, column in itertools.product(('max', 'none'), (3, 4, 5)):
        network = CNN((1,), 1, pooling=pooling, window=3)
        image = x.copy()
        image[0, 4, column] = 1
        size = 9 if pooling == 'max' else 81
        params = {
            'conv1': kernels,
            'dense': {'kernel': jnp.zeros((size, 10)), 'bias': jnp.zeros(10)},
        }
        maps[pooling, column] = np.asarray(cnn.apply(params, image, network)[1]['pool1'])
    for column in (4, 5):
        np.testing.assert_array_equal(maps['max', 3], maps['max', column])
        assert not np.array_equal(maps['none', 3], maps['none', column])


def test_initial_kernels_have_variance_2_over_fan_in():
    """In stages of unequal fan-in, and in the dense layer, whose input is not square."""
    params = cnn.init(jax.random.key(0), CNN((30, 40), 5, n_classes=50), (16, 20, 3))
    for name, fan_in in (('conv1', 5 * 5 * 3), ('conv2', 5 * 5 * 30), ('dense', 1 * 2 * 40)):
        kernel = np.asarray(params[name]['kernel'])
        assert kernel.size % fan_in == 0
        assert kernel.var() == pytest.approx(2 / fan_in, rel=0.1)
        assert abs(kernel.mean()) < 3 / np.sqrt(kernel.size * fan_in / 2)
        assert not params[name]['bias'].any()
