"""Folds part the examples, no fold learns from what it is judged by, and every step is a function of its number."""

import numpy as np
import pytest

from lecture4.data import splits
from lecture4.data.text import cross_validation, vocabulary

RNG = np.random.default_rng(0)
ENCODED = [RNG.integers(2, 600, RNG.integers(0, 40)).astype(np.int32) for _ in range(103)]
LABELS = RNG.integers(0, 3, 103).astype(np.int32)
NONE_GIVEN = np.zeros(600, bool)


def test_assign_is_a_partition_of_equal_parts():
    fold = splits.assign(103, 10, seed=3)
    assert sorted(np.bincount(fold).tolist()) == [10] * 7 + [11] * 3
    np.testing.assert_array_equal(fold, splits.assign(103, 10, seed=3))
    assert (fold != splits.assign(103, 10, seed=4)).any()
    for n in (1, 104):
        with pytest.raises(ValueError, match=f'{n} folds of 103 examples: wanted 2 to 103'):
            splits.assign(103, n, seed=0)


def test_hold_out():
    rows = np.arange(100, 150)
    kept, out = splits.hold_out(rows, 0.1, seed=0)
    assert len(out) == 5 and sorted([*kept, *out]) == rows.tolist()
    with pytest.raises(ValueError, match=r'a share of 0\.9 of 1 rows'):
        splits.hold_out([3], 0.9, seed=0)


def test_split_of_a_set_in_one_piece():
    found = cross_validation.split({'all': np.arange(103)}, 10, 0.1, seed=0)
    assert sorted(np.concatenate([test for *_, test in found]).tolist()) == list(range(103))
    for parts in found:
        assert sorted(np.concatenate(parts).tolist()) == list(range(103))
        assert len(parts[1]) == 9


def test_split_of_a_set_with_splits_of_its_own():
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


def make(epochs=2, batch_size=8, known='train'):
    chosen = []
    for kept, dev, test in cross_validation.split({'all': np.arange(103)}, 4, 0.1, seed=0):
        words = cross_validation.known_words(ENCODED, kept, NONE_GIVEN)
        chosen.append(cross_validation.Fold(kept, dev, test, words | (known == 'all')))
    return cross_validation.make(
        ENCODED, LABELS, chosen, epochs=epochs, batch_size=batch_size, seed=5
    )


def sentences(words, labels):
    """Readable and comparable: words without zeros, and the label."""
    return sorted(
        (tuple(row[row != 0].tolist()), int(label))
        for row, label in zip(words, labels, strict=True)
    )


def as_read(fold, rows):
    """What a fold's network is to see of some sentences: words of its training sentences, 1 for others."""
    known = {int(word) for row in fold.train for word in ENCODED[row]}
    return sorted(
        (tuple(int(w) if int(w) in known else 1 for w in ENCODED[row]), int(LABELS[row]))
        for row in rows
    )


def test_an_epoch_shows_every_training_sentence_once():
    made = make()
    per_fold = 2 * (made.per_epoch + 1)
    assert made.n_steps == 4 * per_fold
    for fold in range(4):
        seen = []
        for n in range(per_fold):
            batch = made.at(fold * per_fold + n)
            if 'again' not in batch:
                words = batch['rows'].reshape(-1)[batch['words']]
                seen += zip(words, batch['labels'], strict=True)
        n_train = len(made.folds[fold].train)
        first = sentences(*zip(*seen[:n_train], strict=True))
        assert first == as_read(made.folds[fold], made.folds[fold].train)


def test_looks_show_the_held_out_sentences_and_hide_their_unknown_words():
    made = make()
    per_epoch = made.per_epoch + 1
    shapes = set()
    unknown = 0
    for look in range(8):
        batch = made.at((look + 1) * per_epoch - 1)
        fold = look // 2
        assert batch['again'].all() == batch['again'].any() == (look % 2 == 1 and fold < 3)
        shapes.add(tuple(sorted((name, value.shape) for name, value in batch.items())))
        assert all(len(value) % 8 == 0 for value in batch.values())
        for role in ('dev', 'test'):
            found = []
            for name, words in batch.items():
                if name.startswith(f'words_{role}'):
                    labels = batch[name.replace('words', 'labels')]
                    assert (words[labels < 0] == 0).all()
                    found += sentences(words[labels >= 0], labels[labels >= 0])
            assert sorted(found) == as_read(made.folds[fold], getattr(made.folds[fold], role))
            unknown += sum(words.count(1) for words, _ in found)
    assert len(shapes) == 1  # compiled once
    assert unknown > 0
    assert not any((value == 1).any() for n in range(len(shapes)) for name, value in
                   make(known='all').at(per_epoch - 1).items() if name.startswith('words'))  # fmt: skip


def test_given_words_are_known():
    given = NONE_GIVEN.copy()
    given[40] = True
    known = cross_validation.known_words([np.array([3, 5]), np.array([7])], [0], given)
    assert np.flatnonzero(known).tolist() == [0, 1, 3, 5, 40]


def test_steps_are_pure_and_their_shapes_few():
    made, again = make(), make()
    order = np.random.default_rng(1).permutation(made.n_steps)
    first = {n: made.at(n) for n in range(made.n_steps)}
    for n in order:
        for name, value in again.at(int(n)).items():
            np.testing.assert_array_equal(value, first[n][name])
    shapes = {
        (batch['words'].shape, batch['rows'].shape)
        for batch in first.values()
        if 'again' not in batch
    }
    assert all(words[1] in vocabulary.LENGTHS for words, _ in shapes)
    assert len({words for words, _ in shapes}) <= 3 and len(shapes) <= 12 < len(first) / 5
    orders = [first[fold * 2 * (made.per_epoch + 1)]['labels'].tolist() for fold in range(4)]
    assert len({tuple(order) for order in orders}) > 1
