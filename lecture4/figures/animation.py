"""Figures of one size as an animated GIF."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def save(
    figures: Sequence[Figure],
    path: str | os.PathLike[str],
    *,
    milliseconds: int = 250,
    dpi: int | float | None = None,
) -> None:
    """Write an animation that loops; its last frame is shown four times as long.

    Args:
      figures: Figures in the order of time.
      path: File to write.
      milliseconds: Duration of each frame.
      dpi: Pixels per inch; None takes that of the figures.

    Raises:
      ValueError: There is no figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if not figures:
        raise ValueError('expected at least one figure to animate, got none')
    frames = []
    for figure in figures:
        if dpi is not None:
            figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
        image = Image.fromarray(pixels[..., :3].copy())
        # An octree palette preserves colors of few pixels, such as those of small text.
        frames.append(image.quantize(method=Image.Quantize.FASTOCTREE))
    durations = [milliseconds] * (len(frames) - 1) + [4 * milliseconds]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )
