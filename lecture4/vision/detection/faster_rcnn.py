"""Faster R-CNN: a region proposal network on the detector's own feature maps. Ren, He, Girshick & Sun, NIPS 2015.

Batches are those of `fast_rcnn`, without proposals. Training is joint (approximately: no gradient goes through the
coordinates of proposals) or in the four alternating steps of the paper.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn, networks, targets
from lecture4.vision.detection.fast_rcnn import Detections, Features, Metrics
from lecture4.vision.detection.networks import Detector
from lecture4.vision.detection.recipe import Recipe


def proposals_of(
    recipe: Recipe,
    logits: tuple[Float[Array | np.ndarray, '_'], ...],
    deltas: tuple[Float[Array | np.ndarray, '_ 4'], ...],
    anchors: tuple[Float[np.ndarray, '_ 4'], ...],
    size: Int[Array | np.ndarray, '2'],
    train: bool = False,
) -> tuple[Float[Array, 'p 4'], Bool[Array, 'p'], Float[Array, 'p']]:
    """Proposals of one image: decoded, clipped, the best of each level, after non-maximum suppression.

    Boxes suppress only boxes of the same level. In the papers' convention (extent 'inclusive') boxes below the
    minimum size are removed before the best are selected, in torchvision's after that.

    Args:
      recipe: Constants.
      logits: Logits of the anchors of every level.
      deltas: Regression outputs of the anchors.
      anchors: As `Recipe.anchors` returns them.
      size: (height, width) of the image without padding.
      train: Whether the numbers of proposals are those of training.

    Returns:
        (boxes, valid (False for padding), scores in [0, 1]), best first.
    """
    extent = recipe.extent
    boxes, scores, levels = [], [], []
    for i, (own_logits, own_deltas, own_anchors) in enumerate(
        zip(logits, deltas, anchors, strict=True)
    ):
        # In joint training no gradient flows through coordinates.
        decoded = box_ops.decode(
            jax.lax.stop_gradient(own_deltas),
            jnp.asarray(own_anchors),
            extent=extent,
            max_log_scale=recipe.max_log_scale,
        )
        decoded = box_ops.clip(decoded, size, extent)
        large = box_ops.is_at_least(decoded, recipe.min_size, extent)
        score = jax.lax.stop_gradient(own_logits)
        if extent == 'inclusive':
            score = jnp.where(large, score, -jnp.inf)
        k = min(recipe.pre_nms[0 if train else 1], len(score))
        best, order = jax.lax.top_k(score, k)
        boxes.append(decoded[order])
        scores.append(jnp.where(large[order], best, -jnp.inf))
        levels.append(jnp.full(k, i, jnp.int32))
    all_boxes, all_scores = jnp.concatenate(boxes), jnp.concatenate(scores)
    kept = box_ops.nms(
        all_boxes,
        all_scores,
        recipe.proposal_nms,
        valid=all_scores > -jnp.inf,
        labels=jnp.concatenate(levels) if len(levels) > 1 else None,
        max_outputs=recipe.post_nms[0 if train else 1],
        extent=extent,
    )
    proposals = jnp.where(kept.valid[:, None], all_boxes[kept.indices], 0)
    return proposals, kept.valid, jnp.where(kept.valid, jax.nn.sigmoid(kept.scores), 0)


def propose(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    levels: Features,
    train: bool = False,
) -> tuple[tuple[Float[Array, 'n p 4'], Bool[Array, 'n p'], Float[Array, 'n p']], Any]:
    """Proposals of a batch, and the region proposal network's (logits, deltas, anchors)."""
    logits, deltas = network.apply(variables, levels, method='propose')
    shapes = tuple((level.shape[1], level.shape[2]) for level in levels)
    anchors = recipe.anchors(fast_rcnn.image_shape(recipe, batch, levels), shapes)
    make = functools.partial(proposals_of, recipe, anchors=anchors, train=train)
    proposals = jax.vmap(lambda s, d, size: make(s, d, size=size))(logits, deltas, batch['sizes'])
    return proposals, (logits, deltas, anchors)


def rpn_loss(
    recipe: Recipe, outputs: Any, batch: Mapping[str, Any], key: jax.Array
) -> tuple[Float[Array, ''], Metrics]:
    """Cross-entropy of objectness plus the smooth L1 loss of the boxes of positive anchors.

    Both are divided by the number of sampled anchors, as in py-faster-rcnn and torchvision; the paper divides the
    second by the number of positions and multiplies it by 10, which is about the same.

    Args:
      recipe: Constants.
      outputs: (logits, deltas, anchors) of `propose`.
      batch: A batch with 'boxes', 'valid', 'sizes'.
      key: Random key of the sampling.

    Returns:
      The loss, and {'objectness_loss', 'rpn_box_loss'}.

    References:
      Ren et al. 2015, eq. 1.
    """
    logits, deltas, anchors = outputs
    logits, deltas = jnp.concatenate(logits, axis=1), jnp.concatenate(deltas, axis=1)
    low, high = recipe.anchor_iou
    assign = functools.partial(
        targets.anchor_targets,
        anchors=np.concatenate(anchors),
        num_samples=recipe.num_anchors,
        positive_fraction=recipe.anchor_fraction,
        high=high,
        low=low,
        border=recipe.anchor_border,
        extent=recipe.extent,
    )
    keys = jax.random.split(key, len(logits))
    assigned = jax.vmap(
        lambda key, boxes, valid, size: assign(key, boxes=boxes, valid=valid, size=size)
    )(keys, batch['boxes'], fast_rcnn.training_boxes(batch), batch['sizes'])
    labels = assigned.labels
    number = jnp.maximum((labels >= 0).sum().astype(jnp.float32), 1)
    entropy = optax.sigmoid_binary_cross_entropy(logits, (labels > 0).astype(logits.dtype))
    objectness_loss = jnp.where(labels >= 0, entropy, 0).sum() / number
    distance = fast_rcnn.smooth_l1(deltas - assigned.deltas, recipe.anchor_beta).sum(-1)
    box_loss = jnp.where(labels > 0, distance, 0).sum() / number
    return objectness_loss + box_loss, {
        'objectness_loss': objectness_loss,
        'rpn_box_loss': box_loss,
    }


def loss(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    key: jax.Array,
) -> tuple[Float[Array, ''], Metrics]:
    """Approximate joint training: the sum of both networks' losses, and their metrics. Batch norm is frozen."""
    variables = networks.freeze(variables)
    rpn_key, head_key = jax.random.split(key)
    levels = fast_rcnn.feature_maps(network, variables, batch)
    (proposals, valid, _), outputs = propose(network, recipe, variables, batch, levels, train=True)
    first, rpn_metrics = rpn_loss(recipe, outputs, batch, rpn_key)
    second, head_metrics = fast_rcnn.loss_of_rois(
        network, recipe, variables, levels, proposals, valid, batch, head_key
    )
    return first + second, {**rpn_metrics, **head_metrics}


def predict(
    network: Detector, recipe: Recipe, variables: Any, batch: Mapping[str, Any]
) -> Detections:
    """Detections of a batch of {'images' or 'features', 'sizes'}."""
    levels = fast_rcnn.feature_maps(network, variables, batch)
    (proposals, valid, _), _ = propose(network, recipe, variables, batch, levels)
    return fast_rcnn.detect(network, recipe, variables, levels, proposals, valid, batch['sizes'])


def alternating_init(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the four steps: the detector's, and a second backbone for the first step's proposals."""
    backbone = {kind: tree['backbone'] for kind, tree in variables.items() if 'backbone' in tree}
    return {'detector': dict(variables), 'rpn_backbone': backbone}


def alternating_losses(
    network: Detector, recipe: Recipe
) -> tuple[Callable[..., tuple[Float[Array, ''], Metrics]], ...]:
    """The losses of 4-step alternating training, for `train.phases` over `alternating_init`.

    1: the region proposal network with a separate backbone; 2: the detector with another backbone, on these
    proposals; 3: the region proposal network on the fixed backbone of the detector; 4: the detector's head on these
    proposals, with everything else fixed. The result is params['detector'], whose backbone both share.

    Args:
      network: The detector.
      recipe: Constants.

    Returns:
      Four functions (params, batch, key) -> (loss, metrics) with the same metrics.

    References:
      Ren et al. 2015, section 3.2.
    """

    def with_own_backbone(params):
        return {
            kind: {
                **tree,
                **(
                    {'backbone': params['rpn_backbone'][kind]}
                    if kind in params['rpn_backbone']
                    else {}
                ),
            }
            for kind, tree in params['detector'].items()
        }

    def propose_step(variables, batch, key):
        variables = networks.freeze(variables)
        levels = fast_rcnn.feature_maps(network, variables, batch)
        _, outputs = propose(network, recipe, variables, batch, levels, train=True)
        value, metrics = rpn_loss(recipe, outputs, batch, key)
        return value, _all_metrics(metrics)

    def detect_step(variables, proposing, batch, key):
        variables, proposing = networks.freeze(variables), jax.lax.stop_gradient(proposing)
        levels = fast_rcnn.feature_maps(network, proposing, batch)
        (proposals, valid, _), _ = propose(network, recipe, proposing, batch, levels, train=True)
        levels = fast_rcnn.feature_maps(network, variables, batch)
        value, metrics = fast_rcnn.loss_of_rois(
            network, recipe, variables, levels, proposals, valid, batch, key
        )
        return value, _all_metrics(metrics)

    def fixed_backbone(params):
        return networks.freeze(params['detector'], ('backbone',))

    def first(params, batch, key):
        return propose_step(with_own_backbone(params), batch, key)

    def second(params, batch, key):
        return detect_step(params['detector'], with_own_backbone(params), batch, key)

    def third(params, batch, key):
        return propose_step(fixed_backbone(params), batch, key)

    def fourth(params, batch, key):
        return detect_step(fixed_backbone(params), params['detector'], batch, key)

    return first, second, third, fourth


def _all_metrics(metrics: Metrics) -> Metrics:
    names = ('objectness_loss', 'rpn_box_loss', 'class_loss', 'box_loss', 'roi_accuracy')
    return {name: metrics[name] if name in metrics else jnp.float32(0) for name in names}
