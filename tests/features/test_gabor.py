"""Gabor fits recover planted parameters and reject atoms that are no Gabors."""

import numpy as np
import pytest
from scipy import optimize

from lecture4.features import gabor as gabor_fits


def gabor(shape, row, column, bars, frequency, phase, across, along, amplitude=1.0):
    """A Gabor from its description: bars at an angle as displayed, y upwards."""
    i, j = np.indices(shape)
    z = (j - column) - 1j * (i - row)  # displayed coordinates about the center
    z = z * np.exp(-1j * bars)  # the bars now lie along the real axis
    along_bars, u = z.real, -z.imag  # u grows to the right of the direction of the bars
    envelope = np.exp(-0.5 * (along_bars / along) ** 2 - 0.5 * (u / across) ** 2)
    return amplitude * envelope * np.cos(2 * np.pi * frequency * u + phase)


def planted(rng, k, shape):
    """Parameters of k Gabors that lie in the patch with a third of a cycle per sigma or more."""
    h, w = shape
    values = [rng.uniform(0.25, 0.7, k) * h, rng.uniform(0.25, 0.7, k) * w]
    values.append(rng.uniform(0, np.pi, k))
    frequency = rng.uniform(0.1, 0.35, k)
    values += [frequency, rng.uniform(-np.pi, np.pi, k)]
    values += [np.maximum(rng.uniform(1.2, 2.5, k), 0.33 / frequency), rng.uniform(1.5, 3, k)]
    return np.array([*values, rng.uniform(0.1, 5, k)]).T


def stack(parameters, shape):
    return np.stack([gabor(shape, *row).ravel() for row in parameters], 1)


def angle_between(angle, other, period):
    return abs((angle - other + period / 2) % period - period / 2)


def test_exact_gabors_are_recovered():
    rng = np.random.default_rng(0)
    truth = planted(rng, 60, (12, 14))
    fits = gabor_fits.fit_gabors(stack(truth, (12, 14)), (12, 14))
    close = fits.r2 > 1 - 1e-6
    assert close.mean() > 0.95  # a start may end in another minimum, rarely
    assert fits.r2.min() > 0.95
    fitted = [fits.center, fits.frequency, fits.stds, fits.amplitude]
    expected = [truth[:, :2], truth[:, 3], truth[:, 5:7], truth[:, 7]]
    for a, b in zip(fitted, expected, strict=True):
        np.testing.assert_allclose(a[close], b[close], rtol=2e-2, atol=1e-2)
    assert angle_between(fits.orientation, truth[:, 2], np.pi)[close].max() < 1e-3
    assert angle_between(fits.phase, truth[:, 4], 2 * np.pi)[close].max() < 2e-2


@pytest.mark.parametrize(('noise', 'degrees', 'cycles'), [(0.2, 1.0, 0.004), (0.4, 2.0, 0.008)])
def test_gabors_are_recovered_under_noise(noise, degrees, cycles):
    """Noise of `noise` times the atom's norm: errors at the 90th percentile."""
    rng = np.random.default_rng(1)
    truth = planted(rng, 80, (12, 12))
    D = stack(truth, (12, 12))
    error = rng.standard_normal(D.shape)
    D = D + noise * error * np.linalg.norm(D, axis=0) / np.linalg.norm(error, axis=0)
    fits = gabor_fits.fit_gabors(D, (12, 12))
    assert fits.good.mean() > 0.85
    assert (
        np.quantile(np.rad2deg(angle_between(fits.orientation, truth[:, 2], np.pi)), 0.9)
        < 2 * degrees
    )
    assert np.median(np.rad2deg(angle_between(fits.orientation, truth[:, 2], np.pi))) < degrees
    assert np.quantile(abs(fits.frequency - truth[:, 3]), 0.9) < 2 * cycles
    # The fit leaves about the noise, less what its eight parameters explain.
    expected = 1 / (1 + noise**2)
    assert abs(np.median(fits.r2) - expected) < 0.02


def test_orientation_is_that_of_the_bars_counterclockwise():
    stripes = np.tile([1.0, 1, -1, -1], 2)
    vertical, horizontal = np.tile(stripes, (8, 1)), np.tile(stripes[:, None], 8)
    slash = np.array([[(1.0, 1, -1, -1)[(i + j) % 4] for j in range(8)] for i in range(8)])
    for atom, degrees, frequency in (
        (vertical, 90, 0.25),
        (horizontal, 0, 0.25),
        (slash, 45, 0.25 * 2**0.5),
        (slash[:, ::-1], 135, 0.25 * 2**0.5),
    ):
        fit = gabor_fits.fit_gabor(atom)
        assert fit.good
        assert angle_between(np.rad2deg(fit.orientation), degrees, 180) < 2
        assert abs(fit.frequency - frequency) < 0.015


def test_transposing_the_image_reflects_the_fit():
    rng = np.random.default_rng(2)
    D = stack(planted(rng, 20, (9, 12)), (9, 12)) + 0.05 * rng.standard_normal((108, 20))
    turned = D.reshape(9, 12, 20).swapaxes(0, 1).reshape(108, 20)
    a, b = gabor_fits.fit_gabors(D, (9, 12)), gabor_fits.fit_gabors(turned, (12, 9))
    same = abs(a.r2 - b.r2) < 1e-5
    assert same.mean() >= 0.9
    assert angle_between(a.orientation, np.pi / 2 - b.orientation, np.pi)[same].max() < 0.02
    np.testing.assert_allclose(a.center[same], b.center[same][:, ::-1], atol=0.1)


def test_sign_changes_the_phase_and_scale_the_amplitude():
    rng = np.random.default_rng(3)
    D = stack(planted(rng, 12, (10, 10)), (10, 10)) + 0.05 * rng.standard_normal((100, 12))
    fits, other = gabor_fits.fit_gabors(D, (10, 10)), gabor_fits.fit_gabors(-1e-6 * D, (10, 10))
    for name in ('center', 'orientation', 'frequency', 'stds', 'r2', 'good'):
        np.testing.assert_allclose(getattr(other, name), getattr(fits, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.amplitude, 1e-6 * fits.amplitude, rtol=1e-4)
    np.testing.assert_allclose(angle_between(other.phase, fits.phase, 2 * np.pi), np.pi, rtol=1e-4)


def test_ranges_of_the_angles():
    rng = np.random.default_rng(4)
    fits = gabor_fits.fit_gabors(stack(planted(rng, 60, (8, 8)), (8, 8)), (8, 8))
    assert (fits.orientation >= 0).all() and (fits.orientation < np.pi).all()
    assert (fits.phase > -np.pi).all() and (fits.phase <= np.pi).all()
    assert (fits.amplitude >= 0).all()


def test_r2_is_what_the_rendered_fit_leaves():
    rng = np.random.default_rng(5)
    D = stack(planted(rng, 10, (8, 11)), (8, 11)) + 0.2 * rng.standard_normal((88, 10))
    fits = gabor_fits.fit_gabors(D, (8, 11))
    left = ((D - gabor_fits.render(fits, (8, 11))) ** 2).sum(0) / ((D - D.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(fits.r2, 1 - left, atol=1e-6)


def test_no_general_search_fits_better():
    """Against scipy's bounded search over all eight parameters, from many random starts."""
    rng = np.random.default_rng(6)
    D = stack(planted(rng, 4, (8, 8)), (8, 8))
    D = D / np.linalg.norm(D, axis=0) + 0.05 * rng.standard_normal((64, 4))
    fits = gabor_fits.fit_gabors(D, (8, 8))
    low = np.array([-0.5, -0.5, -np.inf, 0.02, -np.inf, 0.4, 0.4, 0])
    high = np.array([7.5, 7.5, np.inf, 0.5, np.inf, 8, 8, 20])
    for j, r2 in enumerate(fits.r2):
        best = -np.inf
        for start in planted(rng, 12, (8, 8)):
            result = optimize.least_squares(
                lambda p, j=j: D[:, j] - gabor((8, 8), *p).ravel(),
                np.clip(start, low + 1e-3, high - 1e-3),
                bounds=(low, high),
                max_nfev=60,
            )
            best = max(best, 1 - 2 * result.cost / ((D[:, j] - D[:, j].mean()) ** 2).sum())
        assert best > 0.5  # the search itself works
        assert r2 > best - 1e-3


def test_search_directions_are_the_derivatives():
    """At a zero residual the projected Jacobian is exact: minus the residual's differences."""
    shape = (9, 9)
    p = np.array([[4.2, 3.6, 0.7, np.log(0.2), np.log(0.4), np.log(2.5)]])
    true = gabor(shape, 4.2, 3.6, 0.7, 0.2, 0.9, 2.0, 2.5).reshape(1, -1)
    residual, _, columns = gabor_fits._project(p, true, shape)
    assert abs(residual).max() < 1e-8
    for i in range(6):
        step = 1e-5 * np.eye(6)[i]
        ahead = gabor_fits._project(p + step, true, shape, jacobian=False)[0]
        behind = gabor_fits._project(p - step, true, shape, jacobian=False)[0]
        np.testing.assert_allclose((behind - ahead) / 2e-5, columns[:, i], atol=1e-6)


def test_noise_blobs_and_pixels_are_rejected_and_edges_are_not():
    rng = np.random.default_rng(7)
    assert not gabor_fits.fit_gabors(rng.standard_normal((64, 150)), (8, 8)).good.any()
    assert not gabor_fits.fit_gabors(np.eye(64), (8, 8)).good.any()
    i, j = np.indices((12, 12)) - 5.3
    blob, stroke = np.exp(-(i**2 + j**2) / 8), np.exp(-(i**2) / 2 - j**2 / 18)
    ramp = (j * 0.8 + i * 0.6) * np.exp(-(i**2 + j**2) / 8)
    for atom, good in ((blob, False), (stroke, False), (ramp, True)):
        fit = gabor_fits.fit_gabor(atom)
        assert fit.r2 > 0.9 and fit.good == good
    # A dark corner with a faint rim adds up to nothing, but is half a blob, not a grating.
    corner = gabor((8, 8), 5.6, 7.5, np.deg2rad(53), 0.112, 2.6, 1.74, 5.3)
    assert abs(corner.sum()) < 0.2 * abs(corner).sum()
    assert gabor_fits.fit_gabor(corner).r2 > 0.99 and not gabor_fits.fit_gabor(corner).good
    # The ramp's wave vector is (0.8, 0.6) in (right, down): its bars rise at atan(0.8 / 0.6).
    assert angle_between(gabor_fits.fit_gabor(ramp).orientation, np.arctan2(0.8, 0.6), np.pi) < 0.02


def test_dead_and_constant_atoms_have_no_fit():
    grating = gabor((6, 6), 2.5, 2.5, 0.4, 0.2, 1.0, 2.0, 2.0)
    D = np.stack([np.zeros(36), np.full(36, 0.3), grating.ravel()], 1).astype(np.float32)
    fits = gabor_fits.fit_gabors(D, (6, 6))
    assert fits.r2[:2].tolist() == [0, 0] and fits.good.tolist() == [False, False, True]
    assert np.isnan(fits.orientation[:2]).all() and np.isnan(fits.center[:2]).all()
    rendered = gabor_fits.render(fits, (6, 6))
    assert (rendered[:, :2] == 0).all()
    np.testing.assert_allclose(rendered[:, 2], grating.ravel(), atol=1e-2)
    none = gabor_fits.fit_gabors(np.ones((36, 0)), (6, 6))
    assert none.center.shape == (0, 2) and gabor_fits.summarize(none)['fraction_good'] == 0


def test_color_lowers_r2_unless_it_is_one_hue():
    shape = (8, 8)
    one = gabor(shape, 3, 4, 0.7, 0.2, 0.5, 2, 2)
    two = gabor(shape, 4, 3, 2.2, 0.2, 0.5, 2, 2)
    hue, other = np.array([0.6, -0.2, 0.5]), np.array([0.0, 1.0, 0.4])
    D = np.stack([one[:, :, None] * hue, one[:, :, None] * hue + two[:, :, None] * other])
    fits = gabor_fits.fit_gabors(D.reshape(2, -1).T, (8, 8, 3))
    assert fits.r2[0] > 0.9999 and angle_between(fits.orientation[0], 0.7, np.pi) < 1e-2
    assert fits.r2[1] < 0.8 and not fits.good[1]


def test_summary_tells_parallel_crossed_and_uniform_angle_between():
    def fits(degrees, good=None):
        n = len(degrees)
        nothing = np.zeros(n)
        good = np.ones(n, bool) if good is None else np.array(good)
        frequency = np.linspace(0.1, 0.5, n)
        angles = np.deg2rad(np.asarray(degrees, float))
        return gabor_fits.GaborFits(
            nothing, angles, frequency, nothing, nothing, nothing, nothing, good
        )

    parallel = gabor_fits.summarize(fits([30] * 5))
    assert parallel['orientation_spread'] == pytest.approx(0)
    assert parallel['orientation_entropy'] == pytest.approx(0)
    quartiles = [parallel[f'frequency_{q}'] for q in ('q25', 'median', 'q75')]
    np.testing.assert_allclose(quartiles, [0.2, 0.3, 0.4])
    around = gabor_fits.summarize(fits([179, 1]))  # both nearly horizontal
    assert around['orientation_spread'] < 1e-3 and around['orientation_entropy'] == 0
    crossed = gabor_fits.summarize(fits([0, 90, 0, 90]))
    assert crossed['orientation_spread'] == pytest.approx(1)
    assert crossed['orientation_entropy'] == pytest.approx(1 / 3)
    uniform = gabor_fits.summarize(fits(np.arange(0, 180, 5)))
    assert uniform['orientation_spread'] == pytest.approx(1)
    assert uniform['orientation_entropy'] > 0.98
    mixed = gabor_fits.summarize(fits([10, 10, 100, 55], [True, True, False, False]))
    assert mixed['fraction_good'] == 0.5 and mixed['orientation_spread'] == pytest.approx(0)
    none = gabor_fits.summarize(fits([10], [False]))
    assert none['fraction_good'] == 0 and np.isnan(none['frequency_median'])


def test_atoms_that_cannot_be_fitted_are_refused():
    D = np.ones((64, 3))
    with pytest.raises(ValueError, match=r'\(8, 9\) does not hold the 64 rows'):
        gabor_fits.fit_gabors(D, (8, 9))
    with pytest.raises(ValueError, match='expected 4 x 4'):
        gabor_fits.fit_gabors(D, (2, 32))
    with pytest.raises(ValueError, match=r'shape \(64,\); expected \[h, w\]'):
        gabor_fits.fit_gabor(D[:, 0])
    D[5, 1] = np.nan
    with pytest.raises(ValueError, match='atom 1 is not finite'):
        gabor_fits.fit_gabors(D, (8, 8))
