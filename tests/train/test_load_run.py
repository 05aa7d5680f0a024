"""Finished runs read again: as they ended, and refused where they did not."""

import dataclasses
import json

import numpy as np
import pytest

from lecture4 import train
from lecture4.train import cli, load_run
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    rates: tuple[float, ...] = (0.5, 0.25)
    target: float = 3.0


def data(config):
    return train.in_memory({'x': np.full((8, 1), config.target, np.float32)}, 4, seed=config.seed)


def build(config, spec):
    def step(state, batch, key, reduce):
        del key, reduce
        x = state['x'] + config.rates[0] * (batch['x'].mean() - state['x'])
        return {'x': x}, {'x': x}

    return train.Task(lambda key, batch: {'x': batch['x'].mean() * 0}, step)


def run(path, *argv):
    parts = Experiment(
        Config,
        data,
        build,
        lambda *_: {},
        lambda *_: train.Report({'x': 0.0}),
        (train.Metric('x', primary=True),),
        {},
        {},
    )
    argv = ['--workdir', str(path), '--cache_dir', 'none', '--progress', 'none', *argv]
    cli.run(parts, cli.parse(parts, ['--batch_size', '4', '--devices', '1', *argv]))


def test_the_state_is_that_of_the_other_run_s_end(tmp_path):
    run(tmp_path / 'a', '--steps', '3', '--target', '8', '--rates', '0.5', '--seed', '7')
    held, state, its_data = load_run.load(tmp_path / 'a', Config(manual_dir='here'), data, build)
    assert (held.steps, held.target, held.rates, held.seed) == (3, 8.0, (0.5,), 7)
    assert held.manual_dir == 'here'  # how a run is carried out is the reader's
    np.testing.assert_allclose(state['x'], 7.0)  # 0, 4, 6, 7
    assert its_data.device_arrays['x'][0] == 8
    path = tmp_path / 'a/config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'steps': 5}))
    with pytest.raises(UsageError, match='has done 3 of 5 steps; finish it'):
        load_run.load(tmp_path / 'a', Config(), data, build)


def test_directories_without_such_a_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match='holds no run; name the directory of a finished one'):
        load_run.config(tmp_path, Config())
    (tmp_path / 'config.json').write_text('{"steps": 3, "depth": 20}')
    with pytest.raises(UsageError, match='a run of another experiment, or of another version'):
        load_run.config(tmp_path, Config())
