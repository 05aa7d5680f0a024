"""The style of all figures: colors, sizes, literal text, and mosaics of tiles with crisp pixels.

Figures are built from objects (Figure and its Agg canvas), never through pyplot, and the settings apply only while a
figure is drawn.
"""

import contextlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from jaxtyping import Array, Float, Real
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

DPI = 110
INK, FAINT, GRID = '#222222', '#777777', '#dddddd'
# Okabe and Ito's colors, distinct to color-blind readers, the strongest contrast first.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
# Ten classes: without black, and with lighter colors that stay distinct from the others.
CLASS_COLORS = (*COLORS[:6], '#7a5195', '#999999', '#8c564b', '#bcbd22')
WARN = COLORS[1]
BACKGROUND = 0.62  # gray between tiles; zero inside a tile is 0.5, so that tiles have edges

_SETTINGS: dict[Any, Any] = {
    'axes.axisbelow': True,
    'axes.edgecolor': FAINT,
    'axes.grid': True,
    'axes.labelcolor': INK,
    'axes.labelsize': 9,
    'axes.prop_cycle': cycler(color=COLORS),
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 9.5,
    'figure.titlesize': 11,
    'font.family': 'sans-serif',
    'font.size': 9,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'image.interpolation': 'nearest',
    'legend.fontsize': 8.5,
    'legend.frameon': False,
    'lines.linewidth': 1.6,
    'lines.markersize': 5,
    'text.color': INK,
    'text.usetex': False,
    'xtick.color': INK,
    'xtick.labelsize': 8.5,
    'ytick.color': INK,
    'ytick.labelsize': 8.5,
}


@contextlib.contextmanager
def context() -> Iterator[None]:
    """The style settings for the duration of a with block, or of a decorated function."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def plain_text(text: object) -> str:
    r"""Text for matplotlib that is drawn literally, never as a formula.

    Every name that comes from data (classes, words, files, settings) passes through here. Two dollar
    signs would otherwise start mathtext, which raises on most names; characters that no font can draw
    (bytes that are not UTF-8, control characters) become visible escapes such as `\xe9`.

    Args:
      text: Name; other objects are converted by `str`.
    """
    return ''.join(map(_visible, str(text))).replace('$', r'\$')


def _visible(character):
    if character.isprintable() or character == '\n':
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (os.fsdecode)
        return f'\\x{code - 0xDC00:02x}'
    return character.encode('unicode_escape').decode()


def scale_axis(axis: Axis, values: Real[np.ndarray, ' n'], scale: str) -> None:
    """A scale that the values need: logarithmic only over more than a factor of 10, with plain tick labels.

    Args:
      axis: An x or y axis.
      values: What is drawn along it, without nan.
      scale: 'linear', or 'log' for positive values.
    """
    if scale != 'log' or not len(values) or values.max() <= 10 * values.min():
        if len(values) and (values == np.round(values)).all():
            axis.set_major_locator(MaxNLocator('auto', integer=True, steps=[1, 2, 5, 10]))
        return
    (axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale)('log')
    if values.min() >= 1e-3 and values.max() <= 1e5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axis.set_minor_formatter(NullFormatter())


class _NotebookFigure(Figure):
    """A Figure that notebooks show as an image without pyplot and its magic commands."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format='png', metadata={'Software': None})
        return stream.getvalue()


def figure(width: int | float, height: int | float, **options: Any) -> Figure:
    """An empty Figure with a canvas, which a notebook shows where it is the value of a cell.

    Args:
      width: Width in inches.
      height: Height in inches.
      **options: Options of matplotlib's Figure.
    """
    # Slightly larger, since Agg truncates a canvas of 626.9999 pixels to 626.
    size = ((width * DPI + 0.01) / DPI, (height * DPI + 0.01) / DPI)
    fig = _NotebookFigure(size, dpi=DPI, facecolor='white', **options)
    FigureCanvasAgg(fig)
    return fig


def mosaic(
    tiles: Float[np.ndarray, 'n h w 3'], columns: int
) -> Float[np.ndarray, 'height width 3']:
    """Tiles in rows of `columns`, with one pixel of background around each, as one image.

    Args:
      tiles: At least one tile, values in [0, 1].
      columns: Number of tiles per row.

    Returns:
      Image of height rows (h + 1) + 1 and width columns (w + 1) + 1.
    """
    n, h, w = tiles.shape[:3]
    rows = -(-n // columns)
    image = np.full((rows * (h + 1) + 1, columns * (w + 1) + 1, 3), BACKGROUND)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (h + 1) + 1, i % columns * (w + 1) + 1
        image[top : top + h, left : left + w] = tile
    return image


def mosaic_figure(
    image: Float[np.ndarray, 'h w 3'],
    title: str = '',
    width: int | float = 7.0,
    left: int = 8,
    top: int | None = None,
) -> tuple[Figure, int]:
    """A figure of one image under a title.

    Few tiles are not enlarged to the whole width: the zoom is at most 12 screen pixels for a pixel.

    Args:
      image: The mosaic.
      title: Title.
      width: Approximate width in inches: every pixel is an integer number of screen pixels wide.
      left: Screen pixels on the left of the image.
      top: Screen pixels above the image; None leaves room for the title.

    Returns:
      (figure, screen pixels for each pixel of the image).
    """
    margin, title_height = 8, 30 if title else 8
    top = title_height if top is None else top
    zoom = int(np.clip((width * DPI + margin - left) // image.shape[1], 1, 12))
    across = max(image.shape[1] * zoom + left + margin, 8 * len(title) + 2 * margin)
    down = image.shape[0] * zoom + top + margin
    fig = figure(across / DPI, down / DPI)
    show_image(fig, image, left, top, zoom)
    if title:
        y = 1 - title_height / 2 / down
        fig.text(margin / across, y, plain_text(title), va='center', fontsize=10)
    return fig, zoom


def show_image(
    fig: Figure,
    image: Float[np.ndarray | Array, 'h w 3'],
    left: int | float,
    top: int | float,
    zoom: int,
) -> Axes:
    """Axes without frame that show an image.

    Args:
      fig: The figure.
      image: Values in [0, 1].
      left: Screen pixels from the figure's left edge.
      top: Screen pixels from its upper edge. With integers every pixel of the image has the same size at the figure's
        dpi.
      zoom: Screen pixels for each pixel of the image.
    """
    across, down = fig.bbox.width, fig.bbox.height
    h, w = image.shape[:2]
    box = (left / across, 1 - (top + h * zoom) / down, w * zoom / across, h * zoom / down)
    axes = fig.add_axes(box)
    axes.imshow(image, vmin=0, vmax=1, interpolation='nearest', aspect='auto')
    axes.axis('off')
    return axes


def wrapped(title: object, inches: int | float) -> str:
    """A title in lines that fit a width, as plain text."""
    width = max(int(inches / 0.088), 8)  # mean width of a letter of a title
    return '\n'.join(textwrap.wrap(plain_text(title), width))


def legend_outside(fig: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend above the panels of a figure in constrained layout, which grows by the height of the legend.

    Args:
      fig: The figure.
      handles: One artist per entry.
      labels: Texts of the entries.
    """
    width, height = fig.get_size_inches()
    column = 0.55 + 0.075 * max(map(len, labels))  # inches: a line and the letters
    columns = min(max(int(width / column), 1), len(labels))
    fig.set_size_inches(width, height + 0.2 * -(-len(labels) // columns))
    texts = [plain_text(label) for label in labels]
    fig.legend(handles, texts, loc='outside upper left', ncols=columns, columnspacing=1.2)
