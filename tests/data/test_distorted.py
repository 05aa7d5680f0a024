"""Batches are distorted again, the test set and a number of training images once; sums have classes of their own."""

import functools

import jax
import numpy as np
import pytest

from lecture4.data.images import distorted

ROWS = np.arange(6, dtype=np.int32)


@pytest.fixture(scope='module')
def task():
    return distorted.load('digits', 'RTS', num_test=30)


def test_batches_are_functions_of_the_key(task):
    prepare = jax.jit(task.prepare)
    a, b, again = (prepare(task.arrays, ROWS, jax.random.key(k)) for k in (0, 1, 0))
    assert a['images'].shape == (6, *task.shape) == (6, 12, 12, 1)
    np.testing.assert_array_equal(a['images'], again['images'])
    assert np.abs(np.asarray(a['images']) - b['images']).mean() > 0.02
    np.testing.assert_array_equal(a['labels'], task.arrays['labels'][:6])


def test_test_set_is_the_same_for_all_seeds(task):
    other = distorted.load('digits', 'RTS', num_test=30, seed=1)
    for name, array in task.evaluation.items():
        np.testing.assert_array_equal(array, other.evaluation[name])
    assert task.evaluation['images'].shape == (1, 30, 12, 12, 1) and task.evaluation['mask'].all()
    assert task.test_images.shape == (30, 8, 8, 1) and task.constants['digit_size'] == 8
    np.testing.assert_array_equal(task.constants['examples'], task.evaluation['images'][0, :8])
    assert not np.array_equal(task.arrays['x'], other.arrays['x'])


@pytest.mark.parametrize('addition', [False, True])
def test_a_number_of_training_images_is_distorted_once(addition):
    load = functools.partial(distorted.load, 'digits', 'RTS', addition=addition, num_test=30)
    few, others = load(num_train=20), load(num_train=20, seed=1)
    x = few.arrays['x']
    assert x.shape == (20, *few.shape) and x.dtype == np.uint8 and len(np.unique(x, axis=0)) == 20
    batches = [few.prepare(few.arrays, ROWS, jax.random.key(k)) for k in (0, 1)]
    np.testing.assert_array_equal(batches[0]['images'], batches[1]['images'])
    np.testing.assert_allclose(batches[0]['images'], x[:6] / 255, rtol=1e-6)
    np.testing.assert_array_equal(batches[0]['labels'], few.arrays['labels'][:6])
    assert not np.array_equal(x, others.arrays['x'])
    np.testing.assert_array_equal(few.evaluation['images'], others.evaluation['images'])


def test_sums_have_nineteen_classes_and_two_channels():
    task = distorted.load('digits', 'none', addition=True, num_test=30)
    assert task.shape == (8, 8, 2) and task.class_names[-1] == '18' and len(task.class_names) == 19
    batch = task.prepare(task.arrays, ROWS, jax.random.key(0))
    np.testing.assert_array_equal(batch['images'][..., :1], task.arrays['x'][ROWS])
    assert batch['labels'].sum() == 2 * task.arrays['labels'][ROWS].sum()


def test_uint8_images_are_brought_to_the_unit_interval():
    np.testing.assert_allclose(distorted.to_unit(np.array([0, 255], np.uint8)), [0, 1])
    np.testing.assert_allclose(distorted.to_unit(np.array([0.25], np.float32)), [0.25])


def test_more_training_images_than_there_are_is_refused():
    with pytest.raises(
        ValueError, match='digits has 1297 training images, got 3000 to distort; use at most 1297'
    ):
        distorted.load('digits', 'RTS', num_train=3000)
