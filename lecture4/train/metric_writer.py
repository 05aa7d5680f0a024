"""metrics.jsonl: one line a logged step, the truth of a run that curves and reports read."""

import contextlib
import json
import math
import os
import pathlib

import numpy as np

from lecture4.train.config import UsageError


def _plain(value):
    """Floats and nested lists of floats; NaN and inf become null, which JSON has."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None


def read(path) -> list[dict]:
    """All whole rows. A last line that a kill cut short is left out; any other bad line raises."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split('\n')
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):  # text after the last newline was never finished
                raise ValueError(f'{path} line {number} is not JSON; repair or remove it') from None
    return rows


class Log:
    """Appends rows; opened at a step, it first drops the rows past it (they will come again).

    Errors  UsageError where a row cannot be written.
    """

    def __init__(self, path, restored_step: int, tensorboard_dir=None):
        self._path = pathlib.Path(path)
        kept = [row for row in read(path) if row['step'] <= restored_step]
        temporary = self._path.with_suffix('.tmp')
        temporary.write_text(''.join(json.dumps(row) + '\n' for row in kept))
        os.replace(temporary, self._path)
        self._file = self._path.open('a')
        self._events = _tensorboard(tensorboard_dir, restored_step)

    def write(self, step: int, values: dict, seconds: float):
        """One row: the step, seconds since the run's start, and the metrics, flushed at once."""
        values = {name: _plain(np.asarray(value).tolist()) for name, value in values.items()}
        row = json.dumps({'step': step, 'seconds': round(seconds, 3), **values})
        with self._told():
            self._file.write(row + '\n')
            self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, step)

    def sync(self):
        """Rows are on disk when this returns: called before a checkpoint that follows them."""
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            raise UsageError(
                f'cannot write {self._path}: {error.strerror}; make room, then run the same '
                'command to resume'
            ) from error

    def close(self):
        """No rows after this."""
        with contextlib.suppress(OSError):  # of rows that have been told to be lost
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):  # a copy of the rows; they are the truth
                self._events.close()


class NoLog:
    """What processes other than 0 have in the place of a Log."""

    def write(self, step: int, values: dict, seconds: float):
        """Nothing."""

    def sync(self):
        """Nothing."""

    def close(self):
        """Nothing."""


def _tensorboard(directory, restored_step):
    """An event writer where the `tensorboard` extra is installed, else None."""
    if directory is None:
        return None
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=restored_step + 1)
