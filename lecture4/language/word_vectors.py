"""Word vectors from files: word2vec's binary and text formats, and GloVe's text. Also gzipped.

word2vec text    a line 'COUNT SIZE', then lines of a word and SIZE numbers, divided by spaces
word2vec binary  the same first line, then COUNT times: the word, a space, SIZE float32 (little endian), and in
                 some files a newline
GloVe            lines of a word and its numbers; the first line tells how many
"""

import gzip
import pathlib
from collections.abc import Collection, Mapping
from typing import IO, NamedTuple

import jax
import numpy as np

CHUNK = 1 << 20
LONGEST_WORD = (
    4096  # bytes; no word is so long, so a file without a space there is not in the format
)


class WordVectors(NamedTuple):
    """words n of them, vectors float32 [n, d]."""

    words: tuple[str, ...]
    vectors: np.ndarray


def read(path, wanted: Collection[str] | None = None) -> WordVectors:
    """The vectors of a file, or of those of its words that are `wanted`; of repeated words the first.

    The format is told from the first two lines. Memory grows with the wanted words only.
    Domain  a word of a text file may hold spaces (GloVe's largest has such); its numbers are the last SIZE fields. Of
            lines that are not wanted only the number of fields is looked at.
    Errors  ValueError naming the file and the line (binary: the word) where it is broken: too few numbers, something
            that is no finite number, an end before the promised count.
    """
    path = pathlib.Path(path).expanduser()
    wanted = None if wanted is None else frozenset(wanted)
    found: dict[str, np.ndarray] = {}
    try:
        with _open(path) as file:
            first, second = file.readline(), file.readline(CHUNK)
        header = first.split()
        counted = len(header) == 2 and all(field.isdigit() for field in header)
        size = int(header[1]) if counted else len(first.split()) - 1
        if size < 1:
            raise ValueError(
                f'{path}, line 1: {first[:60]!r} is no word with its numbers; name a file of word vectors'
            )
        with _open(path) as file:
            if counted:
                file.readline()
            if counted and not _is_text(second, size):
                pairs = _binary(path, file, int(header[0]), size)
            else:
                pairs = _text(path, file, size, 1 + counted, int(header[0]) if counted else None)
            for word, where, numbers in pairs:
                if word not in found and (wanted is None or word in wanted):
                    found[word] = _vector(where, word, numbers)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f'{path} is cut short ({error}); fetch it again') from error
    vectors = np.stack(list(found.values())) if found else np.zeros((0, size), np.float32)
    return WordVectors(tuple(found), vectors)


def _open(path) -> IO[bytes]:
    return gzip.GzipFile(path) if path.suffix == '.gz' else path.open('rb')  # pyright: ignore


def _is_text(line: bytes, size: int) -> bool:
    fields = line.rstrip().rsplit(b' ', size)
    try:
        return len(fields) == size + 1 and bool([float(field) for field in fields[1:]])
    except ValueError:
        return False


def _text(path, file, size, start, count):
    number = start - 1
    for number, line in enumerate(file, start):
        fields = line.rstrip(b' \r\n').rsplit(b' ', size)
        where = f'{path}, line {number}'
        if len(fields) != size + 1:
            raise ValueError(
                f'{where}: {len(fields) - 1} numbers, wanted {size}; mend or remove the line'
            )
        yield fields[0].decode('utf-8', 'replace'), where, fields[1:]
    if count is not None and number + 1 - start != count:
        raise ValueError(
            f'{path} holds {number + 1 - start} words, its first line says {count}; fetch it again'
        )


def _binary(path, file, count, size):
    buffer, at = b'', 0
    for i in range(1, count + 1):
        while True:
            space = buffer.find(b' ', at, at + LONGEST_WORD)
            if space >= 0 and len(buffer) > space + 4 * size:
                break
            if more := file.read(CHUNK):
                buffer, at = buffer[at:] + more, 0
            elif len(buffer) - at < LONGEST_WORD:
                raise ValueError(
                    f'{path}, word {i} of {count}: the file ends before its numbers do; fetch it again'
                )
            else:
                raise ValueError(
                    f'{path}, word {i} of {count}: no word where one is due; fetch it again'
                )
        word = buffer[at:space].lstrip(b'\n').decode('utf-8', 'replace')
        at = space + 1 + 4 * size
        yield word, f'{path}, word {i} of {count}', buffer[space + 1 : at]


def _vector(where, word, numbers) -> np.ndarray:
    try:
        if isinstance(numbers, bytes):
            vector = np.frombuffer(numbers, '<f4').astype(np.float32)
        else:
            vector = np.array([float(field) for field in numbers], np.float32)
    except ValueError as error:
        raise ValueError(f'{where}: {error}; mend or remove the line') from None
    if not np.isfinite(vector).all():
        raise ValueError(f'{where}: the vector of {word!r} is not finite; mend or remove it')
    return vector


def random_table(key, n_words: int, size: int, *, scale=0.25, n_blank: int = 2) -> jax.Array:
    """A table of word vectors drawn from U(-scale, scale); the first `n_blank`, which stand for no word, are zero.

    Shapes  returns float [n_words, size].
    Source  Kim 2014, section 3.1: the scale that gives unknown words the variance of word2vec's.
    """
    table = jax.random.uniform(key, (n_words, size), minval=-scale, maxval=scale)
    return table.at[:n_blank].set(0)


def aligned(found: WordVectors, number: Mapping[str, int], n_words: int, size: int):
    """(table, given): the found vectors in the rows that their words have, zeros elsewhere, and which rows are theirs.

    Shapes  number gives rows below n_words. Returns float32 [n_words, size], bool [n_words].
    Errors  ValueError where the vectors have another size.
    """
    if found.vectors.shape[1] != size:
        raise ValueError(
            f'the file holds vectors of {found.vectors.shape[1]} numbers, wanted {size}; '
            f'set the size to {found.vectors.shape[1]}'
        )
    table, given = np.zeros((n_words, size), np.float32), np.zeros(n_words, bool)
    for word, vector in zip(found.words, found.vectors, strict=True):
        if word in number:
            table[number[word]], given[number[word]] = vector, True
    return table, given
