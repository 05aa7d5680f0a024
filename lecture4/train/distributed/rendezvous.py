"""The roll call: every process of a run answers before JAX's distributed runtime starts.

That runtime aborts the process with a C++ trace when a peer does not come or ids clash; here it is
one line that names the process. After the roll call the port is JAX's.
"""

import contextlib
import dataclasses
import json
import socket
import time

import jax

from lecture4.train.config import RunOptions, UsageError
from lecture4.train.distributed.processes import CollectiveError, Processes

HEARTBEAT = 20  # seconds of silence after which a peer counts as dead; JAX's own are 100
# Options that may differ between the processes of one run.
OWN = ('process_id', 'progress', 'data_dir', 'manual_dir', 'cache_dir')


def join(processes: Processes, config: RunOptions):
    """Start JAX's distributed runtime, when every process has answered the roll call.

    Errors  UsageError, on every process that came, where one did not come within --init_timeout,
            came twice, or was started with other options; where the port is taken or the
            coordinator cannot be reached.
    """
    if processes.count == 1 or jax.distributed.is_initialized():
        return
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in OWN}
    began = time.monotonic()
    if processes.index == 0:
        _call_roll(processes, options, config.init_timeout)
    else:
        _answer_roll(processes, options, config.init_timeout)
    left = max(int(config.init_timeout - (time.monotonic() - began)), 10)
    jax.distributed.initialize(
        processes.coordinator,
        processes.count,
        processes.index,
        local_device_ids=processes.local_devices,
        cluster_detection_method='deactivate',
        initialization_timeout=left,
        heartbeat_timeout_seconds=HEARTBEAT,
    )


def _call_roll(processes: Processes, options: dict, timeout: float):
    """Process 0 listens on the coordinator's port until all have come; then the port is JAX's."""
    port = int(processes.coordinator.rpartition(':')[2])
    try:
        server = socket.create_server(('', port), backlog=processes.count)
    except OSError as error:
        raise UsageError(
            f'port {port} of {processes.coordinator} cannot be opened ({error.strerror}); another '
            'run may have it: choose another port'
        ) from error
    came: dict[int, socket.socket] = {}
    ends = time.monotonic() + timeout
    fault = ''
    with server:
        while not fault and len(came) < processes.count - 1:
            server.settimeout(max(ends - time.monotonic(), 0.01))
            try:
                peer, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, processes.count)) - set(came))
                fault = (
                    f'process {", ".join(map(str, missing))} of {processes.count} did not come '
                    f'to {processes.coordinator} within {timeout:g} s; see its output, or give '
                    'a longer --init_timeout'
                )
                break
            index, theirs = _heard(peer)
            if index is None:
                peer.close()
                continue
            fault = _difference(processes, options, index, theirs)
            if index in came:
                fault = fault or f'two processes have --process_id {index}; give each its own'
                _send(peer, fault)
                peer.close()
            came.setdefault(index, peer)
        for peer in came.values():
            _send(peer, fault)
        for peer in came.values():  # they close first, so that the port is free at once
            peer.settimeout(5)
            with contextlib.suppress(OSError):
                peer.recv(1)
            peer.close()
    if fault:
        raise CollectiveError(fault)


def _heard(peer: socket.socket) -> tuple[int | None, dict]:
    """(its number, its options) from a process of ours; (None, {}) from a stranger."""
    peer.settimeout(2)
    try:
        with peer.makefile() as lines:
            said = json.loads(lines.readline())
        return int(said['index']), said['options']
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}


def _send(peer: socket.socket, text: str):
    with contextlib.suppress(OSError):  # it is gone: JAX's own timeout will say so
        peer.sendall(json.dumps(text).encode() + b'\n')


def _difference(processes: Processes, options: dict, index: int, theirs: dict) -> str:
    ours = json.loads(json.dumps(options))
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            return (
                f'process {index} was started with --{name} {theirs.get(name)}, process 0 with '
                f'{ours.get(name)}; give all processes the same options'
            )
    if not 0 < index < processes.count:
        return f'a process came as {index} of {processes.count}; ids are 0 to {processes.count - 1}'
    return ''


def _answer_roll(processes: Processes, options: dict, timeout: float):
    host, _, port = processes.coordinator.rpartition(':')
    said = json.dumps({'index': processes.index, 'options': options}).encode() + b'\n'
    ends = time.monotonic() + timeout
    reason = ''
    while (left := ends - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip('[]'), int(port)), timeout=left) as peer:
                peer.sendall(said)
                peer.settimeout(timeout + 5)  # process 0 may have begun to wait later than we
                with peer.makefile() as lines:
                    answer = lines.readline()
        except (OSError, UnicodeDecodeError) as error:  # not up yet, gone, or something else
            reason = getattr(error, 'strerror', None) or str(error)
            time.sleep(min(0.2, max(left, 0)))
            continue
        if answer:
            if fault := json.loads(answer):
                raise CollectiveError(fault)
            return
        reason = 'it closes the connection'
        time.sleep(0.2)
    raise UsageError(
        f'process {processes.index} of {processes.count}: no coordinator at '
        f'{processes.coordinator} within --init_timeout {timeout:g} s ({reason}); start process 0 '
        'there, or correct --coordinator'
    )
