"""Max pooling by machine code equals the plain JAX form, and gives way to it where it does not apply."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.ops import machine_code, pool, pool_cpu

needs_numba = pytest.mark.skipif(
    not machine_code.supported(), reason='needs numba: pip install "lecture4[onednn]"'
)
CHANNELS = pool_cpu.MIN_CHANNELS
# window, stride, padding, edge
CASES = {
    'overlapping': (3, 2, 0, 'floor'),
    'incomplete windows': (3, 2, 0, 'caffe'),
    'padded, stride 1': (3, 1, 1, 'floor'),
    'not overlapping': (2, 2, 0, 'torch'),
    'stride beyond the window': (2, 3, 0, 'floor'),
    'axes differ': ((2, 3), (3, 1), ((1, 0), (0, 2)), 'floor'),
    'one window': ((9, 8), 1, 0, 'floor'),
}
PADDED = CASES['padded, stride 1']


def images(dtype=np.float32, channels=CHANNELS):
    """Whole numbers, of which windows have several largest."""
    x = np.random.default_rng(0).integers(-3, 4, (2, 9, 8, channels))
    return jnp.asarray(x, dtype)


def value_and_gradient(fn, case):
    """x -> (y, dx) of a pooling."""

    def both(x):
        y, back = jax.vjp(lambda x: fn(x, *case), x)
        signal = jnp.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape)
        return y, back(signal % 7)[0]

    return both


def plain_pool(x, *case):
    return pool._max_pool(x, pool.pooling_windows(x.shape, *case), (1, 1))


ours = functools.partial(value_and_gradient, pool.max_pool)
plain = functools.partial(value_and_gradient, plain_pool)


def assert_equal(results, expected):
    for mine, other in zip(results, expected, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def calls(fn, *args, **options):
    return jax.jit(fn, **options).lower(*args).as_text().count(pool_cpu.TARGET)


@needs_numba
@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_equal_the_plain_form(name):
    case, x = CASES[name], images()
    assert calls(ours(case), x) == 2 and calls(plain(case), x) == 0
    assert_equal(jax.jit(ours(case))(x), jax.jit(plain(case))(x))
    assert_equal([pool.max_pool(x, *case)], [plain_pool(x, *case)])  # without jit


@needs_numba
@pytest.mark.parametrize('name', ['overlapping', 'padded, stride 1'])
def test_threads_share_large_maps_with_equal_results(name):
    x = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (5, 41, 40, CHANNELS)), np.float32)
    case = CASES[name]
    for _ in range(5):
        assert_equal(jax.jit(ours(case))(x), jax.jit(plain(case))(x))


@needs_numba
def test_nan_and_infinities_go_where_the_plain_form_has_them():
    x = images().at[0, 2, 3, 5].set(jnp.nan).at[1, 4, 4].set(jnp.inf).at[1, :3, :3].set(-jnp.inf)
    (y, dx), (expected, d_expected) = jax.jit(ours(PADDED))(x), jax.jit(plain(PADDED))(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx[0], d_expected[0])
    np.testing.assert_array_equal(dx[1, 4:], d_expected[1, 4:])
    assert np.isnan(y).sum() == 9 and np.isneginf(y).any()


@needs_numba
def test_forward_mode_and_second_order_equal_the_plain_form():
    x = images() + 0.01 * jax.random.normal(jax.random.key(0), (2, 9, 8, CHANNELS))
    direction = jnp.cos(x)

    def derivatives(fn):
        def objective(x):
            return jnp.sum(jnp.sin(fn(x, *PADDED)))

        def all_of_them(x):
            tangent = jax.jvp(lambda x: fn(x, *PADDED), (x,), (direction,))[1]
            forward_over_reverse = jax.jvp(jax.grad(objective), (x,), (direction,))[1]
            penalty = jax.grad(lambda x: jnp.sum(jax.grad(objective)(x) ** 2))(x)
            return tangent, forward_over_reverse, penalty

        return jax.jit(all_of_them)

    results, expected = derivatives(pool.max_pool)(x), derivatives(plain_pool)(x)
    for mine, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@needs_numba
def test_vmap_is_the_plain_form():
    x = jnp.stack([images(), -images()])
    fn = jax.vmap(ours(PADDED))
    assert calls(fn, x) == 0
    assert_equal(jax.jit(fn)(x), jax.jit(jax.vmap(plain(PADDED)))(x))


@needs_numba
def test_on_two_devices_each_pools_its_images():
    x = images()
    mesh, data = Mesh(np.array(jax.devices()[:2]), ('data',)), PartitionSpec('data')
    sharding = NamedSharding(mesh, data)
    fn = jax.jit(lambda x: pool.max_pool(x, *PADDED), in_shardings=sharding, out_shardings=sharding)
    text = fn.lower(x).compile().as_text()
    assert pool_cpu.TARGET not in text and 'all-gather' not in text
    assert_equal([fn(x)], [plain_pool(x, *PADDED)])

    def both(x, fn):
        return jax.value_and_grad(lambda x: jnp.sum(fn(x, *PADDED) ** 2))(x)[1]

    local = jax.shard_map(
        functools.partial(both, fn=pool.max_pool), mesh=mesh, in_specs=data, out_specs=data
    )
    assert calls(local, x) == 2
    assert_equal([jax.jit(local)(x)], [both(x, plain_pool)])


@needs_numba
def test_other_programs_are_the_plain_form(x64):
    for x in (images(np.float64), images(jnp.bfloat16), images(channels=CHANNELS - 1)):
        assert calls(ours(PADDED), x) == 0
    x = images()
    assert calls(lambda x: pool.max_pool(x, 2, dilation=2), x) == 0
    assert calls(lambda x: pool.max_pool(x, 2), x[:, 0]) == 0
    for platform in ('tpu', 'cuda'):
        program = jax.jit(ours(PADDED)).trace(x).lower(lowering_platforms=(platform,))
        assert pool_cpu.TARGET not in program.as_text()
    program = jax.export.export(jax.jit(ours(PADDED)))(x)
    assert pool_cpu.TARGET not in program.mlir_module()


def test_without_numba_the_program_is_the_plain_form(monkeypatch):
    monkeypatch.setattr(machine_code, 'supported', lambda: False)
    assert str(jax.make_jaxpr(ours(PADDED))(images())) == str(
        jax.make_jaxpr(plain(PADDED))(images())
    )
