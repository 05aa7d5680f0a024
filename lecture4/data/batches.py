"""Batch n as a pure function of (seed, n): resuming needs no iterator state."""

import functools

import numpy as np


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n_examples: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(n_examples).astype(np.int32)
    order.flags.writeable = False  # the cached array is handed to every later call
    return order


def indices(seed: int, n: int, n_examples: int, batch_size: int) -> np.ndarray:
    """Rows of batch n, drawn without replacement within each epoch.

    The stream is endless: epoch after epoch, each a permutation of all examples that depends on
    (seed, epoch) alone. Batch n is its positions n * batch_size to (n + 1) * batch_size - 1, and
    position p lies in epoch p // n_examples; so a batch may straddle epochs or be larger than the
    set, no example is ever dropped, and the order of the stream does not depend on the batch size.

    The batch is the global one. Of P processes, process i takes its P-th part, the rows from
    i * batch_size // P on: together they see what one process would.

    Shapes  returns int32 [batch_size], values in 0..n_examples-1.
    Domain  seed >= 0, n >= 0, 1 <= n_examples < 2^31, batch_size >= 1.
    Errors  ValueError outside the domain, naming the value.
    """
    if seed < 0 or n < 0 or batch_size < 1 or not 1 <= n_examples < 2**31:
        raise ValueError(
            f'seed {seed} and n {n} have to be at least 0, batch_size {batch_size} at least 1, '
            f'n_examples {n_examples} from 1 to 2^31 - 1'
        )
    first, end = n * batch_size, (n + 1) * batch_size
    parts = []
    for epoch in range(first // n_examples, (end - 1) // n_examples + 1):
        start = epoch * n_examples
        order = _permutation(seed, epoch, n_examples)
        parts.append(order[max(first - start, 0) : end - start])
    return np.concatenate(parts)
