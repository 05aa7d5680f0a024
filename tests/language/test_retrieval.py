"""Ranks of images and sentences by the protocol of five sentences per image."""

import numpy as np
import pytest

from lecture4.language import retrieval

IMAGE_OF = np.repeat(np.arange(4), 5)


def slow_ranks(scores):
    annotation = []
    for k, row in enumerate(scores):
        order = np.argsort(-row, kind='stable')
        annotation.append(1 + min(np.flatnonzero(IMAGE_OF[order] == k)))
    search = []
    for sentence, k in enumerate(IMAGE_OF):
        order = np.argsort(-scores[:, sentence], kind='stable')
        search.append(1 + int(np.flatnonzero(order == k)[0]))
    return annotation, search


def test_ranks_are_those_of_sorted_scores():
    scores = np.random.default_rng(0).normal(size=(4, 20))
    annotation, search = slow_ranks(scores)
    assert retrieval.annotation_ranks(scores, IMAGE_OF).tolist() == annotation
    assert retrieval.search_ranks(scores, IMAGE_OF).tolist() == search


def test_recall_and_median_of_known_ranks():
    found = retrieval.measures(np.array([1, 1, 4, 9, 30]))
    assert found == {
        'recall_at_1': 0.4, 'recall_at_5': 0.6, 'recall_at_10': 0.8, 'median_rank': 4.0,
    }  # fmt: skip


def test_equal_scores_have_the_worst_ranks():
    scores = np.zeros((4, 20))
    assert retrieval.annotation_ranks(scores, IMAGE_OF).tolist() == [16] * 4
    assert retrieval.search_ranks(scores, IMAGE_OF).tolist() == [4] * 20


def test_images_without_sentences_are_refused():
    with pytest.raises(ValueError, match='image 3 has no sentence'):
        retrieval.search_ranks(np.zeros((4, 15)), IMAGE_OF[:15])
    with pytest.raises(ValueError, match=r'expected scores \[images, sentences\]'):
        retrieval.search_ranks(np.zeros((4, 15)), IMAGE_OF)
    with pytest.raises(ValueError, match='not finite'):
        retrieval.annotation_ranks(np.full((4, 20), np.nan), IMAGE_OF)


def test_inverted_softmax_lowers_sentences_that_fit_every_image():
    scores = np.array([[2.0, 5.0, 1.0], [1.0, 4.9, 3.0]])  # sentence 1 fits both images
    image_of = np.array([0, 0, 1])
    probabilities = np.exp(retrieval.inverted_softmax(scores, 0.5))
    expected = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum(0)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)
    plain, search, normalized = retrieval.evaluate(scores, image_of, temperature=0.5)
    assert plain['recall_at_1'] == 0.5 and normalized['recall_at_1'] == 1.0
    inverted = retrieval.inverted_softmax(scores, 0.5)
    assert np.array_equal(
        retrieval.search_ranks(inverted, image_of), retrieval.search_ranks(scores, image_of)
    )
    assert [record['direction'] for record in (plain, search)] == ['annotation', 'search']
    assert len(retrieval.evaluate(scores, image_of)) == 2
