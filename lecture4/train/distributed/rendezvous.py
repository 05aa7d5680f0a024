"""Rendezvous of a run's processes, before JAX's distributed runtime starts.

That runtime aborts a process with a C++ stack trace where a peer is missing or two have the same index.
The rendezvous reports such mistakes as one line that names the process, and then leaves the port to JAX.
"""

import contextlib
import dataclasses
import json
import socket
import time
from typing import Any

import jax

from lecture4.train.config import RunOptions, UsageError
from lecture4.train.distributed.processes import CollectiveError, Processes

HEARTBEAT_TIMEOUT = 20  # seconds without a heartbeat after which a peer counts as dead; JAX: 100
# Options that may differ between the processes of one run.
PER_PROCESS_OPTIONS = ('process_id', 'progress', 'data_dir', 'manual_dir', 'cache_dir')


def join(processes: Processes, config: RunOptions) -> None:
    """Start JAX's distributed runtime once every process has connected.

    A collective; returns at once for a single process.

    Args:
      processes: The processes of the run, as `processes.detect` returns them.
      config: The run's options, which all processes must share.

    Raises:
      UsageError: A process did not connect within `init_timeout` seconds, two have the same index,
        or their options differ (raised on every process that connected); the port is in use, or the
        coordinator cannot be reached.
    """
    if processes.count == 1 or jax.distributed.is_initialized():
        return
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in PER_PROCESS_OPTIONS}
    start = time.monotonic()
    if processes.index == 0:
        _coordinate(processes, options, config.init_timeout)
    else:
        _connect(processes, options, config.init_timeout)
    remaining = max(int(config.init_timeout - (time.monotonic() - start)), 10)
    jax.distributed.initialize(
        processes.coordinator,
        processes.count,
        processes.index,
        local_device_ids=processes.local_devices,
        cluster_detection_method='deactivate',
        initialization_timeout=remaining,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )


def _coordinate(processes: Processes, options: dict[str, Any], timeout: float) -> None:
    """Process 0 listens on the coordinator's port until all others have connected."""
    port = int(processes.coordinator.rpartition(':')[2])
    try:
        server = socket.create_server(('', port), backlog=processes.count)
    except OSError as error:
        raise UsageError(
            f'port {port} of {processes.coordinator} cannot be opened ({error.strerror}); another '
            'run may be using it: choose another port'
        ) from error
    connected: dict[int, socket.socket] = {}
    deadline = time.monotonic() + timeout
    message = ''
    with server:
        while not message and len(connected) < processes.count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                peer, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, processes.count)) - set(connected))
                message = (
                    f'process {", ".join(map(str, missing))} of {processes.count} did not connect '
                    f'to {processes.coordinator} within {timeout:g} s; check its output, or '
                    'increase --init_timeout'
                )
                break
            index, peer_options = _receive(peer)
            if index is None:
                peer.close()
                continue
            message = _mismatch(processes, options, index, peer_options)
            if index in connected:
                message = (
                    message
                    or f'two processes have --process_id {index}; use a different one for each'
                )
                _send(peer, message)
                peer.close()
            connected.setdefault(index, peer)
        for peer in connected.values():
            _send(peer, message)
        for peer in connected.values():  # they close first, so that the port is free at once
            peer.settimeout(5)
            with contextlib.suppress(OSError):
                peer.recv(1)
            peer.close()
    if message:
        raise CollectiveError(message)


def _receive(peer: socket.socket) -> tuple[int | None, dict[str, Any]]:
    """(index, options) of a process of this run; (None, {}) for any other client."""
    peer.settimeout(2)
    try:
        with peer.makefile() as lines:
            request = json.loads(lines.readline())
        return int(request['index']), request['options']
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}


def _send(peer: socket.socket, message: str) -> None:
    with contextlib.suppress(OSError):  # disconnected: JAX's own timeout will report it
        peer.sendall(json.dumps(message).encode() + b'\n')


def _mismatch(
    processes: Processes, options: dict[str, Any], index: int, peer_options: dict[str, Any]
) -> str:
    own_options = json.loads(json.dumps(options))
    for name in {**own_options, **peer_options}:
        if own_options.get(name) != peer_options.get(name):
            return (
                f'process {index} was started with --{name} {peer_options.get(name)}, process 0 '
                f'with {own_options.get(name)}; give all processes the same options'
            )
    if not 0 < index < processes.count:
        return (
            f'--process_id {index} is out of range for --processes {processes.count}; expected 0 '
            f'to {processes.count - 1}'
        )
    return ''


def _connect(processes: Processes, options: dict[str, Any], timeout: float) -> None:
    host, _, port = processes.coordinator.rpartition(':')
    request = json.dumps({'index': processes.index, 'options': options}).encode() + b'\n'
    deadline = time.monotonic() + timeout
    reason = ''
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip('[]'), int(port)), remaining) as peer:
                peer.sendall(request)
                peer.settimeout(
                    timeout + 5
                )  # process 0 may have started to wait later than this one
                with peer.makefile() as lines:
                    response = lines.readline()
        except (OSError, UnicodeDecodeError) as error:  # not started yet, ended, or another server
            reason = getattr(error, 'strerror', None) or str(error)
            time.sleep(min(0.2, max(remaining, 0)))
            continue
        if response:
            if message := json.loads(response):
                raise CollectiveError(message)
            return
        reason = 'it closes the connection'
        time.sleep(0.2)
    raise UsageError(
        f'process {processes.index} of {processes.count}: no coordinator at '
        f'{processes.coordinator} within --init_timeout {timeout:g} s ({reason}); start process 0 '
        'there, or correct --coordinator'
    )
