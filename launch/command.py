"""Shared parts of all launchers: their options, then `--`; calls of programs, processes and their output."""

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

ROOT = pathlib.Path(
    __file__
).parent.parent  # the clone, or the directory where the package is installed


class LaunchError(Exception):
    """A user error: one line with the fix, exit code 2."""


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

    Raises:
      LaunchError: There is an experiment, but no `--` before it.
    """
    if '--' not in argv:
        for i, word in enumerate(argv):
            if re.fullmatch(r'(.*/)?python[\d.]*', word) and argv[i + 1 :]:
                raise LaunchError(
                    f'-- is missing before the experiment: {shlex.join(["--", *argv[i:]])}'
                )
        return argv, []
    at = argv.index('--')
    return argv[:at], argv[at + 1 :]


def require(program: str, remedy: str) -> str:
    """The path of a program.

    Args:
      program: Name of the program.
      remedy: What to install or where to run; part of the message.

    Returns:
      Its path.

    Raises:
      LaunchError: The program is not on PATH.
    """
    path = shutil.which(program)
    if path is None:
        raise LaunchError(f'{program} is not on PATH; {remedy}, or use --dry_run to see the files')
    return path


def with_input(command: str, text: str) -> str:
    """A shell command that reads a text, which the shell does not expand.

    Args:
      command: The command, as shell text.
      text: Its input; ends with a line break.

    Returns:
      The command with a quoted here-document.
    """
    end = 'END'
    while end in text.splitlines():
        end += '_'
    return f"{command} <<'{end}'\n{text.rstrip()}\n{end}"


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
        print(with_input(shlex.join(command), text) if text else shlex.join(command))
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
      The process, in a new session: Ctrl-C reaches only the launcher, which forwards it once.
    """
    process = subprocess.Popen(
        command,
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
