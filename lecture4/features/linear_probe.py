"""Linear probe: the accuracy of a linear classifier on features, C chosen on validation examples."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import ArrayLike, Int, Num, Shaped

MIN_STD = 1e-3  # features that hardly vary are not scaled up to a variance of 1
CS = (1e-3, 1e-2, 1e-1)


def standardizer(features: Num[ArrayLike, 'n d']) -> Callable[[Num[ArrayLike, 'm d']], np.ndarray]:
    """The map to mean 0 and variance 1 of every feature of a training set."""
    features = np.asarray(features)
    mean, std = features.mean(0, keepdims=True), features.std(0, keepdims=True)
    return lambda other: (np.asarray(other) - mean) / np.maximum(std, MIN_STD)


def fit(
    features: Num[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    valid: Num[ArrayLike, 'm d'],
    valid_labels: Int[ArrayLike, ' m'],
    Cs: Sequence[float] = CS,
) -> Callable[[Num[ArrayLike, 'm d']], Shaped[np.ndarray, ' m']]:
    """Logistic regression with the C of the lowest validation error.

    Args:
      features: Of the training examples, standardized.
      labels: Their classes.
      valid: Features of the validation examples.
      valid_labels: Their classes.
      Cs: scikit-learn's C: weights of the sum of losses against half the squared norm. The first
        is taken in a tie: name the smallest C, the strongest regularization, first.

    Returns:
      features [m, d] -> predicted classes [m].

    Raises:
      ValueError: No C to choose from.
    """
    from sklearn.linear_model import LogisticRegression

    if not Cs:
        raise ValueError('Cs is empty; give one value of C or more')
    # To the end: a tolerance of 1e-2 stops after six steps, before the order of the C shows.
    fits = [LogisticRegression(C=C, max_iter=1000).fit(features, labels) for C in Cs]
    accuracy = [np.mean(one.predict(valid) == np.asarray(valid_labels)) for one in fits]
    return fits[int(np.argmax(accuracy))].predict


def error(
    features: Mapping[str, Num[ArrayLike, '_ d']],
    labels: Mapping[str, Int[ArrayLike, '_']],
    Cs: Sequence[float] = CS,
) -> float:
    """Test error of the linear probe, a fraction in [0, 1].

    Args:
      features: 'train', 'valid' and 'test' -> [n, d]; standardized here, by the training set.
      labels: The same names -> [n].
      Cs: As in `fit`.

    Raises:
      ValueError: As `fit`.
    """
    scale = standardizer(features['train'])
    predict = fit(
        scale(features['train']), labels['train'], scale(features['valid']), labels['valid'], Cs
    )
    return float(np.mean(predict(scale(features['test'])) != np.asarray(labels['test'])))
