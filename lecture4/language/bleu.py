"""BLEU of a corpus: n-gram precision against several references, closest length, unsmoothed.

This is the definition of multi-bleu.perl, which the literature on image descriptions uses. coco-caption adds
1e-15 to the matches and 1e-9 to the counts, so that an order without a match gives about 1e-5 there and 0 here.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Sentence = Sequence[str]


class Counts(NamedTuple):
    """The counts of n candidates for BLEU; sums over candidates are those of the corpus.

    Attributes:
      matches: Clipped n-gram matches for every order.
      totals: Number of n-grams of the candidate for every order.
      lengths: Number of words of the candidate.
      reference_lengths: Number of words of the reference closest in length, in a tie the shorter one.
    """

    matches: Int[np.ndarray, 'n order']
    totals: Int[np.ndarray, 'n order']
    lengths: Int[np.ndarray, ' n']
    reference_lengths: Int[np.ndarray, ' n']


def ngram_counts(sentence: Sentence, order: int) -> collections.Counter[tuple[str, ...]]:
    """Number of occurrences of every n-gram of `order` words."""
    words = tuple(sentence)
    return collections.Counter(words[i : i + order] for i in range(len(words) - order + 1))


def count(
    candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]], max_order: int = 4
) -> Counts:
    """Matches and lengths of every candidate against its own references.

    Args:
      candidates: n sentences of words, possibly empty.
      references: One or more sentences for each candidate.
      max_order: Number of words of the longest n-gram.

    Raises:
      ValueError: The numbers differ, or a candidate has no reference (the message has its index).
    """
    check(candidates, references)
    matches = np.zeros((len(candidates), max_order), int)
    totals = np.zeros_like(matches)
    reference_lengths = np.zeros(len(candidates), int)
    for i, (candidate, image_references) in enumerate(zip(candidates, references, strict=True)):
        for order in range(1, max_order + 1):
            limits: collections.Counter = collections.Counter()
            for reference in image_references:
                limits |= ngram_counts(reference, order)
            counts = ngram_counts(candidate, order)
            matches[i, order - 1] = (counts & limits).total()
            totals[i, order - 1] = counts.total()
        length = len(candidate)
        reference_lengths[i] = min(
            (len(reference) for reference in image_references), key=lambda m: (abs(m - length), m)
        )
    lengths = np.array([len(candidate) for candidate in candidates], int)
    return Counts(matches, totals, lengths, reference_lengths)


def score(counts: Counts, rows: Int[np.ndarray, ' m'] | None = None) -> Float[np.ndarray, ' order']:
    """BLEU-1, BLEU-2, ... of a corpus: brevity penalty times the geometric mean of the precisions.

    Args:
      counts: Counts of the candidates.
      rows: Indices of the candidates that form the corpus, with repetitions in a bootstrap; None takes all.

    Returns:
      Values in [0, 1]; 0 from the first order without a match on.
    """
    if rows is not None:
        counts = Counts(*(array[rows] for array in counts))
    matches, totals = counts.matches.sum(0), counts.totals.sum(0)
    length, reference_length = counts.lengths.sum(), counts.reference_lengths.sum()
    with np.errstate(divide='ignore', invalid='ignore'):
        log_precision = np.where(matches > 0, np.log(matches / np.maximum(totals, 1)), -np.inf)
        log_penalty = min(0.0, 1 - reference_length / length) if length else -np.inf
    orders = np.arange(1, len(matches) + 1)
    return np.exp(log_penalty + np.cumsum(log_precision) / orders)


def bleu(
    candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]], max_order: int = 4
) -> Float[np.ndarray, ' order']:
    """BLEU-1..max_order of a corpus; arguments and errors as in `count`, result as in `score`.

    References:
      Papineni et al. 2002; equal to sacrebleu's corpus score with smoothing 'none'.
    """
    return score(count(candidates, references, max_order))


def check(candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> None:
    """Raise a ValueError unless every candidate has one or more references."""
    if len(candidates) != len(references) or not len(candidates):
        raise ValueError(
            f'{len(candidates)} candidates and {len(references)} lists of references; expected at '
            'least one candidate and as many lists'
        )
    empty = [i for i, own in enumerate(references) if not len(own)]
    if empty:
        raise ValueError(
            f'candidate {empty[0]} has no reference ({len(empty)} have none); leave out images '
            'without sentences'
        )
