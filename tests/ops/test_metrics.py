"""Scores: ranks against sorting, Wilson's interval against its definition and its promise."""

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import metrics

from lecture4.ops import metrics as scores

RNG = np.random.default_rng(0)


def test_ranks_are_places_in_the_sorted_scores():
    values = RNG.integers(0, 4, (200, 6)).astype(float)  # many ties
    labels = RNG.integers(0, 6, 200)
    order = np.argsort(-values, axis=1, kind='stable')
    expected = [list(row).index(label) for row, label in zip(order, labels, strict=True)]
    np.testing.assert_array_equal(scores.ranks(values, labels), expected)


@pytest.mark.parametrize('k, n', [(0, 5), (3, 7), (37, 50), (50, 50)])
def test_wilson_solves_its_equation(k, n):
    low, high = scores.wilson(k, n)
    z = stats.norm.ppf(0.975)
    excess = lambda p: (k / n - p) ** 2 - z**2 * p * (1 - p) / n  # noqa: E731
    if k > 0:
        np.testing.assert_allclose(low, optimize.brentq(excess, 1e-12, k / n - 1e-9), rtol=1e-6)
    if k < n:
        np.testing.assert_allclose(
            high, optimize.brentq(excess, k / n + 1e-9, 1 - 1e-12), rtol=1e-6
        )
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_covers_as_often_as_it_promises():
    k = RNG.binomial(60, 0.9, 4000)
    covered = [low <= 0.9 <= high for low, high in (scores.wilson(int(i), 60, 0.9) for i in k)]
    assert 0.87 < np.mean(covered) < 0.95


def test_confusion_is_sklearn_s():
    labels, answers = RNG.integers(0, 4, (2, 50))
    expected = metrics.confusion_matrix(labels, answers, labels=range(5))
    np.testing.assert_array_equal(scores.confusion(labels, answers, 5), expected)


def test_mistakes():
    with pytest.raises(ValueError, match='labels from 0 to 3; 3 classes are numbered from 0'):
        scores.ranks(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match='scores of 1 of 2 examples are NaN'):
        scores.ranks(np.array([[0, np.nan], [1, 2]]), np.array([0, 1]))
    with pytest.raises(ValueError, match='7 right of 5'):
        scores.wilson(7, 5)
