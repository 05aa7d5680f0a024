"""The new images that `--input` names: files, folders, arrays."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.sources import decode
from lecture4.train.config import UsageError


class Inputs(NamedTuple):
    """Images to predict, read one block at a time.

    Attributes:
      names: Paths, or PATH[row] for the rows of an array.
      read: Row -> uint8 or float image [h, w, c] of any size, or vector [d].
      size: Row -> (height, width), from a file's header.
      is_flat: Whether examples are vectors.
    """

    names: Sequence[str]
    read: Callable[[int], np.ndarray]
    size: Callable[[int], tuple[int, int]]
    is_flat: bool = False


def find(given: Sequence[str]) -> Inputs:
    """The images that `--input` names.

    Args:
      given: Image files; or one dir:PATH, all image files below it, with or without class folders; or one
        npz:PATH with an array `x`, `images`, ... or any other single one, [n, h, w], [n, h, w, c] or [n, d].

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
        for file in files:
            if file.is_dir():
                raise UsageError(f'--input {file} is a folder; give dir:{file}')
            if not file.is_file():
                raise UsageError(f'--input {file}: no such file')
    names = [str(file) for file in files]
    return Inputs(
        names,
        lambda row: decode.read_image(files[row]),
        lambda row: decode.image_size(files[row], names[row]),
    )


def _array(path: pathlib.Path) -> Inputs:
    from lecture4.data.sources import arrays

    try:
        key, x = arrays.read_images(path)
    except DataError as error:
        raise UsageError(f'--input {error}') from None
    if x.ndim == 3:
        x = x[..., None]
    names = [f'{path}[{i}]' for i in range(len(x))]
    if x.ndim == 2:
        return Inputs(names, x.__getitem__, lambda row: (1, x.shape[1]), is_flat=True)
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UsageError(
            f'--input npz:{path}: {key} has the shape {x.shape}; expected [n, h, w], [n, h, w, 1 or 3] '
            'or [n, d]'
        )
    return Inputs(names, x.__getitem__, lambda row: x.shape[1:3])
