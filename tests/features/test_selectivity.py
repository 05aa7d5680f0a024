import numpy as np
import pytest

from lecture4.features import selectivity


def test_constancy_is_the_correlation_of_every_unit():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 4))
    b = np.stack([a[:, 0], 3 - 2 * a[:, 1], rng.normal(size=200), np.full(200, 0.1)], 1)
    a[:, 3] = 0.1  # up to rounding of its mean
    found = selectivity.constancy(a.astype(np.float32), b.astype(np.float32))
    assert found[0] == pytest.approx(1) and found[1] == pytest.approx(-1)
    assert found[2] == pytest.approx(np.corrcoef(a[:, 2], b[:, 2])[0, 1], abs=1e-6)
    assert np.isnan(found[3])
    with pytest.raises(ValueError, match='both are to be'):
        selectivity.constancy(a, b[:5])


def test_best_unit_is_found_on_one_set_and_judged_on_the_other():
    """Unit 1 tells class 0 by being low, with a known share of errors; the others say nothing."""
    rng = np.random.default_rng(1)

    def made(n):
        labels = rng.integers(3, size=n)
        outputs = rng.normal(size=(n, 3))
        wrong = rng.random(n) < 0.1
        outputs[:, 1] += np.where((labels == 0) ^ wrong, -50, 50)
        return outputs, labels

    (a, labels), (b, test_labels) = made(3000), made(3000)
    found = selectivity.best_unit(a, labels, b, test_labels, 3)
    assert found[0] == pytest.approx(0.9, abs=0.02)
    # A class that unit 0 ignores: half of what is not class 0 is left, 1 unit cannot part it more.
    assert (found[1:] < 0.75).all()
    shuffled = selectivity.best_unit(a, labels, b, rng.permutation(test_labels), 3)
    assert abs(shuffled - 0.5).max() < 0.04
    with pytest.raises(ValueError, match='class 3 has no example'):
        selectivity.best_unit(a, labels, b, test_labels, 4)
