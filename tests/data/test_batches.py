import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture4.data import batches


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**40),
    num_examples=st.integers(1, 20),
    batch_size=st.integers(1, 50),
    other=st.integers(1, 7),
)
def test_the_stream_does_not_depend_on_the_batch_size(seed, num_examples, batch_size, other):
    length = 3 * num_examples
    num_batches = -(-length // batch_size)
    stream = [batches.indices(seed, n, num_examples, batch_size) for n in range(num_batches)]
    assert all(b.shape == (batch_size,) and b.dtype == np.int32 for b in stream)
    stream = np.concatenate(stream)[:length]
    for epoch in stream.reshape(3, num_examples):
        assert sorted(epoch) == list(range(num_examples))
    same = [batches.indices(seed, n, num_examples, other) for n in range(-(-length // other))]
    np.testing.assert_array_equal(np.concatenate(same)[:length], stream)


def test_pure_function_of_its_arguments():
    first = batches.indices(3, 1000, 77, 10)
    for n in range(20):
        batches.indices(4, n, 77, 500)  # other calls, and a cache that has evicted it
    first_again = batches.indices(3, 1000, 77, 10)
    np.testing.assert_array_equal(first, first_again)
    first_again[:] = -1  # the caller's own copy
    np.testing.assert_array_equal(batches.indices(3, 1000, 77, 10), first)


def test_seed_and_epoch_change_the_order():
    def epoch(seed, n):
        return tuple(batches.indices(seed, n, 100, 100))

    assert len({epoch(seed, n) for seed in range(3) for n in range(3)}) == 9


def test_uniform_over_permutations():
    seen = [tuple(batches.indices(0, n, 3, 3)) for n in range(1200)]
    counts = [seen.count(order) for order in sorted(set(seen))]
    assert len(counts) == 6
    assert sum((c - 200) ** 2 / 200 for c in counts) < 20.5  # chi squared, 5 degrees, p = 0.001


def test_the_permutation_is_drawn_once_per_epoch():
    batches._permutation.cache_clear()
    for n in range(100):
        batches.indices(0, n, 1000, 10)
    assert batches._permutation.cache_info().misses == 1


@pytest.mark.parametrize(
    'change', [{'seed': -1}, {'n': -1}, {'num_examples': 0}, {'batch_size': 0}]
)
def test_domain(change):
    with pytest.raises(ValueError, match='at least'):
        batches.indices(**{'seed': 0, 'n': 0, 'num_examples': 5, 'batch_size': 2} | change)


UNEVEN = np.array([0] * 5 + [3] * 40 + [1] * 8)


@pytest.mark.parametrize('batch_size', [1, 7, 15, 64])
def test_balanced_epochs_have_equally_many_of_every_class(batch_size):
    batch = batches.balanced(UNEVEN, batch_size, seed=2)
    rows = np.concatenate([batch(n) for n in range(-(-240 // batch_size))])[:240]
    assert rows.dtype == np.int32 and batch(0).shape == (batch_size,)
    epochs = rows.reshape(16, 15)
    for epoch in epochs:
        assert len(set(epoch[UNEVEN[epoch] != 1])) == 10  # (8 in pieces of 5: one may occur twice)
        np.testing.assert_array_equal(np.bincount(UNEVEN[epoch]), [5, 5, 0, 5])
    # the frequent class, 40 examples of which 5 are in each epoch, is covered in 8
    frequent = rows[UNEVEN[rows] == 3].reshape(2, 40)
    for round_of_all in frequent:
        assert sorted(round_of_all) == list(range(5, 45))
    assert not np.array_equal(frequent[0], frequent[1])
    assert len({tuple(np.flatnonzero(UNEVEN[epoch] == 0)) for epoch in epochs}) > 8  # shuffled


def test_balanced_is_a_pure_function_of_seed_and_number():
    batch = batches.balanced(UNEVEN, 4, seed=2)
    forward = [batch(n) for n in range(30)]
    again = batches.balanced(UNEVEN, 4, seed=2)
    for n in reversed(range(30)):
        np.testing.assert_array_equal(again(n), forward[n])
    other = batches.balanced(UNEVEN, 4, seed=3)
    assert not np.array_equal(np.concatenate([other(n) for n in range(30)]), np.ravel(forward))


def test_balanced_classes_have_streams_of_their_own():
    labels = np.repeat([0, 1], 50)
    batch = batches.balanced(np.append(labels, 2), 3, seed=0)  # one of each class an epoch
    rows = np.concatenate([batch(n) for n in range(40)])
    first, second = (rows[rows // 50 == c] % 50 for c in (0, 1))
    assert (first == second).mean() < 0.3


@pytest.mark.parametrize(
    'labels, match',
    [
        ([], 'at least one example'),
        ([[1], [0]], r'shape \(2, 1\)'),
        ([0.0, 1.0], 'dtype float64'),
        ([1, -1, 0], 'labels start at -1; number the classes from 0'),
    ],
)
def test_balanced_refuses_invalid_labels(labels, match):
    with pytest.raises(ValueError, match=match):
        batches.balanced(labels, 4, seed=0)
    with pytest.raises(ValueError, match='at least'):
        batches.balanced([0, 1], 0, seed=0)


def test_sampled_chunks_are_whole_and_their_rows_distinct():
    arrays = {'x': np.arange(20) * 10, 'labels': np.arange(20)}
    chunks = batches.sample_chunks(arrays, 11, 4, seed=3)
    assert chunks['x'].shape == (2, 4) and len(set(chunks['x'].ravel())) == 8
    np.testing.assert_array_equal(chunks['x'], 10 * chunks['labels'])
    assert batches.sample_chunks(arrays, 3, 8, seed=3)['x'].shape == (1, 3)
