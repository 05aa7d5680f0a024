"""Localization of one object by regression, and R-CNN's stages on features that are known."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import localization, networks, rcnn_stages
from lecture4.vision.detection.recipe import Recipe

RECIPE = Recipe(extent='continuous', pooling='roi_align', pool_scales=(1 / 2,))
SMALL = networks.SmallNetwork((2, 2), (1, 1))


def test_the_box_of_a_class_is_its_regression_from_the_image():
    network = networks.create(
        'small', 2, with_rpn=False, hidden_dims=(3,), dropout_rate=0.0, small=SMALL
    )
    boxes = np.array([[[2, 3, 12, 13]], [[4, 1, 10, 9]]], np.float32)
    batch = {
        'images': np.zeros((2, 16, 24, 3), np.float32),
        'sizes': np.array([[16, 24], [12, 16]], np.int32),
        'boxes': boxes,
        'labels': np.array([[2], [1]], np.int32),
        'valid': np.ones((2, 1), bool),
    }
    variables = jax.jit(network.init)(jax.random.key(0), batch['images'])
    whole = np.array([[0, 0, 24, 16], [0, 0, 16, 12]], np.float32)
    np.testing.assert_array_equal(localization.whole_images(batch['sizes'])[:, 0], whole)
    # Features of 0: the outputs are the biases. Those of class 2 are the first object's targets.
    deltas = np.asarray(box_ops.encode(boxes[:, 0], whole, RECIPE.std))
    head = variables['params']['head']
    head['deltas']['bias'] = jnp.concatenate([jnp.zeros(8), deltas[0]])
    head['scores']['bias'] = jnp.array([5.0, 0.0, 3.0])

    result = jax.jit(lambda v, b: localization.predict(network, RECIPE, v, b, b['labels'][:, 0]))
    result = result(variables, batch)
    assert result.labels.tolist() == [2, 2]  # the background is no answer
    np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-3.0)), rtol=1e-6)
    np.testing.assert_allclose(result.boxes[0], boxes[0, 0], atol=1e-4)
    np.testing.assert_allclose(result.boxes_of_true_class[1], whole[1], atol=1e-4)
    flags = localization.is_localized(result.boxes_of_true_class, boxes[:, 0])
    assert flags.tolist() == [True, False]

    loss = jax.jit(lambda v, b: localization.loss(network, RECIPE, v, b, jax.random.key(0)))
    value, metrics = loss(variables, batch)
    x = np.abs(deltas[1])
    expected = np.where(x < 1, 0.5 * x**2, x - 0.5).sum() / 2
    np.testing.assert_allclose(metrics['box_loss'], expected, rtol=1e-5)
    np.testing.assert_allclose(value, metrics['box_loss'] + metrics['class_loss'], rtol=1e-6)
    empty = {**batch, 'valid': np.array([[True], [False]])}
    np.testing.assert_allclose(loss(variables, empty)[1]['box_loss'], 0, atol=1e-6)


def test_stages_of_rcnn_find_objects_by_known_features():
    rng = np.random.default_rng(0)
    n, p, number = 6, 30, 2
    corner = rng.uniform(0, 40, (n, number, 2))
    objects = np.concatenate([corner, corner + rng.uniform(12, 20, (n, number, 2))], -1)
    near = objects[:, rng.integers(number, size=p // 2)]
    far = np.concatenate([c := rng.uniform(0, 50, (n, p // 2, 2)), c + 15], -1)
    boxes = np.concatenate([near + rng.uniform(-3, 3, near.shape), far], 1).astype(np.float32)
    images = {
        'images': objects.astype(np.float32),
        'sizes': np.full((n, 2), 70, np.int32),
        'boxes': np.concatenate([objects, np.zeros((n, 3, 4))], 1).astype(np.float32),
        'labels': np.tile([1, 2, 0, 0, 0], (n, 1)).astype(np.int32),
        'valid': np.tile([True, True, False, False, False], (n, 1)),
        'difficult': np.zeros((n, 5), bool),
        'proposals': boxes,
        'proposals_valid': np.ones((n, p), bool),
    }

    @jax.jit
    def features(image, boxes):
        """IoU with each object, and the targets of the nearest."""
        overlaps = box_ops.iou(boxes, image)
        targets = box_ops.encode(image[jnp.argmax(overlaps, axis=1)], boxes)
        logits = jnp.concatenate([1 - overlaps.max(1, keepdims=True), overlaps], 1)
        return 9 * logits, overlaps, 100 * targets

    trained = rcnn_stages.fit(features, images, number, C=1.0, ridge=1.0)
    assert list(trained.seconds) == ['features', 'SVMs', 'box regression']
    assert trained.num_bytes == n * p * number * 4
    by_method, seconds, num_bytes = rcnn_stages.predict_all(features, trained, images)
    assert min(seconds.values()) > 0 and num_bytes == p * (number + 4) * 4
    overlaps = {}
    for method, result in by_method.items():
        first = np.argmax(result['labels'] == 1, axis=1)  # the best of class 1
        best = result['boxes'][np.arange(n), first]
        overlaps[method] = [
            box_ops.iou(b[None], o[:1])[0, 0]
            for b, o in zip(best, objects.astype(np.float32), strict=True)
        ]
    assert np.min(overlaps['softmax']) > 0.5 and np.min(overlaps['SVM']) > 0.5
    assert np.min(overlaps['SVM, box regression']) > 0.9


class Slow(nn.Module):
    """Waits 50 ms for each crop."""

    seconds: float = 0.05

    def __call__(self, crops):
        def wait(x):
            time.sleep(self.seconds * len(x))
            return np.zeros((len(x), 1, 1, 1), np.float32)

        maps = jax.ShapeDtypeStruct((len(crops), 1, 1, 1), np.float32)
        return jax.pure_callback(wait, maps, crops), {}


def test_time_per_crop_is_that_of_one_of_an_images_crops():
    images = np.zeros((3, 24, 24, 3), np.float32)
    boxes = np.tile(np.array([2, 3, 14, 15], np.float32), (3, 4, 1))
    seconds = rcnn_stages.seconds_per_crop(Slow(), images, boxes, crop_size=40)
    assert Slow.seconds <= seconds < 2 * Slow.seconds
