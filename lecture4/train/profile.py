"""A JAX trace of a few steps, for TensorBoard or Perfetto: `--profile`."""

import pathlib

import jax

FIRST, LAST = 10, 20  # steps of the trace: after compilation, and few enough to open


class Profiler:
    """Traces steps 10 to 20 of a run into a directory; a context that ends an open trace.

    Args:
      directory: Where the trace is written.
      enabled: Otherwise nothing is done.
    """

    def __init__(self, directory: pathlib.Path, enabled: bool):
        self._directory = directory
        self._enabled = enabled
        self._tracing = False

    def __enter__(self) -> 'Profiler':
        return self

    def __exit__(self, *error: object):
        self._stop()

    def at(self, step: int):
        """Called before each call of compiled steps, with the number of steps done."""
        if self._enabled and not self._tracing and FIRST <= step < LAST:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True
        elif self._tracing and step >= LAST:
            self._stop()

    def _stop(self):
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing, self._enabled = False, False
