"""Batches computed ahead of the steps that use them."""

from collections.abc import Callable
from typing import Any

import numpy as np


def prefetch(batch_fn: Callable[[int], Any], num_batches: int = 2) -> Callable[[int], Any]:
    """The same pure function n -> batch, with the next batches computed by threads while a step runs.

    A call for any batch other than the one after the last call restarts from there. Errors of
    `batch_fn` are raised by the call for their batch.

    Args:
      batch_fn: n -> batch.
      num_batches: Number of batches computed ahead, and of threads.
    """
    import grain

    options = grain.ReadOptions(num_threads=num_batches, prefetch_buffer_size=num_batches)
    next_n, stream = -1, iter(())

    def batch(n: int):
        nonlocal next_n, stream
        if n != next_n:
            numbers = grain.MapDataset.range(n, np.iinfo(np.int64).max)
            stream = iter(numbers.map(batch_fn).to_iter_dataset(options))
        next_n = n + 1
        return next(stream)

    return batch
