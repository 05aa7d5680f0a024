"""Gabor functions fitted to atoms: position, orientation, frequency, phase and size of each.

Runs on the host with numpy and scipy, in float64 for any input dtype: nothing here is jitted or differentiated. Atoms
are the columns of D [d, k]; `patch_shape` turns an atom into an image.

The Gabor of this file, with orientation o, at pixel (row, column):

    u = (column - c) sin o + (row - r) cos o        across the bars
    v = (column - c) cos o - (row - r) sin o        along the bars
    g = amplitude * exp(-u^2 / 2 s_u^2 - v^2 / 2 s_v^2) * cos(2 pi f u + phase)

so the orientation is that of the BARS, counter-clockwise as displayed: a vertical grating
has orientation pi/2, a horizontal one 0, bars like a slash (/) pi/4.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Num
from scipy import ndimage

# Cycles of the carrier within one standard deviation of the envelope at which the half-amplitude
# bandwidth becomes infinite: sqrt(ln 2 / 2) / pi. Below it amplitude and frequency of an edge are
# not identified (sin(2 pi f u) tends to a straight line), so fits stay above.
MIN_CYCLES = 0.1874
MIN_STD = 0.35  # pixels; narrower envelopes cover one pixel and fit anything


class GaborFits(NamedTuple):
    """One Gabor for each of k atoms; the module's docstring has the formula.

    Constant atoms (dead atoms are zero) have r2 = 0 and NaN in all other fields.

    Attributes:
      center: [k, 2] row and column, pixels; 0 is the middle of the first pixel.
      orientation: [k] orientation of the bars, radians in [0, pi); vertical bars: pi/2.
      frequency: [k] cycles per pixel.
      phase: [k] radians in (-pi, pi]; 0 is even, +-pi/2 odd about the center.
      stds: [k, 2] standard deviations of the envelope, across and along the bars, pixels.
      amplitude: [k] amplitude in the atom's unit, >= 0.
      r2: [k] 1 - |atom - fit|^2 / |atom - its mean|^2; may be negative.
      good: [k] bool; the criterion is given in fit_gabors.
    """

    center: Float[np.ndarray, '*k 2']
    orientation: Float[np.ndarray, '*k']
    frequency: Float[np.ndarray, '*k']
    phase: Float[np.ndarray, '*k']
    stds: Float[np.ndarray, '*k 2']
    amplitude: Float[np.ndarray, '*k']
    r2: Float[np.ndarray, '*k']
    good: Bool[np.ndarray, '*k']


def fit_gabor(atom: Num[Array | np.ndarray, '...']) -> GaborFits:
    """The Gabor nearest to one atom [h, w]: GaborFits whose entries are scalars (and pairs).

    Raises:
      ValueError: As in `fit_gabors`, or the atom is not [h, w].
    """
    atom = np.asarray(atom, float)
    if atom.ndim != 2:
        raise ValueError(f'atom of shape {atom.shape}; expected [h, w]')
    fits = fit_gabors(atom.reshape(-1, 1), atom.shape)
    return GaborFits(*(field[0] for field in fits))


def fit_gabors(D: Num[Array | np.ndarray, '...'], patch_shape: Sequence[int]) -> GaborFits:
    """Least-squares Gabor fit of every atom.

    Nine starts per atom (the spectrum's three highest peaks, three envelope sizes, each centered
    where a matched filter responds most), then Levenberg-Marquardt with the two linear amplitudes
    (of cosine and sine) projected out; all atoms and starts advance together. The search is
    bounded: center inside the patch (to the outer edge of its pixels); frequency along rows and
    along columns at most 1/2 (Nyquist); stds between 0.35 pixels and the patch's longer size; at
    least 0.187 cycles of the carrier in a standard deviation (a finite half-amplitude bandwidth).
    Color atoms are reduced to their first principal component over channels; r2 still refers to the whole atom.

    `good` is: r2 > 0.8, and the fit is tuned: its spectrum at frequency zero is at most half of
    that at the carrier, both in the patch and in the whole plane. This rejects blobs, strokes of
    one sign and single pixels, whose orientation means nothing, and keeps edges. Eight parameters
    also fit noise where pixels are few: of 1000 white noise atoms 60 of 4 x 4 pixels, 1 of
    5 x 5 and none of 6 x 6 to 8 x 8 were good.

    Args:
      D: [d, k] with d = prod(patch_shape).
      patch_shape: (h, w) or (h, w, c), h, w >= 4.

    Returns:
      GaborFits of float64 arrays [k] ([k, 2] for center and stds).

    Raises:
      ValueError: d does not fit patch_shape, a patch is under 4 x 4 pixels, or an atom is not finite.

    References:
      Golub & Pereyra 1973 (variable projection), Kaufman 1975 (its Jacobian).
    """
    D = _matrix(D)
    patch_shape = tuple(int(size) for size in patch_shape)
    if len(patch_shape) not in (2, 3) or np.prod(patch_shape) != D.shape[0]:
        raise ValueError(
            f'patch_shape {patch_shape} does not hold the {D.shape[0]} rows of D; '
            'give (h, w) or (h, w, c) with that product'
        )
    if min(patch_shape[:2]) < 4:
        raise ValueError(
            f'patches of {patch_shape} are too small for Gabor fits; expected 4 x 4 pixels or more'
        )
    if not np.isfinite(D).all():
        raise ValueError(f'atom {np.flatnonzero(~np.isfinite(D).all(0))[0]} is not finite')
    parts = [
        _fit(*_gray(D[:, i : i + 256], patch_shape)) for i in range(0, max(D.shape[1], 1), 256)
    ]
    return GaborFits(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def render(fits: GaborFits, patch_shape: Sequence[int]) -> Float[np.ndarray, 'd k']:
    """The fitted Gabors as gray atoms [h * w, k]; zero for constant atoms."""
    h, w = patch_shape[:2]
    row, column = np.mgrid[:h, :w].reshape(2, 1, -1)
    y, x = row - fits.center[:, :1], column - fits.center[:, 1:]
    sin, cos = np.sin(fits.orientation)[:, None], np.cos(fits.orientation)[:, None]
    u, v = x * sin + y * cos, x * cos - y * sin
    envelope = np.exp(-0.5 * ((u / fits.stds[:, :1]) ** 2 + (v / fits.stds[:, 1:]) ** 2))
    wave = np.cos(2 * np.pi * fits.frequency[:, None] * u + fits.phase[:, None])
    return np.nan_to_num(fits.amplitude[:, None] * envelope * wave).T


def summarize(fits: GaborFits) -> dict[str, float]:
    """Summary of the fits in six numbers; all except the first over the good fits only.

    Returns:
      fraction_good: Fraction of all atoms that are well fitted.
      orientation_spread: 1 - |mean of exp(2 i o)|: 0 where all bars are parallel, 1 where they
        cancel, as those of a half horizontal, half vertical dictionary do too.
      orientation_entropy: Entropy over eight bins centered on 0, 22.5, ... degrees, divided by log 8: distinguishes
        these two, 1 is uniform; needs a few dozen atoms to be meaningful.
      frequency_q25, frequency_median, frequency_q75: Cycles per pixel.

      NaN where there is no good fit.
    """
    good = np.asarray(fits.good, bool)
    names = ('orientation_spread', 'orientation_entropy')
    names += ('frequency_q25', 'frequency_median', 'frequency_q75')
    fraction = float(good.mean()) if good.size else 0.0
    if not good.any():
        return {'fraction_good': fraction} | dict.fromkeys(names, float('nan'))
    angle = fits.orientation[good]
    spread = 1 - abs(np.exp(2j * angle).mean())
    bins = np.bincount(np.round(angle * 8 / np.pi).astype(int) % 8, minlength=8) / len(angle)
    entropy = -(bins * np.log(np.maximum(bins, 1e-300))).sum() / np.log(8)
    quartiles = np.quantile(fits.frequency[good], (0.25, 0.5, 0.75))
    values = map(float, (spread, entropy, *quartiles))
    return {'fraction_good': fraction} | dict(zip(names, values, strict=True))


def _matrix(D):
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'D of shape {D.shape}; expected [d, k] with atoms in columns')
    return D


def _gray(D, patch_shape):
    """Atoms as unit-norm gray images; their norms, the energy left out, the total that r2 divides by."""
    n_channels = patch_shape[2] if len(patch_shape) == 3 else 1
    atoms = D.T.reshape(D.shape[1], patch_shape[0] * patch_shape[1], n_channels)
    energy = (atoms**2).sum((1, 2))
    total = ((atoms - atoms.mean(1, keepdims=True)) ** 2).sum((1, 2))
    total[total <= 1e-12 * energy] = 0  # constant up to rounding
    if n_channels == 1:
        gray = atoms[:, :, 0]
    else:
        axis = np.linalg.svd(atoms, full_matrices=False)[2][:, 0]  # [k, c]
        strongest = np.take_along_axis(axis, abs(axis).argmax(1)[:, None], 1)
        gray = np.einsum('kpc,kc->kp', atoms, axis * np.sign(strongest))
    norm = np.linalg.norm(gray, axis=1)
    gray = gray / np.where(norm > 0, norm, 1)[:, None]
    return gray.reshape(-1, *patch_shape[:2]), norm, energy - norm**2, total


def _fit(images, norm, outside, total):
    k, h, w = images.shape
    empty = np.full(k, np.nan)
    fits = GaborFits(
        center=np.full((k, 2), np.nan),
        orientation=empty,
        frequency=empty.copy(),
        phase=empty.copy(),
        stds=np.full((k, 2), np.nan),
        amplitude=empty.copy(),
        r2=np.zeros(k),
        good=np.zeros(k, bool),
    )
    nonzero = np.flatnonzero(total > 0)
    if len(nonzero) == 0:
        return fits
    y = images[nonzero]
    starts = _starts(y)  # [a, n_starts, 6]
    n_starts = starts.shape[1]
    flat = y.reshape(len(y), h * w)
    p, cost = _minimize(starts.reshape(-1, 6), np.repeat(flat, n_starts, 0), (h, w), 8)
    best = cost.reshape(-1, n_starts).argsort(1)[:, :3]  # many iterations for the three best only
    p = np.take_along_axis(p.reshape(-1, n_starts, 6), best[:, :, None], 1)
    p, cost = _minimize(p.reshape(-1, 6), np.repeat(flat, 3, 0), (h, w), 80)
    best = np.arange(len(y)) * 3 + cost.reshape(-1, 3).argmin(1)
    p, cost = p[best], cost[best]
    residual, linear, _ = _project(p, flat, (h, w), jacobian=False)
    fitted = flat - residual

    half_turns = np.floor(p[:, 2] / np.pi)
    orientation = p[:, 2] - np.pi * half_turns
    half_turns += orientation >= np.pi  # -1e-17 rounds up to pi itself
    orientation[orientation >= np.pi] = 0.0
    frequency, cycles = np.exp(p[:, 3]), np.exp(p[:, 4])
    sine = np.where(half_turns % 2 == 0, linear[:, 1], -linear[:, 1])  # an odd one reverses u
    phase = np.arctan2(-sine, linear[:, 0])
    r2 = 1 - (cost * norm[nonzero] ** 2 + outside[nonzero]) / total[nonzero]

    fits.center[nonzero] = p[:, :2]
    fits.orientation[nonzero] = orientation
    fits.frequency[nonzero] = frequency
    fits.phase[nonzero] = np.where(phase <= -np.pi, np.pi, phase)
    fits.stds[nonzero] = np.stack([cycles / frequency, np.exp(p[:, 5])], 1)
    fits.amplitude[nonzero] = np.hypot(*linear.T) * norm[nonzero]
    fits.r2[nonzero] = r2
    fits.good[nonzero] = (r2 > 0.8) & _tuned(fitted, (h, w), orientation, frequency, phase, cycles)
    return fits


def _tuned(fitted, shape, orientation, frequency, phase, cycles):
    """Whether the spectrum at zero is at most half of that at the carrier, in patch and plane."""
    row, column = np.mgrid[: shape[0], : shape[1]].reshape(2, 1, -1)
    along = np.cos(orientation)[:, None] * row + np.sin(orientation)[:, None] * column
    carrier = np.exp(-2j * np.pi * frequency[:, None] * along)
    in_patch = 2 * abs(fitted.sum(1)) <= abs((fitted * carrier).sum(1))
    # In the plane, along u: two Gaussian lobes about +-f, each exp(-c) high at zero.
    c = (2 * np.pi * cycles) ** 2 / 2
    at_zero, at_carrier = 2 * abs(np.cos(phase)) * np.exp(-c), abs(1 + np.exp(-2j * phase - 4 * c))
    return in_patch & (2 * at_zero <= at_carrier)


def _starts(y):
    """Nine starting points per image [a, h, w] -> [a, 9, 6], as _project takes them."""
    a, h, w = y.shape
    size = max(h, w)
    n = 4 * size
    power = abs(np.fft.rfft2(y, (n, n))) ** 2
    f_row, f_column = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    usable = (np.hypot(f_row, f_column) > 0.5 / size) & ((f_column > 0) | (f_row > 0))
    power = np.where(usable, power, -1.0)
    row, column = np.mgrid[:h, :w]
    starts = []
    for _ in range(3):
        peak = np.unravel_index(power.reshape(a, -1).argmax(1), power.shape[1:])
        fr, fc = f_row[peak[0], 0], f_column[0, peak[1]]
        near = np.hypot(f_row - fr[:, None, None], f_column - fc[:, None, None]) < 0.7 / size
        power = np.where(near, -1.0, power)
        f, orientation = np.hypot(fr, fc), np.arctan2(fc, fr)
        wave = np.exp(-2j * np.pi * (fr[:, None, None] * row + fc[:, None, None] * column)) * y
        for width in (size / 12, size / 6, size / 3):
            real, imaginary = (
                ndimage.gaussian_filter(part, (0, width, width), mode='constant')
                for part in (wave.real, wave.imag)
            )
            power_at = real**2 + imaginary**2
            r, c = np.unravel_index(power_at.reshape(a, -1).argmax(1), (h, w))
            logs = np.log(f), np.log(f * width), np.full(a, np.log(width))
            starts.append(np.stack([r, c, orientation, *logs], 1))
    return np.stack(starts, 1)


def _project(p, y, shape, jacobian=True):
    """Residual of y [s, m] after the best cosine and sine amplitudes, and its Jacobian.

    p [s, 6]: row, column, orientation, log f, log (f s_u), log s_v. Returns residual [s, m],
    amplitudes [s, 2] and the model's Jacobian [s, 6, m] with the span of the two waves projected
    out (Kaufman's approximation: exact at a zero residual); [s, 0, m] without `jacobian`.
    """
    row, column = np.mgrid[: shape[0], : shape[1]].reshape(2, 1, -1)
    r, c, o, log_f, log_n, log_sv = p.T[:, :, None]
    sin, cos, f = np.sin(o), np.cos(o), np.exp(log_f)
    su, sv = np.exp(log_n - log_f), np.exp(log_sv)
    u = (column - c) * sin + (row - r) * cos
    v = (column - c) * cos - (row - r) * sin
    envelope = np.exp(-0.5 * ((u / su) ** 2 + (v / sv) ** 2))
    angle = 2 * np.pi * f * u
    waves = np.stack([envelope * np.cos(angle), envelope * np.sin(angle)], 1)  # [s, 2, m]
    gram = waves @ waves.mT
    ridge = 1e-10 * np.trace(gram, axis1=1, axis2=2) + 1e-30
    gram += ridge[:, None, None] * np.eye(2)
    amplitudes = np.linalg.solve(gram, waves @ y[:, :, None])[:, :, 0]
    fit = (amplitudes[:, None] @ waves)[:, 0]
    if not jacobian:
        return y - fit, amplitudes, np.empty((len(p), 0, y.shape[1]))
    rotated = amplitudes[:, 1:] * waves[:, 0] - amplitudes[:, :1] * waves[:, 1]  # d fit / d angle
    along_u = 2 * np.pi * f * rotated - u / su**2 * fit
    along_v = -v / sv**2 * fit
    wider_u = (u / su) ** 2 * fit
    columns = np.stack(
        [
            sin * along_v - cos * along_u,
            -sin * along_u - cos * along_v,
            v * along_u - u * along_v,
            angle * rotated - wider_u,
            wider_u,
            (v / sv) ** 2 * fit,
        ],
        1,
    )
    columns -= (columns @ waves.mT) @ np.linalg.solve(gram, waves)
    return y - fit, amplitudes, columns


def _box(p, shape):
    """Bounds of p, [s, 6] each: of f by the orientation (Nyquist), of f s_u by f."""
    h, w = shape
    size = max(h, w)
    low, high = np.empty_like(p), np.empty_like(p)
    low[:, :2], high[:, :2] = -0.5, (h - 0.5, w - 0.5)
    low[:, 2], high[:, 2] = -np.inf, np.inf
    faster_axis = np.maximum(abs(np.sin(p[:, 2])), abs(np.cos(p[:, 2])))
    low[:, 3], high[:, 3] = np.log(MIN_CYCLES / size), np.log(0.5 / faster_axis)
    log_f = np.clip(p[:, 3], low[:, 3], high[:, 3])
    low[:, 4] = np.maximum(np.log(MIN_CYCLES), np.log(MIN_STD) + log_f)
    high[:, 4] = np.maximum(np.log(size) + log_f, low[:, 4])
    low[:, 5], high[:, 5] = np.log(MIN_STD), np.log(size)
    return low, high


def _minimize(p, y, shape, n_iterations):
    """Levenberg-Marquardt within the box, every row of p [s, 6] independently. Returns p, cost [s]."""
    p = np.clip(p, *_box(p, shape))
    cost = np.full(len(p), np.inf)
    damping = np.full(len(p), 1e-2)
    active = np.arange(len(p))
    for _ in range(n_iterations):
        residual, _, columns = _project(p[active], y[active], shape)
        cost[active] = (residual**2).sum(1)
        gradient = (columns @ residual[:, :, None])[:, :, 0]
        low, high = _box(p[active], shape)
        pushed = ((p[active] <= low) & (gradient < 0)) | ((p[active] >= high) & (gradient > 0))
        free = (~pushed).astype(float)
        normal = columns @ columns.mT * free[:, :, None] * free[:, None, :]
        scale = np.einsum('sii->si', normal) + 1e-9
        normal += (damping[active][:, None] * scale + pushed)[:, :, None] * np.eye(6)
        change = np.linalg.solve(normal, (gradient * free)[:, :, None])[:, :, 0]
        trial = p[active] + np.clip(change, -1.0, 1.0)  # a pixel, a radian, a factor e at most
        trial = np.clip(trial, *_box(trial, shape))
        new = (_project(trial, y[active], shape, jacobian=False)[0] ** 2).sum(1)
        better = new < cost[active]
        gain = cost[active] - new
        p[active] = np.where(better[:, None], trial, p[active])
        cost[active] = np.where(better, new, cost[active])
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 8.0), 1e-9, 1e9)
        settled = better & (gain <= 1e-7 * new + 1e-13) | (damping[active] > 1e6)
        active = active[~settled]
        if len(active) == 0:
            break
    return p, cost
