"""Devices, processes, signals and the compilation cache: set up before any device is initialized."""

import contextlib
import logging
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lecture4.train.config import RunOptions, UsageError
from lecture4.train.distributed import processes, rendezvous
from lecture4.train.sharding import device_mesh

LOG = logging.getLogger(__name__)
INTERRUPTED = 75  # exit code, EX_TEMPFAIL: the state is saved; run again to resume


class Runtime(NamedTuple):
    """The devices of a run over all processes, and the index of this process.

    Attributes:
      mesh: Devices of all processes, with axis 'data' and, for --model_parallel, 'model'.
      process: Index of this process.
      n_processes: Number of processes.
    """

    mesh: Mesh
    process: int = 0
    n_processes: int = 1

    @property
    def is_primary(self) -> bool:
        """Whether this process writes metrics, figures and reports; all write checkpoints."""
        return self.process == 0

    def __str__(self) -> str:
        devices = list(self.mesh.devices.flat)
        local = sum(device.process_index == self.process for device in devices)
        return (
            f'process {self.process} of {self.n_processes}, '
            f'{local} x {devices[0].device_kind} local, {len(devices)} in total'
        )

    def describe(self) -> dict[str, Any]:
        """The entries of environment.json about devices and processes."""
        devices = list(self.mesh.devices.flat)
        return {
            'backend': jax.default_backend(),
            'devices': [device.device_kind for device in devices],
            'processes': self.n_processes,
            'host_cores': os.cpu_count(),
        }


def start(config: RunOptions) -> Runtime:
    """Configure JAX, connect to the other processes and take the devices of a run.

    Args:
      config: The run's options; `devices`, `platform`, `parallel`, `stage`, `cache_dir` and those of the
        processes are used.

    Returns:
      The devices and processes of the run.

    Raises:
      UsageError: There are fewer devices than requested, or of another kind; options contradict one another; or a
        process is missing (`rendezvous.join`).
    """
    _use_cache(config.cache_dir)
    detected = processes.detect(config)
    if detected.count > 1 and config.parallel == 'pmap':
        raise UsageError(
            f'--parallel pmap works in one process, not in {detected.count}; use --parallel jit'
        )
    if config.devices % detected.count:
        raise UsageError(
            f'--devices {config.devices} is not divisible by {detected.count} processes; use '
            f'{detected.count} or a multiple of it'
        )
    cpus = config.devices // detected.count
    if config.stage == 'encode' and detected.count == 1 and not cpus:
        cpus = _cores(config)
    # The number of CPU devices is fixed once a device is initialized: then RuntimeError.
    with contextlib.suppress(RuntimeError):
        if cpus:
            jax.config.update('jax_num_cpu_devices', cpus)
    rendezvous.join(detected, config)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise UsageError(f'no device is available: {str(error).splitlines()[0]}') from error
    if config.platform not in ('any', devices[0].platform):
        extra = {'gpu': 'cuda', 'tpu': 'tpu'}.get(config.platform)
        install = f'install jax[{extra}] and check the drivers, or ' if extra else ''
        raise UsageError(
            f'--platform {config.platform}, but JAX sees {len(devices)} x {devices[0].device_kind}; '
            f'{install}use --platform any'
        )
    n_devices = config.devices or len(devices)
    if n_devices > len(devices) or (detected.count > 1 and n_devices < len(devices)):
        raise UsageError(
            f'--devices {config.devices}, but {len(devices)} are available ({devices[0].device_kind}); '
            f'use --devices {len(devices)} or omit it'
        )
    mesh = device_mesh(devices[:n_devices], config.model_parallel)
    runtime = Runtime(mesh, jax.process_index(), jax.process_count())
    if (
        runtime.n_processes > 1
    ):  # before the first collective, so that the log names a process that hangs
        LOG.info('%s', runtime)
        if not runtime.is_primary:
            logging.getLogger('lecture4').setLevel(logging.WARNING)  # process 0 logs for all
    return runtime


def _cores(config: RunOptions) -> int:
    """Number of CPU devices for encoding: one per core, since XLA's own threads do not speed up solvers."""
    usable = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    cores = len(usable(0))
    batch_size = getattr(config, 'batch_size', cores)  # must be divisible by the devices
    return max(n for n in range(1, cores + 1) if batch_size % n == 0)


def _use_cache(cache_dir: str) -> None:
    """Cache compiled programs between runs, in the directory that JAX's own option names if it is set."""
    if cache_dir == 'none':
        jax.config.update('jax_enable_compilation_cache', False)
        return
    if cache_dir == 'auto':
        if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
            return
        root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
        cache_dir = str(pathlib.Path(root) / 'lecture4' / 'compiled')
    jax.config.update('jax_compilation_cache_dir', cache_dir)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


class Interrupted(Exception):
    """A signal stopped the run; its state is saved."""


@contextlib.contextmanager
def deferred_signals(n_processes: int = 1) -> Iterator[Callable[[int], str | None]]:
    """Within the context, SIGTERM and the first Ctrl-C are recorded instead of obeyed.

    A second Ctrl-C raises KeyboardInterrupt at once. A signal to any one of several processes is
    enough: JAX's preemption service makes all of them stop after the same step.

    Args:
      n_processes: Number of processes of the run.

    Yields:
      A function to call after every step with the number of steps done; it returns the name of the
      signal received, or None.
    """
    if n_processes > 1:
        with _deferred_on_all() as received_signal:
            yield received_signal
        return
    received: list[str] = []

    def record(number: int, frame: Any) -> None:
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    with _handlers({signal.SIGTERM: record, signal.SIGINT: record}):
        yield lambda n: received[0] if received else None


@contextlib.contextmanager
def _deferred_on_all() -> Iterator[Callable[[int], str | None]]:
    from jax.experimental import multihost_utils

    received: list[int] = []
    last_step: list[int] = []

    def forward(number: int, frame: Any) -> None:
        del frame
        if received:
            raise KeyboardInterrupt
        received.append(number)
        signal.raise_signal(signal.SIGTERM)  # handled by JAX's preemption service

    def received_signal(n: int) -> str | None:
        # The service names one step, of any number: none may be skipped.
        steps = range(last_step[0] + 1 if last_step else n, n + 1)
        last_step[:] = [n]
        return 'SIGTERM' if any(map(multihost_utils.reached_preemption_sync_point, steps)) else None

    with _handlers({signal.SIGINT: forward}):
        yield received_signal


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[int, Any], None]]) -> Iterator[None]:
    previous = {}
    for number, handler in handlers.items():
        # signal.signal works in the main thread only; elsewhere the host program owns the handlers.
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
