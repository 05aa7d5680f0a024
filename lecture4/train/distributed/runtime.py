"""Devices, processes, signals and the compilation cache, settled before any device is touched."""

import contextlib
import logging
import os
import pathlib
import signal
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lecture4.train.config import RunOptions, UsageError
from lecture4.train.distributed import processes, rendezvous
from lecture4.train.step import AXIS

LOG = logging.getLogger(__name__)
INTERRUPTED = 75  # EX_TEMPFAIL: saved, start me again


class Runtime(NamedTuple):
    """Where a run is carried out: the devices of all processes, and which process this is."""

    mesh: Mesh
    process: int = 0
    n_processes: int = 1

    @property
    def is_primary(self) -> bool:
        """Whether this process writes metrics, figures and reports; checkpoints are by all."""
        return self.process == 0

    def __str__(self):
        devices = list(self.mesh.devices.flat)
        here = sum(device.process_index == self.process for device in devices)
        return (
            f'process {self.process} of {self.n_processes}, '
            f'{here} x {devices[0].device_kind} here, {len(devices)} in all'
        )

    def describe(self) -> dict:
        """For environment.json."""
        devices = list(self.mesh.devices.flat)
        return {
            'backend': jax.default_backend(),
            'devices': [device.device_kind for device in devices],
            'processes': self.n_processes,
            'host_cores': os.cpu_count(),
        }


def start(config: RunOptions) -> Runtime:
    """Set JAX up as the options and the environment ask, find the other processes, take devices.

    Errors  UsageError where fewer devices exist than asked for, or a peer does not come.
    """
    _use_cache(config.cache_dir)
    ours = processes.detect(config)
    if ours.count > 1 and config.parallel == 'pmap':
        raise UsageError(f'--parallel pmap in {ours.count} processes; use --parallel jit')
    if config.devices % ours.count:
        raise UsageError(
            f'--devices {config.devices} cannot be shared by {ours.count} processes; use '
            f'{ours.count} or a multiple of it'
        )
    cpus = config.devices // ours.count
    if config.stage == 'encode' and ours.count == 1 and not cpus:
        cpus = _cores(config)
    # After a device has been touched the number of CPU devices is settled: then RuntimeError.
    with contextlib.suppress(RuntimeError):
        if cpus:
            jax.config.update('jax_num_cpu_devices', cpus)
    rendezvous.join(ours, config)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise UsageError(f'no device to run on: {str(error).splitlines()[0]}') from error
    n_wanted = config.devices or len(devices)
    if n_wanted > len(devices) or (ours.count > 1 and n_wanted < len(devices)):
        raise UsageError(
            f'--devices {config.devices}, but there are {len(devices)} ({devices[0].device_kind}); '
            f'use --devices {len(devices)} or leave it out'
        )
    mesh = Mesh(np.array(devices[:n_wanted]), (AXIS,))
    runtime = Runtime(mesh, jax.process_index(), jax.process_count())
    if runtime.n_processes > 1:  # before the first collective: whoever hangs has said its name
        LOG.info('%s', runtime)
        if not runtime.is_primary:
            logging.getLogger('lecture4').setLevel(logging.WARNING)  # process 0 tells the rest
    return runtime


def _cores(config: RunOptions) -> int:
    """CPU devices to solve for codes on: one for every core, which XLA's own threads gain nothing from."""
    usable = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    cores = len(usable(0))
    batch_size = getattr(config, 'batch_size', cores)  # which devices have to divide
    return max(n for n in range(1, cores + 1) if batch_size % n == 0)


def _use_cache(cache_dir: str):
    """Keep compiled programs between runs, unless the user's own setting says where."""
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
    """A signal asked the run to stop; its state is saved."""


@contextlib.contextmanager
def deferred_signals(n_processes: int = 1):
    """Within: SIGTERM and the first ctrl-C are noted, not obeyed; a second ctrl-C stops at once.

    Yields a function that is given the number of steps done, after every call, and returns the name
    of the signal that came, or None. Of several processes one signal to any of them is enough:
    JAX's preemption service makes all of them stop after the same step.
    """
    if n_processes > 1:
        with _noted_by_all() as stop:
            yield stop
        return
    received = []

    def note(number, frame):
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    with _handled({signal.SIGTERM: note, signal.SIGINT: note}):
        yield lambda n: received[0] if received else None


@contextlib.contextmanager
def _noted_by_all():
    from jax.experimental import multihost_utils

    asked = []
    done: list[int] = []

    def pass_on(number, frame):
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        signal.raise_signal(signal.SIGTERM)  # JAX's own handler has that one

    def stop(n: int) -> str | None:
        # The service names one step, of any number: none may be left out.
        steps = range(done[0] + 1 if done else n, n + 1)
        done[:] = [n]
        return 'SIGTERM' if any(map(multihost_utils.reached_preemption_sync_point, steps)) else None

    with _handled({signal.SIGINT: pass_on}):
        yield stop


@contextlib.contextmanager
def _handled(handlers: dict[signal.Signals, Callable]):
    previous = {}
    for number, handler in handlers.items():
        # signal.signal works in the main thread only; elsewhere the host program has the handlers
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
