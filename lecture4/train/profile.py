"""A JAX profiler trace of a few training steps: `--profile`."""

import logging
import os
import pathlib
from types import TracebackType
from typing import Any

import jax

LOG = logging.getLogger(__name__)
FIRST_STEP, LAST_STEP = 10, 20  # counted from the start of this process: past compilation


class Profiler:
    """Traces steps 10 to 20 of a run into a directory that TensorBoard and Perfetto open.

    A context manager around the loop, which calls `at` before each call of the step:

        with Profiler(directory / 'profile', config.profile) as profiler:
            while n < steps:
                profiler.at(n, state)
                state, metrics = step(state, batch(n))

    The directory holds `plugins/profile/TIME/*.xplane.pb` for TensorBoard's profile plugin and
    `perfetto_trace.json.gz` for ui.perfetto.dev.
    """

    def __init__(self, directory: str | os.PathLike, enabled: bool):
        """Create a profiler; nothing is written before step 10.

        Args:
          directory: Where the trace is written.
          enabled: Whether to trace at all; with several processes, True on one of them.
        """
        self._directory = pathlib.Path(directory)
        self._waiting = enabled
        self._tracing = False
        self._first_seen: int | None = None

    def __enter__(self) -> 'Profiler':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del error, traceback
        if self._tracing:
            self._stop()
        elif self._waiting and kind is None:
            LOG.warning(
                '--profile: the run ended before step %d of this process; nothing was traced',
                FIRST_STEP,
            )

    def at(self, step: int, state: Any = None) -> None:
        """Start or stop the trace, if it is time.

        Args:
          step: Number of steps done, at the start of a call of one or several steps.
          state: Pytree of arrays to wait for before the trace starts or stops, so that it holds
            whole steps: calls are asynchronous.
        """
        if self._first_seen is None:
            self._first_seen = step
        n = step - self._first_seen
        if self._waiting and n >= FIRST_STEP:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._waiting, self._tracing = False, True
        elif self._tracing and n >= LAST_STEP:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        LOG.info('profile: %s', self._directory)
