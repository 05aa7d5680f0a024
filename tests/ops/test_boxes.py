"""Boxes: closed forms, sequential suppression in NumPy, round trips, torchvision where it is installed."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import boxes

EXTENTS = ('continuous', 'inclusive')


def random_boxes(n, seed=0, spread=100.0):
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, spread, (n, 2)), rng.uniform(1, spread / 3, (n, 2))
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def loop_iou(a, b, extra):
    w = min(a[2], b[2]) - max(a[0], b[0]) + extra
    h = min(a[3], b[3]) - max(a[1], b[1]) + extra
    inter = max(w, 0) * max(h, 0)
    areas = [(c[2] - c[0] + extra) * (c[3] - c[1] + extra) for c in (a, b)]
    return inter / (sum(areas) - inter)


def loop_nms(b, scores, threshold, labels=None, extra=0.0):
    keep = []
    for i in np.argsort(-scores, kind='stable'):
        rivals = [j for j in keep if labels is None or labels[i] == labels[j]]
        if all(loop_iou(b[i], b[j], extra) <= threshold for j in rivals):
            keep.append(i)
    return np.array(keep)


def kept(selection):
    return np.asarray(selection.indices)[np.asarray(selection.valid)]


@pytest.mark.parametrize('extent', EXTENTS)
def test_overlaps_are_those_of_a_loop(extent):
    a, b = random_boxes(6), random_boxes(5, 1)
    extra = float(extent == 'inclusive')
    expected = [[loop_iou(p, q, extra) for q in b.astype(float)] for p in a.astype(float)]
    np.testing.assert_allclose(boxes.iou(a, b, extent), expected, atol=1e-6)
    hull = [
        [
            np.prod(np.maximum(p[2:], q[2:]) - np.minimum(p[:2], q[:2]) + extra)
            for q in b.astype(float)
        ]
        for p in a.astype(float)
    ]
    total = np.asarray(boxes.area(a, extent))[:, None] + np.asarray(boxes.area(b, extent))
    union = total / (1 + np.array(expected))
    giou = expected - (np.array(hull) - union) / hull
    np.testing.assert_allclose(boxes.giou(a, b, extent), giou, atol=1e-5)


def test_an_inclusive_box_of_one_pixel_has_area_1():
    pixel = np.array([[3, 4, 3, 4]])
    assert float(boxes.area(pixel, 'inclusive')[0]) == 1 and float(boxes.area(pixel)[0]) == 0
    assert float(boxes.iou(pixel, pixel)[0, 0]) == 0  # an empty union is no NaN


def test_decoding_inverts_encoding():
    b, anchors = random_boxes(50), random_boxes(50, 1)
    std = (0.1, 0.1, 0.2, 0.2)
    deltas = boxes.encode(b, anchors, std)
    np.testing.assert_allclose(boxes.decode(deltas, anchors, std, max_log_scale=None), b, atol=1e-3)
    inclusive = boxes.decode(
        boxes.encode(b, anchors, extent='inclusive'), anchors, extent='inclusive'
    )
    np.testing.assert_allclose(inclusive - b, np.tile([0, 0, 1, 1], (50, 1)), atol=1e-3)


def test_targets_of_a_shifted_and_doubled_box():
    deltas = boxes.encode(np.array([[10.0, 0, 30, 10]]), np.array([[0.0, 0, 10, 10]]))
    np.testing.assert_allclose(deltas, [[1.5, 0, np.log(2), 0]], atol=1e-6)


def test_clipping_and_flipping():
    b = np.array([[-5.0, 3, 60, 30]], np.float32)
    np.testing.assert_array_equal(boxes.clip(b, (20, 50)), [[0, 3, 50, 20]])
    np.testing.assert_array_equal(boxes.clip(b, (20, 50), 'inclusive'), [[0, 3, 49, 19]])
    for extent in EXTENTS:
        twice = boxes.flip(boxes.flip(b, 50.0, extent), 50.0, extent)
        np.testing.assert_array_equal(twice, b)
    np.testing.assert_array_equal(boxes.flip(b[:, [0, 1, 0, 1]] * 0, 50.0, 'inclusive')[0, 0], 49)
    assert boxes.is_at_least(b, 27).tolist() == [True]
    assert boxes.is_at_least(b * np.float32(np.nan), 0).tolist() == [False]


run = functools.partial(jax.jit, static_argnames=('max_outputs', 'extent', 'tile_size'))(boxes.nms)


@pytest.mark.cases(1)
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7])
@pytest.mark.parametrize('extent', EXTENTS)
def test_suppression_is_the_sequential_one(extent, threshold):
    b, rng = random_boxes(150), np.random.default_rng(2)
    scores = rng.integers(0, 20, 150).astype(np.float32)  # many ties
    labels = rng.integers(0, 3, 150)
    extra = float(extent == 'inclusive')
    result = run(b, scores, threshold, extent=extent, tile_size=32)
    np.testing.assert_array_equal(kept(result), loop_nms(b, scores, threshold, None, extra))
    by_class = run(b, scores, threshold, labels=labels, extent=extent, tile_size=32)
    np.testing.assert_array_equal(kept(by_class), loop_nms(b, scores, threshold, labels, extra))
    np.testing.assert_array_equal(
        np.asarray(result.scores)[: len(kept(result))], scores[kept(result)]
    )


def test_overlap_equal_to_the_threshold_does_not_suppress():
    b = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    nms = jax.jit(boxes.nms)
    assert kept(nms(b, scores, 0.5)).tolist() == [0, 1]
    assert kept(nms(b, scores, 0.4999)).tolist() == [0]


def test_suppression_under_vmap_with_masks_and_nan():
    b = np.stack([random_boxes(70, seed) for seed in range(3)])
    scores = np.random.default_rng(0).random((3, 70)).astype(np.float32)
    valid = np.arange(70)[None] < np.array([[70], [40], [0]])
    b[0, 5], scores[0, 6] = np.nan, np.nan
    nms = functools.partial(boxes.nms, threshold=0.4, max_outputs=20, tile_size=32)
    result = jax.jit(jax.vmap(lambda b, s, v: nms(b, s, valid=v)))(b, scores, valid)
    for i in range(3):
        rows = np.flatnonzero(valid[i] & ~np.isnan(b[i]).any(1) & ~np.isnan(scores[i]))
        expected = rows[loop_nms(b[i][rows], scores[i][rows], 0.4)] if len(rows) else rows
        got = np.asarray(result.indices[i])[np.asarray(result.valid[i])]
        np.testing.assert_array_equal(got, expected[:20])


def test_no_array_exceeds_a_tile_of_overlaps():
    n = 12_000
    jaxpr = jax.make_jaxpr(lambda b, s: boxes.nms(b, s, 0.7, max_outputs=2000))(
        jnp.zeros((n, 4)), jnp.zeros(n)
    )
    sizes = [int(s) for s in _sizes(jaxpr.jaxpr)]
    assert max(sizes) <= 6 * n  # coordinates and areas of all boxes


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from _sizes(inner)


@pytest.mark.parametrize('method', ['linear', 'gaussian'])
def test_soft_suppression_is_the_sequential_one(method):
    b, scores = random_boxes(40), np.random.default_rng(0).random(40).astype(np.float32)
    remaining, expected = scores.astype(float), []
    while remaining.max() > 0.05:
        i = int(remaining.argmax())
        expected.append((i, remaining[i]))
        remaining[i] = -1
        for j in range(40):
            overlap = loop_iou(b[i], b[j], 0.0)
            if method == 'linear':
                remaining[j] *= 1 - overlap if overlap > 0.3 else 1
            else:
                remaining[j] *= np.exp(-(overlap**2) / 0.5)
    result = boxes.soft_nms(b, scores, method=method, min_score=0.05)
    assert kept(result).tolist() == [i for i, _ in expected]
    got = np.asarray(result.scores)[np.asarray(result.valid)]
    np.testing.assert_allclose(got, [s for _, s in expected], rtol=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r'boxes: expected boxes \[\.\.\., 4\], got shape \(3,\)'):
        boxes.area(np.zeros(3))
    with pytest.raises(ValueError, match="extent is 'exclusive'; expected"):
        boxes.area(np.zeros((1, 4)), 'exclusive')


@pytest.mark.slow
def test_suppression_equals_torchvision():
    torch = pytest.importorskip('torch')
    ops = pytest.importorskip('torchvision.ops')
    for seed in range(10):
        b = random_boxes(500, seed)
        scores = np.random.default_rng(seed).random(500).astype(np.float32)
        expected = ops.nms(torch.from_numpy(b), torch.from_numpy(scores), 0.5).numpy()
        np.testing.assert_array_equal(kept(run(b, scores, 0.5)), expected)
        giou = ops.generalized_box_iou(torch.from_numpy(b[:9]), torch.from_numpy(b[9:20]))
        np.testing.assert_allclose(boxes.giou(b[:9], b[9:20]), giou.numpy(), atol=1e-5)


@pytest.mark.slow
def test_2000_boxes_take_less_than_5_ms():
    b = random_boxes(2000, spread=1000.0)
    scores = np.random.default_rng(0).random(2000).astype(np.float32)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        jax.block_until_ready(run(b, scores, 0.5))
        times.append(time.perf_counter() - began)
    assert min(times) < 5e-3
