"""vmap = loop = processes, for SGD, Adam, dictionary learning, dropout and batch norm."""

import csv
import dataclasses
import logging

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lecture4.train import cli
from lecture4.train.experiment import Experiment
from lecture4.train.step import bind, compile_task
from lecture4.train.sweep import variants as sweep
from tests.launch.running import run, table
from tests.train import kinds

pytestmark = pytest.mark.usefixtures('no_figures')
EXPERIMENT = Experiment(
    kinds.Config, kinds.data, kinds.build, kinds.apply, kinds.report, kinds.METRICS, {}, {}
)
GRID = ('--grid', 'rate=0.05,0.1', 'seed=0,1')
# Sums in another order; Adam divides by the root of a gradient's square, small ones included.
TOLERANCE = {'sgd': 1e-6, 'adam': 1e-5, 'dictionary': 1e-5, 'dropout': 1e-5, 'batch_norm': 1e-5}


def table_of(directory, *argv):
    options = ['--workdir', str(directory), '--progress', 'none', *argv]
    cli.run(EXPERIMENT, cli.parse(EXPERIMENT, options))
    with (directory / 'sweep.csv').open() as file:
        return list(csv.DictReader(file))


def task_of(config):
    return kinds.build(config, kinds.data(config).spec)


class Compilations(logging.Handler):
    """How often the program of the steps was compiled, read from JAX's own log."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record):
        self.count += record.getMessage().startswith('Compiling jit(run_steps)')


@pytest.fixture
def compilations():
    handler = Compilations()
    logger = logging.getLogger('jax')
    logger.addHandler(handler)
    with jax.log_compiles():
        yield handler
    logger.removeHandler(handler)


def same(ours, theirs, tolerance):
    assert len(ours) == len(theirs) > 1
    for mine, other in zip(ours, theirs, strict=True):
        for name in ('rate', 'seed'):
            assert mine[name] == other[name]
        for name in ('loss', 'eval/error', 'size', 'sum'):
            assert float(mine[name]) == pytest.approx(float(other[name]), rel=tolerance), name
    assert len({row['loss'] for row in ours}) == len(ours)  # the variants are not all one


def states(kind, variants, together, n_devices=1):
    """What each variant ends with after 10 steps in one call."""
    mesh = Mesh(np.array(jax.devices()[:n_devices]), ('data',))
    config = kinds.Config(kind=kind)
    if together:
        bound = sweep.stack(config, variants, kinds.data, kinds.build)
        compiled = compile_task(bound, mesh)
        final, _ = compiled.run_steps(compiled.init(), 0, 10)
        return [sweep.take(final, i) for i in range(len(variants))]
    result = []
    for variant in variants:
        own = dataclasses.replace(config, **variant)
        compiled = compile_task(bind(task_of(own), kinds.data(own), own.seed), mesh)
        result.append(compiled.run_steps(compiled.init(), 0, 10)[0])
    return result


@pytest.mark.cases(1)
@pytest.mark.parametrize('kind', kinds.KINDS)
def test_one_program_ends_in_the_states_of_separate_runs(kind, compilations):
    variants = [{'rate': 0.05, 'seed': 3}, {'rate': 0.1, 'seed': 4}]
    together = states(kind, variants, True)
    assert compilations.count == 1
    apart = states(kind, variants, False)
    assert compilations.count == 1 + 2
    for ours, theirs in zip(together, apart, strict=True):
        for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(mine, other, rtol=TOLERANCE[kind], atol=TOLERANCE[kind])


@pytest.mark.parametrize('kind', ['dictionary', 'batch_norm'])
def test_statistics_are_those_of_the_whole_batch_on_any_number_of_devices(kind):
    ((one,), (four,)) = (states(kind, [{'rate': 0.05, 'seed': 3}], False, n) for n in (1, 4))
    for mine, other in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


def test_one_compilation_however_many_variants(compilations):
    rates = [{'rate': 0.01 * (i + 1), 'seed': 0} for i in range(7)]
    result = states('sgd', rates, True)
    assert compilations.count == 1
    assert len({float(jax.tree.leaves(state.params)[0].sum()) for state in result}) == 7


@pytest.mark.slow
@pytest.mark.parametrize('kind', kinds.KINDS)
def test_processes_give_the_same(tmp_path, kind):
    """launch.sweep runs each variant as a process; launch.local one program in two processes."""
    module = ['python', '-m', 'tests.train.kinds', '--kind', kind, *GRID, '--progress', 'none']
    together = table_of(tmp_path / 'vmap', *GRID, '--kind', kind, '--vectorize', 'vmap')
    jobs = ['--jobs', '2', '--', *module, '--vectorize', 'loop', '--workdir', tmp_path / 'jobs']
    code, _, errors = run('launch.sweep', *jobs)
    assert code == 0 and '4 jobs to run' in errors, errors
    same(together, table(tmp_path / 'jobs'), TOLERANCE[kind])
    two = ['--processes', '2', '--', *module, '--vectorize', 'vmap', '--workdir', tmp_path / 'two']
    code, _, errors = run('launch.local', *two)
    assert code == 0, errors
    same(together, table(tmp_path / 'two'), 10 * TOLERANCE[kind])
