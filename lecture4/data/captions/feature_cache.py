"""Features of images by a network, computed once over all devices and stored in a file with a fingerprint.

The fingerprint is a hash of the network's weights, its name and activation, the images and the regions, so that a
file for other weights or other images is not used by mistake.
"""

import hashlib
import itertools
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from lecture4.data.captions.regions import crop
from lecture4.data.dataset import DataError


def fingerprint(variables: Any, images: Iterable[np.ndarray], *settings: Any) -> str:
    """sha256 of weights, pixels and settings, hexadecimal.

    Args:
      variables: Pytree of the network's arrays.
      images: Pixels of the images.
      *settings: Everything else that determines the features, hashed by repr.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
        digest.update(np.ascontiguousarray(array).data)
    for image in images:
        digest.update(f'{image.shape}'.encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def region_features(
    apply: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    names: Sequence[str],
    read_image: Callable[[int], UInt8[np.ndarray, 'h w 3']],
    boxes: Float[np.ndarray, 'n r 4'],
    path: str | os.PathLike[str],
    *,
    size: int = 32,
    batch_size: int = 128,
    settings: Sequence[Any] = (),
    overwrite: bool = False,
) -> Float[np.ndarray, 'n r d']:
    """Features of crops of images, read from `path` if it has them, otherwise computed and written there.

    Args:
      apply: (variables, crops [m, size, size, 3] in [0, 1]) -> features [m, d], compiled once; each crop
        independently.
      variables: Variables of the network, replicated; crops are sharded over all local devices.
      names: Names of the images.
      read_image: Row -> pixels.
      boxes: Regions [x1, y1, x2, y2] in pixels.
      path: The .npz file, which `registry.read_features` also reads.
      size: Size of the crops.
      batch_size: Number of crops at a time, rounded up to a multiple of the number of devices.
      settings: Name of the network and of the activation, which identify `apply`.
      overwrite: Whether to replace a file with another fingerprint.

    Raises:
      DataError: The file is damaged, or has another fingerprint.
    """
    path = pathlib.Path(path)
    n, r = boxes.shape[:2]
    images = (read_image(row) for row in range(n))
    expected = fingerprint(variables, images, *settings, size, boxes.tolist(), list(names))
    if path.is_file() and not overwrite:
        return _read(path, expected)
    crops = ((one,) for row in range(n) for one in crop(read_image(row), boxes[row], size))
    features = _apply_in_batches(apply, variables, crops, batch_size).reshape(n, r, -1)
    _write(path, names, features, boxes, expected)
    return features


def pooled_features(
    apply: Callable[[Any, Float[Array, 'm h w 3'], Float[Array, 'm r 4']], Float[Array, 'm k d']],
    variables: Any,
    names: Sequence[str],
    read_image: Callable[[int], UInt8[np.ndarray, 'h w 3']],
    boxes: Float[np.ndarray, 'n r 4'],
    directory: str | os.PathLike[str],
    *,
    size: int = 224,
    batch_size: int = 16,
    settings: Sequence[Any] = (),
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Float[np.ndarray, 'n k d']:
    """Features of the regions of images by one pass of a network per image, stored in the directory by fingerprint.

    Args:
      apply: (variables, images in [0, 1], boxes in units of the image's width and height) -> features of the first k
        regions, compiled once; each image independently.
      variables: Variables of the network, replicated; images are sharded over all local devices.
      names: Names of the images.
      read_image: Row -> pixels.
      boxes: Regions [x1, y1, x2, y2] in pixels.
      directory: Directory of the files, created if missing; files of other fingerprints are kept.
      size: Height and width that images are resized to.
      batch_size: Number of images at a time, rounded up to a multiple of the number of devices.
      settings: Name of the network and of the activation, which identify `apply`.
      track: Function that shows progress over the rows of the images.

    Raises:
      DataError: The file is damaged.
    """
    rows = range(len(names))
    images = (read_image(row) for row in rows)
    expected = fingerprint(variables, images, *settings, size, boxes.tolist(), list(names))
    path = pathlib.Path(directory).expanduser() / f'{expected[:32]}.npz'
    if path.is_file():
        return _read(path, expected)

    def inputs():
        for row in track(rows):
            image = read_image(row)
            height, width = image.shape[:2]
            whole = np.array([[0, 0, width, height]], np.float32)
            pixels = image / np.float32(255)
            if (height, width) != (size, size):
                (pixels,) = crop(image, whole, size)
            yield pixels, boxes[row] / whole[0, [2, 3, 2, 3]]

    features = _apply_in_batches(apply, variables, inputs(), batch_size)
    _write(path, names, features, boxes[:, : features.shape[1]], expected)
    return features


def _apply_in_batches(
    apply: Callable[..., jax.Array],
    variables: Any,
    rows: Iterator[tuple[np.ndarray, ...]],
    batch_size: int,
) -> np.ndarray:
    """Outputs of a function of variables and batches of rows, sharded over all local devices."""
    devices = np.array(jax.local_devices())
    mesh = Mesh(devices, ('data',))
    batch_size = -(-batch_size // len(devices)) * len(devices)
    sharded = NamedSharding(mesh, PartitionSpec('data'))
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    compiled = jax.jit(apply, out_shardings=sharded)
    parts = []
    while batch := list(itertools.islice(rows, batch_size)):
        inputs = []
        for arrays in zip(*batch, strict=True):
            padded = np.zeros((batch_size, *arrays[0].shape), np.float32)
            padded[: len(batch)] = arrays
            inputs.append(jax.device_put(padded, sharded))
        parts.append(np.asarray(compiled(variables, *inputs))[: len(batch)])
    return np.concatenate(parts)


def _write(path, names, features, boxes, expected):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    with part.open('wb') as file:
        np.savez(
            file,
            names=np.array(names),
            features=features,
            boxes=boxes,
            fingerprint=np.array(expected),
        )
    os.replace(part, path)


def _read(path: pathlib.Path, expected: str) -> np.ndarray:
    try:
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            stored, features = str(file['fingerprint']), file['features']
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f'{path} is not a file of cached features ({error}); remove it') from error
    if stored != expected:
        raise DataError(
            f'{path} has features of other weights, images or regions (fingerprint {stored[:12]}, expected '
            f'{expected[:12]}); remove it, or name another file'
        )
    return features
