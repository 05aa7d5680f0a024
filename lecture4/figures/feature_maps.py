"""Filters of a convolutional layer, and feature maps of images."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Real, Shaped
from matplotlib.figure import Figure

from lecture4.figures import style
from lecture4.figures.dictionary import tiles
from lecture4.figures.images import as_tiles

MARGIN, TITLE_HEIGHT = 8, 30  # screen pixels


@style.context()
def filters(
    kernel: Real[np.ndarray | Array, 'h w c o'],
    *,
    n: int = 64,
    columns: int | None = None,
    title: str = '',
    width: int | float = 7.0,
) -> Figure:
    """The filters of a layer as tiles: zero is mid gray, the largest |weight| of each is black or white.

    Filters with 1 or 3 channels are one tile each. Others are a row of tiles each, one per channel, on one scale per
    filter; the first `n` // channels filters are drawn.

    Args:
      kernel: Filters.
      n: Number of tiles.
      columns: Number of tiles per row.
      title: Title.
      width: Approximate width in inches.

    Raises:
        ValueError: The kernel has another shape.
    """
    kernel = np.asarray(kernel, float)
    if kernel.ndim != 4 or not kernel.size:
        raise ValueError(f'expected a kernel [h, w, c, o], got shape {kernel.shape}')
    h, w, c, o = kernel.shape
    if c in (1, 3):
        images = tiles(kernel.reshape(-1, o), (h, w, c))[:n]
        per_row = columns or min(len(images), 16)
    else:
        scale = np.repeat(abs(kernel).max((0, 1, 2)), c)
        by_filter = kernel.transpose(0, 1, 3, 2).reshape(h * w, o * c)
        images = tiles(by_filter, (h, w), scale)[: max(n // c, 1) * c]
        per_row = c
    return style.mosaic_figure(style.mosaic(images, per_row), title, width)[0]


@style.context()
def activations(
    images: Shaped[np.ndarray | Array, 'm h w *c'],
    layers: Mapping[str, Real[np.ndarray | Array, 'm _ _ _']],
    *,
    n: int = 12,
    width: int | float = 9.0,
) -> Figure:
    """Images, each with the feature maps of a network's layers.

    One row per image: the image, then for each layer its first `n` feature maps, with one scale per map over all
    drawn images: black is its smallest value, white its largest; a constant map is black.

    Args:
      images: Images [m, h, w] or [m, h, w, 1 or 3] in [0, 1].
      layers: Name -> activations [m, h', w', c].
      n: Number of feature maps of each layer.
      width: Width in inches.

    Raises:
      ValueError: A layer is not [m, h', w', c] for the m images.
    """
    inputs = as_tiles(images)
    first = style.mosaic(inputs, 1)
    mosaics = {}
    for name, values in layers.items():
        values = np.asarray(values, float)
        if values.ndim != 4 or len(values) != len(inputs):
            raise ValueError(
                f'{name}: expected activations [{len(inputs)}, h, w, c], got shape {values.shape}'
            )
        values = np.moveaxis(values[..., :n], -1, 1)  # [m, c, h, w]
        low = values.min((0, 2, 3), keepdims=True)
        span = values.max((0, 2, 3), keepdims=True) - low
        unit = ((values - low) / np.where(span > 0, span, 1)).reshape(-1, *values.shape[2:])
        mosaics[name] = style.mosaic(as_tiles(unit), values.shape[1])
    zoom = max(1, 90 // inputs.shape[2])
    left = 2 * MARGIN + first.shape[1] * zoom
    pixels = round(width * style.DPI)
    zooms = {
        name: max(1, (pixels - left - MARGIN) // mosaic.shape[1])
        for name, mosaic in mosaics.items()
    }
    below = sum(mosaic.shape[0] * zooms[name] + TITLE_HEIGHT for name, mosaic in mosaics.items())
    down = max(below, first.shape[0] * zoom + TITLE_HEIGHT) + MARGIN
    fig = style.figure(pixels / style.DPI, down / style.DPI)

    def place(mosaic, left, top, zoom, text):
        style.show_image(fig, mosaic, left, top + TITLE_HEIGHT, zoom)
        y = 1 - (top + TITLE_HEIGHT - 5) / down
        fig.text(left / pixels, y, style.plain_text(text), fontsize=9, va='bottom')

    place(first, MARGIN, 0, zoom, 'input')
    top = 0
    for name, mosaic in mosaics.items():
        place(mosaic, left, top, zooms[name], name)
        top += mosaic.shape[0] * zooms[name] + TITLE_HEIGHT
    return fig
