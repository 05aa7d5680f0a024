"""Feature maps of a frozen backbone, computed once and stored on disk, so that training steps skip the backbone."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float16, Shaped


def fingerprint(*parts: Any) -> str:
    """A digest of everything that feature maps depend on: names, numbers, and arrays of a tree of weights."""
    digest = hashlib.sha256()
    for part in parts:
        for leaf in _leaves(part):
            array = np.asarray(leaf)
            digest.update(str((array.dtype, array.shape)).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _leaves(tree):
    if isinstance(tree, Mapping):
        return [leaf for name in sorted(tree) for leaf in (name, *_leaves(tree[name]))]
    return [tree]


def load_or_compute(
    folder: str | os.PathLike[str],
    key: str,
    compute: Callable[[int], Shaped[np.ndarray, 'h w c']],
    num_images: int,
    *,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Float16[np.ndarray, 'n h w c']:
    """Feature maps of all images, float16, from the folder's file for a key, which is computed if needed.

    The number of finished images is written after each image, so that an interrupted run continues from there; files
    for other keys are never changed.

    Args:
      folder: Folder, created if missing.
      key: A `fingerprint` of images, size and weights.
      compute: Index of an image -> its feature maps, all of one shape.
      num_images: Number of images n.
      track: Function that shows progress over the remaining images.

    Returns:
      A memory-mapped array, read-only.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, state = folder / f'{key}.npy', folder / f'{key}.json'
    done = json.loads(state.read_text())['done'] if state.exists() and path.exists() else 0
    if done < num_images:
        first = np.asarray(compute(done), np.float16)
        if not done:
            shape = (num_images, *first.shape)
            maps = np.lib.format.open_memmap(path, 'w+', np.float16, shape)
        else:
            maps = np.lib.format.open_memmap(path, 'r+')
        for i in track(range(done, num_images)):
            maps[i] = first if i == done else np.asarray(compute(i), np.float16)
            maps.flush()
            temporary = state.with_suffix('.tmp')
            temporary.write_text(json.dumps({'done': i + 1}))
            temporary.replace(state)
    return np.load(path, mmap_mode='r')
