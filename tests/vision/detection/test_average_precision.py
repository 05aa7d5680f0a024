"""VOC's average precision against its official code, closed forms, and a real detector's results."""

import collections
import json
import tarfile
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from lecture4.vision.detection import average_precision, error_types
from lecture4.vision.detection.average_precision import ap_11_point, ap_area, mean_ap, voc


def official(detections, truth, label, threshold, use_11_points):
    """voc_eval.py of Fast R-CNN, on edges in place of inclusive pixels, with a stable sort."""
    objects = {}
    num = 0
    for image in np.unique(truth['image']):
        own = (truth['image'] == image) & (truth['labels'] == label)
        objects[image] = [truth['boxes'][own], truth['difficult'][own], [False] * own.sum()]
        num += (~truth['difficult'][own]).sum()
    rows = np.flatnonzero(detections['labels'] == label)
    rows = rows[np.argsort(-detections['scores'][rows], kind='stable')]
    tp, fp = np.zeros(len(rows)), np.zeros(len(rows))
    for d, row in enumerate(rows):
        box = detections['boxes'][row].astype(float)
        boxes, difficult, taken = objects.get(detections['image'][row], (np.zeros((0, 4)), [], []))
        best, at = -np.inf, None
        for j, other in enumerate(boxes.astype(float)):
            w = max(min(box[2], other[2]) - max(box[0], other[0]), 0)
            h = max(min(box[3], other[3]) - max(box[1], other[1]), 0)
            union = (box[2] - box[0]) * (box[3] - box[1]) - w * h
            union += (other[2] - other[0]) * (other[3] - other[1])
            if w * h / union > best:
                best, at = w * h / union, j
        if best > threshold:
            if not difficult[at]:
                tp[d], fp[d] = not taken[at], taken[at]
                taken[at] = True
        else:
            fp[d] = 1
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall, precision = tp / num, tp / np.maximum(tp + fp, np.finfo(float).eps)
    if use_11_points:
        ap = 0.0
        for t in np.arange(0.0, 1.1, 0.1):
            ap += (np.max(precision[recall >= t]) if (recall >= t).any() else 0) / 11
        return ap
    r, p = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(p) - 1, 0, -1):
        p[i - 1] = max(p[i - 1], p[i])
    i = np.flatnonzero(r[1:] != r[:-1])
    return np.sum((r[i + 1] - r[i]) * p[i + 1])


def random_rows(seed, n_images=12, n_classes=3):
    """Objects, and detections of which most lie near one; few scores, so that many are equal."""
    rng = np.random.default_rng(seed)

    def boxes(m):
        low = rng.integers(0, 60, (m, 2))
        return np.concatenate([low, low + rng.integers(5, 40, (m, 2))], 1).astype(np.float32)

    m = 5 * n_images
    truth = {
        'image': rng.integers(n_images, size=m),
        'boxes': boxes(m),
        'labels': rng.integers(1, n_classes + 1, size=m),
        'difficult': rng.random(m) < 0.2,
        'crowd': rng.random(m) < 0.15,
        'areas': (rng.random(m) * 4000).astype(np.float32),
    }
    near = rng.integers(m, size=6 * m)
    moved = truth['boxes'][near] + rng.integers(-4, 5, (len(near), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    far = rng.random(len(near)) < 0.3
    other = rng.random(len(near)) < 0.2
    detections = {
        'image': np.where(far, rng.integers(n_images, size=len(near)), truth['image'][near]),
        'boxes': moved.astype(np.float32),
        'labels': np.where(other, rng.integers(1, n_classes + 1, len(near)), truth['labels'][near]),
        'scores': (rng.integers(0, 40, len(near)) / 40).astype(np.float32),
    }
    return detections, truth


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.75])
def test_equal_to_the_official_code(seed, threshold):
    detections, truth = random_rows(seed)
    for k, result in enumerate(voc(detections, truth, 3, iou_threshold=threshold), 1):
        expected = [official(detections, truth, k, threshold, eleven) for eleven in (True, False)]
        np.testing.assert_allclose((result.ap_11_point, result.ap_area), expected, atol=1e-12)


def test_recall_of_exactly_three_tenths_misses_the_fourth_point():
    recall, precision = np.array([0.1, 0.2, 0.3]), np.ones(3)
    assert ap_11_point(recall, precision) == pytest.approx(3 / 11)
    assert ap_area(recall, precision) == pytest.approx(0.3)


def rows(boxes, labels=1, **more):
    m = len(boxes)
    base = {'image': np.zeros(m, int), 'boxes': np.array(boxes, np.float32).reshape(-1, 4)}
    return base | {'labels': np.broadcast_to(labels, m)} | {k: np.array(v) for k, v in more.items()}


def test_a_second_detection_of_an_object_is_false():
    truth = rows([[0, 0, 10, 10], [30, 0, 40, 10]])
    detections = rows([[0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10]], scores=[0.9, 0.8, 0.7])
    (result,) = voc(detections, truth, 1)
    np.testing.assert_allclose(result.precision, [1, 1 / 2, 2 / 3])
    assert result.ap_area == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_taken_object_is_not_exchanged_for_the_second_best():
    truth = rows([[0, 0, 10, 10], [0, 2, 10, 12]])
    detections = rows([[0, 0, 10, 10], [0, 0.5, 10, 10.5]], scores=[0.9, 0.8])
    np.testing.assert_allclose(voc(detections, truth, 1)[0].precision, [1, 1 / 2])


def test_difficult_objects_neither_count_nor_harm():
    truth = rows([[0, 0, 10, 10], [30, 0, 40, 10]], difficult=[False, True])
    detections = rows([[30, 0, 40, 10], [30, 0, 40, 10], [0, 0, 10, 10]], scores=[0.9, 0.8, 0.7])
    (result,) = voc(detections, truth, 1)
    assert result.num_objects == 1
    assert (result.ap_area, result.ap_11_point) == pytest.approx((1, 1))
    np.testing.assert_allclose(result.precision, [0, 0, 1])


def test_overlap_must_exceed_the_threshold():
    truth, detections = rows([[0, 0, 10, 10]]), rows([[0, 0, 10, 5]], scores=[1.0])
    assert voc(detections, truth, 1)[0].ap_area == 0
    assert voc(detections, truth, 1, iou_threshold=0.499)[0].ap_area == 1


def test_classes_without_objects_do_not_enter_the_mean():
    truth, detections = rows([[0, 0, 9, 9]]), rows([[0, 0, 9, 9]], scores=[1.0])
    results = voc(detections, truth, 2)
    assert np.isnan(results[1].ap_area) and mean_ap(results) == 1
    assert np.isnan(mean_ap(voc(detections, rows([]), 1)))
    assert voc(rows([], scores=[]), truth, 1)[0].ap_area == 0


def in_order_of_images(rows):
    order = np.argsort(rows['image'], kind='stable')
    return {name: values[order] for name, values in rows.items()}


def test_padded_batches_are_the_same_as_rows():
    detections, truth = map(in_order_of_images, random_rows(0))

    def padded(rows):
        counts = np.bincount(rows['image'], minlength=12)
        made = {'valid': np.arange(counts.max()) < counts[:, None]}
        for name in set(rows) - {'image'}:
            made[name] = np.zeros((*made['valid'].shape, *rows[name].shape[1:]), rows[name].dtype)
            made[name][made['valid']] = rows[name]
        return made

    for a, b in zip(
        voc(padded(detections), padded(truth), 3), voc(detections, truth, 3), strict=True
    ):
        assert a.num_objects == b.num_objects and a.ap_area == b.ap_area


def test_ten_thousand_objects_in_one_image():
    grid = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2) * 10
    boxes = np.concatenate([grid, grid + 9], 1)
    (result,) = voc(rows(boxes[::100], scores=np.linspace(1, 0, 100)), rows(boxes), 1)
    assert (
        result.num_objects == 10_000 and result.recall[-1] == 0.01 and result.precision.min() == 1
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scores': np.array([np.nan])}, r'detections: 1 of 1 rows have NaN .* row 0 of image 0'),
        ({'boxes': np.array([[np.nan, 0, 1, 1]])}, 'NaN in a box or score'),
        ({'labels': np.array([0])}, 'labels from 1 to 2, got 0 in row 0'),
        ({'labels': np.array([3])}, 'labels from 1 to 2, got 3'),
    ],
)
def test_bad_rows_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        voc(rows([[0, 0, 9, 9]], scores=[1.0]) | change, rows([[0, 0, 9, 9]]), 2)


def test_error_types():
    truth = rows([[0, 0, 10, 10], [50, 50, 60, 60], [80, 0, 90, 10]], [1, 2, 1])
    truth['difficult'] = np.array([False, False, True])
    detections = rows(
        [
            [0, 0, 10, 10],
            [0, 0, 10, 9],
            [0, 0, 10, 4],
            [50, 50, 60, 60],
            [0, 50, 9, 59],
            [80, 0, 90, 10],
        ],
        scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
    )
    types = error_types.classify(detections, truth, 2)
    names = [error_types.TYPES[t] if t >= 0 else 'ignored' for t in types]
    assert names == ['correct', 'duplicate', 'localization', 'confusion', 'background', 'ignored']
    counts = error_types.count_types(detections, truth, 2)
    np.testing.assert_array_equal(counts, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_types_of_all_detections_agree_with_precision():
    detections, truth = random_rows(5)
    types = error_types.classify(detections, truth, 3)
    for k, result in enumerate(voc(detections, truth, 3), 1):
        own = types[detections['labels'] == k]
        correct, kept = (own == 0).sum(), (own != error_types.IGNORED).sum()
        assert result.precision[-1] == pytest.approx(correct / kept)


def test_correct_detections_and_missed_objects():
    truth = rows([[0, 0, 10, 10], [30, 0, 40, 10], [60, 0, 70, 10]], difficult=[False, False, True])
    detections = rows([[0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10]], scores=[0.9, 0.8, 0.2])
    result = average_precision.outcomes(detections, truth, 1, min_score=0.5)
    assert [values.tolist() for values in result] == [[True, False, False], [False, True, False]]


@pytest.mark.data
def test_a_real_detector_on_voc_2007(manual_dir):
    """111,247 detections of 20 classes: the AP per class that the original voc_eval.py gives."""
    folder = manual_dir / 'voc2007_annotations'
    reference = json.loads((folder / 'reference_ap.json').read_text())['yolov2_robinyen']
    classes = [name for name in reference if name != 'mean']
    truth = collections.defaultdict(list)
    with tarfile.open(folder / 'VOC2007_annotations.tar.xz') as archive:
        kept = [m for m in archive if m.name.endswith(('.xml', 'Main/test.txt'))]
        files = {m.name.rpartition('/')[2]: archive.extractfile(m).read() for m in kept}
    names = files['test.txt'].decode().split()
    for i, name in enumerate(names):
        for node in ElementTree.fromstring(files[f'{name}.xml']).iter('object'):
            edges = [
                float(node.find('bndbox').findtext(e)) for e in ('xmin', 'ymin', 'xmax', 'ymax')
            ]
            truth['image'].append(i)
            truth['boxes'].append([edges[0] - 1, edges[1] - 1, *edges[2:]])
            truth['labels'].append(1 + classes.index(node.findtext('name')))
            truth['difficult'].append(node.findtext('difficult') == '1')
    truth = {name: np.array(values) for name, values in truth.items()}
    index = {name: i for i, name in enumerate(names)}
    parts = []
    with tarfile.open(folder / 'yolov2_robinyen.tar.xz') as archive:
        for member in archive:
            if not member.isfile() or not member.name.endswith('.txt'):
                continue
            label = 1 + classes.index(member.name[:-4].rpartition('_')[2])
            content = archive.extractfile(member).read().decode()
            lines = [line.split() for line in content.splitlines()]
            parts.extend([index[line[0]], label, *map(float, line[1:])] for line in lines)
    parts = np.array(parts)
    assert len(parts) == 111_247 and (~truth['difficult']).sum() == 12_032
    detections = {
        'image': parts[:, 0].astype(int),
        'labels': parts[:, 1].astype(int),
        'scores': parts[:, 2],
        'boxes': parts[:, 3:] - [1, 1, 0, 0],
    }
    start = time.perf_counter()
    results = voc(detections, truth, 20)
    seconds = time.perf_counter() - start
    for name, result in zip(classes, results, strict=True):
        expected = reference[name]
        assert result.num_detections == expected['n']
        assert result.ap_11_point == pytest.approx(expected['ap07_stable'], abs=1e-6), name
        assert result.ap_area == pytest.approx(expected['area_stable'], abs=1e-6), name
    assert mean_ap(results, 'ap_11_point') == pytest.approx(0.746607, abs=1e-6)
    assert mean_ap(results) == pytest.approx(0.770646, abs=1e-6)
    assert seconds < 5
