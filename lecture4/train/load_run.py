"""Loads finished runs: config, final state and data of another run, for instance for ensembles."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from lecture4.train import workdir
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import Config, RunOptions, UsageError
from lecture4.train.step import AXIS, abstract_state, bind
from lecture4.train.task import Data, PyTree, Task

ConfigType = TypeVar('ConfigType', bound=Config)


def config(directory: str | os.PathLike, reader: ConfigType) -> ConfigType:
    """The config of a run.

    Args:
      directory: The run directory.
      reader: A config of the same experiment, whose options of `RunOptions` (data directories, devices, ...)
        are used.

    Returns:
      The run's config. Fields that its config.json lacks have their defaults, which is logged.

    Raises:
      UsageError: There is no run, or one of another experiment or of an incompatible version.
    """
    _, stored = workdir.read_config(directory)
    fields = workdir.add_defaults(type(reader), stored, directory)
    options = {field.name: getattr(reader, field.name) for field in dataclasses.fields(RunOptions)}
    return type(reader)(**options, **fields)


def load(
    directory: str | os.PathLike,
    reader: ConfigType,
    data_fn: Callable[[ConfigType], Data],
    build_fn: Callable[[ConfigType, Any], Task],
) -> tuple[ConfigType, PyTree, Data]:
    """Load a finished run.

    Args:
      directory: The run directory.
      reader: As in `config`.
      data_fn: The experiment's `data`.
      build_fn: The experiment's `build`.

    Returns:
      (config, state, data): the final state as numpy arrays.

    Raises:
      UsageError: As `config`; or the run is not finished or its checkpoint cannot be read.
    """
    stored = config(directory, reader)
    data = data_fn(stored)
    bound = bind(build_fn(stored, data.spec), data, stored.seed)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), (AXIS,))
    checkpoints = Checkpoints(pathlib.Path(directory) / 'checkpoints', stored.keep)
    try:
        restored = checkpoints.restore(abstract_state(bound, mesh, bound.batch(0)))
    finally:
        checkpoints.close()
    n, state = restored or (0, None)
    if n < stored.steps:
        raise UsageError(
            f'the run in {directory} has done {n} of {stored.steps} steps; finish it first'
        )
    return stored, jax.tree.map(np.asarray, state), data
