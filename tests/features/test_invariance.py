"""Translations of images, and how far features change."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance

from lecture4.features import invariance


def test_translations_are_those_of_scipy_with_zeros_entering():
    x = np.random.default_rng(0).normal(size=(3, 6, 5, 2)).astype(np.float32)
    for pixels in (0, 1, 3):
        images = invariance.translations(x, pixels)
        for image, (down, right) in zip(images, ((0, 1), (1, 0), (0, -1), (-1, 0)), strict=True):
            expected = ndimage.shift(x, (0, pixels * down, pixels * right, 0), order=0)
            np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('shape, pixels', [((6, 5, 2), 1), ((1, 6, 5, 2), 5), ((1, 6, 5, 2), -1)])
def test_translations_that_do_not_fit_are_refused(shape, pixels):
    with pytest.raises(ValueError, match=f'a translation of {pixels} pixels does not fit'):
        invariance.translations(np.zeros(shape), pixels)


def test_change_is_in_units_of_the_distance_between_images():
    rng = np.random.default_rng(1)
    original, features = rng.normal(size=(2, 7, 4, 3))
    flat = original.reshape(7, -1)
    steps = [distance.euclidean(a, b) for a, b in zip(features.reshape(7, -1), flat, strict=True)]
    expected = np.mean(steps) / distance.pdist(flat).mean()
    assert invariance.relative_change(features, original) == pytest.approx(expected)
    assert invariance.relative_change(5 * features, 5 * original) == pytest.approx(expected)
    assert invariance.relative_change(original, original) == 0


def test_change_of_features_that_are_equal_for_all_images():
    same = np.ones((3, 2))
    assert np.isnan(invariance.relative_change(same, same))
    assert np.isinf(invariance.relative_change(same + 1, same))


def test_translation_records_of_invariant_features_and_of_pixels():
    rng = np.random.default_rng(0)
    x = np.pad(rng.random((6, 3, 3, 1)).astype(np.float32), ((0, 0), (2, 2), (2, 2), (0, 0)))
    labels = np.arange(6) % 2

    def largest(x):
        return x.reshape(6, -1).argmax(1) % 2, x.max((1, 2))

    records = invariance.compare_translations({'largest': largest}, x, labels, 2)
    invariant, pixels = records[:3], records[3:]
    np.testing.assert_allclose([r['movement'] for r in invariant], 0, atol=1e-7)
    assert invariant[0]['accuracy'] == np.mean(largest(x)[0] == labels)
    moved = [r['movement'] for r in pixels]
    assert moved[0] == 0 and 0 < moved[1] < moved[2]
    assert all(r['network'] == 'pixels' and 'accuracy' not in r for r in pixels)


def test_translations_in_which_features_move_less_are_named():
    moved = {('a', 0): 0, ('a', 1): 1.0, ('a', 2): 3.0, ('b', 0): 0, ('b', 1): 2.0, ('b', 2): 2.0}
    records = [{'network': n, 'pixels': p, 'movement': m} for (n, p), m in moved.items()]
    assert invariance.moves_less(records, 'a', 'b') == (
        "Features of 'a' move less than those of 'b' in translations by 1 of 1, 2 pixels."
    )
    assert 'by 2 of 1, 2 pixels' in invariance.moves_less(records, 'b', 'a')
