"""Digits pasted on photographs: boxes that fit, scenes that depend on (seed, n) alone, what is kept of them."""

import numpy as np
import pytest

from lecture4.data.dataset import DataError
from lecture4.data.detection import scenes as module
from lecture4.data.detection.scenes import COLORS, RELATIONS, SceneConfig, relations, scenes

CONFIG = SceneConfig(sizes=((48, 64), (64, 40)), digit_size=(12, 30), num_digits=(1, 5))


@pytest.fixture(scope='module')
def batch():
    return scenes(3, range(24), CONFIG)


def test_a_scene_depends_on_seed_and_number_alone(batch):
    again = scenes(3, [17, 5], CONFIG)
    for name, values in batch.items():
        np.testing.assert_array_equal(again[name], values[[17, 5]], err_msg=name)
    assert (scenes(4, [5], CONFIG)['images'] != again['images'][1]).any()


def test_shapes_and_dtypes(batch):
    shapes = {name: (values.shape[1:], values.dtype) for name, values in batch.items()}
    assert shapes == {
        'images': ((64, 64, 3), np.uint8),
        'sizes': ((2,), np.int32),
        'boxes': ((5, 4), np.float32),
        'labels': ((5,), np.int32),
        'valid': ((5,), bool),
        'difficult': ((5,), bool),
        'counts': ((10,), np.int32),
        'colors': ((5,), np.int32),
        'relations': ((5, 5), np.int8),
    }
    assert set(map(tuple, batch['sizes'].tolist())) == {(48, 64), (64, 40)}


def test_boxes_lie_inside_and_padding_is_zero(batch):
    valid, boxes = batch['valid'], batch['boxes']
    h, w = batch['sizes'].T[:, :, None]
    assert (boxes[..., :2] >= 0).all() and (boxes[..., 2] <= w).all() and (boxes[..., 3] <= h).all()
    assert ((boxes[..., 2:] > boxes[..., :2]).all(-1) == valid).all()
    assert (valid.sum(1) >= 1).all() and valid.sum(1).max() == 5
    assert not boxes[~valid].any() and not batch['labels'][~valid].any()
    assert (batch['labels'][valid] >= 1).all() and (batch['labels'] <= 10).all()
    for image, (h, w) in zip(batch['images'], batch['sizes'], strict=True):
        assert image[:h, :w].any() and not image[h:].any() and not image[:, w:].any()


def test_boxes_enclose_the_digits_tightly(monkeypatch):
    """On a black background without clutter, noise or overlap, what is colored is exactly the boxes."""
    monkeypatch.setattr(module, '_background', lambda rng, h, w, split: np.zeros((h, w, 3)))
    config = SceneConfig(((80, 90),), (2, 2), (12, 30), 0.0, 0, noise_std=0.0)
    made = scenes(0, range(8), config)
    for image, boxes, valid in zip(made['images'], made['boxes'], made['valid'], strict=True):
        ink = image.max(-1) > 0
        inside = np.zeros_like(ink)
        for x1, y1, x2, y2 in boxes[valid].astype(int):
            inside[y1:y2, x1:x2] = True
            own = image[y1:y2, x1:x2].max(-1) > 60
            assert own[0].any() and own[-1].any() and own[:, 0].any() and own[:, -1].any()
        assert not ink[~inside].any()


def test_counts_colors_and_relations_describe_the_scene(batch):
    for i in range(24):
        labels, valid = batch['labels'][i], batch['valid'][i]
        np.testing.assert_array_equal(
            batch['counts'][i], np.bincount(labels[valid] - 1, minlength=10)
        )
        assert ((batch['colors'][i] >= 0) == valid).all() and batch['colors'].max() < len(COLORS)
        expected = valid[:, None] & valid & ~np.eye(5, dtype=bool)
        np.testing.assert_array_equal(batch['relations'][i] > 0, expected)


def test_relations_follow_centers_and_overlap():
    boxes = np.array([[0, 0, 10, 10], [30, 5, 40, 15], [0, 50, 10, 60], [5, 5, 20, 20]])
    names = [[RELATIONS[k] for k in row] for row in relations(boxes)]
    assert names[0] == ['', 'left of', 'above', 'overlapping']
    assert [row[0] for row in names] == ['', 'right of', 'below', 'overlapping']


def test_overlap_stays_within_its_bound():
    config = SceneConfig(((60, 60),), (6, 6), (20, 30), max_overlap=0.3)
    covered = []
    for boxes, valid in zip(
        *[scenes(1, range(10), config)[k] for k in ('boxes', 'valid')], strict=True
    ):
        b = boxes[valid]
        sides = np.minimum(b[:, None, 2:], b[None, :, 2:]) - np.maximum(
            b[:, None, :2], b[None, :, :2]
        )
        area = np.prod(b[:, 2:] - b[:, :2], -1)
        ratio = np.prod(np.maximum(sides, 0), -1) / np.minimum(area[:, None], area)
        covered.extend(ratio[~np.eye(len(b), dtype=bool)])
    assert 0.1 < max(covered) <= 0.3


def test_hidden_digits_are_difficult():
    config = SceneConfig(((40, 40),), (6, 6), (20, 40), max_overlap=1.0)
    difficult = scenes(0, range(10), config)['difficult']
    assert difficult.any() and not difficult[:, -1].any()  # the last is on top


def test_train_and_test_share_no_photograph_and_no_digit():
    train, test = module._photos('train'), module._photos('test')
    assert all((a.shape != b.shape) or (a != b).any() for a, b in zip(train, test, strict=True))
    glyphs = [module._glyphs('digits', split, None, None)[1] for split in ('train', 'test')]
    assert [len(labels) for labels in glyphs] == [1297, 500]


def test_data_set_holds_the_same_scenes(batch):
    data = module.dataset(3, 6, CONFIG)
    assert data.num_images == 6 and data.class_names == tuple('0123456789')
    for i in range(6):
        h, w = data.sizes[i]
        np.testing.assert_array_equal(data.images[i], batch['images'][i, :h, :w])
        np.testing.assert_array_equal(data.boxes[i], batch['boxes'][i][batch['valid'][i]])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_digits': (0, 0)}, 'most >= 1'),
        ({'digit_size': (20, 200)}, 'smallest side 120'),
        ({'sizes': ()}, 'smallest side 0'),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        SceneConfig(**options)


def test_a_data_set_has_an_image():
    with pytest.raises(DataError, match='at least one image'):
        module.dataset(0, 0)
