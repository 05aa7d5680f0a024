"""Batch n as a pure function of (seed, n): resuming needs no iterator state."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(num_examples).astype(np.int32)
    order.flags.writeable = False  # the cached array is returned to every later call
    return order


def indices(
    seed: int, n: int, num_examples: int, batch_size: int
) -> Int32[np.ndarray, ' batch_size']:
    """Rows of batch n, sampled without replacement within each epoch.

    The stream is endless: epoch after epoch, each a permutation of all examples that depends on
    (seed, epoch) alone. Batch n is its positions n * batch_size to (n + 1) * batch_size - 1, and
    position p lies in epoch p // num_examples; so a batch may straddle epochs or be larger than the
    set, no example is ever dropped, and the order of the stream does not depend on the batch size.

    The batch is the global one. With P processes, process i takes the i-th of P parts, the rows from i * batch_size
    // P on: together they use the same batch as one process.

    Args:
      seed: Seed, >= 0.
      n: Number of the batch, >= 0.
      num_examples: Number of examples, 1 to 2^31 - 1.
      batch_size: Number of rows per batch, >= 1.

    Returns:
      [batch_size], values in 0..num_examples - 1.

    Raises:
      ValueError: An argument is outside its domain.
    """
    if seed < 0 or n < 0 or batch_size < 1 or not 1 <= num_examples < 2**31:
        raise ValueError(
            f'expected seed {seed} and n {n} of at least 0, batch_size {batch_size} of at least 1, '
            f'num_examples {num_examples} from 1 to 2^31 - 1'
        )
    first, end = n * batch_size, (n + 1) * batch_size
    parts = []
    for epoch in range(first // num_examples, (end - 1) // num_examples + 1):
        start = epoch * num_examples
        order = _permutation(seed, epoch, num_examples)
        parts.append(order[max(first - start, 0) : end - start])
    return np.concatenate(parts)


def balanced(
    labels: np.ndarray | Sequence[Any], batch_size: int, *, seed: int
) -> Callable[[int], np.ndarray]:
    """Batches in which all classes are equally frequent: frequent classes are downsampled.

    An epoch has m examples of every class, where m is the size of the rarest class, in random order. It takes the
    next m of an endless stream for each class (that of `indices`), so that over the epochs all examples of a frequent
    class are used equally often; an example occurs twice in an epoch only if the stream of its class starts a new
    permutation.

    Args:
      labels: [n], integers >= 0; a class without an example is ignored.
      batch_size: Number of rows per batch, >= 1.
      seed: Seed, >= 0.

    Returns:
      The function n -> int32 [batch_size] of rows, pure in (seed, n) like `indices`.

    Raises:
      ValueError: The labels are not integers [n], negative or empty; or as in `indices`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            'expected one integer label per example for at least one example, got shape '
            f'{labels.shape} and dtype {labels.dtype}'
        )
    if labels.min() < 0:
        raise ValueError(f'labels start at {labels.min()}; number the classes from 0')
    members = [np.flatnonzero(labels == c).astype(np.int32) for c in np.unique(labels)]
    rarest = min(map(len, members))
    length = rarest * len(members)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(len(members))]

    @functools.lru_cache(maxsize=2)
    def epoch(number):
        chosen = [
            rows[indices(class_seed, number, len(rows), rarest)]
            for rows, class_seed in zip(members, seeds, strict=True)
        ]
        return np.random.default_rng((seed, number)).permutation(np.concatenate(chosen))

    def batch(n: int) -> np.ndarray:
        positions = np.arange(n * batch_size, (n + 1) * batch_size)
        epochs = range(positions[0] // length, positions[-1] // length + 1)
        rows = np.concatenate([epoch(number) for number in epochs])
        return rows[positions - epochs[0] * length]

    indices(seed, 0, len(labels), batch_size)  # raises its errors before the first batch
    return batch


def chunks(arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Arrays [n, ...] as chunks [m, size, ...] of one shape, for evaluation chunk by chunk.

    Args:
      arrays: Name -> array, all of the same length n >= 1.
      size: Number of rows per chunk; fewer if n is smaller.

    Returns:
      The chunks, with the last one padded by first rows, and 'mask' bool [m, size], False for padding.
    """
    n = len(next(iter(arrays.values())))
    size = min(size, n)
    rows = np.arange(-(-n // size) * size)
    result = {name: array[rows % n] for name, array in arrays.items()} | {'mask': rows < n}
    return {name: array.reshape(-1, size, *array.shape[1:]) for name, array in result.items()}


def sample_chunks(
    arrays: dict[str, Any], num_examples: int, size: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Random examples of a set as whole chunks [m, size, ...], for evaluations during training.

    Args:
      arrays: Name -> array [n, ...], or an object indexed like one; all of the same length.
      num_examples: Largest number of examples; a last incomplete chunk is left out.
      size: Number of rows per chunk; fewer if there are fewer examples.
      seed: Seed of the random choice.
    """
    n = len(next(iter(arrays.values())))
    num_examples = min(num_examples, n)
    size = min(size, num_examples)
    rows = np.random.default_rng(seed).permutation(n)[: num_examples // size * size]
    return {name: array[rows.reshape(-1, size)] for name, array in arrays.items()}


def subsample_minority(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of an imbalanced set: all examples of the first half of the classes, few of the others.

    Args:
      labels: [n], integers from 0.
      fraction: Fraction of the examples of every class of the second half to keep, at least one each.
      seed: Seed of the random choice.

    Returns:
      int32 rows, ascending.
    """
    rng = np.random.default_rng((seed, 1))
    rows = [np.flatnonzero(labels == c) for c in range(int(labels.max()) + 1)]
    for c in range(len(rows) // 2, len(rows)):
        num_kept = min(len(rows[c]), max(1, round(fraction * len(rows[c]))))
        rows[c] = rng.choice(rows[c], num_kept, replace=False)
    return np.sort(np.concatenate(rows)).astype(np.int32)
