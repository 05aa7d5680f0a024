"""Files with a label and a sentence on each line."""

import pathlib
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import NamedTuple

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.text.dataset import Sentences
from lecture4.data.text.tokens import Style, tokenize


class Format(NamedTuple):
    """The encoding of a file, and what separates the label from the text."""

    encoding: str = 'latin-1'
    separator: str = ' '


TSV = Format('utf-8', '\t')


def read_tsv(path: str | PathLike[str], class_names: tuple[str, ...] | None = None) -> Sentences:
    """The sentences of a file of label, tab, text in UTF-8.

    Args:
      path: The file.
      class_names: The labels of another split; None takes those of this file, in sorted order.

    Raises:
      DataError: As `read`.
    """
    if class_names is None:
        class_names = tuple(sorted({label for _, label, _ in _lines(path, TSV)}))
    index = {name: i for i, name in enumerate(class_names)}
    return read(path, TSV, index, class_names, 'kim')


def read(
    path: str | PathLike[str],
    format: Format,
    index: Mapping[str, int],
    class_names: tuple[str, ...],
    style: Style,
) -> Sentences:
    """The sentences of a file, in its order.

    Args:
      path: The file.
      format: Of a line.
      index: From a label in the file to its class.
      class_names: One per class.
      style: As `tokenize`.

    Raises:
      DataError: The file is in another encoding or has no sentence, or a line has no label, no text
        or another label (named by its number).
    """
    texts, labels = [], []
    for number, label, text in _lines(path, format):
        if label not in index:
            raise DataError(
                f'{path}, line {number}: expected a label of {", ".join(index)}, got {label!r}; '
                'correct the line'
            )
        labels.append(index[label])
        texts.append(tokenize(text, style))
    if not texts:
        raise DataError(f'{path} has no sentences; name a file that has some')
    return Sentences(tuple(texts), np.asarray(labels, np.int32), class_names)


def _lines(path, format) -> Iterator[tuple[int, str, str]]:
    """Number, label and text of each line; only a newline ends a line, texts have other separators."""
    try:
        content = pathlib.Path(path).read_bytes().decode(format.encoding)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not {format.encoding} text ({error}); convert it') from error
    lines = content.split('\n')
    if lines[-1] == '':
        lines.pop()
    form = 'label, tab, text' if format.separator == '\t' else 'label, space, text'
    for number, line in enumerate(lines, 1):
        label, separator, text = line.partition(format.separator)
        if not separator or not label.strip():
            raise DataError(f'{path}, line {number}: expected {form}, got {line[:60]!r}')
        if not text.strip():
            raise DataError(f'{path}, line {number}: the sentence is empty; remove the line')
        yield number, label.strip(), text
