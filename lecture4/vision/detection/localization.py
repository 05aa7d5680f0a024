"""Localization of a single object: its class, and its box by regression per class. Simonyan & Zisserman, ICLR 2015.

The detector's head is applied to one region, the whole image. Batches are those of `fast_rcnn`; the first box of each
image is the object.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn
from lecture4.vision.detection.fast_rcnn import Metrics
from lecture4.vision.detection.networks import Detector
from lecture4.vision.detection.recipe import Recipe
from lecture4.vision.detection.targets import RoITargets


class Localized(NamedTuple):
    """One object per image.

    Attributes:
      boxes: Boxes by the regression of the predicted class, [n, 4].
      labels: Predicted class, 1 .. K, [n].
      boxes_of_true_class: Boxes by the regression of a given class, [n, 4].
      scores: Probability of the predicted class among the classes without the background, [n].
    """

    boxes: Float[Array, 'n 4']
    labels: Int[Array, 'n']
    boxes_of_true_class: Float[Array, 'n 4']
    scores: Float[Array, 'n']


def whole_images(sizes: Int[Array | np.ndarray, 'n 2']) -> Float[Array, 'n 1 4']:
    """The box of each image without its padding, [0, 0, width, height]."""
    h, w = sizes[:, 0].astype(jnp.float32), sizes[:, 1].astype(jnp.float32)
    return jnp.stack([0 * w, 0 * h, w, h], axis=-1)[:, None]


def loss(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    key: jax.Array,
) -> tuple[Float[Array, ''], Metrics]:
    """Cross-entropy of the class plus smooth L1 of the true class's box: `fast_rcnn.head_loss`.

    Images without an object do not count.
    """
    levels = fast_rcnn.feature_maps(network, variables, batch)
    rois = whole_images(batch['sizes'])
    pooled = fast_rcnn.pool_rois(recipe, levels, rois)
    outputs: Any = network.apply(variables, pooled, True, method='classify', rngs={'dropout': key})
    deltas = box_ops.encode(batch['boxes'][:, 0], rois[:, 0], recipe.std, recipe.extent)
    has_object = batch['valid'][:, 0]
    labels = jnp.where(has_object, batch['labels'][:, 0], -1)
    assigned = RoITargets(rois[:, 0], labels, jnp.where(has_object[:, None], deltas, 0))
    logits, predicted = outputs
    return fast_rcnn.head_loss(logits, predicted, assigned, recipe.roi_beta)


def predict(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    labels: Int[Array | np.ndarray, 'n'] | None = None,
) -> Localized:
    """Class and box of the object in each image.

    Args:
      network: The detector.
      recipe: Constants.
      variables: Variables of the network.
      batch: A batch with 'images' or 'features', and 'sizes'.
      labels: Classes of `boxes_of_true_class`; None takes the predicted ones.
    """
    levels = fast_rcnn.feature_maps(network, variables, batch)
    rois = whole_images(batch['sizes'])
    logits, deltas = fast_rcnn.classify(
        network, variables, fast_rcnn.pool_rois(recipe, levels, rois)
    )
    predicted = (1 + jnp.argmax(logits[:, 1:], axis=1)).astype(jnp.int32)

    def boxes_of(classes):
        class_deltas = jnp.take_along_axis(deltas, classes[:, None, None], axis=1)[:, 0]
        return box_ops.decode(
            class_deltas, rois[:, 0], recipe.std, recipe.extent, recipe.max_log_scale
        )

    given = predicted if labels is None else labels
    scores = jax.nn.softmax(logits[:, 1:].astype(jnp.float32)).max(1)
    return Localized(boxes_of(predicted), predicted, boxes_of(given), scores)


def is_localized(
    boxes: Float[Array | np.ndarray, 'n 4'],
    truth: Float[Array | np.ndarray, 'n 4'],
    iou_threshold: float = 0.5,
) -> Bool[Array, 'n']:
    """Whether the IoU of each box with its object exceeds the threshold."""
    overlaps = jax.vmap(lambda a, b: box_ops.iou(a[None], b[None])[0, 0])(boxes, truth)
    return overlaps > iou_threshold
