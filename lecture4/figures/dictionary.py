"""Figures of dictionaries: atoms, signals as sums of atoms, Gabor fits.

Every atom is scaled by its largest absolute value, symmetrically about zero, so that zero is mid gray and a flat tile
is a dead atom. Atoms are the columns of D [d, k].
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Integer, Real
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from lecture4.figures import style

MINUS = '\N{MINUS SIGN}'


@runtime_checkable
class GaborFits(Protocol):
    """Gabor fits of k atoms, as `features.gabor.fit_gabors` returns them."""

    @property
    def orientation(self) -> Any:
        """Orientation [k] of the bars in radians, counterclockwise."""

    @property
    def frequency(self) -> Any:
        """Cycles per pixel [k]."""

    @property
    def r2(self) -> Any:
        """Coefficient of determination [k]."""

    @property
    def good(self) -> Any:
        """Whether the fit is good [k]."""


def tiles(
    D: Real[np.ndarray | Array, 'd k'],
    patch_shape: Sequence[int],
    scale: Real[np.ndarray | Array, 'k'] | None = None,
) -> Float[np.ndarray, 'k h w 3']:
    """Columns of D as RGB images in [0, 1]: 0 -> 1/2, the largest |value| of each -> 0 or 1.

    Args:
      D: Atoms as columns.
      patch_shape: (h, w) or (h, w, c) with c = 1 or 3.
      scale: Value that replaces the largest |value|; larger values are clipped.

    Raises:
      ValueError: patch_shape does not have d values, or does not have 1 or 3 channels.
    """
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'expected D [d, k] with atoms as columns, got shape {D.shape}')
    shape = tuple(int(n) for n in patch_shape)
    if len(shape) not in (2, 3) or math.prod(shape) != D.shape[0]:
        raise ValueError(
            f'patch_shape {shape} does not hold the {D.shape[0]} rows of D; '
            'give (h, w) or (h, w, c) with that product'
        )
    if shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f'patch_shape {shape} has {shape[2]} channels, expected 1 or 3')
    largest = abs(D).max(0, initial=0.0) if scale is None else np.asarray(scale, float)
    images = 0.5 + 0.5 * np.clip(D / np.where(largest > 0, largest, 1), -1, 1)
    images = images.T.reshape(D.shape[1], shape[0], shape[1], -1)
    return np.broadcast_to(images, (*images.shape[:3], 3))


@style.context()
def atoms(
    D: Real[np.ndarray | Array, 'd k'],
    patch_shape: Sequence[int],
    *,
    order: Integer[np.ndarray | Array, 'm'] | Sequence[int] | None = None,
    columns: int | None = None,
    n: int | None = None,
    title: str = '',
    width: int | float = 7.0,
) -> Figure:
    """The dictionary as in papers: a mosaic of atoms on gray.

    Args:
      D: Atoms as columns.
      patch_shape: (h, w) or (h, w, c).
      order: Indices of the atoms to draw; None draws all in the order of D
        (`features.atoms.display_order` gives a better one).
      columns: Number of atoms per row; None makes the mosaic about square.
      n: Number of atoms; None draws all.
      title: Title.
      width: Approximate width in inches: every pixel of an atom is an integer number of screen pixels wide.

    Raises:
      ValueError: As in `tiles`, or there is no atom to draw.
    """
    images = tiles(D, patch_shape)
    indices = np.arange(len(images)) if order is None else np.asarray(order)
    images = images[indices[:n]]
    if len(images) == 0:
        raise ValueError('no atom to draw: D, order or n is empty')
    h, w = images.shape[1:3]
    if columns is None:
        columns = math.ceil(math.sqrt(len(images) * (h + 1) / (w + 1)))
    return style.mosaic_figure(style.mosaic(images, min(columns, len(images))), title, width)[0]


@style.context()
def codes(
    signals: Real[np.ndarray | Array, 'm d'],
    codes: Real[np.ndarray | Array, 'm k'],
    D: Real[np.ndarray | Array, 'd k'],
    reconstructions: Real[np.ndarray | Array, 'm d'],
    patch_shape: Sequence[int],
    *,
    n: int = 4,
    n_atoms: int = 6,
    title: str = '',
) -> Figure:
    """Signals as sums: x = 0.8 atom + 0.3 atom - ..., and the whole code on the right.

    One row per signal: the signal, its reconstruction with the missing fraction of the energy, the atoms with the
    largest coefficients and these, and all k coefficients as stems, with those atoms in color. Signal and
    reconstruction share one gray scale; each atom has its own.

    Args:
      signals: Signals.
      codes: Codes of the signals.
      D: Atoms as columns.
      reconstructions: Reconstructions of the signals.
      patch_shape: (h, w) or (h, w, c).
      n: Number of signals to draw, the first ones.
      n_atoms: Largest number of atoms to draw for each signal.
      title: Title.

    Raises:
      ValueError: As in `tiles`, or the shapes do not fit together.
    """
    x, a, D = np.asarray(signals, float), np.asarray(codes, float), np.asarray(D, float)
    r = np.asarray(reconstructions, float)
    fitting = x.ndim == a.ndim == D.ndim == 2 and x.shape == r.shape
    if not fitting or x.shape[1] != D.shape[0] or a.shape != (len(x), D.shape[1]):
        raise ValueError(
            f'signals {x.shape}, reconstructions {r.shape}, codes {a.shape} and D {D.shape} do not '
            'fit together; expected [m, d], [m, d], [m, k] and [d, k]'
        )
    x, r, a = x[:n], r[:n], a[:n]
    n = len(x)
    scale = abs(x).max(1, initial=0.0)
    signal_tiles, atom_tiles = tiles(x.T, patch_shape, scale), tiles(D, patch_shape)
    reconstruction_tiles = tiles(r.T, patch_shape, scale)
    h, w = atom_tiles.shape[1:3]

    # Everything is in screen pixels, so that tiles are crisp and their positions do not depend on the text.
    zoom = max(1, round(72 / max(h, w)))
    step, line, head, margin = w * zoom + 30, h * zoom + 52, 52 if title else 30, 14
    n_shown = max(1, min(n_atoms, int((a != 0).sum(1).max(initial=0))))
    stems = margin + step * (2 + n_shown) + 80
    across, down = stems + 300 + margin, head + n * line
    fig = style.figure(across / style.DPI, down / style.DPI)

    def write(left, top, text, **options):
        options = {'fontsize': 8.5, 'ha': 'center', 'va': 'center'} | options
        fig.text(left / across, 1 - top / down, style.plain_text(text), **options)

    def place(column, top, tile, above, *under):
        left = margin + column * step
        style.show_image(fig, tile, left, top, zoom)
        middle = left + w * zoom / 2
        if column:
            write(left - 15, top + h * zoom / 2, above, fontsize=11)
        for i, text in enumerate(under):
            small = {'fontsize': 7, 'color': style.FAINT} if i else {}
            write(middle, top + h * zoom + 9 + 13 * i, text, **small)

    if title:
        write(margin, 14, title, fontsize=10, ha='left')
    headers = (0, 'signal'), (1, 'reconstruction'), (2, 'atoms of the largest coefficients')
    for column, text in headers:
        alignment = {'ha': 'left'} if column == 2 else {'ha': 'center'}
        shift = 0 if column == 2 else w * zoom / 2
        write(margin + column * step + shift, head - 14, text, **alignment)
    write(stems, head - 14, f'code: all {D.shape[1]} coefficients', ha='left')

    for i in range(n):
        top = head + i * line
        missed = ((x[i] - r[i]) ** 2).sum() / max((x[i] ** 2).sum(), 1e-30)
        largest = np.argsort(-abs(a[i]), kind='stable')[:n_atoms]
        largest = largest[a[i][largest] != 0]
        places = _places(abs(a[i]).max(initial=0.0))
        n_used = int(np.count_nonzero(a[i]))
        place(0, top, signal_tiles[i], '')
        place(1, top, reconstruction_tiles[i], '≈', f'misses {missed:.0%}')
        for column, j in enumerate(largest):
            sign = MINUS if a[i, j] < 0 else '+'
            size = f'{abs(a[i, j]):.{places}f}'
            if column == 0:  # after the equals sign, the number has its own
                sign, size = '=', size if a[i, j] > 0 else MINUS + size
            place(2 + column, top, atom_tiles[j], sign, size, f'atom {j}')
        if n_used > len(largest):
            left = margin + (2 + len(largest)) * step - 22
            write(left, top + h * zoom / 2, f'+ {n_used - len(largest)} more', ha='left')
        box = (
            stems / across,
            1 - (top + h * zoom + 14) / down,
            300 / across,
            (h * zoom + 14) / down,
        )
        axes = fig.add_axes(box)
        _stems(axes, a[i], largest)
        axes.set_title(f'{n_used} of {len(a[i])} used', loc='right', fontsize=7.5, pad=2)
        axes.tick_params(labelsize=7, length=2)
    return fig


@style.context()
def gabors(
    D: Real[np.ndarray | Array, 'd k'],
    fits: GaborFits,
    fitted: Real[np.ndarray | Array, 'pixels k'],
    patch_shape: Sequence[int],
    *,
    n: int = 12,
    title: str = '',
) -> Figure:
    """The fitted Gabors in the plane of orientation and frequency, and the best atoms with their fits.

    Each atom is a dot with area proportional to its R^2: filled if the fit is good, otherwise a faint ring.
    Orientation is that of the bars, counterclockwise.

    Args:
      D: Atoms as columns.
      fits: Orientation, frequency, R^2 and whether the fit is good, each [k].
      fitted: Fitted Gabors in gray, [h * w, k].
      patch_shape: (h, w) or (h, w, c).
      n: Largest number of atoms to draw with their fits.
      title: Title; if empty, the number of good fits.

    Raises:
      ValueError: As in `tiles`.
    """
    good, r2 = np.asarray(fits.good, bool), np.nan_to_num(fits.r2)
    best = np.argsort(-np.where(good, r2, -np.inf), kind='stable')[: min(n, int(good.sum()))]
    fig = style.figure(9.4, 4.0)
    axes = cast(PolarAxes, fig.add_axes((0.045, -0.02, 0.45, 0.98), projection='polar'))
    axes.set_thetalim(0, np.pi)
    size = 42 * np.clip(r2, 0, 1)
    angle, radius = np.asarray(fits.orientation, float), np.asarray(fits.frequency, float)
    ring: dict[str, Any] = {'facecolors': 'none', 'edgecolors': '#aaaaaa', 'zorder': 3}
    axes.scatter(angle[~good], radius[~good], s=size[~good], label='others', **ring)
    dot: dict[str, Any] = {'color': style.COLORS[0], 'alpha': 0.65, 'linewidths': 0, 'zorder': 3}
    axes.scatter(angle[good], radius[good], s=size[good], label='good fits', **dot)
    bars = {0: '—', 45: '/', 90: '|', 135: '\\', 180: '—'}
    axes.set_thetagrids(list(bars), [f'{angle}°  {bar}' for angle, bar in bars.items()])
    reach = 0.1 * math.ceil(10 * max(np.nan_to_num(radius).max(initial=0.0), 0.25) + 0.2)
    axes.set_rlim(0, reach)
    axes.set_rticks(np.arange(0.1, reach, 0.1))
    axes.tick_params(labelsize=8)
    fig.text(0.27, 0.11, 'radius: cycles per pixel; area: R²', ha='center', fontsize=8.5)
    handles = axes.get_legend_handles_labels()
    fig.legend(*handles, loc='lower center', bbox_to_anchor=(0.27, 0.01), ncols=2, handletextpad=0)
    title = title or f'{good.sum()} of {len(good)} atoms are fitted well by a Gabor'
    fig.text(0.02, 0.95, style.plain_text(title), fontsize=10)
    if len(best):
        fig.text(0.56, 0.95, 'best fits: atom | Gabor', fontsize=10)
        pairs = np.stack([tiles(D, patch_shape), tiles(fitted, patch_shape[:2])], 1)[best]
        _pairs(fig, pairs, [f'R² {value:.3f}' for value in r2[best]])
    return fig


def _pairs(fig, pairs, captions):
    """Atoms and their fits [n, 2, h, w, 3], three pairs per row, right half of the figure."""
    h, w = pairs.shape[2:4]
    rows = -(-len(pairs) // 3)
    zoom = max(1, min(420 // (3 * (2 * w + 5)), (380 // rows - 22) // (h + 2)))
    for i, pair in enumerate(pairs):
        left = round(0.56 * fig.bbox.width) + i % 3 * (2 * w + 5) * zoom
        top = 52 + i // 3 * ((h + 2) * zoom + 22)
        axes = style.show_image(fig, style.mosaic(pair, 2), left, top, zoom)
        axes.set_title(captions[i], fontsize=7.5, pad=2, loc='center')


def _places(largest: float) -> int:
    """Number of decimal places with which the largest of some numbers has three digits."""
    return 0 if largest <= 0 else int(np.clip(2 - math.floor(math.log10(largest)), 0, 6))


def _stems(axes, code, largest):
    index = np.flatnonzero(code)
    colors = np.where(np.isin(index, largest), style.WARN, style.COLORS[0])
    axes.vlines(index, 0, code[index], colors=colors, linewidth=1.1)
    axes.scatter(index, code[index], s=7, c=colors, zorder=3, linewidths=0)
    axes.axhline(0, color=style.FAINT, linewidth=0.6)
    axes.set_xlim(-1, len(code))
    axes.margins(y=0.12)
    if len(index) == 0:
        axes.set_ylim(-1, 1)
    axes.grid(axis='x', visible=False)
