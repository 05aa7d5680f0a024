"""Bilinear sampling by machine code equals the plain form, and gives way to it where it does not apply."""

import concurrent.futures
import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.ops import bilinear_cpu, machine_code, sampling

needs_numba = pytest.mark.skipif(
    not machine_code.supported(), reason='needs pip install "lecture4[numba]"'
)


def case(shape=(4, 6, 5, 1), n_points=40, align_corners=True, dtype: Any = np.float32):
    """(images, grid [n, p, 2]): a third outside, at whole pixels, on the last pixel, and a pixel beyond."""
    rng = np.random.default_rng(0)
    size = np.array(shape[2:0:-1])
    pixels = rng.uniform(size=(shape[0], n_points, 2)) * (size + 3) - 2
    pixels[:, :9], pixels[:, 9], pixels[:, 10], pixels[:, 11] = (
        np.round(pixels[:, :9]),
        size - 1,
        size,
        -1,
    )
    grid = 2 * pixels / (size - 1) - 1 if align_corners else (2 * pixels + 1) / size - 1
    return jnp.asarray(rng.normal(size=shape), dtype), jnp.asarray(grid, dtype)


def value_and_gradients(images, grid, **options):
    values, vjp = jax.vjp(lambda *args: sampling.grid_sample(*args, **options), images, grid)
    return values, *vjp(jnp.cos(1 + values))


plainly = functools.partial(value_and_gradients, method='gather')


def assert_close(results, expected, tolerance=2e-5):
    for mine, other in zip(results, expected, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


def calls(fn, *args, **options):
    return jax.jit(fn, **options).lower(*args).as_text().count(f'@{bilinear_cpu.TARGET}')


@pytest.fixture(scope='module')
def mesh():
    return Mesh(np.array(jax.devices()[:2]), ('data',))


@needs_numba
@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('shape', [(4, 9, 5, 1), (1, 3, 17, 1), (2, 3, 3, 1)], ids=str)
def test_values_and_gradients_equal_the_plain_form(shape, align_corners):
    # 5 and 17 columns and 3 rows: half of their number less 1 is a power of 2, so that whole pixels stay whole.
    images, grid = case(shape, 1200, align_corners=align_corners)
    if not align_corners:
        grid = grid + 1e-3  # none of them whole
    run = functools.partial(value_and_gradients, align_corners=align_corners)
    expected = functools.partial(plainly, align_corners=align_corners)
    assert calls(run, images, grid) == 2 and calls(expected, images, grid) == 0
    assert_close(jax.jit(run)(images, grid), jax.jit(expected)(images, grid), 1e-4)


@needs_numba
def test_whole_pixels_are_exact_with_the_right_hand_slope():
    images = jnp.arange(9.0, dtype=jnp.float32).reshape(1, 3, 3, 1) ** 2
    x, y = jnp.meshgrid(jnp.arange(-1.0, 2), jnp.arange(-1.0, 2))
    grid = jnp.stack([x, y], axis=-1)[None].astype(jnp.float32)
    values, vjp = jax.vjp(jax.jit(sampling.grid_sample), images, grid)
    np.testing.assert_array_equal(values, images)
    padded = np.pad(images[0, :, :, 0], ((0, 1), (0, 1)))
    slopes = np.stack([np.diff(padded, axis=1)[:3], np.diff(padded, axis=0)[:, :3]], axis=-1)
    np.testing.assert_array_equal(vjp(jnp.ones_like(values))[1][0], slopes)


@needs_numba
def test_more_leading_axes_and_outputs_keep_their_shapes():
    images, grid = case((6, 9, 5, 1), 24)
    images, grid = images.reshape(2, 3, 9, 5, 1), grid.reshape(2, 3, 4, 6, 2)
    assert calls(value_and_gradients, images, grid) == 2
    assert_close(value_and_gradients(images, grid), jax.jit(plainly)(images, grid))


@needs_numba
def test_nan_and_infinite_points_have_the_plain_forms_values():
    images, grid = case((4, 9, 5, 1))
    grid = grid.at[0, 3, 0].set(jnp.nan).at[1, 4, 1].set(jnp.nan).at[1, 5].set(jnp.nan)
    grid = grid.at[2, 5, 0].set(jnp.inf).at[2, 6, 1].set(-jnp.inf).at[2, 7].set(1e30)
    ours, plain = jax.jit(value_and_gradients)(images, grid), jax.jit(plainly)(images, grid)
    np.testing.assert_array_equal(np.isnan(ours[0]), np.isnan(plain[0]))
    np.testing.assert_allclose(ours[0], plain[0], atol=2e-5)
    np.testing.assert_array_equal(np.isnan(ours[1]).any((1, 2, 3)), [True, True, False, False])
    rest = ~np.isnan(grid).any(-1)
    np.testing.assert_allclose(ours[2][rest], plain[2][rest], atol=2e-5)


@needs_numba
def test_transformations_equal_the_plain_form(mesh):
    images, grid = case()
    expected = jax.jit(plainly)(images, grid)
    data = PartitionSpec('data')
    local = jax.shard_map(value_and_gradients, mesh=mesh, in_specs=data, out_specs=data)
    assert calls(local, images, grid) == 2
    assert_close(jax.jit(local)(images, grid), expected)
    split = NamedSharding(mesh, data)
    assert calls(value_and_gradients, images, grid, in_shardings=(split, split)) == 0
    each = jax.vmap(value_and_gradients)
    assert calls(each, images, grid) == 0
    assert_close(jax.jit(each)(images, grid), expected)
    program = jax.export.export(jax.jit(value_and_gradients))(images, grid)
    assert bilinear_cpu.TARGET not in program.mlir_module()
    lowered = jax.jit(value_and_gradients).trace(images, grid).lower(lowering_platforms=('tpu',))
    assert bilinear_cpu.TARGET not in lowered.as_text()


@needs_numba
def test_derivatives_of_second_order_equal_the_plain_forms():
    def penalty(fn, images, grid):
        _, by_images, by_grid = fn(images, grid)
        return jnp.sum(by_images**2) + jnp.sum(by_grid**2)

    ours, plain = (
        jax.jit(jax.grad(functools.partial(penalty, fn), (0, 1)))(*case())
        for fn in (value_and_gradients, plainly)
    )
    assert_close(ours, plain, 1e-2)
    assert all(np.abs(np.asarray(gradient)).max() > 1 for gradient in plain)


def test_other_calls_and_missing_numba_are_the_plain_form(monkeypatch, x64):
    def program(images, grid, **options):
        run = functools.partial(sampling.grid_sample, **options)
        return str(jax.make_jaxpr(lambda *args: run(*args))(images, grid))

    for options in ({'padding': 'edge'}, {'kernel': 'nearest'}, {'antialias': 2}):
        assert 'bilinear' not in program(*case(), **options)
    for other in (case((4, 6, 5, 3)), case((4, 1, 5, 1), align_corners=False), case(dtype=float)):
        assert 'bilinear' not in program(*other)
    if machine_code.supported():
        assert 'bilinear' in program(*case())
    monkeypatch.setattr(machine_code, 'supported', lambda: False)
    assert 'bilinear' not in program(*case())


MANY = 64, 30, 40, 1  # images whose points several threads share


def one_by_one(images, grid):
    """Each image alone, which one thread samples."""
    each = [value_and_gradients(images[i : i + 1], grid[i : i + 1]) for i in range(len(images))]
    return tuple(jnp.concatenate(parts) for parts in zip(*each, strict=True))


@needs_numba
def test_threads_share_the_work_with_equal_results():
    images, grid = case(MANY, n_points=784)
    together = jax.jit(value_and_gradients)(images, grid)
    for ours, theirs in zip(together, one_by_one(images, grid), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image, points = images[:1], grid.reshape(1, -1, 2)  # one image, whose blocks are shared
    values = jax.jit(sampling.grid_sample)(image, points)
    each = [sampling.grid_sample(image, part[None]) for part in points[0].reshape(64, -1, 2)]
    np.testing.assert_array_equal(values[0], jnp.concatenate(each, axis=1)[0])


@needs_numba
def test_calls_from_many_threads_at_once():
    images, grid = case(MANY, n_points=784)
    product = jnp.ones((64, 64))

    @jax.jit
    def program(images, grid):  # with other work for the same threads
        y = sampling.grid_sample(jnp.tanh(images), grid)
        return y.sum((1, 2)) + (product @ product)[0, 0], y

    expected = jax.device_get(program(images, grid))

    def calls(_):
        results = [program(images, grid) for _ in range(40)]
        return all(
            np.array_equal(a, b)
            for result in results
            for a, b in zip(jax.device_get(result), expected, strict=True)
        )

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        assert all(executor.map(calls, range(8), timeout=120))


@needs_numba
@pytest.mark.slow
def test_a_process_on_one_core_samples_alone():
    script = (
        'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n'
        'import jax, numpy as np; from tests.ops import test_bilinear_cpu as t\n'
        'images, grid = t.case(t.MANY, n_points=784)\n'
        'pairs = zip(jax.jit(t.value_and_gradients)(images, grid), t.one_by_one(images, grid))\n'
        'assert all(np.array_equal(a, b) for a, b in pairs)'
    )
    subprocess.run([sys.executable, '-c', script], check=True, timeout=300)
