"""Queries follow their rule, read no label that was not asked for, and pay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import svm as sklearn_svm

from lecture4.features import active_learning, label_curve


def blobs(n=60, seed=0):
    """Three classes in the plane, of unequal size, with one point far out."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0], [4, 0], [0, 4]])
    labels = np.repeat([0, 1, 2], [n // 2, n // 3, n - n // 2 - n // 3])
    x = centres[labels] + rng.standard_normal((n, 2))
    x[-1] = 9, 9
    return x.astype(np.float32), labels


def start_of(labels):
    return jnp.asarray([np.flatnonzero(labels == c)[0] for c in range(3)], jnp.int32)


def test_diverse_queries_are_the_greedy_medoids():
    x, labels = blobs()
    found = active_learning.most_diverse(jnp.asarray(x @ x.T), start_of(labels), 8)
    chosen = start_of(labels).tolist()
    distance = ((x[:, None].astype(float) - x[None]) ** 2).sum(2)
    for _ in range(8):
        sums = [
            np.inf if c in chosen else distance[:, [*chosen, c]].min(1).sum() for c in range(60)
        ]
        chosen.append(int(np.argmin(sums)))
    assert found.tolist() == chosen


def test_uncertain_queries_have_the_smallest_margins():
    x, labels = blobs(seed=1)
    start = start_of(labels)
    found = np.asarray(
        active_learning.least_certain(
            jnp.asarray(x @ x.T), jnp.asarray(labels), start, 12, n_classes=3, per_round=4
        )
    )
    assert len(set(found.tolist())) == 15 and found[:3].tolist() == start.tolist()
    centred = (x - x.mean(0)).astype(float)
    centred /= np.sqrt((centred**2).sum(1).mean())
    for known in (3, 7, 11):
        peer = sklearn_svm.LinearSVC(
            loss='squared_hinge', C=1.0, intercept_scaling=1.0, tol=1e-8, max_iter=100_000
        ).fit(centred[found[:known]], labels[found[:known]])
        scores = np.sort(peer.decision_function(centred), axis=1)
        margin = scores[:, -1] - scores[:, -2]
        margin[found[:known]] = np.inf
        asked = found[known : known + 4]
        assert set(asked.tolist()) <= set(np.argsort(margin)[:5].tolist())  # ties by rounding


def test_only_labels_that_were_asked_for_are_read():
    x, labels = blobs(seed=2)
    gram, start = jnp.asarray(x @ x.T), start_of(labels)
    ask = jax.jit(
        lambda labels: active_learning.least_certain(
            gram, labels, start, 10, n_classes=3, per_round=5
        )
    )
    found = np.asarray(ask(jnp.asarray(labels)))
    hidden = np.setdiff1d(np.arange(60), found)
    other = labels.copy()
    other[hidden] = (labels[hidden] + 1) % 3
    np.testing.assert_array_equal(ask(jnp.asarray(other)), found)
    shown = labels.copy()
    shown[found[3:8]] = (labels[found[3:8]] + 1) % 3
    assert (np.asarray(ask(jnp.asarray(shown))) != found).any()  # the others matter


@pytest.mark.parametrize('n', [4, 20])
def test_accuracies_are_those_of_the_label_curve(n):
    """On balanced draws the two ways to say it agree, folds included."""
    rng = np.random.default_rng(3)
    train = rng.standard_normal((150, 5)).astype(np.float32)
    labels = np.arange(150) % 3
    train[:, :3] += 1.2 * np.eye(3)[labels]
    test, test_labels = train[90:], labels[90:]
    train, labels = train[:90], labels[:90]
    curve = label_curve.label_curve(
        7, train, labels, test, test_labels, labels_per_class=(n,), n_draws=5
    )[0]
    rows = label_curve.draw(7, labels, n, 5)
    gram, cross = active_learning.inner_products(
        100 * jnp.asarray(train) + 7, 100 * jnp.asarray(test) + 7
    )
    found = active_learning.accuracies(gram, cross, labels, test_labels, rows, n_classes=3)

    np.testing.assert_allclose(found, curve, atol=1e-6)


def test_inner_products_are_about_the_mean_and_without_scale():
    x = np.random.default_rng(8).standard_normal((20, 3)).astype(np.float32)
    gram, cross = active_learning.inner_products(jnp.asarray(9 * x + 5), jnp.asarray(9 * x[:4] + 5))
    centred = (x - x.mean(0)).astype(float)
    want = centred @ centred.T / (centred**2).sum(1).mean()
    np.testing.assert_allclose(gram, want, atol=1e-5)
    np.testing.assert_allclose(cross, want[:4], atol=1e-5)


def test_a_class_without_examples_is_allowed():
    x, labels = blobs(seed=4)
    rows = np.array([[*np.flatnonzero(labels == 0)[:5], *np.flatnonzero(labels == 2)[:4]]])
    gram = jnp.asarray(x @ x.T)
    found = active_learning.accuracies(gram, gram, labels, labels, rows, n_classes=3)
    assert found.shape == (1,) and 0.5 < found[0] <= np.isin(labels, (0, 2)).mean()


def test_stratified_folds_share_every_class():
    labels = np.array([0, 1, 0, 0, 2, 1, 0, 0, 2, 2, 1])
    held_out = active_learning.stratified(labels, 3)
    assert (held_out.sum(0) == 1).all() and (held_out.sum(1) >= 3).all()
    for name, n in enumerate(np.bincount(labels)):
        counts = held_out[:, labels == name].sum(1)
        assert counts.max() - counts.min() <= 1 and counts.sum() == n


def test_errors():
    gram, labels = jnp.eye(6), jnp.zeros(6, jnp.int32)
    start = jnp.arange(2)
    with pytest.raises(ValueError, match=r'3 queries in rounds of 2 .* multiple of 2, at most 4'):
        active_learning.least_certain(gram, labels, start, 3, n_classes=2, per_round=2)
    with pytest.raises(ValueError, match='5 queries from a pool of 6'):
        active_learning.most_diverse(gram, start, 5)
