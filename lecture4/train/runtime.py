"""Devices, processes, signals and the compilation cache, settled before any device is touched."""

import contextlib
import os
import pathlib
import signal
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lecture4.train.config import Run, UsageError
from lecture4.train.step import AXIS

INTERRUPTED = 75  # EX_TEMPFAIL: saved, start me again


class Runtime(NamedTuple):
    """Where a run is carried out. One process today; `process` and `n_processes` say which."""

    mesh: Mesh
    process: int = 0
    n_processes: int = 1

    def __str__(self):
        devices = list(self.mesh.devices.flat)
        return (
            f'process {self.process} of {self.n_processes}, '
            f'{len(devices)} x {devices[0].device_kind}'
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


def start(config: Run) -> Runtime:
    """Set JAX up as the options ask, and take the devices.

    Errors  UsageError where fewer devices exist than asked for.
    """
    _use_cache(config.cache_dir)
    # After a device has been touched the number of CPU devices is settled: then RuntimeError.
    with contextlib.suppress(RuntimeError):
        if config.devices:
            jax.config.update('jax_num_cpu_devices', config.devices)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise UsageError(f'no device to run on: {str(error).splitlines()[0]}') from error
    if config.devices > len(devices):
        raise UsageError(
            f'--devices {config.devices}, but there are {len(devices)} ({devices[0].device_kind}); '
            f'use --devices {len(devices)} or leave it out'
        )
    devices = devices[: config.devices or len(devices)]
    return Runtime(Mesh(np.array(devices), (AXIS,)))


def _use_cache(cache_dir: str):
    """Keep compiled programs between runs, unless the user's own setting says where."""
    if cache_dir == 'none':
        jax.config.update('jax_enable_compilation_cache', False)
        return
    if cache_dir == 'auto':
        if jax.config.jax_compilation_cache_dir:
            return
        root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
        cache_dir = str(pathlib.Path(root) / 'lecture4' / 'compiled')
    jax.config.update('jax_compilation_cache_dir', cache_dir)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved."""


@contextlib.contextmanager
def signals_noted():
    """Within: SIGTERM and the first ctrl-C are noted, not obeyed; a second ctrl-C stops at once.

    Yields a function that returns the name of the signal that came, or None.
    """
    received = []

    def note(number, frame):
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        # signal.signal works in the main thread only; elsewhere the host program has the handlers
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
