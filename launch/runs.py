"""Finished runs on disk: their config, environment, rows of metrics and results."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from launch.command import LaunchError


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run directory.

    Attributes:
      directory: The run directory.
      config: The fields of config.json.
      environment: environment.json; {} if there is none.
      rows: The rows of metrics.jsonl.
      results: results.json; {} for a run that is not finished.
    """

    directory: pathlib.Path
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    results: dict[str, Any]

    @property
    def module(self) -> str:
        """Module or file of the experiment, from its command; '' where it is not recorded."""
        words = self.environment.get('command', '').split()
        if words[:1] == ['-m']:
            return words[1] if words[1:] else ''
        return words[0] if words else ''

    @property
    def seconds(self) -> float:
        """Seconds of training over all starts of the run; 0 where none are recorded."""
        return max((row.get('seconds', 0.0) for row in self.rows), default=0.0)

    def last(self) -> dict[str, float]:
        """The last value of every metric in metrics.jsonl, overridden by those of results.json."""
        values: dict[str, Any] = {}
        for row in self.rows:
            values.update(row)
        values.update(self.results.get('metrics', {}))
        return {
            key: float(value)
            for key, value in values.items()
            if key not in ('step', 'seconds') and _is_number(value)
        }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read(directory: str | os.PathLike) -> Run:
    """Read a run directory.

    Raises:
      LaunchError: The directory contains no run, or one that this version cannot read.
    """
    from lecture4.train import metric_writer, workdir
    from lecture4.train.config import UsageError

    directory = pathlib.Path(directory)
    try:
        _, config = workdir.read_config(directory)
        rows = metric_writer.read(directory / 'metrics.jsonl')
        files = [directory / name for name in ('environment.json', 'results.json')]
        environment, results = (json.loads(p.read_text()) if p.exists() else {} for p in files)
    except (UsageError, ValueError) as error:
        raise LaunchError(str(error)) from None
    return Run(directory, config, environment, rows, results)


def declared(run: Run) -> list[Any]:
    """The metrics that a finished run declares in results.json, as `lecture4.train.Metric`s."""
    from lecture4.train import Metric

    primary = run.results.get('primary')
    fields = run.results.get('declared', {})
    return [Metric(name, **values, primary=name == primary) for name, values in fields.items()]


def names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: as much of the end of its path as distinguishes it from the others."""
    paths = [run.directory.absolute().parts for run in runs]
    for n in range(1, max(map(len, paths)) + 1):
        short = ['/'.join(path[-n:]) for path in paths]
        if len(set(short)) == len(short):
            return short
    raise LaunchError(f'{runs[0].directory} is given twice; expected different runs')
