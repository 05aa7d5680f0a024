"""RoI pooling and RoIAlign: forward and backward against float64 loops after the kernels' definitions."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import roi

H, W, C, SCALE = 13, 11, 3, 1 / 8


def example(seed=0, n=24):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(H, W, C)).astype(np.float32)
    corner = rng.uniform(-15, 80, (n, 2))
    rois = np.concatenate([corner, corner + rng.uniform(0, 100, (n, 2))], 1).astype(np.float32)
    rois[0], rois[1] = [40, 40, 30, 30], [4, 4, 12, 20]  # reversed; halves that round away from 0
    rois[2], rois[3] = (
        [500, 500, 600, 600],
        [0, 0, 8 * W - 1, 8 * H - 1],
    )  # outside; the whole image
    return features, rois


def round_half_away(x):
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def loop_pool(features, rois, g, size):
    """(pooled values, gradient of sum(pooled * g)) of float64 features."""
    y, grad = np.zeros((len(rois), *size, C)), np.zeros_like(features)
    for r, box in enumerate(rois):
        x1, y1, x2, y2 = (round_half_away(v * SCALE) for v in box)
        h, w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j, c in itertools.product(range(size[0]), range(size[1]), range(C)):
            bin_h, bin_w = np.float32(h) / np.float32(size[0]), np.float32(w) / np.float32(size[1])
            rows = range(
                min(max(int(np.floor(np.float32(i) * bin_h)) + y1, 0), H),
                min(max(int(np.ceil(np.float32(i + 1) * bin_h)) + y1, 0), H),
            )
            columns = range(
                min(max(int(np.floor(np.float32(j) * bin_w)) + x1, 0), W),
                min(max(int(np.ceil(np.float32(j + 1) * bin_w)) + x1, 0), W),
            )
            best = None
            for at in itertools.product(rows, columns):
                if best is None or features[(*at, c)] > features[(*best, c)]:
                    best = at
            if best is not None:
                y[r, i, j, c] = features[(*best, c)]
                grad[(*best, c)] += g[r, i, j, c]
    return y, grad


def loop_align(features, rois, g, size, sampling_ratio, aligned):
    y, grad = np.zeros((len(rois), *size, C)), np.zeros_like(features)
    for r, box in enumerate(rois.astype(float)):
        x1, y1, x2, y2 = box * SCALE - (0.5 if aligned else 0)
        h, w = y2 - y1, x2 - x1
        if not aligned:
            h, w = max(h, 1), max(w, 1)
        n_y = sampling_ratio or max(math.ceil(h / size[0]), 1)
        n_x = sampling_ratio or max(math.ceil(w / size[1]), 1)
        for i, j in itertools.product(range(size[0]), range(size[1])):
            for a, b in itertools.product(range(n_y), range(n_x)):
                sample = (
                    y1 + (i + (a + 0.5) / n_y) * h / size[0],
                    x1 + (j + (b + 0.5) / n_x) * w / size[1],
                )
                for at, weight in corners(*sample):
                    y[r, i, j] += features[at] * weight / (n_y * n_x)
                    grad[at] += g[r, i, j] * weight / (n_y * n_x)
    return y, grad


def corners(y, x):
    if not (-1 <= y <= H and -1 <= x <= W):
        return []
    axes = []
    for v, length in ((max(y, 0), H), (max(x, 0), W)):
        low = int(v)
        if low >= length - 1:
            axes.append([(length - 1, 1.0), (length - 1, 0.0)])
        else:
            axes.append([(low, 1 - (v - low)), (low + 1, v - low)])
    return [((i, j), p * q) for (i, p), (j, q) in itertools.product(*axes)]


@functools.partial(jax.jit, static_argnums=(0,))
def value_and_grad(f, features, rois, g):
    value, pull = jax.vjp(lambda features: f(features, rois), features)
    return value, pull(g)[0]


@pytest.mark.parametrize('size', [(7, 7), (2, 3)])
def test_pooling_and_its_gradient_are_those_of_a_loop(size):
    features, rois = example()
    g = np.random.default_rng(1).normal(size=(len(rois), *size, C)).astype(np.float32)
    pool = functools.partial(roi.roi_pool, output_size=size, spatial_scale=SCALE)
    y, grad = value_and_grad(pool, features, rois, g)
    expected, expected_grad = loop_pool(features.astype(float), rois, g, size)
    np.testing.assert_array_equal(y, expected.astype(np.float32))
    np.testing.assert_array_equal(jax.jit(pool)(features, rois), y)  # without a gradient
    np.testing.assert_allclose(grad, expected_grad, atol=1e-5)


def test_ties_go_to_the_first_maximum():
    features, rois = example()
    features = np.round(features).astype(np.float32)  # few values: ties everywhere
    g = np.random.default_rng(1).normal(size=(len(rois), 7, 7, C)).astype(np.float32)
    pool = functools.partial(roi.roi_pool, output_size=(7, 7), spatial_scale=SCALE)
    _, grad = value_and_grad(pool, features, rois, g)
    np.testing.assert_allclose(
        grad, loop_pool(features.astype(float), rois, g, (7, 7))[1], atol=1e-5
    )


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('sampling_ratio', [2, 0])
def test_align_and_its_gradient_are_those_of_a_loop(sampling_ratio, aligned):
    features, rois = example()
    g = np.random.default_rng(1).normal(size=(len(rois), 7, 7, C)).astype(np.float32)
    align = functools.partial(
        roi.roi_align, spatial_scale=SCALE, sampling_ratio=sampling_ratio, aligned=aligned
    )
    y, grad = value_and_grad(align, features, rois, g)
    expected, expected_grad = loop_align(
        features.astype(float), rois, g, (7, 7), sampling_ratio, aligned
    )
    np.testing.assert_allclose(y, expected, atol=2e-5)
    np.testing.assert_allclose(grad, expected_grad, atol=5e-5)


def test_a_pyramid_is_sampled_on_the_level_that_fits():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(64 >> i, 48 >> i, C)).astype(np.float32) for i in range(4)]
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    sides = np.array([20, 111, 112, 223, 224, 447, 448, 2000])
    rois = np.stack([0 * sides, 0 * sides, sides, sides], 1).astype(np.float32)
    levels = roi.roi_levels(rois, scales)
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    y = jax.jit(lambda maps, rois: roi.multi_scale_roi_align(maps, rois, scales))(maps, rois)

    @functools.partial(jax.jit, static_argnums=2)
    def align(features, rois, scale):
        return roi.roi_align(features, rois, 7, scale, sampling_ratio=2)

    for i, level in enumerate(levels.tolist()):
        single = align(maps[level], rois[i : i + 1], scales[level])
        np.testing.assert_allclose(y[i], single[0], atol=1e-5)


def test_a_batch_of_images_is_a_vmap():
    features = jnp.stack([example(seed)[0] for seed in range(2)])
    rois = jnp.stack([example(seed)[1] for seed in range(2)])
    pool = functools.partial(roi.roi_pool, spatial_scale=SCALE)
    batch = jax.jit(jax.vmap(pool))(features, rois)
    np.testing.assert_array_equal(batch[1], jax.jit(pool)(features[1], rois[1]))


def test_a_batch_without_vmap_is_refused():
    with pytest.raises(ValueError, match=r'expected features \[h, w, c\].*use jax.vmap'):
        roi.roi_pool(np.zeros((1, 4, 4, 2), np.float32), np.zeros((3, 4), np.float32))


@pytest.mark.slow
def test_both_equal_torchvision():
    torch = pytest.importorskip('torch')
    ops = pytest.importorskip('torchvision.ops')
    features, rois = example(n=200)
    x = torch.from_numpy(features.transpose(2, 0, 1)[None].copy())
    boxes = [torch.from_numpy(rois)]
    expected = ops.roi_pool(x, boxes, 7, SCALE).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(roi.roi_pool(features, rois, 7, SCALE), expected)
    for sampling_ratio, aligned in itertools.product((0, 2), (False, True)):
        expected = ops.roi_align(x, boxes, 7, SCALE, sampling_ratio or -1, aligned)
        y = roi.roi_align(features, rois, 7, SCALE, sampling_ratio, aligned)
        np.testing.assert_allclose(y, expected.numpy().transpose(0, 2, 3, 1), atol=2e-5)
