"""Accuracy of features of labeled images: that of their parts, function by function."""

import types

import numpy as np
import pytest

from lecture4.features import image_accuracy, label_efficiency, self_taught
from lecture4.ops import cores

RNG = np.random.default_rng(0)
LABELS = np.tile(np.arange(2), 12)
IMAGES = (0.2 * RNG.uniform(size=(24, 2, 3, 1)) + 0.5 * LABELS[:, None, None, None]).astype(
    np.float32
)
TASK = types.SimpleNamespace(
    train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:10], test_labels=LABELS[:10]
)
FUNCTIONS = {
    'pixels': lambda state, x: x.reshape(len(x), -1),
    'scaled': lambda state, x: state * x.reshape(len(x), -1)[:, :4],
}


@pytest.mark.parametrize('n_cores', [None, 1, 3])
def test_features_are_those_of_every_function(n_cores, monkeypatch):
    if n_cores:
        monkeypatch.setattr(cores, 'cpu_is_only_device', lambda: True)
        monkeypatch.setattr(cores, 'n_cores', lambda: n_cores)
    results = dict(image_accuracy.compute_features(FUNCTIONS, np.float32(2), IMAGES, IMAGES[:5]))
    train, test = results['scaled']
    np.testing.assert_allclose(train, 2 * IMAGES.reshape(24, 6)[:, :4])
    np.testing.assert_allclose(test, train[:5])
    assert list(results) == ['pixels', 'scaled'] and results['pixels'][0].shape == (24, 6)


def test_sets_may_differ_in_dtype_and_shape_or_be_empty(monkeypatch):
    monkeypatch.setattr(cores, 'cpu_is_only_device', lambda: True)
    sums = {'sums': lambda state, x: state * x.sum((1, 2, 3))[:, None]}
    sets = IMAGES, np.ones((20, 4, 4, 3), np.float32), IMAGES[:0]
    ((_, features),) = image_accuracy.compute_features(sums, np.float32(2), *sets)
    expected = [2 * x.sum((1, 2, 3))[:, None] for x in sets]
    for one, other in zip(features, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    pixels = {'pixels': lambda state, x: x.reshape(len(x), -1)}
    ((_, (one, other)),) = image_accuracy.compute_features(pixels, 0, IMAGES, IMAGES > 0.3)
    assert one.dtype == np.float32 and other.dtype == bool
    assert list(image_accuracy.compute_features(sums, 0)) == [('sums', [])]


@pytest.mark.cases(1)
@pytest.mark.parametrize('size', [None, 5])
def test_accuracies_are_those_of_the_pool(size):
    options = {'labels_per_class': (2,), 'num_trials': 3}
    curves, full = image_accuracy.accuracies(
        FUNCTIONS, np.float32(1), TASK, seed=1, labeled_pool_size=size, full_data_C=1.0, **options
    )
    x, rows = IMAGES.reshape(24, 6), np.arange(24)
    if size:
        rows = label_efficiency.first_per_class(LABELS, size)
    expected = label_efficiency.label_curve(
        1, x[rows], LABELS[rows], x[:10], LABELS[:10], **options
    )
    np.testing.assert_array_equal(curves['pixels'], expected)
    accuracy = self_taught.full_data_accuracy(x, x[:10], LABELS, LABELS[:10], C=1.0)
    assert full[0] == {'features': 'pixels', 'full_data_accuracy': accuracy}


def test_curves_become_records():
    curves = {'a': np.array([[0.1, 0.2], [0.3, 0.4]]), 'b': np.zeros((2, 2))}
    records = label_efficiency.curve_records(curves, (1, 5), 'setting')
    assert [(r['setting'], r['labels_per_class']) for r in records] == [
        ('a', 1), ('a', 5), ('b', 1), ('b', 5),
    ]  # fmt: skip
    np.testing.assert_array_equal(records[1]['accuracy'], [0.3, 0.4])
