"""The loop that every experiment runs in: restore, step, log, evaluate, save, stop cleanly."""

import logging
import math
import pathlib
import time

import jax
import numpy as np

from lecture4.train import experiment_tracker, progress
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import TIMES_A_RUN, Config, cadence
from lecture4.train.distributed.processes import run_on_all
from lecture4.train.distributed.runtime import Interrupted, Runtime, deferred_signals
from lecture4.train.metric_writer import MetricWriter, NullWriter, read
from lecture4.train.metrics import Metric, check_metrics
from lecture4.train.profile import Profiler
from lecture4.train.step import BoundTask, compile_task

LOG = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """A metric became NaN or inf; the message names it, the step and the last good checkpoint."""


def run(
    bound: BoundTask,
    config: Config,
    runtime: Runtime,
    directory: pathlib.Path | str,
    title: str = 'step',
    *,
    metrics: tuple[Metric, ...] = (),
):
    """Train for `config.steps` steps in a run directory, resuming the run it holds.

    Batch n and the randomness of step n are functions of (seed, n), so a run that was killed at any
    moment and started again ends in the same bits as an uninterrupted one. All processes call this;
    process 0 writes the metrics, all write the checkpoints.

    Args:
      bound: What to train.
      config: Its config.
      runtime: Devices and processes.
      directory: The run directory.
      title: Shown with the progress.
      metrics: Declared metrics; keys that are not declared raise an error. The best checkpoint by
        the primary one is kept, where `evaluate` measures it.

    Returns:
      The final state.

    Raises:
      Interrupted: By SIGTERM or Ctrl-C; everything is saved.
      Diverged: A metric is not finite.
      CheckpointError: A checkpoint cannot be read or written.
    """
    directory = pathlib.Path(directory)
    if runtime.n_processes == 1:
        LOG.info('%s', runtime)
    compiled = compile_task(bound, runtime.mesh, config.parallel, config.load_compiled)
    checkpoints = Checkpoints(directory / 'checkpoints', config.keep)
    try:
        restored = checkpoints.restore(compiled.abstract_state)
        if restored is None:
            n, state = 0, compiled.init()
        else:
            n, state = restored
            LOG.info('restored step %d from %s', n, checkpoints.directory)
        rows = read(directory / 'metrics.jsonl') if runtime.is_primary else []
        spent = max((row.get('seconds', 0.0) for row in rows if row['step'] <= n), default=0.0)
        writer, style = NullWriter(), 'none'
        tracker = None
        if config.log != 'none':
            tracker = run_on_all(
                lambda: (
                    experiment_tracker.start(config, directory, title)
                    if runtime.is_primary
                    else None
                )
            )
        if runtime.is_primary:
            last_step = -1 if restored is None else n
            path = directory / 'metrics.jsonl'
            writer = MetricWriter(path, last_step, directory / 'events', tracker)
            style = config.progress
        try:
            with (
                deferred_signals(runtime.n_processes) as stop_signal,
                progress.display(style, n, config.steps, title) as show,
                Profiler(directory / 'profile', config.profile and runtime.is_primary) as profiler,
            ):
                buffer = MetricBuffer(
                    writer, checkpoints, config, show, time.monotonic() - spent, metrics
                )
                return _steps(
                    compiled, state, n, config, buffer, checkpoints, stop_signal, profiler
                )
        finally:
            writer.close()
    finally:
        checkpoints.close()


def _steps(compiled, state, n, config, buffer, checkpoints, stop_signal, profiler):
    """Steps n .. config.steps - 1; metrics are read one call late, so that devices stay busy."""
    every = {name: cadence(config, name) for name in TIMES_A_RUN}

    def evaluate():
        if compiled.evaluate is not None and buffer.evaluation(n, compiled.evaluate(state)):
            checkpoints.save_best(n, state, *buffer.best)

    def save():
        buffer.settle(0)  # a state is saved only when its metrics are known to be finite
        buffer.writer.sync()
        checkpoints.save(n, state)

    if n == 0:
        evaluate()
    while n < config.steps:
        n_steps = min(config.steps_per_call, config.steps - n)
        profiler.at(n, state)
        state, metrics = compiled.run_steps(state, n, n_steps)
        buffer.pending.append((n, n_steps, metrics))
        n += n_steps
        progress.heartbeat(n)
        if n % every['log_every'] == 0:
            buffer.settle(1)
        last = n == config.steps
        if last or n % every['evaluate_every'] == 0:
            buffer.settle(0)
            evaluate()
        if last or n % every['save_every'] == 0:
            save()
        if (name := stop_signal(n)) and not last:
            save()
            checkpoints.wait()
            raise Interrupted(f'{name}: saved step {n}; run the same command to resume')
    checkpoints.wait()
    progress.heartbeat(None)
    return state


class MetricBuffer:
    """Buffer of metrics between the device and metrics.jsonl and the screen."""

    def __init__(
        self,
        writer: MetricWriter | NullWriter,
        checkpoints: Checkpoints,
        config: Config,
        show,
        start_time: float,
        metrics: tuple[Metric, ...],
    ):
        self.writer = writer
        self.pending = []  # (n, n_steps, metrics on the device)
        self._checkpoints = checkpoints
        self._log_every = cadence(config, 'log_every')
        self._show = show
        self._start_time = start_time
        self._metrics = metrics
        self.best: tuple[float, str] = (math.nan, '')  # the primary metric, and its direction

    def settle(self, n_left: int):
        """Read all pending calls but the newest `n_left`; write the rows that are due."""
        ready = self.pending[: len(self.pending) - n_left]
        self.pending = self.pending[len(ready) :]
        for (n, n_steps, _), metrics in zip(
            ready, jax.device_get([m for *_, m in ready]), strict=True
        ):
            for i in range(n_steps):
                step = n + i + 1
                values = {name: value[i] for name, value in metrics.items()}
                self._check(step, values)
                if step % self._log_every == 0:
                    self._write(step, values)

    def evaluation(self, step: int, metrics) -> bool:
        """Write a row of an evaluation, its metrics named eval/*; True where it measures the primary metric."""
        values = {f'eval/{name}': value for name, value in jax.device_get(metrics).items()}
        self._check(step, values)
        self._write(step, values)
        primary = next((metric for metric in self._metrics if metric.primary), None)
        if primary is None or not primary.better:
            return False
        value = values.get(f'eval/{primary.name}')
        if value is None or np.ndim(value):  # a stack of variants has no single best state
            return False
        self.best = (float(value), primary.better)
        return True

    def _write(self, step, values):
        if self._metrics:
            check_metrics(self._metrics, values, f'step {step}', primary_required=False)
        self.writer.write(step, values, time.monotonic() - self._start_time)
        self._show(step, {name: float(np.mean(value)) for name, value in values.items()})

    def _check(self, step, values):
        """A stack of variants continues while one of them is finite; a single run stops."""
        for name, value in values.items():
            if not np.any(np.isfinite(value)):
                good = self._checkpoints.latest_step()
                where = 'there is no checkpoint yet'
                if good is not None:
                    where = f'last good checkpoint: step {good} in {self._checkpoints.directory}'
                raise Diverged(f'{name} is {np.ravel(value)[0]} at step {step}; {where}')
