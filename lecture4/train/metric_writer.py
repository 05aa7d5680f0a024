"""metrics.jsonl: one line for each logged step, the record of a run that curves and reports read."""

import contextlib
import itertools
import json
import math
import os
import pathlib
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lecture4.train.config import UsageError


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """All complete rows of a metrics.jsonl; an empty list if there is no such file.

    A last line that a kill truncated is left out.

    Raises:
      UsageError: Any other line is not JSON or no row of a run; the message names it.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b'\n')
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                row = json.loads(line)
                if not _is_number(row['step']) or not _is_number(row.get('seconds', 0)):
                    raise TypeError(row)
                rows.append(row)
        except (ValueError, KeyError, TypeError, AttributeError):
            if number < len(lines):  # text after the last newline is incomplete
                raise UsageError(
                    f'{path} line {number} is not a row of JSON with a step; repair or remove it'
                ) from None
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def phase_seconds(path: str | os.PathLike, last_steps: Sequence[int]) -> list[float]:
    """Seconds that each phase of a run took: the median time per step between two rows, times its steps.

    Args:
      path: A metrics.jsonl. Rows after a restart, whose clock begins again, are left out.
      last_steps: Last step of each phase, increasing.

    Returns:
      One number per phase; NaN where no two rows lie in a phase.
    """
    rows, result, start = read(path), [], 0
    for last in last_steps:
        times = []
        for before, row in itertools.pairwise(rows):
            steps, seconds = row['step'] - before['step'], row['seconds'] - before['seconds']
            if start < row['step'] <= last and steps > 0 and seconds > 0:
                times.append(seconds / steps)
        result.append(statistics.median(times) * (last - start) if times else float('nan'))
        start = last
    return result


class MetricWriter:
    """Appends rows to metrics.jsonl, and scalars to TensorBoard's event files where it is installed.

    Opened at a step, it first drops the rows after that step: they will be written again.

    Args:
      path: The file.
      restored_step: Step of the checkpoint that the run continues from; -1 at its start.
      tensorboard_dir: Folder of event files; None writes none.
      tracker: Run of Weights & Biases that scalars are sent to, from `experiment_tracker.start`, or None.

    Raises:
      UsageError: A row cannot be written (by `write`, `sync`).
    """

    def __init__(
        self,
        path: str | os.PathLike,
        restored_step: int,
        tensorboard_dir: str | os.PathLike | None = None,
        tracker: Any = None,
    ):
        self._path = pathlib.Path(path)
        rows = [row for row in read(path) if row['step'] <= restored_step]
        temporary = self._path.with_suffix('.tmp')
        temporary.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        os.replace(temporary, self._path)
        self._file = self._path.open('a')
        self._events = _event_writer(tensorboard_dir, restored_step)
        self._tracker = tracker

    def write(self, step: int, values: Mapping[str, Any], seconds: float) -> None:
        """Write one row, flushed at once: the step, seconds since the run's start, and the metrics."""
        plain = {name: _plain(np.asarray(value).tolist()) for name, value in values.items()}
        row = json.dumps({'step': step, 'seconds': round(seconds, 3), **plain})
        with self._write_errors():
            self._file.write(row + '\n')
            self._file.flush()
        scalars = {name: value for name, value in plain.items() if isinstance(value, float)}
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(scalars, step=step)

    def sync(self) -> None:
        """Wait until the rows are on disk; called before a checkpoint that follows them."""
        with self._write_errors():
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f'cannot write {self._path}: {error.strerror}; free some disk space, then run the '
                'same command to resume'
            ) from error

    def close(self) -> None:
        """Close the files; no rows after this."""
        with contextlib.suppress(OSError):  # the loss of these rows has been reported
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):  # a copy of metrics.jsonl
                self._events.close()
        if self._tracker is not None:
            self._tracker.finish()


def write_hyperparameters(
    directory: str | os.PathLike, config: Mapping[str, Any], results: Mapping[str, Any]
) -> None:
    """Write config and results of a finished run for TensorBoard's page HPARAMS, where TensorBoard is installed.

    Args:
      directory: Folder of event files; earlier hyperparameters in it are replaced.
      config: Field -> value; values other than numbers, text and bools are written as text.
      results: Name -> value, of which scalars are written as result/NAME.
    """
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        from tensorboardX.summary import hparams  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    folder = pathlib.Path(directory) / 'hyperparameters'
    shutil.rmtree(folder, ignore_errors=True)
    fields = {
        k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()
    }
    scalars = {f'result/{k}': float(v) for k, v in results.items() if np.ndim(v) == 0}
    # A copy of config.json and results.json: its loss is no error.
    with contextlib.suppress(OSError), SummaryWriter(str(folder)) as writer:
        for summary in hparams(fields, scalars):
            writer._get_file_writer().add_summary(summary)
        for name, value in scalars.items():
            writer.add_scalar(name, value)


class NullWriter:
    """The MetricWriter of processes other than 0: it writes nothing."""

    def write(self, step: int, values: Mapping[str, Any], seconds: float) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _plain(value: Any) -> Any:
    """Floats and nested lists of floats; NaN and inf become null, which JSON has."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None


def _event_writer(directory: str | os.PathLike | None, restored_step: int):
    """An event writer where the `tensorboard` extra is installed, otherwise None."""
    if directory is None:
        return None
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=restored_step + 1)
