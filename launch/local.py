"""Several processes of one experiment on this host, as one run: all of them or none.

Every process gets --coordinator, --processes and --process_id; its output is prefixed with its
number. SIGTERM and ctrl-C are passed on: the experiment saves and exits with 75. When one process
fails, the others are stopped. With GPUs each process takes its share of them.

    python -m launch.local --processes 2 -- python -m experiments.sparse_coding.self_taught --preset smoke
    python -m launch.local --processes 8 --restarts 3 -- python -m experiments.sparse_coding.self_taught
    python -m launch.local --processes 2 --dry_run -- python -m experiments.sparse_coding.self_taught --devices 4

One process drives all GPUs of a host by itself: this launcher is for a process a GPU, for CPU
tests of what a cluster will do, and for runs that start again by themselves (--restarts).
Exit code: 0; 75 when interrupted and saved; else that of the first process that failed (128 + n for
signal n), 124 where it was stopped for being stuck.
"""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

from launch import command

GRACE = 5.0  # seconds between asking the others to stop and killing them
SAVE = 120.0  # seconds that an interrupted run has for saving
STUCK = 124
INTERRUPTED = 75


def main(argv: list[str]) -> int:
    """Parse the options, then launch and, where asked, launch again."""
    own, words = command.split(argv)
    parser = command.parser('launch.local', __doc__ or '')
    parser.add_argument('--processes', type=int, default=2, help='how many (default 2)')
    parser.add_argument(
        '--restarts', type=int, default=0, help='starts after a failure (default 0)'
    )
    parser.add_argument(
        '--stall_timeout',
        type=float,
        default=0,
        help='seconds without a step, compilation included, after which a run counts as failed; '
        '0 waits for ever (default)',
    )
    parser.add_argument(
        '--port', type=int, default=0, help='of the coordinator; 0 takes a free one'
    )
    options = parser.parse_args(own)
    if options.processes < 1 or options.restarts < 0 or options.stall_timeout < 0:
        raise command.LaunchError(
            f'--processes {options.processes} --restarts {options.restarts} --stall_timeout '
            f'{options.stall_timeout:g}: at least 1, 0 and 0 are wanted'
        )
    line = command.experiment(words)
    if options.dry_run:
        port = options.port or 'PORT'
        for i, environ in enumerate(shares(options.processes)):
            print(
                shlex.join(
                    [
                        *(f'{k}={v}' for k, v in environ.items()),
                        *rank(line, i, options.processes, port),
                    ]
                )
            )
        return 0
    asked: list[int] = []
    code = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, frame: asked.append(n))
    for left in range(options.restarts, -1, -1):
        code = launch(line, options.processes, options.port, options.stall_timeout, asked)
        # 2 is a mistake in the command line, which a restart would repeat
        if code in (0, 2) or asked or not left:
            break
        print(f'launch.local: exit code {code}; starting again, {left} left', file=sys.stderr)
    return code


def rank(line: list[str], index: int, count: int, port) -> list[str]:
    """The command line of one process."""
    where = ['--coordinator', f'127.0.0.1:{port}', '--processes', str(count)]
    return [*line, *where, '--process_id', str(index)]


def shares(count: int) -> list[dict[str, str]]:
    """Environment of each process: an equal share of the GPUs, where there are any."""
    n_gpus = len(command.gpus())
    if not n_gpus:
        return [{} for _ in range(count)]
    if n_gpus % count:
        fits = [n for n in range(1, n_gpus + 1) if n_gpus % n == 0]
        raise command.LaunchError(
            f'--processes {count} cannot share {n_gpus} GPUs; use {" or ".join(map(str, fits))}'
        )
    each = n_gpus // count
    return [
        {'JAX_LOCAL_DEVICE_IDS': ','.join(map(str, range(i * each, (i + 1) * each)))}
        for i in range(count)
    ]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(('', 0)) as server:
        return server.getsockname()[1]


def launch(line: list[str], count: int, port: int, stall_timeout: float, asked: list[int]) -> int:
    """All processes once; `asked` gets the signals that come meanwhile. Returns the exit code."""
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix='launch-') as directory:
        pulses = [pathlib.Path(directory) / str(i) for i in range(count)]
        started: list[subprocess.Popen] = []
        try:
            for i, environ in enumerate(shares(count)):
                pulse = {'LECTURE4_HEARTBEAT_FILE': str(pulses[i])}
                started.append(
                    command.start(rank(line, i, count, port), i, {**os.environ, **environ, **pulse})
                )
            return _watch(started, pulses, stall_timeout, asked)
        finally:
            for process in started:
                command.send(process, signal.SIGKILL)
                process.wait()
            command.drain()


def _watch(started, pulses, stall_timeout, asked) -> int:
    """Wait for all; on a failure or a stall the rest has GRACE seconds to stop."""
    began = time.time()
    passed, code, ends = 0, 0, None
    while any(process.poll() is None for process in started):
        if len(asked) > passed:
            passed = len(asked)
            for process in started:
                command.send(process, signal.SIGTERM)
            ends = ends or time.time() + SAVE
        codes = [process.poll() for process in started]
        failed = [(i, c) for i, c in enumerate(codes) if c]
        if failed and not code:
            index, found = failed[0]
            code = 128 - found if found < 0 else found
            if code == INTERRUPTED:  # saved by all, and the others are about to say so
                ends = min(ends or time.time() + SAVE, time.time() + SAVE)
            else:
                print(f'launch.local: process {index} ended with {code}', file=sys.stderr)
                ends = time.time() + GRACE
                for process in started:
                    command.send(process, signal.SIGTERM)
        if stall_timeout and not code and (stuck := _stuck(pulses, began, stall_timeout)):
            print(f'launch.local: {stuck}', file=sys.stderr)
            return STUCK
        if ends and time.time() > ends:
            return code or 128 + signal.SIGKILL
        time.sleep(0.05)
    final = [process.returncode for process in started]
    if not code:
        code = next((c for c in final if c), 0)
        code = 128 - code if code < 0 else code
    return code


def _stuck(pulses, began: float, timeout: float) -> str:
    """Who has made no step for too long; the one with the fewest steps holds up the others."""
    seen: dict[int, tuple[float, int]] = {}
    for i, path in enumerate(pulses):
        try:
            text = path.read_text()
            if text == 'done':  # the loop has ended; a report may take its time
                return ''
            seen[i] = (path.stat().st_mtime, int(text))
        except (OSError, ValueError):  # none yet, or just being written
            continue
    newest = max([began, *(moment for moment, _ in seen.values())])
    if time.time() - newest < timeout:
        return ''
    if len(seen) < len(pulses):
        late = ', '.join(str(i) for i in range(len(pulses)) if i not in seen)
        return f'no step for {timeout:g} s; process {late} has made none'
    fewest = min(steps for _, steps in seen.values())
    late = ', '.join(str(i) for i, (_, steps) in seen.items() if steps == fewest)
    return f'no step for {timeout:g} s; process {late} is stuck after step {fewest}'


if __name__ == '__main__':
    command.main('launch.local', main)
