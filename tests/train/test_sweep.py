"""A sweep in one program gives the numbers of its variants run alone."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment
from lecture4.train.metric_writer import read
from lecture4.train.sweep import runner, variants
from tests.train import toy

pytestmark = pytest.mark.usefixtures('no_figures')
EXPERIMENT = Experiment(
    toy.Config, toy.data, toy.build, toy.apply, toy.report, toy.METRICS, toy.PRESETS, toy.SWEEPS
)


def run(directory, *argv, experiment=EXPERIMENT):
    options = ['--workdir', str(directory), '--preset', 'smoke', '--progress', 'none', *argv]
    cli.run(experiment, cli.parse(experiment, options))
    with (directory / 'sweep.csv').open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def looped(tmp_path_factory):
    directory = tmp_path_factory.mktemp('loop')
    return directory, run(directory, '--sweep', 'weight', '--vectorize', 'loop', '--noise', '0.2')


STACKED = ('--sweep', 'weight', '--vectorize', 'vmap', '--noise', '0.2')


@pytest.fixture(scope='module')
def stacked(tmp_path_factory):
    directory = tmp_path_factory.mktemp('vmap')
    return directory, run(directory, *STACKED)


def test_vmap_equals_the_loop(stacked, looped):
    directory, expected = looped
    vmap_directory, result = stacked
    assert len(result) == 4
    # the seeds have their own data, batches, initial values and noise: the rows differ
    assert len({row['loss'] for row in result}) == 4
    for ours, theirs in zip(result, expected, strict=True):
        assert ours['weight'] == theirs['weight'] and ours['seed'] == theirs['seed']
        for name in ('loss', 'error', 'eval/error', 'final_error'):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6)
    for variant in toy.SWEEPS['weight']:
        place = 'variants/' + variants.name(variant)
        ours, theirs = (
            read(vmap_directory / place / 'metrics.jsonl'),
            read(directory / place / 'metrics.jsonl'),
        )
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(
            [row['error'] for row in ours if 'error' in row],
            [row['error'] for row in theirs if 'error' in row],
            rtol=1e-6,
        )
        assert (vmap_directory / place / 'report.html').exists()


def test_variants_may_name_different_fields(tmp_path):
    """One that leaves a field out has the command line's value of it, run together or apart."""
    result = {}
    for how in ('loop', 'vmap'):
        argv = ('--sweep', 'uneven', '--vectorize', how, '--weight', '0.02')
        result[how] = run(tmp_path / how, *argv)
    for rows in result.values():
        named = [(row['weight'], row['learning_rate'], row['hidden']) for row in rows]
        assert named == [('0.1', '0.05', '3'), ('0.02', '0.2', '3'), ('0.02', '0.2', '2')]
        assert len({row['final_error'] for row in rows}) == 3
    for ours, theirs in zip(result['vmap'], result['loop'], strict=True):
        assert float(ours['final_error']) == pytest.approx(float(theirs['final_error']), rel=1e-6)
    assert (tmp_path / 'loop/report.html').exists()


@pytest.mark.slow
def test_vmap_over_devices(tmp_path):
    for parallel in ('jit', 'pmap'):
        argv = ('--sweep', 'weight', '--vectorize', 'vmap', '--devices', '4')
        result = run(tmp_path / parallel, *argv, '--parallel', parallel)
        reference = run(tmp_path / f'{parallel}-loop', *argv[:2], '--vectorize', 'loop')
        for ours, theirs in zip(result, reference, strict=True):
            assert float(ours['final_error']) == pytest.approx(
                float(theirs['final_error']), rel=1e-5
            )


def test_fields_that_change_shapes_get_programs_of_their_own(tmp_path):
    result = run(tmp_path, '--sweep', 'hidden', '--vectorize', 'vmap')
    assert [row['hidden'] for row in result] == ['2', '2', '3', '3']
    assert sorted(path.name for path in (tmp_path / 'groups').iterdir()) == ['hidden=2', 'hidden=3']


def test_shapes_that_differ_are_not_one_program(tmp_path):
    argv = ('--grid', 'hidden=2,3', '--vectorize', 'vmap')
    with pytest.raises(UsageError, match=r'hidden changes shapes or code, .* use --vectorize loop'):
        run(tmp_path, *argv)
    assert not (tmp_path / 'variants').exists()


def test_one_variant_or_group_alone_and_the_plan(tmp_path, capsys):
    """What a launcher asks for: the plan, each part by its name, then the table."""
    grid = ('--grid', 'hidden=2,3', 'weight=0,0.1')
    options = ['--workdir', str(tmp_path), '--preset', 'smoke', '--progress', 'none', *grid]
    cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*options, '--stage', 'plan']))
    plan = json.loads(capsys.readouterr().out)
    assert [(group['group'], group['vmap'], group['traceable']) for group in plan] == [
        ('hidden=2', True, True),
        ('hidden=3', True, True),
    ]
    assert plan[0]['left'] == ['hidden=2,weight=0.0', 'hidden=2,weight=0.1']
    for name in ('hidden=2', 'hidden=3,weight=0.1'):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*options, '--group', name]))
    with pytest.raises(runner.SweepFailed, match=r'1 of 4 variants .* not finished'):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*options, '--stage', 'table']))
    with pytest.raises(UsageError, match='--group hidden=9: the groups are hidden=2 hidden=3'):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*options, '--group', 'hidden=9']))
    with pytest.raises(UsageError, match='--stage plan needs a sweep'):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*options[:6], '--stage', 'plan']))


def test_auto_takes_one_program_for_a_tiny_model(tmp_path):
    run(tmp_path, '--grid', 'weight=0,0.1')
    assert (tmp_path / 'groups').exists()


def test_finished_variants_are_not_run_again(looped, monkeypatch):
    directory, before = looped
    monkeypatch.setattr('lecture4.train.loop.run', None)
    argv = ('--sweep', 'weight', '--vectorize', 'loop', '--noise', '0.2')
    assert run(directory, *argv) == before


def test_data_that_depends_on_a_swept_field_cannot_be_one_program(tmp_path):
    with pytest.raises(UsageError, match=r'the data depends on delay; use --vectorize loop'):
        run(tmp_path, '--sweep', 'data', '--vectorize', 'vmap')
    # auto falls back to the loop
    assert len(run(tmp_path / 'auto', '--sweep', 'data')) == 2


def test_a_python_if_on_a_swept_field_is_named(tmp_path):
    def build(config, spec):
        if config.weight > 0.05:
            config = dataclasses.replace(config, weight=0.05)
        return toy.build(config, spec)

    experiment = EXPERIMENT._replace(build=build)
    with pytest.raises(UsageError, match=r'seed, weight cannot all be traced .* --vectorize loop'):
        run(tmp_path, '--sweep', 'weight', '--vectorize', 'vmap', experiment=experiment)


def test_a_diverging_variant_does_not_stop_the_others(tmp_path):
    sweeps = {'rate': ({'learning_rate': 0.05}, {'learning_rate': 1e30})}
    experiment = EXPERIMENT._replace(sweeps=sweeps)
    result = run(tmp_path, '--sweep', 'rate', '--vectorize', 'vmap', experiment=experiment)
    assert np.isfinite(float(result[0]['final_error']))
    assert result[1]['loss'] == ''  # null in the rows, empty in the table


def test_unknown_fields_are_an_error_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match='widht'):
        run(tmp_path / 'run', '--sweep', 'unknown')
    assert not (tmp_path / 'run').exists()


def test_fields_read():
    _, read_fields = variants.fields_read(toy.data, toy.Config())
    assert read_fields == {'seed', 'examples', 'batch_size', 'delay', 'bad_at'}
    config = dataclasses.replace(toy.Config(), hidden=9)
    assert variants.fields_read(lambda c: c.hidden, config) == (9, {'hidden'})


def test_a_stacked_group_resumes(stacked):
    directory, result = stacked
    group = directory / 'groups' / 'all'
    last = json.loads((group / 'metrics.jsonl').read_text().splitlines()[-1])
    for path in (directory / 'variants').rglob('results.json'):
        path.unlink()
    assert len(run(directory, *STACKED)) == len(result) == 4
    assert json.loads((group / 'metrics.jsonl').read_text().splitlines()[-1]) == last


def test_variants_around_a_center_differ_in_one_field():
    chosen = variants.vary_one({'a': 1, 'b': 2}, a=(0, 3), b=(5,))
    assert chosen == ({'a': 1, 'b': 2}, {'a': 0, 'b': 2}, {'a': 3, 'b': 2}, {'a': 1, 'b': 5})
