"""R-CNN: a CNN's features of warped proposals, linear SVMs, box regression. Girshick et al., CVPR 2014.

Training is in the paper's separate stages, on features that are computed once: `warp` proposals and run any network
of this library on them, `fit_svms` with one pass of hard-negative mining, `fit_box_regression` per class, `detect`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from lecture4.classifiers import svm
from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn
from lecture4.vision.detection.fast_rcnn import Detections, Metrics
from lecture4.vision.detection.networks import DenseLayers, SmallNetwork
from lecture4.vision.detection.recipe import Recipe

POSITIVE_WEIGHT = 2.0
BIAS_SCALE = 10.0
HARD, EASY = -1.0001, -1.2  # scores above which a negative is hard, and below which it is dropped
RETRAIN_EVERY = 2000


def warp(
    image: Float[Array | np.ndarray, 'h w c'],
    boxes: Float[Array | np.ndarray, 'p 4'],
    crop_size: int = 227,
    context: int = 16,
) -> Float[Array, 'p {crop_size} {crop_size} c']:
    """Warp boxes with context to squares, whatever their shape; pixels outside the image are 0.

    A box is enlarged about its center so that `context` pixels of the square surround it, rounded to pixels, and
    clipped; bilinear interpolation without antialiasing reads only inside the clipped box. 0 is the mean color, since
    images are already normalized.

    Args:
      image: Normalized image.
      boxes: Boxes in continuous pixel coordinates.
      crop_size: Height and width of the squares: 227 for AlexNet, 224 for VGG.
      context: Width in pixels of the context in the square.

    References:
      rcnn_im_crop.m of the R-CNN code.
    """
    image, boxes = jnp.asarray(image), jnp.asarray(boxes)
    scale = crop_size / (crop_size - 2 * context)
    grid = np.arange(crop_size, dtype=np.float32)

    def axis(low, high, length):
        """Pixels and weights [crop_size, 2] along one axis; weights are 0 outside."""
        center, half = (low + high) / 2, (high - low) / 2 * scale
        start, stop = (
            jnp.round(center - half),
            jnp.maximum(jnp.round(center + half), jnp.round(center - half) + 1),
        )
        first, last = jnp.clip(start, 0, length - 1), jnp.clip(stop, 1, length)
        zoom = crop_size / (stop - start)
        extent = jnp.maximum(jnp.round((last - first) * zoom), 1)
        pad = jnp.minimum(jnp.round((first - start) * zoom), crop_size - extent)
        position = (grid - pad + 0.5) * (last - first) / extent - 0.5 + first
        inside = (grid >= pad) & (grid < pad + extent)
        position = jnp.clip(position, first, last - 1)
        lower = jnp.floor(position)
        fraction = position - lower
        cells = jnp.stack([lower, jnp.minimum(lower + 1, last - 1)], -1).astype(jnp.int32)
        weights = jnp.stack([1 - fraction, fraction], -1)
        return cells, jnp.where(inside[:, None], weights, 0)

    def one(box):
        y, weights_y = axis(box[1], box[3], image.shape[0])
        x, weights_x = axis(box[0], box[2], image.shape[1])
        total = jnp.zeros((crop_size, crop_size, image.shape[-1]), image.dtype)
        for i in range(2):
            for j in range(2):
                weight = weights_y[:, i, None] * weights_x[None, :, j]
                total += image[y[:, i, None], x[None, :, j]] * weight[..., None]
        return total

    return jax.vmap(one)(boxes)


class RegionNetwork(nn.Module):
    """A network for crops: convolutions, dense layers, a classifier.

    Attributes:
      num_outputs: Number of classes plus one for the background.
      hidden_dims: Numbers of units of fc6, fc7, ...
      dropout_rate: Dropout rate after each dense layer.
      network: The convolutions: crops -> (last feature maps, activations).
    """

    num_outputs: int
    hidden_dims: tuple[int, ...] = (256,)
    dropout_rate: float = 0.5
    network: nn.Module = SmallNetwork()

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n k'], dict[str, Float[Array, '...']]]:
        """(logits, activations), with 'pool5' the last feature maps and 'fc' the last dense layer."""
        x, activations = self.network(x)
        activations['pool5'] = x
        layers = DenseLayers(self.hidden_dims, self.dropout_rate, name='layers')
        x = activations['fc'] = layers(x, train)
        return nn.Dense(self.num_outputs, name='scores')(x), activations


def check_activation(network: nn.Module, crop_size: int, name: str) -> None:
    """Raise a ValueError if a network has no activation of this name on crops of this size; traced, not run."""
    crops = jax.ShapeDtypeStruct((1, crop_size, crop_size, 3), jnp.float32)
    (_, activations), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), crops)
    if name not in activations:
        known = ', '.join(sorted(activations))
        raise ValueError(f'unknown activation {name}; expected one of {known}')


def loss(
    network: nn.Module,
    recipe: Recipe,
    variables: Any,
    batch: Mapping[str, Any],
    key: jax.Array,
    *,
    crop_size: int = 227,
    context: int = 16,
) -> tuple[Float[Array, ''], Metrics]:
    """Fine-tuning: cross-entropy over classes and background of warped, randomly mirrored proposals.

    Args:
      network: Any image network with one output for the background, the first, and one per class.
      recipe: Numbers of RoIs, and IoUs: 25 % positive, IoU >= 0.5, background below.
      variables: Variables of the network.
      batch: As in `fast_rcnn`, with 'images' and 'proposals'.
      key: Random key of sampling, mirroring and dropout.
      crop_size: See `warp`.
      context: See `warp`.

    Returns:
      The loss, and {'class_loss', 'roi_accuracy'}.
    """
    sampling, mirroring, dropout = jax.random.split(key, 3)
    proposals = batch['proposals'], batch['proposals_valid']
    sampled = fast_rcnn.sample_rois(recipe, sampling, *proposals, batch)
    crops = jax.vmap(functools.partial(warp, crop_size=crop_size, context=context))(
        batch['images'], sampled.rois
    )
    crops = crops.reshape(-1, *crops.shape[2:])
    labels = sampled.labels.reshape(-1)
    is_mirrored = jax.random.bernoulli(mirroring, 0.5, (len(crops), 1, 1, 1))
    crops = jnp.where(is_mirrored, crops[:, :, ::-1], crops)
    outputs: Any = network.apply(variables, crops, train=True, rngs={'dropout': dropout})
    logits, _ = outputs
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    number = jnp.maximum((labels >= 0).sum().astype(jnp.float32), 1)
    value = jnp.where(labels >= 0, entropy, 0).sum() / number
    correct = (jnp.argmax(logits, axis=-1) == labels).sum().astype(jnp.float32) / number
    return value, {'class_loss': value, 'roi_accuracy': correct}


def region_features(
    network: nn.Module,
    variables: Any,
    image: Float[Array | np.ndarray, 'h w c'],
    boxes: Float[Array | np.ndarray, 'p 4'],
    names: Sequence[str],
    *,
    crop_size: int = 227,
    context: int = 16,
) -> tuple[Float[Array, 'p ...'], ...]:
    """Logits and named activations, flattened, of the warped boxes of one image.

    Args:
      network: Any image network.
      variables: Variables of the network.
      image: Normalized image.
      boxes: Proposals.
      names: Names of activations: ('fc7', 'pool5') in the paper.
      crop_size: See `warp`.
      context: See `warp`.

    Returns:
      (logits, activations [p, d] by name).
    """
    outputs: Any = network.apply(variables, warp(image, boxes, crop_size, context))
    logits, activations = outputs
    return (logits, *(activations[name].reshape(len(boxes), -1) for name in names))


class SVMs(NamedTuple):
    """Linear SVMs, one class against the rest.

    Attributes:
      weights: Weights for unscaled features, [d, k].
      bias: Biases [k].
      num_negatives: Number of hard negatives that each SVM was last trained on, [k].
    """

    weights: Float[np.ndarray, 'd k']
    bias: Float[np.ndarray, 'k']
    num_negatives: Int[np.ndarray, 'k']


def fit_svms(
    features: Sequence[Float[np.ndarray, 'p d']],
    overlaps: Sequence[Float[np.ndarray, 'p k']],
    truth: Float[np.ndarray, 'g d'],
    truth_labels: Int[np.ndarray, 'g'],
    *,
    C: float = 1e-3,
    negative_iou: float = 0.3,
    target_norm: float = 20.0,
) -> SVMs:
    """SVMs with hard-negative mining: one pass over the images, as published.

    Positives of a class are its ground truth boxes only. Negatives are proposals whose IoU with every box of the class
    in the image is below `negative_iou`; others are ignored. Image by image, negatives that score above -1.0001 are
    added to the training set; after every 2000 new ones, and at the end, the SVM is retrained and negatives that
    score below -1.2 are dropped. Features are scaled to a mean norm of 20.

    Args:
      features: Features of the proposals, one array per image.
      overlaps: Largest IoU of each proposal with a box of each class in its image, 0 without one.
      truth: Features of all ground truth boxes.
      truth_labels: Classes of these boxes, 1 .. k.
      C: Weight C of the hinge loss.
      negative_iou: See above.
      target_norm: See above.

    Raises:
      ValueError: The numbers of images differ.

    References:
      Girshick et al. 2014, section 2.3 and appendix B; rcnn_train.m.
    """
    if len(features) != len(overlaps):
        raise ValueError(f'features of {len(features)} images, overlaps of {len(overlaps)}')
    norms = np.concatenate([np.linalg.norm(rows, axis=1) for rows in features])
    scale = target_norm / max(float(norms.mean()), 1e-6)
    num_classes = overlaps[0].shape[1]
    weights = np.zeros((truth.shape[1], num_classes), np.float32)
    bias, counts = np.zeros(num_classes, np.float32), np.zeros(num_classes, np.int64)
    for k in range(num_classes):
        positives = truth[truth_labels == k + 1].astype(np.float32) * scale
        if not len(positives):
            bias[k] = -np.inf  # a class without ground truth is never detected
            continue
        negatives, waiting, num_waiting = np.zeros((0, truth.shape[1]), np.float32), [], 0
        for i, rows in enumerate(features):
            candidates = rows[overlaps[i][:, k] < negative_iou].astype(np.float32) * scale
            hard = candidates[candidates @ weights[:, k] + bias[k] > HARD]
            waiting.append(hard)
            num_waiting += len(hard)
            if num_waiting >= RETRAIN_EVERY or i == len(features) - 1:
                negatives = np.concatenate([negatives, *waiting])
                waiting, num_waiting = [], 0
                weights[:, k], bias[k] = _fit_one(positives, negatives, C)
                counts[k] = len(negatives)
                negatives = negatives[negatives @ weights[:, k] + bias[k] >= EASY]
    return SVMs(weights * scale, bias, counts)


def _fit_one(positives, negatives, C):
    """(weights, bias) of one class; the number of rows is padded to a few values, so that few programs are compiled."""
    n = len(positives) + len(negatives)
    size = max(64, 1 << (n - 1).bit_length())
    features = np.zeros((size, positives.shape[1]), np.float32)
    features[: len(positives)] = positives
    features[len(positives) : n] = negatives
    labels = (np.arange(size) < len(positives)).astype(np.int32)
    sample_weight = np.where(labels, POSITIVE_WEIGHT, 1.0).astype(np.float32)
    sample_weight[n:] = 0
    fit = svm.fit(
        features,
        labels,
        n_classes=2,
        C=C,
        loss='hinge',
        bias_scale=BIAS_SCALE,
        sample_weight=sample_weight,
        tolerance=1e-3,
    )
    return np.asarray(fit.weights)[:, 1], float(np.asarray(fit.bias)[1])


class BoxRegression(NamedTuple):
    """Ridge regression of box targets per class.

    Attributes:
      weights: [k, d, 4].
      bias: [k, 4].
    """

    weights: Float[np.ndarray, 'k d 4']
    bias: Float[np.ndarray, 'k 4']


def fit_box_regression(
    features: Float[np.ndarray, 'n d'],
    proposals: Float[np.ndarray, 'n 4'],
    boxes: Float[np.ndarray, 'n 4'],
    labels: Int[np.ndarray, 'n'],
    num_classes: int,
    *,
    ridge: float = 1000.0,
) -> BoxRegression:
    """Regression per class from features of proposals to the targets of `ops.boxes.encode`.

    Targets are centered and whitened with (covariance + .001) before a ridge regression whose constant is penalized
    too, as published. For a class without proposals boxes are unchanged.

    Args:
      features: pool5 features of proposals whose IoU with their ground truth is at least 0.6.
      proposals: Boxes of these proposals.
      boxes: Ground truth of these proposals.
      labels: Classes of these proposals, 1 .. num_classes.
      num_classes: Number of classes k.
      ridge: Ridge parameter lambda.

    References:
      Girshick et al. 2014, appendix C; rcnn_train_bbox_regressor.m.
    """
    d = features.shape[1]
    weights, bias = (
        np.zeros((num_classes, d, 4), np.float32),
        np.zeros((num_classes, 4), np.float32),
    )
    targets = np.asarray(box_ops.encode(boxes, proposals), np.float64)
    for k in range(num_classes):
        rows = labels == k + 1
        if not rows.any():
            continue
        y = targets[rows]
        mean = y.mean(0)
        y = y - mean
        values, vectors = np.linalg.eigh(y.T @ y / len(y))
        root = np.sqrt(values + 1e-3)
        whiten, color = vectors / root @ vectors.T, vectors * root @ vectors.T
        x = np.concatenate([features[rows].astype(np.float64), np.ones((rows.sum(), 1))], 1)
        # With fewer samples than features, the same solution from inner products of samples.
        if len(x) <= d:
            solution = x.T @ np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), y @ whiten)
        else:
            solution = np.linalg.solve(x.T @ x + ridge * np.eye(d + 1), x.T @ (y @ whiten))
        solution = solution @ color
        weights[k], bias[k] = solution[:-1], solution[-1] + mean
    return BoxRegression(weights, bias)


@functools.partial(jax.jit, static_argnames=('max_detections', 'threshold'))
def detect(
    svms: SVMs,
    regression: BoxRegression | None,
    features: Float[Array | np.ndarray, 'p d'],
    pool5: Float[Array | np.ndarray, 'p e'],
    proposals: Float[Array | np.ndarray, 'p 4'],
    valid: Bool[Array | np.ndarray, 'p'],
    size: Int[Array | np.ndarray, '2'],
    *,
    threshold: float = 0.3,
    max_detections: int = 100,
) -> Detections:
    """Detections of one image: SVM scores of its proposals, one regression of boxes, class-wise suppression.

    Args:
      svms: Result of `fit_svms`.
      regression: Result of `fit_box_regression`; None keeps the proposals.
      features: Features for the SVMs.
      pool5: Features for the regression.
      proposals: Boxes, padded.
      valid: Mask of the boxes, False for padding.
      size: (height, width) of the image.
      threshold: IoU above which a detection suppresses another of its class.
      max_detections: Number of detections, the best of all classes.
    """
    scores = features @ svms.weights + jnp.asarray(svms.bias)[None]
    p, k = scores.shape
    boxes = jnp.broadcast_to(proposals[:, None], (p, k, 4))
    if regression is not None:
        deltas = jnp.einsum('pe,kef->pkf', pool5, regression.weights)
        boxes = box_ops.decode(deltas + jnp.asarray(regression.bias)[None], boxes)
    boxes = box_ops.clip(boxes, size)
    return fast_rcnn.best_of_classes(
        boxes,
        scores,
        valid[:, None] & box_ops.is_at_least(boxes, 1e-2),
        min_score=-jnp.inf,
        threshold=threshold,
        max_detections=max_detections,
        max_candidates=5000,
        extent='continuous',
    )
