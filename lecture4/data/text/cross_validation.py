"""Cross-validation over sentences as a sequence of steps: in every epoch of every fold, batches and then an evaluation.

Step n is a function of (seed, n): the last step of an epoch evaluates the held-out sentences,
the others train. So one run covers a whole cross-validation, and may be interrupted and resumed at any step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from lecture4.data import batches, splits
from lecture4.data.text import vocabulary

Encoded = Sequence[Int[np.ndarray, ' _length']]
Rows = Int[np.ndarray, ' _n']


class Fold(NamedTuple):
    """Rows of the training, development and test sentences, and the mask of known words [v]."""

    train: Rows
    dev: Rows
    test: Rows
    known: Bool[np.ndarray, ' v']


class CrossValidation(NamedTuple):
    """The steps of all folds.

    Attributes:
      batch: n -> a training batch: rows int [n, r] and words int [n, t] as `vocabulary.distinct`
        returns them, labels int [n]; or an evaluation: words_dev_T, labels_dev_T, words_test_T,
        labels_test_T for some lengths T, words indexed in the whole vocabulary, label -1 in rows of
        padding, and `restart`: whether another fold follows, which starts from new parameters.
      folds: The folds.
      batches_per_epoch: Number of training batches in an epoch.
      num_steps: Number of steps of all folds.
    """

    batch: Callable[[int], dict[str, np.ndarray]]
    folds: tuple[Fold, ...]
    batches_per_epoch: int
    num_steps: int


def split(
    rows: Mapping[str, Rows], num_folds: int, dev_fraction: float, seed: int
) -> list[tuple[Rows, Rows, Rows]]:
    """The rows of every fold, from the rows of a set's own splits.

    Args:
      rows: {'all': rows} gives num_folds folds; {'train': rows, 'test': rows} gives one.
      num_folds: Number of folds of a set without splits.
      dev_fraction: Fraction of the training rows, held out at random where there is no 'dev'.
      seed: Seed of the folds and of the held-out rows.

    Returns:
      (train, dev, test) of each fold.
    """
    if 'all' in rows:
        fold = splits.assign_folds(len(rows['all']), num_folds, seed)
        pairs = [(rows['all'][fold != i], rows['all'][fold == i]) for i in range(num_folds)]
    else:
        pairs = [(rows['train'], rows['test'])]
    if 'dev' in rows:
        return [(train, rows['dev'], test) for train, test in pairs]
    held_out = [splits.hold_out(train, dev_fraction, seed) for train, _ in pairs]
    return [(train, dev, test) for (train, dev), (_, test) in zip(held_out, pairs, strict=True)]


def known_words(
    encoded: Encoded, rows: Rows | Sequence[int], always_known: Bool[np.ndarray, ' v']
) -> Bool[np.ndarray, ' v']:
    """Mask of the words [v] that occur in the sentences `rows` or are always known."""
    known = always_known.copy()
    known[[vocabulary.PADDING, vocabulary.UNKNOWN]] = True
    for row in rows:
        known[encoded[row]] = True
    return known


def assign(
    encoded: Encoded,
    rows: Mapping[str, Rows],
    always_known: Bool[np.ndarray, ' v'],
    *,
    num_folds: int,
    dev_fraction: float,
    seed: int,
    all_known: bool = False,
) -> list[Fold]:
    """The folds of a set with their known words: those of the training sentences, and some that are always known.

    Args:
      encoded: All sentences.
      rows: Rows of the set's own splits; this and the next as in `split`.
      always_known: Mask of the words [v] that are always known, such as those with a pretrained vector.
      num_folds: See `split`.
      dev_fraction: See `split`.
      seed: See `split`.
      all_known: Whether every fold knows all words.
    """
    return [
        Fold(train, dev, test, known_words(encoded, train, always_known) | all_known)
        for train, dev, test in split(rows, num_folds, dev_fraction, seed)
    ]


def pad_by_length(
    encoded: Encoded, rows: Rows, known: Bool[np.ndarray, ' v']
) -> dict[int, tuple[Rows, Int32[np.ndarray, '_n _t']]]:
    """Sentences by length, as inputs of a fold's network: {T: (their rows, words [n, T])}."""
    groups = {}
    for length, inside in vocabulary.group_by_length([encoded[row] for row in rows]).items():
        words = vocabulary.pad([encoded[row] for row in rows[inside]], length)
        groups[length] = rows[inside], np.where(known[words], words, np.int32(vocabulary.UNKNOWN))
    return groups


def create(
    encoded: Encoded,
    labels: Int[np.ndarray, ' n'],
    folds: Sequence[Fold],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> CrossValidation:
    """The steps of some folds.

    Words that are not known in a fold become the unknown word. An epoch uses every training sentence once; the last
    batch of an epoch extends into the next epoch. Evaluations have one shape for all folds.

    Args:
      encoded: n sentences, as `vocabulary.encode` returns them.
      labels: [n].
      folds: Rows and known words.
      epochs: Number of epochs per fold.
      batch_size: Number of sentences per batch.
      seed: Seed of the batches; every fold has a different order.
    """
    batches_per_epoch = max(-(-len(fold.train) // batch_size) for fold in folds)
    steps_per_fold = epochs * (batches_per_epoch + 1)

    groups_of_folds = [
        {
            f'{role}_{length}': group
            for role, rows in (('dev', fold.dev), ('test', fold.test))
            for length, group in pad_by_length(encoded, rows, fold.known).items()
        }
        for fold in folds
    ]
    names = sorted({name for groups in groups_of_folds for name in groups})
    max_rows = {
        name: max(len(groups[name][0]) for groups in groups_of_folds if name in groups)
        for name in names
    }

    def evaluation(fold):
        arrays = {}
        for name in names:
            empty = np.zeros(0, int), np.zeros((0, int(name.rpartition('_')[2])), np.int32)
            rows, words = groups_of_folds[fold].get(name, empty)
            num_padding = -(-max_rows[name] // batch_size) * batch_size - len(rows)
            arrays[f'words_{name}'] = np.pad(words, ((0, num_padding), (0, 0)))
            arrays[f'labels_{name}'] = np.pad(labels[rows], (0, num_padding), constant_values=-1)
        return arrays

    cached: dict[int, dict] = {}

    def batch(n: int) -> dict[str, np.ndarray]:
        fold, step = divmod(n, steps_per_fold)
        epoch, step = divmod(step, batches_per_epoch + 1)
        if step == batches_per_epoch:
            if fold not in cached:
                cached.clear()
                cached[fold] = evaluation(fold)
            restart = epoch == epochs - 1 and fold + 1 < len(folds)
            return cached[fold] | {'restart': np.full(batch_size, restart)}
        train = folds[fold].train
        stream = (fold << 32) + seed  # a different order for every fold
        rows = train[
            batches.indices(stream, epoch * batches_per_epoch + step, len(train), batch_size)
        ]
        words = vocabulary.pad([encoded[row] for row in rows])
        distinct_words, local = vocabulary.distinct(words)
        return {'rows': distinct_words, 'words': local, 'labels': labels[rows]}

    return CrossValidation(batch, tuple(folds), batches_per_epoch, len(folds) * steps_per_fold)
