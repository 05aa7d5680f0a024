"""Retrieval by codes: the nearest neighbors of every example, and the fraction of them in its class."""

import numpy as np
from jaxtyping import ArrayLike, Int, Num, Shaped


def nearest_neighbors(points: Num[ArrayLike, 'm d'], k: int) -> Int[np.ndarray, 'm {k}']:
    """The k nearest other points of every point by Euclidean distance, nearest first.

    scikit-learn's NearestNeighbors, on the host, in float64.

    Args:
      points: Codes, pixels or other vectors.
      k: 1 <= k < m.

    Returns:
      Row indices; the point itself is not among them.

    Raises:
      ValueError: k out of its domain.
    """
    from sklearn.neighbors import NearestNeighbors

    points = np.asarray(points, np.float64)
    if not 1 <= k < len(points):
        raise ValueError(f'k={k} neighbors of {len(points)} points; use 1 to {len(points) - 1}')
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def precision_at_k(points: Num[ArrayLike, 'm d'], labels: Shaped[ArrayLike, ' m'], k: int) -> float:
    """Fraction of the k nearest neighbors that are of the same class as the point, averaged over points."""
    labels = np.asarray(labels)
    return float((labels[nearest_neighbors(points, k)] == labels[:, None]).mean())
