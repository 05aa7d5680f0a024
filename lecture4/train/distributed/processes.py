"""The processes of a run: how they are detected, and host-side collectives between them."""

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
_counter = itertools.count()  # all processes make the same collective calls in the same order


class Processes(NamedTuple):
    """The processes of a run, as seen by one of them.

    Attributes:
      count: Number of processes.
      index: Index of this process, from 0.
      coordinator: HOST:PORT of process 0; empty for a single process.
      local_devices: Accelerators of this host that belong to this process; None for all.
      source: Source of these values: 'flags', 'Slurm', 'TPU' or 'single process'.
    """

    count: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    index: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]
    coordinator: str = ''
    local_devices: tuple[int, ...] | None = None
    source: str = 'single process'


class CollectiveError(UsageError):
    """A usage error that every process raises, so that all of them stop."""


def detect(config: RunOptions, environ: Mapping[str, str] = os.environ) -> Processes:
    """Detect the processes of a run from options, a Slurm step or a TPU pod; otherwise there is a single one.

    Reads options and environment variables, and the metadata server on a TPU host. Initializes no
    device.

    Args:
      config: Its `coordinator`, `processes` and `process_id` take precedence where given.
      environ: Environment variables.

    Returns:
      The processes; a single one where neither options nor environment name several.

    Raises:
      UsageError: The options are incomplete or contradict one another.
    """
    if config.coordinator or config.processes or config.process_id >= 0:
        return _from_flags(config)
    return _from_slurm(environ) or _from_tpu(environ) or Processes()


def _from_flags(config: RunOptions) -> Processes:
    count, index = config.processes, config.process_id
    if not (config.coordinator and count >= 1 and index >= 0):
        raise UsageError(
            f"--coordinator '{config.coordinator}' --processes {count} --process_id {index}: give "
            'all three (HOST:PORT of process 0, number of processes, index of this one), or none'
        )
    if index >= count:
        raise UsageError(
            f'--process_id {index} is out of range for --processes {count}; expected 0 to {count - 1}'
        )
    if not re.fullmatch(r'.+:\d{1,5}', config.coordinator):
        raise UsageError(f'--coordinator {config.coordinator}: expected HOST:PORT of process 0')
    if count == 1:
        return Processes(source='flags')
    device_ids = os.environ.get('JAX_LOCAL_DEVICE_IDS')
    devices = tuple(map(int, device_ids.split(','))) if device_ids else None
    return Processes(count, index, config.coordinator, devices, 'flags')


def _from_slurm(environ: Mapping[str, str]) -> Processes | None:
    """The tasks of an `srun` step, if there are several; a batch script is not a step."""
    nodes = environ.get('SLURM_STEP_NODELIST')
    count = int(environ.get('SLURM_STEP_NUM_TASKS') or environ.get('SLURM_NTASKS') or 1)
    if not nodes or count == 1 or 'SLURM_PROCID' not in environ:
        return None
    name = re.match(r'([^,\[]+)(?:\[([^,\-\]]+)[^\]]*\]([^,\[]*))?', nodes)
    assert name is not None
    host = ''.join(part or '' for part in name.groups())
    job, step = int(environ['SLURM_JOB_ID']), int(environ.get('SLURM_STEP_ID', 0))
    # Above Linux's ephemeral ports; it depends on the step because steps of a job may run concurrently.
    port = environ.get('JAX_COORDINATOR_PORT') or 61440 + (8 * job + step) % 4096
    devices = None
    visible = environ.get('CUDA_VISIBLE_DEVICES', '')
    has_own_gpu = visible.isdigit()  # Slurm has bound one GPU to this task
    if int(environ.get('SLURM_STEP_NUM_NODES', 1)) < count and not has_own_gpu:
        devices = (int(environ.get('SLURM_LOCALID', 0)),)
    return Processes(count, int(environ['SLURM_PROCID']), f'{host}:{port}', devices, 'Slurm')


def _from_tpu(environ: Mapping[str, str]) -> Processes | None:
    """The hosts of a TPU slice: GKE names them in the environment, TPU VMs in their metadata."""
    names = environ.get('TPU_PROCESS_ADDRESSES') or environ.get('TPU_WORKER_HOSTNAMES')
    index = int(environ.get('TPU_WORKER_ID', 0))
    if not names and _is_tpu_vm(environ):
        names = _metadata('worker-network-endpoints', environ)
        index = int(_metadata('agent-worker-number', environ) or 0)
    if not names:
        return None
    # Each is name:id:address, address:port or a plain host name.
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


def _is_tpu_vm(environ: Mapping[str, str]) -> bool:
    if 'TPU_SKIP_MDS_QUERY' in environ:
        return False
    return 'GCE_METADATA_IP' in environ or any(
        os.path.exists(path) for path in ('/dev/accel0', '/dev/vfio/0')
    )


def _metadata(key: str, environ: Mapping[str, str]) -> str:
    host = environ.get('GCE_METADATA_IP', 'metadata.google.internal')
    request = urllib.request.Request(
        f'http://{host}/computeMetadata/v1/instance/attributes/{key}',
        headers={'Metadata-Flavor': 'Google'},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.read().decode()
    except (OSError, urllib.error.URLError):  # GPUs under vfio, TPUs without a metadata server
        return ''


def _client() -> Any:
    from jax._src import distributed  # the key-value store has no public name; orbax uses it too

    return distributed.global_state.client


def all_gather(value: Any) -> list[Any]:
    """Gather one JSON-serializable value of each process.

    A collective: blocks until every process has called it.

    Args:
      value: This process's value.

    Returns:
      The values of all processes in order of their index, on every process.
    """
    client = _client()
    if client is None:
        return [value]
    number = next(_counter)
    key = f'lecture4/{number}'
    client.key_value_set(f'{key}/{jax.process_index()}', json.dumps(value))
    return [json.loads(_get(client, f'{key}/{i}')) for i in range(jax.process_count())]


def _get(client: Any, key: str) -> str:
    while True:  # a report may take minutes; a dead peer is noticed by JAX's heartbeat
        try:
            return client.blocking_key_value_get(key, 60_000)
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' not in str(error):
                raise


def broadcast_from_primary(function: Callable[[], Value]) -> Value:
    """Call a function on process 0 and return its result on every process.

    A collective, for decisions that depend on shared files.

    Args:
      function: Returns JSON-serializable data; called on process 0 alone.

    Returns:
      The function's result, on every process.

    Raises:
      CollectiveError: The function raised a UsageError; raised on every process.
    """
    if _client() is None:
        return function()
    message, value = '', None
    if jax.process_index() == 0:
        try:
            value = function()
        except UsageError as error:
            message = str(error)
    message, value = all_gather([message, value])[0]
    if message:
        raise CollectiveError(message)
    return value


def run_on_all(function: Callable[[], Value]) -> Value:
    """Call a function on every process; a UsageError of one is raised by all.

    A collective.

    Args:
      function: Called once on each process.

    Returns:
      This process's own result.

    Raises:
      CollectiveError: The function raised a UsageError on some process; raised on every process.
    """
    if _client() is None:
        return function()
    message, value = '', None
    try:
        value = function()
    except UsageError as error:
        message = str(error)
    if messages := [text for text in all_gather(message) if text]:
        raise CollectiveError(messages[0])
    return value  # pyright: ignore[reportReturnType]
