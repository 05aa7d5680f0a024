"""Gabor functions fitted to atoms: position, orientation, frequency, phase and size of each.

Host side, numpy and scipy, float64 inside whatever comes in: nothing here is jitted or
differentiated. Atoms are the columns of D [d, k]; an atom becomes a picture by patch_shape.

The Gabor of this file, with orientation o, at pixel (row, column):

    u = (column - c) sin o + (row - r) cos o        across the bars
    v = (column - c) cos o - (row - r) sin o        along the bars
    g = amplitude * exp(-u^2 / 2 s_u^2 - v^2 / 2 s_v^2) * cos(2 pi f u + phase)

so orientation is that of the BARS, counter-clockwise as seen on the screen: a vertical grating
has orientation pi/2, a horizontal one 0, bars like a slash (/) pi/4.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Cycles of the carrier inside one standard deviation of the envelope where the half-amplitude
# bandwidth becomes infinite: sqrt(ln 2 / 2) / pi. Below it amplitude and frequency of an edge are
# not identified (sin(2 pi f u) tends to a straight line), so fits stay above.
LEAST_CYCLES = 0.1874
LEAST_WIDTH = 0.35  # pixels; narrower envelopes see one pixel and fit anything


class GaborFits(NamedTuple):
    """One Gabor for each of k atoms; see the head of this file for the formula.

    Atoms that are constant (dead ones are zero) have r2 = 0 and NaN everywhere else.
    """

    centre: np.ndarray  # [k, 2] row and column, pixels; 0 is the middle of the first pixel
    orientation: np.ndarray  # [k] of the bars, radians in [0, pi); vertical bars: pi/2
    frequency: np.ndarray  # [k] cycles per pixel
    phase: np.ndarray  # [k] radians in (-pi, pi]; 0 is even, +-pi/2 odd about the centre
    widths: np.ndarray  # [k, 2] standard deviations across and along the bars, pixels
    amplitude: np.ndarray  # [k] in the atom's unit, >= 0
    r2: np.ndarray  # [k] 1 - |atom - fit|^2 / |atom - its mean|^2; may be negative
    good: np.ndarray  # [k] bool; criterion: see fit_gabors


def fit_gabor(atom):
    """The Gabor nearest to one atom [h, w]: GaborFits with scalars (and pairs) for entries."""
    atom = np.asarray(atom, float)
    if atom.ndim != 2:
        raise ValueError(f'fit_gabor takes one atom [h, w]; got shape {atom.shape}')
    fits = fit_gabors(atom.reshape(-1, 1), atom.shape)
    return GaborFits(*(field[0] for field in fits))


def fit_gabors(D, patch_shape):
    """Least-squares Gabor fit of every atom.

    Nine starts per atom (the spectrum's three highest peaks, three envelope sizes, each centred
    where a matched filter answers most), then Levenberg-Marquardt with the two linear amplitudes
    (of cosine and sine) projected out; all atoms and starts advance together. The search is
    confined: centre inside the patch (to the outer edge of its pixels); frequency along rows and
    along columns at most 1/2 (Nyquist); widths between 0.35 pixels and the patch's longer side; at
    least 0.187 cycles of the carrier in a standard deviation (a finite half-amplitude bandwidth).
    Atoms with colour are reduced to their first principal component over channels; r2 still counts
    the whole atom.

    `good` is: r2 > 0.8, and the fit is tuned: its spectrum at frequency zero is at most half of
    that at the carrier, both in the patch and in the whole plane. This refuses blobs, strokes of
    one sign and single pixels, whose orientation means nothing, and keeps edges. Eight parameters
    also fit noise where pixels are few: of 1000 white noise atoms 60 of 4 x 4 pixels, 1 of
    5 x 5 and none of 6 x 6 to 8 x 8 were good.

    Shapes  D [d, k] with d = prod(patch_shape); patch_shape (h, w) or (h, w, c), h, w >= 4.
            Returns GaborFits of float64 arrays [k] ([k, 2] for centre and widths).
    Errors  ValueError where d does not fit patch_shape, a patch is under 4 x 4 pixels, or an atom
            is not finite.
    Source  Golub & Pereyra 1973 (variable projection), Kaufman 1975 (its Jacobian).
    """
    D = _matrix(D)
    patch_shape = tuple(int(side) for side in patch_shape)
    if len(patch_shape) not in (2, 3) or np.prod(patch_shape) != D.shape[0]:
        raise ValueError(
            f'patch_shape {patch_shape} does not hold the {D.shape[0]} rows of D; '
            'give (h, w) or (h, w, c) with that product'
        )
    if min(patch_shape[:2]) < 4:
        raise ValueError(f'a Gabor needs patches of 4 x 4 pixels or more; got {patch_shape}')
    if not np.isfinite(D).all():
        raise ValueError(f'atom {np.flatnonzero(~np.isfinite(D).all(0))[0]} is not finite')
    parts = [
        _fit(*_grey(D[:, i : i + 256], patch_shape)) for i in range(0, max(D.shape[1], 1), 256)
    ]
    return GaborFits(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def draw(fits, patch_shape):
    """The fitted Gabors as grey atoms [h * w, k], zero where there was nothing to fit."""
    h, w = patch_shape[:2]
    row, column = np.mgrid[:h, :w].reshape(2, 1, -1)
    y, x = row - fits.centre[:, :1], column - fits.centre[:, 1:]
    sin, cos = np.sin(fits.orientation)[:, None], np.cos(fits.orientation)[:, None]
    u, v = x * sin + y * cos, x * cos - y * sin
    envelope = np.exp(-0.5 * ((u / fits.widths[:, :1]) ** 2 + (v / fits.widths[:, 1:]) ** 2))
    wave = np.cos(2 * np.pi * fits.frequency[:, None] * u + fits.phase[:, None])
    return np.nan_to_num(fits.amplitude[:, None] * envelope * wave).T


def summarise(fits):
    """The fits in six numbers, as a dict of floats; all but the first over the good fits only.

    share_good            of all atoms
    orientation_spread    1 - |mean of exp(2 i o)|: 0 where all bars are parallel, 1 where they
                          cancel, which those of a half horizontal, half vertical dictionary do too
    orientation_entropy   of eight bins centred on 0, 22.5, ... degrees, over log 8: tells those two
                          apart, 1 is uniform; needs a few dozen atoms to mean much
    frequency_q25, frequency_median, frequency_q75     cycles per pixel

    NaN where there is no good fit.
    """
    good = np.asarray(fits.good, bool)
    names = ('orientation_spread', 'orientation_entropy')
    names += ('frequency_q25', 'frequency_median', 'frequency_q75')
    share = float(good.mean()) if good.size else 0.0
    if not good.any():
        return {'share_good': share} | dict.fromkeys(names, float('nan'))
    angle = fits.orientation[good]
    spread = 1 - abs(np.exp(2j * angle).mean())
    bins = np.bincount(np.round(angle * 8 / np.pi).astype(int) % 8, minlength=8) / len(angle)
    entropy = -(bins * np.log(np.maximum(bins, 1e-300))).sum() / np.log(8)
    quartiles = np.quantile(fits.frequency[good], (0.25, 0.5, 0.75))
    values = map(float, (spread, entropy, *quartiles))
    return {'share_good': share} | dict(zip(names, values, strict=True))


def _matrix(D):
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'D holds atoms as columns, [d, k]; got shape {D.shape}')
    return D


def _grey(D, patch_shape):
    """Atoms as unit-norm grey pictures; their norms, what grey leaves out, what r2 divides by."""
    n_channels = patch_shape[2] if len(patch_shape) == 3 else 1
    atoms = D.T.reshape(D.shape[1], patch_shape[0] * patch_shape[1], n_channels)
    energy = (atoms**2).sum((1, 2))
    total = ((atoms - atoms.mean(1, keepdims=True)) ** 2).sum((1, 2))
    total[total <= 1e-12 * energy] = 0  # constant up to rounding
    if n_channels == 1:
        grey = atoms[:, :, 0]
    else:
        axis = np.linalg.svd(atoms, full_matrices=False)[2][:, 0]  # [k, c]
        strongest = np.take_along_axis(axis, abs(axis).argmax(1)[:, None], 1)
        grey = np.einsum('kpc,kc->kp', atoms, axis * np.sign(strongest))
    norm = np.linalg.norm(grey, axis=1)
    grey = grey / np.where(norm > 0, norm, 1)[:, None]
    return grey.reshape(-1, *patch_shape[:2]), norm, energy - norm**2, total


def _fit(pictures, norm, outside, total):
    k, h, w = pictures.shape
    empty = np.full(k, np.nan)
    fits = GaborFits(
        centre=np.full((k, 2), np.nan),
        orientation=empty,
        frequency=empty.copy(),
        phase=empty.copy(),
        widths=np.full((k, 2), np.nan),
        amplitude=empty.copy(),
        r2=np.zeros(k),
        good=np.zeros(k, bool),
    )
    alive = np.flatnonzero(total > 0)
    if len(alive) == 0:
        return fits
    y = pictures[alive]
    starts = _starts(y)  # [a, n_starts, 6]
    n_starts = starts.shape[1]
    flat = y.reshape(len(y), h * w)
    p, cost = _descend(starts.reshape(-1, 6), np.repeat(flat, n_starts, 0), (h, w), 8)
    best = cost.reshape(-1, n_starts).argsort(1)[:, :3]  # long descents for the three best only
    p = np.take_along_axis(p.reshape(-1, n_starts, 6), best[:, :, None], 1)
    p, cost = _descend(p.reshape(-1, 6), np.repeat(flat, 3, 0), (h, w), 80)
    best = np.arange(len(y)) * 3 + cost.reshape(-1, 3).argmin(1)
    p, cost = p[best], cost[best]
    residual, linear, _ = _project(p, flat, (h, w), jacobian=False)
    shown = flat - residual

    turns = np.floor(p[:, 2] / np.pi)
    orientation = p[:, 2] - np.pi * turns
    turns += orientation >= np.pi  # -1e-17 rounds up to pi itself
    orientation[orientation >= np.pi] = 0.0
    frequency, cycles = np.exp(p[:, 3]), np.exp(p[:, 4])
    sine = np.where(turns % 2 == 0, linear[:, 1], -linear[:, 1])  # half a turn reverses u
    phase = np.arctan2(-sine, linear[:, 0])
    r2 = 1 - (cost * norm[alive] ** 2 + outside[alive]) / total[alive]

    fits.centre[alive] = p[:, :2]
    fits.orientation[alive] = orientation
    fits.frequency[alive] = frequency
    fits.phase[alive] = np.where(phase <= -np.pi, np.pi, phase)
    fits.widths[alive] = np.stack([cycles / frequency, np.exp(p[:, 5])], 1)
    fits.amplitude[alive] = np.hypot(*linear.T) * norm[alive]
    fits.r2[alive] = r2
    fits.good[alive] = (r2 > 0.8) & _tuned(shown, (h, w), orientation, frequency, phase, cycles)
    return fits


def _tuned(shown, shape, orientation, frequency, phase, cycles):
    """Whether the spectrum at zero is at most half of that at the carrier, in patch and plane."""
    row, column = np.mgrid[: shape[0], : shape[1]].reshape(2, 1, -1)
    turn = np.cos(orientation)[:, None] * row + np.sin(orientation)[:, None] * column
    carrier = np.exp(-2j * np.pi * frequency[:, None] * turn)
    in_patch = 2 * abs(shown.sum(1)) <= abs((shown * carrier).sum(1))
    # In the plane, along u: two Gaussian lobes about +-f, each exp(-c) high at zero.
    c = (2 * np.pi * cycles) ** 2 / 2
    at_zero, at_carrier = 2 * abs(np.cos(phase)) * np.exp(-c), abs(1 + np.exp(-2j * phase - 4 * c))
    return in_patch & (2 * at_zero <= at_carrier)


def _starts(y):
    """Nine starting points per picture [a, h, w] -> [a, 9, 6], as _project takes them."""
    a, h, w = y.shape
    side = max(h, w)
    n = 4 * side
    power = abs(np.fft.rfft2(y, (n, n))) ** 2
    f_row, f_column = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    usable = (np.hypot(f_row, f_column) > 0.5 / side) & ((f_column > 0) | (f_row > 0))
    power = np.where(usable, power, -1.0)
    row, column = np.mgrid[:h, :w]
    starts = []
    for _ in range(3):
        peak = np.unravel_index(power.reshape(a, -1).argmax(1), power.shape[1:])
        fr, fc = f_row[peak[0], 0], f_column[0, peak[1]]
        near = np.hypot(f_row - fr[:, None, None], f_column - fc[:, None, None]) < 0.7 / side
        power = np.where(near, -1.0, power)
        f, orientation = np.hypot(fr, fc), np.arctan2(fc, fr)
        wave = np.exp(-2j * np.pi * (fr[:, None, None] * row + fc[:, None, None] * column)) * y
        for width in (side / 12, side / 6, side / 3):
            real, imaginary = (
                ndimage.gaussian_filter(part, (0, width, width), mode='constant')
                for part in (wave.real, wave.imag)
            )
            answer = real**2 + imaginary**2
            r, c = np.unravel_index(answer.reshape(a, -1).argmax(1), (h, w))
            logs = np.log(f), np.log(f * width), np.full(a, np.log(width))
            starts.append(np.stack([r, c, orientation, *logs], 1))
    return np.stack(starts, 1)


def _project(p, y, shape, jacobian=True):
    """Residual of y [s, m] after the best cosine and sine amplitudes, and its Jacobian.

    p [s, 6]: row, column, orientation, log f, log (f s_u), log s_v. Returns residual [s, m],
    amplitudes [s, 2] and the model's Jacobian [s, 6, m] with the span of the two waves projected
    out (Kaufman's approximation: exact at a zero residual); [s, 0, m] where not asked for.
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
    turned = amplitudes[:, 1:] * waves[:, 0] - amplitudes[:, :1] * waves[:, 1]  # d fit / d angle
    along_u = 2 * np.pi * f * turned - u / su**2 * fit
    along_v = -v / sv**2 * fit
    wider_u = (u / su) ** 2 * fit
    columns = np.stack(
        [
            sin * along_v - cos * along_u,
            -sin * along_u - cos * along_v,
            v * along_u - u * along_v,
            angle * turned - wider_u,
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
    side = max(h, w)
    low, high = np.empty_like(p), np.empty_like(p)
    low[:, :2], high[:, :2] = -0.5, (h - 0.5, w - 0.5)
    low[:, 2], high[:, 2] = -np.inf, np.inf
    faster_axis = np.maximum(abs(np.sin(p[:, 2])), abs(np.cos(p[:, 2])))
    low[:, 3], high[:, 3] = np.log(LEAST_CYCLES / side), np.log(0.5 / faster_axis)
    log_f = np.clip(p[:, 3], low[:, 3], high[:, 3])
    low[:, 4] = np.maximum(np.log(LEAST_CYCLES), np.log(LEAST_WIDTH) + log_f)
    high[:, 4] = np.maximum(np.log(side) + log_f, low[:, 4])
    low[:, 5], high[:, 5] = np.log(LEAST_WIDTH), np.log(side)
    return low, high


def _descend(p, y, shape, n_iterations):
    """Levenberg-Marquardt within the box, every row of p [s, 6] on its own. Returns p, cost [s]."""
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
