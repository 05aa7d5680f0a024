"""What every launcher shares: its own options, then `--`, then the experiment's command line."""

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
from typing import NoReturn

ROOT = pathlib.Path(__file__).parent.parent  # where `python -m experiments...` runs


class LaunchError(Exception):
    """A mistake of the user's: one line with the mend, exit code 2."""


def parser(module: str, doc: str, dry_run: bool = True) -> argparse.ArgumentParser:
    """Options of a launcher; its docstring, examples and all, is the help."""
    made = argparse.ArgumentParser(
        prog=f'python -m {module}',
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if dry_run:
        made.add_argument(
            '--dry_run', action='store_true', help='show what would be done; do nothing'
        )
    return made


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """(the launcher's words, the experiment's): those before and after the first `--`."""
    if '--' not in argv:
        return argv, []
    at = argv.index('--')
    return argv[:at], argv[at + 1 :]


def experiment(words: list[str], python: str = sys.executable) -> list[str]:
    """The experiment's command line with the interpreter that is to run it.

    Errors  LaunchError unless it is `python -m MODULE ...`.
    """
    if len(words) < 3 or not re.fullmatch(r'(.*/)?python[\d.]*', words[0]) or words[1] != '-m':
        raise LaunchError(
            f"'{shlex.join(words)}' after -- is no experiment; end the line with, for instance, "
            '-- python -m experiments.sparse_coding.self_taught --preset smoke'
        )
    return [python, *words[1:]]


def option(words: list[str], name: str) -> str:
    """The value of --NAME in an experiment's command line, '' where it is not given."""
    for i, word in enumerate(words):
        if word == f'--{name}' and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f'--{name}='):
            return word.partition('=')[2]
    return ''


def workdir(words: list[str], swept: bool = False) -> str:
    """--workdir, or where the experiment would put its results."""
    parts = [f'runs/{words[2].rpartition(".")[2]}', option(words, 'preset')]
    parts.append(option(words, 'sweep') or ('grid' if swept else ''))
    return option(words, 'workdir') or '-'.join(filter(None, parts))


def placed(words: list[str], swept: bool = False) -> list[str]:
    """The experiment's command line with its --workdir said."""
    if option(words, 'workdir'):
        return words
    return [*words, '--workdir', workdir(words, swept)]


def require(program: str, package: str) -> str:
    """The path of a program. LaunchError, naming what to install, where it is missing."""
    path = shutil.which(program)
    if path is None:
        raise LaunchError(f'{program} is not on PATH; {package}, or use --dry_run to see the files')
    return path


def call(words: list[str], dry_run: bool, text: str | None = None) -> str:
    """Run a program and return its output; with dry_run, show it instead.

    Errors  LaunchError with the program's own last line where it fails.
    """
    if dry_run:
        print(shlex.join(words) + (' <<END\n' + text.rstrip() + '\nEND' if text else ''))
        return ''
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or 'no message').splitlines()
        raise LaunchError(f'{words[0]} failed ({done.returncode}): {lines[-1]}')
    return done.stdout


def gpus() -> list[str]:
    """The GPUs of this host that we may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        return [name for name in visible.split(',') if name not in ('', '-1')]
    if os.environ.get('JAX_PLATFORMS', 'cuda') == 'cpu' or not shutil.which('nvidia-smi'):
        return []
    listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True)
    return [str(i) for i in range(listed.stdout.count('UUID: GPU'))]


_readers: list[threading.Thread] = []


def start(words: list[str], label, environ: dict[str, str]) -> subprocess.Popen:
    """A process whose output comes out as ours, every line marked [label]."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # ctrl-C comes to us alone, and is passed on once
    )
    for pipe, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        reader = threading.Thread(target=_copy, args=(pipe, out, label), daemon=True)
        reader.start()
        _readers.append(reader)
    return process


def _copy(pipe, out, label):
    for text in iter(pipe.readline, b''):
        out.write(f'[{label}] {text.decode(errors="replace")}')
        out.flush()


def drain():
    """Return when the output of all processes that have ended is out."""
    for reader in _readers:
        reader.join(5)
    _readers.clear()


def send(process: subprocess.Popen, number: int):
    """A signal to a process and its children, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def main(module: str, function) -> NoReturn:
    """Run a launcher's function on the command line; a mistake is one line, exit code 2."""
    try:
        code = function(sys.argv[1:])
    except LaunchError as error:
        print(f'{module}: {error}', file=sys.stderr)
        code = 2
    except BrokenPipeError:
        os._exit(1)
    sys.exit(code)
