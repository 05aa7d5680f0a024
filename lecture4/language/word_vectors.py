"""Word vectors from files: word2vec's binary and text formats, and GloVe's text. Also gzipped.

word2vec text    a header 'COUNT SIZE', then lines of a word and SIZE numbers
word2vec binary  the same header, then COUNT times: the word, a space, SIZE float32 (little endian), and in
                 some files a newline
GloVe, fastText  lines of a word and its numbers, without a header (GloVe) or with one (fastText's .vec)
NumPy (.npz)     `words` (UTF-8 bytes, one word per line) and `vectors` [n, SIZE], or `q` int8 [rows, SIZE] and `scale`
                 [rows], vector = q * scale, and `row` [n] if words share rows

Columns of text files are separated by spaces or tabs, any number of them; a byte-order mark is skipped.
"""

import gzip
import io
import logging
import pathlib
import zipfile
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20
LONGEST_WORD = 4096  # bytes; a binary file without a space within this number is not in the format
BYTE_ORDER_MARK = b'\xef\xbb\xbf'
GZIP = b'\x1f\x8b'
# First bytes of files that are not in these formats, and the remedy.
OTHER_FORMATS = (
    (b'PK\x03\x04', 'is a zip archive; unzip it and name the text file inside'),
    (b'BZh91AY&SY', 'is a bzip2 archive; unpack it'),
    (b'\xfd7zXZ', 'is an xz archive; unpack it'),
    (b'\xba\x16\x4f\x2f', "is a fastText model; name the text file of its vectors, '.vec'"),
    (b'version https://git-lfs', 'is a git-lfs pointer; fetch the file itself with git lfs pull'),
    (b'<', 'is an HTML page or XML, not the file to download; download it again'),
    (b'\x93NUMPY', 'is a NumPy array without words; export it in the text format'),
    (b'\x80', "is a Python pickle; export it with gensim's save_word2vec_format"),
    (b'\x89HDF', 'is an HDF5 file; export it in the text format'),
    (b'\xff\xfe', 'is UTF-16 text; save it as UTF-8'),
    (b'\xfe\xff', 'is UTF-16 text; save it as UTF-8'),
)


class WordVectors(NamedTuple):
    """Words and a vector for each."""

    words: tuple[str, ...]
    vectors: Float[np.ndarray, 'n size']


def read(path: str | pathlib.Path, vocabulary: Collection[str] | None = None) -> WordVectors:
    """The vectors of a file, or only those of the words in a vocabulary.

    The format is recognized by the file's first bytes and lines. A word of a text file may contain spaces (as in
    GloVe's largest file): the numbers are the last SIZE fields of a line. If a word occurs twice, the first one counts.

    Args:
      path: The file, possibly gzipped.
      vocabulary: Words to read; None reads all. Memory is proportional to these words, and for lines of other words
        only the number of fields is checked.

    Returns:
      The words that have a vector, in the order of the file, and their vectors, float32.

    Raises:
      ValueError: The file is in an unsupported format (an archive, a fastText model, an HTML page, a git-lfs pointer,
        ...), contains no word of the vocabulary, or is broken: too few numbers, a field that is not a finite number,
        an end before the count in the header. The message has the file and the line, or in binary files the word.
    """
    path = pathlib.Path(path).expanduser()
    vocabulary = None if vocabulary is None else frozenset(vocabulary)
    if path.suffix == '.npz':
        return _read_npz(path, vocabulary)
    vectors: dict[str, np.ndarray] = {}
    first_words: list[str] = []
    try:
        with _open(path) as file:
            count, size, is_text, has_header = _format(path, file)
        with _open(path) as file:
            if has_header:
                file.readline()
            if is_text:
                entries = _text(path, file, size, 1 + has_header, count)
            else:
                entries = _binary(path, file, count, size)
            for word, where, numbers in entries:
                if len(first_words) < 3:
                    first_words.append(word)
                if word not in vectors and (vocabulary is None or word in vocabulary):
                    vectors[word] = _vector(where, word, numbers)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f'{path} is truncated ({error}); download it again') from error
    if vocabulary and not vectors:
        raise ValueError(
            f'{path} contains none of the {len(vocabulary):,} words of the vocabulary, such as '
            f'{", ".join(map(repr, sorted(vocabulary)[:3]))}; its first words are '
            f'{", ".join(map(repr, first_words))}: use vectors of the same language and letter case'
        )
    rows = np.stack(list(vectors.values())) if vectors else np.zeros((0, size), np.float32)
    return WordVectors(tuple(vectors), rows)


def _read_npz(path: pathlib.Path, vocabulary: Collection[str] | None) -> WordVectors:
    try:
        # numpy does not close a file whose archive it cannot read, so it is opened here.
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            words = file['words'].tobytes().decode('utf-8').split('\n')
            row = file['row'] if 'row' in file.files else np.arange(len(words))
            keep = [i for i, word in enumerate(words) if vocabulary is None or word in vocabulary]
            at = row[keep]
            if 'vectors' in file.files:
                vectors = file['vectors'][at].astype(np.float32)
            else:
                vectors = file['q'][at] * file['scale'].astype(np.float32)[at][:, None]
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(
            f'{path} cannot be read ({error}); expected arrays words and vectors, or words, q and scale'
        ) from error
    if not keep:
        raise ValueError(
            f'{path} contains none of the {len(vocabulary or ()):,} words of the vocabulary; use vectors of the '
            'same language and letter case'
        )
    return WordVectors(tuple(words[i] for i in keep), vectors)


def normalized(vectors: WordVectors, length: float | int = 1.0) -> WordVectors:
    """The same words with vectors of equal norm; zero stays zero."""
    norms = np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
    return vectors._replace(vectors=vectors.vectors * (length / np.maximum(norms, 1e-12)))


def coverage(vectors: WordVectors, vocabulary: Collection[str]) -> str:
    """Number of words of the vocabulary that have a vector, as text: '16,639 of 18,765 words found'."""
    covered = len(frozenset(vectors.words) & frozenset(vocabulary))
    return f'{covered:,} of {len(vocabulary):,} words found'


def _open(path: pathlib.Path) -> io.BufferedIOBase:
    """The unpacked bytes of the file, after a byte-order mark."""
    with path.open('rb') as file:
        zipped = file.read(2) == GZIP or path.suffix == '.gz'
    file = gzip.GzipFile(path) if zipped else path.open('rb')
    if file.read(3) != BYTE_ORDER_MARK:
        file.seek(0)
    return file


def _format(path, file) -> tuple[int | None, int, bool, bool]:
    """(count in the header or None, numbers per word, whether text, whether there is a header)."""
    start = file.tell()
    sample = file.read(LONGEST_WORD)
    for magic, advice in OTHER_FORMATS:
        if sample.startswith(magic) and not (magic == b'<' and _size(sample.split(b'\n')[0])):
            raise ValueError(f'{path} {advice}')
    file.seek(start)
    lines = [file.readline(CHUNK) for _ in range(10)]
    first, second = lines[:2]
    header = first.split()
    has_header = len(header) == 2 and all(field.isdigit() for field in header)
    is_text = not _is_binary(sample[len(first) if has_header else 0 :])
    if is_text and b'\r' in first.strip():
        raise ValueError(
            f'{path} ends its lines by carriage returns alone; convert them to newlines'
        )
    if has_header:
        size = int(header[1])
        return int(header[0]), size, is_text or _size(second) >= size > 0, True
    # A word may end in a number, and a line may be broken: the majority of the first lines decides.
    sizes = [_size(line) for line in lines if line.strip()]
    size = max(sizes, key=sizes.count, default=0)
    if size < 1 or not _size(first):
        raise ValueError(
            f'{path}, line 1: expected a header of count and size, or a word and its numbers, got '
            f'{first[:60]!r}; remove lines of other content, or name a file of word vectors'
        )
    return None, size, True, False


def _size(line: bytes) -> int:
    """Number of numbers at the end of a line, not counting its first field."""
    fields = line.split()
    size = 0
    for field in reversed(fields[1:]):
        try:
            float(field)
        except ValueError:
            break
        size += 1
    return size


def _is_binary(sample: bytes) -> bool:
    """Whether bytes are not text: they have control characters other than tabs and line ends, or are not UTF-8."""
    if any(byte < 32 and byte not in b'\t\n\r' for byte in sample):
        return True
    try:
        sample[:-4].decode('utf-8')  # the sample may end in the middle of a character
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 8
    return False


def _text(path, file, size, start, count) -> Iterator[tuple[str, str, list[bytes]]]:
    n_words = 0
    for number, line in enumerate(file, start):
        if not line.strip():
            continue
        fields = line.rsplit(None, size)
        where = f'{path}, line {number}'
        if len(fields) == size and line[:1].isspace():  # the word is white space
            fields = [b'', *fields]
        if len(fields) != size + 1:
            raise ValueError(
                f'{where}: expected {size} numbers, got {len(fields) - 1}; fix or remove the line'
            )
        n_words += 1
        yield fields[0].strip().decode('utf-8', 'replace'), where, fields[1:]
    if count is not None and n_words != count:
        raise ValueError(
            f'{path} contains {n_words} words, but its header says {count}; download it again'
        )


def _binary(path, file, count, size) -> Iterator[tuple[str, str, bytes]]:
    buffer, at = b'', 0
    for i in range(1, count + 1):
        where = f'{path}, word {i} of {count}'
        while True:
            space = buffer.find(b' ', at, at + LONGEST_WORD)
            if space >= 0 and len(buffer) > space + 4 * size:
                break
            if more := file.read(CHUNK):
                buffer, at = buffer[at:] + more, 0
            elif len(buffer) - at < LONGEST_WORD:
                raise ValueError(f'{where}: the file ends before its numbers do; download it again')
            else:
                raise ValueError(
                    f'{where}: expected a word and a space, got {buffer[at : at + 20]!r}; download '
                    'the file again'
                )
        word = buffer[at:space].lstrip(b'\n').decode('utf-8', 'replace')
        at = space + 1 + 4 * size
        yield word, where, buffer[space + 1 : at]


def _vector(where, word, numbers) -> np.ndarray:
    try:
        if isinstance(numbers, bytes):
            vector = np.frombuffer(numbers, '<f4').astype(np.float32)
        else:
            vector = np.array([float(field) for field in numbers], np.float32)
    except ValueError as error:
        raise ValueError(f'{where}: {error}; fix or remove the line') from None
    if not np.isfinite(vector).all():
        raise ValueError(f'{where}: the vector of {word!r} is not finite; fix or remove it')
    return vector


def random_table(
    key: PRNGKeyArray, n_words: int, size: int, *, scale: float = 0.25, n_special: int = 2
) -> Float[Array, 'n_words size']:
    """A table of word vectors from U(-scale, scale); the first n_special rows, which are not words, are zero.

    References:
      Kim 2014, section 3.1: the scale that gives unknown words the variance of word2vec's.
    """
    table = jax.random.uniform(key, (n_words, size), minval=-scale, maxval=scale)
    return table.at[:n_special].set(0)


def fill_table(
    vectors: WordVectors, word_index: Mapping[str, int], n_words: int, size: int
) -> tuple[Float[np.ndarray, 'n_words size'], Bool[np.ndarray, ' n_words']]:
    """Word vectors in the rows of their words, zeros elsewhere.

    Args:
      vectors: Words and vectors.
      word_index: The row of each word, below n_words.
      n_words: Number of rows of the table.
      size: Dimension of the vectors.

    Returns:
      (table, given): float32 rows, and the mask of rows that have a vector.

    Raises:
      ValueError: The vectors have another size.
    """
    if vectors.vectors.shape[1] != size:
        raise ValueError(
            f'expected vectors of {size} numbers, got {vectors.vectors.shape[1]}; set the size to '
            f'{vectors.vectors.shape[1]}'
        )
    table, given = np.zeros((n_words, size), np.float32), np.zeros(n_words, bool)
    for word, vector in zip(vectors.words, vectors.vectors, strict=True):
        if word in word_index:
            table[word_index[word]], given[word_index[word]] = vector, True
    return table, given


def load_table(
    path: str | pathlib.Path,
    word_index: Mapping[str, int],
    n_words: int,
    size: int,
    norm: float | int = 0,
) -> tuple[Float[np.ndarray, 'n_words size'], Bool[np.ndarray, ' n_words']]:
    """The vectors of a file in the rows of their words, as in `fill_table`; logs the number of words that have one.

    Args:
      path: See `read`; empty if there is no file, so that no word has a vector.
      word_index: The row of each word, below n_words.
      n_words: Number of rows of the table.
      size: Dimension of the vectors.
      norm: Norm that every vector of the file is scaled to; 0 keeps them. Random vectors of 300 numbers, as in
        `random_table`, have norms of about 2.5; those of files can be much larger.

    Raises:
      ValueError: As in `read`; or the vectors have another size.
    """
    if not path:
        return np.zeros((n_words, size), np.float32), np.zeros(n_words, bool)
    vectors = read(path, word_index)
    LOG.info('%s: %s', path, coverage(vectors, word_index))
    if (found := vectors.vectors.shape[1]) != size:
        raise ValueError(
            f'{path} has vectors of {found} numbers, expected {size}; use --embedding_dim {found}'
        )
    return fill_table(normalized(vectors, norm) if norm else vectors, word_index, n_words, size)


def initial_table(
    key: PRNGKeyArray,
    table: Float[Array | np.ndarray, 'n_words size'],
    given: Bool[Array | np.ndarray, ' n_words'],
) -> Float[Array, 'n_words size']:
    """Pretrained vectors if there are some, random ones elsewhere, see `random_table`."""
    random = random_table(key, *table.shape)
    return jnp.where(given[:, None], table, random)


def scaled_table(
    word_index: Mapping[str, int],
    n_words: int,
    size: int,
    vectors: WordVectors | None = None,
    *,
    length: float | int = 2.0,
    seed: int = 0,
) -> Float[np.ndarray, 'n_words d']:
    """Word vectors of about equal norm: pretrained ones, random ones for other words, zeros for the padding.

    Args:
      word_index: The row of each word.
      n_words: Number of rows of the table; row 0 is the padding.
      size: Dimension of the vectors if none are given.
      vectors: Pretrained words and vectors, which determine the dimension.
      length: Norm of each given vector, and expected norm of a random one.
      seed: Seed of the random vectors.
    """
    if vectors is not None:
        size = vectors.vectors.shape[1]
    table = np.random.default_rng(seed).normal(0, length / size**0.5, (n_words, size))
    if vectors is not None:
        filled, given = fill_table(normalized(vectors, length), word_index, n_words, size)
        table = np.where(given[:, None], filled, table)
    table[0] = 0
    return table.astype(np.float32)
