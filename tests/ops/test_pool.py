"""Pooling against plain loops over windows, written after the definitions of Caffe and torch."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import pool
from lecture4.ops.receptive_field import windows

# (size, window, stride, padding, edge): ragged and whole, overlapping and disjoint, padded, 1-d to 3-d
CASES = [
    ((6, 6), 2, None, 0, 'floor'),
    ((7, 5), 3, 2, 0, 'floor'),
    ((7, 6), 2, None, 0, 'floor'),
    ((7, 6), 2, None, 0, 'caffe'),
    ((8, 7), (3, 2), (2, 3), (1, 1), 'floor'),
    ((8, 6), 3, 2, 1, 'torch'),
    ((6, 8), 3, 2, 1, 'caffe'),
    ((2, 5), 3, 2, 0, 'torch'),  # a window larger than the image, kept as ragged
    ((7, 7), 2, 3, 0, 'torch'),
    ((7, 6), 3, 2, ((0, 1), (1, 0)), 'floor'),
    ((6, 7), 3, 2, ((0, 1), (0, 2)), 'floor'),  # padding at the high end only, in the last window
    ((6, 7), 3, (3, 2), ((1, 2), (2, 1)), 'torch'),
    ((4, 3), 1, None, 0, 'floor'),
    ((5, 4), (1, 2), 2, 0, 'torch'),
    ((11,), 3, 2, 0, 'caffe'),
    ((3, 5, 4), 2, None, 0, 'torch'),
]


def positions(placed, index, dilation=1):
    """Positions in the input of the window `index`, row-major."""
    steps = np.broadcast_to(dilation, len(index))
    axes = []
    for i, step, W, F, S, (low, _) in zip(
        index, steps, placed.size, placed.window, placed.stride, placed.padding, strict=True
    ):
        first = i * S - low
        axes.append([p for p in range(first, first + F, step) if 0 <= p < W])
    return list(itertools.product(*axes))


def loop_max(x, placed, dilation=1):
    y = np.empty((len(x), *placed.out, x.shape[-1]), x.dtype)
    switches = np.empty(y.shape, int)
    for n, c in itertools.product(range(len(x)), range(x.shape[-1])):
        for index in np.ndindex(placed.out):
            best, where = None, None
            for p in positions(placed, index, dilation):
                value = x[(n, *p, c)]
                if best is None or value > best:
                    best, where = value, np.ravel_multi_index(p, placed.size)
            y[(n, *index, c)], switches[(n, *index, c)] = best, where
    return y, switches


def loop_mean(x, placed, count):
    y = np.zeros((len(x), *placed.out, x.shape[-1]))
    for index in np.ndindex(placed.out):
        inside = positions(placed, index)
        total = sum(x[(slice(None), *p)] for p in inside)
        if count == 'window':
            divisor = math.prod(placed.window)
        elif count == 'valid':
            divisor = len(inside)
        else:  # Caffe's: the window is clipped at size + padding, before its start is
            divisor = 1
            for i, W, F, S, (low, high) in zip(
                index, placed.size, placed.window, placed.stride, placed.padding, strict=True
            ):
                start = i * S - low
                divisor *= min(start + F, W + high) - start
        y[(slice(None), *index)] = total / divisor
    return y


def image(size, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    shape = (2, *size, 3)
    # all negative, so that a zero of the padding would win; small whole numbers have many ties
    values = -rng.integers(1, 4, shape) if ties else -rng.uniform(1, 2, shape)
    return values.astype(np.float32)


@pytest.mark.parametrize('size, window, stride, padding, edge', CASES)
def test_divisors_count_the_values_of_every_window(size, window, stride, padding, edge):
    placed = windows(size, window, window if stride is None else stride, padding, edge)
    valid, padded = (pool.divisors(placed, count)[0, ..., 0] for count in ('valid', 'padded'))
    ends = [W + high for W, (_, high) in zip(placed.size, placed.padding, strict=True)]
    for index in np.ndindex(placed.out):
        assert valid[index] == len(positions(placed, index))
        parts = zip(index, placed.window, placed.stride, placed.padding, ends, strict=True)
        firsts = [(i * S - low, F, end) for i, F, S, (low, _), end in parts]
        assert padded[index] == np.prod([min(first + F, end) - first for first, F, end in firsts])


@pytest.mark.cases(2)
@pytest.mark.parametrize('size, window, stride, padding, edge', CASES)
def test_max_mean_and_switches_equal_loops(size, window, stride, padding, edge):
    x = image(size, ties=True)
    placed = windows(size, window, window if stride is None else stride, padding, edge)

    @jax.jit
    def pooled(x):
        args = (window, stride, padding, edge)
        means = [pool.mean_pool(x, *args, count) for count in ('window', 'padded', 'valid')]
        return pool.max_pool(x, *args), *pool.max_pool_with_switches(x, *args), means

    y, same, switches, means = pooled(x)
    expected, where = loop_max(x, placed)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(same, expected)
    np.testing.assert_array_equal(switches, where)
    assert switches.dtype == jnp.int32
    for count, mean in zip(('window', 'padded', 'valid'), means, strict=True):
        np.testing.assert_allclose(mean, loop_mean(x, placed, count), rtol=1e-5)


@pytest.mark.cases(2)
@pytest.mark.parametrize('size, window, stride, padding, edge', CASES[1:7] + CASES[10:14])
def test_gradients_go_to_the_first_maximum_and_to_all_of_a_mean(
    size, window, stride, padding, edge
):
    x = image(size, 1, ties=True)
    placed = windows(size, window, window if stride is None else stride, padding, edge)
    dy = np.random.default_rng(2).normal(size=(2, *placed.out, 3)).astype(np.float32)

    @jax.jit
    def back(x, dy):
        _, maximum = jax.vjp(lambda x: pool.max_pool(x, window, stride, padding, edge), x)
        _, mean = jax.vjp(lambda x: pool.mean_pool(x, window, stride, padding, edge), x)
        _, switches = pool.max_pool_with_switches(x, window, stride, padding, edge)
        return maximum(dy)[0], mean(dy)[0], pool.unpool(dy, switches, x.shape, 'accumulate')

    of_max, of_mean, accumulated = back(x, dy)
    _, where = loop_max(x, placed)
    expected = np.zeros((2, math.prod(size), 3), np.float32)
    for n, c in itertools.product(range(2), range(3)):
        np.add.at(expected[n, :, c], where[n, ..., c].ravel(), dy[n, ..., c].ravel())
    expected = expected.reshape(x.shape)
    np.testing.assert_allclose(of_max, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(accumulated, expected, rtol=1e-5, atol=1e-6)
    # the adjoint of a linear map, by <Ax, y> = <x, A'y>
    ax = loop_mean(x, placed, 'padded')
    np.testing.assert_allclose((ax * dy).sum(), (np.asarray(of_mean) * x).sum(), rtol=1e-4)
    of_loop = np.zeros(x.shape)
    for index in np.ndindex(placed.out):
        inside = positions(placed, index)
        for p in inside:
            weight = loop_mean(np.ones_like(x), placed, 'padded')[(0, *index, 0)] / len(inside)
            of_loop[(slice(None), *p)] += dy[(slice(None), *index)] * weight
    np.testing.assert_allclose(of_mean, of_loop, rtol=1e-4, atol=1e-6)


# (size, window, stride, padding, edge, dilation)
DILATED = [
    ((7, 6), 2, 1, 0, 'floor', 3),
    ((8, 7), (3, 2), (2, 1), (2, 1), 'floor', (2, 3)),
    ((8, 7), 3, 2, ((0, 3), (1, 0)), 'torch', 2),
    ((9,), 3, None, 1, 'caffe', 2),
]


@pytest.mark.parametrize('size, window, stride, padding, edge, dilation', DILATED)
def test_dilated_max_pooling_equals_loops(size, window, stride, padding, edge, dilation):
    x = image(size, 3, ties=True)
    args = (window, stride, padding, edge, dilation)
    placed = pool.pooling_windows(x.shape, *args)

    @jax.jit
    def pooled(x):
        return pool.max_pool(x, *args), *pool.max_pool_with_switches(x, *args)

    y, same, switches = pooled(x)
    expected, where = loop_max(x, placed, dilation)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(same, expected)
    np.testing.assert_array_equal(switches, where)


def test_dilated_windows_count_like_torchs():
    # floor((W + 2 padding - dilation (window - 1) - 1) / stride) + 1, as documented for MaxPool2d
    x = image((13, 10))
    assert pool.max_pool(x, 3, 2, 1, dilation=2).shape == (2, 6, 4, 3)
    assert pool.max_pool(x, (2, 3), 1, dilation=(4, 1)).shape == (2, 9, 8, 3)


def test_a_window_of_one_takes_every_value():
    x = jnp.asarray(image((3, 4)))
    y, switches = pool.max_pool_with_switches(x, 1)
    np.testing.assert_array_equal(y, x)
    positions = np.broadcast_to(np.arange(12).reshape(1, 3, 4, 1), x.shape)
    np.testing.assert_array_equal(switches, positions)
    np.testing.assert_array_equal(pool.unpool(y, switches, x.shape), x)
    y, switches = pool.max_pool_with_switches(x, 1, 2)
    np.testing.assert_array_equal(pool.unpool(y, switches, x.shape)[:, ::2, ::2], x[:, ::2, ::2])


def test_unpooling_where_windows_overlap():
    # Two windows overlap at position 2, where the maximum is.
    x = jnp.asarray([[[1.0], [2.0], [9.0], [3.0], [4.0]]])
    y, switches = pool.max_pool_with_switches(x, 3, 2)
    np.testing.assert_array_equal(switches[0, :, 0], [2, 2])
    np.testing.assert_array_equal(
        pool.unpool(y, switches, x.shape, 'assign')[0, :, 0], [0, 0, 9, 0, 0]
    )
    np.testing.assert_array_equal(
        pool.unpool(y, switches, x.shape, 'accumulate')[0, :, 0], [0, 0, 18, 0, 0]
    )
    other = jnp.asarray([[[5.0], [-7.0]]])  # the last window's value stays
    assert pool.unpool(other, switches, x.shape)[0, 2, 0] == -7
    assert pool.unpool(other, switches, x.shape, 'accumulate')[0, 2, 0] == -2
    # A switch outside the input is dropped in both modes.
    for mode in ('assign', 'accumulate'):
        outside = pool.unpool(other, jnp.asarray([[[-1], [5]]]), x.shape, mode)
        np.testing.assert_array_equal(outside, np.zeros_like(x))


def test_unpooling_without_overlap_inverts_pooling_at_the_maxima():
    x = jnp.asarray(image((6, 4)))
    y, switches = pool.max_pool_with_switches(x, 2)
    back = pool.unpool(y, switches, x.shape)
    np.testing.assert_array_equal(pool.unpool(y, switches, x.shape, 'accumulate'), back)
    np.testing.assert_array_equal(np.asarray(back)[np.asarray(back) != 0].size, y.size)
    np.testing.assert_array_equal(back, np.where(np.asarray(back) != 0, x, 0))


def test_minus_infinity_and_nan_at_a_padded_border():
    x = jnp.full((1, 4, 4, 1), -jnp.inf)
    y, switches = pool.max_pool_with_switches(x, 3, 2, 1)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), -np.inf))
    np.testing.assert_array_equal(switches[0, ..., 0], [[0, 1], [4, 5]])  # inside, not padding
    x = jnp.zeros((1, 4, 1)).at[0, 1, 0].set(jnp.nan)
    y, switches = pool.max_pool_with_switches(x, 2)
    np.testing.assert_array_equal(y[0, :, 0], [np.nan, 0])
    assert switches[0, 0, 0] == 1
    np.testing.assert_array_equal(pool.max_pool(x, 2), y)


def test_subsampling_keeps_or_drops_the_ragged_edge():
    x = np.arange(2 * 7 * 5 * 3).reshape(2, 7, 5, 3)
    np.testing.assert_array_equal(pool.subsample(x, 2), x[:, ::2, ::2])
    np.testing.assert_array_equal(pool.subsample(x, 2, window=2), x[:, :6:2, :4:2])
    np.testing.assert_array_equal(pool.subsample(x, 2, window=2, edge='caffe'), x[:, ::2, ::2])
    np.testing.assert_array_equal(pool.subsample(x, (3, 1), (2, 1)), x[:, :6:3])


def test_pooling_keeps_half_precision_and_needs_no_promotion():
    x = jnp.asarray(image((4, 4)), jnp.bfloat16)
    assert pool.max_pool(x, 2).dtype == jnp.bfloat16
    assert pool.mean_pool(x, 2, count='valid').dtype == jnp.bfloat16
    y, switches = pool.max_pool_with_switches(x, 2)
    assert pool.unpool(y, switches, x.shape).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    'call, kind, match',
    [
        (lambda x: pool.max_pool(x.astype(int), 2), TypeError, 'floating'),
        (lambda x: pool.mean_pool(x.astype(int), 2), TypeError, 'floating'),
        (lambda x: pool.max_pool(x, 9), ValueError, 'window of 9 does not fit axis 0'),
        (lambda x: pool.max_pool(x, 2, 0), ValueError, 'stride is 0; it has to be at least 1'),
        (lambda x: pool.max_pool(x, 2, 2, -1), ValueError, 'padding is -1'),
        (lambda x: pool.max_pool(x, 2, 2, 2), ValueError, 'not smaller than the window'),
        (lambda x: pool.max_pool(x, 2, dilation=0), ValueError, 'dilation is 0'),
        (
            lambda x: pool.max_pool(x[:, :1], 2, 1, 1, dilation=2),
            ValueError,
            'steps over the input',
        ),
        (lambda x: pool.max_pool(x, (2, 2, 2)), ValueError, 'has 3 values'),
        (lambda x: pool.max_pool(x, 1, 3, 0, 'caffe'), ValueError, "use edge='torch'"),
        (lambda x: pool.max_pool(x, 2, edge='ceil'), ValueError, "'floor', 'caffe' or 'torch'"),
        (lambda x: pool.max_pool(x[0, :, 0], 2), ValueError, 'n, h, w, c'),
        (lambda x: pool.mean_pool(x, 2, count='all'), ValueError, "'window', 'padded' or"),
        (lambda x: pool.unpool(x, x.astype(int), (1, 1, 1)), ValueError, 'fit together'),
        (lambda x: pool.unpool(x, x, x.shape), TypeError, 'expected an integer dtype'),
        (lambda x: pool.unpool(x, x.astype(int), x.shape, 'add'), ValueError, "'assign' or"),
    ],
)
def test_bad_input(call, kind, match):
    with pytest.raises(kind, match=match):
        call(np.ones((1, 8, 8, 1), np.float32))
