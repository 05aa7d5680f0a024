"""Batches of sentences of similar length, each a pure function of (seed, n), of few shapes.

A program is compiled once for every length of a batch. Sentences are grouped by the smallest of a few lengths that
fits them, and a batch comes from one group, so that it has little padding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lecture4.data.dataset import DataError
from lecture4.data.text import vocabulary
from lecture4.data.text.vocabulary import Vocabulary

LENGTHS = (8, 12, 16, 24, 40)  # lengths of padded sentences in words


class Sampler(NamedTuple):
    """Batches over epochs.

    Attributes:
      rows: n -> rows of the sentences of batch n, [batch_size].
      length: n -> padded length of batch n.
      batches_per_epoch: Number of batches in which every sentence occurs; a few occur twice, to fill the
        last batch of a group.
      lengths: The different padded lengths.
    """

    rows: Callable[[int], Int[np.ndarray, ' batch_size']]
    length: Callable[[int], int]
    batches_per_epoch: int
    lengths: tuple[int, ...]


def encode(
    words: Vocabulary, sentences: Sequence[Sequence[str]], *, drop_unknown: bool
) -> list[Int[np.ndarray, ' _length']]:
    """Sentences as word indices.

    Args:
      words: The vocabulary.
      sentences: Sentences as lists of words.
      drop_unknown: Whether words that are not in the vocabulary are left out, as in neuraltalk, or become the unknown
        word.

    Raises:
      DataError: A sentence has no word, or none in the vocabulary (the message has its index).
    """
    encoded = vocabulary.encode(words, sentences)
    for i, sentence in enumerate(encoded):
        if not (sentence > vocabulary.UNKNOWN).any():
            shown = ' '.join(sentences[i]) or '(empty)'
            raise DataError(
                f'sentence {i} has no word of the vocabulary of {len(words) - 2} words: {shown!r}; remove '
                'it, or lower --min_count'
            )
    if drop_unknown:
        encoded = [sentence[sentence > vocabulary.UNKNOWN] for sentence in encoded]
    return encoded


def by_length(
    lengths: Sequence[int] | Int[np.ndarray, ' m'],
    batch_size: int,
    *,
    seed: int,
    buckets: Sequence[int] = LENGTHS,
) -> Sampler:
    """Batches of sentences of one group of lengths, in random order.

    Args:
      lengths: Numbers of words of m sentences.
      batch_size: Number of sentences per batch.
      seed: Seed of the order.
      buckets: Padded lengths, ascending.

    Raises:
      DataError: A sentence is longer than the largest bucket.
    """
    lengths = np.asarray(lengths)
    if lengths.max() > max(buckets):
        raise DataError(
            f'sentence {int(lengths.argmax())} has {lengths.max()} words, expected at most {max(buckets)}; '
            'raise --max_length, or remove it'
        )
    fitting = np.asarray(buckets)[np.searchsorted(buckets, lengths)]
    groups = {int(length): np.flatnonzero(fitting == length) for length in np.unique(fitting)}
    counts = {length: -(-len(rows) // batch_size) for length, rows in groups.items()}
    per_epoch = sum(counts.values())

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> list[tuple[int, np.ndarray]]:
        rng = np.random.default_rng((seed, number))
        batches = []
        for length, rows in groups.items():
            order = np.resize(rng.permutation(rows), counts[length] * batch_size)
            batches += [(length, part) for part in order.reshape(-1, batch_size)]
        return [batches[i] for i in rng.permutation(per_epoch)]

    return Sampler(
        lambda n: epoch(n // per_epoch)[n % per_epoch][1],
        lambda n: epoch(n // per_epoch)[n % per_epoch][0],
        per_epoch,
        tuple(groups),
    )
