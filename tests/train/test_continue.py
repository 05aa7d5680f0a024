"""Finished runs go on to more steps, and are evaluated again; other changes are refused."""

import json
import logging

import jax
import numpy as np
import pytest

from lecture4 import train
from lecture4.train import cli, experiment, workdir
from lecture4.train.config import UsageError
from lecture4.train.metric_writer import read
from tests.train import toy

pytestmark = pytest.mark.usefixtures('no_figures')
THIS = experiment.from_module(toy)


def run(directory, *options):
    argv = ['--progress', 'none', '--devices', '1', '--cache_dir', 'none', *options]
    return cli.run(THIS, cli.parse(THIS, [*argv, '--workdir', str(directory)]))


@pytest.fixture(scope='module')
def continued(tmp_path_factory):
    """A run of 4 steps that went on to 8, the messages, and its error after 4."""
    directory = tmp_path_factory.mktemp('run')
    run(directory, '--steps', '4')
    before = results(directory)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    cli.LOG.addHandler(handler)
    cli.LOG.setLevel(logging.INFO)
    try:
        run(directory, '--steps', '8')
    finally:
        cli.LOG.removeHandler(handler)
    return directory, messages, before


def results(directory):
    return json.loads((directory / 'results.json').read_text())['metrics']['final_error']


def test_more_steps_continue_a_finished_run(continued, tmp_path):
    directory, messages, before = continued
    (message,) = (m for m in messages if 'goes on' in m)
    assert 'of 4 steps goes on to 8' in message and 'now end at step 8' in message
    run(tmp_path, '--steps', '8')
    jax.tree.map(
        np.testing.assert_array_equal,
        train.load(directory, toy).state,
        train.load(tmp_path, toy).state,
    )
    assert results(directory) == results(tmp_path) != before
    steps = [row['step'] for row in read(directory / 'metrics.jsonl') if 'loss' in row]
    assert steps == list(range(1, 9))


def test_fewer_steps_and_other_fields_are_refused(continued):
    directory, _, _ = continued
    with pytest.raises(UsageError, match='holds a run with steps=8, expected 4'):
        run(directory, '--steps', '4')
    with pytest.raises(UsageError, match='holds a run with hidden=3, expected 2;'):
        run(directory, '--steps', '9', '--hidden', '2', '--scale', '3')
    with pytest.raises(UsageError, match='run the command without --stage first'):
        run(directory, '--steps', '9', '--stage', 'encode')


@pytest.mark.parametrize('steps', [None, '4', -1, True])
def test_a_damaged_number_of_steps_is_refused(steps, continued, tmp_path):
    fields = json.loads((continued[0] / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(fields | {'steps': steps}))
    config = cli.parse(THIS, ['--steps', '9', '--workdir', str(tmp_path)])
    with pytest.raises(UsageError, match=f'holds a run with steps={steps}, expected 9'):
        workdir.check_config(tmp_path, config, overwrite=False)


def test_options_of_evaluations_do_not_train_again(continued, monkeypatch):
    directory, _, _ = continued
    before = results(directory), train.load(directory, toy).params

    def batch(n):
        raise AssertionError(f'batch {n} of another training')

    monkeypatch.setattr(toy, 'misbehave', lambda n: batch(n) if n else None)
    run(directory, '--steps', '8', '--scale', '3')
    np.testing.assert_allclose(results(directory), 3 * before[0], rtol=1e-6)
    np.testing.assert_array_equal(train.load(directory, toy).params, before[1])
    assert json.loads((directory / 'config.json').read_text())['scale'] == 3


def test_a_variant_is_finished_only_at_all_of_its_steps(tmp_path):
    options = ('--grid', 'learning_rate=0.01', '--vectorize', 'loop')
    run(tmp_path, *options, '--steps', '2')
    run(tmp_path, *options, '--steps', '4')
    for variant in (tmp_path / 'variants').iterdir():
        assert read(variant / 'metrics.jsonl')[-1]['step'] == 4
