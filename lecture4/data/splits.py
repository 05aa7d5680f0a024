"""Folds for cross-validation, and a held-out share of the rest, as functions of the seed."""

import numpy as np


def assign(n_examples: int, n_folds: int, seed: int) -> np.ndarray:
    """The fold of every example: a random partition into folds whose sizes differ by at most one.

    Shapes  returns int32 [n_examples], values in 0..n_folds-1.
    Errors  ValueError where there are fewer examples than folds, or fewer than two folds.
    """
    if not 2 <= n_folds <= n_examples:
        raise ValueError(
            f'{n_folds} folds of {n_examples} examples: wanted 2 to {n_examples} folds'
        )
    order = np.random.default_rng((seed, n_folds)).permutation(n_examples)
    fold = np.empty(n_examples, np.int32)
    fold[order] = np.arange(n_examples) % n_folds
    return fold


def hold_out(rows, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): a random `share` of the rows, at least one, is held out. Both are in rising order.

    Errors  ValueError where nothing would be kept, or the share is not between 0 and 1.
    """
    rows = np.asarray(rows)
    n_out = max(round(share * len(rows)), 1)
    if not 0 < share < 1 or n_out >= len(rows):
        raise ValueError(
            f'a share of {share} of {len(rows)} rows cannot be held out; use a share between 0 and 1'
        )
    order = np.random.default_rng((seed, len(rows))).permutation(rows)
    return np.sort(order[n_out:]), np.sort(order[:n_out])
