"""Programs compiled for absent accelerators: counts of flops, bytes and collectives, and what is refused."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch import compile as launcher
from lecture4.train import compile as compiler
from lecture4.train import program_cost
from lecture4.train.config import UsageError

HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None
needs_libtpu = pytest.mark.skipif(not HAS_LIBTPU, reason='needs the extra lecture4[tpu]')
TOY = ('python', '-m', 'tests.train.toy')


def matmuls(n):
    def run(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=n)[0]

    traced = jax.jit(run).trace(jax.ShapeDtypeStruct((32, 32), jnp.float32))
    return program_cost.products(traced.jaxpr), traced.lower().compile().as_text() or ''


def test_a_loop_counts_as_often_as_it_runs():
    one, text_of_one = matmuls(1)
    ten, text = matmuls(10)
    assert one.flops == one.float32_flops == 2 * 32**3 and ten.flops == 10 * one.flops
    bytes_one, bytes_ten = (program_cost.traffic(t).bytes for t in (text_of_one, text))
    assert 8 * bytes_one < bytes_ten < 12 * bytes_one
    assert program_cost.traffic(text).unknown_loops == 0


def test_flops_of_convolutions_and_branches():
    def run(x, w):
        y = jax.lax.conv_general_dilated(
            x, w, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2
        )
        return jax.lax.cond(y.sum() > 0, lambda: y @ jnp.ones((6, 6)), lambda: y)

    x, w = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 2, 6))
    counted = program_cost.products(jax.jit(run).trace(x, w).jaxpr).flops
    convolution, product = 2 * 16 * 6 * 3 * 3 * 2, 2 * 16 * 6 * 6
    assert counted in (convolution, convolution + product)  # the first branch only


def test_collectives_of_a_sharded_gradient():
    mesh = Mesh(np.array(jax.devices()[:4]), ('data',))
    rows = NamedSharding(mesh, PartitionSpec('data'))
    replicated = NamedSharding(mesh, PartitionSpec())

    def loss(w, x):
        return jnp.square(x @ w).mean()

    w = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=replicated)
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=rows)
    run = jax.jit(jax.grad(loss), out_shardings=replicated)
    counted = program_cost.traffic(run.trace(w, x).lower().compile().as_text() or '')
    assert counted.collectives == (program_cost.Collective('all-reduce', 1, 4 * 16 * 8),)


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [('f32[8,2]{1,0}', 64), ('(bf16[3], s32[])', 10), ('pred[]', 1), ('token[]', 0)],
)
def test_bytes_of_shapes(shape, expected):
    assert program_cost.num_bytes(shape) == expected


@pytest.mark.parametrize(
    ('name', 'match'),
    [
        ('v9:4x4', "unknown chip 'v9'.*expected one of v4, v5e"),
        ('v5e', 'expected 2 numbers, such as v5e:4x4'),
        ('v4:4x4', 'expected 3 numbers, such as v4:4x4x4'),
        ('a100:8', 'use h200:8'),
    ],
)
def test_wrong_topologies_are_refused(name, match):
    with pytest.raises(UsageError, match=match):
        compiler.target(name)


@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed')
def test_a_missing_compiler_is_named():
    with pytest.raises(UsageError, match='pip install "libtpu"'):
        compiler.target('v5e:4x4')


@needs_libtpu
def test_a_step_compiles_for_16_chips(tmp_path):
    argv = ['--topology', 'v5e:4x4', '--programs', 'step', '--workdir', str(tmp_path), '--']
    assert launcher.main([*argv, *TOY]) == 0
    (step,) = json.loads((tmp_path / 'compile.json').read_text())
    assert step['chips'] == 16 and step['host_callbacks'] == 0 and not step['float64']
    (collective,) = step['collectives']
    assert collective['kind'] == 'all-reduce'
    assert step['params'] <= collective['bytes'] <= step['params'] + 64  # and the metrics
    assert (tmp_path / 'report.html').exists()


@needs_libtpu
def test_a_batch_that_chips_do_not_divide_compiles(tmp_path):
    argv = ['--topology', 'v5e:4x4', '--programs', 'step', '--workdir', str(tmp_path), '--']
    assert launcher.main([*argv, *TOY, '--batch_size', '20']) == 0
