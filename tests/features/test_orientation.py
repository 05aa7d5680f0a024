import numpy as np
import pytest

from lecture4.features import orientation
from lecture4.features.orientation import oriented_fraction

ROWS, COLUMNS = np.mgrid[:12, :12] - 5.5


@pytest.mark.parametrize('angle', [0.0, 0.4, 1.1, 1.9, 2.7])
def test_a_grating_is_oriented_whatever_its_angle(angle):
    along = np.cos(angle) * COLUMNS + np.sin(angle) * ROWS
    envelope = np.exp(-(ROWS**2 + COLUMNS**2) / 18)
    grating = envelope * np.cos(2 * np.pi * 0.25 * along)
    assert oriented_fraction(grating[None])[0] > 0.9


def test_isotropic_filters_have_a_quarter_in_every_wedge():
    """A round spot of a narrow ring of frequencies; white noise on average lies just above."""
    radius = np.hypot(ROWS, COLUMNS)
    spot = np.exp(-(radius**2) / 4) - 0.25 * np.exp(-(radius**2) / 16)
    noise = np.random.default_rng(0).normal(size=(200, 12, 12))
    assert oriented_fraction(spot[None])[0] == pytest.approx(0.25, abs=0.02)
    assert 0.27 < oriented_fraction(noise).mean() < 0.38
    assert oriented_fraction(np.zeros((1, 4, 4)))[0] == 0


def test_filters_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r'\(3, 4, 5\); expected \[n, s, s\]'):
        oriented_fraction(np.zeros((3, 4, 5)))


def test_median_of_filters_in_columns():
    rows, cols = np.mgrid[:8, :8]
    grating, blob = np.cos(2 * np.pi * cols / 4), np.exp(-((rows - 4) ** 2 + (cols - 4) ** 2))
    D = np.stack([grating, blob, grating], -1).reshape(64, 3)
    each = orientation.oriented_fraction(D.T.reshape(3, 8, 8))
    assert orientation.median_oriented(D, (8, 8, 1)) == np.median(each) == each[0]
