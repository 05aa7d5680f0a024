"""Fast and Faster R-CNN: losses and detections against loops, shapes of the backbones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn, networks
from lecture4.vision.detection.recipe import Recipe

RECIPE = Recipe(
    extent='continuous',
    anchor_sizes=((16.0, 32.0),),
    anchor_ratios=(1.0,),
    strides=(8,),
    num_anchors=32,
    anchor_iou=(0.3, 0.6),
    anchor_border=None,
    pre_nms=(60, 50),
    post_nms=(20, 15),
    min_size=4.0,
    num_rois=16,
    pool_size=3,
    pool_scales=(1 / 8,),
    max_detections=10,
    max_candidates=60,
)


def test_multi_task_loss_is_its_definition():
    rng = np.random.default_rng(0)
    logits, deltas = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 4)) * 2
    labels, goal = np.array([2, 0, 1, -1]), rng.normal(size=(4, 4))
    sampled = fast_rcnn.RoITargets(jnp.zeros((4, 4)), labels, goal.astype(np.float32))
    value, _ = fast_rcnn.head_loss(logits.astype(np.float32), deltas.astype(np.float32), sampled)
    expected = 0.0
    for i in range(3):
        expected -= logits[i, labels[i]] - np.log(np.exp(logits[i]).sum())
        if labels[i] > 0:
            x = np.abs(deltas[i, labels[i]] - goal[i])
            expected += np.where(x < 1, 0.5 * x**2, x - 0.5).sum()
    np.testing.assert_allclose(value, expected / 3, rtol=1e-5)


def loop_nms(boxes, scores, threshold):
    keep = []
    for i in np.argsort(-scores, kind='stable'):
        overlaps = (
            np.asarray(box_ops.iou(boxes[i : i + 1], boxes[keep]))[0] if keep else np.zeros(0)
        )
        if np.all(overlaps <= threshold):
            keep.append(i)
    return keep


def test_detections_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 4)).astype(np.float32)
    deltas = rng.normal(size=(20, 4, 4)).astype(np.float32)
    corner = rng.uniform(0, 40, (20, 2))
    proposals = np.concatenate([corner, corner + rng.uniform(5, 30, (20, 2))], 1).astype(np.float32)
    valid = np.arange(20) < 18
    size = np.array([50, 60], np.int32)
    run = jax.jit(functools.partial(fast_rcnn.detections_of, RECIPE))
    result = jax.device_get(run(logits, deltas, proposals, valid, size))

    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = []
    for k in range(1, 4):
        boxes = np.asarray(box_ops.decode(deltas[:, k], proposals, RECIPE.std))
        boxes = np.clip(boxes, 0, [60, 50, 60, 50])
        rows = np.flatnonzero(valid & (probs[:, k] > RECIPE.min_score))
        for i in loop_nms(boxes[rows], probs[rows, k], RECIPE.detection_nms):
            expected.append((probs[rows[i], k], k, boxes[rows[i]]))
    expected.sort(key=lambda row: -row[0])
    expected = expected[: RECIPE.max_detections]
    assert result.valid.sum() == len(expected)
    for i, (score, label, box) in enumerate(expected):
        assert result.labels[i] == label
        np.testing.assert_allclose(result.scores[i], score, rtol=1e-5)
        np.testing.assert_allclose(result.boxes[i], box, atol=1e-3)


@pytest.mark.parametrize('name', ['vgg_d', 'zfnet', 'resnet_50_v1_5'])
def test_published_backbones_have_their_shapes(name):
    network = networks.create(name, 20, num_anchors=3 if 'fpn' in name else 9)
    x = jax.ShapeDtypeStruct((1, 320, 480, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    levels = jax.eval_shape(functools.partial(network.apply, method='features'), variables, x)
    shapes = [level.shape[1:] for level in levels]
    if 'fpn' in name:
        assert shapes == [(-(-320 // s), -(-480 // s), 256) for s in (4, 8, 16, 32, 64)]
    elif name == 'zfnet':
        assert shapes == [(19, 29, 256)]
    else:
        assert shapes == [(20, 30, 512 if name == 'vgg_d' else 1024)]


def test_unknown_detectors_are_named():
    with pytest.raises(ValueError, match='unknown detector vgg; expected one of small, vgg_d'):
        networks.create('vgg', 3)
