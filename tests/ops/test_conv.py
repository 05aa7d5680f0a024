"""Convolutions against im2col with plain loops, and their laws: adjoint, commuting, equivariance."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from lecture4.ops import conv
from lecture4.ops.receptive_field import windows

# (size, window, stride, padding, groups): whole and ragged, padded evenly and not, 1-d to 3-d
CASES = [
    ((6, 5), (3, 3), 1, 0, 1),
    ((7, 6), (3, 2), 2, 0, 1),  # the last row and column are read by no window
    ((7, 8), (3, 3), (2, 3), (1, 2), 2),
    ((6, 6), (2, 3), (3, 1), ((0, 1), (2, 0)), 4),
    ((5, 5), (5, 5), 1, 4, 1),
    ((4, 4), (1, 1), 2, 0, 2),
    ((9,), (4,), 3, 2, 2),
    ((4, 5, 3), (2, 3, 2), (1, 2, 1), 1, 1),
]
IN, OUT = 4, 8


def im2col(x, placed):
    """[n, *out, *window, c]: every window, copied by loops; zeros outside."""
    columns = np.zeros((len(x), *placed.out, *placed.window, x.shape[-1]), x.dtype)
    for i, f in itertools.product(np.ndindex(placed.out), np.ndindex(placed.window)):
        at = zip(i, f, placed.stride, placed.padding, strict=True)
        p = tuple(a * S + b - low for a, b, S, (low, _) in at)
        if all(0 <= q < W for q, W in zip(p, placed.size, strict=True)):
            columns[(slice(None), *i, *f)] = x[(slice(None), *p)]
    return columns


def reference(x, kernel, stride, padding, groups):
    placed = windows(x.shape[1:-1], kernel.shape[:-2], stride, padding)
    columns = im2col(x, placed)
    c, o = kernel.shape[-2], kernel.shape[-1] // groups
    parts = []
    for g in range(groups):
        mine = columns[..., g * c : (g + 1) * c].reshape(len(x), *placed.out, -1)
        parts.append(mine @ kernel[..., g * o : (g + 1) * o].reshape(-1, o))
    return np.concatenate(parts, -1)


def operands(size, window, groups, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *size, IN)), rng.normal(size=(*window, IN // groups, OUT))


@pytest.mark.cases(2)
@pytest.mark.parametrize('size, window, stride, padding, groups', CASES)
def test_equals_im2col_and_has_exact_adjoints(size, window, stride, padding, groups, x64):
    x, kernel = operands(size, window, groups)
    args = (stride, padding, groups)
    expected = reference(x, kernel, *args)
    dy = np.random.default_rng(1).normal(size=expected.shape)

    @jax.jit
    def all_of(x, kernel, dy):
        y, back = jax.vjp(lambda x, k: conv.cross_correlate(x, k, *args), x, kernel)
        return (
            y,
            conv.convolve(x, conv.flip(kernel), *args),
            conv.adjoint(dy, kernel, *args, size=size),
            conv.kernel_adjoint(x, dy, window, *args),
            back(dy),
        )

    y, flipped, dx, dk, (by_jax_x, by_jax_k) = all_of(x, kernel, dy)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(flipped, expected, rtol=1e-12, atol=1e-12)
    # <A x, y> = <x, A' y>, in x and in the kernel
    product = (expected * dy).sum()
    np.testing.assert_allclose((x * dx).sum(), product, rtol=1e-11)
    np.testing.assert_allclose((kernel * dk).sum(), product, rtol=1e-11)
    np.testing.assert_allclose(dx, by_jax_x, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dk, by_jax_k, rtol=1e-11, atol=1e-12)


def test_is_a_sparse_matrix_of_shared_weights(x64):
    """The matrix of the map has as many entries as there are connections, all from the kernel."""
    size, window, args = (5, 4), (2, 3), (1, 1, 1)
    kernel = np.random.default_rng(0).normal(size=(*window, 1, 1))
    n = math.prod(size)
    units = np.eye(n).reshape(n, *size, 1)
    columns = np.asarray(conv.cross_correlate(units, kernel, *args))
    placed = windows(size, window, *args[:2])
    matrix = columns.reshape(n, -1).T
    entries = np.sort(matrix[matrix != 0])
    assert set(entries) == set(kernel.ravel())  # shared weights, and no other
    inside = im2col(np.ones((1, *size, 1)), placed).sum()
    assert len(entries) == inside < matrix.size / 3  # sparse: an entry a connection
    x = np.random.default_rng(1).normal(size=(3, *size, 1))
    y = conv.cross_correlate(x, kernel, *args)
    np.testing.assert_allclose(x.reshape(3, n) @ matrix.T, y.reshape(3, -1), rtol=1e-12)
    back = conv.adjoint(y, kernel, *args, size=size)
    np.testing.assert_allclose(
        np.asarray(y).reshape(3, -1) @ matrix, back.reshape(3, n), rtol=1e-12
    )


@pytest.mark.parametrize('n_axes', [1, 2])
def test_full_convolution_is_scipys_and_commutes(n_axes, x64):
    rng = np.random.default_rng(n_axes)
    a, b = rng.normal(size=(5, 7)[:n_axes]), rng.normal(size=(3, 2)[:n_axes])

    def full(a, b):
        padding = [side - 1 for side in b.shape]
        return conv.convolve(a[None, ..., None], b[..., None, None], 1, padding)[0, ..., 0]

    expected = scipy.signal.convolve(a, b)
    np.testing.assert_allclose(full(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(full(b, a), expected, rtol=1e-12)
    crossed = conv.cross_correlate(a[None, ..., None], b[..., None, None])[0, ..., 0]
    np.testing.assert_allclose(crossed, scipy.signal.correlate(a, b, 'valid'), rtol=1e-12)


@pytest.mark.parametrize('stride', [1, 2])
def test_shifting_the_image_shifts_the_feature_map(stride):
    x = np.zeros((1, 16, 16, 2), np.float32)
    x[0, 3:8, 4:9] = np.random.default_rng(0).normal(size=(5, 5, 2))
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 3)).astype(np.float32)
    shifted = np.roll(x, (2 * stride, stride), (1, 2))
    y = conv.cross_correlate(x, kernel, stride, 1)
    moved = conv.cross_correlate(shifted, kernel, stride, 1)
    np.testing.assert_allclose(moved, np.roll(y, (2, 1), (1, 2)), rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(moved) - np.asarray(y)).max() > 1


def test_transposed_convolution_without_a_size_gives_the_smallest_input():
    y = np.ones((1, 3, 4, 8), np.float32)
    kernel = np.ones((3, 2, 2, 8), np.float32)
    assert conv.adjoint(y, kernel, 2, 1, 2).shape == (1, 5, 6, 4)
    np.testing.assert_array_equal(  # the last row, which no window reads, gets 0
        conv.adjoint(y, kernel, 2, 0, 2, size=(8, 9))[:, -1], np.zeros((1, 9, 4))
    )


def test_works_under_vmap_and_in_half_precision():
    x, kernel = (jnp.asarray(a, jnp.float32) for a in operands((6, 5), (3, 3), 1))
    many = jnp.stack([kernel, 2 * kernel])
    y = jax.vmap(conv.cross_correlate, (None, 0))(x, many)
    np.testing.assert_allclose(y[1], 2 * y[0], rtol=1e-5, atol=1e-5)
    half = conv.cross_correlate(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_lowers_to_laxs_convolution_and_nothing_else():
    """No overhead under jit: the program is that of jax.lax, and so are its gradients."""

    def text(convolution):
        def fn(x, kernel):
            return convolution(x, kernel)

        def gradients(x, kernel):
            return jax.grad(lambda *args: convolution(*args).sum(), (0, 1))(x, kernel)

        return [jax.jit(f).lower(X, K).as_text() for f in (fn, gradients)]

    def alone(x, kernel, padding=((1, 1), (2, 2))):
        layout = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(x, kernel, (2, 1), padding, dimension_numbers=layout)

    assert text(lambda *args: conv.cross_correlate(*args, (2, 1), (1, 2))) == text(alone)
    assert text(lambda *args: conv.convolve(*args, (2, 1), (1, 2))) != text(alone)


X, K = np.ones((2, 8, 9, 3), np.float32), np.ones((5, 5, 3, 4), np.float32)


@pytest.mark.parametrize(
    'call, kind, match',
    [
        (lambda: conv.cross_correlate(X.astype(int), K), TypeError, r'x has dtype int.*astype'),
        (lambda: conv.cross_correlate(X, K.astype(np.uint8)), TypeError, 'kernel has dtype uint8'),
        (lambda: conv.cross_correlate(X, K.astype(np.float16)), TypeError, 'float32 and kernel'),
        (
            lambda: conv.cross_correlate(X[:, :4], K),
            ValueError,
            r'kernel: a window of 5 does not fit axis 0 of the input 4 x 9; use a window of at most 4',
        ),
        (lambda: conv.cross_correlate(X[:, :2], K, 1, 1), ValueError, '2 x 9 padded to 4'),
        (lambda: conv.cross_correlate(X, K, 0), ValueError, 'stride is 0'),
        (lambda: conv.cross_correlate(X, K, (1, -2)), ValueError, r'stride is \(1, -2\)'),
        (lambda: conv.cross_correlate(X, K, 1, -1), ValueError, 'padding is -1; it has to be'),
        (lambda: conv.cross_correlate(X, K, 1, (1, 2, 3)), ValueError, '2 spatial axes'),
        (lambda: conv.cross_correlate(X, K, 1, 0, 3), ValueError, 'divide the 4 filters'),
        (lambda: conv.cross_correlate(X, K, 1, 0, 2), ValueError, 'with 2 groups expects 6'),
        (
            lambda: conv.cross_correlate(X.transpose(0, 3, 1, 2), K),
            ValueError,
            r'channels first: use x.transpose\(0, 2, 3, 1\)',
        ),
        (
            lambda: conv.cross_correlate(X, K.transpose(3, 2, 0, 1)),
            ValueError,
            r'\[o, c, ...\]: use kernel.transpose\(2, 3, 1, 0\)',
        ),
        (lambda: conv.cross_correlate(X[0], K), ValueError, r'one image: x\[None\]'),
        (lambda: conv.adjoint(X, K, 1), ValueError, 'y of shape .* has 3 channels'),
        (
            lambda: conv.adjoint(np.ones((2, 4, 4, 4), np.float32), K, size=(8, 9)),
            ValueError,
            r'give \[n, \(4, 5\), o\]',
        ),
        (lambda: conv.kernel_adjoint(X, X, (5, 5)), ValueError, r'give \[n, \(4, 5\), o\]'),
        (
            lambda: conv.kernel_adjoint(X, X[:1, :4, :5], (5, 5)),
            ValueError,
            'do not fit together',
        ),
    ],
)
def test_bad_input(call, kind, match):
    with pytest.raises(kind, match=match):
        call()


def test_the_hints_fix_what_they_name():
    nchw, oihw = X.transpose(0, 3, 1, 2), K.transpose(3, 2, 0, 1)
    run = jax.jit(conv.cross_correlate)
    expected = run(X, K)
    np.testing.assert_array_equal(run(nchw.transpose(0, 2, 3, 1), K), expected)
    np.testing.assert_array_equal(run(X, oihw.transpose(2, 3, 1, 0)), expected)
