"""Codes as addresses: the nearest others of every example, and how many share its class."""

import numpy as np


def neighbours(points, n: int) -> np.ndarray:
    """The n nearest others of every point by Euclidean distance, nearest first, on the host.

    Shapes  points [m, d], 1 <= n < m. Returns int [m, n]; among equals the first ones.
    Errors  ValueError for n outside.
    """
    points = np.asarray(points, np.float64)
    if not 1 <= n < len(points):
        raise ValueError(f'{n} neighbours among {len(points)} points; use 1 to {len(points) - 1}')
    energy = (points**2).sum(1)
    distance = energy[:, None] + energy[None, :] - 2 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind='stable')[:, :n]


def precision(points, labels, n: int) -> float:
    """Share of the n nearest others that are of the point's own class, averaged over points."""
    labels = np.asarray(labels)
    return float((labels[neighbours(points, n)] == labels[:, None]).mean())
