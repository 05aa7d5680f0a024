"""Features of images by a network, computed once over all devices and stored in a file with a fingerprint.

The fingerprint is a hash of the network's weights, its name and activation, the images and the regions, so that a
file for other weights or other images is not used by mistake.
"""

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8

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
    """Features of the regions of images, read from `path` if it has them, otherwise computed and written there.

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
    devices = np.array(jax.local_devices())
    mesh = Mesh(devices, ('data',))
    batch_size = -(-batch_size // len(devices)) * len(devices)
    rows = NamedSharding(mesh, PartitionSpec('data'))
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    compiled = jax.jit(apply, out_shardings=rows)
    parts, pending = [], np.zeros((0, size, size, 3), np.float32)

    def flush(crops):
        padded = np.zeros((batch_size, *crops.shape[1:]), np.float32)
        padded[: len(crops)] = crops
        parts.append(np.asarray(compiled(variables, jax.device_put(padded, rows)))[: len(crops)])

    for row in range(n):
        pending = np.concatenate([pending, crop(read_image(row), boxes[row], size)])
        while len(pending) >= batch_size:
            flush(pending[:batch_size])
            pending = pending[batch_size:]
    if len(pending):
        flush(pending)
    features = np.concatenate(parts).reshape(n, r, -1)
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
    return features


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
