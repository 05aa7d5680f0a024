"""Arrays in files: `npz:PATH`, and the .npy files of published sets."""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np

from lecture4.data.dataset import DataError, Dataset, SplitError, validate

# Words in a key that identify its array, in order of preference.
IMAGES = ('images', 'image', 'x', 'data', 'inputs')
LABELS = ('labels', 'label', 'y', 'targets', 'target')
CLASS_NAMES = ('class_names', 'names', 'target_names')


def read_npz(
    path: str | PathLike[str], split: str = 'train', image_shape: Sequence[int] = ()
) -> Dataset:
    """The arrays of a split in an .npz file, by the words of their keys, in any order and case:

        images, x, X, data, inputs          images of split train
        labels, y, target(s)                their labels, optional
        x_train, train_images, test_X, ...  the same with the name of a split
        class_names, names, target_names    one name per class, optional; by default '0', '1', ...

    A single array under any other key, as numpy.savez(path, x) writes it, is the images of split train.

    Args:
      path: The file. Labels are optional. Shapes and dtypes are those that `dataset.validate` accepts.
      split: A split of the list above.
      image_shape: (height, width) or (height, width, channels) of images that are stored as rows [n, d].

    Raises:
      DataError: There is no such file or split, rows have no image_shape, or the file is truncated or contains Python
        objects.
    """
    path = pathlib.Path(path)
    with _open(path) as file:
        splits = _splits(path, file)
        if split not in splits:
            if not splits:
                raise DataError(
                    f'npz:{path} has no images; expected images, train_images or x_train, got '
                    f'{", ".join(file.files) or "no arrays"}'
                )
            raise SplitError(f'npz:{path} has no split {split!r}; it has {", ".join(splits)}')
        images_key, labels_key = splits[split]
        images = _get(path, file, images_key)
        labels = _get(path, file, labels_key) if labels_key else None
        names = next((key for key in CLASS_NAMES if key in file.files), None)
        class_names = _get(path, file, names) if names else None
    name = f'npz:{path}'
    return validate(
        name, to_images(f'{name}: {images_key}', images, image_shape), labels, class_names
    )


def read_images(path: str | PathLike[str]) -> tuple[str, np.ndarray]:
    """The images of an .npz file, of its only split or of test: (key, array as it is stored).

    Raises:
      DataError: As `read_npz`.
    """
    path = pathlib.Path(path)
    with _open(path) as file:
        splits = _splits(path, file)
        for split in ('test', *splits):
            if split in splits:
                key = splits[split][0]
                return key, _get(path, file, key)
        raise DataError(
            f'npz:{path} has no images; expected an array x or images, got '
            f'{", ".join(file.files) or "no arrays"}'
        )


def to_images(name: str, x: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Rows [n, d] as images of the shape; other arrays unchanged.

    Raises:
      DataError: Rows of another length, or no image_shape.
    """
    if x.ndim != 2:
        return x
    d = x.shape[1]
    if not image_shape:
        sides = [(math.isqrt(d // c), c) for c in (1, 3) if d % c == 0]
        likely = next((f'{s} {s}' + f' {c}' * (c > 1) for s, c in sides if s * s * c == d), 'H W')
        raise DataError(
            f'{name} has rows of {d} numbers; give the shape of an image with --image_shape {likely}'
        )
    if math.prod(image_shape) != d:
        shape = ' '.join(map(str, image_shape))
        raise DataError(
            f'{name} has rows of {d} numbers; --image_shape {shape} has {math.prod(image_shape)}'
        )
    return x.reshape(len(x), *image_shape)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[Any]:
    """The arrays of an .npz file, read one by one with `_get`."""
    if not path.is_file():
        raise DataError(f'{path} is not a file; name an .npz file of images and labels')
    with path.open('rb') as stream:  # numpy does not close a file whose archive it cannot read
        try:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError('it holds one array, as .npy')
        except (
            Exception
        ) as error:  # zipfile, zlib and numpy raise many kinds of exceptions on a broken file
            raise _unreadable(path, error) from error
        yield file


def _get(path, file, key):
    try:
        return file[key]
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return DataError(
        f'{path} cannot be read as .npz ({type(error).__name__}: {error}); save it again with '
        'numpy.savez, arrays of numbers only'
    )


def _splits(path, file) -> dict[str, tuple[str, str]]:
    """The splits named by the keys: {split: (key of its images, key of its labels or '')}."""
    keys = file.files
    if len(keys) == 1 and not any(_split_of(keys[0], words) for words in (IMAGES, LABELS)):
        return {'train': (keys[0], '')} if _get(path, file, keys[0]).ndim > 1 else {}
    keys_of_split: dict[str, dict[str, tuple[int, str]]] = {}
    for key in keys:
        for kind, words in (('images', IMAGES), ('labels', LABELS)):
            if named := _split_of(key, words):
                split, rank = named
                known = keys_of_split.setdefault(split, {})
                known[kind] = min(known.get(kind, (len(words), '')), (rank, key))
    return {
        split: (kinds['images'][1], kinds.get('labels', (0, ''))[1])
        for split, kinds in keys_of_split.items()
        if 'images' in kinds
    }


def _split_of(key: str, words: Sequence[str]) -> tuple[str, int] | None:
    """(split, index of the word) of a key that begins or ends with one of the words."""
    for rank, word in enumerate(words):
        if key.lower() == word:
            return 'train', rank
        if key.lower().endswith(f'_{word}'):
            return key[: -len(word) - 1], rank
        if key.lower().startswith(f'{word}_'):
            return key[len(word) + 1 :], rank
    return None


def read_npy(path: str | PathLike[str]) -> np.ndarray:
    """The array in an .npy file.

    Raises:
      DataError: The file is truncated or contains Python objects.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f'{path} cannot be read as .npy ({error}); download it again') from error
