"""Finished runs are loaded as they ended; unfinished ones are refused."""

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


def test_the_final_state_of_a_run_is_loaded(tmp_path):
    run(tmp_path / 'a', '--steps', '3', '--target', '8', '--rates', '0.5', '--seed', '7')
    stored, state, stored_data = load_run.load(
        tmp_path / 'a', Config(manual_dir='here'), data, build
    )
    assert (stored.steps, stored.target, stored.rates, stored.seed) == (3, 8.0, (0.5,), 7)
    assert stored.manual_dir == 'here'  # a run option of the reader
    np.testing.assert_allclose(state['x'], 7.0)  # 0, 4, 6, 7
    assert stored_data.device_arrays['x'][0] == 8
    path = tmp_path / 'a/config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'steps': 5}))
    with pytest.raises(UsageError, match='has done 3 of 5 steps; finish it first'):
        load_run.load(tmp_path / 'a', Config(), data, build)


def test_directories_without_a_run_of_this_experiment_are_refused(tmp_path):
    with pytest.raises(UsageError, match='holds no run; expected the directory of one'):
        load_run.config(tmp_path, Config())
    (tmp_path / 'config.json').write_text('{"version": "0.2.0", "steps": 3, "depth": 20}')
    with pytest.raises(UsageError, match='a run of another experiment or of another version'):
        load_run.config(tmp_path, Config())
    (tmp_path / 'config.json').write_text('{"steps": 3}')
    with pytest.raises(UsageError, match=r'written by lecture4 0\.1\.0 or older'):
        load_run.config(tmp_path, Config())


def test_fields_added_since_a_run_have_their_defaults(tmp_path):
    (tmp_path / 'config.json').write_text('{"version": "0.2.0", "steps": 3, "rates": [0.125]}')
    stored = load_run.config(tmp_path, Config(target=9.0, rates=(1.0,)))
    assert (stored.steps, stored.rates, stored.target) == (3, (0.125,), 3.0)
