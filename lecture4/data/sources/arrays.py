"""Arrays in files: `npz:PATH`, and the .npy files of published sets."""

import pathlib
from os import PathLike

import numpy as np

from lecture4.data.dataset import DataError, Dataset, validate


def read_npz(path: str | PathLike[str], split: str = 'train') -> Dataset:
    """The arrays of a split in an .npz file, by these names:

        images, labels                  split train
        SPLIT_images, SPLIT_labels      the split of that name
        x_SPLIT, y_SPLIT                the same, as Keras has them: x_train, y_train, x_test, ...
        class_names (or names)          one name per class, optional; else '0', '1', ...

    Args:
      path: The file. Labels are optional. Shapes and dtypes as `dataset.validate` accepts them.
      split: One of those above.

    Raises:
      DataError: No such file or split, or a file that is truncated or holds Python objects.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f'{path} is not a file; name an .npz file of images and labels')
    try:
        # numpy leaves a file open whose archive it cannot read, unless it is ours.
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            splits = _splits(file.files)
            if split not in splits:
                raise DataError(
                    f'npz:{path} has no split {split!r}; it has {", ".join(splits)}'
                    if splits
                    else f'npz:{path} has no images; expected images, train_images or x_train'
                )
            images_key, labels_key = splits[split]
            images = file[images_key]
            labels = file.get(labels_key)
            class_names = file.get('class_names', file.get('names'))
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a broken file
        raise DataError(
            f'{path} cannot be read as .npz ({type(error).__name__}: {error}); save it again with '
            'numpy.savez, arrays of numbers only'
        ) from error
    return validate(f'npz:{path}', images, labels, class_names)


def _splits(keys):
    """The splits that the keys make up: {split: (key of its images, key of its labels)}."""
    splits = {}
    for key in keys:
        if key == 'images':
            splits['train'] = (key, 'labels')
        elif key.endswith('_images'):
            splits[key.removesuffix('_images')] = (key, key.removesuffix('images') + 'labels')
        elif key.startswith('x_'):
            splits[key.removeprefix('x_')] = (key, 'y_' + key.removeprefix('x_'))
    return splits


def read_npy(path: str | PathLike[str]) -> np.ndarray:
    """The array in an .npy file.

    Raises:
      DataError: The file is truncated or holds Python objects.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f'{path} cannot be read as .npy ({error}); download it again') from error
