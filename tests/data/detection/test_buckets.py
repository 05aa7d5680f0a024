"""Images of different sizes in few static shapes: the scale rule, boxes by round trip, batches by bucket."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture4.data.dataset import DataError
from lecture4.data.detection import buckets, scenes
from lecture4.data.detection.buckets import ScaleRule, resized_shape

RULE = ScaleRule(60, 100, 16)
SIZES = ((48, 64), (64, 48), (40, 90))


@pytest.fixture(scope='module')
def data():
    config = scenes.SceneConfig(SIZES, digit_size=(12, 30), num_digits=(0, 3))
    return scenes.dataset(0, 30, config)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((375, 500), (600, 800)),
        ((500, 375), (800, 600)),
        ((300, 900), (333, 1000)),
        ((1, 1), (600, 600)),
    ],
)
def test_shorter_side_600_longer_at_most_1000(size, expected):
    assert resized_shape(*size, ScaleRule()) == expected


@given(st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=80, deadline=None)
def test_every_size_fits_one_of_ten_buckets(height, width):
    everything = np.array([[h, w] for h in range(200, 1000, 40) for w in range(200, 1000, 40)])
    made = buckets.buckets_for(everything, ScaleRule())
    assert len(made) <= 10 and all(h % 32 == 0 == w % 32 for h, w in made)
    i = buckets.bucket_of(*resized_shape(height, width, ScaleRule()), made)
    h, w = resized_shape(height, width, ScaleRule())
    assert h <= made[i][0] and w <= made[i][1]


def test_buckets_hold_only_what_occurs():
    sizes = np.array([[375, 500], [333, 500]])
    assert buckets.buckets_for(sizes, ScaleRule()) == ((608, 800), (608, 928))
    assert buckets.buckets_for(sizes, ScaleRule(0, 1000, 32)) == ((384, 512),)


def test_flips_and_scales_of_boxes_are_undone():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (50, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 100, (50, 2))], 1).astype(np.float32)
    np.testing.assert_allclose(
        buckets.flip_boxes(buckets.flip_boxes(boxes, 200), 200), boxes, atol=1e-4
    )
    there = buckets.scale_boxes(boxes, (37, 200), (600, 123))
    np.testing.assert_allclose(buckets.scale_boxes(there, (600, 123), (37, 200)), boxes, rtol=1e-5)


def test_boxes_follow_the_pixels():
    """A white rectangle is found where its box says, after resizing and mirroring."""
    image = np.zeros((50, 80, 3), np.uint8)
    image[10:30, 20:60] = 255
    box = np.array([[20, 10, 60, 30]], np.float32)
    resized, own = buckets.resize(image, box, 100, 160)
    own = buckets.flip_boxes(own, 160)
    rows, columns = (np.flatnonzero((resized[:, ::-1, 0] > 127).any(axis)) for axis in (1, 0))
    assert own[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_batches_are_padded_and_pure(data):
    batch = buckets.training_batches(data, 4, seed=1, rule=RULE, max_boxes=5)
    made = [batch(n) for n in range(12)]
    for name, values in buckets.training_batches(data, 4, seed=1, rule=RULE, max_boxes=5)(
        7
    ).items():
        np.testing.assert_array_equal(values, made[7][name])
    assert len({b['images'].shape for b in made}) == 3
    for b in made:
        assert b['boxes'].shape == (4, 5, 4) and b['valid'].any(1).all()
        for image, (h, w), boxes in zip(b['images'], b['sizes'], b['boxes'], strict=True):
            assert not image[h:].any() and not image[:, w:].any()
            assert (boxes[:, 2] <= w + 1e-3).all() and (boxes[:, 3] <= h + 1e-3).all()


def test_an_epoch_has_every_row_about_once(data):
    numbers = np.array([0] * 9 + [1] * 4 + [2] * 17)
    draw = buckets.bucketed_indices(numbers, 4, seed=0)
    per_epoch = 3 + 1 + 5
    rows = [draw(n) for n in range(per_epoch)]
    assert all(len(set(numbers[r])) == 1 for r in rows)
    counts = np.bincount(np.concatenate(rows), minlength=30)
    assert counts.min() >= 1 and counts.max() <= 2
    ten = np.bincount(np.concatenate([draw(n) for n in range(10 * per_epoch)]), minlength=30)
    assert ten.min() >= 10


def test_evaluation_has_every_image_once(data):
    rows = [r for r, _ in buckets.evaluation_batches(data, 4, rule=RULE)]
    assert sorted(np.concatenate(rows)) == list(range(30))


def test_training_leaves_out_difficult_crowd_and_empty_boxes(data):
    row = next(i for i in range(30) if len(data.boxes[i]) == 3)
    flags = np.array([True, False, False])
    boxes = data.boxes[row].copy()
    boxes[2, 2] = boxes[2, 0]
    changed = {
        name: tuple(value if i == row else old for i, old in enumerate(getattr(data, name)))
        for name, value in (('difficult', flags), ('crowd', flags[[1, 0, 2]]), ('boxes', boxes))
    }
    changed = data._replace(**changed)
    h, w = resized_shape(*data.sizes[row].tolist(), RULE)
    bucket = (-(-h // 16) * 16, -(-w // 16) * 16)
    kept = [
        buckets.make_batch(changed, [row], bucket, rule=RULE, **options)['valid'].sum()
        for options in ({}, {'use_difficult': True}, {'for_training': False})
    ]
    assert kept == [0, 1, 3]


def test_the_largest_of_too_many_boxes_are_kept(caplog):
    from lecture4.data.detection.dataset import pad_boxes

    sides = np.array([1, 5, 3, 4], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    made = pad_boxes([boxes], [np.arange(4, dtype=np.int32)], [np.zeros(4, bool)], 2)
    assert (
        made['labels'].tolist() == [[1, 3]] and '4 boxes in an image; the 2 largest' in caplog.text
    )


def test_too_small_buckets_and_sets_without_boxes_are_refused(data):
    with pytest.raises(DataError, match=r'fits none of the buckets .*32, 32'):
        buckets.make_batch(data, [0], (32, 32), rule=ScaleRule(60, 60, 32)._replace(longer=1000))
    nothing = tuple(np.zeros(0, bool) for _ in range(30))
    empty = data._replace(
        boxes=tuple(np.zeros((0, 4), np.float32) for _ in range(30)),
        difficult=nothing,
        crowd=nothing,
    )
    with pytest.raises(DataError, match='no image has a box to train on'):
        buckets.training_batches(empty, 4, seed=0)


def test_one_pixel_images_are_resized():
    from lecture4.data.detection.dataset import DetectionDataset

    one = DetectionDataset(
        (np.full((1, 1, 3), 7, np.uint8),), np.ones((1, 2), np.int32),
        (np.array([[0, 0, 1, 1]], np.float32),), (np.ones(1, np.int32),), (np.zeros(1, bool),),
        (np.zeros(1, bool),), (np.ones(1, np.float32),), ('a',), ('dot',),
    )  # fmt: skip
    batch = buckets.training_batches(one, 1, seed=0, rule=RULE)(0)
    assert batch['sizes'].tolist() == [[60, 60]] and (batch['images'][0, :60, :60] == 7).all()
    assert batch['boxes'][0, 0].tolist() == [0, 0, 60, 60]
