"""Classification and image quality: ranks, confidence intervals, confusion matrix, PSNR."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Real


def ranks(
    scores: Real[np.ndarray | Array, 'n c'], labels: Integer[np.ndarray | Array, 'n']
) -> Int[np.ndarray, 'n']:
    """Rank of each example's true class among all classes, 0 for the highest score; ties by class index.

    The top-k accuracy is the mean of `ranks(scores, labels) < k`.

    Args:
      scores: Scores or probabilities per class.
      labels: True classes.

    Raises:
      ValueError: Labels lie outside 0 .. c - 1, the shapes do not fit, or scores are NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f'expected scores [n, c] and labels [n], got {scores.shape} and {labels.shape}'
        )
    n, c = scores.shape
    if n and (labels.min() < 0 or labels.max() >= c):
        raise ValueError(
            f'labels from {labels.min()} to {labels.max()}; {c} classes are numbered from 0'
        )
    if np.isnan(scores).any():
        raise ValueError(f'scores of {np.isnan(scores).any(1).sum()} of {n} examples are NaN')
    label_scores = scores[np.arange(n), labels][:, None]
    before = np.arange(c)[None, :] < labels[:, None]
    return ((scores > label_scores) | ((scores == label_scores) & before)).sum(1)


def wilson_interval(n_correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval for a fraction, inside [0, 1] and never empty.

    It contains the fractions p that agree with the observation within their standard error sqrt(p (1 - p) / n).

    Args:
      n_correct: Number of successes, 0 <= n_correct <= n.
      n: Number of trials, at least 1.
      confidence: Confidence level.

    Returns:
      (low, high), fractions.

    Raises:
      ValueError: The counts are outside their domain.

    References:
      Wilson 1927.
    """
    from scipy import stats

    if not 0 <= n_correct <= n or n < 1:
        raise ValueError(
            f'expected 0 <= n_correct <= n and n >= 1, got n_correct {n_correct} and n {n}'
        )
    interval = stats.binomtest(int(n_correct), int(n)).proportion_ci(confidence, 'wilson')
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def accuracy_record(
    probs: Real[np.ndarray | Array, 'n c'], labels: Integer[np.ndarray | Array, 'n']
) -> dict[str, float | str]:
    """Accuracy of predicted probabilities, as a record of a table.

    Args:
      probs: Scores or probabilities per class.
      labels: True classes.

    Returns:
      'accuracy' (top-1), '95 % interval' (Wilson's, of the top-1 accuracy, as text in percent), and
      'top5_accuracy' where there are more than five classes.

    Raises:
      ValueError: As in `ranks`.
    """
    rank, n = ranks(probs, labels), len(labels)
    low, high = wilson_interval(int((rank < 1).sum()), n)
    record = {
        'accuracy': (rank < 1).mean(),
        '95 % interval': f'{100 * low:.1f} to {100 * high:.1f}',
    }
    return record | ({'top5_accuracy': (rank < 5).mean()} if np.shape(probs)[1] > 5 else {})


def confusion_matrix(
    labels: Integer[np.ndarray | Array, 'n'],
    predictions: Integer[np.ndarray | Array, 'n'],
    n_classes: int,
) -> Int[np.ndarray, 'c c']:
    """Counts by true class (rows) and predicted class (columns).

    Args:
      labels: True classes in 0 .. n_classes - 1; others are not counted.
      predictions: Predicted classes.
      n_classes: Number of classes.
    """
    from sklearn import metrics

    labels, predictions = np.asarray(labels), np.asarray(predictions)
    return metrics.confusion_matrix(labels, predictions, labels=range(n_classes))


def recall_per_class(
    predictions: Integer[np.ndarray | Array, 'n'],
    labels: Integer[np.ndarray | Array, 'n'],
    n_classes: int,
) -> Float[np.ndarray, 'n_classes']:
    """Fraction of each class's examples that are predicted as this class; 0 for a class without examples.

    Args:
      predictions: Predicted classes.
      labels: True classes.
      n_classes: Number of classes.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return np.bincount(labels[predictions == labels], minlength=n_classes) / counts


def recall_record(
    recall: Real[np.ndarray, 'n_classes'], num_frequent: int
) -> dict[str, np.floating]:
    """Mean recalls of an imbalanced set, as a record of a table.

    Args:
      recall: Recall per class, see `recall_per_class`; the frequent classes come first.
      num_frequent: Number of frequent classes.

    Returns:
      'recall' of all classes, 'frequent_recall', 'rare_recall'.
    """
    frequent, rare = recall[:num_frequent], recall[num_frequent:]
    return {
        'recall': recall.mean(),
        'frequent_recall': frequent.mean(),
        'rare_recall': rare.mean(),
    }


def psnr(
    x: Float[ArrayLike, '*shape'],
    reference: Float[ArrayLike, '*shape'],
    peak: int | float = 1.0,
    axis: int | tuple[int, ...] | None = None,
) -> Float[Array, '...']:
    """Peak signal-to-noise ratio in dB: 10 log10(peak^2 / mean((x - reference)^2)).

    Args:
      x: Image.
      reference: Reference image. Equal images give inf.
      peak: Largest possible value, 1 for pixels in [0, 1].
      axis: Axes of the mean; None takes all, (1, 2, 3) gives one value per image of a batch.
    """
    x, reference = jnp.asarray(x), jnp.asarray(reference)
    mse = jnp.mean((x - reference) ** 2, axis=axis)
    return jnp.asarray(20 * np.log10(peak), mse.dtype) - 10 * jnp.log10(mse)
