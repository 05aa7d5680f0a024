"""Normalization against loops and formulas written after the papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import norm
from tests.gradients import check_grads


def by_definition(x, scale, bias, epsilon):
    """Algorithm 1 of Ioffe & Szegedy; its gradients are JAX's."""
    flat = x.reshape(-1, x.shape[-1])
    mean = flat.sum(0) / len(flat)
    var = ((flat - mean[None]) ** 2).sum(0) / len(flat)
    y = scale[None] * (flat - mean[None]) / jnp.sqrt(var[None] + epsilon) + bias[None]
    return y.reshape(x.shape), mean, var


def batch_case(shape=(4, 3, 5, 6), dtype=jnp.float64):
    """x with means other than zero, scale, bias."""
    rng = np.random.default_rng(0)
    sizes = shape, shape[-1:], shape[-1:]
    return tuple(jnp.asarray(rng.normal(0.5, 2, size), dtype) for size in sizes)


def values_and_gradients(fn):
    """(x, scale, bias) -> y, mean, var, and gradients of a function of all three."""

    def run(x, scale, bias):
        results, back = jax.vjp(lambda *args: fn(*args, 0.1), x, scale, bias)
        return *results, *back(tuple(jnp.cos(3 * result) for result in results))

    return run


ours, defined = values_and_gradients(norm.batch_norm), values_and_gradients(by_definition)


def assert_close(results, expected, tolerance):
    for mine, other in zip(results, expected, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize('shape', [(4, 3, 5, 6), (7, 2), (5, 1)])
def test_batch_norm_and_its_gradients_follow_the_definition(shape, x64):
    case = batch_case(shape)
    assert_close(ours(*case), defined(*case), 1e-12)


def test_batch_norm_has_derivatives_of_second_order(x64):
    case = batch_case((3, 2, 4))

    def penalty(fn):
        return jax.grad(lambda *args: jnp.sum(fn(*args)[3] ** 2), (0, 1, 2))

    assert_close(penalty(ours)(*case), penalty(defined)(*case), 1e-11)


def test_batch_norm_under_vmap_and_on_parts_in_shard_map(x64):
    x, scale, bias = batch_case()
    expected = [
        np.stack(parts)
        for parts in zip(*(defined(x[i : i + 2], scale, bias) for i in (0, 2)), strict=True)
    ]
    parts = x.reshape(2, 2, *x.shape[1:])
    assert_close(jax.vmap(ours, (0, None, None))(parts, scale, bias), expected, 1e-12)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('data',))
    data, whole = jax.sharding.PartitionSpec('data'), jax.sharding.PartitionSpec()

    def local(x, scale, bias):
        y, mean, var, dx, d_scale, d_bias = ours(x, scale, bias)
        return y, mean[None], var[None], dx, d_scale, d_bias  # the last two are sums over devices

    fn = jax.shard_map(
        local, mesh=mesh, in_specs=(data, whole, whole), out_specs=(*(data,) * 4, whole, whole)
    )
    y, mean, var, dx, d_scale, d_bias = expected
    y, dx, d_scale, d_bias = y.reshape(x.shape), dx.reshape(x.shape), d_scale.sum(0), d_bias.sum(0)
    assert_close(jax.jit(fn)(x, scale, bias), (y, mean, var, dx, d_scale, d_bias), 1e-12)


def test_batch_norm_split_over_devices_has_the_statistics_of_the_batch(x64):
    case = batch_case()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('data',))
    data, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (['data'], [])
    )
    fn = jax.jit(ours, in_shardings=(data, whole, whole))
    assert 'all-gather' not in fn.lower(*case).compile().as_text()
    assert_close(fn(*case), defined(*case), 1e-12)


def test_batch_norm_of_bfloat16_sums_in_float32():
    x, scale, bias = batch_case((64, 16, 3), jnp.float32)
    x = x.astype(jnp.bfloat16)
    y, mean, var = norm.batch_norm(x, scale, bias, 0.1, jnp.bfloat16)
    expected = by_definition(x.astype(jnp.float32), scale, bias, 0.1)
    assert y.dtype == jnp.bfloat16
    assert_close((mean, var), expected[1:], 1e-5)
    assert_close([y.astype(jnp.float32)], expected[:1], 2**-8)
    gradients = jax.grad(
        lambda *args: norm.batch_norm(*args, dtype='bfloat16')[0].sum(), (0, 1, 2)
    )(x, scale, bias)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]


def test_batch_norm_saves_no_array_of_its_inputs_size_but_the_input():
    case = batch_case(dtype=jnp.float32)
    saved = jax.tree.leaves(jax.vjp(norm.batch_norm, *case)[1])
    large = [leaf for leaf in saved if leaf.size >= case[0].size]
    assert len(large) == 1
    np.testing.assert_array_equal(large[0], case[0])


def loop_response(x, size, alpha, beta, k):
    """The formula, channel by channel; a window outside the channels is cut."""
    y = np.empty_like(x)
    n = x.shape[-1]
    for c in range(n):
        inside = x[..., max(0, c - size // 2) : min(n, c + (size - 1) // 2 + 1)]
        y[..., c] = x[..., c] / (k + alpha * (inside**2).sum(-1)) ** beta
    return y


@pytest.mark.parametrize(
    'convention, k, of_sum', [('paper', 2, True), ('cuda_convnet', 2, False), ('caffe', 1, False)]
)
@pytest.mark.parametrize('size', [1, 4, 5, 20])
def test_local_response_in_three_conventions(convention, k, of_sum, size, x64):
    x = np.random.default_rng(0).normal(size=(2, 3, 7)) * 3
    alpha = 0.3 if of_sum else 0.3 / size
    y = norm.local_response(x, size, 0.3, convention=convention)
    np.testing.assert_allclose(y, loop_response(x, size, alpha, 0.75, k), rtol=1e-12)
    other = norm.local_response(x, size, 0.3, 0.6, 4.0, convention=convention)
    np.testing.assert_allclose(other, loop_response(x, size, alpha, 0.6, 4.0), rtol=1e-12)


def test_the_conventions_differ_as_named():
    x = jnp.full((1, 9), 50.0)
    paper, cuda, caffe = (
        norm.local_response(x, convention=name)[0, 4] for name in ('paper', 'cuda_convnet', 'caffe')
    )
    np.testing.assert_allclose(paper, 50 / (2 + 1e-4 * 5 * 2500) ** 0.75, rtol=1e-6)
    np.testing.assert_allclose(cuda, 50 / (2 + 1e-4 * 2500) ** 0.75, rtol=1e-6)
    np.testing.assert_allclose(caffe, 50 / (1 + 1e-4 * 2500) ** 0.75, rtol=1e-6)
    # Each convention is another one with its constants passed.
    np.testing.assert_allclose(norm.local_response(x, alpha=1e-4 / 5)[0, 4], cuda, rtol=1e-6)
    np.testing.assert_allclose(
        norm.local_response(x, k=1.0, convention='cuda_convnet')[0, 4], caffe, rtol=1e-6
    )


def test_local_response_has_gradients_and_traces_its_constants(x64):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)))
    check_grads(lambda x: norm.local_response(x, 3, 0.5), (x,), 2)
    check_grads(lambda x, a, b, k: norm.local_response(x, 3, a, b, k), (x, 0.5, 0.75, 1.5), 1)
    by_root = norm.local_response(x, 3, 0.5, 0.75)
    by_power = jax.jit(lambda beta: norm.local_response(x, 3, 0.5, beta))(0.75)
    np.testing.assert_allclose(by_root, by_power, rtol=1e-12)


def loop_contrast(x, size, sigma, min_std):
    n, h, w, _ = x.shape
    r = size // 2

    def blur(values):
        out = np.empty((n, h, w))
        for i, j in np.ndindex(h, w):
            total = weights = 0.0
            for p in range(max(0, i - r), min(h, i + r + 1)):
                for q in range(max(0, j - r), min(w, j + r + 1)):
                    weight = np.exp(-((p - i) ** 2 + (q - j) ** 2) / (2 * sigma**2))
                    total = total + weight * values[:, p, q].mean(-1)
                    weights += weight
            out[:, i, j] = total / weights
        return out[..., None]

    v = x - blur(x)
    s = np.sqrt(blur(v**2))
    return v / np.maximum(s.mean((1, 2, 3), keepdims=True) if min_std is None else min_std, s)


@pytest.mark.parametrize('size, sigma, min_std', [(3, 1.0, None), (5, None, 0.4), (9, 2.0, 0.0)])
def test_local_contrast_equals_its_formula(size, sigma, min_std, x64):
    x = np.random.default_rng(2).normal(size=(2, 6, 5, 3)) + 4
    y = norm.local_contrast(x, size, sigma, min_std)
    np.testing.assert_allclose(
        y, loop_contrast(x, size, sigma or size / 4, min_std), rtol=1e-10, atol=1e-12
    )


def test_local_contrast_removes_brightness_and_contrast(x64):
    x = np.random.default_rng(3).normal(size=(1, 8, 8, 2))
    normalize = jax.jit(norm.local_contrast, static_argnums=1)
    y = normalize(x, 5)
    np.testing.assert_allclose(normalize(7 * x + 3, 5), y, rtol=1e-9, atol=1e-11)
    # Zero up to the rounding of a mean, which the default min_std would amplify.
    assert np.abs(normalize(np.full(x.shape, 5.0), 5, min_std=1e-3)).max() < 1e-11
    zero = np.zeros(x.shape)
    np.testing.assert_array_equal(normalize(zero, 5), zero)
    for options in ({'min_std': 0.1}, {}):
        value = functools.partial(norm.local_contrast, size=5, **options)
        gradient = jax.jit(jax.grad(lambda x, value=value: value(x).sum()))(zero)
        assert np.isfinite(gradient).all()
    run = jax.jit(functools.partial(norm.local_contrast, size=3, min_std=0.2))
    check_grads(run, (x[:, :4, :4],), 1)


@pytest.mark.parametrize(
    'call, kind, match',
    [
        (lambda x: norm.local_response(x.astype(int)), TypeError, 'floating'),
        (lambda x: norm.local_response(x, 0), ValueError, 'size is 0'),
        (lambda x: norm.local_response(x, convention='torch'), ValueError, "'paper', 'cuda"),
        (lambda x: norm.local_contrast(x.astype(np.uint8)), TypeError, 'floating'),
        (lambda x: norm.local_contrast(x, 4), ValueError, 'odd'),
        (lambda x: norm.local_contrast(x, 5, 0.0), ValueError, 'sigma is 0.0'),
        (lambda x: norm.local_contrast(x[0]), ValueError, r'one image: x\[None\]'),
    ],
)
def test_bad_input(call, kind, match):
    with pytest.raises(kind, match=match):
        call(np.ones((1, 4, 4, 2), np.float32))
