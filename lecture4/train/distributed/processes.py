"""One process or several: who decides that, and how processes agree on errors and decisions."""

import itertools
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

from lecture4.train.config import RunOptions, UsageError

Value = TypeVar('Value')
TPU_PORT = 8482
_counter = itertools.count()  # of exchanges: all processes make the same ones in the same order


class Processes(NamedTuple):
    """The processes of a run, as one of them sees them."""

    count: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    index: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]
    coordinator: str = ''  # HOST:PORT of process 0
    local_devices: tuple[int, ...] | None = None  # accelerators of this host that are ours; all
    source: str = 'alone'


class CollectiveError(UsageError):
    """A mistake that all processes know of: they stop together."""


def detect(config: RunOptions, environ: Mapping[str, str] = os.environ) -> Processes:
    """Explicit flags, a Slurm step of several tasks, a TPU pod, or one process; in that order.

    Looks at options and environment, and on a TPU host at its metadata server; touches no device.
    Errors  UsageError where flags are incomplete or contradict one another.
    """
    if config.coordinator or config.processes or config.process_id >= 0:
        return _from_flags(config)
    return _from_slurm(environ) or _from_tpu(environ) or Processes()


def _from_flags(config: RunOptions) -> Processes:
    count, index = config.processes, config.process_id
    if not (config.coordinator and count >= 1 and index >= 0):
        raise UsageError(
            f"--coordinator '{config.coordinator}' --processes {count} --process_id {index}: give "
            'all three (HOST:PORT of process 0, how many, which one), or none'
        )
    if index >= count:
        raise UsageError(
            f'--process_id {index} of --processes {count}; process ids are 0 to {count - 1}'
        )
    if not re.fullmatch(r'.+:\d{1,5}', config.coordinator):
        raise UsageError(f'--coordinator {config.coordinator}: HOST:PORT of process 0 is wanted')
    if count == 1:
        return Processes(source='flags')
    own = os.environ.get('JAX_LOCAL_DEVICE_IDS')
    devices = tuple(map(int, own.split(','))) if own else None
    return Processes(count, index, config.coordinator, devices, 'flags')


def _from_slurm(environ) -> Processes | None:
    """Inside an `srun` step of several tasks; a batch script itself is no step."""
    nodes = environ.get('SLURM_STEP_NODELIST')
    count = int(environ.get('SLURM_STEP_NUM_TASKS') or environ.get('SLURM_NTASKS') or 1)
    if not nodes or count == 1 or 'SLURM_PROCID' not in environ:
        return None
    name = re.match(r'([^,\[]+)(?:\[([^,\-\]]+)[^\]]*\]([^,\[]*))?', nodes)
    assert name is not None
    host = ''.join(part or '' for part in name.groups())
    job, step = int(environ['SLURM_JOB_ID']), int(environ.get('SLURM_STEP_ID', 0))
    # Above Linux's ephemeral ports; the step is in it because steps of one job run side by side.
    port = environ.get('JAX_COORDINATOR_PORT') or 61440 + (8 * job + step) % 4096
    devices = None
    visible = environ.get('CUDA_VISIBLE_DEVICES', '')
    bound = visible.isdigit()  # Slurm has bound one GPU to this task
    if int(environ.get('SLURM_STEP_NUM_NODES', 1)) < count and not bound:
        devices = (int(environ.get('SLURM_LOCALID', 0)),)
    return Processes(count, int(environ['SLURM_PROCID']), f'{host}:{port}', devices, 'Slurm')


def _from_tpu(environ) -> Processes | None:
    """A slice of several TPU hosts: GKE tells by environment, TPU VMs by their metadata."""
    names = environ.get('TPU_PROCESS_ADDRESSES') or environ.get('TPU_WORKER_HOSTNAMES')
    index = int(environ.get('TPU_WORKER_ID', 0))
    if not names and _is_tpu_vm(environ):
        names = _metadata('worker-network-endpoints', environ)
        index = int(_metadata('agent-worker-number', environ) or 0)
    if not names:
        return None
    # name:id:address, address:port or a bare name
    split = [name.split(':') for name in names.split(',')]
    hosts = [parts[2] if len(parts) == 3 else parts[0] for parts in split]
    slices = int(environ.get('MEGASCALE_NUM_SLICES') or 1)
    index += len(hosts) * int(environ.get('MEGASCALE_SLICE_ID') or 0)
    count = len(hosts) * slices
    if count == 1:
        return None
    host = environ.get('MEGASCALE_COORDINATOR_ADDRESS', hosts[0]).split(':')[0]
    port = environ.get('JAX_COORDINATOR_PORT') or TPU_PORT
    return Processes(count, index, f'{host}:{port}', None, 'TPU')


def _is_tpu_vm(environ) -> bool:
    if 'TPU_SKIP_MDS_QUERY' in environ:
        return False
    return 'GCE_METADATA_IP' in environ or any(
        os.path.exists(path) for path in ('/dev/accel0', '/dev/vfio/0')
    )


def _metadata(key: str, environ) -> str:
    host = environ.get('GCE_METADATA_IP', 'metadata.google.internal')
    request = urllib.request.Request(
        f'http://{host}/computeMetadata/v1/instance/attributes/{key}',
        headers={'Metadata-Flavor': 'Google'},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.URLError):  # GPUs under vfio, TPUs without a metadata server
        return ''


def _client():
    from jax._src import distributed  # the key-value store has no public name; orbax uses it too

    return distributed.global_state.client


def all_gather(value: Any) -> list[Any]:
    """The values, plain data, of all processes in order; returns when all have given theirs."""
    client = _client()
    if client is None:
        return [value]
    number = next(_counter)
    key = f'lecture4/{number}'
    client.key_value_set(f'{key}/{jax.process_index()}', json.dumps(value))
    return [json.loads(_get(client, f'{key}/{i}')) for i in range(jax.process_count())]


def _get(client, key: str) -> str:
    while True:  # a report may take its time; a dead peer ends us through its heartbeat
        try:
            return client.blocking_key_value_get(key, 60_000)
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' not in str(error):
                raise


def broadcast_from_primary(function: Callable[[], Value]) -> Value:
    """What process 0 finds, plain data, on all processes: for decisions that read shared files."""
    if _client() is None:
        return function()
    fault, value = '', None
    if jax.process_index() == 0:
        try:
            value = function()
        except UsageError as error:
            fault = str(error)
    fault, value = all_gather([fault, value])[0]
    if fault:
        raise CollectiveError(fault)
    return value


def run_on_all(function: Callable[[], Value]) -> Value:
    """function(), on all processes; a UsageError of one is raised by all."""
    if _client() is None:
        return function()
    fault, value = '', None
    try:
        value = function()
    except UsageError as error:
        fault = str(error)
    if faults := [text for text in all_gather(fault) if text]:
        raise CollectiveError(faults[0])
    return value  # pyright: ignore[reportReturnType]
