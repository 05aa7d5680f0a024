"""The run directory: its config with the project's version, and which runs it accepts."""

import dataclasses
import json
import logging

import pytest

import lecture4
from lecture4 import train
from lecture4.train import workdir
from lecture4.train.config import UsageError


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    hidden_dims: tuple[int, ...] = (3, 2)
    learning_rate: float = 0.05


def write(directory, config=None, **changes):
    """Acquire the directory for a run; then change fields of its config.json, None removes one."""
    workdir.acquire(directory, config or Config(), False, {}).close()
    path = directory / 'config.json'
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


def test_a_run_holds_its_version(tmp_path):
    write(tmp_path)
    version, fields = workdir.read_config(tmp_path)
    assert version == lecture4.__version__
    assert set(fields) == {
        'seed',
        'steps',
        'batch_size',
        'accumulate',
        'hidden_dims',
        'learning_rate',
    }
    environment = json.loads((tmp_path / 'environment.json').read_text())
    assert environment['versions']['lecture4'] == version
    assert environment['host'] and environment['start_time'] and environment['end_time'] is None


def test_a_run_without_a_version_is_refused_with_the_reason(tmp_path):
    write(tmp_path, version=None)
    for call in (
        lambda: workdir.check_config(tmp_path, Config(), False),
        lambda: workdir.read_config(tmp_path),
    ):
        with pytest.raises(
            UsageError, match=r'written by lecture4 0\.1\.0 or older, .*--overwrite'
        ):
            call()
    workdir.check_config(tmp_path, Config(), overwrite=True)


def test_absent_fields_take_their_defaults_and_are_logged(tmp_path, caplog):
    write(tmp_path, learning_rate=None)
    with caplog.at_level(logging.INFO, 'lecture4'):
        workdir.check_config(tmp_path, Config(), False)
    assert 'has no field learning_rate; using its default 0.05' in caplog.text
    with pytest.raises(UsageError, match=r'holds a run with learning_rate=0\.05, expected 0\.5'):
        workdir.check_config(tmp_path, Config(learning_rate=0.5), False)


def test_unknown_fields_are_refused(tmp_path):
    write(tmp_path, depth=3)
    with pytest.raises(UsageError, match=r'has the field depth, which .*test_workdir of lecture4'):
        workdir.check_config(tmp_path, Config(), False)


def test_lists_and_tuples_are_equal(tmp_path):
    write(tmp_path, Config(hidden_dims=(4,)))
    workdir.check_config(tmp_path, Config(hidden_dims=(4,)), False)
    workdir.check_config(tmp_path, Config(hidden_dims=[4]), False)  # pyright: ignore
    with pytest.raises(UsageError, match=r'hidden_dims=\[4\], expected \[4, 2\]'):
        workdir.check_config(tmp_path, Config(hidden_dims=(4, 2)), False)


def test_a_damaged_config_is_refused(tmp_path):
    for text in (b'{"steps": 3', b'[1]', b'3', b'\xff{}'):
        (tmp_path / 'config.json').write_bytes(text)
        with pytest.raises(UsageError, match=r'config\.json is damaged'):
            workdir.check_config(tmp_path, Config(), False)


def test_only_one_process_writes_to_a_directory(tmp_path):
    with (
        workdir.acquire(tmp_path, Config(), False, {}),
        pytest.raises(UsageError, match='another process is writing to'),
    ):
        workdir.acquire(tmp_path, Config(), False, {})
