"""Ranks against sorting, Wilson's interval against its definition and its coverage, PSNR."""

import numpy as np
import pytest
from scipy import optimize, stats
from skimage.metrics import peak_signal_noise_ratio

from lecture4.ops import metrics

RNG = np.random.default_rng(0)


def test_ranks_are_positions_in_the_sorted_scores():
    values = RNG.integers(0, 4, (200, 6)).astype(float)  # many ties
    labels = RNG.integers(0, 6, 200)
    order = np.argsort(-values, axis=1, kind='stable')
    expected = [list(row).index(label) for row, label in zip(order, labels, strict=True)]
    np.testing.assert_array_equal(metrics.ranks(values, labels), expected)


@pytest.mark.parametrize('k, n', [(0, 5), (3, 7), (37, 50), (50, 50)])
def test_wilson_solves_its_equation(k, n):
    low, high = metrics.wilson_interval(k, n)
    z = stats.norm.ppf(0.975)

    def excess(p):
        return (k / n - p) ** 2 - z**2 * p * (1 - p) / n

    if k > 0:
        np.testing.assert_allclose(low, optimize.brentq(excess, 1e-12, k / n - 1e-9), rtol=1e-6)
    if k < n:
        np.testing.assert_allclose(
            high, optimize.brentq(excess, k / n + 1e-9, 1 - 1e-12), rtol=1e-6
        )
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_covers_as_often_as_it_promises():
    k = RNG.binomial(60, 0.9, 4000)
    covered = [
        low <= 0.9 <= high for low, high in (metrics.wilson_interval(int(i), 60, 0.9) for i in k)
    ]
    assert 0.87 < np.mean(covered) < 0.95


def test_confusion_matrix_counts_every_pair():
    labels, predictions = RNG.integers(0, 4, (2, 50))
    counts = metrics.confusion_matrix(labels, predictions, 5)
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (labels, predictions), 1)
    np.testing.assert_array_equal(counts, expected)


def test_psnr_is_skimages():
    x = RNG.uniform(size=(3, 8, 8)).astype(np.float32)
    y = x + 0.1 * RNG.normal(size=x.shape).astype(np.float32)
    expected = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(metrics.psnr(y, x, 2.0, axis=(1, 2)), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(y[0], x[0], 2.0), expected[0], rtol=1e-5)
    assert np.isinf(metrics.psnr(x, x))


def test_bad_input():
    with pytest.raises(ValueError, match='labels from 0 to 3; 3 classes are numbered from 0'):
        metrics.ranks(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match='scores of 1 of 2 examples are NaN'):
        metrics.ranks(np.array([[0, np.nan], [1, 2]]), np.array([0, 1]))
    with pytest.raises(ValueError, match='n_correct 7 and n 5'):
        metrics.wilson_interval(7, 5)


def test_accuracy_record_counts_top_1_and_top_5():
    probs = np.eye(7)[[0, 1, 2, 3]] + 1e-3 * np.arange(7)[::-1]
    record = metrics.accuracy_record(probs, np.array([0, 1, 3, 6]))  # right, right, top-5, last
    assert (record['accuracy'], record['top5_accuracy']) == (0.5, 0.75)
    assert record['95 % interval'] == '15.0 to 85.0'
    assert 'top5_accuracy' not in metrics.accuracy_record(probs[:, :5], np.array([0, 1, 3, 4]))
