"""Nothing is lost: killed, interrupted, moved to other devices, a run ends as an unbroken one."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lecture4.train import loop
from lecture4.train.checkpoint import CheckpointError, Checkpoints
from lecture4.train.distributed.runtime import INTERRUPTED, Interrupted, Runtime
from lecture4.train.metric_writer import read
from lecture4.train.step import bind
from tests.train import toy

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, '-m', 'tests.train.toy', '--noise', '0.1', '--progress', 'none']


def runtime(n):
    return Runtime(Mesh(np.array(jax.devices()[:n]), ('data',)))


def train(directory, n_devices=1, data=None, **fields):
    config = toy.Config(progress='none', **fields)
    data = data or toy.data(config)
    program = bind(toy.build(config, data.spec), data, config.seed)
    return loop.run(program, config, runtime(n_devices), directory)


def rows(directory):
    """metrics.jsonl without the clock."""
    result = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    for row in result:
        del row['seconds']
    return result


def launch(directory, *more, before='true'):
    return subprocess.Popen(
        ['sh', '-c', f'{before}; exec "$@"', 'sh', *COMMAND, '--workdir', str(directory), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(directory, step):
    for _ in range(600):
        result = read(directory / 'metrics.jsonl')
        if result and result[-1]['step'] >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f'step {step} did not come')


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp('unbroken')
    train(directory, noise=0.1)
    return rows(directory), Checkpoints(directory / 'checkpoints').latest_step()


def test_kill_and_resume_gives_the_same_bits(tmp_path, unbroken):
    process = launch(tmp_path, '--delay', '0.1')
    wait_for_step(tmp_path, 14)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'delay': 0.0}))
    process = launch(tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert 'restored step 10' in errors
    assert rows(tmp_path) == unbroken[0]


def test_sigterm_saves_and_exits_75(tmp_path, unbroken, caplog):
    process = launch(tmp_path, '--delay', '0.1')
    wait_for_step(tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert 'SIGTERM: saved step' in errors and 'Traceback' not in errors
    saved = rows(tmp_path)[-1]['step']
    assert 3 <= saved < 10
    with caplog.at_level('INFO', 'lecture4'):
        train(tmp_path, noise=0.1)
    assert f'restored step {saved}' in caplog.text
    assert rows(tmp_path) == unbroken[0]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """A file size limit stands in for the full disk: the writes fail in the same calls."""
    wide = ('--hidden', '20000', '--examples', '16')
    first = launch(tmp_path, *wide, '--steps', '200', '--delay', '0.1')
    wait_for_step(tmp_path, 12)
    first.send_signal(signal.SIGTERM)
    first.communicate()
    good = Checkpoints(tmp_path / 'checkpoints').latest_step()
    second = launch(tmp_path, *wide, '--steps', '200', '--delay', '0.1', before='ulimit -f 100')
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2, errors
    assert 'Traceback' not in errors
    assert f'last good checkpoint: step {good}' in errors.splitlines()[-1]
    assert Checkpoints(tmp_path / 'checkpoints').latest_step() == good


@pytest.mark.cases(1)
@pytest.mark.parametrize('first, then', [(4, 1), (1, 4)])
def test_restored_on_another_number_of_devices(tmp_path, first, then):
    # broken off by a signal after step 13
    with pytest.raises(Interrupted, match='saved step 13'):
        train(tmp_path, first, data=interrupted_at(12))
    state = train(tmp_path, then)
    whole = train(tmp_path / 'whole', then)
    np.testing.assert_allclose(state.params, whole.params, atol=1e-5)
    for ours, theirs in zip(rows(tmp_path), rows(tmp_path / 'whole'), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def interrupted_at(step):
    """The toy's data; while batch `step` is made, a SIGTERM comes."""
    result = toy.data(toy.Config())

    def batch(n):
        if n == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return result.batch(n)

    return dataclasses.replace(result, batch=batch)


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tmp_path, data=interrupted_at(2))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_is_not_run_again(tmp_path):
    train(tmp_path)
    before = rows(tmp_path)
    result = toy.data(toy.Config())
    asked = []
    train(
        tmp_path,
        data=dataclasses.replace(result, batch=lambda n: asked.append(n) or result.batch(n)),
    )
    assert set(asked) <= {0}  # for its shapes
    assert rows(tmp_path) == before


def test_nan_names_step_metric_and_checkpoint(tmp_path):
    with pytest.raises(loop.Diverged, match=r'error is nan at step 18; last good .*: step 10'):
        train(tmp_path, bad_at=17, steps_per_call=5, log_every=5)
    assert read(tmp_path / 'metrics.jsonl')[-1]['step'] <= 17


def test_a_damaged_newest_checkpoint_falls_back(tmp_path):
    train(tmp_path)
    newest = tmp_path / 'checkpoints' / '30'
    for path in newest.rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = []
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    config = toy.Config()
    like = jax.eval_shape(
        lambda: toy.build(config, toy.data(config).spec).init(
            jax.random.key(0), np.zeros((16, 8), np.float32)
        )
    )
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    step, _ = checkpoints.restore(like, log=told.append)
    assert step == 20 and '30 cannot be read' in told[0]
    checkpoints.close()
    whole = train(tmp_path / 'whole')
    np.testing.assert_array_equal(train(tmp_path).params, whole.params)
    # The steps run again are saved again: the damaged checkpoint is gone.
    checkpoints, messages = Checkpoints(tmp_path / 'checkpoints'), []
    step, state = checkpoints.restore(like, log=messages.append)
    assert step == 30 and not messages
    np.testing.assert_array_equal(state.params, whole.params)
    checkpoints.close()


def test_all_checkpoints_damaged_is_an_error(tmp_path):
    train(tmp_path)
    for path in (tmp_path / 'checkpoints').rglob('*'):
        if path.is_file():
            path.write_bytes(b'')
    with pytest.raises(CheckpointError, match='--overwrite'):
        train(tmp_path)


def test_a_run_stops_at_its_last_step_within_a_call(tmp_path):
    """7 steps, 5 a call: the second call has 2."""
    state = train(tmp_path / 'ragged', steps=7, steps_per_call=5)
    assert int(state.step) == 7 and rows(tmp_path / 'ragged')[-1]['step'] == 7
    assert Checkpoints(tmp_path / 'ragged' / 'checkpoints').latest_step() == 7
    whole = train(tmp_path / 'whole', steps=7)
    np.testing.assert_allclose(state.params, whole.params, atol=1e-6)


def test_time_goes_on_from_the_restored_step(tmp_path):
    """Not from rows that were written after it and are lost."""
    with pytest.raises(Interrupted, match='saved step 13'):
        train(tmp_path, data=interrupted_at(12))
    path = tmp_path / 'metrics.jsonl'
    last = [json.loads(line) for line in path.read_text().splitlines()][-1]
    lost = [{**last, 'seconds': 1000.0}, {**last, 'step': 14, 'seconds': 1e6}]
    with path.open('a') as file:
        file.writelines(json.dumps(row) + '\n' for row in lost)
    train(tmp_path)
    seconds = [row['seconds'] for row in read(path) if row['step'] > 13]
    assert min(seconds) >= 1000 and max(seconds) < 2000
