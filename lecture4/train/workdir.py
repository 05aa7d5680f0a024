"""The run directory: its lock, its config, and the environment of the run."""

import contextlib
import dataclasses
import datetime
import fcntl
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import lecture4
from lecture4.train import fields as domains
from lecture4.train.config import Config, RunOptions, UsageError, config_fingerprint
from lecture4.train.distributed import processes
from lecture4.train.distributed.runtime import Runtime

LOG = logging.getLogger(__name__)

VISIBILITY_TIMEOUT = (
    10.0  # seconds within which a file appears on the other hosts of a shared file system
)

# Everything that a run writes; --overwrite removes nothing else.
ENTRIES = (
    'config.json',
    'data.json',
    'environment.json',
    'metrics.jsonl',
    'metrics.tmp',
    'results.json',
    'model.safetensors',
    'report.html',
    'sweep.csv',
    'summary.csv',
    'failed.txt',
    'tables',
    'checkpoints',
    'figures',
    'events',
    'wandb',
    'variants',
    'groups',
    'codes',
    'codes.npz',
    'predictions.csv',
    'detections.json',
    'torchvision.safetensors',
    'profile',
)
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy', 'scikit-learn')


def read_config(directory: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Read config.json of a run.

    Args:
      directory: A run directory.

    Returns:
      (version, fields): the version of lecture4 that wrote the run, and the fields of its config.

    Raises:
      UsageError: There is no run, its config.json is damaged, or it was written by 0.1.0 or older.
    """
    path = pathlib.Path(directory) / 'config.json'
    try:
        fields = json.loads(path.read_text())
        version = fields.pop('version', None)
    except OSError:
        raise UsageError(f'{directory} contains no run; expected a run directory') from None
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f'{path} is damaged; choose another run or another --workdir') from None
    if version is None:
        raise UsageError(
            f'the run in {directory} was written by lecture4 0.1.0 or older, whose options and '
            f'results have other names than in {lecture4.__version__}; repeat it in another '
            '--workdir, or replace it with --overwrite'
        )
    return version, fields


def add_defaults(
    config_type: type, fields: Mapping[str, Any], directory: str | os.PathLike
) -> dict[str, Any]:
    """Complete a stored config by the defaults of fields added since it was written.

    Each default that is used is logged.

    Args:
      config_type: The experiment's dataclass.
      fields: Fields as `read_config` returns them.
      directory: The run directory, for messages.

    Returns:
      A value for every field of the config's fingerprint, lists as tuples.

    Raises:
      UsageError: A stored field is unknown to the dataclass.
    """
    run_fields = {field.name for field in dataclasses.fields(RunOptions)}
    known = [field for field in dataclasses.fields(config_type) if field.name not in run_fields]
    if unknown := sorted(set(fields) - {field.name for field in known}):
        raise UsageError(
            f'the run in {directory} has the field {unknown[0]}, which {config_type.__module__} of '
            f'lecture4 {lecture4.__version__} does not have: it is a run of another experiment or '
            'of another version'
        )
    values = {}
    for field in known:
        value = fields.get(field.name, field.default)
        if field.name not in fields:
            LOG.info('%s has no field %s; using its default %s', directory, field.name, value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return values


def check_config(directory: pathlib.Path, config: Config, overwrite: bool) -> tuple[str, ...]:
    """Check that a directory contains no run with another config. Write nothing.

    Two changes are allowed: more steps, and values of fields that only evaluations depend on
    (`fields.Evaluation`).

    Fields that the stored config lacks, because they were added later, count as their defaults; lists
    and tuples are equal.

    Args:
      directory: The run directory, which need not exist.
      config: The config of the run that is about to start.
      overwrite: Whether a run in the directory will be replaced; then nothing is checked.

    Returns:
      The allowed changes of the run that the directory holds, each as a sentence.

    Raises:
      UsageError: The directory holds a run with another config, of another experiment, or one written
        by lecture4 0.1.0 or older.
    """
    if overwrite or not (directory / 'config.json').exists():
        return ()
    _, fields = read_config(directory)
    stored = _as_json(add_defaults(type(config), fields, directory))
    expected = _as_json(config_fingerprint(config))
    different = [name for name in expected if stored[name] != expected[name]]
    changes, refused = [], []
    for name in different:
        if name == 'steps' and _is_below(stored[name], expected[name]):
            changes.append(
                f'the run in {directory} of {stored[name]} steps goes on to {expected[name]}: schedules and phases '
                f'that depend on the number of steps now end at step {expected[name]}'
            )
        elif domains.is_evaluation(domains.hints(type(config))[name]):
            changes.append(
                f'the run in {directory} is evaluated again, with {name}={expected[name]} in place of '
                f'{stored[name]}'
            )
        else:
            refused.append(name)
    if refused:
        name = refused[0]
        more = f' (and {len(refused) - 1} more fields)' if refused[1:] else ''
        raise UsageError(
            f'{directory} holds a run with {name}={stored[name]}, expected {expected[name]}{more}; '
            'choose another --workdir, or replace that run with --overwrite'
        )
    return tuple(changes)


def _is_below(steps: Any, more: int) -> bool:
    """Whether the value in a file, which may be damaged, is a number of steps below another."""
    return type(steps) is int and 0 < steps < more


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


@contextlib.contextmanager
def run_lock(
    directory: pathlib.Path, config: Config, overwrite: bool, runtime: Runtime
) -> Iterator[None]:
    """Within the context, the directory is locked for this run.

    A collective: process 0 acquires the lock, and all processes verify that they see it.

    Args:
      directory: The run directory, created if needed.
      config: The run's config, written to config.json.
      overwrite: Whether to replace a run in the directory.
      runtime: Devices and processes of the run.

    Raises:
      UsageError: As in `acquire`, on every process; or a process does not see the directory.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> str:
            file = stack.enter_context(acquire(directory, config, overwrite, runtime.describe()))
            token = secrets.token_hex(8)
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
            return token

        token = processes.broadcast_from_primary(lock)
        if runtime.n_processes > 1:
            processes.run_on_all(lambda: _wait_for(directory, '.lock', token, runtime))
        yield
        if runtime.is_primary:
            _note_end(directory)


def _note_end(directory: pathlib.Path) -> None:
    """Write the time at which a run was completed into environment.json."""
    path = directory / 'environment.json'
    with contextlib.suppress(OSError, ValueError):  # the run is complete nevertheless
        write_json(path, {**json.loads(path.read_text()), 'end_time': _now()})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _wait_for(directory: pathlib.Path, name: str, token: str, runtime: Runtime) -> None:
    deadline = time.monotonic() + VISIBILITY_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if (directory / name).read_text() == token:
                return
        time.sleep(0.1)
    raise UsageError(
        f'process {runtime.process} of {runtime.n_processes} does not see the files of process 0 in '
        f'{directory.absolute()}; use a --workdir on a file system shared by all hosts'
    )


def preflight(directory: pathlib.Path, runtime: Runtime) -> None:
    """Check, before data are read, that the run directory is writable and that all hosts share it.

    A collective. With one process the directory is not created.

    Args:
      directory: The run directory.
      runtime: Devices and processes of the run.

    Raises:
      UsageError: A process cannot write, or does not see the files of process 0; raised on every process.
    """
    if runtime.n_processes == 1:
        _check_writable(directory)
        return
    name = '.preflight'

    def write() -> str:
        token = secrets.token_hex(8)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(token)
        except OSError as error:
            raise _cannot_write(directory, error.strerror) from error
        return token

    token = processes.broadcast_from_primary(write)
    processes.run_on_all(lambda: _wait_for(directory, name, token, runtime))
    if runtime.is_primary:
        (directory / name).unlink(missing_ok=True)


def _check_writable(directory: pathlib.Path) -> None:
    """Raise UsageError where the directory, or the nearest existing one above it, is not writable."""
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise _cannot_write(directory, f'{existing} is not a directory')
    if not os.access(existing, os.W_OK):
        raise _cannot_write(directory, f'{existing} is not writable')


def _cannot_write(directory: pathlib.Path, reason: str | None) -> UsageError:
    return UsageError(f'cannot write to {directory}: {reason}; choose another --workdir')


def acquire(
    directory: pathlib.Path, config: Config, overwrite: bool, description: dict[str, Any]
) -> TextIO:
    """Lock a directory for this process; write config.json and environment.json.

    Args:
      directory: The run directory, created if needed.
      config: The run's config.
      overwrite: Whether to replace a run in the directory.
      description: Entries of environment.json about devices and processes.

    Returns:
      The lock file; the lock holds while it is open.

    Raises:
      UsageError: Another process has the lock, the directory holds a run with another config, or
        nothing can be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / '.lock').open('w')
    except OSError as error:
        raise _cannot_write(directory, error.strerror) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise UsageError(
            f'another process is writing to {directory}; wait for it or choose another --workdir'
        ) from None
    try:
        if check_config(directory, config, overwrite):  # its results are no longer of this config
            for entry in ('results.json', 'report.html'):
                (directory / entry).unlink(missing_ok=True)
        if overwrite:
            for entry in ENTRIES:
                path = directory / entry
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        stored = {'version': lecture4.__version__, **config_fingerprint(config)}
        write_json(directory / 'config.json', stored)
        write_json(directory / 'environment.json', environment(config, description))
    except OSError as error:
        lock.close()
        raise UsageError(
            f'cannot write to {directory}: {error.strerror}; free disk space or choose another '
            '--workdir'
        ) from error
    except UsageError:
        lock.close()
        raise
    return lock


def environment(config: Config, description: dict[str, Any]) -> dict[str, Any]:
    """The contents of environment.json: command, options, host, times, versions, commit and devices.

    Times are in UTC; `end_time` is None until the run is complete. A resumed run records its last start.

    Args:
      config: The run's config, of which the options outside its fingerprint are recorded.
      description: Entries about devices and processes.

    Returns:
      JSON-serializable values.
    """
    versions = {'python': platform.python_version(), 'lecture4': lecture4.__version__}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return {
        'command': ' '.join(sys.orig_argv[1:]),
        'options': {
            field: value
            for field, value in dataclasses.asdict(config).items()
            if field not in config_fingerprint(config)
        },
        'host': platform.node(),
        'start_time': _now(),
        'end_time': None,
        'versions': versions,
        **_commit(),
        **description,
    }


def _commit() -> dict[str, Any]:
    """The commit of the code, and whether the code differs from it; None outside git."""
    source = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ['git', *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git('rev-parse', '--short=10', 'HEAD')
        return {'commit': commit, 'dirty': bool(git('status', '--porcelain', '-uno'))}
    except (OSError, subprocess.SubprocessError):
        return {'commit': None, 'dirty': None}


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file atomically, so that it is never read half-written."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(value, indent=2) + '\n')
    os.replace(temporary, path)
