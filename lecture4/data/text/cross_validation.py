"""Sentences in rounds: fold after fold, epoch after epoch, batches and then a look at what is held out.

Step n of the whole is a function of (seed, n): the last step of an epoch is a look, the others are batches. So one run
covers a cross-validation, and may be broken off and resumed at any step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lecture4.data import batches, splits
from lecture4.data.text import vocabulary


class Fold(NamedTuple):
    """Rows of the training, development and test sentences, and the words that are known [v]."""

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    known: np.ndarray


class Rounds(NamedTuple):
    """What `make` makes.

    at         n -> a batch: rows int [n, r] and words int [n, t] as `vocabulary.distinct` has them, labels int [n];
               or a look: words_dev_T, labels_dev_T, words_test_T, labels_test_T for some lengths T, words numbered in
               the whole vocabulary, label -1 in rows that only fill up, and `again`: whether a fold follows.
    folds      the folds.
    per_epoch  batches of an epoch.
    n_steps    steps of all folds.
    """

    at: Callable[[int], dict[str, np.ndarray]]
    splits: tuple[Fold, ...]
    per_epoch: int
    n_steps: int


def split(
    parts: dict[str, np.ndarray], n_folds: int, dev_share: float, seed: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(train, dev, test) rows of every fold, from the rows of a set's own splits.

    A set in one piece ('all') gives n_folds folds, another one. Where there is no 'dev', a random `dev_share` of the
    training rows is held out.
    """
    if 'all' in parts:
        rows = parts['all']
        fold = splits.assign(len(rows), n_folds, seed)
        pairs = [(rows[fold != i], rows[fold == i]) for i in range(n_folds)]
    else:
        pairs = [(parts['train'], parts['test'])]
    if 'dev' in parts:
        return [(train, parts['dev'], test) for train, test in pairs]
    held = [splits.hold_out(train, dev_share, seed) for train, _ in pairs]
    return [(train, dev, test) for (train, dev), (_, test) in zip(held, pairs, strict=True)]


def known_words(encoded: Sequence[np.ndarray], rows, given: np.ndarray) -> np.ndarray:
    """Words that the sentences `rows` hold, or that are `given` anyway.  Shapes: given bool [v] -> bool [v]."""
    known = given.copy()
    known[[vocabulary.PADDING, vocabulary.UNKNOWN]] = True
    for row in rows:
        known[encoded[row]] = True
    return known


def padded(
    encoded: Sequence[np.ndarray], rows: np.ndarray, known: np.ndarray
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Sentences by length, as a fold's network reads them: {T: (their rows, words int32 [n, T])}."""
    groups = {}
    for length, inside in vocabulary.by_length([encoded[row] for row in rows]).items():
        words = vocabulary.pad([encoded[row] for row in rows[inside]], length)
        groups[length] = rows[inside], np.where(known[words], words, np.int32(vocabulary.UNKNOWN))
    return groups


def make(
    encoded: Sequence[np.ndarray],
    labels: np.ndarray,
    chosen: Sequence[Fold],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Rounds:
    """The rounds of some folds. Words that a fold does not know are read as unknown.

    An epoch shows every training sentence once; the last batch of an epoch reaches into the next one's. Looks have one
    shape for all folds.
    """
    per_epoch = max(-(-len(fold.train) // batch_size) for fold in chosen)
    per_fold = epochs * (per_epoch + 1)

    grouped = [
        {
            f'{role}_{length}': group
            for role, rows in (('dev', fold.dev), ('test', fold.test))
            for length, group in padded(encoded, rows, fold.known).items()
        }
        for fold in chosen
    ]
    names = sorted({name for groups in grouped for name in groups})
    most = {name: max(len(g[name][0]) for g in grouped if name in g) for name in names}

    def look(fold):
        arrays = {}
        for name in names:
            none = np.zeros(0, int), np.zeros((0, int(name.rpartition('_')[2])), np.int32)
            rows, words = grouped[fold].get(name, none)
            n_filling = -(-most[name] // batch_size) * batch_size - len(rows)
            arrays[f'words_{name}'] = np.pad(words, ((0, n_filling), (0, 0)))
            arrays[f'labels_{name}'] = np.pad(labels[rows], (0, n_filling), constant_values=-1)
        return arrays

    looks: dict[int, dict] = {}

    def at(n):
        fold, step = divmod(n, per_fold)
        epoch, step = divmod(step, per_epoch + 1)
        if step == per_epoch:
            if fold not in looks:
                looks.clear()
                looks[fold] = look(fold)
            again = epoch == epochs - 1 and fold + 1 < len(chosen)
            return looks[fold] | {'again': np.full(batch_size, again)}
        train = chosen[fold].train
        stream = (fold << 32) + seed  # every fold has an order of its own
        rows = train[batches.indices(stream, epoch * per_epoch + step, len(train), batch_size)]
        words = vocabulary.pad([encoded[row] for row in rows])
        dealt, local = vocabulary.distinct(words)
        return {'rows': dealt, 'words': local, 'labels': labels[rows]}

    return Rounds(at, tuple(chosen), per_epoch, len(chosen) * per_fold)
