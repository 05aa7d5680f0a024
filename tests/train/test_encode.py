"""A data set is encoded block by block on all devices; an interrupted encoding resumes."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from lecture4.train import cli, encode
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import UsageError
from lecture4.train.distributed import runtime
from lecture4.train.experiment import Experiment
from tests.train import toy

pytestmark = pytest.mark.usefixtures('no_figures')
EXPERIMENT = Experiment(
    toy.Config, toy.data, toy.build, toy.apply, toy.report, toy.METRICS, toy.PRESETS, toy.SWEEPS
)


def run(directory, *argv, experiment=EXPERIMENT):
    options = ['--workdir', str(directory), '--preset', 'smoke', '--progress', 'none', *argv]
    return cli.run(experiment, cli.parse(experiment, [*options, '--examples', '70']))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp('trained')
    run(directory)
    return directory


def state(directory):
    config = toy.Config(steps=4, examples=70)
    task = toy.build(config, toy.data(config).spec)
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), np.zeros((16, 8), 'f')))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract_state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    checkpoints = Checkpoints(directory / 'checkpoints')
    restored = checkpoints.restore(abstract_state)
    checkpoints.close()
    assert restored is not None
    return restored[1]


def test_all_rows_on_any_number_of_devices(trained, monkeypatch, capsys):
    monkeypatch.setattr(encode, 'BLOCK', 18)
    x = toy.data(toy.Config(examples=70)).device_arrays
    expected = x @ np.asarray(state(trained).params)
    for devices in ('4', '2', '1'):
        for path in (trained / 'codes').glob('*'):
            path.unlink()
        run(trained, '--stage', 'encode', '--devices', devices)
        assert len(list((trained / 'codes').glob('*.npz'))) == 4
        np.testing.assert_allclose(encode.read(trained / 'codes')['codes'], expected, rtol=1e-5)
    rows = [len(block['codes']) for block in encode.read_blocks(trained / 'codes')]
    assert rows == [18, 18, 18, 16]
    assert f'codes: {trained / "codes"}' in capsys.readouterr().out


def test_existing_blocks_are_kept(trained, monkeypatch):
    monkeypatch.setattr(encode, 'BLOCK', 16)
    run(trained, '--stage', 'encode')
    complete = encode.read(trained / 'codes')['codes']
    (trained / 'codes' / encode._file(16, 32)).unlink()
    (trained / 'codes' / 'index.json').unlink()
    with pytest.raises(UsageError, match='--stage encode again'):
        encode.read(trained / 'codes')
    calls = []
    original = encode.encode_rows
    monkeypatch.setattr(encode, 'encode_rows', lambda *args: calls.append(1) or original(*args))
    run(trained, '--stage', 'encode')
    assert len(calls) == 1
    np.testing.assert_array_equal(encode.read(trained / 'codes')['codes'], complete)
    assert json.loads((trained / 'codes' / 'index.json').read_text()) == {'rows': 70, 'block': 16}


def test_runs_that_cannot_be_encoded_are_refused(tmp_path, trained):
    with pytest.raises(
        UsageError, match='contains no run; run the same command without --stage first'
    ):
        run(tmp_path / 'none', '--stage', 'encode')
    with pytest.raises(UsageError, match=r'done 4 of 6 steps; run the same command without'):
        config = json.loads((trained / 'config.json').read_text())
        (trained / 'config.json').write_text(json.dumps({**config, 'steps': 6}))
        try:
            run(trained, '--stage', 'encode', '--steps', '6')
        finally:
            (trained / 'config.json').write_text(json.dumps(config))
    bare = EXPERIMENT._replace(apply=lambda config, spec: {})
    with pytest.raises(UsageError, match='has no encoder'):
        run(trained, '--stage', 'encode', experiment=bare)


def test_rows_on_the_host_take_precedence(trained, monkeypatch):
    def data(config):
        return dataclasses.replace(toy.data(config), rows=np.ones((3, 8), np.float32))

    for path in (trained / 'codes').glob('*'):
        path.unlink()
    run(trained, '--stage', 'encode', experiment=EXPERIMENT._replace(data=data))
    assert encode.read(trained / 'codes')['codes'].shape == (3, 3)


def test_a_cpu_is_divided_into_its_cores_to_encode_only(monkeypatch):
    updates = []
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(6), raising=False)
    monkeypatch.setattr(jax.config, 'update', lambda *args: updates.append(args))
    for options in ({}, {'stage': 'encode'}, {'stage': 'encode', 'devices': 2}):
        config = toy.Config(cache_dir='none', batch_size=16, **options)
        runtime.start(config)
    # 4, not 6: the devices have to divide the batch size of 16.
    assert [n for name, n in updates if name == 'jax_num_cpu_devices'] == [4, 2]
