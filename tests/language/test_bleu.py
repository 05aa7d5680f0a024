"""BLEU, ROUGE-L, CIDEr-D and perplexity by their definitions, computed a second time and by other libraries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture4.language import bleu, caption_metrics

CANDIDATES = [
    ['the', 'cat', 'sat', 'on', 'the', 'mat'],
    ['a', 'dog', 'runs'],
    ['two', 'men', 'are', 'on', 'a', 'boat', 'in', 'the', 'sea'],
    ['the', 'the', 'the', 'the', 'the', 'the', 'the'],
]
REFERENCES = [
    [['the', 'cat', 'is', 'on', 'the', 'mat'], ['there', 'is', 'a', 'cat', 'on', 'the', 'mat']],
    [['a', 'dog', 'runs', 'fast'], ['the', 'brown', 'dog', 'runs'], ['a', 'dog']],
    [['two', 'men', 'in', 'a', 'boat', 'on', 'the', 'sea'], ['men', 'are', 'on', 'a', 'boat']],
    [['the', 'cat', 'is', 'on', 'the', 'mat'], ['there', 'is', 'a', 'cat', 'on', 'the', 'mat']],
]
WORDS = st.lists(st.sampled_from('abcd'), min_size=1, max_size=9)
CORPORA = st.lists(
    st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=2, max_size=4
)


def slow_bleu(candidates, references, n):
    """BLEU-n by the formula, n-grams listed one by one."""
    log_sum, length, closest = 0.0, 0, 0
    for order in range(1, n + 1):
        matches = total = 0
        for candidate, own in zip(candidates, references, strict=True):
            grams = [tuple(candidate[i : i + order]) for i in range(len(candidate) - order + 1)]
            total += len(grams)
            for gram in set(grams):
                allowed = max(
                    sum(tuple(r[i : i + order]) == gram for i in range(len(r))) for r in own
                )
                matches += min(grams.count(gram), allowed)
        if not matches:
            return 0.0
        log_sum += math.log(matches / total) / n
    for candidate, own in zip(candidates, references, strict=True):
        length += len(candidate)
        closest += sorted((abs(len(r) - len(candidate)), len(r)) for r in own)[0][1]
    return math.exp(log_sum + min(0, 1 - closest / length))


def slow_common(a, b):
    """Longest common subsequence by trying all subsequences of the shorter sentence."""
    short, long = sorted((a, b), key=len)
    for size in range(len(short), 0, -1):
        for rows in itertools.combinations(range(len(short)), size):
            words = iter(long)
            if all(short[i] in words for i in rows):
                return size
    return 0


@settings(max_examples=40, deadline=None)
@given(CORPORA)
def test_bleu_is_its_formula(corpus):
    candidates, references = zip(*corpus, strict=True)
    expected = [slow_bleu(candidates, references, n) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(bleu.bleu(candidates, references), expected, atol=1e-9)


def test_bleu_of_a_resampled_corpus_repeats_its_sentences():
    rows = [0, 2, 2]
    counts = bleu.count(CANDIDATES, REFERENCES)
    expected = bleu.bleu([CANDIDATES[i] for i in rows], [REFERENCES[i] for i in rows])
    np.testing.assert_allclose(bleu.score(counts, np.array(rows)), expected)


def test_clipping_limits_repeated_words():
    counts = bleu.count(CANDIDATES[3:], REFERENCES[3:])
    assert counts.matches[0].tolist() == [2, 0, 0, 0]  # "the" occurs at most twice in a reference
    assert bleu.bleu(CANDIDATES[3:], REFERENCES[3:])[1:].tolist() == [0, 0, 0]


def test_the_closest_length_of_two_is_the_shorter():
    counts = bleu.count([['a'] * 5], [[['a'] * 6, ['a'] * 4]])
    assert counts.reference_lengths.tolist() == [4]


def test_bleu_equals_sacrebleu():
    sacrebleu = pytest.importorskip('sacrebleu')
    depth = max(map(len, REFERENCES))
    columns = [
        [' '.join(own[j]) if j < len(own) else None for own in REFERENCES] for j in range(depth)
    ]
    for n in (1, 2, 3, 4):
        metric = sacrebleu.metrics.BLEU(
            tokenize='none', smooth_method='none', max_ngram_order=n, force=True
        )
        theirs = metric.corpus_score([' '.join(c) for c in CANDIDATES], columns).score / 100
        assert abs(bleu.bleu(CANDIDATES, REFERENCES)[n - 1] - theirs) < 1e-6


@settings(max_examples=30, deadline=None)
@given(WORDS, WORDS)
def test_longest_common_subsequence_is_the_longest(a, b):
    assert caption_metrics.longest_common_subsequence(a, b) == slow_common(a, b)


def test_rouge_takes_best_precision_and_best_recall():
    (score,) = caption_metrics.rouge_l([list('abcd')], [[list('ab'), list('abcdefgh')]])
    precision, recall = 1.0, 1.0  # of the long and of the short reference
    assert score == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))
    assert caption_metrics.rouge_l([list('xyz')], [[list('ab')]]).tolist() == [0]


def slow_cider(candidates, references, i):
    """CIDEr-D of candidate i by the formula of the paper, over dense vectors of all n-grams."""

    def grams(words, n):
        return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]

    total = 0.0
    for n in (1, 2, 3, 4):
        every = sorted({g for own in references for r in own for g in grams(r, n)})
        every += sorted({g for c in candidates for g in grams(c, n)} - set(every))
        documents = [{g for r in own for g in grams(r, n)} for own in references]
        idf = np.array(
            [math.log(len(references) / max(1, sum(g in d for d in documents))) for g in every]
        )

        def vector(words, n=n, every=every, idf=idf):
            listed = grams(words, n)
            return np.array([listed.count(g) for g in every], float) * idf

        ours = vector(candidates[i])
        for reference in references[i]:
            theirs = vector(reference)
            norms = np.linalg.norm(ours) * np.linalg.norm(theirs)
            gap = max(len(candidates[i]) - 1, 0) - max(len(reference) - 1, 0)
            if norms:
                similarity = np.minimum(ours, theirs) @ theirs / norms
                total += similarity * math.exp(-(gap**2) / 72) / len(references[i])
    return 10 * total / 4


@settings(max_examples=30, deadline=None)
@given(CORPORA)
def test_cider_is_its_formula(corpus):
    candidates, references = zip(*corpus, strict=True)
    expected = [slow_cider(candidates, references, i) for i in range(len(candidates))]
    np.testing.assert_allclose(caption_metrics.cider_d(candidates, references), expected, atol=1e-9)


def test_rouge_and_cider_equal_coco_caption():
    cider = pytest.importorskip('pycocoevalcap.cider.cider')
    rouge = pytest.importorskip('pycocoevalcap.rouge.rouge')
    ours = {i: [' '.join(c)] for i, c in enumerate(CANDIDATES)}
    theirs = {i: [' '.join(r) for r in own] for i, own in enumerate(REFERENCES)}
    expected = cider.Cider().compute_score(theirs, ours)[1]
    np.testing.assert_allclose(caption_metrics.cider_d(CANDIDATES, REFERENCES), expected, atol=1e-6)
    expected = rouge.Rouge().compute_score(theirs, ours)[1]
    np.testing.assert_allclose(caption_metrics.rouge_l(CANDIDATES, REFERENCES), expected, atol=1e-6)


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    assert caption_metrics.perplexity(-7 * math.log(50), 7) == pytest.approx(50)
    with pytest.raises(ValueError, match='0 tokens; expected at least one'):
        caption_metrics.perplexity(0.0, 0)


def test_bootstrap_interval_covers_the_mean():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = caption_metrics.bootstrap_interval(lambda rows: values[rows].mean(), 400)
    assert low < values.mean() < high and high - low == pytest.approx(4 * 1 / 20, rel=0.15)


@pytest.mark.parametrize('metric', [bleu.bleu, caption_metrics.rouge_l, caption_metrics.cider_d])
def test_an_image_without_sentences_is_named(metric):
    with pytest.raises(ValueError, match='candidate 1 has no reference'):
        metric([['a'], ['b']], [[['a']], []])
    with pytest.raises(ValueError, match='2 candidates and 1 lists'):
        metric([['a'], ['b']], [[['a']]])
