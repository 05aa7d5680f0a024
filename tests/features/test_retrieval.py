"""Neighbors against brute force; precision by hand."""

import numpy as np
import pytest

from lecture4.features import retrieval

POINTS = np.random.default_rng(0).normal(size=(60, 5)) + 3


@pytest.mark.parametrize('dimension', [5, 40])
def test_neighbors_are_the_nearest_without_the_point_itself(dimension):
    points = np.random.default_rng(0).normal(size=(60, dimension)).astype(np.float32) + 3
    distance = ((points[:, None].astype(float) - points[None]) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    expected = np.argsort(distance, axis=1)[:, :7]
    np.testing.assert_array_equal(retrieval.nearest_neighbors(points, 7), expected)


def test_more_neighbors_than_points_are_refused():
    with pytest.raises(ValueError, match='k=60 neighbors of 60 points; use 1 to 59'):
        retrieval.nearest_neighbors(POINTS, 60)


def test_the_neighbor_of_a_duplicated_point_is_its_duplicate():
    twice = np.concatenate([POINTS, POINTS])
    neighbors = retrieval.nearest_neighbors(twice, 1)
    np.testing.assert_array_equal(neighbors[:60, 0], np.arange(60) + 60)


def test_precision_counts_neighbors_of_the_same_class():
    line = np.array([[0.0], [1], [2], [10], [11]])
    labels = np.array([0, 0, 1, 1, 1])
    # Two nearest of each: 0: 1, 2; 1: 0, 2; 2: 1, 0; 10: 11, 2; 11: 10, 2.
    precision = retrieval.precision_at_k(line, labels, 2)
    assert precision == pytest.approx((1 + 1 + 0 + 2 + 2) / 10)
