"""Checkpoints: the newest few and the best one are kept, across restarts and damage."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import local
from lecture4.train.checkpoint import CheckpointError, Checkpoints


def state(value):
    return {'w': jnp.full((3,), value, jnp.float32), 'step': jnp.int32(value)}


def abstract_state():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0)
    )


@pytest.fixture
def opened(tmp_path):
    """A function that opens the directory, once more at each call."""
    managers = []

    def open_again(keep=2):
        managers.append(Checkpoints(tmp_path / 'checkpoints', keep))
        return managers[-1]

    yield open_again
    for manager in managers:
        manager.close()


def restored_value(restored):
    return None if restored is None else (restored[0], float(restored[1]['w'][0]))


def test_the_newest_are_kept_and_restored(opened):
    checkpoints = opened()
    for step in (1, 2, 3):
        checkpoints.save(step, state(step))
    checkpoints.wait()
    assert sorted(path.name for path in checkpoints.directory.glob('[0-9]*')) == ['2', '3']
    assert restored_value(opened().restore(abstract_state())) == (3, 3.0)


@pytest.mark.parametrize(
    ('better', 'values', 'best_step'),
    [
        ('higher', [0.5, 0.9, 0.7, 0.9], 2),
        ('lower', [0.5, 0.9, 0.4, 0.4], 3),
        ('higher', [-3.0, -1.0, -2.0], 2),
        ('lower', [np.nan, np.inf, 2.0, np.nan], 3),
    ],
)
def test_the_best_is_kept_apart_from_the_newest(opened, better, values, best_step):
    checkpoints = opened(keep=1)
    for step, value in enumerate(values, 1):
        checkpoints.save(step, state(step))
        checkpoints.save_best(step, state(step), value, better)
    checkpoints.wait()
    assert checkpoints.latest_step() == len(values)
    assert checkpoints.best() == (best_step, values[best_step - 1])
    assert restored_value(checkpoints.restore_best(abstract_state())) == (best_step, best_step)
    assert len(list((checkpoints.directory / 'best').glob('[0-9]*'))) == 1


def test_the_best_value_survives_a_restart(opened):
    first = opened()
    assert first.best() is None and first.restore_best(abstract_state()) is None
    assert first.save_best(4, state(4), 0.8, 'higher')
    first.wait()
    first.close()
    second = opened()
    assert second.restore(abstract_state()) is None  # the best is not one of the newest
    assert second.best() == (4, 0.8)
    assert not second.save_best(6, state(6), 0.8, 'higher')
    assert second.save_best(2, state(2), 0.81, 'higher')  # a run restarted from an earlier step
    second.wait()
    assert opened().best() == (2, 0.81)


def test_an_unknown_direction_is_refused(opened):
    with pytest.raises(ValueError, match="better='up'; expected 'higher' or 'lower'"):
        opened().save_best(1, state(1), 1.0, 'up')


def test_a_damaged_best_checkpoint_is_reported(opened):
    first = opened()
    first.save_best(4, state(4), 0.8, 'higher')
    first.wait()
    first.close()
    for path in (first.directory / 'best' / '4').rglob('*'):
        if path.is_file() and 'default' in path.parts:
            path.write_bytes(b'')
    messages = []
    with pytest.raises(CheckpointError, match=r'no checkpoint in .*best can be read'):
        opened().restore_best(abstract_state(), messages.append)
    assert 'best/4 cannot be read' in messages[0]


TWO_PROCESSES = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from lecture4.train.checkpoint import Checkpoints
port, index, directory = sys.argv[1:]
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(index), cluster_detection_method='deactivate')
mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
sharding = NamedSharding(mesh, PartitionSpec())
checkpoints = Checkpoints(directory)
for step in range(1, 9):
    value = np.full(3, step, np.float32)
    state = {'w': jax.make_array_from_callback((3,), sharding, lambda i: value[i])}
    checkpoints.save_best(step, state, float(step), 'higher')
    checkpoints.save(step, state)
checkpoints.wait()
print(checkpoints.latest_step(), checkpoints.best())
checkpoints.close()
"""


def test_two_processes_save_the_best_and_the_newest_of_one_step(tmp_path):
    """Barriers of the two managers with the same names would block both processes."""
    argv = [sys.executable, '-c', TWO_PROCESSES, str(local.free_port())]
    environ = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    started = [
        subprocess.Popen(
            [*argv, str(index), str(tmp_path / 'checkpoints')],
            cwd=pathlib.Path(__file__).parents[2],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in started:
            output, errors = process.communicate(timeout=90)
            assert process.returncode == 0, errors
            assert output.splitlines()[-1] == '8 (8, 8.0)'  # below the lines of Gloo
    finally:
        for process in started:
            process.kill()
            process.communicate()
