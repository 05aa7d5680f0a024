"""Features of a network: top activations with their projections; occlusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Array, Float, Real, Shaped
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lecture4.figures import style
from lecture4.figures.images import as_tiles, rows

MARGIN, TITLE_HEIGHT = 8, 22  # screen pixels


def signed_images(pixels: Real[np.ndarray | Array, 'n h w c']) -> Float[np.ndarray, 'n h w c']:
    """Projections as images in [0, 1]: zero is mid gray, the largest |value| of each is black or white.

    Args:
      pixels: Projections, c = 1 or 3.
    """
    pixels = np.asarray(pixels, float)
    largest = np.abs(pixels).max((1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * pixels / np.where(largest > 0, largest, 1)


@style.context()
def top_activations(
    features: Mapping[
        str, tuple[Shaped[np.ndarray | Array, 'k h w c'], Shaped[np.ndarray | Array, 'k h w c']]
    ],
    *,
    columns: int = 2,
    width: int | float = 9.0,
) -> Figure:
    """Features in a grid: a square of top patches for each, and to its right their projections.

    Args:
      features: Title -> (patches in [0, 1], projections), all of one shape.
      columns: Number of features per row.
      width: Approximate width in inches.

    Raises:
      ValueError: There is no feature.
    """
    if not features:
        raise ValueError('no feature to draw')
    pairs = [[as_tiles(seen), as_tiles(signed_images(p))] for seen, p in features.values()]
    k = len(pairs[0][0])
    per_row = int(np.ceil(np.sqrt(k)))
    squares = [[style.mosaic(tiles, per_row) for tiles in pair] for pair in pairs]
    h, w = squares[0][0].shape[:2]
    columns = min(columns, len(features))
    pixels = round(width * style.DPI)
    zoom = max(1, min(8, int((pixels - (2 * columns + 1) * MARGIN) / columns / (2 * w))))
    if (
        2 * columns * w * zoom > pixels
    ):  # large patches are subsampled to every second, third, ... pixel
        thin = -(-2 * columns * w // pixels)
        squares = [[square[::thin, ::thin] for square in pair] for pair in squares]
        h, w = squares[0][0].shape[:2]
    n_rows = -(-len(features) // columns)
    step = 2 * w * zoom + 4 + 2 * MARGIN
    across, down = columns * step + MARGIN, n_rows * (h * zoom + TITLE_HEIGHT + MARGIN) + MARGIN
    fig = style.figure(across / style.DPI, down / style.DPI)
    for i, (title, pair) in enumerate(zip(features, squares, strict=True)):
        left = MARGIN + i % columns * step
        top = i // columns * (h * zoom + TITLE_HEIGHT + MARGIN) + TITLE_HEIGHT
        for j, square in enumerate(pair):
            style.show_image(fig, square, left + j * (w * zoom + 4), top, zoom)
        text = style.plain_text(title)
        fig.text(left / across, 1 - (top - 5) / down, text, fontsize=9, va='bottom')
    return fig


@style.context()
def occlusion(
    images: Shaped[np.ndarray | Array, 'n h w *c'],
    maps: Mapping[
        str, Real[np.ndarray | Array, 'n _ _'] | Sequence[Real[np.ndarray | Array, '_ _']]
    ],
    *,
    titles: Sequence[str] = (),
    class_names: Sequence[str] = (),
    width: int | float = 8.4,
) -> Figure:
    """One row per image: the image, and maps over the position of the occluder.

    Args:
      images: Images in [0, 1].
      maps: Title -> maps [n, rows, columns]; each floating-point map gets a color bar, integer maps (classes) get a
        legend.
      titles: A short text for each image.
      class_names: Names of the classes in integer maps; their numbers if empty.
      width: Width in inches.
    """
    tiles = as_tiles(images)
    n, columns = len(tiles), 1 + len(maps)
    fig = style.figure(width, n * width / columns * 0.86 + 0.2, layout='constrained')
    grid = fig.subplots(n, columns, squeeze=False)
    for i, row in enumerate(grid):
        row[0].imshow(tiles[i])
        row[0].set_title(style.plain_text(titles[i] if len(titles) else 'image'))
        for axes, (title, values) in zip(row[1:], maps.items(), strict=True):
            values = np.asarray(values[i])
            if np.issubdtype(values.dtype, np.integer):
                _class_map(axes, values, class_names)
            else:
                shown = axes.imshow(values, cmap='viridis')
                fig.colorbar(shown, ax=axes, shrink=0.8)
            axes.set_title(style.plain_text(title))
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
    return fig


def occlusion_maps(
    images: Shaped[np.ndarray | Array, 'n h w *c'],
    results: Sequence[Any],
    *,
    titles: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> Figure:
    """`occlusion` of the class probability, the strongest feature map and the prediction.

    Args:
      images: Images in [0, 1].
      results: Results for each image, with the fields of `vision.deconvnet.Occlusion`.
      titles: A short text for each image.
      class_names: Names of the predicted classes.
    """
    maps = {
        'class probability': [result.probability for result in results],
        'strongest feature map': [result.response for result in results],
        'prediction': [result.predicted for result in results],
    }
    return occlusion(images, maps, titles=titles, class_names=class_names)


def _class_map(axes, values, class_names):
    """An image with a color for each class, and a legend of the most frequent ones below it."""
    colors = matplotlib.colormaps['tab20']
    axes.imshow(colors(values % 20))
    present, counts = np.unique(values, return_counts=True)
    frequent = present[np.argsort(-counts, kind='stable')][:4]
    handles = [Patch(color=colors(int(c) % 20)) for c in frequent]
    labels = [style.plain_text(class_names[c] if len(class_names) else c) for c in frequent]
    axes.legend(
        handles, labels, loc='upper left', bbox_to_anchor=(0, -0.02), fontsize=7, handlelength=1
    )


@style.context()
def backward_rules(
    images: Shaped[np.ndarray | Array, 'n h w c'],
    projections: Mapping[str, Real[np.ndarray | Array, 'n h w c']],
) -> Figure:
    """A row of images, and below a row of projections for each backward rule; zero is mid gray.

    Args:
      images: Images in [0, 1].
      projections: Name of a rule -> projections of a unit of each image.
    """
    signed = {name: signed_images(pixels) for name, pixels in projections.items()}
    return rows({'image': images, **signed})


@style.context()
def filters_before_and_after(
    before: Real[np.ndarray | Array, 'h w c o'], after: Real[np.ndarray | Array, 'h w c o']
) -> Figure:
    """The first 16 filters of a layer before and after training, each on its own scale; zero is mid gray.

    Args:
      before: Kernel before training, with c = 1 or 3.
      after: Kernel after training.
    """
    first = {'before': before, 'after': after}
    first = {name: np.moveaxis(np.asarray(k), -1, 0)[:16] for name, k in first.items()}
    return rows({name: signed_images(filters) for name, filters in first.items()})
