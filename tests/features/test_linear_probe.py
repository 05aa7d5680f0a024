"""The probe is scikit-learn's logistic regression with the C of the lowest validation error."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lecture4.features import linear_probe


def test_standardized_by_the_training_set_and_constants_stay_small():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1, 100, 0] + [5, -3, 2]
    scale = linear_probe.standardizer(x)
    np.testing.assert_allclose(scale(x).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scale(x).std(0), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(scale(x + 1)[:, 2], 1 / linear_probe.MIN_STD)


def noisy_digits():
    """Few labels in many noisy dimensions need a strong penalty."""
    x, labels = load_digits(return_X_y=True)
    x = np.concatenate([x / 16, np.random.default_rng(0).normal(size=(len(x), 200))], 1)
    parts = {'train': slice(0, 150), 'valid': slice(150, 400), 'test': slice(400, None)}
    return {k: x[part] for k, part in parts.items()}, {k: labels[p] for k, p in parts.items()}


def test_C_has_the_lowest_validation_error():
    x, labels = noisy_digits()
    scale = linear_probe.standardizer(x['train'])
    z = {name: scale(v) for name, v in x.items()}
    Cs = (1e-5, 1e-3, 10.0)
    results = {}
    for C in Cs:
        model = LogisticRegression(C=C, max_iter=1000).fit(z['train'], labels['train'])
        results[C] = model.score(z['valid'], labels['valid']), model.predict(z['test'])
    best = max(Cs, key=lambda C: results[C][0])
    assert len({score for score, _ in results.values()}) == 3
    predict = linear_probe.fit(z['train'], labels['train'], z['valid'], labels['valid'], Cs)
    np.testing.assert_array_equal(predict(z['test']), results[best][1])
    expected = np.mean(results[best][1] != labels['test'])
    assert linear_probe.error(x, labels, Cs) == pytest.approx(expected)


def test_no_value_of_C_is_refused():
    x, labels = noisy_digits()
    with pytest.raises(ValueError, match='Cs is empty'):
        linear_probe.error(x, labels, ())


def test_records_by_number_of_labels_hold_draws_of_every_metric():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    records = linear_probe.label_records(
        'plane', lambda x: 3 * x, (x[:30], labels[:30]), (x[30:40], labels[30:40]),
        {'accuracy': x[40:], 'noisy_accuracy': -x[40:]}, labels[40:],
        num_labels=(20, 500), num_trials=3, Cs=(1.0,), seed=0,
    )  # fmt: skip
    few, many = records
    assert (few['features'], few['num_labels'], many['num_labels']) == ('plane', 20, 30)
    assert few['accuracy'].shape == (3,) and many['accuracy'].shape == (1,)
    assert 'noisy_accuracy' not in few and many['noisy_accuracy'][0] < 0.2
    assert many['accuracy'][0] > 0.8
