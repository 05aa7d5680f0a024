"""What features are worth to a linear classifier: standardised, its penalty chosen on held-out examples."""

from collections.abc import Callable, Sequence

import numpy as np

LEAST_STD = 1e-3  # features that hardly vary are not blown up to a variance of 1


def standardiser(features) -> Callable[[np.ndarray], np.ndarray]:
    """The map to mean 0 and variance 1 of every feature of a training set [n, d]."""
    features = np.asarray(features)
    mean, std = features.mean(0, keepdims=True), features.std(0, keepdims=True)
    return lambda other: (np.asarray(other) - mean) / np.maximum(std, LEAST_STD)


def fit(
    features, labels, valid, valid_labels, penalties: Sequence[float] = (1e-3, 1e-2, 1e-1)
) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression with the C that errs least on `valid`: a function features -> labels.

    The C are scikit-learn's, weights of the sum of losses beside half the squared norm. Of several
    that err alike the first is taken: name the strongest penalty, the smallest C, first.

    Shapes  features [n, d], standardised; valid [m, d]; labels [n] and [m], whole numbers.
    Errors  ValueError where there is no penalty.
    """
    from sklearn.linear_model import LogisticRegression

    if not penalties:
        raise ValueError('no penalty to choose from; name one C or more')
    # To the end: a tolerance of 1e-2 stops after six steps, where most of the order is not yet seen.
    fits = [LogisticRegression(C=C, max_iter=1000).fit(features, labels) for C in penalties]
    right = [np.mean(found.predict(valid) == valid_labels) for found in fits]
    return fits[int(np.argmax(right))].predict
