"""How well classes are told: right among the first k, with confidence intervals, and what is taken for what."""

from statistics import NormalDist

import numpy as np


def ranks(scores, labels) -> np.ndarray:
    """The place of each example's own class among all, 0 for the first; equal scores by class number.

    Shapes  scores [n, c], labels int [n] -> int [n].
    Errors  ValueError for labels outside 0 .. c - 1, for other shapes, or scores that are NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f'scores {scores.shape} and labels {labels.shape}; [n, c] and [n] are wanted'
        )
    n, c = scores.shape
    if n and (labels.min() < 0 or labels.max() >= c):
        raise ValueError(
            f'labels from {labels.min()} to {labels.max()}; {c} classes are numbered from 0'
        )
    if np.isnan(scores).any():
        raise ValueError(f'scores of {np.isnan(scores).any(1).sum()} of {n} examples are NaN')
    own = scores[np.arange(n), labels][:, None]
    before = np.arange(c)[None, :] < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(1)


def wilson(n_right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share of which n_right of n were seen; inside [0, 1] and never empty.

    Domain  0 <= n_right <= n, n >= 1.
    Source  Wilson 1927. The shares p whose own deviation sqrt(p (1 - p) / n) is not exceeded.
    """
    if not 0 <= n_right <= n or n < 1:
        raise ValueError(f'{n_right} right of {n}; 0 <= right <= n and n >= 1 are wanted')
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def confusion(labels, answers, n_classes: int) -> np.ndarray:
    """Counts by true class (rows) and given class (columns), int [n_classes, n_classes]."""
    labels, answers = np.asarray(labels), np.asarray(answers)
    counts = np.bincount(n_classes * labels + answers, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)
