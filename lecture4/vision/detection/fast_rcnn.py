"""Fast R-CNN: one pass over the image, RoI pooling, a classifier and a regressor per RoI. Girshick, ICCV 2015.

A batch is {'images' [n, h, w, 3] (normalized, padded) or 'features' (their feature maps, cached), 'sizes' [n, 2]
(height and width without padding), 'boxes' [n, g, 4], 'labels' [n, g] (1 .. K), 'valid' [n, g], 'proposals' [n, p,
4], 'proposals_valid' [n, p]}.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from lecture4.ops import boxes as box_ops
from lecture4.ops import roi
from lecture4.vision.detection import targets, truncated_svd
from lecture4.vision.detection.networks import Detector, freeze
from lecture4.vision.detection.recipe import Recipe
from lecture4.vision.detection.targets import RoITargets

Metrics = dict[str, Float[Array, '']]
Features = tuple[Float[Array | np.ndarray, 'n ...'], ...]


class Detections(NamedTuple):
    """Detections of a batch, best first, padded.

    Attributes:
      boxes: [n, d, 4].
      scores: [n, d].
      labels: 1 .. K, [n, d].
      valid: False for padding, [n, d].
    """

    boxes: Float[Array, 'n d 4']
    scores: Float[Array, 'n d']
    labels: Int[Array, 'n d']
    valid: Bool[Array, 'n d']


def feature_maps(network: Detector, variables: Any, batch: Mapping[str, Any]) -> Features:
    """The cached feature maps of a batch, or those computed from its images."""
    if 'features' in batch:
        cached = batch['features']
        levels = cached if isinstance(cached, tuple | list) else (cached,)
        return tuple(level.astype(jnp.float32) for level in levels)
    levels: Any = network.apply(variables, batch['images'], method='features')
    return levels


def init(network: Detector, key: jax.Array, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Initial variables, without those of the backbone if the batch has cached feature maps."""
    if 'features' in batch:
        return dict(network.init(key, feature_maps(network, {}, batch), method='from_features'))
    return dict(network.init(key, batch['images']))


def maps_by_frozen(
    network: Detector, weights: Mapping[str, Any], images: Float[Array | np.ndarray, 'n h w 3']
) -> Float[Array, 'n h2 w2 c']:
    """Feature maps of normalized images by convolutions that are not part of the state.

    Args:
      network: A network with one feature map.
      weights: Variables of the network, as `weights.convolutions.load` returns them.
      images: Normalized images.
    """
    variables = {kind: {'network': tree} for kind, tree in weights.items()}
    levels: Any = network.backbone.apply(variables, images)
    return levels[0]


def with_frozen_features(
    network: Detector, weights: Mapping[str, Any] | None, batch: Mapping[str, Any]
) -> dict[str, Any]:
    """The batch with feature maps by frozen convolutions in place of normalized images.

    Args:
      network: A network with one feature map.
      weights: As in `maps_by_frozen`; None for a backbone that is part of the state, which leaves the batch unchanged.
      batch: A batch with 'images', or one that has 'features' already.
    """
    batch = dict(batch)
    if weights is not None and 'images' in batch:
        batch['features'] = maps_by_frozen(network, weights, batch.pop('images'))
    return batch


def image_shape(recipe: Recipe, batch: Mapping[str, Any], levels: Features) -> tuple[int, int]:
    """(height, width) of the padded images; for cached feature maps, computed from the recipe's strides.

    Raises:
      ValueError: There are no images, and the recipe has no strides.
    """
    if 'images' in batch:
        return batch['images'].shape[1], batch['images'].shape[2]
    if recipe.strides is None:
        raise ValueError('cached feature maps need the strides of the recipe; it has None')
    return levels[0].shape[1] * recipe.strides[0], levels[0].shape[2] * recipe.strides[0]


def pool_rois(
    recipe: Recipe, levels: Features, rois: Float[Array | np.ndarray, 'n r 4']
) -> Float[Array, 'm ph pw c']:
    """Pooled features of the RoIs of a batch, m = n * r, image by image."""
    size = recipe.pool_size
    if len(recipe.pool_scales) > 1:
        pool = functools.partial(
            roi.multi_scale_roi_align,
            spatial_scales=recipe.pool_scales,
            output_size=size,
            sampling_ratio=recipe.sampling_ratio,
        )
        pooled = jax.vmap(pool)(levels[: len(recipe.pool_scales)], rois)
    else:
        scale = next(iter(recipe.pool_scales))
        if recipe.pooling == 'roi_pool':
            pool = functools.partial(roi.roi_pool, output_size=size, spatial_scale=scale)
        else:
            pool = functools.partial(
                roi.roi_align,
                output_size=size,
                spatial_scale=scale,
                sampling_ratio=recipe.sampling_ratio,
            )
        pooled = jax.vmap(pool)(levels[0], rois)
    return pooled.reshape(-1, *pooled.shape[2:])


def head_loss(
    logits: Float[Array | np.ndarray, 'm k'],
    deltas: Float[Array | np.ndarray, 'm k 4'],
    sampled: RoITargets,
    beta: float = 1.0,
) -> tuple[Float[Array, ''], Metrics]:
    """Cross-entropy of the classes plus the smooth L1 loss of the true class's box.

    Both are means over the sampled RoIs; the box loss is a sum over the four targets, 0 for background.

    Args:
      logits: Logits of background and classes.
      deltas: Regression outputs of every class.
      sampled: Labels and targets of the same m RoIs, [m] and [m, 4]; labels of -1 do not count.
      beta: Threshold at which the smooth L1 loss becomes linear.

    Returns:
      The loss, and {'class_loss', 'box_loss', 'roi_accuracy'}.

    References:
      Girshick 2015, eq. 1 to 3.
    """
    labels = sampled.labels.reshape(-1)
    targets_ = sampled.deltas.reshape(-1, 4)
    classes = jnp.maximum(labels, 0)
    number = jnp.maximum((labels >= 0).sum().astype(jnp.float32), 1)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    class_loss = jnp.where(labels >= 0, entropy, 0).sum() / number
    predicted = jnp.take_along_axis(deltas, classes[:, None, None], axis=1)[:, 0]
    distance = smooth_l1(predicted - targets_, beta).sum(-1)
    box_loss = jnp.where(labels > 0, distance, 0).sum() / number
    correct = (jnp.argmax(logits, axis=-1) == labels).sum().astype(jnp.float32) / number
    metrics = {'class_loss': class_loss, 'box_loss': box_loss, 'roi_accuracy': correct}
    return class_loss + box_loss, metrics


def smooth_l1(x: Float[Array | np.ndarray, '*shape'], beta: float) -> Float[Array, '*shape']:
    """x^2 / (2 beta) where |x| < beta, |x| - beta / 2 elsewhere; the papers' code has sigma = beta^(-1/2)."""
    size = jnp.abs(x)
    return jnp.where(size < beta, 0.5 * x**2 / beta, size - 0.5 * beta)


def sample_rois(
    recipe: Recipe,
    key: jax.Array,
    proposals: Float[Array | np.ndarray, 'n p 4'],
    proposals_valid: Bool[Array | np.ndarray, 'n p'],
    batch: Mapping[str, Any],
) -> RoITargets:
    """`targets.roi_targets` of every image of a batch, each with a different random key, without difficult boxes."""
    sample = functools.partial(
        targets.roi_targets,
        num_samples=recipe.num_rois,
        positive_fraction=recipe.roi_fraction,
        positive_iou=recipe.positive_iou,
        negative_iou=recipe.negative_iou,
        std=recipe.std,
        extent=recipe.extent,
    )
    keys = jax.random.split(key, len(proposals))
    return jax.vmap(sample)(
        keys, proposals, proposals_valid, batch['boxes'], batch['labels'], training_boxes(batch)
    )


def training_boxes(batch: Mapping[str, Any]) -> Bool[Array, 'n g']:
    """Mask of the boxes to train on: valid, not difficult, finite, with x2 > x1 and y2 > y1."""
    boxes = batch['boxes']
    is_box = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    valid = batch['valid'] & is_box & jnp.all(jnp.isfinite(boxes), axis=-1)
    return valid & ~batch['difficult'] if 'difficult' in batch else valid


def loss(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    key: jax.Array,
) -> tuple[Float[Array, ''], Metrics]:
    """Fast R-CNN's multi-task loss on a batch with proposals, and its metrics. Batch norm is frozen."""
    variables = freeze(variables)
    levels = feature_maps(network, variables, batch)
    proposals = batch['proposals'], batch['proposals_valid']
    return loss_of_rois(network, recipe, variables, levels, *proposals, batch, key)


def loss_of_rois(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    levels: Features,
    proposals: Float[Array | np.ndarray, 'n p 4'],
    proposals_valid: Bool[Array | np.ndarray, 'n p'],
    batch: Mapping[str, Any],
    key: jax.Array,
) -> tuple[Float[Array, ''], Metrics]:
    """`head_loss` of RoIs sampled from proposals; no gradient to the proposals' coordinates."""
    sampling, dropout = jax.random.split(key)
    sampled = sample_rois(recipe, sampling, proposals, proposals_valid, batch)
    pooled = pool_rois(recipe, levels, sampled.rois)
    outputs: Any = network.apply(
        variables, pooled, True, method='classify', rngs={'dropout': dropout}
    )
    logits, deltas = outputs
    return head_loss(logits, deltas, sampled, recipe.roi_beta)


def predict(
    network: Detector, recipe: Recipe, variables: Any, batch: Mapping[str, Any]
) -> Detections:
    """Detections of a batch with proposals."""
    levels = feature_maps(network, variables, batch)
    proposals = batch['proposals'], batch['proposals_valid']
    return detect(network, recipe, variables, levels, *proposals, batch['sizes'])


def classify(
    network: Detector, variables: Any, pooled: Float[Array | np.ndarray, 'm ph pw c']
) -> tuple[Float[Array, 'm k'], Float[Array, 'm k 4']]:
    """The head's (logits, deltas) in testing; the dense layers may be decomposed by `truncated_svd.decompose`."""
    head = variables['params']['head']
    dense = head.get('layers', {})
    if not any('kernel1' in layer for layer in dense.values()):
        outputs: Any = network.apply(variables, pooled, method='classify')
        return outputs
    x = truncated_svd.apply(dense, pooled, sorted(dense))
    scores, deltas = (
        x @ head[name]['kernel'] + head[name]['bias'][None, :] for name in ('scores', 'deltas')
    )
    return scores, deltas.reshape(len(x), -1, 4)


def detect(
    network: Detector,
    recipe: Recipe,
    variables: Any,
    levels: Features,
    proposals: Float[Array | np.ndarray, 'n p 4'],
    proposals_valid: Bool[Array | np.ndarray, 'n p'],
    sizes: Int[Array | np.ndarray, 'n 2'],
) -> Detections:
    """Classes and refined boxes of proposals, after class-wise suppression."""
    n, p = proposals.shape[:2]
    pooled = pool_rois(recipe, levels, proposals)
    logits, deltas = classify(network, variables, pooled)
    k = logits.shape[-1]
    return jax.vmap(functools.partial(detections_of, recipe))(
        logits.reshape(n, p, k), deltas.reshape(n, p, k, 4), proposals, proposals_valid, sizes
    )


def detections_of(
    recipe: Recipe,
    logits: Float[Array | np.ndarray, 'p k'],
    deltas: Float[Array | np.ndarray, 'p k 4'],
    proposals: Float[Array | np.ndarray, 'p 4'],
    proposals_valid: Bool[Array | np.ndarray, 'p'],
    size: Int[Array | np.ndarray, '2'],
) -> Detections:
    """Detections of one image from its head's outputs.

    Every proposal has a box and a score in each class; those above min_score go through non-maximum suppression
    within their class, and the best of all classes are returned.

    Args:
      recipe: Constants of the detector.
      logits: Logits of background and classes.
      deltas: Box deltas for background and classes.
      proposals: Proposals.
      proposals_valid: Mask of the proposals, False for padding.
      size: (height, width) of the image.

    Returns:
      Detections without the batch's axis.
    """
    p, k = logits.shape
    anchors = jnp.broadcast_to(proposals[:, None], (p, k, 4))
    boxes = box_ops.decode(deltas, anchors, recipe.std, recipe.extent, recipe.max_log_scale)
    boxes = box_ops.clip(boxes, size, recipe.extent)[:, 1:]
    return best_of_classes(
        boxes,
        jax.nn.softmax(logits, axis=-1)[:, 1:],
        proposals_valid[:, None] & box_ops.is_at_least(boxes, 1e-2, recipe.extent),
        min_score=recipe.min_score,
        threshold=recipe.detection_nms,
        max_detections=recipe.max_detections,
        max_candidates=recipe.max_candidates,
        extent=recipe.extent,
    )


def best_of_classes(
    boxes: Float[Array | np.ndarray, 'p k 4'],
    scores: Float[Array | np.ndarray, 'p k'],
    valid: Bool[Array | np.ndarray, 'p k'],
    *,
    min_score: float,
    threshold: float,
    max_detections: int,
    max_candidates: int,
    extent: box_ops.Extent,
) -> Detections:
    """Detections of one image from a box and a score of every proposal in every class, by class-wise suppression.

    Args:
      boxes: Boxes of classes 1 .. k.
      scores: Scores of classes 1 .. k; only those above min_score count.
      valid: Mask of the proposals that count.
      min_score: See above.
      threshold: IoU above which a detection suppresses another of its class.
      max_detections: Number of detections, the best of all classes.
      max_candidates: Number of boxes that enter the suppression, the best of all classes.
      extent: See `ops.boxes`.

    Returns:
      Detections without the batch's axis.
    """
    p, k = scores.shape
    flat = boxes.reshape(-1, 4)
    labels = jnp.broadcast_to(jnp.arange(1, k + 1, dtype=jnp.int32), (p, k)).reshape(-1)
    ranked = jnp.where(valid & (scores > min_score), scores, -jnp.inf).reshape(-1)
    best, order = jax.lax.top_k(ranked, min(max_candidates, len(ranked)))
    kept = box_ops.nms(
        flat[order],
        best,
        threshold,
        valid=best > -jnp.inf,
        labels=labels[order],
        max_outputs=max_detections,
        extent=extent,
    )
    at = order[kept.indices]
    chosen = jnp.where(kept.valid[:, None], flat[at], 0)
    return Detections(chosen, kept.scores, jnp.where(kept.valid, labels[at], 0), kept.valid)
