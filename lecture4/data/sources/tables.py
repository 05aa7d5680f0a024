"""Tables of images: `csv:PATH`."""

import csv
import pathlib
from collections.abc import Callable, Sequence
from os import PathLike

import numpy as np

from lecture4.data.dataset import (
    DataError,
    Dataset,
    SplitError,
    readable_name,
    sort_class_names,
    validate,
)
from lecture4.data.sources import arrays, folders

FILES = ('path', 'file', 'filename', 'file_name', 'filepath', 'image', 'image_path')
LABELS = ('label', 'labels', 'class', 'class_name', 'target', 'category', 'y')
SPLITS = ('split', 'set', 'subset')


def read_csv(
    path: str | PathLike[str],
    split: str = 'train',
    *,
    image_shape: Sequence[int] = (),
    unreadable: folders.Unreadable = 'refuse',
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """A table of images: of files, or of the values of their pixels.

        path,label,split        a column of FILES, relative to the table's folder
        label,p0,p1,...,p783    a row of pixels each, with an image_shape; whole numbers of 0..255 become uint8

    A column of LABELS (text or numbers) and one of SPLITS are optional; without the latter, all rows are of split
    train. A table of numbers may have no header: then the label, if there is one, comes first. Classes are those
    of all splits, in order of name, or of number.

    Args:
      path: The table.
      split: 'train', or a value of the column of splits.
      image_shape: (height, width) or (height, width, channels) of rows of pixels.
      unreadable: Whether files that cannot be read are left out ('skip').
      transform: Applied to each image [h, w, c] of a file as soon as it is read.

    Raises:
      DataError: No such table or split, a table without images, rows of several lengths, values that are no numbers,
        or an image that cannot be read.
    """
    path = pathlib.Path(path)
    name = f'csv:{path}'
    header, rows = _read(name, path)
    columns = {title.strip().lower(): i for i, title in reversed(list(enumerate(header)))}
    file, label, split_column = (_column(columns, names) for names in (FILES, LABELS, SPLITS))
    if not header and image_shape and len(rows[0]) == int(np.prod(image_shape)) + 1:
        label = 0
    labels, class_names = None, ()
    if label is not None:
        values = [readable_name(row[label].strip()) for row in rows]
        if '' in values:
            raise DataError(
                f'{name}: row {values.index("") + 1} has no label; complete or remove it'
            )
        class_names = sort_class_names(set(values))
        index = {value: i for i, value in enumerate(class_names)}
        labels = np.array([index[value] for value in values], np.int32)
    row_numbers = _rows_of(name, rows, split_column, split)
    if file is not None:
        paths = [path.parent / rows[i][file].strip() for i in row_numbers]
        read, images = folders.read_files(paths, unreadable, transform)
        row_numbers = [row_numbers[i] for i in read]
    else:
        pixels = [i for i in range(len(rows[0])) if i not in (label, split_column)]
        images = _pixels(name, [[rows[i][j] for j in pixels] for i in row_numbers], image_shape)
    return validate(name, images, None if labels is None else labels[row_numbers], class_names)


def _read(name, path):
    """(titles of the columns or [], rows of text), all rows of one length."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f'{name} cannot be read ({error}); expected a table of comma-separated values'
        ) from None
    header = rows.pop(0) if rows and not all(map(_is_number, rows[0])) else []
    if not rows:
        raise DataError(f'{name} has no rows; expected one for each image')
    expected = len(header or rows[0])
    for i, row in enumerate(rows):
        if len(row) != expected:
            raise DataError(f'{name}: row {i + 1} has {len(row)} values, expected {expected}')
    return header, rows


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(columns, names):
    return next((columns[name] for name in names if name in columns), None)


def _rows_of(name, rows, column, split):
    if column is None:
        if split != 'train':
            raise SplitError(
                f'{name} has no split {split!r}; it has no column {" or ".join(SPLITS)}'
            )
        return list(range(len(rows)))
    values = [row[column].strip() for row in rows]
    if split not in values:
        raise SplitError(f'{name} has no split {split!r}; it has {", ".join(sorted(set(values)))}')
    return [i for i, value in enumerate(values) if value == split]


def _pixels(name, rows, image_shape):
    try:
        x = np.array(rows, np.float64)
    except ValueError:
        raise DataError(
            f'{name} has columns that are neither numbers nor named {", ".join(FILES)} (image files), '
            f'{", ".join(LABELS)} (labels) or {", ".join(SPLITS)}; rename or remove them'
        ) from None
    if (x == np.floor(x)).all() and x.min() >= 0 and 1 < x.max() <= 255:
        x = x.astype(np.uint8)
    return arrays.to_images(name, x, image_shape)
