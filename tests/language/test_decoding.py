"""Greedy decoding, sampling and beam search against all sentences of a small vocabulary."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.language import decoding

V, LENGTH, N = 4, 3, 5
TABLE = jax.nn.log_softmax(
    jnp.asarray(np.random.default_rng(0).normal(size=(N, LENGTH, V, V)).astype(np.float32)) * 2
)


def step(state, tokens):
    """Log probabilities by sentence, position and last token: a model whose best prefix may end badly."""
    table, position = state
    rows = jnp.take_along_axis(table, position[:, None, None, None], 1)[:, 0]
    return (table, position + 1), jnp.take_along_axis(rows, tokens[:, None, None], 1)[:, 0]


STATE = (TABLE, jnp.zeros(N, jnp.int32))


def value(table, sentence):
    """Log probability of a sentence, END included where it fits."""
    total, last = 0.0, 0
    for position, token in enumerate([*sentence, 0][:LENGTH]):
        total += float(table[position, last, token])
        last = token
    return total


def best(table, k):
    """The k most probable sentences of all, as padded tokens, and their log probabilities."""
    every = [
        sentence
        for length in range(LENGTH + 1)
        for sentence in itertools.product(range(1, V), repeat=length)
    ]
    ranked = sorted(every, key=lambda sentence: -value(table, sentence))[:k]
    return [(*s, *[0] * (LENGTH - len(s))) for s in ranked], [value(table, s) for s in ranked]


@pytest.mark.parametrize('width', [V ** (LENGTH - 1), V**LENGTH])
def test_a_wide_beam_finds_the_best_of_all_sentences(width):
    found = decoding.beam_search(step, STATE, width=width, max_length=LENGTH)
    for i in range(N):
        sentences, values = best(TABLE[i], 5)
        assert [tuple(s) for s in found.tokens[i, :5].tolist()] == sentences
        np.testing.assert_allclose(found.log_probs[i, :5], values, rtol=1e-5)


def test_a_beam_of_one_is_greedy():
    beam = decoding.beam_search(step, STATE, width=1, max_length=LENGTH)
    greedy = decoding.greedy(step, STATE, max_length=LENGTH)
    assert np.array_equal(beam.tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(beam.log_probs[:, 0], greedy.log_probs, rtol=1e-5)


def test_a_wider_beam_is_never_less_probable_here():
    values = [
        decoding.beam_search(step, STATE, width=w, max_length=LENGTH).log_probs[:, 0].mean()
        for w in (1, 2, 16)
    ]
    assert values == sorted(values)


def test_beams_beyond_the_number_of_sentences_are_impossible():
    n_sentences = sum((V - 1) ** i for i in range(LENGTH + 1))
    found = decoding.beam_search(step, STATE, width=V**LENGTH, max_length=LENGTH)
    assert np.isfinite(found.log_probs).sum(1).tolist() == [n_sentences] * N


def test_log_probs_are_those_of_the_sentences():
    sampled = decoding.sample(jax.random.key(3), step, STATE, max_length=LENGTH)
    for table, tokens, log_prob in zip(
        TABLE, sampled.tokens.tolist(), sampled.log_probs, strict=True
    ):
        sentence = tokens[: tokens.index(0)] if 0 in tokens else tokens
        assert not any(tokens[len(sentence) :])
        assert float(log_prob) == pytest.approx(value(table, sentence), abs=1e-5)


def test_sampling_has_the_models_frequencies():
    state = (jnp.repeat(TABLE[:1], 4000, 0), jnp.zeros(4000, jnp.int32))
    sampled = decoding.sample(jax.random.key(0), step, state, max_length=LENGTH, temperature=2.0)
    expected = jax.nn.softmax(TABLE[0, 0, 0] / 2)
    counts = np.bincount(np.asarray(sampled.tokens[:, 0]), minlength=V)
    np.testing.assert_allclose(counts / 4000, expected, atol=0.03)


def test_a_low_temperature_is_greedy():
    cold = decoding.sample(jax.random.key(0), step, STATE, max_length=LENGTH, temperature=1e-4)
    assert np.array_equal(cold.tokens, decoding.greedy(step, STATE, max_length=LENGTH).tokens)


def test_words_end_at_the_first_end():
    assert decoding.words(np.array([2, 3, 0, 2]), ('', '', 'a', 'dog')) == ('a', 'dog')
