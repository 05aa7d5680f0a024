import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture4.data import batches


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**40),
    n_examples=st.integers(1, 20),
    batch_size=st.integers(1, 50),
    other=st.integers(1, 7),
)
def test_the_stream_is_permutations_and_does_not_depend_on_the_batch_size(
    seed, n_examples, batch_size, other
):
    length = 3 * n_examples
    n_batches = -(-length // batch_size)
    stream = [batches.indices(seed, n, n_examples, batch_size) for n in range(n_batches)]
    assert all(b.shape == (batch_size,) and b.dtype == np.int32 for b in stream)
    stream = np.concatenate(stream)[:length]
    for epoch in stream.reshape(3, n_examples):
        assert sorted(epoch) == list(range(n_examples))
    same = [batches.indices(seed, n, n_examples, other) for n in range(-(-length // other))]
    np.testing.assert_array_equal(np.concatenate(same)[:length], stream)


def test_pure_function_of_its_arguments():
    first = batches.indices(3, 1000, 77, 10)
    for n in range(20):
        batches.indices(4, n, 77, 500)  # other calls, and a cache that has forgotten
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


def test_the_permutation_is_drawn_once_an_epoch():
    batches._permutation.cache_clear()
    for n in range(100):
        batches.indices(0, n, 1000, 10)
    assert batches._permutation.cache_info().misses == 1


@pytest.mark.parametrize('change', [{'seed': -1}, {'n': -1}, {'n_examples': 0}, {'batch_size': 0}])
def test_domain(change):
    with pytest.raises(ValueError, match='at least'):
        batches.indices(**{'seed': 0, 'n': 0, 'n_examples': 5, 'batch_size': 2} | change)
