"""Selective search and its files: grouping by hand, what it covers, determinism, other data sets, damage."""

import functools

import numpy as np
import pytest

from lecture4.vision.detection import proposal_recall, proposals, selective_search


def blocks(h=60, w=80):
    """A gray image with a red square, a green bar and a blue one that touch."""
    image = np.full((h, w, 3), 120, np.uint8)
    image[10:35, 10:35] = (220, 30, 30)
    image[10:35, 35:60] = (30, 200, 40)
    image[40:58, 20:70] = (40, 60, 220)
    return image


def noise(seed, h=50, w=60):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(5, 6, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, h // 5, 0), w // 6, 1)


propose = functools.partial(selective_search.propose, mode='single', width=0, min_size=5)


def test_objects_and_their_unions_are_proposed():
    boxes = selective_search.propose(blocks(), width=0)
    truth = np.array([[10, 10, 35, 35], [35, 10, 60, 35], [10, 10, 60, 35], [0, 0, 80, 60]])
    rows = {'image': np.zeros(4, int), 'boxes': truth}
    overlaps = proposal_recall.best_overlaps([boxes], rows, [len(boxes)])
    assert (overlaps > 0.85).all(), overlaps
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, 2:] - boxes[:, :2] >= 20).all() and boxes.min() >= 0


def test_grouping_by_hand():
    """Four pixels in a row, two of one color: these merge first, the rest follows by size and color."""
    labels = np.array([[0, 1, 2, 3]])
    image = np.array([[[0.1], [0.1], [0.9], [0.5]]])
    textures = np.zeros((8, 1, 4), np.uint8)
    regions = selective_search.describe(labels, image, textures)
    assert regions.sizes.tolist() == [1] * 4 and regions.neighbors == [{1}, {0, 2}, {1, 3}, {2}]
    np.testing.assert_allclose(regions.histograms[:, :25].sum(1), 1)
    np.testing.assert_allclose(regions.histograms[:, 25:].sum(1), 1)
    boxes = selective_search.group(regions, 4, (1, 1, 1, 1))
    assert boxes[4:].tolist() == [[0, 0, 2, 1], [2, 0, 4, 1], [0, 0, 4, 1]]
    assert len(boxes) == 7


def test_every_hierarchy_ends_with_the_whole_image():
    image = noise(0)
    converted = selective_search.convert(image, 'lab')
    labels = selective_search.segment(converted, 50)
    regions = selective_search.describe(labels, converted, selective_search.texture_bins(converted))
    r = labels.max() + 1
    assert r > 10 and all(i in regions.neighbors[j] for i in range(r) for j in regions.neighbors[i])
    for similarity in selective_search.MODES['quality'].similarities:
        boxes = selective_search.group(regions, labels.size, similarity)
        assert len(boxes) == 2 * r - 1 and boxes[-1].tolist() == [0, 0, 60, 50]


def test_proposals_depend_on_image_and_seed_alone():
    first = propose(noise(1))
    np.testing.assert_array_equal(propose(noise(1)), first)
    other = propose(noise(1), seed=1)
    assert {tuple(b) for b in other} == {tuple(b) for b in first} and (other != first).any()
    resized = propose(noise(1), width=120)
    assert resized[:, 2].max() == 60 and resized[:, 3].max() == 50


@pytest.mark.parametrize('shape', [(1, 1), (1, 30), (3, 2), (8, 8)])
def test_tiny_images_have_no_or_few_proposals(shape):
    image = np.zeros((*shape, 3), np.uint8)
    assert selective_search.propose(image, width=0).shape == (0, 4)
    assert propose(image, min_size=1)[-1].tolist() == [0, 0, shape[1], shape[0]]


def test_unknown_color_space_is_refused():
    with pytest.raises(ValueError, match="hsv, lab, rgi, h or intensity, got 'xyz'"):
        selective_search.convert(noise(0), 'xyz')


def test_several_processes_propose_the_same():
    images = [noise(i, 30, 36) for i in range(5)]
    expected = list(proposals.compute(images, propose))
    parallel = list(proposals.compute(images, propose, num_workers=2))
    assert len(parallel) == 5
    for a, b in zip(expected, parallel, strict=True):
        np.testing.assert_array_equal(a, b)


def count_calls(calls, image):
    calls.append(1)
    return np.array([[0, 0, image[0, 0, 0], 5]], np.float32)


def test_files_are_computed_once_and_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(proposals, 'SAVE_EVERY', 2)
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(1, 6)]
    path = tmp_path / 'kept' / proposals.cache_name('f' * 64)
    calls = []

    def interrupted(image):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count_calls(calls, image)

    with pytest.raises(KeyboardInterrupt):
        proposals.cached(path, images, 'f' * 64, interrupted)
    assert not path.exists()
    done = []

    def track(rows):
        for row in rows:
            yield row
            done.append(row)

    count = functools.partial(count_calls, calls)
    made = proposals.cached(path, images, 'f' * 64, count, track=track)
    assert len(calls) == 3 + 3 and done == [2, 3, 4]
    again = proposals.cached(path, images, 'f' * 64, count)
    assert len(calls) == 6 and [b[0, 2] for b in again] == [b[0, 2] for b in made] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'fingerprint': np.array('b' * 64)}, 'of another data set: its fingerprint is bbbb'),
        ({'counts': np.array([1, 2])}, 'whose sum is their number'),
        ({'boxes': np.zeros((2, 3))}, r'expected boxes \[all, 4\]'),
        (
            {'boxes': np.array([[0, 0, 1, 1], [5, 0, 1, 1.0]])},
            r'1 of 2 boxes .* \[5.0, 0.0, 1.0, 1.0\]',
        ),
        ({'boxes': np.array([[0, 0, 1, 1], [5, np.nan, 9, 1]])}, '1 of 2 boxes have NaN'),
        ({'counts': np.array([2])}, 'proposals of 1 images, expected 2'),
    ],
)
def test_files_that_do_not_fit_are_refused_and_kept(tmp_path, changes, message):
    arrays = {'boxes': np.zeros((2, 4)), 'counts': np.array([1, 1])} | changes
    np.savez(tmp_path / 'p.npz', **arrays)
    before = (tmp_path / 'p.npz').read_bytes()
    with pytest.raises(ValueError, match=message):
        proposals.cached(tmp_path / 'p.npz', [None, None], 'a' * 64)
    assert (tmp_path / 'p.npz').read_bytes() == before


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / 'p.npz'
    proposals.save(path, [np.zeros((3, 4))] * 2, 'a')
    assert len(proposals.load(path, 2)) == 2
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match='cannot be read as proposals'):
        proposals.load(path, 2)


def test_padding_keeps_the_first():
    boxes, valid = proposals.pad([np.arange(12).reshape(3, 4), np.zeros((0, 4))], 2)
    assert boxes[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and valid.tolist() == [
        [True] * 2,
        [False] * 2,
    ]


def test_recall_average_recall_and_mabo():
    truth = {
        'image': np.array([0, 0, 1]),
        'boxes': np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10.0]]),
        'labels': np.array([1, 2, 2]),
    }
    own = [np.array([[0, 0, 10, 8], [20, 0, 30, 10]]), np.zeros((0, 4))]
    overlaps = proposal_recall.best_overlaps(own, truth, [1, 2])
    np.testing.assert_allclose(overlaps, [[0.8, 0, 0], [0.8, 1, 0]])
    np.testing.assert_allclose(
        proposal_recall.recall(overlaps, [0.5, 0.9]), [[1 / 3, 0], [2 / 3, 1 / 3]]
    )
    np.testing.assert_allclose(proposal_recall.average_recall(overlaps), [0.2, 1.6 / 3])
    np.testing.assert_allclose(proposal_recall.mabo(overlaps, truth['labels']), [0.4, 0.65])
