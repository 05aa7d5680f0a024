"""The run directory: who owns it, which run it holds, and what it was made with."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import secrets
import shutil
import subprocess
import sys
import time

from lecture4.train.config import Config, UsageError, config_fingerprint
from lecture4.train.distributed import processes

SEEN_WITHIN = 10.0  # seconds that a shared file system may take to show a file to other hosts

# What a run writes, and so all that --overwrite removes.
ENTRIES = (
    'config.json',
    'environment.json',
    'metrics.jsonl',
    'metrics.tmp',
    'results.json',
    'report.html',
    'sweep.csv',
    'summary.csv',
    'failed.txt',
    'checkpoints',
    'figures',
    'events',
    'variants',
    'groups',
    'codes',
)
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy', 'scikit-learn')


def check_config(directory: pathlib.Path, config: Config, overwrite: bool):
    """UsageError where the directory holds a run with another config. Touches nothing."""
    path = directory / 'config.json'
    if overwrite or not path.exists():
        return
    try:
        held = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise UsageError(
            f'{path} is damaged; choose another --workdir or give --overwrite'
        ) from None
    wanted = json.loads(json.dumps(config_fingerprint(config)))
    different = [name for name in {**held, **wanted} if held.get(name) != wanted.get(name)]
    if different:
        name = different[0]
        more = f' (and {len(different) - 1} more fields)' if different[1:] else ''
        raise UsageError(
            f'{directory} holds a run with {name}={held.get(name)}, not {wanted.get(name)}{more}; '
            'choose another --workdir, or give --overwrite to throw that run away'
        )


@contextlib.contextmanager
def run_lock(directory: pathlib.Path, config: Config, overwrite: bool, runtime):
    """Within, the directory is this run's: process 0 claims it, and all make sure they see it.

    Errors  as `acquire`, on every process; UsageError where a process does not see the directory.
    """
    with contextlib.ExitStack() as stack:

        def take() -> str:
            lock = stack.enter_context(acquire(directory, config, overwrite, runtime.describe()))
            word = secrets.token_hex(8)
            lock.write(word)
            lock.flush()
            os.fsync(lock.fileno())
            return word

        word = processes.broadcast_from_primary(take)
        if runtime.n_processes > 1:
            processes.run_on_all(lambda: _see(directory, word, runtime))
        yield


def _see(directory: pathlib.Path, word: str, runtime):
    ends = time.monotonic() + SEEN_WITHIN
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            if (directory / '.lock').read_text() == word:
                return
        time.sleep(0.1)
    raise UsageError(
        f'process {runtime.process} of {runtime.n_processes} does not see process 0 in '
        f'{directory.absolute()}; give a --workdir on a file system that all hosts share'
    )


def acquire(directory: pathlib.Path, config: Config, overwrite: bool, description: dict):
    """Take the directory for this process and write config.json and environment.json.

    Returns the lock: it holds while the returned file is open.
    Errors  UsageError where another process is writing there, or nothing can be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / '.lock').open('w')
    except OSError as error:
        raise UsageError(
            f'cannot write to {directory}: {error.strerror}; choose another --workdir'
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise UsageError(
            f'another process is writing to {directory}; wait for it or choose another --workdir'
        ) from None
    try:
        check_config(directory, config, overwrite)
        if overwrite:
            for entry in ENTRIES:
                path = directory / entry
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        write_json(directory / 'config.json', config_fingerprint(config))
        write_json(directory / 'environment.json', environment(config, description))
    except OSError as error:
        lock.close()
        raise UsageError(
            f'cannot write to {directory}: {error.strerror}; free the disk or choose another '
            '--workdir'
        ) from error
    except UsageError:
        lock.close()
        raise
    return lock


def environment(config: Config, description: dict) -> dict:
    """What a reader needs to run the same again: command, versions, commit, devices."""
    versions = {'python': platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return {
        'command': ' '.join(sys.orig_argv[1:]),
        'options': {
            field: value
            for field, value in dataclasses.asdict(config).items()
            if field not in config_fingerprint(config)
        },
        'versions': versions,
        **_commit(),
        **description,
    }


def _commit() -> dict:
    """The commit of the code that runs, and whether it was changed since; nulls outside git."""
    source = pathlib.Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ['git', *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git('rev-parse', '--short=10', 'HEAD')
        return {'commit': commit, 'dirty': bool(git('status', '--porcelain', '-uno'))}
    except (OSError, subprocess.SubprocessError):
        return {'commit': None, 'dirty': None}


def write_json(path: pathlib.Path, value):
    """Write whole or not at all: a reader never sees half a file."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(value, indent=2) + '\n')
    os.replace(temporary, path)
