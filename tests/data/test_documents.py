"""Bags of words of a small file: counts, weights, held-out documents, classes of words."""

import numpy as np
import pytest

from lecture4.data.text import documents

LINES = ['sport\tball goal ball 7'] * 12 + ['food\tbread soup the'] * 12 + ['food\tthe rare'] * 2


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp('documents') / 'lines.tsv'
    path.write_text('\n'.join(LINES) + '\n', encoding='utf-8')
    return documents.load(f'tsv:{path}', held_out=0.25, num_words=5, min_count=2, seed=0)


def test_words_are_counted_by_falling_frequency_and_numbers_are_none(corpus):
    assert set(corpus.words) <= {'ball', 'goal', 'bread', 'soup', 'the', 'rare'}
    assert corpus.words[0] == 'ball' and len(corpus.words) == 5 and '7' not in corpus.words
    for row, text in zip(corpus.counts, corpus.texts, strict=True):
        assert row.tolist() == [text.count(word) for word in corpus.words]


def test_a_quarter_of_the_documents_is_held_out(corpus):
    assert len(corpus.test_rows) == round(0.25 * len(LINES))
    both = np.concatenate([corpus.train_rows, corpus.test_rows])
    assert sorted(both.tolist()) == list(range(len(LINES)))


def test_weights_have_norm_1_and_are_larger_for_rare_words(corpus):
    norm = np.linalg.norm(corpus.tfidf, axis=1)
    np.testing.assert_allclose(norm[corpus.counts.any(1)], 1, rtol=1e-5)
    the, soup = corpus.words.index('the'), corpus.words.index('soup')
    both = (corpus.counts[:, the] == 1) & (corpus.counts[:, soup] == 1)
    assert (corpus.tfidf[both, soup] > corpus.tfidf[both, the]).all()


def test_words_get_the_class_in_which_they_are_over_represented(corpus):
    classes, frequent, indicative = documents.word_classes(corpus)
    names = {word: corpus.class_names[c] for word, c in zip(corpus.words, classes, strict=True)}
    assert {names['ball'], names['goal']} == {'sport'}
    assert {names['bread'], names['soup'], names['the']} == {'food'}
    present = (corpus.counts[corpus.train_rows] > 0).sum(0)
    assert frequent.tolist() == np.flatnonzero(present >= documents.FREQUENT).tolist()
    assert sorted(indicative) == list(range(5))
    assert {names[corpus.words[w]] for w in indicative[:2]} == {'sport', 'food'}


def test_examples_are_the_first_query_of_each_class_and_its_nearest(corpus):
    ranked = {'nearest by chance': np.tile(corpus.train_rows[::-1], (len(corpus.test_rows), 1))}
    records = documents.nearest_examples(corpus, ranked)
    present = np.unique(corpus.labels[corpus.test_rows])
    assert len(records) == len(present)
    last = ' '.join(corpus.texts[corpus.train_rows[-1]])
    assert all(record['nearest by chance'] == last[:60] for record in records)
