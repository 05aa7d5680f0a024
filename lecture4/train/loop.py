"""The loop that every experiment runs in: restore, step, log, evaluate, save, stop cleanly."""

import logging
import pathlib
import time

import jax
import numpy as np

from lecture4.train import progress
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import Common
from lecture4.train.distributed.runtime import Interrupted, Runtime, deferred_signals
from lecture4.train.metric_writer import Log, NoLog, read
from lecture4.train.step import Program, compile_program

LOG = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """A metric became NaN or inf; the message names it, the step and the last good checkpoint."""


def run(program: Program, config: Common, runtime: Runtime, directory, title='step'):
    """Train for `config.steps` steps in a run directory, resuming what it holds.

    Batch n and the randomness of step n are functions of (seed, n), so a run that was broken off
    at any moment and started again ends in the same bits as an unbroken one. Of several processes
    all call this; process 0 writes the metrics, all write the checkpoints.

    Returns  the final state.
    Errors   Interrupted after SIGTERM or ctrl-C, with everything saved; Diverged; CheckpointError.
    """
    directory = pathlib.Path(directory)
    if runtime.n_processes == 1:
        LOG.info('%s', runtime)
    compiled = compile_program(program, runtime.mesh, config.parallel)
    checkpoints = Checkpoints(directory / 'checkpoints', config.keep)
    try:
        restored = checkpoints.restore(compiled.like)
        if restored is None:
            n, state = 0, compiled.init()
        else:
            n, state = restored
            LOG.info('restored step %d from %s', n, checkpoints.directory)
        rows = read(directory / 'metrics.jsonl') if runtime.is_primary else []
        spent = max((row['seconds'] for row in rows if row['step'] <= n), default=0.0)
        log, style = NoLog(), 'none'
        if runtime.is_primary:
            kept = -1 if restored is None else n
            log = Log(directory / 'metrics.jsonl', kept, directory / 'events')
            style = config.progress
        try:
            with (
                deferred_signals(runtime.n_processes) as stop_signal,
                progress.display(style, n, config.steps, title) as show,
            ):
                book = _Book(log, checkpoints, config, show, time.monotonic() - spent)
                return _steps(compiled, state, n, config, book, checkpoints, stop_signal)
        finally:
            log.close()
    finally:
        checkpoints.close()


def _steps(compiled, state, n, config, book, checkpoints, stop_signal):
    """Steps n .. config.steps - 1; metrics are read one call late, so that devices stay busy."""

    def evaluate():
        if compiled.evaluate is not None:
            book.evaluation(n, compiled.evaluate(state))

    def save():
        book.settle(0)  # a state is saved only when its metrics are known to be finite
        book.log.sync()
        checkpoints.save(n, state)

    if n == 0:
        evaluate()
    while n < config.steps:
        n_steps = min(config.steps_per_call, config.steps - n)
        state, metrics = compiled.advance(state, n, n_steps)
        book.pending.append((n, n_steps, metrics))
        n += n_steps
        progress.heartbeat(n)
        if n % config.log_every == 0:
            book.settle(1)
        last = n == config.steps
        if last or n % config.evaluate_every == 0:
            book.settle(0)
            evaluate()
        if last or n % config.save_every == 0:
            save()
        if (name := stop_signal(n)) and not last:
            save()
            checkpoints.wait()
            raise Interrupted(f'{name}: saved step {n}; run the same command to resume')
    checkpoints.wait()
    progress.heartbeat(None)
    return state


class _Book:
    """Metrics on their way from the device to metrics.jsonl and the screen."""

    def __init__(
        self, log: Log | NoLog, checkpoints: Checkpoints, config: Common, show, began: float
    ):
        self.log = log
        self.pending = []  # (n, n_steps, metrics on the device)
        self._checkpoints = checkpoints
        self._log_every = config.log_every
        self._show = show
        self._began = began

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

    def evaluation(self, step: int, metrics):
        """A row of its own for an evaluation, its metrics named evaluation/*."""
        values = {f'evaluation/{name}': value for name, value in jax.device_get(metrics).items()}
        self._check(step, values)
        self._write(step, values)

    def _write(self, step, values):
        self.log.write(step, values, time.monotonic() - self._began)
        self._show(step, {name: float(np.mean(value)) for name, value in values.items()})

    def _check(self, step, values):
        """A stack of variants goes on while one of them is finite; a run of one stops."""
        for name, value in values.items():
            if not np.any(np.isfinite(value)):
                good = self._checkpoints.latest_step()
                where = 'there is no checkpoint yet'
                if good is not None:
                    where = f'last good checkpoint: step {good} in {self._checkpoints.directory}'
                raise Diverged(f'{name} is {np.ravel(value)[0]} at step {step}; {where}')
