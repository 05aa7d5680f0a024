"""Every delta rule equals what jax.grad finds, to the rounding of float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import conv, pool
from lecture4.vision import manual_backprop as back

CLOSE = {'rtol': 1e-12, 'atol': 1e-13}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def pulled(fn, delta, *arguments):
    """What jax makes of the delta behind fn."""
    return jax.vjp(fn, *arguments)[1](delta)


def test_dense(x64):
    a, W, b, delta = normal(0, 5, 4), normal(1, 4, 3), normal(2, 3), normal(3, 5, 3)
    da, dW, db = pulled(lambda a, W, b: a @ W + b[None], delta, a, W, b)
    np.testing.assert_allclose(back.dense_delta(delta, W), da, **CLOSE)
    for mine, wanted in zip(back.dense_gradients(a, delta), (dW, db), strict=True):
        np.testing.assert_allclose(mine, wanted, **CLOSE)


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
    fn = lambda a, kernel, b: forward(a, kernel, stride, padding, groups) + b  # noqa: E731
    b = jnp.zeros((1,) * (len(size) + 1) + (4,))
    delta = normal(2, *jax.eval_shape(fn, a, kernel, b).shape)

    @jax.jit
    def both(a, kernel, delta):
        rest = (stride, padding, groups, true_convolution)
        by_hand = (
            back.conv_delta(delta, kernel, size, *rest),
            *back.conv_gradients(a, delta, window, *rest),
        )
        da, dk, db = pulled(fn, delta, a, kernel, b)
        return by_hand, (da, dk, db.ravel())

    for mine, wanted in zip(*both(a, kernel, delta), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-11, atol=1e-12)


def test_the_lectures_rule_with_rot90(x64):
    """One map, no stride: delta * W rotated, and a * delta, by plain 180 degree turns."""
    a, W, delta = (
        np.asarray(normal(0, 6, 6)),
        np.asarray(normal(1, 3, 3)),
        np.asarray(normal(2, 4, 4)),
    )
    before, gradient = np.zeros((6, 6)), np.zeros((3, 3))
    padded, turned = np.pad(delta, 2), np.rot90(W, 2)
    for i, j in np.ndindex(6, 6):
        before[i, j] = (padded[i : i + 3, j : j + 3] * turned).sum()
    for i, j in np.ndindex(3, 3):
        gradient[i, j] = (a[i : i + 4, j : j + 4] * delta).sum()
    mine = back.conv_delta(delta[None, ..., None], W[..., None, None], (6, 6))
    np.testing.assert_allclose(mine[0, ..., 0], before, **CLOSE)
    kernel, bias = back.conv_gradients(a[None, ..., None], delta[None, ..., None], (3, 3))
    np.testing.assert_allclose(kernel[..., 0, 0], gradient, **CLOSE)
    np.testing.assert_allclose(bias, [delta.sum()], **CLOSE)


def test_activation_functions(x64):
    z, delta = normal(0, 5, 4).at[0, 0].set(0.0), normal(1, 5, 4)
    (wanted,) = pulled(jax.nn.relu, delta, z)
    np.testing.assert_allclose(delta * back.relu_slope(z), wanted, **CLOSE)
    (wanted,) = pulled(jax.nn.sigmoid, delta, z)
    np.testing.assert_allclose(delta * back.sigmoid_slope(jax.nn.sigmoid(z)), wanted, **CLOSE)


POOLS = [
    ((6, 4), 2, None, 0, 'floor'),
    ((7, 5), 2, None, 0, 'floor'),  # ragged, dropped
    ((7, 6), 2, None, 0, 'caffe'),  # ragged, kept: divisors differ by window
    ((7, 8), 3, 2, 1, 'torch'),  # overlapping and padded
    ((8, 5), (3, 2), (1, 3), ((1, 0), (0, 1)), 'floor'),
    ((7,), 2, 3, 0, 'torch'),
]


@pytest.mark.parametrize('given', POOLS)
def test_max_pooling(given, x64):
    size, *given = given
    x = np.round(np.random.default_rng(0).normal(size=(2, *size, 3)) * 2)  # many equal maxima
    found = pool.pooling_windows(x.shape, *given)
    delta = normal(1, 2, *found.out, 3)
    sides = [(0, 0), *found.padding, (0, 0)]

    @jax.jit
    def deltas(x, delta):
        _, switches = pool.max_pool_with_switches(x, *given)
        by_hand = back.upsample_max(delta, switches, x.shape)
        found_by_jax = [pulled(lambda x: pool.max_pool(x, *given), delta, x)[0]]
        if given[-1] == 'floor':  # XLA's own pooling and its gradient, which pick the first too
            shape = (1, *found.window, 1), (1, *found.stride, 1), sides
            lax_pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *shape)  # noqa: E731
            found_by_jax += pulled(lax_pool, delta, x)
        return by_hand, found_by_jax

    mine, by_jax = deltas(x, delta)
    for wanted in by_jax:
        np.testing.assert_allclose(mine, wanted, **CLOSE)


@pytest.mark.parametrize('given', POOLS)
def test_mean_pooling(given, x64):
    size, *given = given
    x = normal(0, 2, *size, 3)
    delta = normal(1, 2, *pool.pooling_windows(x.shape, *given).out, 3)

    @jax.jit
    def deltas(x, delta):
        pairs = []
        for count in ('window', 'padded', 'valid'):
            forward = lambda x, count=count: pool.mean_pool(x, *given, count)  # noqa: E731
            mine = back.upsample_mean(delta, x.shape, *given, count)
            pairs.append((mine, pulled(forward, delta, x)[0]))
        return pairs

    for mine, wanted in deltas(x, delta):
        np.testing.assert_allclose(mine, wanted, **CLOSE)


def test_upsampling_without_overlap_is_a_kronecker_product(x64):
    delta = normal(0, 1, 3, 2, 1)
    wanted = np.kron(np.asarray(delta)[0, ..., 0], np.ones((2, 3)) / 6)
    mine = back.upsample_mean(delta, (1, 6, 6, 1), (2, 3))
    np.testing.assert_allclose(mine[0, ..., 0], wanted, **CLOSE)


def test_subsampling(x64):
    for shape, stride in (((2, 7, 5, 3), 2), ((2, 6, 6, 3), (3, 1)), ((2, 7, 3), 3)):
        x = normal(0, *shape)
        forward = functools.partial(pool.subsample, stride=stride)
        delta = normal(1, *forward(x).shape)
        (wanted,) = pulled(forward, delta, x)
        np.testing.assert_array_equal(back.upsample_first(delta, x.shape, stride), wanted)


def test_output_layers(x64):
    z, labels = normal(0, 6, 4) * 5, np.array([0, 3, 3, 1, 2, 0])
    wanted = jax.grad(back.softmax_loss)(z, labels)
    np.testing.assert_allclose(back.softmax_delta(z, labels), wanted, **CLOSE)
    logs = np.asarray(z) - np.log(np.exp(np.asarray(z)).sum(1, keepdims=True))
    by_numpy = -logs[np.arange(6), labels].mean()
    np.testing.assert_allclose(back.softmax_loss(z, labels), by_numpy, rtol=1e-12)
    sigmoid = lambda z: back.squared_loss(jax.nn.sigmoid(z), labels)  # noqa: E731
    a = jax.nn.sigmoid(z)
    mine = back.squared_delta(a, labels) * back.sigmoid_slope(a)
    np.testing.assert_allclose(mine, jax.grad(sigmoid)(z), **CLOSE)
    by_numpy = 0.5 * ((np.asarray(a) - np.eye(4)[labels]) ** 2).sum(1).mean()
    np.testing.assert_allclose(back.squared_loss(a, labels), by_numpy, rtol=1e-12)


def test_labels_out_of_range_are_refused_or_make_the_loss_nan():
    z = jnp.zeros((2, 3))
    for labels in ([0, 3], [-1, 0]):
        labels = np.array(labels)
        for fn in (back.softmax_loss, back.softmax_delta, back.squared_loss, back.squared_delta):
            with pytest.raises(ValueError, match=r'labels run from .* wanted 0 to 2'):
                fn(z, labels)
            assert np.isnan(np.asarray(jax.jit(fn)(z, labels))).any()
    with pytest.raises(TypeError, match='whole numbers'):
        back.softmax_loss(z, np.array([0.0, 1.0]))


def test_a_delta_of_another_pooling_is_refused():
    with pytest.raises(ValueError, match=r'gives \(1, 3, 3, 1\)'):
        back.upsample_mean(jnp.zeros((1, 2, 3, 1)), (1, 6, 6, 1), 2)


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
        return back.softmax_loss(forward(kernel)[-1], labels)

    @jax.jit
    def by_hand(kernel):
        z, switches, out = forward(kernel)
        delta = back.dense_delta(back.softmax_delta(out, labels), W).reshape(2, 3, 3, 3)
        delta = back.upsample_max(delta, switches, z.shape) * back.relu_slope(z)
        return back.conv_gradients(x, delta, (3, 3))[0]

    gradient = by_hand(kernel)
    step = 1e-6
    for at in itertools.islice(np.ndindex(kernel.shape), 0, None, 7):
        ends = [loss(kernel.at[at].add(sign * step)) for sign in (1, -1)]
        np.testing.assert_allclose(gradient[at], (ends[0] - ends[1]) / (2 * step), atol=1e-8)
