"""What all launchers share: their own options, then `--`, then the experiment's command line."""

import argparse
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, NoReturn

ROOT = pathlib.Path(__file__).parent.parent  # where `python -m experiments...` runs


class LaunchError(Exception):
    """A mistake of the user: one line with the fix, exit code 2."""


def parser(module: str, doc: str, dry_run: bool = True) -> argparse.ArgumentParser:
    """A parser of a launcher's options; `--help` prints its docstring.

    Args:
      module: Name of the launcher, 'launch.local'.
      doc: Its docstring, with examples.
      dry_run: Whether to add `--dry_run`.

    Returns:
      The parser, without further options.
    """
    result = argparse.ArgumentParser(
        prog=f'python -m {module}',
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if dry_run:
        result.add_argument(
            '--dry_run', action='store_true', help='Show what would be done and do nothing.'
        )
    return result


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split a launcher's command line at the first `--`.

    Args:
      argv: The words of the command line.

    Returns:
      (own, command): the launcher's options and the experiment's command line.
    """
    if '--' not in argv:
        return argv, []
    at = argv.index('--')
    return argv[:at], argv[at + 1 :]


def experiment(command: list[str], python: str = sys.executable) -> list[str]:
    """The experiment's command line with the interpreter that will run it.

    Args:
      command: What follows `--`.
      python: Path of the interpreter.

    Returns:
      The command line.

    Raises:
      LaunchError: The command line is not `python -m MODULE ...`.
    """
    if (
        len(command) < 3
        or not re.fullmatch(r'(.*/)?python[\d.]*', command[0])
        or command[1] != '-m'
    ):
        raise LaunchError(
            f"'{shlex.join(command)}' after -- is not an experiment; expected, for example, "
            '-- python -m experiments.sparse_coding.self_taught --preset smoke'
        )
    return [python, *command[1:]]


def option(command: list[str], name: str) -> str:
    """The value of an option in an experiment's command line.

    Args:
      command: The experiment's command line.
      name: Name of the option, without dashes.

    Returns:
      The value, or its first word; '' where the option is not given.
    """
    for i, word in enumerate(command):
        if word == f'--{name}' and i + 1 < len(command):
            return command[i + 1]
        if word.startswith(f'--{name}='):
            return word.partition('=')[2]
    return ''


def sweep_name(command: list[str]) -> str:
    """The name of the sweep of an experiment's command line: --sweep, 'grid', 'seeds' or ''."""
    named = option(command, 'sweep')
    return named or next((name for name in ('grid', 'seeds') if option(command, name)), '')


def workdir(command: list[str]) -> str:
    """The run directory of an experiment's command line: --workdir or the experiment's default."""
    parts = [
        f'runs/{command[2].rpartition(".")[2]}',
        option(command, 'preset'),
        sweep_name(command),
    ]
    return option(command, 'workdir') or '-'.join(filter(None, parts))


def with_workdir(command: list[str]) -> list[str]:
    """An experiment's command line that names its --workdir."""
    if option(command, 'workdir'):
        return command
    return [*command, '--workdir', workdir(command)]


def require(program: str, remedy: str) -> str:
    """The path of a program.

    Args:
      program: Name of the program.
      remedy: What to install or where to run, for the message.

    Returns:
      Its path.

    Raises:
      LaunchError: The program is not on PATH.
    """
    path = shutil.which(program)
    if path is None:
        raise LaunchError(f'{program} is not on PATH; {remedy}, or use --dry_run to see the files')
    return path


def call(command: list[str], dry_run: bool, text: str | None = None) -> str:
    """Run a program.

    Args:
      command: Its command line.
      dry_run: Whether to print the command line instead.
      text: Its input.

    Returns:
      Its output; '' with `dry_run`.

    Raises:
      LaunchError: The program fails; the message has the last line of its output.
    """
    if dry_run:
        print(shlex.join(command) + (' <<END\n' + text.rstrip() + '\nEND' if text else ''))
        return ''
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or 'no message').splitlines()
        raise LaunchError(f'{command[0]} failed ({result.returncode}): {lines[-1]}')
    return result.stdout


def gpus() -> list[str]:
    """The GPUs of this host that may be used, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        return [name for name in visible.split(',') if name not in ('', '-1')]
    if os.environ.get('JAX_PLATFORMS', 'cuda') == 'cpu' or not shutil.which('nvidia-smi'):
        return []
    listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True)
    return [str(i) for i in range(listed.stdout.count('UUID: GPU'))]


_readers: list[threading.Thread] = []


def start(command: list[str], label: object, environ: Mapping[str, str]) -> subprocess.Popen:
    """Start a process whose output is copied to this one's, each line prefixed with [label].

    Args:
      command: Its command line.
      label: Prefix of its lines.
      environ: Its environment.

    Returns:
      The process, in a session of its own: Ctrl-C reaches only the launcher, which forwards it once.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for pipe, output in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        reader = threading.Thread(target=_copy, args=(pipe, output, label), daemon=True)
        reader.start()
        _readers.append(reader)
    return process


def _copy(pipe: IO[bytes], output: IO[str], label: object) -> None:
    for line in iter(pipe.readline, b''):
        output.write(f'[{label}] {line.decode(errors="replace")}')
        output.flush()


def drain() -> None:
    """Return when the output of all processes that have ended is written."""
    for reader in _readers:
        reader.join(5)
    _readers.clear()


def send(process: subprocess.Popen, signal_number: int) -> None:
    """Send a signal to a process and its children, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)


def main(module: str, function: Callable[[list[str]], int]) -> NoReturn:
    """Run a launcher and exit; a LaunchError is printed as one line, exit code 2.

    Args:
      module: Name of the launcher, for messages.
      function: Words of the command line -> exit code.
    """
    try:
        code = function(sys.argv[1:])
    except LaunchError as error:
        print(f'{module}: {error}', file=sys.stderr)
        code = 2
    except BrokenPipeError:
        os._exit(1)
    sys.exit(code)
