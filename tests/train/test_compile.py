"""Programs compiled for absent accelerators: counts of flops, bytes and collectives, and what is refused."""

import argparse
import dataclasses
import functools
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch import command
from launch import compile as launcher
from lecture4 import train
from lecture4.ops import machine_code
from lecture4.train import compile as compiler
from lecture4.train import encode as encoding
from lecture4.train import experiment, program_cost, topology
from lecture4.train.chips import CHIPS
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment
from tests.train import toy

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


# A scan as the compiler for TPUs prints it: without a note of how often it runs.
TPU_LOOP = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %one = s32[]{:T(128)} constant(STEP)
  %p = (s32[]{:T(128)}, f32[4]{0:T(256)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[4]{0:T(256)} get-tuple-element(%p), index=1
  %copy.1 = s32[]{:T(128)S(6)} copy(%i), backend_config={"flag_configs":[]}
  %next = s32[]{:T(128)} add(%copy.1, %one), metadata={op_name="while/body/add"}
  %y = f32[4]{0:T(256)} all-reduce(%x), replica_groups={{0,1}}, to_apply=%sum
  ROOT %out = (s32[]{:T(128)}, f32[4]{0:T(256)}) tuple(%next, %y)
}

%condition (p: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(36)
  %q = (s32[]{:T(128)}, f32[4]{0:T(256)}) custom-call()
  %p = (s32[]{:T(128)}, f32[4]{0:T(256)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={op_name="while/cond/lt"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %zero = s32[]{:T(128)} constant(START)
  %x = f32[4]{0:T(256)} parameter(0)
  %start = s32[]{:T(128)} copy(%zero), backend_config={"flag_configs":[]}
  %given = (s32[]{:T(128)}, f32[4]{0:T(256)}) tuple(%start, %x)
  %loop = (s32[]{:T(128)}, f32[4]{0:T(256)}) while(%given), condition=%condition, body=%body
  ROOT %y = f32[4]{0:T(256)} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ('start', 'step', 'changed', 'times'),
    [
        ('0', '1', ('', ''), 36),
        ('1', '5', ('', ''), 7),
        ('36', '1', ('', ''), 0),
        ('0', '1', ('direction=LT', 'direction=NE'), None),
        ('0', '1', ('add(%copy.1', 'multiply(%copy.1'), None),
        ('0', '1', ('copy(%zero)', 'negate(%zero)'), None),
        (
            '0',
            '1',
            ('get-tuple-element(%p), index=0\n  ROOT', 'get-tuple-element(%q), index=0\n  ROOT'),
            None,
        ),
        (
            '0',
            '1',
            (
                'ROOT %out = (s32[]{:T(128)}, f32[4]{0:T(256)}) tuple(%next, %y)',
                'ROOT %out = (s32[], f32[4]) opt-barrier(%p)',
            ),
            None,
        ),
    ],
)
def test_loops_of_tpus_count_as_often_as_they_run(start, step, changed, times):
    text = TPU_LOOP.replace('STEP', step).replace('START', start).replace(*changed)
    counted = program_cost.traffic(text)
    assert counted.unknown_loops == (times is None)
    expected = 1 if times is None else times
    (collective,) = counted.collectives
    assert collective == ('all-reduce', expected, 16 * expected, 16 * expected)


@needs_libtpu
def test_ten_steps_on_a_tpu_are_ten_times_one():
    on = topology.target('v5e:4x4')
    rows = NamedSharding(on.mesh, PartitionSpec('data'))

    def counted(n):
        def run(x):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x.T @ x), None), x, length=n)[0]

        shape = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=rows)
        lowered = jax.jit(run).trace(shape).lower(lowering_platforms=('tpu',))
        return program_cost.traffic(lowered.compile().as_text())

    one, two, eleven = map(counted, (1, 2, 11))
    assert two.unknown_loops == eleven.unknown_loops == 0
    per_step = [c.bytes / n for t, n in ((one, 1), (eleven, 11)) for c in t.collectives]
    assert per_step[0] > 0 and set(per_step) == set(per_step[:1])
    np.testing.assert_allclose(eleven.bytes - two.bytes, 9 * one.bytes, rtol=0.3)


@pytest.mark.parametrize('platform', ['cpu', pytest.param('tpu', marks=needs_libtpu)])
def test_a_step_of_a_scan_moves_its_slices_of_what_is_scanned(platform):
    """Bytes grow with the number of steps, not with its square."""

    mesh = topology.target({'cpu': 'cpu:4', 'tpu': 'v5e:4x4'}[platform]).mesh
    whole = NamedSharding(mesh, PartitionSpec())

    def moved(n):
        shapes = (256, 256), (n, 256, 256)
        args = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=whole) for shape in shapes]
        run = jax.jit(lambda x, ys: jax.lax.scan(lambda x, y: (jnp.tanh(x + y), x @ x), x, ys))
        lowered = run.trace(*args).lower(lowering_platforms=(platform,))
        return program_cost.traffic(lowered.compile().as_text()).bytes

    ten, twenty, thirty = map(moved, (10, 20, 30))
    np.testing.assert_allclose(thirty - twenty, twenty - ten, rtol=0.05)
    assert 4 * 3 * 256**2 <= (twenty - ten) / 10 <= 4 * 12 * 256**2


def test_flops_of_an_encoder_are_those_of_all_devices():
    def encode(state, x):
        return x @ state

    shapes = jax.ShapeDtypeStruct((16, 8), jnp.float32), jax.ShapeDtypeStruct((64, 16), jnp.float32)
    for n in (1, 4):
        mesh = Mesh(np.array(jax.devices()[:n]), ('data',))
        traced = encoding.compile_encoder(encode, mesh).trace(*shapes)
        assert program_cost.products(traced.jaxpr).flops == 2 * 64 * 16 * 8


@pytest.mark.parametrize(
    ('kind', 'groups', 'sent'),
    [
        ('all-reduce', '{{0,1,2,3}}', 2 * 16 * 3 / 4),
        ('all-reduce', '{{0,1},{2,3}}', 2 * 16 / 2),
        ('all-gather', '[2,2]<=[4]', 16 / 2),
        ('reduce-scatter', '[1,4]<=[4]', 16 * 3),
        ('all-to-all', '{}', 16 * 3 / 4),
    ],
)
def test_bytes_sent_by_a_collective(kind, groups, sent):
    text = f"""HloModule jit_f, num_partitions=4

ENTRY %main (x: f32[4]) -> f32[4] {{
  %x = f32[4]{{0}} parameter(0)
  ROOT %y = f32[4]{{0}} {kind}(%x), replica_groups={groups}, to_apply=%sum
}}
"""
    (collective,) = program_cost.traffic(text).collectives
    assert collective == (kind, 1, 16, sent)


@pytest.mark.parametrize(
    ('transfer', 'sent'),
    [
        ('ALL_REDUCE', 2 * 16 * 3 / 4),
        ('ALL_GATHER', 16 * 3),
        ('REDUCE_SCATTER', 16 * 3 / 4),
        ('ONE_TO_ONE', 16),
    ],
)
def test_bytes_sent_between_slices(transfer, sent):
    text = f"""
ENTRY %main (x: f32[4]) -> f32[4] {{
  %x = f32[4]{{0:T(128)}} parameter(0)
  %token = token[] after-all()
  %send = (f32[4]{{0:T(128)}}, u32[], token[]) send(%x, %token), metadata={{_xla_megascale_transfer_type="{transfer}"}}
  ROOT %y = f32[4]{{0:T(128)}} copy(%x)
}}
"""
    (collective,) = program_cost.traffic(text, slices=4).collectives
    assert collective == (program_cost.BETWEEN_SLICES, 1, 16, sent)


@needs_libtpu
def test_slices_are_joined_by_the_network():
    """Gradients of 16.8 MB: as many bytes on the links as in one slice, and each of 8 chips sends its eighth on."""

    def sent(name):
        on = topology.target(name)
        assert on.mesh.size == 8 * on.slices
        rows, whole = (NamedSharding(on.mesh, PartitionSpec(*axes)) for axes in (('data',), ()))
        run = jax.jit(jax.grad(lambda w, x: jnp.square(x @ w).mean()), out_shardings=whole)
        w = jax.ShapeDtypeStruct((2048, 2048), jnp.float32, sharding=whole)
        x = jax.ShapeDtypeStruct((8 * 8 * on.slices, 2048), jnp.float32, sharding=rows)
        text = run.trace(w, x).lower(lowering_platforms=('tpu',)).compile().as_text()
        kinds = {c.kind: c.sent for c in program_cost.traffic(text, on.slices).collectives}
        network = kinds.pop(program_cost.BETWEEN_SLICES, 0.0)
        return sum(kinds.values()), network

    num_bytes = 4 * 2048**2
    np.testing.assert_allclose(sent('v5e:2x4'), (2 * num_bytes * 7 / 8, 0), rtol=0.01)
    np.testing.assert_allclose(sent('2xv5e:2x4'), (2 * num_bytes * 7 / 8, num_bytes / 8), rtol=0.01)


@needs_libtpu
def test_a_step_on_several_slices(tmp_path):
    argv = ['--topology', '2xv5e:4x4', '--programs', 'step', 'encode', '--workdir', str(tmp_path)]
    assert launcher.main([*argv, '--', *TOY, '--batch_size', '32']) == 0
    step = json.loads((tmp_path / 'compile.json').read_text())[0]
    assert step['chips'] == 32 and step['seconds']['network'] > 0


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


@pytest.mark.parametrize(
    ('rows', 'depth', 'columns', 'padded'),
    [
        (16, 3, 5, 128 * 8 * 128),  # the smaller operand passes: 5 columns as 8
        (4096, 147, 64, 256 * 4096 * 64),  # 64 columns pass, rows are held in tiles
        (256, 128, 128, 256 * 128 * 128),
    ],
)
def test_products_fill_tiles_of_the_matrix_unit(rows, depth, columns, padded):
    f32 = jnp.zeros
    product = jax.make_jaxpr(lambda a, b: a @ b)(f32((rows, depth)), f32((depth, columns)))
    counted = program_cost.products(product, 128)
    assert counted.flops == 2 * rows * depth * columns and counted.padded_flops == 2 * padded
    is_padded = padded > rows * depth * columns
    assert counted.most_padding == (f'{rows} x {depth} x {columns}' if is_padded else '')
    assert program_cost.products(product).padded_flops == counted.flops
    batched = jax.make_jaxpr(jax.vmap(lambda a, b: a @ b))(
        f32((7, rows, depth)), f32((7, depth, columns))
    )
    assert program_cost.products(batched, 128).padded_flops == 7 * counted.padded_flops


def test_a_grouped_convolution_is_a_product_per_group():
    x, kernel = jnp.zeros((2, 8, 8, 6)), jnp.zeros((3, 3, 3, 4))

    def run(x, kernel):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), 'SAME', dimension_numbers=numbers, feature_group_count=2
        )

    counted = program_cost.products(jax.make_jaxpr(run)(x, kernel), 128)
    assert counted.flops == 2 * 2 * 64 * 27 * 4
    assert counted.padded_flops == 2 * 2 * 128 * 128 * 8 and counted.most_padding == '128 x 27 x 2'


def test_products_in_machine_code_are_those_of_its_plain_form():
    plain = functools.partial(jax.lax.map, lambda a: a @ a)
    primitive = machine_code.define('squares', plain, (), 'none', lambda context: None)
    squares = jax.make_jaxpr(lambda a: primitive.bind(a)[0])(jnp.zeros((5, 4, 4)))
    assert program_cost.products(squares).flops == 2 * 5 * 4**3


@pytest.mark.parametrize(
    ('text', 'expected'), [('f32[<=8,4]{1,0}', True), ('s32[3,<=5]', True), ('(x[0] <= 4)', False)]
)
def test_arrays_of_dynamic_shapes_are_found(text, expected):
    assert program_cost.has_dynamic_shapes(f'  %a = {text} add(%b, %c)') is expected


def test_warnings_name_padding_replicated_arrays_and_dynamic_shapes():
    on = topology.target('cpu:4')._replace(chip=CHIPS['v5e'])
    whole = NamedSharding(on.mesh, PartitionSpec())
    large = jax.ShapeDtypeStruct((10_000, 10_000), jnp.float32, sharding=whole)
    state = {'fc6': large, 'fc7': jax.ShapeDtypeStruct((10,), jnp.float32, sharding=whole)}
    replicated = compiler.replicated(state, on)
    assert replicated == (('fc6', 400_000_000),)
    divided = NamedSharding(on.mesh, PartitionSpec('data'))
    assert not compiler.replicated({'fc6': large.update(sharding=divided)}, on)
    (program,) = compiler.compile_experiment(
        experiment.from_module(toy), toy.Config(), toy.data(toy.Config()), on, ('step',)
    )
    assert not program.replicated and not program.dynamic_shapes
    program = dataclasses.replace(
        program,
        float32_flops=0.0,
        flops=10.0,
        padded_flops=100.0,
        most_padding='128 x 27 x 2',
        replicated=replicated,
        dynamic_shapes=True,
    )
    padding, copies, dynamic = program.warnings(on)
    assert 'filled to 10% at most' in padding and '128 x 27 x 2' in padding
    assert 'all of 1 large arrays, 0.40 GB; the largest is fc6' in copies
    assert 'dynamic shapes' in dynamic


@pytest.mark.parametrize('per_example', [1, 3, 170, 3000, 99_000])
@pytest.mark.parametrize('constant', [0, 40_000])
def test_the_largest_batch_is_found_to_a_sixteenth(per_example, constant):
    tried = []

    def compiled(n):
        tried.append(n)
        peak = constant + per_example * n + 17 * (n % 3)  # not quite linear
        return None if peak > 150_000 else argparse.Namespace(peak_memory=lambda: peak)

    if constant + per_example > 100_000:
        with pytest.raises(UsageError, match='not even one example'):
            launcher.bisect(compiled, 100_000)
        return
    n, program = launcher.bisect(compiled, 100_000)
    largest = min((100_000 - constant) // per_example, launcher.MAX_PER_CHIP)
    assert program.peak_memory() <= 100_000 and 15 / 16 * largest - 1 - 34 <= n <= largest
    assert len(tried) <= 8


def of_images(build):
    """An experiment on images of zeros."""

    def data(config):
        images = np.zeros((config.batch_size, 16, 16, 3), np.float32)
        return train.Data(lambda n: {'images': images})

    return Experiment(train.Config, data, build, lambda *args: {}, print, (), {}, {})  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass
class Fake:
    """What the search needs of a program."""

    name: str
    peak: float

    def peak_memory(self):
        return self.peak


def test_fit_searches_with_rematerialization_and_accumulation(monkeypatch, capsys):
    def compiled(this, config, data, on, programs):
        assert data.batch(0)['images'].shape[0] == config.batch_size
        stored = config.batch_size / on.mesh.size / config.accumulate / (2 if config.remat else 1)
        return (Fake('step', 1e9 + 4e7 * stored),)

    monkeypatch.setattr(compiler, 'compile_experiment', compiled)
    on = topology.target('cpu:2')._replace(chip=CHIPS['v5e'])
    found = launcher.largest_fits(of_images(None), train.Config(), on)
    names = [re.fullmatch(r'step, batch (\d+)(.*)', program.name).groups() for program in found]
    largest = [2 * 375, 2 * 750, 8 * 375, 8 * 750]
    printed = capsys.readouterr().out
    for (size, options), expected in zip(names, largest, strict=True):
        assert expected * 15 / 16 - 8 <= int(size) <= expected
        assert f'cpu:2: batch {size} fits{options and " with" + options}' in printed
    assert [options for _, options in names] == [
        '', ' --remat', ' --accumulate 4', ' --remat --accumulate 4',
    ]  # fmt: skip


def test_fit_of_a_step_without_optimizer_has_one_row(capsys):
    def build(config, spec):
        def step(state, batch, key, reduce):
            return state + batch['images'].mean(), {'loss': state.mean()}

        return train.from_learner(lambda key, batch: jnp.zeros(()), step)

    on = topology.target('cpu:2')
    on = on._replace(chip=CHIPS['v5e']._replace(memory=5e6))
    assert len(launcher.largest_fits(of_images(build), train.Config(), on)) == 1
    assert 'a training step of its own' in capsys.readouterr().out


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
    size = 4 * 16 * 8
    assert counted.collectives == (program_cost.Collective('all-reduce', 1, size, 1.5 * size),)


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
        ('2xh200:8', 'several slices are of TPUs, such as 2xv5e:4x4'),
        ('2xcpu:4', 'several slices are of TPUs'),
        ('0xv5e:4x4', "unknown chip '0xv5e'"),
        ('²xv5e:4x4', "unknown chip '²xv5e'"),
    ],
)
def test_wrong_topologies_are_refused(name, match):
    with pytest.raises(UsageError, match=match):
        topology.target(name)


@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed')
def test_a_missing_compiler_is_named():
    with pytest.raises(UsageError, match='pip install "libtpu"'):
        topology.target('v5e:4x4')


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


def step_record(topology, chips, links):
    """A step of 1024 examples whose products take 64 ms on one chip."""
    seconds = {'matrix unit': 0.064 / chips, 'memory': 0.001, 'links': links}
    time, bound = max((t, name) for name, t in seconds.items())
    return {
        'name': 'step', 'topology': topology, 'chips': chips, 'seconds': seconds, 'bound': bound,
        'examples_per_second': 1024 / time, 'compile_seconds': 1.0, 'state': 8, 'temporaries': 8,
        'peak_memory': 16, 'memory': 16e9, 'flops': 1e9, 'bytes': 8, 'collectives': [], 'notes': [],
    }  # fmt: skip


def test_scaling_says_where_more_chips_stop_paying(tmp_path, capsys):
    records = [step_record(f'v5e:{n}', n, 0.004) for n in (8, 16, 32)]
    ladder = launcher.scaling(records[::-1])
    assert [r['chips'] for r in ladder] == [8, 16, 32]
    np.testing.assert_allclose([r['efficiency'] for r in ladder], [1, 1, 0.5])
    assert [r['bound by'] for r in ladder] == ['matrix unit', 'matrix unit', 'links']
    launcher.write(tmp_path, 'toy', records)
    assert 'at 32 chips the step is bound by: links' in capsys.readouterr().out
    assert (tmp_path / 'figures' / 'scaling.png').exists()


def test_topologies_or_sizes_are_named():
    parse = argparse.Namespace
    assert launcher.topologies(parse(topology=[], sizes='v6e'))[-3:] == [
        'v6e:16x16', '2xv6e:16x16', '4xv6e:16x16',
    ]  # fmt: skip
    assert launcher.topologies(parse(topology=['h200:8'], sizes=None)) == ['h200:8']
    for names, sizes in (([], None), (['v5e:4x4'], 'v5e')):
        with pytest.raises(
            command.LaunchError, match='either --topology CHIP:SHAPE or --sizes CHIP'
        ):
            launcher.topologies(parse(topology=names, sizes=sizes))


def test_a_program_that_does_not_fit_is_one_line(monkeypatch, tmp_path):
    """The compiler for TPUs refuses programs that exceed the memory of a chip."""
    words = ['--', 'python', '-m', 'experiments.autoencoders.linear', '--preset', 'smoke']

    def refuse(self):
        raise jax.errors.JaxRuntimeError(
            'RESOURCE_EXHAUSTED: Ran out of memory: 134G of 16G.\nmore'
        )

    monkeypatch.setattr(jax.stages.Lowered, 'compile', refuse)
    options = ['--topology', 'cpu:4', '--workdir', str(tmp_path), '--programs', 'step']
    with pytest.raises(
        command.LaunchError, match=r'step does not fit on cpu:4: .*16G\. Use a smaller'
    ):
        launcher.main([*options, *words])
