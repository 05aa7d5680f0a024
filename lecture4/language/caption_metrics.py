"""ROUGE-L and CIDEr-D of descriptions by coco-caption's definitions, perplexity, and bootstrap intervals."""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Num

from lecture4.language import bleu
from lecture4.language.bleu import Sentence, check, ngram_counts

# Karpathy & Fei-Fei 2015, table 2: BLEU-1 to BLEU-4 for full images.
PUBLISHED = {
    'Flickr8k (Karpathy & Fei-Fei 2015)': (0.579, 0.383, 0.245, 0.160),
    'Flickr30k': (0.573, 0.369, 0.240, 0.157),
    'COCO': (0.625, 0.450, 0.321, 0.230),
}
BLEU = ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4')


def rouge_l(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    beta: float | int = 1.2,
) -> Float[np.ndarray, ' n']:
    """ROUGE-L of every candidate: F measure of the longest common subsequence.

    Precision and recall are each the best over the references, as in coco-caption; the score of a
    corpus is the mean.

    Args:
      candidates: n sentences of words; an empty one scores 0.
      references: One or more sentences for each candidate.
      beta: Weight of recall relative to precision.

    Returns:
        Scores in [0, 1].

    References:
      Lin 2004; coco-caption, rouge.py.
    """
    check(candidates, references)
    scores = np.zeros(len(candidates))
    for i, (candidate, image_references) in enumerate(zip(candidates, references, strict=True)):
        common = [
            longest_common_subsequence(candidate, reference) for reference in image_references
        ]
        precision = max(common) / max(len(candidate), 1)
        recall = max(c / max(len(r), 1) for c, r in zip(common, image_references, strict=True))
        if precision and recall:
            scores[i] = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return scores


def longest_common_subsequence(a: Sentence, b: Sentence) -> int:
    """Number of words of the longest common subsequence (gaps allowed)."""
    best = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, best[j] = (
                best[j],
                (diagonal + 1 if word == other else max(best[j], best[j - 1])),
            )
    return best[-1]


def cider_d(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    max_order: int = 4,
    sigma: float | int = 6.0,
) -> Float[np.ndarray, ' n']:
    """CIDEr-D of every candidate: clipped similarity of tf-idf vectors of n-grams with a length penalty.

    Document frequencies are those of the given references, where the references of an image are one document; so the
    score of a candidate depends on the set. The score of a corpus is the mean.

    Args:
      candidates: n sentences of words.
      references: One or more sentences for each candidate.
      max_order: Number of words of the longest n-gram.
      sigma: Standard deviation of the Gaussian penalty on the difference in length.

    Returns:
      Scores in [0, 10].

    References:
      Vedantam et al. 2015; coco-caption, cider_scorer.py, whose length is the number of bigrams.
    """
    check(candidates, references)
    orders = range(1, max_order + 1)
    documents = [[[ngram_counts(r, order) for order in orders] for r in own] for own in references]
    frequency: collections.Counter = collections.Counter()
    for own in documents:
        frequency.update({gram for counts in own for order in counts for gram in order})
    log_n = math.log(len(references))

    def vectors(counts):
        return [
            {g: c * (log_n - math.log(max(1, frequency[g]))) for g, c in order.items()}
            for order in counts
        ]

    def norm(vector):
        return math.sqrt(sum(value * value for value in vector.values()))

    scores = np.zeros(len(candidates))
    for i, (candidate, own) in enumerate(zip(candidates, documents, strict=True)):
        ours = vectors([ngram_counts(candidate, order) for order in orders])
        our_norms, total = [norm(v) for v in ours], 0.0
        for reference, counts in zip(references[i], own, strict=True):
            difference = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
            penalty = math.exp(-(difference**2) / (2 * sigma**2))
            for vector, other, size in zip(ours, vectors(counts), our_norms, strict=True):
                product = sum(
                    min(value, other[gram]) * other[gram]
                    for gram, value in vector.items()
                    if gram in other
                )
                total += penalty * product / ((size * norm(other)) or 1.0)
        scores[i] = 10 * total / (max_order * len(own))
    return scores


def perplexity(log_likelihood: Float[ArrayLike, '...'], num_tokens: Num[ArrayLike, '...']) -> float:
    """Exponential of the mean negative log-likelihood (nats) of a token, including END.

    Args:
      log_likelihood: Log-likelihood of the sentences in nats.
      num_tokens: Number of tokens of the same sentences.

    Raises:
      ValueError: There is no token.
    """
    total = float(np.sum(np.asarray(num_tokens)))
    if total <= 0:
        raise ValueError(f'perplexity of {total:g} tokens; expected at least one')
    return math.exp(-float(np.sum(np.asarray(log_likelihood, np.float64))) / total)


def bootstrap_interval(
    statistic: Callable[[Int[np.ndarray, ' n']], Float[ArrayLike, '*shape']],
    n: int,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Float[np.ndarray, '2 *shape']:
    """Percentile interval of a statistic over resampled examples, such as BLEU over test images.

    Args:
      statistic: Rows in 0..n - 1, with repetitions -> value or array of values.
      n: Number of examples.
      num_resamples: Number of bootstrap samples.
      level: Coverage, between 0 and 1.
      seed: Seed of the resampling.

    Returns:
      Lower and upper ends.
    """
    rng = np.random.default_rng(seed)
    values = [np.asarray(statistic(rng.integers(0, n, n))) for _ in range(num_resamples)]
    return np.quantile(np.stack(values), [(1 - level) / 2, (1 + level) / 2], axis=0)


def evaluate(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    *,
    num_resamples: int = 500,
) -> dict[str, Any]:
    """BLEU-1..4, ROUGE-L and CIDEr-D of a corpus, with a bootstrap interval of BLEU-4 over images.

    Args:
      candidates: n sentences of words.
      references: One or more sentences for each candidate.
      num_resamples: Number of bootstrap samples of the 95 % interval.

    Returns:
      {'bleu_1', ..., 'bleu_4', 'rouge_l', 'cider_d', 'bleu_4_interval': (low, high)}.
    """
    counts = bleu.count(candidates, references)
    interval = bootstrap_interval(
        lambda rows: bleu.score(counts, rows)[3], len(candidates), num_resamples=num_resamples
    )
    values = {f'bleu_{i}': float(v) for i, v in enumerate(bleu.score(counts), 1)}
    return values | {
        'rouge_l': float(rouge_l(candidates, references).mean()),
        'cider_d': float(cider_d(candidates, references).mean()),
        'bleu_4_interval': tuple(interval.tolist()),
    }


def nearest_sentence(sentence: Sentence, others: Sequence[Sentence]) -> int:
    """Row of the most similar sentence by the Jaccard index of the sets of words."""
    words = set(sentence)
    overlap = [len(words & set(other)) / len(words | set(other) or {''}) for other in others]
    return int(np.argmax(overlap))


def next_to_references(
    generated: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    train_sentences: Sequence[Sequence[Sentence]],
) -> list[list[tuple[str, str]]]:
    """For every generated sentence, (label, text) of the sentence, a reference, and the nearest training sentence.

    Args:
      generated: n sentences.
      references: References of the same images.
      train_sentences: Sentences of each training image.
    """
    known = [sentence for own in train_sentences for sentence in own]
    return [
        [
            ('generated', ' '.join(sentence)),
            ('reference', ' '.join(own[0])),
            ('nearest in training', ' '.join(known[nearest_sentence(sentence, known)])),
        ]
        for sentence, own in zip(generated, references, strict=True)
    ]


def baselines(
    train_sentences: Sequence[Sequence[Sentence]],
    train_features: Float[np.ndarray, 'm d'],
    references: Sequence[Sequence[Sentence]],
    features: Float[np.ndarray, 'n d'],
) -> list[dict[str, Any]]:
    """Baselines without a model: the sentence of the nearest training image, and one reference against the others.

    Args:
      train_sentences: Sentences of m training images.
      train_features: Features of the training images; the nearest is that with the largest cosine.
      references: References of n test images.
      features: Features of the test images.

    Returns:
      Records {'method', BLEU-1..4, ROUGE-L, CIDEr-D}.
    """
    unit = train_features / np.linalg.norm(train_features, axis=1, keepdims=True)
    copies: list[Sentence] = [
        train_sentences[int(row)][0] for row in np.argmax(features @ unit.T, axis=1)
    ]
    first: list[Sentence] = [own[0] for own in references]
    rest: list[Sequence[Sentence]] = [own[1:] or own for own in references]
    records = []
    for method, sentences, others in (
        ('sentence of the nearest training image', copies, references),
        ('a person, against the other references', first, rest),
    ):
        values = evaluate(sentences, others)
        del values['bleu_4_interval']
        records.append({'method': method, **values})
    return records


def published_records() -> list[dict[str, Any]]:
    """Records {'method', BLEU-1..4} of the published values."""
    return [
        {'method': method, **dict(zip(BLEU, v, strict=True))} for method, v in PUBLISHED.items()
    ]
