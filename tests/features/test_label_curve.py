"""Few-label accuracy: fair draws, stratified folds, no look at the test labels."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import LinearSVC

from lecture4.features import label_curve

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 12)
X = (RNG.normal(size=(36, 5)) + 4 * np.eye(3, 5)[LABELS]).astype(np.float32)


def test_draws_are_balanced_and_repeatable():
    rows = label_curve.draw(3, LABELS, 4, 5)
    assert rows.shape == (5, 12)
    for chosen in rows:
        assert len(set(chosen)) == 12
        assert np.bincount(LABELS[chosen]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(rows, label_curve.draw(3, LABELS, 4, 5))
    assert (rows != label_curve.draw(4, LABELS, 4, 5)).any()
    with pytest.raises(ValueError, match='13 labels a class are wanted'):
        label_curve.draw(0, LABELS, 13, 1)


def test_folds_hold_every_sample_out_once():
    held_out = label_curve.folds(5, 3, 2)
    assert held_out.shape == (2, 15) and (held_out.sum(0) == 1).all()


def test_separated_classes_are_told_apart_and_shuffled_test_labels_are_not():
    right = label_curve.label_curve(0, X, LABELS, X, LABELS, labels_per_class=(1, 4), n_draws=4)
    assert right.shape == (2, 4) and right[1].mean() > 0.9
    rolled = np.roll(LABELS, 12)
    wrong = label_curve.label_curve(0, X, LABELS, X, rolled, labels_per_class=(1, 4), n_draws=4)
    assert wrong.mean() < 0.2


def gram_and_cross(seed=1, n=15, m=6, d=4):
    rng = np.random.default_rng(seed)
    x, new = 3 + rng.normal(size=(n, d)), 3 + rng.normal(size=(m, d))
    return x, new, x @ x.T, new @ x.T


def test_centred_inner_products_are_those_of_centred_features(x64):
    x, new, gram, cross = gram_and_cross()
    inner, outer = label_curve.centre(jnp.asarray(gram), jnp.asarray(cross))
    mean = x.mean(0)
    scale = ((x - mean) ** 2).sum(1).mean()
    np.testing.assert_allclose(inner, (x - mean) @ (x - mean).T / scale, atol=1e-12)
    np.testing.assert_allclose(outer, (new - mean) @ (x - mean).T / scale, atol=1e-12)
    # Equal samples have no spread to divide by.
    inner, outer = label_curve.centre(jnp.ones((3, 3)), jnp.ones((2, 3)))
    assert (inner == 0).all() and (outer == 0).all()


def noisy(seed=2):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 5)
    return rng.normal(size=(15, 4)) + 1.2 * np.eye(3, 4)[labels], labels


@pytest.mark.slow
def test_penalty_of_the_most_hits_over_held_out_folds():
    """Against LinearSVC fitted to every fold; among equals the one nearest to 1."""
    penalties = (1e-3, 0.1, 1.0, 10.0, 1e3)
    chosen = []
    for seed in range(6):
        x, labels = noisy(seed)
        held_out = label_curve.folds(5, 3, 5)
        right = {}
        for penalty in penalties:
            right[penalty] = 0
            for out in held_out:
                model = LinearSVC(C=penalty, tol=1e-8, max_iter=1000000, dual=True)
                model.fit(x[~out], labels[~out])
                right[penalty] += (model.predict(x[out]) == labels[out]).sum()
        best = max(penalties, key=lambda c: (right[c], -abs(np.log(c))))
        found = label_curve.choose_penalty(
            jnp.asarray(x @ x.T, jnp.float32),
            jnp.asarray(labels),
            jnp.asarray(held_out),
            n_classes=3,
            penalties=penalties,
        )
        assert float(found) == pytest.approx(best)
        chosen.append(best)
    assert len(set(chosen)) > 1


def test_accuracy_is_that_of_a_machine_on_the_drawn_samples():
    """A draw by hand: centre, scale, choose C on folds, fit, count."""
    rng = np.random.default_rng(3)
    test_labels = np.repeat(np.arange(3), 20)
    test = (rng.normal(size=(60, 5)) + 1.5 * np.eye(3, 5)[test_labels]).astype(np.float32)
    pool = (RNG.normal(size=(36, 5)) + 1.5 * np.eye(3, 5)[LABELS]).astype(np.float32)
    for n, n_folds, penalties in ((1, 5, (0.01, 100.0)), (4, 2, (0.1,))):
        got = label_curve.label_curve(
            7, pool, LABELS, test, test_labels,
            labels_per_class=(n,), n_draws=3, n_folds=n_folds, penalties=penalties,
        )  # fmt: skip
        penalty = 1.0 if n == 1 else 0.1  # one label a class leaves nothing to hold out
        for rows, accuracy in zip(label_curve.draw(7, LABELS, n, 3), got[0], strict=True):
            x = pool[rows] - pool[rows].mean(0)
            scale = np.sqrt((x * x).sum(1).mean())
            model = LinearSVC(C=penalty, tol=1e-8, max_iter=1000000, dual=True)
            model.fit(x / scale, LABELS[rows])
            right = model.predict((test - pool[rows].mean(0)) / scale) == test_labels
            assert accuracy == pytest.approx(right.mean(), abs=1 / 60 + 1e-6)


def test_a_shift_and_a_scale_of_the_features_change_nothing():
    test = X[::2] + 0.1
    one, other = (
        label_curve.label_curve(
            0, a * X + b, LABELS, a * test + b, LABELS[::2], labels_per_class=(2,), n_draws=4
        )
        for a, b in ((1, 0), (64, 30))
    )
    np.testing.assert_allclose(one, other, atol=1 / 18 + 1e-6)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'labels have shape \(35,\) for 36 samples'):
        label_curve.label_curve(0, X, LABELS[1:], X, LABELS)
    with pytest.raises(ValueError, match=r'labels have shape \(36,\) for 30 samples'):
        label_curve.label_curve(0, X, LABELS, X[:30], LABELS)
    with pytest.raises(ValueError, match='test labels run from 0 to 3, the training labels to 2'):
        label_curve.label_curve(0, X, LABELS, X, np.where(LABELS == 2, 3, LABELS))
    with pytest.raises(ValueError, match='no sample of class 1 among 36 labels'):
        label_curve.label_curve(0, X, np.where(LABELS == 1, 0, LABELS), X, LABELS)
