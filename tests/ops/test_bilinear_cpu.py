"""Bilinear sampling by machine code equals the plain JAX form, and gives way to it where it does not apply."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.ops import bilinear_cpu, sampling

needs_numba = pytest.mark.skipif(
    not bilinear_cpu.installed(), reason='needs pip install "lecture4[onednn]"'
)
SAMPLE = sampling._bilinear
DATA = PartitionSpec('data')


def case(shape=(4, 6, 5, 2), n_points=40, dtype=np.float32):
    """(images, points [n, p, 2]), a third of them outside, some at whole positions, and on the outermost pixels."""
    rng = np.random.default_rng(0)
    size = np.array(shape[2:0:-1])
    points = rng.uniform(size=(shape[0], n_points, 2)) * (size + 3) - 2
    points[:, :9] = np.round(points[:, :9])
    points[:, 9] = size - 1
    return jnp.asarray(rng.normal(size=shape), dtype), jnp.asarray(points, dtype)


def value_and_gradients(images, points, **options):
    values, vjp = jax.vjp(lambda *args: sampling.sample(*args, **options), images, points)
    return values, *vjp(jnp.cos(1 + values))


def plainly(images, points, **options):
    """The same by the plain form."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, '_bilinear', SAMPLE.__wrapped__)
        fn = functools.partial(value_and_gradients, **options)
        return jax.jit(lambda *args: fn(*args))(images, points)


def assert_close(results, expected, tolerance=1e-5):
    for mine, other in zip(results, expected, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


def calls(fn, *args, **options):
    return jax.jit(fn, **options).lower(*args).as_text().count(f'@{bilinear_cpu.TARGET}')


@pytest.fixture(scope='module')
def mesh():
    return Mesh(np.array(jax.devices()[:2]), ('data',))


@needs_numba
@pytest.mark.parametrize('padding', sampling.PADDINGS)
@pytest.mark.parametrize('shape', [(4, 6, 5, 1), (3, 5, 1, 3), (1, 1, 4, 2)], ids=str)
def test_values_and_gradients_equal_the_plain_form(shape, padding):
    images, points = case(shape)
    fn = functools.partial(value_and_gradients, padding=padding)
    assert calls(fn, images, points) == 2
    assert_close(jax.jit(fn)(images, points), plainly(images, points, padding=padding))


@needs_numba
def test_many_images_and_points_equal_the_plain_form():
    images, points = case((70, 9, 8, 1), 1500)  # several blocks of points, several threads
    assert_close(jax.jit(value_and_gradients)(images, points), plainly(images, points))


@needs_numba
def test_calls_at_the_same_time_do_not_disturb_one_another():
    images, points = case((70, 9, 8, 1), 200)
    fn = jax.jit(value_and_gradients)
    expected = plainly(images, points)

    def run(i):
        return fn(images[::-1], points[::-1]) if i % 2 else fn(images, points)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for i, results in enumerate(pool.map(run, range(60))):
            assert_close([r[::-1] if i % 2 else r for r in results], expected)


@needs_numba
def test_called_without_jit_gives_the_same_numbers():
    images, points = case()
    assert_close(value_and_gradients(images, points), plainly(images, points))


@needs_numba
def test_nan_and_infinite_points_have_the_plain_forms_values():
    images, points = case()
    points = points.at[0, 3, 0].set(jnp.nan).at[1, 4, 1].set(jnp.nan)
    points = points.at[2, 5, 0].set(jnp.inf).at[2, 6, 1].set(-jnp.inf).at[2, 7].set(1e30)
    fn = functools.partial(jax.jit(sampling.sample, static_argnames='padding'), padding='zeros')
    values, expected = fn(images, points), plainly(images, points)[0]
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    by_images = jax.jit(value_and_gradients)(images, points)[1]
    np.testing.assert_array_equal(np.isnan(by_images).any((1, 2, 3)), [True, True, False, False])


@needs_numba
@pytest.mark.parametrize('check_vma', [True, False])
def test_shard_map_is_computed_by_machine_code(mesh, check_vma):
    images, points = case()
    specs = {'in_specs': (DATA, DATA), 'out_specs': (DATA, DATA, DATA), 'check_vma': check_vma}
    fn = jax.shard_map(value_and_gradients, mesh=mesh, **specs)
    assert calls(fn, images, points) == 2
    assert_close(jax.jit(fn)(images, points), plainly(images, points))


@needs_numba
def test_other_programs_are_the_plain_form(mesh, x64):
    images, points = case()
    spread = NamedSharding(mesh, DATA)
    assert calls(value_and_gradients, images, points, in_shardings=(spread, spread)) == 0
    each = jax.vmap(value_and_gradients)
    assert calls(each, images, points) == 0
    assert_close(jax.jit(each)(images, points), plainly(images, points))
    many_channels = case((2, 6, 5, bilinear_cpu.FEW_CHANNELS + 1))
    for arguments in (case(dtype=np.float64), many_channels, case(dtype=jnp.bfloat16)):
        assert calls(sampling.sample, *arguments[:2]) == 0
    for options in ({'method': 'matrix'}, {'kernel': 'nearest'}, {'antialias': 2}):
        assert calls(functools.partial(sampling.sample, **options), images, points) == 0
    program = jax.export.export(jax.jit(value_and_gradients))(images, points)
    assert bilinear_cpu.TARGET not in program.mlir_module()
    for platform in ('tpu', 'cuda'):
        program = jax.jit(value_and_gradients).trace(images, points)
        assert bilinear_cpu.TARGET not in program.lower(lowering_platforms=(platform,)).as_text()


@needs_numba
def test_derivatives_of_second_order_equal_the_plain_forms():
    images, points = case()

    def penalty(images, points):
        _, by_images, by_points = value_and_gradients(images, points)
        return jnp.sum(by_images**2) + jnp.sum(by_points**2)

    results = jax.jit(jax.grad(penalty, (0, 1)))(images, points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, '_bilinear', SAMPLE.__wrapped__)
        expected = jax.jit(jax.grad(lambda *args: penalty(*args), (0, 1)))(images, points)
    assert_close(results, expected, 1e-3)


@needs_numba
def test_inside_scan_it_is_computed_by_machine_code():
    images, points = case()

    def fn(images, points):
        def step(points, _):
            return points - 0.1 * value_and_gradients(images, points)[2], None

        return lax.scan(step, points, None, length=3)[0]

    assert calls(fn, images, points) > 0
    expected = points
    for _ in range(3):
        expected = expected - 0.1 * plainly(images, expected)[2]
    assert_close([jax.jit(fn)(images, points)], [expected], 1e-4)


def test_without_numba_the_program_is_the_plain_form(monkeypatch):
    images, points = case()
    monkeypatch.setattr(bilinear_cpu, 'installed', lambda: False)
    without = str(jax.make_jaxpr(lambda *args: sampling.sample(*args))(images, points))
    monkeypatch.setattr(sampling, '_bilinear', SAMPLE.__wrapped__)
    plain = str(jax.make_jaxpr(lambda *args: sampling.sample(*args))(images, points))
    assert bilinear_cpu.TARGET not in without and 'gradients' not in without
    assert without == plain
