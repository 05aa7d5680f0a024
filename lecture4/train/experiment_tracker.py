"""Sends the metrics of a run to Weights & Biases: `--log wandb`, off by default, with the extra `wandb`."""

import os
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lecture4.train.config import Config, UsageError, config_fingerprint
from lecture4.train.metrics import NOT_METRICS

FOLDER = 'wandb'  # in the run directory: the id by which a resumed run continues there, and wandb's own files
PROJECT = 'lecture4'  # where WANDB_PROJECT does not name another


def check(config: Config) -> None:
    """Refuse `--log wandb` where wandb is not installed.

    Raises:
      UsageError: It is not.
    """
    if config.log == 'wandb':
        _wandb()


def start(config: Config, directory: pathlib.Path, name: str) -> Any:
    """Start or continue the run of a directory at Weights & Biases.

    Args:
      config: Config of the run; all fields that identify it are sent.
      directory: The run directory.
      name: Name of the experiment, by which runs are grouped.

    Returns:
      A wandb Run with `log`, `summary` and `finish`; None without `--log wandb`.

    Raises:
      UsageError: wandb is not installed, or refuses the run, such as for a missing login.
    """
    if config.log != 'wandb':
        return None
    wandb = _wandb()
    path = directory / FOLDER / 'id'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12])
    try:
        return wandb.init(
            project=os.environ.get('WANDB_PROJECT', PROJECT),
            group=name,
            name=str(directory),
            id=path.read_text(),
            resume='allow',
            dir=str(directory),
            config={k: _plain(v) for k, v in config_fingerprint(config).items()},
            settings=wandb.Settings(console='off'),
        )
    except wandb.Error as error:
        raise UsageError(
            f'--log wandb: {" ".join(str(error).split()).rstrip(".")}; run wandb login, set WANDB_MODE=offline, '
            'or omit --log'
        ) from None


def finish(
    config: Config,
    directory: pathlib.Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
) -> None:
    """Send the final metrics of a run; and its rows, if it was trained in one program with others.

    Args:
      config: Config of the run.
      directory: The run directory.
      name: Name of the experiment.
      rows: The rows of metrics.jsonl.
      results: Name -> value, of which scalars are sent.
    """
    is_new = not (directory / FOLDER / 'id').exists()
    run = start(config, directory, name)
    if run is None:
        return
    for row in rows if is_new else ():
        scalars = {k: v for k, v in row.items() if isinstance(v, float) and k not in NOT_METRICS}
        run.log(scalars, step=row['step'])
    for key, value in results.items():
        if np.ndim(value) == 0:
            run.summary[f'result/{key}'] = float(value)
    run.finish()


def _wandb() -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        wandb = None
    if not hasattr(wandb, 'init'):  # a folder of that name imports as an empty package
        raise UsageError(
            "--log wandb: wandb is not installed; pip install 'lecture4[wandb]', or omit --log"
        )
    return wandb


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
