"""Convolutions by oneDNN equal the plain JAX forms, and give way to them where they do not apply."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.ops import conv_cpu, onednn

NUMBERS = conv_cpu.NUMBERS
RNG = np.random.default_rng(0)
needs_onednn = pytest.mark.skipif(
    not onednn.installed(), reason='needs pip install "lecture4[onednn]"'
)
# image [n, h, w, c], kernel [h, w, o], strides, padding
CASES = {
    'square': ((2, 8, 8, 8), (3, 3, 16), (1, 1), ((1, 1), (1, 1))),
    'odd sizes, stride 2': ((3, 9, 7, 5), (3, 2, 7), (2, 2), ((1, 1), (1, 0))),
    'stride 3, asymmetric padding': ((1, 11, 10, 3), (4, 3, 6), (3, 1), ((2, 0), (0, 2))),
    'first layer': ((2, 21, 21, 3), (7, 7, 16), (2, 2), ((3, 3), (3, 3))),
    'product': ((2, 5, 6, 24), (1, 1, 9), (1, 1), ((0, 0), (0, 0))),
    'product, stride 2': ((2, 5, 6, 24), (1, 1, 9), (2, 2), ((0, 0), (0, 0))),
    'as large as the padded image': ((2, 4, 4, 3), (6, 5, 4), (1, 1), ((1, 1), (1, 0))),
    'one image, one channel': ((1, 6, 6, 1), (3, 3, 1), (1, 1), ((1, 1), (1, 1))),
    'padding of the kernel size': ((2, 4, 4, 3), (2, 2, 4), (1, 1), ((2, 2), (0, 0))),
    'stride beyond the kernel': ((2, 9, 9, 4), (2, 2, 4), (3, 3), ((0, 0), (0, 0))),
}
NUM_CALLS = {'product': 1, 'product, stride 2': 1, 'padding of the kernel size': 0}
WIDE = ((4, 6, 6, 8), (3, 3, 8), (1, 1), ((1, 1), (1, 1)))


@pytest.fixture(autouse=True)
def any_number_of_channels(monkeypatch):
    monkeypatch.setattr(onednn, 'MIN_CHANNELS', 0)


def arrays(case, dtype=np.float32):
    shape, (*window, features), _, _ = case
    kernel = RNG.standard_normal((*window, shape[-1], features))
    return jnp.asarray(RNG.standard_normal(shape), dtype), jnp.asarray(kernel, dtype)


def value_and_gradients(fn, case):
    """(x, kernel) -> (y, dx, dk) of a convolution."""
    _, _, strides, padding = case
    forward = functools.partial(
        fn, window_strides=strides, padding=padding, dimension_numbers=NUMBERS
    )

    def all_three(x, kernel):
        y, back = jax.vjp(forward, x, kernel)
        return y, *back(jnp.sin(y))

    return all_three


ours = functools.partial(value_and_gradients, conv_cpu.conv_general_dilated)
theirs = functools.partial(value_and_gradients, lax.conv_general_dilated)


def assert_close(results, expected, tolerance=1e-5):
    for mine, other in zip(results, expected, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


def calls(program):
    return program.count(onednn.TARGET)


def lowered(fn, *args, **options):
    return jax.jit(fn, **options).lower(*args).as_text()


@pytest.fixture(scope='module')
def mesh():
    return Mesh(np.array(jax.devices()[:2]), ('data',))


@needs_onednn
@pytest.mark.parametrize('name', CASES)
def test_value_and_gradients_equal_laxs(name):
    case = CASES[name]
    x, kernel = arrays(case)
    fn = jax.jit(ours(case))
    count = calls(fn.lower(x, kernel).as_text())
    assert count == NUM_CALLS.get(name, 3)  # forward and two gradients
    assert_close(fn(x, kernel), jax.jit(theirs(case))(x, kernel))


@needs_onednn
def test_called_without_jit_gives_the_same_numbers():
    x, kernel = arrays(WIDE)
    assert_close(ours(WIDE)(x, kernel), jax.jit(theirs(WIDE))(x, kernel))


@needs_onednn
def test_inside_scan_it_is_computed_by_onednn():
    x, kernel = arrays(WIDE)

    def energy(conv):
        def fn(x):
            return 0.01 * jnp.sum(conv(x, kernel, WIDE[2], WIDE[3], dimension_numbers=NUMBERS) ** 2)

        return jax.grad(fn)

    def fn(x):
        step = energy(conv_cpu.conv_general_dilated)
        return lax.scan(lambda x, _: (step(x), None), x, None, length=2)[0]

    expected = energy(lax.conv_general_dilated)(energy(lax.conv_general_dilated)(x))
    assert calls(lowered(fn, x)) > 0
    assert_close([jax.jit(fn)(x)], [expected])


@needs_onednn
@pytest.mark.parametrize('axes', [(0, 0), (0, None), (None, 0)])
def test_vmap_is_the_plain_form(axes):
    x, kernel = arrays(WIDE)
    x = x if axes[0] is None else jnp.stack([x, 2 * x])
    kernel = kernel if axes[1] is None else jnp.stack([kernel, -kernel])
    fn = jax.vmap(ours(WIDE), axes)
    assert calls(lowered(fn, x, kernel)) == 0
    assert_close(jax.jit(fn)(x, kernel), jax.jit(jax.vmap(theirs(WIDE), axes))(x, kernel))


@needs_onednn
def test_jit_over_two_devices_keeps_the_batch_split(mesh):
    x, kernel = arrays(WIDE)
    split = NamedSharding(mesh, PartitionSpec('data'))
    whole = NamedSharding(mesh, PartitionSpec())
    fn = jax.jit(ours(WIDE), in_shardings=(split, whole), out_shardings=(split, split, whole))
    text = fn.lower(x, kernel).compile().as_text()
    assert calls(text) == 0 and 'all-gather' not in text
    assert_close(fn(x, kernel), jax.jit(theirs(WIDE))(x, kernel))


@needs_onednn
@pytest.mark.parametrize('check_vma', [True, False])
def test_shard_map_is_computed_by_onednn_on_each_device(mesh, check_vma):
    x, kernel = arrays(WIDE)
    data = PartitionSpec('data')

    def local(x, kernel):
        y, dx, dk = ours(WIDE)(x, kernel)
        # checked, the gradient by a kernel that is the same on all devices is summed already
        return y, dx, dk if check_vma else lax.psum(dk, 'data')

    specs = {'in_specs': (data, PartitionSpec()), 'out_specs': (data, data, PartitionSpec())}
    fn = jax.shard_map(local, mesh=mesh, check_vma=check_vma, **specs)
    assert calls(lowered(fn, x, kernel)) > 0
    assert_close(jax.jit(fn)(x, kernel), jax.jit(theirs(WIDE))(x, kernel))


@needs_onednn
def test_pmap_gives_the_numbers_of_each_device():
    x, kernel = arrays(WIDE)
    expected = jax.jit(theirs(WIDE))(x, kernel)
    results = jax.pmap(ours(WIDE), devices=jax.devices()[:2])(
        jnp.stack([x, x]), jnp.stack([kernel, kernel])
    )
    for i in range(2):
        assert_close([result[i] for result in results], expected)


@needs_onednn
def test_derivatives_of_second_order_equal_laxs():
    x, kernel = arrays(WIDE)

    def penalty(fn):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(fn(WIDE)(x, kernel)[1] ** 2), 1))

    assert_close([penalty(ours)(x, kernel)], [penalty(theirs)(x, kernel)])


@needs_onednn
def test_nan_reaches_every_window_that_contains_it():
    x, kernel = arrays(WIDE)
    x = x.at[1, 2, 3, 4].set(jnp.nan)
    results, expected = jax.jit(ours(WIDE))(x, kernel), jax.jit(theirs(WIDE))(x, kernel)
    for mine, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(other))


@needs_onednn
def test_other_programs_are_the_plain_form(x64):
    for case, dtype in (
        (((0, 6, 6, 8), *WIDE[1:]), np.float32),
        (WIDE, np.float64),
        (WIDE, jnp.bfloat16),
    ):
        x, kernel = arrays(case, dtype)
        assert calls(lowered(ours(case), x, kernel)) == 0
        jax.block_until_ready(jax.jit(ours(case))(x, kernel))
    x, kernel = arrays(WIDE)
    forward = functools.partial(conv_cpu.conv_general_dilated, dimension_numbers=NUMBERS)
    assert calls(lowered(lambda x, k: forward(x, k, (1, 1), ((-1, 1), (0, 0))), x, kernel)) == 0
    for platform in ('tpu', 'cuda'):
        program = jax.jit(ours(WIDE)).trace(x, kernel).lower(lowering_platforms=(platform,))
        assert calls(program.as_text()) == 0


@needs_onednn
def test_exported_programs_are_the_plain_form():
    x, kernel = arrays(WIDE)
    program = jax.export.export(jax.jit(ours(WIDE)))(x, kernel)
    assert calls(program.mlir_module()) == 0


@needs_onednn
def test_a_call_that_onednn_refuses_raises():
    window = np.array([0, 1, 1, 0, 0, 0, 0], np.int64)
    assert onednn._load() is not None
    call = jax.ffi.ffi_call(onednn.TARGET, jax.ShapeDtypeStruct((1, 9, 9, 4), jnp.float32))
    x, kernel = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
    with pytest.raises(Exception, match='oneDNN could not compute'):
        jax.block_until_ready(jax.jit(lambda x, k: call(x, k, window=window))(x, kernel))


PROGRAM = """
import sys, jax, numpy as np, jax.numpy as jnp
jax.config.update('jax_compilation_cache_dir', sys.argv[1])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
from jax._src import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith('cache_hits')))
from tests.ops import test_onednn
x, kernel = (jnp.asarray(a) for a in np.load(sys.argv[2]).values())
results = jax.jit(test_onednn.ours(test_onednn.WIDE))(x, kernel)
np.savez(sys.argv[3], *results)
print(sum(hits))
"""


@needs_onednn
def test_a_program_from_the_compilation_cache_of_another_process(tmp_path):
    x, kernel = arrays(WIDE)
    np.savez(tmp_path / 'inputs.npz', x, kernel)
    root = pathlib.Path(__file__).parents[2]
    hits = []
    for name in ('first', 'second'):
        command = [sys.executable, '-c', PROGRAM, str(tmp_path / 'cache')]
        command += [str(tmp_path / 'inputs.npz'), str(tmp_path / f'{name}.npz')]
        environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run(
            command, cwd=root, env=environment, check=True, capture_output=True, text=True
        )
        hits.append(int(done.stdout.split()[-1]))
    first, second = (np.load(tmp_path / f'{name}.npz') for name in ('first', 'second'))
    assert hits[0] == 0 and hits[1] > 0
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert_close([*second.values()], jax.jit(theirs(WIDE))(x, kernel))


def test_without_the_packages_the_program_is_the_plain_form(monkeypatch):
    x, kernel = arrays(WIDE)
    monkeypatch.setattr(onednn, 'installed', lambda: False)
    without = str(jax.make_jaxpr(ours(WIDE))(x, kernel))
    for name in ('_convolve', '_input_gradient', '_kernel_gradient'):
        monkeypatch.setattr(conv_cpu, name, getattr(conv_cpu, name).__wrapped__)
    assert 'onednn' not in without
    assert without == str(jax.make_jaxpr(ours(WIDE))(x, kernel))
