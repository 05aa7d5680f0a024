"""Words to segments: the Viterbi assignment is the best of all, and padding changes nothing."""

import itertools

import jax
import numpy as np
import pytest

from lecture4.language import segments

N, T, R = 6, 5, 3
LENGTHS = np.array([5, 4, 3, 1, 5, 2])
MASK = np.arange(T)[None] < LENGTHS[:, None]
SCORES = np.random.default_rng(0).normal(size=(N, T, R)).astype(np.float32)


def energy(scores, regions, beta):
    stay = sum(a == b for a, b in itertools.pairwise(regions))
    return sum(scores[t, a] for t, a in enumerate(regions)) + beta * stay


@pytest.mark.parametrize('beta', [0.0, 0.4, 2.0, 50.0])
def test_assignment_is_the_best_of_all(beta):
    found, values = segments.assign_regions(SCORES, MASK, beta)
    for scores, length, regions, value in zip(SCORES, LENGTHS, found, values, strict=True):
        every = itertools.product(range(R), repeat=int(length))
        best = max(energy(scores, candidate, beta) for candidate in every)
        assert energy(scores, np.asarray(regions)[:length].tolist(), beta) == pytest.approx(
            best, abs=1e-4
        )
        assert float(value) == pytest.approx(best, abs=1e-4)


def test_without_beta_each_word_has_its_best_region():
    found, _ = segments.assign_regions(SCORES, MASK, 0.0)
    assert np.array_equal(np.asarray(found)[MASK], SCORES.argmax(2)[MASK])


def test_a_large_beta_gives_one_region():
    found, _ = segments.assign_regions(SCORES, MASK, 100.0)
    for scores, length, regions in zip(SCORES, LENGTHS, np.asarray(found), strict=True):
        assert set(regions[:length].tolist()) == {int(scores[:length].sum(0).argmax())}


def test_padding_changes_no_assignment():
    other = np.where(MASK[:, :, None], SCORES, 1e6).astype(np.float32)
    first, second = (segments.assign_regions(s, MASK, 0.7) for s in (SCORES, other))
    assert np.array_equal(*(found[0] for found in (first, second)))
    assert np.array_equal(first[1], second[1])


def test_all_values_of_beta_share_one_program():
    before = segments.assign_regions._cache_size()
    for beta in np.linspace(0.1, 3, 7):
        segments.assign_regions(SCORES, MASK, float(beta))
    assert segments.assign_regions._cache_size() <= before + 1


def test_vmapped_betas_are_single_ones():
    betas = np.array([0.0, 0.5, 3.0], np.float32)
    found = jax.vmap(lambda beta: segments.assign_regions(SCORES, MASK, beta)[0])(betas)
    for regions, beta in zip(found, betas, strict=True):
        assert np.array_equal(regions, segments.assign_regions(SCORES, MASK, float(beta))[0])


def test_segments_are_runs_with_mean_scores():
    scores = np.arange(12.0).reshape(4, 3)
    found = segments.segments(scores, np.array([1, 1, 0, 2]), 3)
    assert found == [segments.Segment(0, 2, 1, 2.5), segments.Segment(2, 3, 0, 6.0)]
