"""Words as numbers, and sentences of many lengths as arrays of few shapes.

Number 0 is the padding, 1 the unknown word; words of the vocabulary follow. A program is compiled once for every shape
that it sees, so sentences are padded to one of few lengths, and the distinct words of a batch to one of few counts.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

PADDING, UNKNOWN = 0, 1
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 512)


class Vocabulary(NamedTuple):
    """words[i] is the word of number i, number[word] its inverse. The first two are no words."""

    words: tuple[str, ...]
    number: dict[str, int]

    def __len__(self):
        return len(self.words)


def build(sentences: Iterable[Sequence[str]], least: int = 1) -> Vocabulary:
    """The words that occur at least `least` times, the most frequent first, ties in order of first sight."""
    counts = collections.Counter(word for sentence in sentences for word in sentence)
    chosen = [word for word, count in counts.most_common() if count >= least]
    words = ('<padding>', '<unknown>', *chosen)
    return Vocabulary(words, {word: i for i, word in enumerate(words) if i > UNKNOWN})


def encode(
    vocabulary: Vocabulary, sentences: Sequence[Sequence[str]], *, bound: int = 0, cut: bool = False
) -> list[np.ndarray]:
    """Sentences as int32 arrays of word numbers; a word that is not in the vocabulary is 1.

    bound   most words of a sentence; 0: any number.
    cut     drops what lies beyond the bound.
    Errors  ValueError for a sentence longer than the bound, by its index, unless `cut`.
    """
    number = vocabulary.number
    encoded = []
    for i, sentence in enumerate(sentences):
        if bound and len(sentence) > bound and not cut:
            raise ValueError(
                f'sentence {i} has {len(sentence)} words, the bound is {bound}; raise the bound, or cut the sentences'
            )
        kept = sentence[: bound or None]
        encoded.append(np.array([number.get(word, UNKNOWN) for word in kept], np.int32))
    return encoded


def length_for(longest: int, lengths: Sequence[int] = LENGTHS) -> int:
    """The least of `lengths` that holds `longest` words.

    Errors  ValueError where none does.
    """
    for length in lengths:
        if length >= longest:
            return length
    raise ValueError(
        f'a sentence has {longest} words, the longest of the lengths {tuple(lengths)} is {max(lengths)}; '
        'add a longer one, or cut the sentences'
    )


def pad(encoded: Sequence[np.ndarray], length: int | None = None) -> np.ndarray:
    """Sentences as one array, zeros behind their words.

    Shapes  n arrays of any lengths -> int32 [n, length]; length None: length_for the longest.
    Errors  ValueError where a sentence is longer than `length`.
    """
    longest = max((len(sentence) for sentence in encoded), default=0)
    if length is None:
        length = length_for(longest)
    if longest > length:
        raise ValueError(
            f'a sentence has {longest} words and is padded to {length}; give a length that holds it'
        )
    words = np.zeros((len(encoded), length), np.int32)
    for row, sentence in zip(words, encoded, strict=True):
        row[: len(sentence)] = sentence
    return words


def by_length(
    encoded: Sequence[np.ndarray], lengths: Sequence[int] = LENGTHS
) -> dict[int, np.ndarray]:
    """Rows of the sentences that each length holds and no shorter one does: {length: int [n]}, lengths rising.

    Errors  ValueError where a sentence is longer than all of them.
    """
    fitting = np.array([length_for(len(sentence), lengths) for sentence in encoded], int)
    return {length: np.flatnonzero(fitting == length) for length in sorted(set(fitting.tolist()))}


def distinct(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, local): the distinct numbers of a batch, and the batch in terms of them.

    rows.reshape(-1)[local] is `words`, and rows.reshape(-1)[0] is 0. The rows are dealt out over the batch's examples,
    r to each, so that they have the batch's axis and are divided among devices as the batch is; what is left over is
    0. r is one of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: four sizes to a doubling, to bound the number of
    shapes.

    Shapes  words int [n, t], n >= 1 -> rows int32 [n, r], local int32 [n, t].
    """
    n = len(words)
    found, local = np.unique(np.append(words.reshape(-1), PADDING), return_inverse=True)
    each = -(-len(found) // n)
    unit = 1 << max(each.bit_length() - 3, 0)
    rows = np.zeros(n * (-(-each // unit) * unit), np.int32)
    rows[: len(found)] = found
    return rows.reshape(n, -1), local[:-1].reshape(words.shape).astype(np.int32)
