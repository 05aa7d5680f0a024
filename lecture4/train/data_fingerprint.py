"""Fingerprint of a run's data, stored in its directory: resuming on other data is refused with the difference."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lecture4.train import workdir
from lecture4.train.config import UsageError
from lecture4.train.task import Data

FILE = 'data.json'
HASHED_BYTES = 1 << 28  # bytes to hash per array; of larger arrays, both ends are hashed
TOLERANCE = 1e-3  # of mean and standard deviation: whitening differs by rounding between machines


def fingerprint(data: Data) -> dict[str, Any]:
    """Class names, shape of an example, and for each array its shape and contents.

    Args:
      data: Data whose first batch and device arrays are described.

    Returns:
      JSON-serializable: 'classes', 'shape', and 'arrays': name -> [shape, contents], a hash of integers and
      text, [mean, standard deviation] of floating-point numbers.
    """
    trees = {'data': data.device_arrays, 'first batch': data.batch(0)}
    arrays = {}
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            key = f'{name}{jax.tree_util.keystr(path)}'
            arrays[key] = [list(np.shape(leaf)), _contents(np.asarray(leaf))]
    spec = data.spec
    return {'classes': list(spec.class_names), 'shape': list(spec.shape), 'arrays': arrays}


def _contents(array: np.ndarray) -> Any:
    if np.issubdtype(array.dtype, np.floating):
        values = array.astype(np.float64, copy=False)
        finite = values[np.isfinite(values)]
        return [float(finite.mean()), float(finite.std())] if finite.size else [0.0, 0.0]
    if array.dtype.kind not in 'iubUS':
        return ''
    raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    digest = hashlib.sha256()
    if len(raw) <= HASHED_BYTES:
        digest.update(raw.data)
    else:
        digest.update(raw[: HASHED_BYTES // 2].data)
        digest.update(raw[-HASHED_BYTES // 2 :].data)
    return digest.hexdigest()[:16]


def check(directory: pathlib.Path, data: Data) -> None:
    """Compare data with those that the run in a directory was started on; for a new run, write the fingerprint.

    Args:
      directory: The run directory, locked for this run.
      data: Data of the experiment.

    Raises:
      UsageError: The data differ; the message says how.
    """
    path = directory / FILE
    current = json.loads(json.dumps(fingerprint(data)))
    try:
        change = difference(json.loads(path.read_text()), current)
    except OSError:
        workdir.write_json(path, current)
        return
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise UsageError(f'{path} is damaged; remove it if the data are still the same') from None
    if change:
        raise UsageError(
            f'{directory} holds a run on other data: {change}; restore the data, choose another '
            '--workdir, or replace that run with --overwrite'
        )


def difference(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """The first difference between two fingerprints, in words; '' where there is none."""
    for what in ('classes', 'shape'):
        if stored[what] != current[what]:
            return f'{what} were {_list(stored[what])}, now {_list(current[what])}'
    for name in {**stored['arrays'], **current['arrays']}:
        before, now = stored['arrays'].get(name), current['arrays'].get(name)
        if before is None or now is None:
            return f'{name} {"is new" if before is None else "is no longer there"}'
        if before[0] != now[0]:
            return f'{name} had the shape {tuple(before[0])}, now {tuple(now[0])}'
        if not _equal(before[1], now[1]):
            return f'the values of {name} have changed'
    return ''


def _equal(before: Any, now: Any) -> bool:
    if not isinstance(before, list) or not isinstance(now, list):
        return before == now
    scale = max(abs(before[0]), before[1], 1e-12)
    return all(abs(a - b) <= TOLERANCE * scale for a, b in zip(before, now, strict=True))


def _list(values: list[Any]) -> str:
    shown = ', '.join(map(str, values[:8]))
    return f'{shown}, ... ({len(values)})' if len(values) > 8 else shown or 'none'
