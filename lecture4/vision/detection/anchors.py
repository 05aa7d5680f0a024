"""Anchors: boxes of several sizes and aspect ratios, centered on every cell of a feature map."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def paper_anchors(
    base_size: int = 16,
    ratios: Sequence[float | int] = (0.5, 1, 2),
    scales: Sequence[float | int] = (8, 16, 32),
) -> Float[np.ndarray, 'a 4']:
    """Faster R-CNN's anchors about the first cell, inclusive: the default equals the original table digit by digit.

    Coordinates count from 0. The published table (first row -83, -39, 100, 56) is MATLAB's, which counts from 1;
    py-faster-rcnn's code gives -84, -40, 99, 55.

    From the window (0, 0, base_size - 1, base_size - 1): for each ratio h / w its sides are rounded to integers,
    half to even, and then multiplied by each scale.

    Args:
      base_size: Stride of the feature map.
      ratios: Ratios of height to width.
      scales: Multiples of the base window.

    Returns:
      Boxes, ratio by ratio; sizes are 128, 256 and 512 pixels at the default scales.

    References:
      Ren et al. 2015, section 3.1, and generate_anchors.py of py-faster-rcnn.
    """
    center = 0.5 * (base_size - 1)
    anchors = []
    for ratio in ratios:
        w = np.round(np.sqrt(base_size**2 / ratio))
        h = np.round(w * ratio)
        for scale in scales:
            half_w, half_h = 0.5 * (w * scale - 1), 0.5 * (h * scale - 1)
            anchors.append((center - half_w, center - half_h, center + half_w, center + half_h))
    return np.array(anchors, np.float32)


def centered_anchors(
    sizes: Sequence[float | int],
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
    is_rounded: bool = True,
) -> Float[np.ndarray, 'a 4']:
    """Anchors about the origin, continuous: torchvision's, ratio by ratio.

    Args:
      sizes: Square roots of the areas, in pixels.
      ratios: Ratios of height to width.
      is_rounded: Whether to round coordinates to integers, half to even, as torchvision does.
    """
    h_ratios = np.sqrt(np.asarray(ratios, np.float32))
    w = (1 / h_ratios)[:, None] * np.asarray(sizes, np.float32)
    h = h_ratios[:, None] * np.asarray(sizes, np.float32)
    anchors = np.stack([-w, -h, w, h], axis=-1).reshape(-1, 4) / 2
    return np.round(anchors) if is_rounded else anchors


def grid(
    base: Float[np.ndarray, 'a 4'],
    shape: tuple[int, int],
    stride: int | tuple[int, int],
) -> Float[np.ndarray, 'n 4']:
    """The base anchors shifted to every cell of a feature map: n = h * w * a, cells in row-major order.

    Args:
      base: Anchors about the first cell.
      shape: (h, w) of the feature map.
      stride: Pixels per cell, or (along y, along x).
    """
    stride_y, stride_x = (stride, stride) if isinstance(stride, int) else stride
    y, x = np.meshgrid(
        np.arange(shape[0]) * stride_y, np.arange(shape[1]) * stride_x, indexing='ij'
    )
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4).astype(np.float32)
    return (shifts + base[None]).reshape(-1, 4)
