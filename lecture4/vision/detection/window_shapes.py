"""Windows of a few learned shapes on a regular grid: proposals that do not depend on the image.

The shapes are centroids of the objects' widths and heights under the distance 1 - IoU of concentric boxes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from lecture4.ops.reduce import Reduce


class Shapes(NamedTuple):
    """Widths and heights of the windows, as fractions of the image: [k, 2]."""

    sides: Float[Array, 'k 2']


def init(key: Array, sides: Float[Array, 'm 2'], num_shapes: int) -> Shapes:
    """Initialize with the shapes of random objects.

    Args:
      key: Random key of the choice.
      sides: (width, height) of objects, as fractions of their image.
      num_shapes: Number of shapes k.
    """
    rows = jax.random.choice(key, len(sides), (num_shapes,), replace=num_shapes > len(sides))
    return Shapes(sides[rows])


def shape_iou(a: Float[Array, 'm 2'], b: Float[Array, 'k 2']) -> Float[Array, 'm k']:
    """IoU of boxes (width, height) that share their center."""
    inside = jnp.prod(jnp.minimum(a[:, None], b[None]), -1)
    union = jnp.prod(a, -1)[:, None] + jnp.prod(b, -1)[None] - inside
    return inside / jnp.maximum(union, jnp.finfo(union.dtype).tiny)


def step(
    shapes: Shapes, sides: Float[Array, 'm 2'], *, reduce: Reduce = Reduce()
) -> tuple[Shapes, dict[str, Array]]:
    """One iteration of Lloyd's algorithm; a shape without objects is unchanged.

    Args:
      shapes: Current shapes.
      sides: (width, height) of all objects.
      reduce: Reduction over devices.

    Returns:
      (new shapes, {'mean_iou': mean IoU of each object with its nearest shape before the step}).

    References:
      Redmon & Farhadi 2017, section 2 (dimension clusters).
    """
    overlaps = shape_iou(sides, shapes.sides)
    nearest = jax.nn.one_hot(overlaps.argmax(1), len(shapes.sides), dtype=sides.dtype)
    counts = reduce.sum(nearest.sum(0))[:, None]
    centroids = reduce.sum(nearest.T @ sides) / jnp.maximum(counts, 1)
    return (
        Shapes(jnp.where(counts > 0, centroids, shapes.sides)),
        {'mean_iou': reduce.mean(overlaps.max(1).mean())},
    )


def windows(
    sides: Float[np.ndarray, 'k 2'], height: int, width: int, number: int, seed: int = 0
) -> Float32[np.ndarray, '{number} 4']:
    """Windows of the shapes at evenly spaced positions, in random order.

    Each shape gets the same number of positions, on a grid that is equally fine in both directions.

    Args:
      sides: Widths and heights of the windows as fractions of the image.
      height: Height of the image in pixels.
      width: Width of the image in pixels.
      number: Number of windows.
      seed: Seed of the order.

    Returns:
      Edges [x1, y1, x2, y2] inside the image.
    """
    per_shape = -(-number // len(sides))
    steps = int(np.ceil(np.sqrt(per_shape)))
    at = (np.arange(steps) + 0.5) / steps
    positions = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    boxes = []
    for side in np.minimum(sides, 1.0):
        low = positions * (1 - side)
        boxes.append(np.concatenate([low, low + side], 1))
    boxes = np.concatenate(boxes) * [width, height, width, height]
    order = np.random.default_rng(seed).permutation(len(boxes))[:number]
    return boxes[order].astype(np.float32)


def random_windows(
    height: int, width: int, number: int, seed: int = 0
) -> Float32[np.ndarray, '{number} 4']:
    """Boxes between two random corners.

    Args:
      height: Height of the image in pixels.
      width: Width of the image in pixels.
      number: Number of boxes.
      seed: Seed of the corners.
    """
    corners = np.sort(np.random.default_rng(seed).uniform(size=(number, 2, 2)), 1)
    return (corners.reshape(-1, 4) * [width, height, width, height]).astype(np.float32)
