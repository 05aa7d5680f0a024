"""Pictures of dictionaries: atoms, what codes are made of, Gabor fits.

Every atom is scaled by its own largest absolute value, symmetrically about zero, so zero is mid
grey and a flat tile is a dead atom. Atoms are the columns of D [d, k], as everywhere.
"""

import math
from typing import Any, cast

import numpy as np
from matplotlib.projections.polar import PolarAxes

from lecture4.figures import style

MINUS = '\N{MINUS SIGN}'


def tiles(D, patch_shape, scale=None):
    """Columns of D as pictures in [0, 1]: 0 -> 1/2, each one's largest |value| -> 0 or 1.

    Shapes  D [d, k]; patch_shape (h, w) or (h, w, c), c = 1 or 3; scale [k] replaces the largest
            |value| (larger values are cut off). Returns [k, h, w, 3].
    Errors  ValueError where patch_shape does not hold d values, or has other than 1 or 3 channels.
    """
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'D holds atoms as columns, [d, k]; got shape {D.shape}')
    shape = tuple(int(side) for side in patch_shape)
    if len(shape) not in (2, 3) or math.prod(shape) != D.shape[0]:
        raise ValueError(
            f'patch_shape {shape} does not hold the {D.shape[0]} rows of D; '
            'give (h, w) or (h, w, c) with that product'
        )
    if shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f'patch_shape {shape} has {shape[2]} channels; a picture needs 1 or 3')
    scale = abs(D).max(0, initial=0.0) if scale is None else np.asarray(scale, float)
    pictures = 0.5 + 0.5 * np.clip(D / np.where(scale > 0, scale, 1), -1, 1)
    pictures = pictures.T.reshape(D.shape[1], shape[0], shape[1], -1)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


@style.house()
def atoms(D, patch_shape, *, order=None, columns=None, n=None, title='', width=7.0):
    """The dictionary as the papers draw it: a mosaic of atoms on grey.

    Shapes  D [d, k]; patch_shape (h, w) or (h, w, c); order [m] indices of atoms (all, as stored,
            where None: sparse.atoms.display_order gives a better one); n draws the first n of them.
    Units   width in inches, about: every pixel of an atom is a whole number of pixels wide.
    Errors  ValueError as tiles, and where there is no atom to draw.
    Returns a matplotlib Figure; columns is chosen for a square where None.
    """
    pictures = tiles(D, patch_shape)
    order = np.arange(len(pictures)) if order is None else np.asarray(order)
    pictures = pictures[order[:n]]
    if len(pictures) == 0:
        raise ValueError('no atom to draw: D, order or n is empty')
    h, w = pictures.shape[1:3]
    if columns is None:
        columns = math.ceil(math.sqrt(len(pictures) * (h + 1) / (w + 1)))
    columns = min(columns, len(pictures))
    picture = style.mosaic(pictures, columns)
    # Few atoms are not blown up to the whole width: 12 screen pixels for one of theirs is plenty.
    zoom = int(np.clip(width * style.DPI // picture.shape[1], 1, 12))
    margin, head = 8, 30 if title else 8
    across = max(picture.shape[1] * zoom, 8 * len(title)) + 2 * margin
    down = picture.shape[0] * zoom + head + margin
    made = style.figure(across / style.DPI, down / style.DPI)
    style.show(made, picture, margin, head, zoom)
    if title:
        made.text(margin / across, 1 - head / 2 / down, title, va='center', fontsize=10)
    return made


@style.house()
def codes(signals, codes, D, reconstructions, patch_shape, *, n=4, n_atoms=6, title=''):
    """Signals as sums: x = 0.8 atom + 0.3 atom - ..., and the whole code beside.

    One row per signal: the signal, its reconstruction with the share of energy it misses, the atoms
    that contribute most with the size of their coefficients, and all k coefficients as stems, those
    atoms' in colour. Signal and reconstruction share one grey scale; atoms have their own.

    Shapes  signals, reconstructions [m, d]; codes [m, k]; D [d, k]; the first n of m are drawn.
    Errors  ValueError as tiles, and where the shapes do not belong together.
    """
    x, a, D = np.asarray(signals, float), np.asarray(codes, float), np.asarray(D, float)
    r = np.asarray(reconstructions, float)
    fitting = x.ndim == a.ndim == D.ndim == 2 and x.shape == r.shape
    if not fitting or x.shape[1] != D.shape[0] or a.shape != (len(x), D.shape[1]):
        raise ValueError(
            f'signals {x.shape}, reconstructions {r.shape}, codes {a.shape} and D {D.shape} do not '
            'belong together; they are [m, d], [m, d], [m, k] and [d, k]'
        )
    x, r, a = x[:n], r[:n], a[:n]
    n = len(x)
    scale = abs(x).max(1, initial=0.0)
    signal_tiles, atom_tiles = tiles(x.T, patch_shape, scale), tiles(D, patch_shape)
    reconstruction_tiles = tiles(r.T, patch_shape, scale)
    h, w = atom_tiles.shape[1:3]

    # All in screen pixels, so that tiles stay crisp and nothing moves with the text.
    zoom = max(1, round(72 / max(h, w)))
    step, line, head, margin = w * zoom + 30, h * zoom + 52, 52 if title else 30, 14
    stems = margin + step * (2 + n_atoms) + 80
    across, down = stems + 300 + margin, head + n * line
    made = style.figure(across / style.DPI, down / style.DPI)

    def write(left, top, text, **options):
        options = {'fontsize': 8.5, 'ha': 'center', 'va': 'center'} | options
        made.text(left / across, 1 - top / down, text, **options)

    def place(column, top, tile, above, *under):
        left = margin + column * step
        style.show(made, tile, left, top, zoom)
        middle = left + w * zoom / 2
        if column:
            write(left - 15, top + h * zoom / 2, above, fontsize=11)
        for i, text in enumerate(under):
            small = {'fontsize': 7, 'color': style.FAINT} if i else {}
            write(middle, top + h * zoom + 9 + 13 * i, text, **small)

    if title:
        write(margin, 14, title, fontsize=10, ha='left')
    heads = (0, 'signal'), (1, 'reconstruction'), (2, 'largest atoms and their coefficients')
    for column, text in heads:
        middle = {'ha': 'left'} if column == 2 else {'ha': 'center'}
        shift = 0 if column == 2 else w * zoom / 2
        write(margin + column * step + shift, head - 14, text, **middle)
    write(stems, head - 14, f'code: all {D.shape[1]} coefficients', ha='left')

    for i in range(n):
        top = head + i * line
        missed = ((x[i] - r[i]) ** 2).sum() / max((x[i] ** 2).sum(), 1e-30)
        largest = np.argsort(-abs(a[i]) * np.linalg.norm(D, axis=0), kind='stable')[:n_atoms]
        largest = largest[a[i][largest] != 0]
        n_used = int(np.count_nonzero(a[i]))
        place(0, top, signal_tiles[i], '')
        place(1, top, reconstruction_tiles[i], '≈', f'misses {missed:.0%}')
        for column, j in enumerate(largest):
            sign = MINUS if a[i, j] < 0 else '+'
            if column == 0:
                sign = '=' + sign.strip('+')
            place(2 + column, top, atom_tiles[j], sign, f'{abs(a[i, j]):.3g}', f'atom {j}')
        if n_used > len(largest):
            left = margin + (2 + len(largest)) * step - 22
            write(left, top + h * zoom / 2, f'+ {n_used - len(largest)} more', ha='left')
        box = (
            stems / across,
            1 - (top + h * zoom + 14) / down,
            300 / across,
            (h * zoom + 14) / down,
        )
        axes = made.add_axes(box)
        _stems(axes, a[i], largest)
        axes.set_title(f'{n_used} of {len(a[i])} used', loc='right', fontsize=7.5, pad=2)
        axes.tick_params(labelsize=7, length=2)
    return made


@style.house()
def gabors(D, fits, fitted, patch_shape, *, n=12, title=''):
    """Where the fitted Gabors lie: orientation by frequency, and the best atoms beside their fits.

    Each atom is a dot of area proportional to its r2: filled where the fit is good, a faint ring
    elsewhere. Orientation is that of the bars, counter-clockwise.

    Shapes  D [d, k]; fits with fields orientation, frequency, r2, good, each [k] (as
            sparse.atoms.fit_gabors gives); fitted [h * w, k] grey (as sparse.atoms.draw gives).
    Errors  ValueError as tiles.
    """
    good, r2 = np.asarray(fits.good, bool), np.nan_to_num(fits.r2)
    best = np.argsort(-np.where(good, r2, -np.inf), kind='stable')[: min(n, int(good.sum()))]
    made = style.figure(9.4, 4.0)
    axes = cast(PolarAxes, made.add_axes((0.045, -0.02, 0.45, 0.98), projection='polar'))
    axes.set_thetalim(0, np.pi)
    size = 42 * np.clip(r2, 0, 1)
    angle, radius = np.asarray(fits.orientation, float), np.asarray(fits.frequency, float)
    ring: dict[str, Any] = {'facecolors': 'none', 'edgecolors': '#aaaaaa', 'zorder': 3}
    axes.scatter(angle[~good], radius[~good], s=size[~good], label='others', **ring)
    dot: dict[str, Any] = {'color': style.COLOURS[0], 'alpha': 0.65, 'linewidths': 0, 'zorder': 3}
    axes.scatter(angle[good], radius[good], s=size[good], label='good fits', **dot)
    bars = {0: '—', 45: '/', 90: '|', 135: '\\', 180: '—'}
    axes.set_thetagrids(list(bars), [f'{angle}°  {bar}' for angle, bar in bars.items()])
    reach = 0.1 * math.ceil(10 * max(np.nan_to_num(radius).max(initial=0.0), 0.25) + 0.2)
    axes.set_rlim(0, reach)
    axes.set_rticks(np.arange(0.1, reach, 0.1))
    axes.tick_params(labelsize=8)
    made.text(0.27, 0.11, 'radius: cycles per pixel; area: R²', ha='center', fontsize=8.5)
    handles = axes.get_legend_handles_labels()
    made.legend(*handles, loc='lower center', bbox_to_anchor=(0.27, 0.01), ncols=2, handletextpad=0)
    made.text(0.02, 0.95, title or f'{good.sum()} of {len(good)} atoms fit a Gabor', fontsize=10)
    if len(best):
        made.text(0.56, 0.95, 'best fits: atom | Gabor', fontsize=10)
        pairs = np.stack([tiles(D, patch_shape), tiles(fitted, patch_shape[:2])], 1)[best]
        _pairs(made, pairs, [f'R² {value:.3f}' for value in r2[best]])
    return made


def _pairs(made, pairs, captions):
    """Atoms beside their fits [n, 2, h, w, 3], three pairs a row, right half of the figure."""
    h, w = pairs.shape[2:4]
    rows = -(-len(pairs) // 3)
    zoom = max(1, min(420 // (3 * (2 * w + 5)), (380 // rows - 22) // (h + 2)))
    for i, pair in enumerate(pairs):
        left = round(0.56 * made.bbox.width) + i % 3 * (2 * w + 5) * zoom
        top = 52 + i // 3 * ((h + 2) * zoom + 22)
        shown = style.show(made, style.mosaic(pair, 2), left, top, zoom)
        shown.set_title(captions[i], fontsize=7.5, pad=2, loc='center')


def _stems(axes, code, largest):
    index = np.flatnonzero(code)
    colour = np.where(np.isin(index, largest), style.WARN, style.COLOURS[0])
    axes.vlines(index, 0, code[index], colors=colour, linewidth=1.1)
    axes.scatter(index, code[index], s=7, c=colour, zorder=3, linewidths=0)
    axes.axhline(0, color=style.FAINT, linewidth=0.6)
    axes.set_xlim(-1, len(code))
    axes.margins(y=0.12)
    if len(index) == 0:
        axes.set_ylim(-1, 1)
    axes.grid(axis='x', visible=False)
