"""Folds for cross-validation, and held-out fractions, as functions of the seed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32


def assign_folds(num_examples: int, num_folds: int, seed: int) -> Int32[np.ndarray, ' n']:
    """The fold of every example: a random partition into folds whose sizes differ by at most one.

    Args:
      num_examples: Number of examples n.
      num_folds: Number of folds, 2 to n.
      seed: Seed of the permutation.

    Returns:
      [n], values in 0..num_folds - 1.

    Raises:
      ValueError: There are fewer examples than folds, or fewer than two folds.
    """
    if not 2 <= num_folds <= num_examples:
        raise ValueError(
            f'expected 2 to {num_examples} folds of {num_examples} examples, got {num_folds}'
        )
    order = np.random.default_rng((seed, num_folds)).permutation(num_examples)
    fold = np.empty(num_examples, np.int32)
    fold[order] = np.arange(num_examples) % num_folds
    return fold


def hold_out(
    rows: Int[np.ndarray, ' n'] | Sequence[int], fraction: float, seed: int
) -> tuple[Int[np.ndarray, ' k'], Int[np.ndarray, ' m']]:
    """Hold out a random fraction of the rows.

    Args:
      rows: Integers [n].
      fraction: Fraction of the rows, strictly between 0 and 1; at least one row is held out.
      seed: Seed of the random choice.

    Returns:
      (remaining, held out), each in ascending order.

    Raises:
      ValueError: No row would remain, or the fraction is not between 0 and 1.
    """
    rows = np.asarray(rows)
    num_held_out = max(round(fraction * len(rows)), 1)
    if not 0 < fraction < 1 or num_held_out >= len(rows):
        raise ValueError(
            f'cannot hold out a fraction of {fraction} of {len(rows)} rows; use a fraction between '
            '0 and 1 that leaves at least one row'
        )
    order = np.random.default_rng((seed, len(rows))).permutation(rows)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])
