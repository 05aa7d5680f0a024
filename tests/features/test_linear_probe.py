import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lecture4.features import linear_probe


def test_features_are_standardised_by_the_training_set_and_constants_stay():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1, 100, 0] + [5, -3, 2]
    scale = linear_probe.standardiser(x)
    np.testing.assert_allclose(scale(x).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scale(x).std(0), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(scale(x + 1)[:, 2], 1 / linear_probe.LEAST_STD)


def test_the_penalty_is_the_one_that_errs_least_on_held_out_examples():
    """Few labels in many noisy dimensions want a strong penalty; scikit-learn's own fits tell which."""
    x, labels = load_digits(return_X_y=True)
    x = np.concatenate([x / 16, np.random.default_rng(0).normal(size=(len(x), 200))], 1)
    x = linear_probe.standardiser(x)(x)
    train, valid, test = (slice(0, 150), slice(150, 400), slice(400, None))
    penalties = (1e-5, 1e-3, 10.0)
    right = {}
    for C in penalties:
        fit = LogisticRegression(C=C, max_iter=1000).fit(x[train], labels[train])
        right[C] = fit.score(x[valid], labels[valid]), fit.predict(x[test])
    best = max(penalties, key=lambda C: right[C][0])
    assert len({score for score, _ in right.values()}) == 3
    predict = linear_probe.fit(x[train], labels[train], x[valid], labels[valid], penalties)
    np.testing.assert_array_equal(predict(x[test]), right[best][1])
    with pytest.raises(ValueError, match='no penalty'):
        linear_probe.fit(x, labels, x, labels, ())
