"""Anchors against the published table; matching and sampling against loops; targets by their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import anchors, targets

TABLE = [
    [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
    [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
    [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
]  # fmt: skip


def test_anchors_are_the_published_table():
    np.testing.assert_array_equal(anchors.paper_anchors() + 1, TABLE)  # MATLAB counts from 1


def test_centered_anchors_are_torchvisions():
    # Of torchvision.models.detection.anchor_utils.AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)).cell_anchors
    expected = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    np.testing.assert_array_equal(anchors.centered_anchors((32,)), expected)
    exact = anchors.centered_anchors((32,), is_rounded=False)
    np.testing.assert_allclose(box_ops.area(exact), 32**2, rtol=1e-5)


def test_a_grid_is_in_row_major_order():
    base = anchors.centered_anchors((2, 4), (1.0,))
    shifted = anchors.grid(base, (2, 3), (10, 20))
    assert shifted.shape == (12, 4)
    np.testing.assert_array_equal(shifted[2 * 4 + 1], base[1] + np.array([20, 10, 20, 10]))


def scene(seed=0, n=200, g=4):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (n, 2))
    candidates = np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], 1)
    corner = rng.uniform(0, 60, (g, 2))
    truth = np.concatenate([corner, corner + rng.uniform(10, 40, (g, 2))], 1)
    valid = np.arange(g) < g - 1
    return candidates.astype(np.float32), truth.astype(np.float32), valid


def test_matches_are_those_of_a_loop():
    candidates, truth, valid = scene()
    candidates = np.concatenate([candidates, candidates])  # every best one ties with its copy
    eligible = np.random.default_rng(1).random(len(candidates)) < 0.8
    overlaps = np.asarray(box_ops.iou(candidates, truth)) * valid
    expected = np.full(len(candidates), -1)
    best = np.where(eligible[:, None], overlaps, 0).max(0)
    for i in np.flatnonzero(eligible):
        if overlaps[i].max() < 0.3:
            expected[i] = 0
        if overlaps[i].max() >= 0.7 or np.any((overlaps[i] == best) & (best > 0)):
            expected[i] = 1
    matches = jax.jit(targets.match)(candidates, truth, valid, eligible=eligible)
    np.testing.assert_array_equal(matches.labels, expected)
    assert (expected > 0).sum() >= 3
    rows = expected > 0
    np.testing.assert_array_equal(matches.indices[rows], overlaps[rows].argmax(1))


def test_overlaps_at_the_thresholds():
    """0.5 is at least 0.5, and 0.25 is not below 0.25."""
    box = jnp.array([[0.0, 0, 4, 4]])
    anchors = jnp.array([[0.0, 0, 4, 2], [0, 0, 4, 1], [0, 0, 4, 0.5]])
    matches = targets.match(
        anchors, box, jnp.ones(1, bool), high=0.5, low=0.25, best_of_each_box=False
    )
    assert matches.labels.tolist() == [1, -1, 0]


def test_an_image_without_boxes_has_background_only():
    candidates, truth, valid = scene()

    @jax.jit
    def draw(key):
        none = np.zeros_like(valid)
        result = targets.anchor_targets(
            key, candidates, truth, none, jnp.array([200, 200]), num_samples=64
        )
        rois = targets.roi_targets(
            key, candidates, valid[np.zeros(len(candidates), int)], truth,
            np.ones(4, int), none, num_samples=32,
        )  # fmt: skip
        return result, rois

    result, rois = draw(jax.random.key(0))
    assert set(np.unique(result.labels)) == {-1, 0} and not np.any(result.deltas)
    assert np.all(np.asarray(rois.labels) == 0) and np.all(np.isfinite(rois.deltas))


def test_samples_have_the_published_numbers():
    labels = np.repeat([1, 0, -1], [300, 400, 50])
    draw = jax.jit(lambda key, labels: targets.sample(key, labels, 256, 0.5))
    chosen = np.asarray(draw(jax.random.key(0), labels))
    assert (labels[chosen] == 1).sum() == 128 and (labels[chosen] == 0).sum() == 128
    few = np.repeat([1, 0, -1], [10, 400, 340])
    chosen = np.asarray(draw(jax.random.key(0), few))
    assert (few[chosen] == 1).sum() == 10 and (few[chosen] == 0).sum() == 246
    counts = sum(np.asarray(draw(jax.random.key(i), labels)) for i in range(200))
    np.testing.assert_allclose(counts[:300] / 200, 128 / 300, atol=0.2)  # all equally likely
    assert abs(counts[:300].mean() / 200 - 128 / 300) < 1e-6


def test_anchors_that_leave_the_image_are_not_sampled():
    candidates, truth, valid = scene()
    draw = jax.jit(targets.anchor_targets, static_argnames='border')
    given = (jax.random.key(0), candidates, truth, valid, np.array([60, 70]))
    result, everywhere = draw(*given), draw(*given, border=None)
    outside = (candidates[:, 2] > 70) | (candidates[:, 3] > 60)
    assert np.all(np.asarray(result.labels)[outside] == -1)
    assert np.any(np.asarray(everywhere.labels)[outside] >= 0)


def test_rois_have_the_classes_and_targets_of_their_boxes():
    candidates, truth, valid = scene()
    classes = np.array([3, 1, 2, 1])
    draw = functools.partial(targets.roi_targets, num_samples=64, negative_iou=(0.1, 0.5))
    are_valid = np.ones(len(candidates), bool)
    result = jax.jit(draw)(jax.random.key(0), candidates, are_valid, truth, classes, valid)
    rois, labels, deltas = map(np.asarray, result)
    overlaps = np.asarray(box_ops.iou(rois, truth)) * valid
    n_positive = (labels > 0).sum()
    assert 3 <= n_positive <= 16 and np.all(
        labels[:n_positive] > 0
    )  # the ground truth is among them
    np.testing.assert_array_equal(labels[:n_positive], classes[overlaps[:n_positive].argmax(1)])
    background = overlaps[labels == 0].max(1)
    assert np.all((background >= 0.1) & (background < 0.5))
    decoded = box_ops.decode(deltas, rois, (0.1, 0.1, 0.2, 0.2))[:n_positive]
    np.testing.assert_allclose(decoded, truth[overlaps[:n_positive].argmax(1)], atol=1e-3)
