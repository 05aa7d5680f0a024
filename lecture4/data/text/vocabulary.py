"""Words as integers, and sentences of many lengths as arrays of few shapes.

0 is the padding, 1 the unknown word; words of the vocabulary follow. A program is compiled once for every shape, so
sentences are padded to one of few lengths, and the distinct words of a batch to one of few counts.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

PADDING, UNKNOWN = 0, 1
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 512)


class Vocabulary(NamedTuple):
    """words[i] is the word with index i, and word_index is the inverse. The first two are not words."""

    words: tuple[str, ...]
    word_index: dict[str, int]

    def __len__(self) -> int:
        return len(self.words)


def build(sentences: Iterable[Sequence[str]], min_count: int = 1) -> Vocabulary:
    """The words that occur at least `min_count` times, by descending frequency, ties by first occurrence."""
    counts = collections.Counter(word for sentence in sentences for word in sentence)
    frequent = [word for word, count in counts.most_common() if count >= min_count]
    words = ('<padding>', '<unknown>', *frequent)
    return Vocabulary(words, {word: i for i, word in enumerate(words) if i > UNKNOWN})


def encode(
    vocabulary: Vocabulary,
    sentences: Sequence[Sequence[str]],
    *,
    max_length: int = 0,
    truncate: bool = False,
) -> list[Int32[np.ndarray, ' _length']]:
    """Sentences as arrays of word indices; a word that is not in the vocabulary has index 1.

    Args:
      vocabulary: The known words.
      sentences: Sentences as sequences of words.
      max_length: Largest number of words in a sentence; 0 for any.
      truncate: Whether to drop words beyond max_length.

    Raises:
      ValueError: A sentence is longer than max_length (the message has its index), unless `truncate`.
    """
    index = vocabulary.word_index
    encoded = []
    for i, sentence in enumerate(sentences):
        if max_length and len(sentence) > max_length and not truncate:
            raise ValueError(
                f'sentence {i} has {len(sentence)} words, expected at most {max_length}; raise '
                'max_length, or truncate the sentences'
            )
        words = sentence[: max_length or None]
        encoded.append(np.array([index.get(word, UNKNOWN) for word in words], np.int32))
    return encoded


def length_for(longest: int, lengths: Sequence[int] = LENGTHS) -> int:
    """The smallest of `lengths` that fits `longest` words.

    Raises:
      ValueError: None fits.
    """
    for length in lengths:
        if length >= longest:
            return length
    raise ValueError(
        f'a sentence has {longest} words, expected at most {max(lengths)}, the largest of the lengths '
        f'{tuple(lengths)}; add a larger one, or truncate the sentences'
    )


def pad(
    encoded: Sequence[Int[np.ndarray, ' _length']], length: int | None = None
) -> Int32[np.ndarray, 'n length']:
    """Sentences as one array, padded with zeros.

    Args:
      encoded: n sentences of any lengths.
      length: Length of the result; None takes `length_for` of the longest.

    Raises:
      ValueError: A sentence is longer than `length`.
    """
    longest = max((len(sentence) for sentence in encoded), default=0)
    if length is None:
        length = length_for(longest)
    if longest > length:
        raise ValueError(
            f'a sentence has {longest} words, expected at most {length}, the length to pad to; use a '
            'larger length'
        )
    words = np.zeros((len(encoded), length), np.int32)
    for row, sentence in zip(words, encoded, strict=True):
        row[: len(sentence)] = sentence
    return words


def group_by_length(
    encoded: Sequence[Int[np.ndarray, ' _length']], lengths: Sequence[int] = LENGTHS
) -> dict[int, Int[np.ndarray, ' _n']]:
    """Sentences grouped by the smallest length that fits them.

    Args:
      encoded: Sentences of any lengths.
      lengths: Lengths, ascending.

    Returns:
      {length: rows of its sentences}, lengths ascending.

    Raises:
      ValueError: A sentence is longer than all lengths.
    """
    fitting = np.array([length_for(len(sentence), lengths) for sentence in encoded], int)
    return {length: np.flatnonzero(fitting == length) for length in sorted(set(fitting.tolist()))}


def distinct(
    words: Int[np.ndarray, 'n t'],
) -> tuple[Int32[np.ndarray, 'n r'], Int32[np.ndarray, 'n t']]:
    """The distinct word indices of a batch, and the batch as indices into them.

    rows.reshape(-1)[local] is `words`, and rows.reshape(-1)[0] is 0. The rows are distributed over the examples of
    the batch, r each, so that they have a batch axis and are divided among devices like the batch; unused entries are
    0. r is one of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: four sizes per doubling, to bound the number of
    shapes.

    Args:
      words: Word indices [n, t], n >= 1.

    Returns:
        (rows, local).
    """
    n = len(words)
    values, local = np.unique(np.append(words.reshape(-1), PADDING), return_inverse=True)
    per_example = -(-len(values) // n)
    unit = 1 << max(per_example.bit_length() - 3, 0)
    rows = np.zeros(n * (-(-per_example // unit) * unit), np.int32)
    rows[: len(values)] = values
    return rows.reshape(n, -1), local[:-1].reshape(words.shape).astype(np.int32)
