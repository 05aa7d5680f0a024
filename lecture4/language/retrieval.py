"""Image and sentence retrieval by scores: ranks, Recall@K and median rank, several sentences per image.

Annotation: an image ranks all sentences; its rank is that of the best of its sentences. Search: a
sentence ranks all images. Hodosh et al. 2013; Karpathy & Fei-Fei 2015, section 4.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy import special

from lecture4.language.caption_metrics import bootstrap_interval

MEASURES = ('recall_at_1', 'recall_at_5', 'recall_at_10', 'median_rank')
# Karpathy & Fei-Fei 2015, table 1: metrics of annotation and of search.
PUBLISHED = {
    'BRNN, Flickr8k, 1000 images': ((0.165, 0.406, 0.542, 7.6), (0.118, 0.321, 0.447, 12.4)),
    'BRNN, Flickr30k, 1000 images': ((0.222, 0.482, 0.614, 4.8), (0.152, 0.377, 0.505, 9.2)),
    'BRNN, COCO, 1000 images': ((0.384, 0.699, 0.805, 1.0), (0.274, 0.602, 0.748, 3.0)),
    'BRNN, COCO, 5000 images': ((0.165, 0.392, 0.520, 9.0), (0.107, 0.296, 0.422, 14.0)),
}


def annotation_ranks(
    scores: Float[ArrayLike, 'images sentences'], image_of: Int[ArrayLike, ' n']
) -> Int[np.ndarray, ' images']:
    """Rank among all sentences of the best sentence that describes each image; 1 is the top.

    Ties count against the model: equal scores for all pairs give the worst ranks, not the best.

    Args:
      scores: Scores; larger is more similar.
      image_of: Row of the image that each sentence describes.

    Raises:
      ValueError: The shapes do not fit, or an image has no sentence (the message has its row).
    """
    scores, image_of = _check(scores, image_of)
    is_match = image_of[None] == np.arange(len(scores))[:, None]
    best = np.where(is_match, scores, -np.inf).max(1, keepdims=True)
    return 1 + ((scores >= best) & ~is_match).sum(1)


def search_ranks(
    scores: Float[ArrayLike, 'images sentences'], image_of: Int[ArrayLike, ' n']
) -> Int[np.ndarray, ' sentences']:
    """Rank among all images of the image that each sentence describes; 1 is the top.

    Ties count against the model, as in `annotation_ranks`.

    Args:
      scores: Scores; larger is more similar.
      image_of: Row of the image that each sentence describes.

    Raises:
      ValueError: As in `annotation_ranks`.
    """
    scores, image_of = _check(scores, image_of)
    match_scores = scores[image_of, np.arange(len(image_of))]
    return (scores >= match_scores[None]).sum(0)


def recall_at(ranks: Int[ArrayLike, ' n'], k: int) -> float:
    """Fraction of the queries whose rank is at most k."""
    return float(np.mean(np.asarray(ranks) <= k))


def measures(ranks: Int[ArrayLike, ' n']) -> dict[str, float]:
    """Recall@1, 5 and 10, and the median rank: {'recall_at_1': fraction, ..., 'median_rank': count}."""
    recalls = {f'recall_at_{k}': recall_at(ranks, k) for k in (1, 5, 10)}
    return recalls | {'median_rank': float(np.median(np.asarray(ranks)))}


def evaluate(
    scores: Float[ArrayLike, 'images sentences'],
    image_of: Int[ArrayLike, ' n'],
    *,
    temperature: float | None = None,
    num_resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Records of both directions: metrics, and a bootstrap interval of Recall@1.

    Args:
      scores: Scores; larger is more similar.
      image_of: Row of the image that each sentence describes.
      temperature: Temperature of `inverted_softmax`; None leaves its record out.
      num_resamples: Number of bootstrap samples of the 95 % interval.

    Returns:
      Dicts with the `measures` and the interval as text in percent, '95 % of R@1': 'direction' 'annotation',
      'search', and 'annotation, inverted softmax'.

    Raises:
      ValueError: As in `annotation_ranks`.
    """
    records, scores = [], np.asarray(scores)
    ranks = {
        'annotation': annotation_ranks(scores, image_of),
        'search': search_ranks(scores, image_of),
    }
    if temperature is not None:
        normalized = inverted_softmax(scores, temperature)
        ranks['annotation, inverted softmax'] = annotation_ranks(normalized, image_of)
    for direction, rank in ranks.items():
        low, high = bootstrap_interval(
            lambda rows, rank=rank: recall_at(rank[rows], 1), len(rank), num_resamples=num_resamples
        )
        interval = f'{100 * low:.1f} to {100 * high:.1f}'
        records.append({'direction': direction, **measures(rank), '95 % of R@1': interval})
    return records


def inverted_softmax(
    scores: Float[ArrayLike, 'images sentences'], temperature: float
) -> Float[np.ndarray, 'images sentences']:
    """Log probabilities of the images given each sentence, so that no sentence fits every image.

    exp(score / temperature) is divided by its sum over all images of the evaluation: other queries enter the ranks of
    a query. The ranks of search do not change.

    Args:
      scores: Scores; larger is more similar.
      temperature: Positive divisor of the scores.

    References:
      Smith et al., ICLR 2017 (the inverted softmax).
    """
    logits = np.asarray(scores, np.float64) / temperature
    return logits - special.logsumexp(logits, axis=0, keepdims=True)


def summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of `evaluate`'s first two records: 'mean_recall', and 'recall_at_1/annotation' and so on.

    Args:
      records: Records of annotation and search; others are ignored.
    """
    both = records[:2]
    metrics = {'mean_recall': float(np.mean([[r[name] for name in MEASURES[:3]] for r in both]))}
    return metrics | {f'{name}/{r["direction"]}': r[name] for r in both for name in MEASURES}


def published_records() -> list[dict[str, Any]]:
    """Records of the published metrics, like those of `evaluate` with 'method'."""
    return [
        {'method': method, 'direction': direction, **dict(zip(MEASURES, values, strict=True))}
        for method, both in PUBLISHED.items()
        for direction, values in zip(('annotation', 'search'), both, strict=True)
    ]


def _check(scores, image_of):
    scores, image_of = np.asarray(scores), np.asarray(image_of)
    if scores.ndim != 2 or image_of.shape != scores.shape[1:]:
        raise ValueError(
            f'expected scores [images, sentences] and the image of each sentence, got shapes '
            f'{scores.shape} and {image_of.shape}'
        )
    lacking = np.setdiff1d(np.arange(len(scores)), image_of)
    if len(lacking) or (image_of < 0).any() or (image_of >= len(scores)).any():
        named = lacking[0] if len(lacking) else 'outside 0..n - 1'
        raise ValueError(
            f'image {named} has no sentence; leave out images without sentences, and number the rest '
            'from 0'
        )
    if not np.isfinite(scores).all():
        raise ValueError('scores are not finite; check the model that made them')
    return scores, image_of
