"""Settings are compared on the same draws by the classifier of the label curve."""

import numpy as np

from lecture4.features import label_curve, label_efficiency


def blobs(n, seed, spread=1.3):
    """Three classes in the plane, as many examples of each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n)
    centres = np.array([[0, 2], [2, -1], [-2, -1]])
    return (centres[labels] + spread * rng.standard_normal((3 * n, 2))).astype(np.float32), labels


OPTIONS = {'n_classes': 3, 'labels_per_class': (1, 4), 'n_draws': 6, 'seed': 5}


def test_passive_is_the_label_curve_of_validation():
    pool, labels = blobs(20, 0)
    test, test_labels = blobs(30, 1)
    found = label_efficiency.passive(pool, test, labels, test_labels, **OPTIONS)
    peer = label_curve.label_curve(
        5, pool, labels, test, test_labels, labels_per_class=(1, 4), n_draws=6
    )
    assert found.shape == (2, 6)
    np.testing.assert_allclose(found, peer, atol=0.02)  # scaled by the pool's norm, not its own
    assert found[1].mean() > found[0].mean() > 0.5


def test_active_starts_where_passive_does_and_asks_for_other_examples():
    pool, labels = blobs(20, 0)
    test, test_labels = blobs(30, 1)
    found = label_efficiency.active(pool, test, labels, test_labels, **OPTIONS)
    passive = label_efficiency.passive(pool, test, labels, test_labels, **OPTIONS)
    assert tuple(found) == label_efficiency.RULES
    for values in found.values():
        np.testing.assert_allclose(values[0], passive[0], atol=1e-6)
        assert values[1].mean() > values[0].mean() and (values[1] != passive[1]).any()
