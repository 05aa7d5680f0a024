"""Fast and Faster R-CNN: losses, gradients, proposals and detections against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.data.detection import buckets
from lecture4.data.detection.dataset import DetectionDataset
from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn, faster_rcnn, networks, stages, truncated_svd
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
    pool_scales=(1 / 8,),
    max_detections=10,
    max_candidates=60,
)
NETWORK = networks.create('small', 3, num_anchors=2, hidden_dims=(8,), dropout_rate=0.0)


@pytest.fixture(scope='module')
def example():
    """(variables, batch) of two images, the second without boxes."""
    rng = np.random.default_rng(0)
    boxes = np.array([[[4, 4, 24, 28], [20, 20, 60, 50], [0, 0, 0, 0]]] * 2, np.float32)
    batch = {
        'images': rng.normal(size=(2, 64, 64, 3)).astype(np.float32),
        'sizes': np.array([[64, 64], [48, 56]], np.int32),
        'boxes': boxes,
        'labels': np.array([[1, 3, 0]] * 2, np.int32),
        'valid': np.array([[True, True, False], [False] * 3]),
    }
    variables = jax.jit(NETWORK.init)(jax.random.key(0), batch['images'])
    return variables, batch


@pytest.fixture(scope='module')
def gradient():
    @jax.jit
    def run(variables, batch):
        def value(v):
            return faster_rcnn.loss(NETWORK, RECIPE, v, batch, jax.random.key(1))

        return jax.value_and_grad(value, has_aux=True)(variables)

    return run


def test_joint_training_reaches_every_layer(example, gradient):
    (value, metrics), grads = gradient(*example)
    names = {'objectness_loss', 'rpn_box_loss', 'class_loss', 'box_loss'}
    assert set(metrics) == {*names, 'roi_accuracy'}
    np.testing.assert_allclose(value, sum(metrics[name] for name in names), rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(leaf)) and np.any(leaf), path


def test_frozen_layers_have_no_gradient(example):
    variables, _ = example

    def value(variables):
        frozen = networks.freeze(variables, ('conv1', 'conv2'))
        return sum(jnp.sum(leaf**2 + leaf) for leaf in jax.tree.leaves(frozen))

    grads = jax.jit(jax.grad(value))(variables)
    trained = networks.trainable_mask(grads, ('conv1', 'conv2'))
    for leaf, is_trained in zip(jax.tree.leaves(grads), jax.tree.leaves(trained), strict=True):
        assert bool(np.any(leaf)) == is_trained
    first = trained['params']['backbone']['network']
    assert not first['conv1_1']['kernel'] and first['conv3_1']['kernel']


def test_the_training_step_lowers_for_a_tpu(example):
    def value(variables, batch):
        return faster_rcnn.loss(NETWORK, RECIPE, variables, batch, jax.random.key(0))[0]

    lowered = jax.jit(jax.grad(value)).trace(*example).lower(lowering_platforms=('tpu',))
    assert 'callback' not in lowered.as_text()


def test_bad_boxes_leave_the_loss_finite(example, gradient):
    variables, batch = example
    bad = {**batch, 'boxes': batch['boxes'].copy()}
    bad['boxes'][0, 0] = np.nan
    bad['boxes'][0, 1] = [50, 50, 40, 40]
    assert not np.any(fast_rcnn.training_boxes(jax.tree.map(jnp.asarray, bad)))
    (value, _), grads = gradient(variables, bad)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


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


def test_proposals_lie_in_the_image_without_its_padding(example):
    variables, batch = example

    @jax.jit
    def run(variables, batch):
        levels = fast_rcnn.feature_maps(NETWORK, variables, batch)
        return faster_rcnn.propose(NETWORK, RECIPE, variables, batch, levels)[0]

    boxes, valid, scores = jax.device_get(run(variables, batch))
    assert boxes.shape == (2, 15, 4) and valid.any(1).all()
    inside = boxes[1][valid[1]]
    assert inside.min() >= 0 and inside[:, 2].max() <= 56 and inside[:, 3].max() <= 48
    assert np.all(np.diff(scores[1][valid[1]]) <= 0)
    overlaps = np.array(box_ops.iou(inside, inside))
    assert (overlaps - np.eye(len(inside))).max() <= RECIPE.proposal_nms + 1e-6
    sides = inside[:, 2:] - inside[:, :2]
    assert sides.min() >= RECIPE.min_size - 1e-4


def test_stages_give_the_same_detections(example):
    variables, batch = example
    inputs = {name: batch[name] for name in ('images', 'sizes')}
    of = stages.of_faster_rcnn(NETWORK, RECIPE, variables)
    detections, seconds, num_bytes = stages.predict_all(of, inputs, 2)
    predict = jax.jit(functools.partial(faster_rcnn.predict, NETWORK, RECIPE))
    expected = jax.device_get(predict(variables, inputs))
    np.testing.assert_array_equal(detections['labels'], expected.labels)
    np.testing.assert_allclose(detections['boxes'], expected.boxes, atol=1e-3)
    names = ['convolutions', 'region proposals', 'RoI pooling', 'dense layers', 'suppression']
    assert list(seconds) == names and min(seconds.values()) > 0
    pooled, levels = 15 * 7 * 7 * 64 * 4, 8 * 8 * 64 * 4
    assert pooled + levels < num_bytes < 1.1 * (pooled + levels)


def test_a_full_rank_decomposition_changes_nothing(example):
    variables, _ = example
    layers = variables['params']['head']['layers']
    x = np.random.default_rng(0).normal(size=(5, 7, 7, 64)).astype(np.float32)
    expected = networks.DenseLayers((8,), 0.0).apply({'params': layers}, x)
    full, kept = truncated_svd.decompose(layers, {'fc6': 8})
    np.testing.assert_allclose(
        truncated_svd.apply(full, x, ('fc6',)), expected, rtol=1e-4, atol=1e-4
    )
    assert float(kept['fc6']) == pytest.approx(1)
    half, kept = truncated_svd.decompose(layers, {'fc6': 4})
    assert half['fc6']['kernel1'].shape == (7 * 7 * 64, 4) and 0.3 < float(kept['fc6']) < 1


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


def test_images_of_fifty_sizes_need_one_program_per_bucket(example):
    rng = np.random.default_rng(0)
    sizes = np.stack([np.arange(30, 80), rng.integers(30, 80, 50)], 1).astype(np.int32)
    images = [rng.integers(256, size=(h, w, 3), dtype=np.uint8) for h, w in sizes]
    dataset = DetectionDataset(
        images, sizes, tuple(np.zeros((0, 4), np.float32) for _ in images),
        *([tuple(np.zeros(0, kind) for _ in images) for kind in (np.int32, bool, bool, np.float32)]),
        tuple(map(str, range(50))), ('a', 'b', 'c'),
    )  # fmt: skip
    rule = buckets.ScaleRule(48, 72, 32)
    predict = jax.jit(functools.partial(faster_rcnn.predict, NETWORK, RECIPE))
    for rows, bucket in buckets.evaluation_batches(dataset, 1, rule=rule):
        batch = buckets.make_batch(dataset, rows, bucket, rule=rule)
        given = {'images': batch['images'] / np.float32(255), 'sizes': batch['sizes']}
        assert predict(example[0], given).boxes.shape == (1, 10, 4)
    assert predict._cache_size() == 3  # 64 x 64, 64 x 96, 96 x 64
