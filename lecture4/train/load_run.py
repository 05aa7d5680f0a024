"""Runs that ended, read again: another run's config and its last state, for ensembles."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import Config, RunOptions, UsageError
from lecture4.train.step import AXIS, abstract_state, bind


def config(directory, reader: Config) -> Any:
    """The config of the run in a directory, of the type of `reader`, which says where data are.

    Errors  UsageError where there is no run, or one of another experiment.
    """
    path = pathlib.Path(directory) / 'config.json'
    try:
        held = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        raise UsageError(
            f'{directory} holds no run; name the directory of a finished one'
        ) from None
    names = {field.name for field in dataclasses.fields(reader)}
    how = {field.name: getattr(reader, field.name) for field in dataclasses.fields(RunOptions)}
    if set(held) != names - set(how):
        raise UsageError(f'{directory} holds a run of another experiment, or of another version')
    lists = {name: tuple(value) for name, value in held.items() if isinstance(value, list)}
    return type(reader)(**{**how, **held, **lists})


def load(directory, reader: Config, data_fn, build_fn):
    """(config, last state, data) of the run in a directory, the state on the host.

    data_fn, build_fn  the experiment's functions of a config.
    Errors  as `config`; UsageError where the run is not finished or its checkpoint cannot be read.
    """
    held = config(directory, reader)
    data = data_fn(held)
    bound = bind(build_fn(held, data.spec), data, held.seed)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), (AXIS,))
    checkpoints = Checkpoints(pathlib.Path(directory) / 'checkpoints', held.keep)
    try:
        restored = checkpoints.restore(abstract_state(bound, mesh, bound.batch(0)))
    finally:
        checkpoints.close()
    n, state = restored or (0, None)
    if n < held.steps:
        raise UsageError(f'the run in {directory} has done {n} of {held.steps} steps; finish it')
    return held, jax.tree.map(np.asarray, state), data
