"""Shifts of pictures, and how far features move."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance

from lecture4.features import invariance


def test_shifts_are_scipys_and_bring_in_zeros():
    x = np.random.default_rng(0).normal(size=(3, 6, 5, 2)).astype(np.float32)
    for pixels in (0, 1, 3):
        found = invariance.shifted(x, pixels)
        for view, (down, right) in zip(found, ((0, 1), (1, 0), (0, -1), (-1, 0)), strict=True):
            wanted = ndimage.shift(x, (0, pixels * down, pixels * right, 0), order=0)
            np.testing.assert_array_equal(view, wanted)


@pytest.mark.parametrize('shape, pixels', [((6, 5, 2), 1), ((1, 6, 5, 2), 5), ((1, 6, 5, 2), -1)])
def test_shifts_that_do_not_fit(shape, pixels):
    with pytest.raises(ValueError, match=f'a shift of {pixels} does not fit'):
        invariance.shifted(np.zeros(shape), pixels)


def test_moved_is_in_units_of_the_distance_between_pictures():
    rng = np.random.default_rng(1)
    still, features = rng.normal(size=(2, 7, 4, 3))
    flat = still.reshape(7, -1)
    steps = [distance.euclidean(a, b) for a, b in zip(features.reshape(7, -1), flat, strict=True)]
    wanted = np.mean(steps) / distance.pdist(flat).mean()
    assert invariance.moved(features, still) == pytest.approx(wanted)
    assert invariance.moved(5 * features, 5 * still) == pytest.approx(wanted)
    assert invariance.moved(still, still) == 0


def test_moved_where_nothing_can_be_told_apart():
    same = np.ones((3, 2))
    assert np.isnan(invariance.moved(same, same))
    assert np.isinf(invariance.moved(same + 1, same))
