"""The look of every figure: colours, sizes, and a mosaic of tiles with crisp pixels.

Figures are built from objects (Figure and its Agg canvas), never through pyplot, and the house's
settings hold only while a figure is being made.
"""

import contextlib
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
INK, FAINT, GRID = '#222222', '#777777', '#dddddd'
# Okabe and Ito's colours, told apart by colour-blind readers; the strongest contrast first.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
WARN = COLOURS[1]
BACKGROUND = 0.62  # grey between tiles; zero inside a tile is 0.5, so that tiles have edges

_SETTINGS: dict[Any, Any] = {
    'axes.axisbelow': True,
    'axes.edgecolor': FAINT,
    'axes.grid': True,
    'axes.labelcolor': INK,
    'axes.labelsize': 9,
    'axes.prop_cycle': cycler(color=COLOURS),
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
def house():
    """The house's settings for the length of a with block, or of a function it decorates."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def figure(width, height, **options):
    """An empty Figure of that many inches that can be saved at once."""
    # A hair more than asked: Agg cuts a canvas of 626.9999 pixels down to 626.
    size = ((width * DPI + 0.01) / DPI, (height * DPI + 0.01) / DPI)
    made = Figure(size, dpi=DPI, facecolor='white', **options)
    FigureCanvasAgg(made)
    return made


def mosaic(tiles, columns):
    """Tiles in rows of `columns`, one pixel of background round each, as one picture.

    Shapes  tiles [n, h, w, 3] in [0, 1], n >= 1.
            Returns [rows (h + 1) + 1, columns (w + 1) + 1, 3].
    """
    n, h, w = tiles.shape[:3]
    rows = -(-n // columns)
    picture = np.full((rows * (h + 1) + 1, columns * (w + 1) + 1, 3), BACKGROUND)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (h + 1) + 1, i % columns * (w + 1) + 1
        picture[top : top + h, left : left + w] = tile
    return picture


def show(made, picture, left, top, zoom):
    """Axes without frame that show `picture` [h, w, 3], `zoom` screen pixels for each of its own.

    left, top: screen pixels from the figure's upper left corner. Whole numbers keep every pixel of
    the picture the same size at the figure's own dpi.
    """
    across, down = made.bbox.width, made.bbox.height
    h, w = picture.shape[:2]
    box = (left / across, 1 - (top + h * zoom) / down, w * zoom / across, h * zoom / down)
    axes = made.add_axes(box)
    axes.imshow(picture, vmin=0, vmax=1, interpolation='nearest', aspect='auto')
    axes.axis('off')
    return axes
