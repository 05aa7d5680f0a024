"""Files with a label and a sentence on each line."""

import codecs
import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike

import numpy as np

from lecture4.data.dataset import DataError, readable_name, sort_class_names
from lecture4.data.text.dataset import Sentences
from lecture4.data.text.tokens import Style, tokenize

LOG = logging.getLogger(__name__)
MAX_EMPTY_FRACTION = 0.1  # fraction of sentences without a word above which a set is refused
LONG_WORD = 20  # characters; a sentence of one such word is probably not segmented
LABEL_HEADERS = ('label', 'labels', 'class', 'category', 'target', 'sentiment', 'polarity', 'y')
TEXT_HEADERS = (
    'text',
    'texts',
    'sentence',
    'sentences',
    'review',
    'content',
    'message',
    'document',
    'x',
)


def read_tsv(
    path: str | PathLike[str],
    class_names: tuple[str, ...] | None = None,
    style: Style = 'unicode',
) -> Sentences:
    """The sentences of a file of label, tab, text.

    The encoding is UTF-8, or UTF-16 with a byte order mark; lines end in LF, CR LF, or CR alone. A first line of
    column names, such as label, tab, text, is skipped.

    Args:
      path: The file.
      class_names: The labels of another split; None takes those of this file, in alphabetical order, or by value if
        all are integers.
      style: As in `tokenize`.

    Raises:
      DataError: As in `read`.
    """
    lines = _tsv_lines(path, _decode(path))
    if class_names is None:
        class_names = sort_class_names({label for _, label, _ in lines})
    index = {name: i for i, name in enumerate(class_names)}
    return _parse(path, lines, index, class_names, style)


def read(
    path: str | PathLike[str],
    encoding: str,
    separator: str,
    index: Mapping[str, int],
    class_names: tuple[str, ...],
    style: Style,
) -> Sentences:
    """The sentences of a published file, in its order.

    Args:
      path: The file.
      encoding: Encoding of the file.
      separator: Separator of label and text. Only a newline ends a line, since texts may contain other line separators.
      index: Label in the file -> class.
      class_names: Names of the classes.
      style: As in `tokenize`.

    Raises:
      DataError: The file is in another encoding or has no sentence, a line has no label, no text or an unknown label
        (the message has its number), or too many sentences have no word.
    """
    try:
        content = pathlib.Path(path).read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not {encoding} text ({error}); convert it') from error
    lines = content.split('\n')
    return _parse(path, _fields(path, lines, separator), index, class_names, style)


def _decode(path):
    """The text of a user's file."""
    data = pathlib.Path(path).read_bytes()
    encoding = 'utf-8'
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = 'utf-16'
    try:
        content = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not {encoding} text ({error}); save it as UTF-8') from error
    if '\0' in content:
        raise DataError(f'{path} has null characters; save it as text in UTF-8')
    return content.lstrip('\ufeff')


def _tsv_lines(path, content):
    lines = content.split('\n' if '\n' in content else '\r')
    first = [column.strip().casefold() for column in lines[0].split('\t')]
    start = 1
    if len(first) == 2 and first[0] in LABEL_HEADERS and first[1] in TEXT_HEADERS:
        LOG.info('%s: the first line names the columns, and is skipped', path)
        lines, start = lines[1:], 2
    elif len(first) == 2 and first[0] in TEXT_HEADERS and first[1] in LABEL_HEADERS:
        raise DataError(f'{path}: expected columns label, text, got {", ".join(first)}; swap them')
    parsed = [
        (number, readable_name(label), text)
        for number, label, text in _fields(path, lines, '\t', start)
    ]
    labels = [label for _, label, _ in parsed]
    if start == 1 and len(labels) > 2 and labels.count(labels[0]) == 1 and len(set(labels)) > 2:
        LOG.warning(
            '%s: the label %r is on the first line alone; if that line names the columns, remove it',
            path, labels[0],
        )  # fmt: skip
    return parsed


def _fields(path, lines, separator, start=1) -> Iterator[tuple[int, str, str]]:
    """Number, label and text of each line."""
    form = 'label, tab, text' if separator == '\t' else 'label, space, text'
    for number, line in enumerate(lines[:-1] if lines[-1:] == [''] else lines, start):
        label, found, text = line.partition(separator)
        if not found or not label.strip():
            raise DataError(f'{path}, line {number}: expected {form}, got {line[:60]!r}')
        if not text.strip():
            raise DataError(f'{path}, line {number}: the sentence is empty; remove the line')
        yield number, label.strip(), text


def _parse(path, lines: Iterable[tuple[int, str, str]], index, class_names, style):
    texts, labels, empty = [], [], []
    for number, label, text in lines:
        if label not in index:
            raise DataError(
                f'{path}, line {number}: expected a label of {", ".join(index)}, got {label!r}; '
                'correct the line'
            )
        labels.append(index[label])
        texts.append(tokenize(text, style))
        if not texts[-1]:
            empty.append(number)
    if not texts:
        raise DataError(f'{path} has no sentences; name a file that has some')
    if empty:
        _report_empty(path, len(texts), empty, style)
    unsegmented = sum(len(words) == 1 and len(words[0]) >= LONG_WORD for words in texts)
    if 2 * unsegmented > len(texts):
        LOG.warning(
            '%s: %d of %d sentences are one word of %d or more characters; separate words by spaces',
            path, unsegmented, len(texts), LONG_WORD,
        )  # fmt: skip
    return Sentences(tuple(texts), np.asarray(labels, np.int32), class_names)


def _report_empty(path, num_sentences, empty, style):
    cleaning = (
        '' if style == 'unicode' else f' after the cleaning {style!r}, which keeps ASCII only'
    )
    message = (
        f'{path}: {len(empty)} of {num_sentences} sentences have no word{cleaning}, the first on line '
        f'{empty[0]}'
    )
    if len(empty) > MAX_EMPTY_FRACTION * num_sentences:
        fix = 'remove them' if style == 'unicode' else "use style 'unicode'"
        raise DataError(f'{message}; expected at most {100 * MAX_EMPTY_FRACTION:g} %; {fix}')
    LOG.warning('%s', message)
