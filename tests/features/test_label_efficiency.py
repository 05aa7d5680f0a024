"""Accuracy from few labels: balanced samples, stratified folds, C by cross-validation."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import LinearSVC

from lecture4.features import label_efficiency
from tests.tracing import traced

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 12)
X = (RNG.normal(size=(36, 5)) + 4 * np.eye(3, 5)[LABELS]).astype(np.float32)


def test_training_sets_are_balanced_and_repeatable():
    rows = label_efficiency.sample_training_sets(3, LABELS, 4, 5)
    assert rows.shape == (5, 12)
    for training_set in rows:
        assert len(set(training_set)) == 12
        assert np.bincount(LABELS[training_set]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(rows, label_efficiency.sample_training_sets(3, LABELS, 4, 5))
    assert (rows != label_efficiency.sample_training_sets(4, LABELS, 4, 5)).any()
    with pytest.raises(ValueError, match='labels_per_class=13, but class 0 has 12 samples'):
        label_efficiency.sample_training_sets(0, LABELS, 13, 1)


@pytest.mark.parametrize('n_folds', [2, 3, 5])
def test_folds_are_balanced_in_size_and_in_every_class(n_folds):
    labels = np.array([0, 1, 0, 0, 2, 1, 0, 0, 2, 2, 1])
    held_out = label_efficiency.stratified_folds(labels, n_folds)
    assert held_out.shape == (n_folds, 11) and (held_out.sum(0) == 1).all()
    assert np.ptp(held_out.sum(1)) <= 1
    for name in range(3):
        assert np.ptp(held_out[:, labels == name].sum(1)) <= 1


def test_separable_classes_are_classified_and_shuffled_labels_are_not():
    options = {'labels_per_class': (1, 4), 'num_trials': 4}
    accuracy = label_efficiency.label_curve(0, X, LABELS, X, LABELS, **options)
    assert accuracy.shape == (2, 4) and accuracy[1].mean() > 0.9
    shuffled = label_efficiency.label_curve(0, X, LABELS, X, np.roll(LABELS, 12), **options)
    assert shuffled.mean() < 0.2


def test_inner_products_are_about_the_mean_of_the_pool():
    rng = np.random.default_rng(8)
    x, new = (1000 + rng.normal(size=(n, 3)).astype(np.float32) for n in (20, 4))
    gram, cross = label_efficiency.inner_products(jnp.asarray(x), jnp.asarray(new))
    mean = x.mean(0, dtype=float)
    np.testing.assert_allclose(gram, (x - mean) @ (x - mean).T, atol=5e-3)
    np.testing.assert_allclose(cross, (new - mean) @ (x - mean).T, atol=5e-3)


def test_centered_inner_products_are_those_of_centered_features(x64):
    rng = np.random.default_rng(1)
    x, new = 3 + rng.normal(size=(15, 4)), 3 + rng.normal(size=(6, 4))
    gram, cross = label_efficiency.center(jnp.asarray(x @ x.T), jnp.asarray(new @ x.T))
    mean = x.mean(0)
    scale = ((x - mean) ** 2).sum(1).mean()
    np.testing.assert_allclose(gram, (x - mean) @ (x - mean).T / scale, atol=1e-12)
    np.testing.assert_allclose(cross, (new - mean) @ (x - mean).T / scale, atol=1e-12)
    # Equal samples have no variance to divide by.
    gram, cross = label_efficiency.center(jnp.ones((3, 3)), jnp.ones((2, 3)))
    assert (gram == 0).all() and (cross == 0).all()


@pytest.mark.slow
def test_C_has_the_highest_accuracy_over_held_out_folds():
    """Against LinearSVC fitted to every fold; in a tie the one nearest to 1."""
    Cs = (1e-3, 0.1, 1.0, 10.0, 1e3)
    labels = np.repeat(np.arange(3), 5)
    chosen = []
    for seed in range(6):
        x = np.random.default_rng(seed).normal(size=(15, 4)) + 1.2 * np.eye(3, 4)[labels]
        held_out = label_efficiency.stratified_folds(labels, 5)
        n_correct = dict.fromkeys(Cs, 0)
        for C in Cs:
            for out in held_out:
                model = LinearSVC(C=C, tol=1e-8, max_iter=1000000, dual=True)
                model.fit(x[~out], labels[~out])
                n_correct[C] += (model.predict(x[out]) == labels[out]).sum()
        best = max(Cs, key=lambda C: (n_correct[C], -abs(np.log(C))))
        result = label_efficiency.choose_C(
            jnp.asarray(x @ x.T, jnp.float32),
            jnp.asarray(labels),
            jnp.asarray(held_out),
            n_classes=3,
            Cs=Cs,
        )
        assert float(result) == pytest.approx(best)
        chosen.append(best)
    assert len(set(chosen)) > 1


@pytest.mark.parametrize(('Cs', 'best'), [((0.01, 0.2, 20.0), 0.2), ((0.01, 10.0, 50.0), 10.0)])
def test_tied_values_of_C_give_the_one_nearest_to_1(Cs, best):
    """Far apart classes are classified perfectly whatever C is."""
    rows = np.arange(0, 36, 3)
    x = 10 * X[rows]
    result = label_efficiency.choose_C(
        jnp.asarray(x @ x.T),
        jnp.asarray(LABELS[rows]),
        jnp.asarray(label_efficiency.stratified_folds(LABELS[rows], 4)),
        n_classes=3,
        Cs=Cs,
    )
    assert float(result) == pytest.approx(best)


def test_accuracy_is_that_of_an_svm_on_the_sampled_training_set():
    """One trial step by step: center, scale, choose C on folds, fit, count."""
    rng = np.random.default_rng(3)
    test_labels = np.repeat(np.arange(3), 20)
    test = (rng.normal(size=(60, 5)) + 1.5 * np.eye(3, 5)[test_labels]).astype(np.float32)
    pool = (RNG.normal(size=(36, 5)) + 1.5 * np.eye(3, 5)[LABELS]).astype(np.float32)
    for n, n_folds, Cs in ((1, 5, (0.01, 100.0)), (4, 2, (0.1,))):
        options = {'labels_per_class': (n,), 'num_trials': 3, 'n_folds': n_folds, 'Cs': Cs}
        result = label_efficiency.label_curve(7, pool, LABELS, test, test_labels, **options)
        C = 1.0 if n == 1 else 0.1  # one label per class leaves nothing to hold out
        sets = label_efficiency.sample_training_sets(7, LABELS, n, 3)
        for rows, accuracy in zip(sets, result[0], strict=True):
            x = pool[rows] - pool[rows].mean(0)
            scale = np.sqrt((x * x).sum(1).mean())
            model = LinearSVC(C=C, tol=1e-8, max_iter=1000000, dual=True)
            model.fit(x / scale, LABELS[rows])
            correct = model.predict((test - pool[rows].mean(0)) / scale) == test_labels
            assert accuracy == pytest.approx(correct.mean(), abs=1 / 60 + 1e-6)


def test_a_shift_and_a_scale_of_the_features_change_nothing():
    test = X[::2] + 0.1
    options = {'labels_per_class': (2,), 'num_trials': 4}
    one, other = (
        label_efficiency.label_curve(0, a * X + b, LABELS, a * test + b, LABELS[::2], **options)
        for a, b in ((1, 0), (64, 30))
    )
    np.testing.assert_allclose(one, other, atol=1 / 18 + 1e-6)


def test_a_class_may_be_missing_from_a_training_set():
    rows = np.array([[*range(5), *range(24, 28)]])
    gram = jnp.asarray(X @ X.T)
    result = label_efficiency.accuracies(gram, gram, LABELS, LABELS, rows, n_classes=3)
    assert result.shape == (1,) and 0.5 < result[0] <= 2 / 3 + 1e-6


def test_a_second_curve_traces_no_solver():
    options = {'labels_per_class': (2,), 'num_trials': 4}
    label_efficiency.label_curve(0, X, LABELS, X, LABELS, **options)
    with traced() as events:
        label_efficiency.label_curve(1, X, LABELS, X, LABELS, **options)
    assert not events


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'labels of shape \(35,\) for 36 samples'):
        label_efficiency.label_curve(0, X, LABELS[1:], X, LABELS)
    with pytest.raises(ValueError, match=r'labels of shape \(36,\) for 30 samples'):
        label_efficiency.label_curve(0, X, LABELS, X[:30], LABELS)
    with pytest.raises(
        ValueError, match='test labels from 0 to 3; the training labels go from 0 to 2'
    ):
        label_efficiency.label_curve(0, X, LABELS, X, np.where(LABELS == 2, 3, LABELS))
    with pytest.raises(ValueError, match='no sample of class 1 among 36 labels'):
        label_efficiency.label_curve(0, X, np.where(LABELS == 1, 0, LABELS), X, LABELS)


def test_first_per_class_takes_all_of_a_smaller_class():
    labels = np.array([1, 0, 1, 1, 0, 2])
    assert label_efficiency.first_per_class(labels, 2).tolist() == [1, 4, 0, 2, 5]


def test_paired_gain_is_a_mean_difference_with_its_standard_error():
    assert label_efficiency.paired_gain(np.array([0.5, 0.7]), np.array([0.4, 0.4])) == '20.0 ± 10.0'
    assert label_efficiency.paired_gain(np.array([0.5]), np.array([0.4])) == '10.0'
