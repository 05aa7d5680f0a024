"""Batches made ahead against the function itself."""

import time

import pytest

from lecture4.data.dataset import DataError
from lecture4.data.images.prefetch import prefetch


def test_prefetched_batches_equal_the_function_in_any_order():
    made = []

    def batch(n):
        made.append(n)
        return n**2

    order = [5, 6, 7, 7, 2, 3, 4, 5]
    ahead = prefetch(batch, 2)
    assert [ahead(n) for n in order] == [n**2 for n in order]
    deadline = time.monotonic() + 10
    while 7 not in made[made.index(2) :] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {6, 7} <= set(made[made.index(2) :]), 'two batches are made in advance'
    assert max(made[made.index(2) :]) <= 8


def test_errors_are_raised_by_the_call_for_their_batch():
    def batch(n):
        if n == 3:
            raise DataError('3.png cannot be read')
        return n

    ahead = prefetch(batch)
    assert [ahead(1), ahead(2)] == [1, 2]
    with pytest.raises(DataError, match='cannot be read'):
        ahead(3)
    assert ahead(4) == 4
