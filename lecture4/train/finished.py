"""Runs that ended, read again: another run's config and its last state, for ensembles."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import Common, Run, UsageError
from lecture4.train.step import AXIS, bind, like


def config(directory, reader: Common) -> Common:
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
    how = {field.name: getattr(reader, field.name) for field in dataclasses.fields(Run)}
    if set(held) != names - set(how):
        raise UsageError(f'{directory} holds a run of another experiment, or of another version')
    lists = {name: tuple(value) for name, value in held.items() if isinstance(value, list)}
    return type(reader)(**{**how, **held, **lists})


def state(directory, task, data, config: Common):
    """The last state of a run, on the host; `task` and `data` are those of its config.

    Errors  UsageError where the run is not finished or its checkpoint cannot be read.
    """
    directory = pathlib.Path(directory)
    program = bind(task, data, config.seed)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), (AXIS,))
    checkpoints = Checkpoints(directory / 'checkpoints', config.keep)
    try:
        restored = checkpoints.restore(like(program, mesh, program.batch(0)))
    finally:
        checkpoints.close()
    n = 0 if restored is None else restored[0]
    if n < config.steps:
        raise UsageError(f'the run in {directory} has done {n} of {config.steps} steps; finish it')
    return jax.tree.map(np.asarray, restored[1])  # pyright: ignore[reportOptionalSubscript]
