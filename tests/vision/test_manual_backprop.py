"""Every delta rule equals jax.grad, to the rounding of float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import conv, pool
from lecture4.vision import manual_backprop

CLOSE = {'rtol': 1e-12, 'atol': 1e-13}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def vjp(fn, delta, *arguments):
    """The delta before fn, by jax."""
    return jax.vjp(fn, *arguments)[1](delta)


def test_dense(x64):
    a, W, b, delta = normal(0, 5, 4), normal(1, 4, 3), normal(2, 3), normal(3, 5, 3)
    da, dW, db = vjp(lambda a, W, b: a @ W + b[None], delta, a, W, b)
    np.testing.assert_allclose(manual_backprop.dense_delta(delta, W), da, **CLOSE)
    for actual, expected in zip(manual_backprop.dense_gradients(a, delta), (dW, db), strict=True):
        np.testing.assert_allclose(actual, expected, **CLOSE)


@pytest.mark.parametrize('true_convolution', [False, True])
@pytest.mark.parametrize(
    'size, window, stride, padding, groups',
    [
        ((6, 5), (3, 2), 1, 0, 1),
        ((6, 5), (3, 3), 1, 2, 2),
        ((8, 7), (3, 2), 2, 0, 1),  # ragged: a row and a column that no window reads
        ((7, 8), (2, 3), (3, 2), ((1, 0), (0, 2)), 4),
        ((9,), (4,), 3, 1, 2),
    ],
)
def test_convolution(size, window, stride, padding, groups, true_convolution, x64):
    forward = conv.convolve if true_convolution else conv.cross_correlate
    a, kernel = normal(0, 2, *size, 4), normal(1, *window, 4 // groups, 4)

    def fn(a, kernel, b):
        return forward(a, kernel, stride, padding, groups) + b

    b = jnp.zeros((1,) * (len(size) + 1) + (4,))
    delta = normal(2, *jax.eval_shape(fn, a, kernel, b).shape)

    @jax.jit
    def both(a, kernel, delta):
        rest = (stride, padding, groups, true_convolution)
        manual = (
            manual_backprop.conv_delta(delta, kernel, size, *rest),
            *manual_backprop.conv_gradients(a, delta, window, *rest),
        )
        da, dk, db = vjp(fn, delta, a, kernel, b)
        return manual, (da, dk, db.ravel())

    for actual, expected in zip(*both(a, kernel, delta), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def test_delta_rule_of_the_lecture_with_rot90(x64):
    """One map, no stride: delta * W rotated, and a * delta, by plain rotations."""
    a, W, delta = (
        np.asarray(normal(0, 6, 6)),
        np.asarray(normal(1, 3, 3)),
        np.asarray(normal(2, 4, 4)),
    )
    before, gradient = np.zeros((6, 6)), np.zeros((3, 3))
    padded, rotated = np.pad(delta, 2), np.rot90(W, 2)
    for i, j in np.ndindex(6, 6):
        before[i, j] = (padded[i : i + 3, j : j + 3] * rotated).sum()
    for i, j in np.ndindex(3, 3):
        gradient[i, j] = (a[i : i + 4, j : j + 4] * delta).sum()
    actual = manual_backprop.conv_delta(delta[None, ..., None], W[..., None, None], (6, 6))
    np.testing.assert_allclose(actual[0, ..., 0], before, **CLOSE)
    kernel, bias = manual_backprop.conv_gradients(
        a[None, ..., None], delta[None, ..., None], (3, 3)
    )
    np.testing.assert_allclose(kernel[..., 0, 0], gradient, **CLOSE)
    np.testing.assert_allclose(bias, [delta.sum()], **CLOSE)


def test_activation_functions(x64):
    z, delta = normal(0, 5, 4).at[0, 0].set(0.0), normal(1, 5, 4)
    (expected,) = vjp(jax.nn.relu, delta, z)
    np.testing.assert_allclose(delta * manual_backprop.relu_derivative(z), expected, **CLOSE)
    (expected,) = vjp(jax.nn.sigmoid, delta, z)
    np.testing.assert_allclose(
        delta * manual_backprop.sigmoid_derivative(jax.nn.sigmoid(z)), expected, **CLOSE
    )


POOLS = [
    ((6, 4), 2, None, 0, 'floor'),
    ((7, 5), 2, None, 0, 'floor'),  # ragged, dropped
    ((7, 6), 2, None, 0, 'caffe'),  # ragged, kept: divisors differ by window
    ((7, 8), 3, 2, 1, 'torch'),  # overlapping and padded
    ((8, 5), (3, 2), (1, 3), ((1, 0), (0, 1)), 'floor'),
    ((7,), 2, 3, 0, 'torch'),
]


@pytest.mark.parametrize('pooling', POOLS)
def test_max_pooling(pooling, x64):
    size, *options = pooling
    x = np.round(np.random.default_rng(0).normal(size=(2, *size, 3)) * 2)  # many equal maxima
    windows = pool.pooling_windows(x.shape, *options)
    delta = normal(1, 2, *windows.out, 3)
    sides = [(0, 0), *windows.padding, (0, 0)]

    @jax.jit
    def deltas(x, delta):
        _, switches = pool.max_pool_with_switches(x, *options)
        manual = manual_backprop.upsample_max(delta, switches, x.shape)
        by_jax = [vjp(lambda x: pool.max_pool(x, *options), delta, x)[0]]
        if options[-1] == 'floor':  # XLA's own pooling and its gradient, which pick the first too
            shape = (1, *windows.window, 1), (1, *windows.stride, 1), sides

            def lax_pool(x):
                return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *shape)

            by_jax += vjp(lax_pool, delta, x)
        return manual, by_jax

    actual, by_jax = deltas(x, delta)
    for expected in by_jax:
        np.testing.assert_allclose(actual, expected, **CLOSE)


@pytest.mark.parametrize('pooling', POOLS)
def test_mean_pooling(pooling, x64):
    size, *options = pooling
    x = normal(0, 2, *size, 3)
    delta = normal(1, 2, *pool.pooling_windows(x.shape, *options).out, 3)

    @jax.jit
    def deltas(x, delta):
        pairs = []
        for count in ('window', 'padded', 'valid'):

            def forward(x, count=count):
                return pool.mean_pool(x, *options, count)

            actual = manual_backprop.upsample_mean(delta, x.shape, *options, count)
            pairs.append((actual, vjp(forward, delta, x)[0]))
        return pairs

    for actual, expected in deltas(x, delta):
        np.testing.assert_allclose(actual, expected, **CLOSE)


def test_upsampling_without_overlap_is_a_kronecker_product(x64):
    delta = normal(0, 1, 3, 2, 1)
    expected = np.kron(np.asarray(delta)[0, ..., 0], np.ones((2, 3)) / 6)
    actual = manual_backprop.upsample_mean(delta, (1, 6, 6, 1), (2, 3))
    np.testing.assert_allclose(actual[0, ..., 0], expected, **CLOSE)


def test_subsampling(x64):
    for shape, stride in (((2, 7, 5, 3), 2), ((2, 6, 6, 3), (3, 1)), ((2, 7, 3), 3)):
        x = normal(0, *shape)
        forward = functools.partial(pool.subsample, stride=stride)
        delta = normal(1, *forward(x).shape)
        (expected,) = vjp(forward, delta, x)
        np.testing.assert_array_equal(
            manual_backprop.upsample_subsample(delta, x.shape, stride), expected
        )


def test_output_layers(x64):
    z, labels = normal(0, 6, 4) * 5, np.array([0, 3, 3, 1, 2, 0])
    expected = jax.grad(manual_backprop.softmax_loss)(z, labels)
    np.testing.assert_allclose(manual_backprop.softmax_delta(z, labels), expected, **CLOSE)
    logs = np.asarray(z) - np.log(np.exp(np.asarray(z)).sum(1, keepdims=True))
    by_numpy = -logs[np.arange(6), labels].mean()
    np.testing.assert_allclose(manual_backprop.softmax_loss(z, labels), by_numpy, rtol=1e-12)

    def sigmoid_loss(z):
        return manual_backprop.squared_loss(jax.nn.sigmoid(z), labels)

    a = jax.nn.sigmoid(z)
    actual = manual_backprop.squared_delta(a, labels) * manual_backprop.sigmoid_derivative(a)
    np.testing.assert_allclose(actual, jax.grad(sigmoid_loss)(z), **CLOSE)
    by_numpy = 0.5 * ((np.asarray(a) - np.eye(4)[labels]) ** 2).sum(1).mean()
    np.testing.assert_allclose(manual_backprop.squared_loss(a, labels), by_numpy, rtol=1e-12)


def test_labels_out_of_range_are_refused_or_make_the_loss_nan():
    z = jnp.zeros((2, 3))
    for labels in ([0, 3], [-1, 0]):
        labels = np.array(labels)
        for fn in (
            manual_backprop.softmax_loss,
            manual_backprop.softmax_delta,
            manual_backprop.squared_loss,
            manual_backprop.squared_delta,
        ):
            with pytest.raises(ValueError, match=r'labels range from .* expected 0 to 2'):
                fn(z, labels)
            assert np.isnan(np.asarray(jax.jit(fn)(z, labels))).any()
    with pytest.raises(TypeError, match='expected integers'):
        manual_backprop.softmax_loss(z, np.array([0.0, 1.0]))


def test_a_delta_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r'gives \(1, 3, 3, 1\)'):
        manual_backprop.upsample_mean(jnp.zeros((1, 2, 3, 1)), (1, 6, 6, 1), 2)


def test_finite_differences_agree_with_a_chain_of_rules(x64):
    """Convolution, ReLU, overlapping max pooling, dense and softmax, without jax.grad at all."""
    x, kernel, W = normal(0, 2, 7, 7, 2), normal(1, 3, 3, 2, 3), normal(2, 27, 4)
    labels = np.array([1, 3])

    def forward(kernel):
        z = conv.cross_correlate(x, kernel)
        y, switches = pool.max_pool_with_switches(jnp.maximum(z, 0), 3, 1)
        return z, switches, y.reshape(2, -1) @ W

    @jax.jit
    def loss(kernel):
        return manual_backprop.softmax_loss(forward(kernel)[-1], labels)

    @jax.jit
    def manual(kernel):
        z, switches, out = forward(kernel)
        delta = manual_backprop.dense_delta(manual_backprop.softmax_delta(out, labels), W).reshape(
            2, 3, 3, 3
        )
        delta = manual_backprop.upsample_max(
            delta, switches, z.shape
        ) * manual_backprop.relu_derivative(z)
        return manual_backprop.conv_gradients(x, delta, (3, 3))[0]

    gradient = manual(kernel)
    step = 1e-6
    for at in itertools.islice(np.ndindex(kernel.shape), 0, None, 7):
        ends = [loss(kernel.at[at].add(sign * step)) for sign in (1, -1)]
        np.testing.assert_allclose(gradient[at], (ends[0] - ends[1]) / (2 * step), atol=1e-8)
