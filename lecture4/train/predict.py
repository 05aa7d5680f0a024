"""Apply the model of a finished run to new images: `--stage predict --input dir:NEW`."""

import csv
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.data import images as image_sets
from lecture4.data.dataset import DataError
from lecture4.data.images import crops
from lecture4.data.sources import decode
from lecture4.train import saved_model
from lecture4.train.config import Config, UsageError
from lecture4.train.experiment import Experiment
from lecture4.train.progress import track
from lecture4.train.step import AXIS

LOG = logging.getLogger(__name__)
BLOCK = 256  # images per call of the model
TOP = 5


class Inputs(NamedTuple):
    """Images to predict, read one block at a time.

    Attributes:
      names: Paths, or PATH[row] for the rows of an array.
      read: Row -> uint8 or float image [h, w, c] of any size.
    """

    names: Sequence[str]
    read: Callable[[int], np.ndarray]


def run(experiment: Experiment, config: Config, directory: pathlib.Path) -> pathlib.Path:
    """Apply `predict` of a finished run, or else its `encode`, to the images of `config.input`.

    Images are preprocessed as in training: the center square, resized, as float32 in [0, 1].

    Args:
      experiment: The experiment.
      config: Its config; `input`, `devices`, `progress` and, where there is one, `unreadable` are used.
      directory: The run directory.

    Returns:
      predictions.csv (path, then class and probability of the five most probable classes) or codes.npz
      (`names`, and an array per output) in the run directory.

    Raises:
      UsageError: There is no input or no model, the model does not take images, or images cannot be read.
    """
    module = sys.modules[experiment.data.__module__]
    model = saved_model.load(directory, module)
    name = next((name for name in ('predict', 'encode') if name in model.functions), '')
    if not name:
        raise UsageError(
            f'the model in {directory} has neither predict nor encode, only '
            f'{", ".join(model.functions)}; use them from Python with train.load'
        )
    image_shape = shape_of(model, directory)
    inputs = find(config.input)
    skip = getattr(config, 'unreadable', 'refuse') == 'skip'
    devices = jax.devices()[: config.devices or None]
    apply = _on_devices(getattr(model, name), devices)
    names, outputs = [], []
    blocks = [
        range(i, min(i + BLOCK, len(inputs.names))) for i in range(0, len(inputs.names), BLOCK)
    ]
    for block in track(config, blocks, name):
        read = list(_read(inputs, block, image_shape, skip=skip))
        if not read:
            continue
        names += [inputs.names[row] for row, _ in read]
        outputs.append(apply(np.stack([image for _, image in read])))
    if not names:
        raise UsageError(f'--input {" ".join(config.input)}: none of the images can be read')
    result = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
    probs = isinstance(result, np.ndarray) and result.ndim == 2 and name == 'predict'
    if probs and result.shape[1] == model.spec.num_classes:
        return _write_csv(directory / 'predictions.csv', names, result, model.spec.class_names)
    arrays_of = result if isinstance(result, dict) else {name: result}
    return _write_npz(directory / 'codes.npz', names=np.array(names), **arrays_of)


def shape_of(model: saved_model.Model, directory: os.PathLike[str] | str) -> tuple[int, int, int]:
    """[h, w, c] of the images that a model's functions take.

    Raises:
      UsageError: They do not take images.
    """
    shape = tuple(model.spec.constants.get('image_shape', model.spec.shape))
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3 or shape[0] != shape[1]:
        raise UsageError(
            f'the model in {directory} does not take square images (its examples have the shape '
            f'{model.spec.shape}); use it from Python with train.load'
        )
    return shape


def find(given: Sequence[str]) -> Inputs:
    """The images that `--input` names.

    Args:
      given: Image files; or one dir:PATH, all image files below it; or one npz:PATH with an array
        `x`, `images` or any other single one, [n, h, w], or [n, h, w, c].

    Raises:
      UsageError: No input is given, or the input does not exist or contains no images.
    """
    if not given:
        raise UsageError('--stage predict: expected --input with image files, dir:PATH or npz:PATH')
    kind, _, path = given[0].partition(':')
    if kind in ('dir', 'npz') and len(given) > 1:
        raise UsageError(f'--input {given[0]}: expected no other input, got {len(given) - 1} more')
    if kind == 'npz':
        return _array(pathlib.Path(path).expanduser())
    if kind == 'dir':
        folder = pathlib.Path(path).expanduser()
        files = sorted(p for p in folder.rglob('*') if p.suffix.lower() in decode.SUFFIXES)
        if not files:
            raise UsageError(
                f'--input {given[0]}: contains no image files ({", ".join(decode.SUFFIXES)})'
            )
    else:
        files = [pathlib.Path(name).expanduser() for name in given]
        if missing := [file for file in files if not file.is_file()]:
            raise UsageError(f'--input {missing[0]}: no such file')
    return Inputs([str(file) for file in files], lambda row: decode.read_image(files[row]))


def _array(path: pathlib.Path) -> Inputs:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = list(file.keys())
            key = next((k for k in ('x', 'images', 'x_test') if k in keys), keys[0] if keys else '')
            x = file[key]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'--input npz:{path}: {error}') from None
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UsageError(
            f'--input npz:{path}: {key} has the shape {x.shape}; expected [n, h, w] or [n, h, w, 1 or 3]'
        )
    return Inputs([f'{path}[{i}]' for i in range(len(x))], x.__getitem__)


def _read(
    inputs: Inputs, rows: range, shape: tuple[int, int, int], *, skip: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, float32 image of the shape, in [0, 1]) for the rows that can be read."""
    size, channels = shape[0], shape[2]
    for row in rows:
        try:
            image = inputs.read(row)
        except DataError as error:
            if not skip:
                raise UsageError(
                    f'{error}; or leave such files out with --unreadable skip'
                ) from None
            LOG.warning('%s: left out', error)
            continue
        if image.shape[:2] != (size, size):
            image = image_sets.resize_to_square(inputs.names[row], (image,), size)[0]
        if channels == 3:
            image = decode.to_rgb(image)
        elif image.shape[2] == 3:
            image = crops.to_grayscale(image[None])[0]
        yield row, crops.to_float(np.asarray(image))


def _on_devices(
    function: Callable[[Any], Any], devices: Sequence[Any]
) -> Callable[[np.ndarray], Any]:
    """The function over rows divided among devices; every call has BLOCK rows, so it compiles once."""
    mesh = Mesh(np.array(devices), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    rows = -(-BLOCK // len(devices)) * len(devices)
    compiled = jax.jit(function)

    def apply(x: np.ndarray) -> Any:
        padded = np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])
        outputs = compiled(jax.device_put(padded, sharding))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(x)], outputs)

    return apply


def _write_csv(
    path: pathlib.Path, names: list[str], probs: np.ndarray, class_names: Sequence[str]
) -> pathlib.Path:
    k = min(TOP, len(class_names))
    order = np.argsort(-probs, axis=1, kind='stable')[:, :k]
    temporary = path.with_suffix('.tmp')
    with temporary.open('w', newline='') as file:
        writer = csv.writer(file)
        heads = [f'{head}_{i + 1}' for i in range(k) for head in ('class', 'probability')]
        writer.writerow(['path', *heads])
        for name, row, best in zip(names, probs, order, strict=True):
            cells = [cell for c in best for cell in (class_names[c], f'{row[c]:.6f}')]
            writer.writerow([name, *cells])
    os.replace(temporary, path)
    return path


def _write_npz(path: pathlib.Path, **values: Any) -> pathlib.Path:
    temporary = path.with_suffix('.tmp.npz')
    np.savez(temporary, **values)
    os.replace(temporary, path)
    return path
