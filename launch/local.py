"""Start several processes of one experiment on this host, as one run.

    python -m launch.local --processes 2 -- python -m experiments.sparse_coding.self_taught --preset smoke
    python -m launch.local --processes 8 --restarts 3 -- python -m experiments.sparse_coding.self_taught
    python -m launch.local --processes 2 --dry_run -- python -m experiments.sparse_coding.self_taught --devices 4

Every process gets --coordinator, --processes and --process_id; its output is prefixed with its index.
SIGTERM and Ctrl-C are forwarded: the experiment saves and exits with 75. If one process fails, the others
are stopped. The GPUs of the host are divided among the processes.

A single process can drive all GPUs of a host without a launcher. This launcher is for one process per GPU, for
testing on CPUs what a cluster will do, and for restarts after failures (--restarts).

Exit code: 0; 75 if interrupted and saved; otherwise that of the first process that failed (128 + n for
signal n), 124 if the run was stopped because it stalled.
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

from launch import command, experiment

STOP_TIMEOUT = 5.0  # seconds for the other processes to stop after a failure
SAVE_TIMEOUT = 120.0  # seconds for an interrupted run to save
STALLED = 124
INTERRUPTED = 75


def main(argv: list[str]) -> int:
    """Parse the options, start the run and restart it after failures.

    Args:
      argv: The words of the command line.

    Returns:
      The exit code.

    Raises:
      LaunchError: A mistake in the options.
    """
    launcher_args, line = command.split(argv)
    parser = command.parser('launch.local', __doc__ or '')
    add = parser.add_argument
    add('--processes', type=int, default=2, help='Number of processes. Default: 2.')
    add('--restarts', type=int, default=0, help='Number of restarts after failures. Default: 0.')
    add(
        '--stall_timeout',
        type=float,
        default=0,
        help='Seconds without a step (including compilation) after which the run counts as failed. '
        'Default: 0, no limit.',
    )
    add('--port', type=int, default=0, help='Port of the coordinator. Default: 0, a free port.')
    options = parser.parse_args(launcher_args)
    for name, least in (('processes', 1), ('restarts', 0), ('stall_timeout', 0)):
        if getattr(options, name) < least:
            raise command.LaunchError(
                f'--{name} {getattr(options, name):g}: expected at least {least}'
            )
    line = experiment.command_line(line)
    experiment.check(line)
    if options.dry_run:
        port = options.port or 'PORT'
        for i, environ in enumerate(device_environments(options.processes)):
            assignments = [f'{k}={v}' for k, v in environ.items()]
            print(shlex.join([*assignments, *process_command(line, i, options.processes, port)]))
        return 0
    received: list[int] = []
    code = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, frame: received.append(n))
    for remaining in range(options.restarts, -1, -1):
        code = launch(line, options.processes, options.port, options.stall_timeout, received)
        # 2 is a mistake in the command line, which a restart would repeat.
        if code in (0, 2) or received or not remaining:
            break
        print(
            f'launch.local: exit code {code}; restarting, {remaining} restarts left',
            file=sys.stderr,
        )
    return code


def process_command(line: list[str], index: int, count: int, port: int | str) -> list[str]:
    """The command line of one process.

    Args:
      line: The experiment's command line.
      index: Index of the process.
      count: Number of processes.
      port: Port of the coordinator on this host.

    Returns:
      The command line with the options of the process.
    """
    coordinator = ['--coordinator', f'127.0.0.1:{port}', '--processes', str(count)]
    return [*line, *coordinator, '--process_id', str(index)]


def device_environments(count: int) -> list[dict[str, str]]:
    """Environment variables that give each process an equal number of GPUs.

    Args:
      count: Number of processes.

    Returns:
      A dict for each process; empty ones where there are no GPUs.

    Raises:
      LaunchError: The number of GPUs is not divisible by the number of processes.
    """
    n_gpus = len(command.gpus())
    if not n_gpus:
        return [{} for _ in range(count)]
    if n_gpus % count:
        divisors = [n for n in range(1, n_gpus + 1) if n_gpus % n == 0]
        raise command.LaunchError(
            f'{n_gpus} GPUs are not divisible by --processes {count}; use '
            f'{" or ".join(map(str, divisors))}'
        )
    per_process = n_gpus // count
    return [
        {'JAX_LOCAL_DEVICE_IDS': ','.join(map(str, range(i * per_process, (i + 1) * per_process)))}
        for i in range(count)
    ]


def free_port() -> int:
    """A port on which no process listens."""
    with socket.create_server(('', 0)) as server:
        return server.getsockname()[1]


def launch(
    line: list[str], count: int, port: int, stall_timeout: float, received: list[int]
) -> int:
    """Start all processes once and wait for them.

    Args:
      line: The experiment's command line.
      count: Number of processes.
      port: Port of the coordinator; 0 for a free one.
      stall_timeout: Seconds without a step after which the run is stopped; 0 for no limit.
      received: List to which signal handlers append; the signals are forwarded.

    Returns:
      The exit code.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix='launch-') as directory:
        heartbeats = [pathlib.Path(directory) / str(i) for i in range(count)]
        started: list[subprocess.Popen] = []
        try:
            for i, devices in enumerate(device_environments(count)):
                environ = {
                    **os.environ,
                    **devices,
                    'LECTURE4_HEARTBEAT_FILE': str(heartbeats[i]),
                }
                started.append(command.start(process_command(line, i, count, port), i, environ))
            return _wait(started, heartbeats, stall_timeout, received)
        finally:
            for process in started:
                command.send(process, signal.SIGKILL)
                process.wait()
            command.drain()


def _wait(
    started: list[subprocess.Popen],
    heartbeats: list[pathlib.Path],
    stall_timeout: float,
    received: list[int],
) -> int:
    """Wait for all processes; after a failure or a stall the others have STOP_TIMEOUT seconds to stop."""
    start_time = time.time()
    n_forwarded, code, deadline = 0, 0, None
    while any(process.poll() is None for process in started):
        if len(received) > n_forwarded:
            n_forwarded = len(received)
            for process in started:
                command.send(process, signal.SIGTERM)
            deadline = deadline or time.time() + SAVE_TIMEOUT
        codes = [process.poll() for process in started]
        failed = [(i, c) for i, c in enumerate(codes) if c]
        if failed and not code:
            index, code = failed[0]
            code = 128 - code if code < 0 else code
            if code == INTERRUPTED:  # saved by all processes, and the others are about to exit
                deadline = min(deadline or time.time() + SAVE_TIMEOUT, time.time() + SAVE_TIMEOUT)
            else:
                print(f'launch.local: process {index} exited with {code}', file=sys.stderr)
                deadline = time.time() + STOP_TIMEOUT
                for process in started:
                    command.send(process, signal.SIGTERM)
        if stall_timeout and not code and (stall := _stall(heartbeats, start_time, stall_timeout)):
            print(f'launch.local: {stall}', file=sys.stderr)
            return STALLED
        if deadline and time.time() > deadline:
            return code or 128 + signal.SIGKILL
        time.sleep(0.05)
    if not code:
        code = next((process.returncode for process in started if process.returncode), 0)
        code = 128 - code if code < 0 else code
    return code


def _stall(heartbeats: list[pathlib.Path], start_time: float, timeout: float) -> str:
    """A message about stalled processes; the one with the fewest steps blocks the others."""
    last: dict[int, tuple[float, int]] = {}
    for i, path in enumerate(heartbeats):
        try:
            text = path.read_text()
            if text == 'done':  # the loop has ended; a report may take minutes
                return ''
            last[i] = (path.stat().st_mtime, int(text))
        except (OSError, ValueError):  # the file does not exist yet, or is being written
            continue
    newest = max([start_time, *(moment for moment, _ in last.values())])
    if time.time() - newest < timeout:
        return ''
    if len(last) < len(heartbeats):
        missing = ', '.join(str(i) for i in range(len(heartbeats)) if i not in last)
        return f'no step for {timeout:g} s; process {missing} has done none'
    fewest = min(steps for _, steps in last.values())
    slowest = ', '.join(str(i) for i, (_, steps) in last.items() if steps == fewest)
    return f'no step for {timeout:g} s; process {slowest} stalled after step {fewest}'


if __name__ == '__main__':
    command.main('launch.local', main)
