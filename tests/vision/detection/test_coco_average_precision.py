"""COCO's evaluation against its loops written out, and against pycocotools where it is installed."""

import contextlib
import io

import numpy as np
import pytest

from lecture4.vision.detection import coco_average_precision as module
from lecture4.vision.detection.coco_average_precision import coco, summary


def random_rows(seed, n_images=10, n_classes=3, scale=3):
    rng = np.random.default_rng(seed)
    m = 5 * n_images

    def boxes(m):
        low = rng.integers(0, 60, (m, 2))
        return np.concatenate([low, low + rng.integers(5, 50, (m, 2))], 1) * scale

    truth = {
        'image': rng.integers(n_images, size=m),
        'boxes': boxes(m).astype(np.float32),
        'labels': rng.integers(1, n_classes + 1, size=m),
        'crowd': rng.random(m) < 0.15,
        'areas': (rng.random(m) * 12_000).astype(np.float32),
    }
    near = rng.integers(m, size=8 * m)
    moved = truth['boxes'][near] + scale * rng.integers(-4, 5, (len(near), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    other = rng.random(len(near)) < 0.2
    detections = {
        'image': truth['image'][near],
        'boxes': moved.astype(np.float32),
        'labels': np.where(other, rng.integers(1, n_classes + 1, len(near)), truth['labels'][near]),
        'scores': (rng.integers(0, 40, len(near)) / 40).astype(np.float32),
    }
    return detections, truth


def loops(detections, truth, label, threshold, bounds, most=100):
    """(matches to objects that count, false detections) in order of score, and the number of objects."""
    outcomes, total = [], 0
    for image in range(truth['image'].max() + 1):
        own = np.flatnonzero((truth['image'] == image) & (truth['labels'] == label))
        areas = truth['areas'][own]
        ignored = truth['crowd'][own] | (areas < bounds[0]) | (areas > bounds[1])
        order = np.argsort(ignored, kind='stable')
        own, ignored = own[order], ignored[order]
        total += (~ignored).sum()
        rows = np.flatnonzero((detections['image'] == image) & (detections['labels'] == label))
        rows = rows[np.argsort(-detections['scores'][rows], kind='stable')][:100]
        taken = set()
        for rank, row in enumerate(rows):
            x1, y1, x2, y2 = detections['boxes'][row].astype(float)
            limit, match = min(threshold, 1 - 1e-10), None
            for j, g in enumerate(own):
                if j in taken and not truth['crowd'][g]:
                    continue
                if match is not None and not ignored[match] and ignored[j]:
                    break
                a1, b1, a2, b2 = truth['boxes'][g].astype(float)
                inside = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                area = (x2 - x1) * (y2 - y1)
                union = area if truth['crowd'][g] else area + (a2 - a1) * (b2 - b1) - inside
                if inside / union < limit:
                    continue
                limit, match = inside / union, j
            if match is not None:
                taken.add(match)
                skip = ignored[match]
            else:
                skip = not bounds[0] <= (x2 - x1) * (y2 - y1) <= bounds[1]
            if rank < most:
                outcomes.append((detections['scores'][row], match is not None, skip))
    outcomes = sorted(outcomes, key=lambda o: -o[0])
    return [match for _, match, skip in outcomes if not skip], total


def loops_ap(outcomes, total):
    if not total:
        return -1
    correct = np.cumsum(outcomes)
    recall, precision = correct / total, correct / np.arange(1, len(outcomes) + 1)
    return np.mean([precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)])


@pytest.mark.parametrize('seed', [0, 1])
def test_equal_to_the_loops_of_the_official_code(seed):
    detections, truth = random_rows(seed)
    result = coco(detections, truth, 3)
    for j, bounds in enumerate(module.SIZES.values()):
        for t in (0, 4, 5, 9):
            for k in range(3):
                outcomes, total = loops(detections, truth, k + 1, module.IOU_THRESHOLDS[t], bounds)
                assert result.precision[t, :, k, j].mean() == pytest.approx(
                    loops_ap(outcomes, total)
                )
                for i, most in enumerate((1, 10, 100)):
                    outcomes, total = loops(
                        detections, truth, k + 1, module.IOU_THRESHOLDS[t], bounds, most
                    )
                    expected = sum(outcomes) / total if total else -1
                    assert result.recall[t, k, j, i] == pytest.approx(expected)


def test_perfect_detections_reach_one_in_all_sizes():
    boxes = np.array([[0, 0, 20, 20], [0, 0, 50, 50], [0, 0, 200, 200]], np.float32)
    truth = {'image': np.arange(3), 'boxes': boxes, 'labels': np.ones(3, int)}
    numbers = summary(coco(truth | {'scores': np.ones(3)}, truth, 1))
    assert numbers == dict.fromkeys(numbers, pytest.approx(1.0)) and len(numbers) == 12


def test_absent_sizes_and_empty_sets_are_nan():
    truth = {
        'image': np.zeros(1, int),
        'boxes': np.array([[0, 0, 20.0, 20]]),
        'labels': np.ones(1, int),
    }
    none = {'image': np.zeros(0, int), 'boxes': np.zeros((0, 4)), 'labels': np.zeros(0, int)}
    numbers = summary(coco(none | {'scores': np.zeros(0)}, truth, 2))
    assert numbers['AP'] == numbers['AR_100'] == numbers['AP_small'] == 0
    assert np.isnan(numbers['AP_large'])
    assert np.isnan(summary(coco(truth | {'scores': np.ones(1)}, none, 1))['AP'])


def test_matching_is_compiled_once_for_sets_of_like_size():
    coco(*random_rows(0), 3)
    before = module._match_pairs._cache_size()
    coco(*random_rows(2), 3)
    assert module._match_pairs._cache_size() == before


@pytest.mark.parametrize('seed', range(3))
def test_equal_to_pycocotools(seed):
    coco_module = pytest.importorskip('pycocotools.coco')
    evaluation = pytest.importorskip('pycocotools.cocoeval')
    detections, truth = random_rows(seed, n_images=40, n_classes=5)

    def xywh(box):
        x1, y1, x2, y2 = map(float, box)
        return [x1, y1, x2 - x1, y2 - y1]

    reference = coco_module.COCO()
    reference.dataset = {
        'info': {},
        'images': [{'id': i} for i in range(40)],
        'categories': [{'id': k} for k in range(1, 6)],
        'annotations': [
            {'id': i + 1, 'image_id': int(truth['image'][i]), 'category_id': int(truth['labels'][i]),
             'bbox': xywh(truth['boxes'][i]), 'area': float(truth['areas'][i]),
             'iscrowd': int(truth['crowd'][i])}
            for i in range(len(truth['image']))
        ],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        results = reference.loadRes(
            [
                {'image_id': int(i), 'category_id': int(k), 'bbox': xywh(b), 'score': float(s)}
                for i, k, b, s in zip(
                    *[detections[n] for n in ('image', 'labels', 'boxes', 'scores')], strict=True
                )
            ]
        )
        official = evaluation.COCOeval(reference, results, 'bbox')
        official.evaluate()
        official.accumulate()
        official.summarize()
    ours = coco(detections, truth, 5)
    np.testing.assert_allclose(list(summary(ours).values()), official.stats, atol=1e-6)
    np.testing.assert_allclose(ours.precision, official.eval['precision'][..., -1], atol=1e-6)
    np.testing.assert_allclose(ours.recall, official.eval['recall'], atol=1e-6)
