import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lecture4.features import retrieval

POINTS = np.random.default_rng(0).normal(size=(60, 5)) + 3


def test_neighbours_are_scikit_learns_without_the_point_itself():
    found = retrieval.neighbours(POINTS.astype(np.float32), 7)
    expected = NearestNeighbors(n_neighbors=8).fit(POINTS.astype(np.float32))
    expected = expected.kneighbors(return_distance=False, n_neighbors=7)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match='use 1 to 59'):
        retrieval.neighbours(POINTS, 60)


def test_a_point_that_occurs_twice_finds_its_double_not_itself():
    twice = np.concatenate([POINTS, POINTS])
    np.testing.assert_array_equal(retrieval.neighbours(twice, 1)[:60, 0], np.arange(60) + 60)


def test_precision_counts_neighbours_of_the_same_class():
    line = np.array([[0.0], [1], [2], [10], [11]])
    labels = np.array([0, 0, 1, 1, 1])
    # Two nearest of each: 0: 1, 2; 1: 0, 2; 2: 1, 0; 10: 11, 2; 11: 10, 2.
    assert retrieval.precision(line, labels, 2) == pytest.approx((1 + 1 + 0 + 2 + 2) / 10)
