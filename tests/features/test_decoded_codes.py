"""Distances and holes compared with brute force, and with decoders whose holes are known."""

import numpy as np
import pytest

from lecture4.features import decoded_codes

RNG = np.random.default_rng(0)


def ring(n):
    """Points on the unit circle, of two classes."""
    angle = RNG.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), (angle > np.pi) * 1


@pytest.fixture(scope='module')
def spaces():
    (x, labels), (test, _) = ring(600), ring(200)
    return x, labels, test, decoded_codes.spaces(x, labels, test)


def test_nearest_distances_are_those_of_all_pairs():
    a, b = RNG.normal(size=(7, 3)), RNG.normal(size=(11, 3))
    expected = np.linalg.norm(a[:, None] - b[None], axis=2).min(1)
    np.testing.assert_allclose(decoded_codes.nearest_distances(a, b), expected)


def test_a_fitted_gaussian_has_the_codes_covariance():
    codes = RNG.normal(size=(500, 3)) @ RNG.normal(size=(3, 3)) + 4
    fitted = decoded_codes.fit_gaussian(codes)
    np.testing.assert_allclose(fitted.root @ fitted.root.T, np.cov(codes.T), atol=1e-9)
    sample = fitted.sample(20_000, 0)
    np.testing.assert_allclose(sample.mean(0), codes.mean(0), atol=0.1)


def test_test_examples_are_five_percent_unlike(spaces):
    *_, test, where = spaces
    record = where.record(test)
    assert record['distance_pixels'] == pytest.approx(1) and record['unlike_pixels'] == 0.05


def test_the_middle_of_a_ring_is_a_hole(spaces):
    x, _, test, where = spaces
    pairs = decoded_codes.different_pairs((test[:, 1] < 0) * 1, 50)
    records, _ = decoded_codes.survey(where, np.asarray, np.asarray, x, test, pairs)
    unlike = {record['codes']: record['unlike_pixels'] for record in records}
    assert unlike['random'] > 0.9 and unlike['midpoints'] > 0.9 and unlike['test images'] < 0.15
    assert (test[pairs[0], 1] < 0).tolist() != (test[pairs[1], 1] < 0).tolist()
    plane = decoded_codes.plane(where, np.asarray, test, 5)
    assert plane['distances'].shape == (5, 5) and plane['distances'][2, 2] > 1


def test_autoencoders_are_compared_with_test_examples(spaces):
    x, _, test, where = spaces
    same = {'identity': (np.asarray, np.asarray, True)}
    labels = (test[:, 1] < 0) * 1
    result = decoded_codes.compare(where, same, x, test, labels, n_points=30, grid_size=4)
    names = [(record['autoencoder'], record['codes']) for record in result.records]
    assert names[:2] == [('none', 'test images'), ('none', 'midpoints')]
    assert {codes for _, codes in names[2:]} == {'test images', 'random', 'midpoints', 'prior'}
    np.testing.assert_allclose(result.paths['identity'], result.paths['pixels'], atol=1e-6)
    assert result.planes['identity']['distances'].shape == (4, 4)
