"""Data of the detection experiments: images without boxes, of one pixel, with too many boxes; proposals of a file."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lecture4.train import detection_data
from lecture4.vision.detection import fast_rcnn, proposals, recipe

SIZES = [[1, 1], [32, 40], [32, 40]]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """One image of a pixel with a box, one with 10,000 boxes, one without; the same for testing."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (10_000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 12, (10_000, 2))], 1)
    arrays = {
        'images': rng.integers(0, 255, (3, 32, 40, 3), np.uint8),
        'sizes': np.array(SIZES),
        'boxes': np.concatenate([[[0, 0, 1, 1]], boxes]).astype(np.float32),
        'image': np.repeat([0, 1], [1, 10_000]),
        'labels': np.ones(10_001, int),
        'class_names': np.array(['cell']),
    }
    path = tmp_path_factory.mktemp('own') / 'images.npz'
    np.savez(path, **arrays, **{f'test_{name}': value for name, value in arrays.items()})
    return f'npz:{path}'


def config_of(source, folder, **fields):
    return detection_data.WithProposals(
        source=source, num_train=0, num_eval=0, batch_size=3, num_proposals=8,
        proposal_cache=str(folder), progress='none', **fields,
    )  # fmt: skip


def load(config, **options):
    propose = detection_data.proposer(config, proposals.prepare)
    return detection_data.load_detection(config, 32, propose=propose, **options)


def test_any_images_and_boxes_make_a_batch(source, tmp_path):
    data = load(config_of(source, tmp_path))
    test = data.report_data
    assert test['images'].shape == (3, 32, 64, 3) and test['sizes'].tolist() == SIZES
    assert test['valid'].sum(1).tolist() == [1, 64, 0]
    area = (test['boxes'][1, :, 2:] - test['boxes'][1, :, :2]).prod(-1)
    assert area.min() > 80  # the largest
    assert not test['proposals_valid'][0].any() and np.isfinite(test['proposals']).all()

    small = dataclasses.replace(recipe.SMALL, num_rois=4)
    batch = {name: test[name] for name in (*detection_data.TRUTH,)}
    sample = jax.jit(functools.partial(fast_rcnn.sample_rois, small))
    rois = sample(jax.random.key(0), test['proposals'], test['proposals_valid'], batch)
    assert np.isfinite(rois.deltas).all() and np.isfinite(rois.rois).all()
    assert set(np.asarray(rois.labels[2]).tolist()) <= {-1, 0}


def test_images_with_one_object_are_kept(source, tmp_path):
    data = load(config_of(source, tmp_path), single_object=True)
    assert data.report_data['valid'].sum(1).tolist() == [1]


def test_proposals_of_other_images_are_refused(source, tmp_path):
    file = tmp_path / 'train.npz'
    proposals.save(file, [np.array([[0, 0, 9, 9]])] * 3, 'f' * 64)
    before = file.read_bytes()
    config = config_of(source, tmp_path, proposals=str(tmp_path / '{split}.npz'))
    with pytest.raises(ValueError, match='proposals of another data set: its fingerprint is ffff'):
        load(config)
    assert file.read_bytes() == before
    proposals.save(file, [np.array([[0, 0, 9, 9]])] * 2, '')
    with pytest.raises(ValueError, match='has proposals of 2 images, expected 3'):
        load(config)
