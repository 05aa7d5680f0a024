"""Compiled steps in files: a run that loads one has the numbers of one that compiles; others are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from launch import compile as launcher
from lecture4.train import executable, topology
from lecture4.train.config import UsageError
from lecture4.train.sharding import device_mesh
from lecture4.train.step import bind, compile_task
from lecture4.train.task import Spec
from tests.train import toy

CONFIG = toy.Config(steps_per_call=2)
TOY = ('python', '-m', 'tests.train.toy', '--steps_per_call', '2')


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """A step that launch.compile saved for four devices of this CPU, two steps a call."""
    directory = tmp_path_factory.mktemp('compiled')
    path = directory / 'step.bin'
    options = ['--topology', 'cpu:4', '--save', str(path), '--workdir', str(directory), '--']
    for _ in range(2):  # the second time, the compilation cache has the program
        assert launcher.main([*options, *TOY]) == 0
    return path


def run(config=CONFIG, load_compiled='', n_devices=4):
    bound = bind(toy.build(config, Spec((8,))), toy.data(config), config.seed)
    mesh = device_mesh(jax.devices()[:n_devices])
    compiled = compile_task(bound, mesh, 'jit', str(load_compiled))
    state = compiled.init()
    for n in (0, 2):
        state, _ = compiled.run_steps(state, n, 2)
    state, metrics = compiled.run_steps(state, 4, 1)  # another number of steps is compiled
    return np.asarray(state.params), np.asarray(metrics['loss'])


def test_a_loaded_step_gives_the_numbers_of_a_compiled_one(path):
    for loaded, compiled in zip(run(load_compiled=path), run(), strict=True):
        np.testing.assert_array_equal(loaded, compiled)


def test_a_program_of_other_options_is_refused(path):
    other = dataclasses.replace(CONFIG, weight=0.02)
    with pytest.raises(UsageError, match='has another program: other options, data shapes or code'):
        run(other, path)


def test_other_devices_are_refused(path):
    with pytest.raises(UsageError, match=r'compiled with mesh .*4.*, and this run has .*2'):
        run(load_compiled=path, n_devices=2)


@pytest.mark.parametrize(
    ('entry', 'value'),
    [('jax', '0.4.1'), ('platform', 'tpu'), ('device', 'aarch64 0'), ('compiler', 'libtpu 0.0.1')],
)
def test_other_versions_and_platforms_are_refused(path, tmp_path, entry, value):
    """Before anything is unpickled: what follows the line is no pickle here."""
    line, _, _ = path.read_bytes().partition(b'\n')
    altered = tmp_path / 'altered.bin'
    altered.write_bytes(json.dumps({**json.loads(line), entry: value}).encode() + b'\nno pickle')
    with pytest.raises(UsageError, match=f'was compiled with {entry} {value}, and this run has'):
        executable.check(altered, device_mesh(jax.devices()[:4]))


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (None, 'does not exist; write it with launch.compile --save'),
        (b'', 'is not a file of launch.compile --save'),
        (b'{"format": 9, "steps": 1}\nx', 'is not a file of launch.compile --save'),
        (b'\x80\x04\n.', 'is not a file of launch.compile --save'),
    ],
)
def test_other_files_are_refused(tmp_path, content, match):
    path = tmp_path / 'step.bin'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=match):
        executable.check(path, device_mesh(jax.devices()[:4]))


def test_a_damaged_program_is_refused(path, tmp_path):
    damaged = tmp_path / 'damaged.bin'
    damaged.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UsageError, match='cannot be loaded'):
        run(load_compiled=damaged)


def test_more_devices_than_the_process_has_are_refused():
    with pytest.raises(UsageError, match='cpu:8: the CPU of this process has 4 devices already'):
        topology.target('cpu:8')
