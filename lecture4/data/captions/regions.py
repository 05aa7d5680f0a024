"""Regions of images and fixed descriptors of them, which need neither a detector nor a network.

The descriptor of a region is its histogram of oriented gradients over 4 x 4 cells (Dalal & Triggs 2005, without
blocks) and its mean color in each cell, so that shapes and colors are linearly decodable.
"""

import numpy as np
from jaxtyping import Float, UInt8

CELLS, ORIENTATIONS, CROP = 4, 8, 16
DESCRIPTOR_DIM = CELLS**2 * (ORIENTATIONS + 3)


def grid_boxes(height: int, width: int, grid: int = 3) -> Float[np.ndarray, 'r 4']:
    """The whole image, then grid x grid windows that overlap by half a stride, as [x1, y1, x2, y2]."""
    size = 2 / (grid + 1)
    starts = np.linspace(0, 1 - size, grid)
    windows = [(x, y, x + size, y + size) for y in starts for x in starts]
    boxes = np.array([(0.0, 0.0, 1.0, 1.0), *windows])
    return (boxes * (width, height, width, height)).astype(np.float32)


def crop(
    image: UInt8[np.ndarray, 'h w 3'], boxes: Float[np.ndarray, 'r 4'], size: int = CROP
) -> Float[np.ndarray, 'r size size 3']:
    """Regions resized to squares: bilinear interpolation at twice the size, then means of 2 x 2; values in [0, 1].

    Args:
      image: Pixels of the image.
      boxes: Boxes [x1, y1, x2, y2] in pixels; outside the image its border is repeated.
      size: Size of the crops.
    """
    steps = (np.arange(2 * size) + 0.5) / (2 * size)
    image = image.astype(np.float32) / 255

    def neighbors(low, high, extent):
        at = np.clip(low[:, None] + steps * (high - low)[:, None] - 0.5, 0, extent - 1)
        first = np.minimum(at.astype(int), max(extent - 2, 0))
        return first, np.minimum(first + 1, extent - 1), (at - first).astype(np.float32)

    x0, x1, wx = neighbors(boxes[:, 0], boxes[:, 2], image.shape[1])
    y0, y1, wy = neighbors(boxes[:, 1], boxes[:, 3], image.shape[0])
    wx, wy = wx[:, None, :, None], wy[:, :, None, None]

    def take(y, x):
        return image[y[:, :, None], x[:, None, :]]

    top = take(y0, x0) * (1 - wx) + take(y0, x1) * wx
    bottom = take(y1, x0) * (1 - wx) + take(y1, x1) * wx
    fine = top * (1 - wy) + bottom * wy
    return fine.reshape(len(boxes), size, 2, size, 2, 3).mean((2, 4))


def describe(
    image: UInt8[np.ndarray, 'h w 3'], boxes: Float[np.ndarray, 'r 4']
) -> Float[np.ndarray, 'r 176']:
    """Descriptors of regions: oriented gradients, normalized for each region, then colors.

    Args:
      image: Pixels of the image.
      boxes: Boxes [x1, y1, x2, y2] in pixels.
    """
    crops = crop(image, boxes)
    gray = crops.mean(3)
    dy, dx = np.gradient(gray, axis=(1, 2))
    magnitude = np.hypot(dx, dy)
    position = (np.arctan2(dy, dx) % np.pi) / np.pi * ORIENTATIONS
    low = np.floor(position).astype(int) % ORIENTATIONS
    weight = position - np.floor(position)
    histogram = np.zeros((*gray.shape, ORIENTATIONS), np.float32)
    for bin_, value in ((low, 1 - weight), ((low + 1) % ORIENTATIONS, weight)):
        np.put_along_axis(histogram, bin_[..., None], (value * magnitude)[..., None], axis=3)

    def cells(maps):
        size = CROP // CELLS
        return maps.reshape(len(crops), CELLS, size, CELLS, size, -1).mean((2, 4))

    gradients = np.sqrt(cells(histogram)).reshape(len(crops), -1)
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True) + 1e-3
    colors = cells(crops).reshape(len(crops), -1) - 0.5
    return np.concatenate([2 * gradients, colors], axis=1).astype(np.float32)
