"""Few-label accuracy: fair draws, stratified folds, no look at the test labels."""

import numpy as np
import pytest

from lecture4.classifiers import validation

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 12)
X = (RNG.normal(size=(36, 5)) + 4 * np.eye(3, 5)[LABELS]).astype(np.float32)


def test_draws_are_balanced_and_repeatable():
    rows = validation.draw(3, LABELS, 4, 5)
    assert rows.shape == (5, 12)
    for chosen in rows:
        assert len(set(chosen)) == 12
        assert np.bincount(LABELS[chosen]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(rows, validation.draw(3, LABELS, 4, 5))
    assert (rows != validation.draw(4, LABELS, 4, 5)).any()
    with pytest.raises(ValueError, match='13 labels a class are wanted'):
        validation.draw(0, LABELS, 13, 1)


def test_folds_hold_every_sample_out_once():
    held_out = validation.folds(5, 3, 2)
    assert held_out.shape == (2, 15) and (held_out.sum(0) == 1).all()


def test_separated_classes_are_told_apart_and_shuffled_test_labels_are_not():
    right = validation.label_curve(0, X, LABELS, X, LABELS, labels_per_class=(1, 4), n_draws=4)
    assert right.shape == (2, 4) and right[1].mean() > 0.9
    rolled = np.roll(LABELS, 12)
    wrong = validation.label_curve(0, X, LABELS, X, rolled, labels_per_class=(1, 4), n_draws=4)
    assert wrong.mean() < 0.2
