"""The kernel of coordinate descent for GPUs: the same updates as in JAX, in the programs that ask for it only."""

import functools
import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, NONNEGATIVE
from lecture4.sparse.solvers.greedy_updates import GROUP_SIZE, descend, descend_on_gpu
from tests.sparse.solving import problem

TRITON = 'gpu.triton'  # in the name of the custom call
BUDGET = (1000, 5, 0, 1000, 1, 1000)


def signals(k=24, per_atom=False) -> Any:
    """(y, c, step_tolerance, budget, rows, weight) of signals that take few and many updates."""
    x, D = (jnp.asarray(v) for v in problem(n=len(BUDGET), k=k, dtype=np.float32))
    rng = np.random.default_rng(1)
    weight = jnp.asarray(rng.uniform(0.5, 2, (len(BUDGET), k)), jnp.float32) if per_atom else 1
    tolerance = jnp.full(len(BUDGET), 1e-3, jnp.float32)
    return (
        jnp.zeros((len(BUDGET), k)),
        x @ D / 0.05,
        tolerance,
        jnp.asarray(BUDGET),
        D.T @ D,
        weight,
    )


def run(function, y, c, tolerance, budget, rows, weight, penalty=L1, **options):
    return function(y, c, tolerance, budget, weight, rows, penalty, **options)


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    'penalty, per_atom, k',
    [
        (L1, False, 8),
        (L1, False, 24),
        (NONNEGATIVE, True, 40),
        (NONNEGATIVE, False, 40),
        (L1, True, 24),
        (L1, False, 64),
        (L1, True, 640),
    ],
)
def test_the_kernel_makes_the_same_updates(penalty, per_atom, k):
    y, *others = signals(k, per_atom)
    others[0] = others[0].at[3, 1].set(jnp.nan)
    expected = run(descend, y, *others, penalty=penalty)
    got = run(descend_on_gpu, y, *others, penalty=penalty, interpret=True)
    for name, one, two in zip(('y', 'c'), got, expected, strict=False):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(got[2], expected[2])
    np.testing.assert_array_equal(got[3], expected[3] & (np.asarray(BUDGET) > 0))
    assert got[2][0] > 5 and not got[0][2].any() and list(got[2][1:5]) == [5, 0, 0, 1]


@pytest.mark.parametrize('per_atom', (False, True))
def test_an_update_is_not_divided_over_cores(per_atom, k=256):
    """XLA's threads cost more than an update of a group of signals."""
    row = jax.ShapeDtypeStruct((GROUP_SIZE, k), jnp.float32)
    one = jax.ShapeDtypeStruct((GROUP_SIZE,), jnp.float32)
    rows = jax.ShapeDtypeStruct((k, k), jnp.float32)

    def partitions(function, *args):
        text = jax.jit(function).lower(*args).compile().as_text()
        return re.findall(r'= (.*?\[.*?\]).*"outer_dimension_partitions":\["', text)

    def update(y, c, tolerance, budget, rows, weight):
        return descend(y, c, tolerance, budget, weight if per_atom else 1, rows, L1)

    if not partitions(jnp.cos, jax.ShapeDtypeStruct((1024, k), jnp.float32)):
        pytest.skip('XLA divides nothing: a single core')
    budget = jax.ShapeDtypeStruct((GROUP_SIZE,), jnp.int32)
    assert not partitions(update, row, row, one, budget, rows, row)


def test_derivatives_and_vmap_of_the_kernel_are_those_of_the_updates():
    y, c, tolerance, budget, rows, weight = signals()

    def codes(function, c, **options):
        return run(function, y, c, tolerance, budget, rows, weight, **options)[0]

    kernel = functools.partial(codes, descend_on_gpu, interpret=True)
    tangent = jnp.ones_like(c)
    _, got = jax.jvp(kernel, (c,), (tangent,))
    _, expected = jax.jvp(functools.partial(codes, descend), (c,), (tangent,))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got).max() > 0.1
    batch = jnp.stack([c, 0.5 * c])
    apart = jnp.stack([codes(descend, one) for one in batch])
    np.testing.assert_allclose(jax.vmap(kernel)(batch), apart, rtol=1e-5, atol=1e-5)


@pytest.mark.cases(1)
@pytest.mark.parametrize('options', [{'tile': 5}, {'penalty': NONNEGATIVE}, {'stop': 'step'}])
def test_codes_by_the_kernel_are_certified(options):
    x, D = problem(dtype=np.float32)
    x[1] = np.nan
    weight = np.linspace(0.03, 0.1, 24, dtype=np.float32)
    got, expected = (
        solvers.coordinate_descent(x, D, weight, kernel=kernel, **options)
        for kernel in ('interpret', 'none')
    )
    np.testing.assert_array_equal(got.converged, np.arange(12) != 1)
    np.testing.assert_array_equal(got.iterations, expected.iterations)
    np.testing.assert_allclose(got.codes, expected.codes, rtol=1e-3, atol=1e-5)


def lowered(run, x, platform):
    # Since JAX 0.12 Pallas lowers for a GPU by its name, that of the mesh where none is attached.
    device = jax.sharding.AbstractDevice('NVIDIA H200', 132, 'gpu')
    mesh = jax.sharding.AbstractMesh((1,), ('i',), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(run).trace(x).lower(lowering_platforms=(platform,)).as_text()


def test_programs_for_nvidia_gpus_have_the_kernel():
    """A GPU's by encode; no other platform's, and no other solver's program."""
    x, D = (jnp.asarray(v) for v in problem(n=40, dtype=np.float32))

    def codes(x, **options):
        return solvers.encode(x, D, 0.05, finish=False, **options).codes

    greedy = functools.partial(codes, method='coordinate_descent')
    on_gpu = functools.partial(greedy, platform='gpu')
    assert {p for p in ('cuda', 'tpu') if TRITON in lowered(on_gpu, x, p)} == {'cuda'}
    assert TRITON not in lowered(functools.partial(on_gpu, kernel='none'), x, 'cuda')
    jaxpr = str(jax.make_jaxpr(functools.partial(greedy, platform='cpu'))(x))
    assert 'pallas_call' not in jaxpr
    with pytest.raises(ValueError, match="kernel='triton'; expected 'none', 'gpu'"):
        greedy(x, kernel='triton')


def test_the_kernel_is_traced_inside_shard_map():
    n = jax.device_count()
    mesh = jax.make_mesh((n,), ('i',), axis_types=(AxisType.Auto,))
    x, D = (jnp.asarray(v) for v in problem(n=20 * n, dtype=np.float32))
    split = PartitionSpec('i')

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=split, out_specs=split)
    def codes(x):
        return solvers.coordinate_descent(x, D, 0.05, kernel='gpu').codes

    assert jax.eval_shape(codes, x).shape == (20 * n, 24)


@pytest.mark.aot
@pytest.mark.cases(1)
@pytest.mark.parametrize('k', [200, 256, 512, 1024, 4096, 8192])
def test_the_kernel_compiles_for_an_h200(k):
    """Codes and correlations are read and written once: no loop is left around the kernel."""
    if importlib.util.find_spec('jax_cuda12_plugin') is None:
        pytest.skip('needs the compiler for NVIDIA GPUs: pip install "lecture4[cuda]"')
    from lecture4.train import topology

    mesh = topology.target('h200:1').mesh
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec())
    shapes = [(64, k), (64, k), (64,), (64,), (k, k)]
    dtypes = [np.float32, np.float32, np.float32, np.int32, np.float32]
    args = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    kernel = jax.jit(functools.partial(run, descend_on_gpu, weight=1))
    text = str(kernel.trace(*args).lower(lowering_platforms=('cuda',)).compile().as_text())
    assert not re.search(r' while\(', text) and len(re.findall(TRITON, text)) == 1
