"""Runs that are also sent to Weights & Biases, with a stand-in for its package."""

import sys
import types

import pytest

from lecture4.train import cli, experiment
from lecture4.train.config import UsageError
from lecture4.train.metric_writer import read
from tests.train import toy

EXPERIMENT = experiment.from_module(toy)


class Error(Exception):
    pass


class Wandb(types.SimpleNamespace):
    """The functions of wandb that are called; runs keeps what each id was sent."""

    Error = Error

    def __init__(self):
        super().__init__(runs={}, calls=[], refusal='')

    def Settings(self, **values):
        return values

    def init(self, **values):
        if self.refusal:
            raise Error(self.refusal)
        self.calls.append(values)
        kept = self.runs.setdefault(values['id'], ([], {}))
        return types.SimpleNamespace(
            log=lambda scalars, step: kept[0].append((step, scalars)),
            summary=kept[1],
            finish=lambda: None,
        )


@pytest.fixture
def wandb(monkeypatch):
    fake = Wandb()
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    return fake


def run(directory, *argv):
    options = ['--workdir', str(directory), '--preset', 'smoke', '--progress', 'none', *argv]
    cli.run(EXPERIMENT, cli.parse(EXPERIMENT, options))


def sent(directory):
    """The scalars of metrics.jsonl, as they should have been sent."""
    rows = read(directory / 'metrics.jsonl')
    return [
        (row['step'], {k: v for k, v in row.items() if k not in ('step', 'seconds')})
        for row in rows
    ]


def test_a_run_sends_metrics_options_and_results(wandb, tmp_path):
    run(tmp_path, '--log', 'wandb', '--hidden', '2')
    (logged, summary) = wandb.runs[(tmp_path / 'wandb/id').read_text()]
    assert logged == sent(tmp_path) and len(logged) > 4
    assert summary['result/final_error'] > 0
    first, last = wandb.calls
    assert first['config']['hidden'] == 2 and first['resume'] == 'allow'
    assert (first['id'], first['group']) == (last['id'], 'toy')
    run(tmp_path, '--log', 'wandb', '--hidden', '2', '--steps', '5')
    assert len(wandb.runs) == 1
    run(tmp_path, '--log', 'wandb', '--hidden', '3', '--overwrite')
    assert len(wandb.runs) == 2


def test_variants_of_one_program_are_runs_of_their_own(wandb, tmp_path):
    run(tmp_path, '--log', 'wandb', '--grid', 'weight=0,0.1', '--vectorize', 'vmap')
    assert len(wandb.runs) == 2
    for place in (tmp_path / 'variants').iterdir():
        logged, summary = wandb.runs[(place / 'wandb/id').read_text()]
        assert logged == sent(place) and summary


def test_nothing_is_sent_by_default(wandb, tmp_path):
    run(tmp_path)
    assert not wandb.calls and not (tmp_path / 'wandb').exists()


def test_a_missing_package_or_login_is_one_line(wandb, tmp_path, monkeypatch):
    wandb.refusal = 'no login\nat all'
    with pytest.raises(
        UsageError, match='--log wandb: no login at all; run wandb login, set WANDB'
    ):
        run(tmp_path, '--log', 'wandb')
    for missing in (None, types.ModuleType('wandb')):
        monkeypatch.setitem(sys.modules, 'wandb', missing)
        with pytest.raises(UsageError, match='wandb is not installed; pip install'):
            cli.parse(EXPERIMENT, ['--log', 'wandb'])
