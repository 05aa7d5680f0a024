"""Recovered images next to one another, and quality against the number of coefficients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Real
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lecture4.figures import style
from lecture4.ops.metrics import psnr
from lecture4.ops.resize import center_crop


@style.context()
def gallery(
    rows: Mapping[str, Sequence[Real[np.ndarray | Array, 'h w *c'] | None]],
    columns: Sequence[str],
    *,
    notes: Mapping[str, Sequence[str | None]] | None = None,
    tile_size: int = 190,
    title: str = '',
) -> Figure:
    """Images in a table: one row for each image, one column for each processing step.

    Args:
      rows: Name -> images, grayscale [h, w] or color [h, w, 3] in [0, 1] (clipped beyond). NaN is a missing pixel,
        drawn in a special color; None leaves its cell empty.
      columns: Headings, one or two words each.
      notes: Name -> texts under the images, such as their PSNR.
      tile_size: Approximate screen pixels of a tile's longer side. A pixel of a smaller image is an integer number of
        screen pixels; of larger images the center is drawn.
      title: Title.

    Raises:
      ValueError: A row does not have one image (and note) for each column, or there is no row.
    """
    notes = notes or {}
    if not rows:
        raise ValueError('no row of images to draw')
    for kind, lists in (('image', rows), ('note', notes)):
        for name, items in lists.items():
            if len(items) != len(columns):
                raise ValueError(
                    f'row {name!r} has {len(items)} {kind}s for {len(columns)} columns; '
                    'give one for each, None where there is none'
                )
    tiles = {
        name: [None if image is None else _tile(image, tile_size) for image in images]
        for name, images in rows.items()
    }
    gap, left, head, foot = 8, 26, 22 + 24 * bool(title), 18 * bool(notes)
    shapes = [
        tuple(max(tile.shape[axis] for tile in row if tile is not None) for axis in (0, 1))
        for row in tiles.values()
    ]
    zooms = [max(tile_size // max(shape), 1) for shape in shapes]
    width = max(shape[1] * zoom for shape, zoom in zip(shapes, zooms, strict=True))
    texts = [*columns, *(note or '' for row in notes.values() for note in row)]
    width = max(width, 7 * max(map(len, texts)))  # so that no text extends into the next column
    across = left + len(columns) * (width + gap)
    down = head + sum(s[0] * zoom + gap + foot for s, zoom in zip(shapes, zooms, strict=True))
    fig = style.figure(across / style.DPI, down / style.DPI)

    def write(x, y, text, **options: Any):
        text = style.plain_text(text)
        fig.text(x / across, 1 - y / down, text, va='center', **options)

    if title:
        write(gap, 12, title, fontsize=10)
    for j, column in enumerate(columns):
        write(left + j * (width + gap), head - 9, column)
    top = head
    for (name, row), shape, zoom in zip(tiles.items(), shapes, zooms, strict=True):
        height = shape[0] * zoom
        write(13, top + height / 2, name, rotation=90, ha='center')
        for j, tile in enumerate(row):
            x = left + j * (width + gap)
            if tile is not None:
                style.show_image(fig, tile, x, top, zoom)
            if name in notes and notes[name][j]:
                write(x, top + height + 9, notes[name][j], fontsize=8)
        top += height + gap + foot
    return fig


def restorations(
    restored: Mapping[str, Sequence[Real[np.ndarray | Array, 'h w']]],
    truth: Sequence[Real[np.ndarray | Array, 'h w']],
    *,
    n: int = 3,
    title: str = '',
) -> Figure:
    """The first images as recovered by each method, and the clean images, with PSNR under each.

    Args:
      restored: Name of a method -> an image for each of `truth`; NaN where a pixel is missing.
      truth: Clean images in [0, 1].
      n: Number of images.
      title: Title.
    """
    rows, notes = {}, {}
    for i, image in enumerate(truth[:n]):
        row = [images[i] for images in restored.values()]
        rows[f'image {i + 1}'] = [*row, image]
        values = [float(psnr(np.clip(np.asarray(other), 0, 1), image)) for other in row]
        notes[f'image {i + 1}'] = [*('' if np.isnan(v) else f'{v:.2f} dB' for v in values), '']
    return gallery(rows, [*restored, 'truth'], notes=notes, title=title)


@style.context()
def rate_distortion(
    curves: Mapping[str, Real[np.ndarray | Array, 'counts *images']],
    n_nonzero: Sequence[int],
    *,
    title: str = '',
    xlabel: str = 'nonzeros per patch',
) -> Figure:
    """PSNR against the number of coefficients.

    Args:
      curves: Name -> PSNR in dB, [counts] or [counts, images]; for several images the mean is drawn.
      n_nonzero: Numbers of coefficients.
      title: Title.
      xlabel: Title of the horizontal axis.

    Raises:
      ValueError: An array has another length, or there is no curve.
    """
    counts = np.asarray(n_nonzero, float)
    curves = {name: np.asarray(values, float) for name, values in curves.items()}
    if not curves:
        raise ValueError('no curve to draw')
    fig = style.figure(5.6, 3.6, layout='constrained')
    axes = fig.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        if values.ndim not in (1, 2) or len(values) != len(counts):
            raise ValueError(
                f'curve {name!r} has shape {values.shape}, expected one row for each of the '
                f'{len(counts)} counts'
            )
        mean = values if values.ndim == 1 else values.mean(1)
        color, marker = style.COLORS[i % 7], style.MARKERS[i % 7]
        axes.plot(counts, mean, color=color, marker=marker, label=style.plain_text(name))
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_locator(FixedLocator(counts.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.set_xlabel(style.plain_text(xlabel))
    axes.set_ylabel('PSNR, dB')
    axes.legend(loc='upper left')
    if title:
        axes.set_title(style.plain_text(title))
    return fig


def _tile(image, tile_size):
    """An image as [h, w, 3] in [0, 1], missing values in the warning color; the center of a large one."""
    image = np.asarray(image, float)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, 2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected an image [h, w] or [h, w, 3], got shape {image.shape}')
    warn = np.array([int(style.WARN[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    image = np.where(np.isnan(image), warn, np.clip(image, 0, 1))
    return center_crop(image, [min(length, tile_size) for length in image.shape[:2]])
