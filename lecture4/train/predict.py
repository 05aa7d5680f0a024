"""Apply the model of a finished run to new images: `--stage predict --input dir:NEW`."""

import csv
import functools
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.data import images as image_sets
from lecture4.data.dataset import DataError
from lecture4.data.images import crops
from lecture4.data.sources import decode
from lecture4.train import predict_boxes, saved_model
from lecture4.train.config import Config, UsageError
from lecture4.train.distributed.runtime import start
from lecture4.train.experiment import Experiment
from lecture4.train.inputs import Inputs, find
from lecture4.train.progress import track
from lecture4.train.step import AXIS

LOG = logging.getLogger(__name__)
BLOCK = 256  # images per call of the model
TOP = 5


def run(experiment: Experiment, config: Config, directory: pathlib.Path) -> pathlib.Path:
    """Apply `predict` of a finished run, or else its `encode`, to the images of `config.input`.

    For a classifier or an encoder, images become squares as in training: the center square, resized, as float32
    in [0, 1]; a detector resizes and pads them as in training. Without a run, `--init` is applied, where the
    experiment can.

    Args:
      experiment: The experiment.
      config: Its config; `input`, `devices`, `progress`, `unreadable` and `init` are used.
      directory: The run directory.

    Returns:
      predictions.csv (path, then class and probability of the five most probable classes), detections.json (in
      COCO's format), or codes.npz (`names`, and an array per output) in the run directory.

    Raises:
      UsageError: There is no input or no model, the model does not take images, or images cannot be read.
    """
    inputs = find(config.input)
    model = _model(experiment, config, directory)
    name = next((name for name in ('predict', 'encode') if name in model.functions), '')
    if not name:
        raise UsageError(
            f'the model in {directory} has neither predict nor encode, only '
            f'{", ".join(model.functions)}; use them from Python with train.load'
        )
    runtime = start(config)
    if runtime.n_processes > 1:
        raise UsageError(
            f'--stage predict in {runtime.n_processes} processes; run it in one, which uses all its devices'
        )
    skip = getattr(config, 'unreadable', 'refuse') == 'skip'
    try:
        if 'scale_rule' in model.spec.constants:
            images, sizes = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 2), np.int32)
            if _output(getattr(model, name), images, sizes) is None:
                raise UsageError(
                    f'{experiment.name} predicts from Python only; detection.faster_rcnn takes new images here'
                )
            apply = functools.partial(on_devices, getattr(model, name), runtime.mesh)
            return predict_boxes.run(model.spec, apply, inputs, config, directory, skip=skip)
        return _run(model, name, inputs, config, directory, runtime.mesh, skip=skip)
    except OSError as error:
        raise UsageError(f'cannot write to {directory}: {error.strerror or error}') from error


def _model(experiment: Experiment, config: Config, directory: pathlib.Path) -> saved_model.Model:
    is_run = (directory / 'config.json').exists() or (directory / saved_model.FILE).exists()
    init = getattr(config, 'init', '')
    if is_run or not init:
        return saved_model.load(directory, sys.modules[experiment.data.__module__])
    if experiment.pretrained_model is None:
        raise UsageError(
            f'{directory} contains no run, and {experiment.name} does not predict with --init alone; give '
            'the directory of a finished run as --workdir'
        )
    if pathlib.Path(init).expanduser().is_dir():
        raise UsageError(
            '--stage predict with a run: give its directory as --workdir, not as --init'
        )
    try:
        state, spec = experiment.pretrained_model(config)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return saved_model.Model(config, state, spec, experiment.apply(config, spec))


def _run(model, name, inputs: Inputs, config, directory, mesh, *, skip) -> pathlib.Path:
    shape = shape_of(model, directory)
    flat = len(shape) == 1 or _takes_vectors(getattr(model, name), model.spec.shape)
    check_function(getattr(model, name), model.spec.shape if flat else shape, name)
    apply = on_devices(getattr(model, name), mesh, BLOCK)
    names, outputs = [], []
    blocks = [
        range(i, min(i + BLOCK, len(inputs.names))) for i in range(0, len(inputs.names), BLOCK)
    ]
    for block in track(config, blocks, name):
        read = list(_read(inputs, block, shape, skip=skip))
        if not read:
            continue
        names += [inputs.names[row] for row, _ in read]
        x = np.stack([image for _, image in read])
        outputs.append(apply(x.reshape(len(x), -1) if flat else x))
    if not names:
        raise UsageError(f'--input {" ".join(config.input)}: none of the images can be read')
    LOG.info('%d of %d images', len(names), len(inputs.names))
    directory.mkdir(parents=True, exist_ok=True)
    result = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
    probs = isinstance(result, np.ndarray) and result.ndim == 2 and name == 'predict'
    if probs and result.shape[1] == model.spec.num_classes:
        return _write_csv(directory / 'predictions.csv', names, result, model.spec.class_names)
    arrays_of = result if isinstance(result, dict) else {name: result}
    return _write_npz(directory / 'codes.npz', names=np.array(names), **arrays_of)


def shape_of(
    model: saved_model.Model, directory: os.PathLike[str] | str
) -> tuple[int, int, int] | tuple[int]:
    """[h, w, c] of the images, or [d] of the vectors, that a model's functions take.

    Raises:
      UsageError: They take neither.
    """
    shape = tuple(model.spec.constants.get('image_shape', model.spec.shape))
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) == 1:
        return shape
    if len(shape) != 3 or shape[0] != shape[1]:
        raise UsageError(
            f'the model in {directory} does not take square images (its examples have the shape '
            f'{model.spec.shape}); use it from Python with train.load'
        )
    return shape


def _takes_vectors(function, shape) -> bool:
    """Whether a function takes the vectors of pixels that the model was trained on."""
    return len(shape) == 1 and _output(function, np.zeros((2, *shape), np.float32)) is not None


def _output(function, *examples):
    try:
        return jax.eval_shape(function, *examples)
    except (TypeError, ValueError):
        return None


def check_function(function: Callable[[Any], Any], shape: tuple[int, ...], name: str) -> None:
    """Raises UsageError where a model's function does not take examples of a shape."""
    if _output(function, np.zeros((2, *shape), np.float32)) is None:
        raise UsageError(
            f'{name} of this model does not take examples of shape {shape}; use it from Python with train.load'
        )


def _read(
    inputs: Inputs, rows: range, shape: tuple[int, ...], *, skip: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, float32 image of the shape, in [0, 1], or vector) for the rows that can be read."""
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
        if inputs.is_flat or len(shape) == 1:
            if image.shape != shape and image.size != np.prod(shape):
                raise UsageError(
                    f'{inputs.names[row]} has the shape {image.shape}; this model takes examples of {shape}: '
                    'give arrays of such rows as npz:PATH'
                )
            yield row, image.reshape(shape).astype(np.float32)
            continue
        size, channels = shape[0], shape[2]
        if image.shape[:2] != (size, size):
            image = image_sets.resize_to_square(inputs.names[row], (image,), size)[0]
        if channels == 3:
            image = decode.to_rgb(image)
        elif image.shape[2] == 3:
            image = crops.to_grayscale(image[None])[0]
        yield row, crops.to_float(np.asarray(image))


def on_devices(function: Callable[..., Any], mesh: Mesh, num_rows: int) -> Callable[..., Any]:
    """The function over rows divided among devices; every call has the same number of rows, so it compiles once.

    Args:
      function: (arrays [n, ...]) -> a tree of arrays [n, ...].
      mesh: Mesh of the devices.
      num_rows: Largest number of rows per call; smaller calls are padded with zeros.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    rows = -(-num_rows // mesh.size) * mesh.size
    compiled = jax.jit(function)

    def apply(*arrays: np.ndarray) -> Any:
        n = len(arrays[0])
        padded = [np.concatenate([x, np.zeros((rows - n, *x.shape[1:]), x.dtype)]) for x in arrays]
        outputs = compiled(*jax.device_put(padded, sharding))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], outputs)

    return apply


def _write_csv(
    path: pathlib.Path, names: list[str], probs: np.ndarray, class_names: Sequence[str]
) -> pathlib.Path:
    k = min(TOP, len(class_names))
    order = np.argsort(-probs, axis=1, kind='stable')[:, :k]
    temporary = path.with_suffix('.tmp')
    with temporary.open('w', newline='', encoding='utf-8') as file:
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
