"""Invariance is a correlation; the best neuron is chosen on one set and evaluated on another."""

import numpy as np
import pytest

from lecture4.features import selectivity


def test_invariance_is_the_correlation_of_every_unit():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 4))
    b = np.stack([a[:, 0], 3 - 2 * a[:, 1], rng.normal(size=200), np.full(200, 0.1)], 1)
    a[:, 3] = 0.1  # up to rounding of its mean
    result = selectivity.invariance(a.astype(np.float32), b.astype(np.float32))
    assert result[0] == pytest.approx(1) and result[1] == pytest.approx(-1)
    assert result[2] == pytest.approx(np.corrcoef(a[:, 2], b[:, 2])[0, 1], abs=1e-6)
    assert np.isnan(result[3])
    with pytest.raises(ValueError, match=r'expected \[n, units\]'):
        selectivity.invariance(a, b[:5])


def one_informative_unit(rng, n):
    """Unit 1 detects class 0 by being low, with 10 % errors; the others are noise."""
    labels = rng.integers(3, size=n)
    activations = rng.normal(size=(n, 3))
    flipped = rng.random(n) < 0.1
    activations[:, 1] += np.where((labels == 0) ^ flipped, -50, 50)
    return activations, labels


def test_the_best_neuron_is_evaluated_on_the_test_set():
    rng = np.random.default_rng(1)
    (a, labels), (b, test_labels) = (one_informative_unit(rng, 3000) for _ in range(2))
    accuracy = selectivity.best_neuron(a, labels, b, test_labels, 3)
    assert accuracy[0] == pytest.approx(0.9, abs=0.02)
    # Of what is not class 1, unit 1 separates only half: class 0.
    assert (accuracy[1:] < 0.75).all()
    shuffled = selectivity.best_neuron(a, labels, b, rng.permutation(test_labels), 3)
    assert abs(shuffled - 0.5).max() < 0.04
    with pytest.raises(ValueError, match='class 3 has no example'):
        selectivity.best_neuron(a, labels, b, test_labels, 4)


def test_noise_units_score_at_chance_level():
    """200 units and 25 thresholds to choose from would score above chance on their own examples."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 300, 200))
    labels, test_labels = (np.arange(300) % 3,) * 2
    assert selectivity.best_neuron(a, labels, a, labels, 3).mean() > 0.57
    assert abs(selectivity.best_neuron(a, labels, b, test_labels, 3).mean() - 0.5) < 0.04


def layers_of(images):
    """Two layers: means of images, invariant to shifts of a periodic one, and single pixels."""
    flat = np.asarray(images).reshape(len(images), -1)
    return {'mean': flat.mean(1, keepdims=True), 'pixel': flat[:, :1]}


def test_shift_invariance_of_networks_by_layer():
    images = np.tile(np.random.default_rng(0).normal(size=(50, 1, 4, 1)), (1, 4, 2, 1))
    records = selectivity.shift_invariance({'net': layers_of}, images, (1, 4), size=4)
    values = {(r['layer'], r['shift_in_pixels']): r['invariance'] for r in records}
    assert [r['network'] for r in records] == ['net'] * 4
    assert values['mean', 1] == pytest.approx(1) and values['mean', 4] == pytest.approx(1)
    expected = np.corrcoef(images[:, 0, 0, 0], images[:, 0, 1, 0])[0, 1]
    assert values['pixel', 1] == pytest.approx(expected) and values['pixel', 4] == pytest.approx(1)


def test_best_neurons_of_networks_by_layer():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.normal(size=(60, 3, 3, 1)) + 5 * labels[:, None, None, None]
    records = selectivity.best_neurons({'net': layers_of}, (images, labels), (images, labels), 2)
    assert [(r['network'], r['layer']) for r in records] == [('net', 'mean'), ('net', 'pixel')]
    assert records[0]['best_neuron'] == pytest.approx(1)
    assert 0.9 < records[1]['best_neuron'] <= 1


def test_kurtosis_is_3_for_gaussian_and_6_for_laplace_units():
    rng = np.random.default_rng(0)
    samples = np.stack([rng.normal(size=200_000), rng.laplace(size=200_000), np.zeros(200_000)], 1)
    np.testing.assert_allclose(selectivity.kurtosis(samples), [3, 6, 0], rtol=0.05)
