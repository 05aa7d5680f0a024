"""R-CNN's stages: warping, SVMs with mined negatives, ridge regression of boxes; published convolutions; caches."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.classifiers import svm
from lecture4.data.detection import feature_cache
from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import rcnn
from lecture4.vision.models import alexnet, vgg
from lecture4.vision.weights import convolutions
from lecture4.vision.weights.state_dict import WeightsError

RNG = np.random.default_rng(0)


def test_a_box_is_warped_with_its_context():
    image = RNG.normal(size=(60, 80, 2)).astype(np.float32)
    (crop,) = jax.jit(lambda i, b: rcnn.warp(i, b, 16, 4))(image, np.array([[32.0, 16, 40, 32]]))
    # Twice the box about its center, [28, 44] x [8, 40]: 16 x 32 pixels to 16 x 16.
    np.testing.assert_allclose(crop, image[8:40, 28:44].reshape(16, 2, 16, 2).mean(1), atol=1e-5)


def test_outside_the_image_is_the_mean():
    image = np.ones((40, 40, 1), np.float32)
    box = np.array([[0, 0, 16, 40]], np.float32)
    crop = np.asarray(jax.jit(lambda i, b: rcnn.warp(i, b, 16, 4))(image, box))[0, ..., 0]
    # [-8, 24] x [-20, 60]: a quarter of each side is outside on the left, above and below.
    expected = np.zeros((16, 16))
    expected[4:12, 4:] = 1
    np.testing.assert_array_equal(crop, expected)


def test_mined_negatives_give_the_svm_of_all_negatives():
    rng = np.random.default_rng(0)
    n, p, d, k = 12, 60, 5, 2
    features = [rng.normal(size=(p, d)).astype(np.float32) for _ in range(n)]
    truth = rng.normal(size=(30, d)).astype(np.float32) + np.float32(1.5)
    labels = np.repeat([1, 2], 15)
    overlaps = [rng.random((p, k)) * 0.4 for _ in range(n)]  # a quarter is ignored
    result = rcnn.fit_svms(features, overlaps, truth, labels, C=1e-2)
    scale = 20 / np.mean(np.linalg.norm(np.concatenate(features), axis=1))
    for c in range(k):
        negative = np.concatenate(overlaps)[:, c] < 0.3
        x = np.concatenate([truth[labels == c + 1], *features]) * np.float32(scale)
        y = (np.arange(len(x)) < 15).astype(int)
        # The others have weight 0, so that both classes are one program.
        weight = np.concatenate([np.full(15, 2), negative]).astype(np.float32)
        full = svm.fit(
            x, y, n_classes=2, C=1e-2, loss='hinge', bias_scale=10.0, sample_weight=weight,
            tolerance=1e-4,
        )  # fmt: skip
        ours = np.concatenate(features) @ result.weights[:, c] + result.bias[c]
        exact = np.concatenate(features) * np.float32(scale) @ np.asarray(full.weights)[:, 1]
        np.testing.assert_allclose(ours, exact + np.asarray(full.bias)[1], atol=0.05)
        assert 0 < result.num_negatives[c] <= negative.sum()


def test_a_class_without_objects_is_never_detected():
    features = [RNG.normal(size=(40, 3)).astype(np.float32)]
    truth = RNG.normal(size=(4, 3)).astype(np.float32)
    result = rcnn.fit_svms(features, [np.zeros((40, 2))], truth, np.ones(4, int))
    assert result.bias[1] == -np.inf
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (40, 1))
    detections = rcnn.detect(
        result, None, features[0], features[0], boxes, np.ones(40, bool), np.array([10, 10])
    )
    assert set(np.asarray(detections.labels)[np.asarray(detections.valid)]) == {1}


def test_box_regression_is_the_ridge_solution_on_whitened_targets():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (60, 2))
    proposals = np.concatenate([corner, corner + rng.uniform(10, 30, (60, 2))], 1).astype(
        np.float32
    )
    boxes = (proposals + rng.normal(size=(60, 4)) * 2).astype(np.float32)
    labels = np.repeat([1, 3], 30)
    for d in (7, 50):  # fewer features than samples, and more
        features = rng.normal(size=(60, d)).astype(np.float32)
        result = rcnn.fit_box_regression(features, proposals, boxes, labels, 3, ridge=10.0)
        rows = labels == 3
        y = np.asarray(box_ops.encode(boxes[rows], proposals[rows]), float)
        mean = y.mean(0)
        values, vectors = np.linalg.eig((y - mean).T @ (y - mean) / 30 + 1e-3 * np.eye(4))
        whiten = vectors @ np.diag(values**-0.5) @ vectors.T
        x = np.hstack([features[rows], np.ones((30, 1))]).astype(float)
        w = np.linalg.solve(x.T @ x + 10 * np.eye(d + 1), x.T @ (y - mean) @ whiten)
        expected = x @ w @ np.linalg.inv(whiten) + mean
        ours = features[rows] @ result.weights[2] + result.bias[2]
        np.testing.assert_allclose(ours, expected, atol=1e-4)
        assert not result.weights[1].any() and not result.bias[1].any()


def stack(network):
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )['params']
    names = sorted(name for name in shapes if name.startswith('conv'))
    return names, {
        f'Conv_{i}': {k: RNG.random(v.shape, np.float32) for k, v in shapes[name].items()}
        for i, name in enumerate(names)
    }


def test_a_pickle_of_convolutions_starts_a_backbone(tmp_path):
    network = alexnet.AlexNetV2(features_only=True)
    names, layers = stack(network)
    path = tmp_path / 'alexnet.ckpt'
    path.write_bytes(
        pickle.dumps({'AlexNet_0': layers, 'Lin_0': {'Conv_0': {'kernel': np.ones(1)}}})
    )
    variables = convolutions.load(network, path)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(
            variables['params'][name]['kernel'], layers[f'Conv_{i}']['kernel']
        )
    with pytest.raises(WeightsError, match='has 5 convolutions, this network has 13'):
        convolutions.load(vgg.VGG('d', features_only=True), path)


def test_a_pickle_of_anything_else_is_refused(tmp_path):
    path = tmp_path / 'bad.ckpt'
    path.write_bytes(b'cos\nsystem\n(S"true"\ntR.')
    with pytest.raises(WeightsError, match=r'names os\.system, which no array needs'):
        convolutions.read_pickle(path)
    path.write_bytes(pickle.dumps({'a': np.ones(1000)})[:500])
    with pytest.raises(WeightsError, match='is not a pickle of arrays'):
        convolutions.read_pickle(path)


def test_feature_maps_are_computed_once_and_resumed(tmp_path):
    calls = []

    def compute(i):
        calls.append(i)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.full((2, 2, 1), i)

    key = feature_cache.fingerprint({'w': np.ones(3)}, 'name', 4)
    assert key != feature_cache.fingerprint({'w': np.zeros(3)}, 'name', 4)
    with pytest.raises(KeyboardInterrupt):
        feature_cache.load_or_compute(tmp_path, key, compute, 4)
    maps = feature_cache.load_or_compute(tmp_path, key, compute, 4)
    assert calls == [0, 1, 2, 2, 3] and maps.dtype == np.float16
    np.testing.assert_array_equal(maps[:, 0, 0, 0], np.arange(4))
    feature_cache.load_or_compute(tmp_path, key, compute, 4)
    assert len(calls) == 5
