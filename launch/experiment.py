"""The experiment's command line after `--`: what it runs, and whether the experiment accepts it."""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from types import ModuleType
from typing import Any

from launch.command import LaunchError

EXAMPLE = '-- python -m experiments.sparse_coding.self_taught --preset smoke'
PYTHON = re.compile(r'(.*/)?python[\d.]*')
# Options of a single process of a run, which Slurm, TPU slices and launch.local set.
PROCESS_OPTIONS = ('coordinator', 'processes', 'process_id')


def command_line(words: list[str], python: str = sys.executable) -> list[str]:
    """The experiment's command line with the interpreter that will run it.

    Args:
      words: What follows `--`: `python -m MODULE ...` or `python FILE.py ...`.
      python: Path of the interpreter.

    Returns:
      The command line.

    Raises:
      LaunchError: The words are not of that form, or the file does not exist.
    """
    is_module = len(words) > 2 and words[1] == '-m'
    is_file = len(words) > 1 and words[1].endswith('.py')
    if not words or not PYTHON.fullmatch(words[0]) or not (is_module or is_file):
        raise LaunchError(
            f"'{shlex.join(words)}' after -- is not an experiment; expected, for example, "
            f'{EXAMPLE}, or -- python FILE.py'
        )
    if is_file and not pathlib.Path(words[1]).is_file():
        raise LaunchError(
            f'{words[1]} is not a file in {pathlib.Path.cwd()}; expected an experiment'
        )
    return [python, *words[1:]]


def name(words: list[str]) -> str:
    """The experiment's name: the last part of its module, or its file without .py."""
    if words[1] == '-m':
        return words[2].rpartition('.')[2]
    return pathlib.PurePath(words[1]).stem


def arguments(words: list[str]) -> list[str]:
    """The options of an experiment's command line, without the program."""
    return words[3:] if words[1] == '-m' else words[2:]


def option(words: list[str], name: str) -> str:
    """The value of an option in an experiment's command line.

    Args:
      words: The experiment's command line.
      name: Name of the option, without dashes.

    Returns:
      The value, or its first word; '' where the option is not given.
    """
    for i, word in enumerate(words):
        if word == f'--{name}' and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f'--{name}='):
            return word.partition('=')[2]
    return ''


def sweep_name(words: list[str]) -> str:
    """The name of the sweep of an experiment's command line: --sweep, 'grid', 'seeds' or ''."""
    named = option(words, 'sweep')
    return named or next((name for name in ('grid', 'seeds') if option(words, name)), '')


def workdir(words: list[str]) -> str:
    """The run directory of an experiment's command line: --workdir or the experiment's default."""
    parts = [f'runs/{name(words)}', option(words, 'preset'), sweep_name(words)]
    return option(words, 'workdir') or '-'.join(filter(None, parts))


def with_option(words: list[str], name: str, value: str) -> list[str]:
    """An experiment's command line with an option added, unless it already has the option."""
    return words if option(words, name) else [*words, f'--{name}', value]


def with_workdir(words: list[str]) -> list[str]:
    """An experiment's command line with its --workdir made explicit."""
    return with_option(words, 'workdir', workdir(words))


def check_words(words: list[str], set_by_launcher: tuple[str, ...] = PROCESS_OPTIONS) -> None:
    """Refuse options that must not follow `--`.

    Args:
      words: The experiment's command line.
      set_by_launcher: Options that the launcher sets for the experiment.

    Raises:
      LaunchError: An option is one that the launcher sets, or one with which nothing runs.
    """
    for flag in arguments(words):
        key = flag[2:].partition('=')[0].replace('-', '_') if flag.startswith('--') else ''
        if key in set_by_launcher:
            raise LaunchError(f'--{key} after -- is set by the launcher; omit it')
        if key == 'dry_run':
            raise LaunchError('--dry_run after -- runs nothing; put it before --')
        if key == 'help' or flag == '-h':
            raise LaunchError(f'{flag} after -- runs nothing; call {shlex.join(words)} alone')


def check(words: list[str]) -> dict[str, Any]:
    """Let the experiment parse its own options; nothing is read or trained.

    Args:
      words: The experiment's command line.

    Returns:
      What the experiment prints with --dry_run: {'experiment', 'workdir', 'config'}.

    Raises:
      LaunchError: The experiment refuses its options (with its own message) or cannot be imported; or as in
        `check_words`.
    """
    check_words(words)
    line = [sys.executable, *words[1:], '--dry_run']
    environ = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(line, env=environ, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or 'no message').splitlines()
        raise LaunchError(f'the experiment cannot start: {lines[-1]}')
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (json.JSONDecodeError, IndexError):
        raise LaunchError(
            f'{shlex.join(words[1:3])} does not answer --dry_run; expected a module or file that '
            'calls lecture4.train.main'
        ) from None


def check_compiled(words: list[str], topology: str) -> None:
    """Compile the step of an experiment for accelerators that are not attached, see `launch.compile`.

    Args:
      words: The experiment's command line.
      topology: CHIP:SHAPE.

    Raises:
      LaunchError: It cannot be compiled here, or does not fit into the memory of a chip.
    """
    options = ['--topology', topology, '--programs', 'step']
    line = [sys.executable, '-m', 'launch.compile', *options, '--', *words]
    if subprocess.run(line, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}).returncode:
        raise LaunchError(f'--check: the step does not compile for {topology}, or does not fit')


def check_shared(path: str, roots: list[str], remedy: str) -> None:
    """Refuse a --workdir that is not shared by the hosts of a run.

    Args:
      path: The --workdir.
      roots: Directories that all hosts share.
      remedy: How to name or mount such a directory, for the message.

    Raises:
      LaunchError: The path lies in none of the directories.
    """
    if not any(pathlib.PurePath(path).is_relative_to(root) for root in roots if root):
        raise LaunchError(
            f'--workdir {path or "is missing"}: expected a directory that all hosts share, or the '
            f'results are lost with them; {remedy}'
        )


def load_module(words: list[str]) -> ModuleType:
    """Import the module or file of an experiment's command line.

    Raises:
      LaunchError: The module or file cannot be imported.
    """
    try:
        if words[1] == '-m':
            return importlib.import_module(words[2])
        spec = importlib.util.spec_from_file_location(name(words), words[1])
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look up their annotations
        spec.loader.exec_module(module)
        return module
    except ImportError as error:
        raise LaunchError(f'{shlex.join(words[1:3])} cannot be imported: {error}') from None
