"""Folds partition the examples, none trains on its test sentences, and every step is a function of its number."""

import numpy as np
import pytest

from lecture4.data import splits
from lecture4.data.text import cross_validation, vocabulary

RNG = np.random.default_rng(0)
ENCODED = [RNG.integers(2, 600, RNG.integers(0, 40)).astype(np.int32) for _ in range(103)]
LABELS = RNG.integers(0, 3, 103).astype(np.int32)
NONE_KNOWN = np.zeros(600, bool)


def test_assign_is_a_partition_of_equal_parts():
    fold = splits.assign_folds(103, 10, seed=3)
    assert sorted(np.bincount(fold).tolist()) == [10] * 7 + [11] * 3
    np.testing.assert_array_equal(fold, splits.assign_folds(103, 10, seed=3))
    assert (fold != splits.assign_folds(103, 10, seed=4)).any()
    for n in (1, 104):
        with pytest.raises(ValueError, match=f'expected 2 to 103 folds of 103 examples, got {n}'):
            splits.assign_folds(103, n, seed=0)


def test_hold_out():
    rows = np.arange(100, 150)
    train, out = splits.hold_out(rows, 0.1, seed=0)
    assert len(out) == 5 and sorted([*train, *out]) == rows.tolist()
    with pytest.raises(ValueError, match=r'a fraction of 0\.9 of 1 rows'):
        splits.hold_out([3], 0.9, seed=0)


def test_folds_of_a_set_without_splits():
    folds = cross_validation.split({'all': np.arange(103)}, 10, 0.1, seed=0)
    assert sorted(np.concatenate([test for *_, test in folds]).tolist()) == list(range(103))
    for parts in folds:
        assert sorted(np.concatenate(parts).tolist()) == list(range(103))
        assert len(parts[1]) == 9


def test_one_fold_of_a_set_with_splits():
    parts = {'train': np.arange(60), 'test': np.arange(60, 103)}
    ((train, dev, test),) = cross_validation.split(parts, 10, 0.1, seed=0)
    assert (
        sorted([*train, *dev]) == list(range(60))
        and len(dev) == 6
        and test.tolist() == list(range(60, 103))
    )
    parts |= {'dev': np.arange(50, 60), 'train': np.arange(50)}
    ((train, dev, test),) = cross_validation.split(parts, 10, 0.1, seed=0)
    assert dev.tolist() == list(range(50, 60)) and train.tolist() == list(range(50))


def create(epochs=2, batch_size=8, known='train'):
    folds = []
    for train, dev, test in cross_validation.split({'all': np.arange(103)}, 4, 0.1, seed=0):
        words = cross_validation.known_words(ENCODED, train, NONE_KNOWN)
        folds.append(cross_validation.Fold(train, dev, test, words | (known == 'all')))
    return cross_validation.create(
        ENCODED, LABELS, folds, epochs=epochs, batch_size=batch_size, seed=5
    )


def sentences(words, labels):
    """Readable and comparable: words without zeros, and the label."""
    return sorted(
        (tuple(row[row != 0].tolist()), int(label))
        for row, label in zip(words, labels, strict=True)
    )


def as_read(fold, rows):
    """What a fold's network should read of some sentences: words of its training sentences, 1 for others."""
    known = {int(word) for row in fold.train for word in ENCODED[row]}
    return sorted(
        (tuple(int(w) if int(w) in known else 1 for w in ENCODED[row]), int(LABELS[row]))
        for row in rows
    )


def test_every_epoch_shows_each_training_sentence_once():
    cv = create()
    per_fold = 2 * (cv.batches_per_epoch + 1)
    assert cv.num_steps == 4 * per_fold
    for fold in range(4):
        seen = []
        for n in range(per_fold):
            batch = cv.batch(fold * per_fold + n)
            if 'restart' not in batch:
                words = batch['rows'].reshape(-1)[batch['words']]
                seen += zip(words, batch['labels'], strict=True)
        n_train = len(cv.folds[fold].train)
        for epoch in range(2):
            part = seen[epoch * n_train : (epoch + 1) * n_train]
            shown = sentences(*zip(*part, strict=True))
            assert shown == as_read(cv.folds[fold], cv.folds[fold].train)


def test_evaluations_hide_unknown_words_of_held_out_sentences():
    cv = create()
    steps_per_epoch = cv.batches_per_epoch + 1
    shapes = set()
    unknown = 0
    for number in range(8):
        batch = cv.batch((number + 1) * steps_per_epoch - 1)
        fold = number // 2
        assert batch['restart'].all() == batch['restart'].any() == (number % 2 == 1 and fold < 3)
        shapes.add(tuple(sorted((name, value.shape) for name, value in batch.items())))
        assert all(len(value) % 8 == 0 for value in batch.values())
        for role in ('dev', 'test'):
            sentences_read = []
            for name, words in batch.items():
                if name.startswith(f'words_{role}'):
                    labels = batch[name.replace('words', 'labels')]
                    assert (words[labels < 0] == 0).all()
                    sentences_read += sentences(words[labels >= 0], labels[labels >= 0])
            assert sorted(sentences_read) == as_read(cv.folds[fold], getattr(cv.folds[fold], role))
            unknown += sum(words.count(1) for words, _ in sentences_read)
    assert len(shapes) == 1  # compiled once
    assert unknown > 0
    assert not any(
        (value == 1).any()
        for n in range(len(shapes))
        for name, value in create(known='all').batch(steps_per_epoch - 1).items()
        if name.startswith('words')
    )


def test_words_with_vectors_are_known():
    always = NONE_KNOWN.copy()
    always[40] = True
    known = cross_validation.known_words([np.array([3, 5]), np.array([7])], [0], always)
    assert np.flatnonzero(known).tolist() == [0, 1, 3, 5, 40]


def test_steps_are_pure_and_their_shapes_few():
    cv, other = create(), create()
    order = np.random.default_rng(1).permutation(cv.num_steps)
    first = {n: cv.batch(n) for n in range(cv.num_steps)}
    for n in order:
        for name, value in other.batch(int(n)).items():
            np.testing.assert_array_equal(value, first[n][name])
    shapes = {
        (batch['words'].shape, batch['rows'].shape)
        for batch in first.values()
        if 'restart' not in batch
    }
    assert all(words[1] in vocabulary.LENGTHS for words, _ in shapes)
    assert len({words for words, _ in shapes}) <= 3 and len(shapes) <= 12 < len(first) / 5
    orders = [first[fold * 2 * (cv.batches_per_epoch + 1)]['labels'].tolist() for fold in range(4)]
    assert len({tuple(order) for order in orders}) > 1
