"""The mesh of a run, and which axis of which array of a state is divided over its axis 'model'."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train.config import UsageError
from lecture4.train.task import PyTree

AXIS, MODEL = 'data', 'model'


def device_mesh(devices: Sequence[Any], model_parallel: int = 1) -> Mesh:
    """The mesh of a run: axis 'data', and axis 'model' where parameters are divided.

    Args:
      devices: Devices, attached or not; neighbors share a part of the batch.
      model_parallel: Number of devices that each divided array is spread over.

    Raises:
      UsageError: `model_parallel` does not divide the number of devices.
    """
    n = len(devices)
    if n % model_parallel:
        divisors = [i for i in range(1, n + 1) if n % i == 0]
        nearest = min(divisors, key=lambda i: abs(i - model_parallel))
        raise UsageError(
            f'--model_parallel {model_parallel} does not divide {n} devices; use {nearest}'
        )
    if model_parallel == 1:
        return Mesh(np.array(devices), (AXIS,))
    return Mesh(np.array(devices).reshape(-1, model_parallel), (AXIS, MODEL))


def state_shardings(shapes: PyTree, mesh: Mesh, model_axes: Mapping[str, int]) -> PyTree:
    """Shardings of a state on a mesh with axis 'model': the first rule whose pattern a path matches divides the array.

    Args:
      shapes: Shapes of the state; the parameters' entries of the optimizer's state match the same rules.
      mesh: Devices.
      model_axes: Pattern of a path such as 'params/fc6/kernel' -> axis, see `Task`.

    Raises:
      UsageError: No array matches, or the devices along 'model' do not divide one that does.
    """
    n = mesh.shape[MODEL]
    matched = []

    def sharding(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        for pattern, axis in model_axes.items():
            if re.search(pattern, name) and -leaf.ndim <= axis < leaf.ndim:
                axis %= leaf.ndim
                if leaf.shape[axis] % n:
                    raise UsageError(
                        f'--model_parallel {n} does not divide axis {axis} of {name}, which has '
                        f'{leaf.shape[axis]} entries; use a divisor of it'
                    )
                matched.append(name)
                return NamedSharding(mesh, PartitionSpec(*[None] * axis, MODEL))
        return NamedSharding(mesh, PartitionSpec())

    shardings = jax.tree_util.tree_map_with_path(sharding, shapes)
    if not matched:
        raise UsageError(
            f'--model_parallel {n}: no array of this model is divided (see Task.model_axes); use '
            '--model_parallel 1, which divides the batch'
        )
    return shardings
