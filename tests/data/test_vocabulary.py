"""Words are indexed by frequency, sentences padded to few shapes, and nothing is lost."""

import numpy as np
import pytest

from lecture4.data.text import vocabulary

SENTENCES = [('b', 'a', 'b'), (), ('c', 'a', 'b', 'd')]


def test_build_and_encode():
    words = vocabulary.build(SENTENCES)
    assert (
        words.words == ('<padding>', '<unknown>', 'b', 'a', 'c', 'd') and len(words.word_index) == 4
    )
    encoded = vocabulary.encode(words, [('a', 'x', 'd'), ()])
    assert [row.tolist() for row in encoded] == [[3, 1, 5], []]
    assert all(row.dtype == np.int32 for row in encoded)
    assert vocabulary.build(SENTENCES, min_count=2).words[2:] == ('b', 'a')
    assert '<unknown>' not in words.word_index  # a text may have that word


def test_max_length():
    words = vocabulary.build(SENTENCES)
    with pytest.raises(ValueError, match='sentence 2 has 4 words, expected at most 3'):
        vocabulary.encode(words, SENTENCES, max_length=3)
    truncated = vocabulary.encode(words, SENTENCES, max_length=3, truncate=True)
    assert [len(row) for row in truncated] == [3, 0, 3] and truncated[2].tolist() == [4, 3, 2]
    assert [len(row) for row in vocabulary.encode(words, SENTENCES)] == [3, 0, 4]


def test_pad():
    encoded = vocabulary.encode(vocabulary.build(SENTENCES), SENTENCES)
    assert vocabulary.pad(encoded).shape == (3, 16)
    padded = vocabulary.pad(encoded, 5)
    assert (
        padded.tolist() == [[2, 3, 2, 0, 0], [0] * 5, [4, 3, 2, 5, 0]] and padded.dtype == np.int32
    )
    with pytest.raises(ValueError, match='4 words, expected at most 3, the length'):
        vocabulary.pad(encoded, 3)
    assert vocabulary.pad([], 4).shape == (0, 4)


def test_lengths():
    assert [vocabulary.length_for(n, (4, 8)) for n in (0, 4, 5, 8)] == [4, 4, 8, 8]
    with pytest.raises(
        ValueError, match=r'9 words, expected at most 8, the largest of the lengths'
    ):
        vocabulary.length_for(9, (4, 8))
    encoded = [np.ones(n, np.int32) for n in (3, 8, 4, 0, 5)]
    groups = vocabulary.group_by_length(encoded, (4, 8, 16))
    assert {length: rows.tolist() for length, rows in groups.items()} == {4: [0, 2, 3], 8: [1, 4]}


@pytest.mark.parametrize('seed', range(4))
def test_distinct_rows_rebuild_the_batch(seed):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 30, (6, 11)).astype(np.int32) * rng.integers(0, 2, (6, 11))
    rows, local = vocabulary.distinct(words)
    assert rows.dtype == local.dtype == np.int32 and rows.shape[0] == 6
    np.testing.assert_array_equal(rows.reshape(-1)[local], words)
    assert rows[0, 0] == 0 and ((local == 0) == (words == 0)).all()
    used = rows[rows != 0]
    assert len(set(used.tolist())) == len(used)
    assert rows.size < 1.25 * (len(used) + 1) + 6


def test_distinct_has_few_shapes():
    sizes = set()
    for n_words in range(1, 400):
        words = np.arange(n_words, dtype=np.int32)[None]
        rows, local = vocabulary.distinct(words)
        np.testing.assert_array_equal(rows[0][local[0]], words[0])
        sizes.add(rows.shape[1])
    assert sorted(sizes)[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16] and len(sizes) <= 31
