"""The spatial transformer as a layer: identity at first, any depth, in parallel, float32 grids, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from lecture4.vision import spatial_transformer as st
from lecture4.vision.models import resnet


class Small(nn.Module):
    """Two convolutions with names, as our networks have."""

    @nn.compact
    def __call__(self, x, *, train=False):
        conv1 = nn.relu(nn.Conv(4, (3, 3), name='conv1')(x))
        conv2 = nn.relu(nn.Conv(4, (3, 3), name='conv2')(conv1))
        logits = nn.Dense(3, name='fc')(conv2.mean((1, 2)))
        return logits, {'conv1': conv1, 'conv2': conv2}


def images(n=2, size=9, channels=1, seed=0):
    draws = np.random.default_rng(seed).uniform(size=(n, size, size, channels))
    return jnp.asarray(draws, jnp.float32)


def init(module, x, seed=0):
    return jax.jit(module.init)(jax.random.key(seed), x)


MLP = st.LocalizationMLP((8,))


@pytest.mark.parametrize('kind', st.KINDS)
def test_every_kind_starts_as_the_identity(kind):
    x = images(channels=2)
    layer = st.SpatialTransformer(MLP, kind)
    variables = init(layer, x)
    y, theta = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose(y, x, atol=1e-6)
    identity = st.transformation(kind).identity
    assert theta.shape == (2, 1, len(identity)) and theta.dtype == jnp.float32
    np.testing.assert_allclose(theta, np.broadcast_to(identity, theta.shape), atol=1e-7)


def test_gradients_reach_the_localization_network():
    x = images()
    layer = st.SpatialTransformer(MLP)
    variables = init(layer, x)

    @jax.jit
    def gradient(variables):
        return jax.grad(lambda v: jnp.sum(layer.apply(v, x)[0][:, :4] ** 2))(variables)

    grads = gradient(variables)['params']
    assert float(jnp.abs(grads['theta']['kernel']).max()) > 0
    assert not np.any(grads['localization']['Dense_0']['kernel'])  # behind a kernel of zeros
    moved = jax.tree.map(lambda p: p + 0.1, variables)
    assert float(jnp.abs(gradient(moved)['params']['localization']['Dense_0']['kernel']).max()) > 0


def test_output_size_is_free_and_crops_are_attention():
    x = images(1, 9)
    layer = st.SpatialTransformer(MLP, 'attention', (5, 5), initial_theta=(0.5, 0.25, -0.5))
    y, _ = jax.jit(layer.apply)(init(layer, x), x)
    np.testing.assert_allclose(y, x[:, 0:5, 3:8], atol=1e-6)


def test_transformers_in_parallel_read_the_same_maps():
    x = images(2, 9, 2)
    starts = ((0.5, -0.5, 0.0), (0.5, 0.5, 0.0))
    layer = st.SpatialTransformer(MLP, 'attention', (5, 5), count=2, initial_theta=starts)
    y, theta = jax.jit(layer.apply)(init(layer, x), x)
    assert y.shape == (2, 5, 5, 4) and theta.shape == (2, 2, 3)
    np.testing.assert_allclose(y[..., :2], x[:, 2:7, 0:5], atol=1e-6)
    np.testing.assert_allclose(y[..., 2:], x[:, 2:7, 4:9], atol=1e-6)


def test_transformers_at_any_depth_of_a_network():
    x = images()
    plain = Small()
    network = st.Transformed(
        plain,
        {
            'input': st.SpatialTransformer(st.LocalizationMLP((8,))),
            'conv2': st.SpatialTransformer(st.LocalizationMLP((8,)), 'tps'),
        },
    )
    variables = init(network, x)
    logits, activations = jax.jit(network.apply)(variables, x)
    own = {'params': variables['params']['network']}
    expected, own_activations = jax.jit(plain.apply)(own, x)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert set(activations) == {
        *own_activations, 'input/theta', 'input/warped', 'conv2/theta', 'conv2/warped'
    }  # fmt: skip
    np.testing.assert_allclose(activations['conv2/warped'], activations['conv1'], atol=1e-5)


def test_batch_statistics_and_axis_name_of_the_network():
    network = st.Transformed(
        resnet.cifar(8), {'conv3_1': st.SpatialTransformer(st.LocalizationCNN((4,), 3, 4))}
    )
    x = images(2, 16, 3)
    variables = init(network, x)
    assert set(variables) == {'params', 'batch_stats'}
    run = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=['batch_stats']))
    (logits, activations), new = run(variables, x)
    assert logits.shape == (2, 10) and activations['conv3_1/theta'].shape == (2, 1, 6)
    assert jax.tree.structure(new['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    assert network.clone(axis_name='data').network.axis_name == 'data'


def test_an_unknown_layer_is_named():
    network = st.Transformed(Small(), {'conv9': st.SpatialTransformer(MLP)})
    with pytest.raises(ValueError, match='no layer conv9'):
        jax.eval_shape(network.init, jax.random.key(0), images())


def test_bfloat16_maps_keep_float32_grids():
    x = images(2, 300).astype(jnp.bfloat16)
    layer = st.SpatialTransformer(st.LocalizationMLP(()))
    y, theta = jax.jit(layer.apply)(init(layer, x), x)
    assert y.dtype == jnp.bfloat16 and theta.dtype == jnp.float32
    np.testing.assert_allclose(y.astype(jnp.float32), x.astype(jnp.float32), atol=4e-3)


def test_a_localization_network_may_know_of_training():
    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dropout(0.5, deterministic=not train)(x), {}

    x = images()
    layer = st.SpatialTransformer(Dropping())
    variables = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.1), init(layer, x))
    _, still = jax.jit(layer.apply)(variables, x)
    _, dropped = jax.jit(functools.partial(layer.apply, train=True))(
        variables, x, rngs={'dropout': jax.random.key(0)}
    )
    assert np.abs(still - dropped).max() > 1e-3


def test_outline_and_mesh_of_the_identity_are_the_output():
    for kind in ('attention', 'tps'):
        theta = jnp.asarray(st.transformation(kind).identity, jnp.float32)[None, None]
        corners = jax.jit(functools.partial(st.outline, kind, n=1))(theta)
        expected = [[-1, -1], [1, -1], [1, 1], [-1, 1]]
        np.testing.assert_allclose(corners[0, 0], expected, atol=1e-6)
        mesh = jax.jit(functools.partial(st.mesh, kind, n=3))(theta)
        assert mesh.shape == (1, 1, 3, 3, 2)
        np.testing.assert_allclose(mesh[0, 0, 0, :, 0], [-1, 0, 1], atol=1e-6)


def test_multiplier_scales_localization_only():
    x = images()
    network = st.Transformed(Small(), {'input': st.SpatialTransformer(MLP)})
    params = init(network, x)['params']
    ones = jax.tree.map(jnp.ones_like, params)
    optimizer = optax.chain(optax.sgd(1.0), st.localization_lr_multiplier(0.1))
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    for path, value in jax.tree_util.tree_leaves_with_path(updates):
        inside = any(key.key.startswith('transformers') for key in path)
        np.testing.assert_allclose(value, -0.1 if inside else -1.0, rtol=1e-6)


def test_it_learns_where_a_bright_square_is():
    """The error of a classifier that only sees the middle is the transformer's to bring down."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 11, (256, 2))
    x = np.zeros((256, 16, 16, 1), np.float32)
    for image, (row, column) in zip(x, corners, strict=True):
        image[row : row + 5, column : column + 5] = 1
    layer = st.SpatialTransformer(
        st.LocalizationMLP((32,)), 'attention', (5, 5), initial_theta=(0.3, 0.0, 0.0)
    )
    variables = init(layer, jnp.asarray(x))
    optimizer = optax.adam(3e-3)

    def loss(variables):
        return jnp.mean((layer.apply(variables, jnp.asarray(x))[0] - 1) ** 2)

    @jax.jit
    def train(variables):
        def step(carry, _):
            variables, state = carry
            value, grads = jax.value_and_grad(loss)(variables)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(variables, updates), state), value

        return jax.lax.scan(step, (variables, optimizer.init(variables)), length=300)[1]

    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        values = train(variables)
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize(
    ('x', 'options', 'error', 'message'),
    [
        (np.zeros((2, 9, 9, 1), np.uint8), {}, TypeError, 'dtype uint8'),
        (np.zeros((2, 1, 9, 9), np.float32), {}, ValueError, 'channels first'),
        (np.zeros((9, 9, 1), np.float32), {}, ValueError, r'\[n, h, w, c\]'),
        (np.zeros((2, 9, 9, 1), np.float32), {'output_size': (0, 5)}, ValueError, 'output size'),
        (np.zeros((2, 9, 9, 1), np.float32), {'kind': 'similarity'}, ValueError, 'expected kind'),
        (
            np.zeros((2, 9, 9, 1), np.float32),
            {'kind': 'tps', 'control_points': 1},
            ValueError,
            'lie on a line',
        ),
        (
            np.zeros((2, 9, 9, 1), np.float32),
            {'localization': st.LocalizationCNN()},
            ValueError,
            'stage 1 has maps of 4 x 4, smaller than kernel_size 5',
        ),
    ],
)
def test_bad_input_has_one_clear_error(x, options, error, message):
    layer = st.SpatialTransformer(**{'localization': MLP} | options)
    with pytest.raises(error, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), x)
