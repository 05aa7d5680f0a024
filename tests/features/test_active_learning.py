"""Queries follow their strategy, and read no label that was not queried."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import svm as sklearn_svm

from lecture4.features import active_learning, label_efficiency
from tests.tracing import traced


def blobs(n=60, seed=0):
    """Three classes in the plane, of unequal size, with one outlier."""
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 0], [4, 0], [0, 4]])
    labels = np.repeat([0, 1, 2], [n // 2, n // 3, n - n // 2 - n // 3])
    x = centers[labels] + rng.standard_normal((n, 2))
    x[-1] = 9, 9
    return x.astype(np.float32), labels


def initial_rows(labels):
    return jnp.asarray([np.flatnonzero(labels == c)[0] for c in range(3)], jnp.int32)


def test_diverse_queries_are_the_greedy_medoids():
    x, labels = blobs()
    rows = active_learning.most_diverse(jnp.asarray(x @ x.T), initial_rows(labels), 8)
    expected = initial_rows(labels).tolist()
    distance = ((x[:, None].astype(float) - x[None]) ** 2).sum(2)
    for _ in range(8):
        sums = [
            np.inf if c in expected else distance[:, [*expected, c]].min(1).sum() for c in range(60)
        ]
        expected.append(int(np.argmin(sums)))
    assert rows.tolist() == expected


def test_uncertain_queries_have_the_smallest_margins():
    x, labels = blobs(seed=1)
    initial = initial_rows(labels)
    rows = np.asarray(
        active_learning.least_certain(
            jnp.asarray(x @ x.T), jnp.asarray(labels), initial, 12, n_classes=3, queries_per_round=4
        )
    )
    assert len(set(rows.tolist())) == 15 and rows[:3].tolist() == initial.tolist()
    centered = (x - x.mean(0)).astype(float)
    centered /= np.sqrt((centered**2).sum(1).mean())
    for known in (3, 7, 11):
        peer = sklearn_svm.LinearSVC(
            loss='squared_hinge', C=1.0, intercept_scaling=1.0, tol=1e-8, max_iter=100_000
        ).fit(centered[rows[:known]], labels[rows[:known]])
        scores = np.sort(peer.decision_function(centered), axis=1)
        margin = scores[:, -1] - scores[:, -2]
        margin[rows[:known]] = np.inf
        queried = rows[known : known + 4]
        assert set(queried.tolist()) <= set(np.argsort(margin)[:5].tolist())  # ties by rounding


def test_only_labels_of_queried_examples_are_read():
    x, labels = blobs(seed=2)
    gram, initial = jnp.asarray(x @ x.T), initial_rows(labels)

    @jax.jit
    def query(labels):
        return active_learning.least_certain(
            gram, labels, initial, 10, n_classes=3, queries_per_round=5
        )

    rows = np.asarray(query(jnp.asarray(labels)))
    unlabeled = np.setdiff1d(np.arange(60), rows)
    other = labels.copy()
    other[unlabeled] = (labels[unlabeled] + 1) % 3
    np.testing.assert_array_equal(query(jnp.asarray(other)), rows)
    other = labels.copy()
    other[rows[3:8]] = (labels[rows[3:8]] + 1) % 3
    assert (np.asarray(query(jnp.asarray(other))) != rows).any()  # the queried ones matter


OPTIONS = {'labels_per_class': (1, 4), 'num_trials': 6}


def balanced(n, seed, std=1.3):
    """Three classes in the plane, of equal size."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n)
    centers = np.array([[0, 2], [2, -1], [-2, -1]])
    return (centers[labels] + std * rng.standard_normal((3 * n, 2))).astype(np.float32), labels


def test_curves_start_from_the_random_labels_and_then_differ():
    data = *balanced(20, 0), *balanced(30, 1)
    curves = active_learning.label_curves(5, *data, **OPTIONS)
    random = label_efficiency.label_curve(5, *data, **OPTIONS)
    assert tuple(curves) == active_learning.STRATEGIES
    for accuracy in curves.values():
        np.testing.assert_allclose(accuracy[0], random[0], atol=1e-6)
        assert accuracy[1].mean() > accuracy[0].mean() and (accuracy[1] != random[1]).any()


def test_a_second_curve_traces_no_solver():
    data = *balanced(20, 0), *balanced(30, 1)
    active_learning.label_curves(5, *data, **OPTIONS)
    with traced() as events:
        active_learning.label_curves(6, *data, **OPTIONS)
    assert not events


def test_more_queries_than_the_pool_has_are_refused():
    gram, labels = jnp.eye(6), jnp.zeros(6, jnp.int32)
    initial = jnp.arange(2)
    with pytest.raises(ValueError, match=r'3 queries in rounds of 2 .* multiple of 2, at most 4'):
        active_learning.least_certain(gram, labels, initial, 3, n_classes=2, queries_per_round=2)
    with pytest.raises(ValueError, match='5 queries from a pool of 6'):
        active_learning.most_diverse(gram, initial, 5)
