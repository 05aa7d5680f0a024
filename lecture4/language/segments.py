"""Words to segments: a Markov random field over the words of a sentence whose states are image regions.

Energy of an assignment a_1..a_T of words to regions, to be maximized:

    E(a) = sum_t score[t, a_t] + beta sum_{t < T} [a_t = a_{t+1}]

The paper says "minimize" and the lecture's slide repeats it, although the terms are similarities: minimization would
assign every word to the region that fits it least. beta = 0 assigns every word independently, a large beta assigns
one region to the whole sentence. Karpathy & Fei-Fei 2015, section 3.1.5.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lecture4.language import alignment
from lecture4.ops.varying import vary_like


class Segment(NamedTuple):
    """Words start .. stop - 1 of a sentence, assigned to one region.

    Attributes:
      start: First word.
      stop: One past the last word.
      region: Region.
      score: Mean score of the words for the region.
    """

    start: int
    stop: int
    region: int
    score: float


@jax.jit
def assign_regions(
    scores: Float[ArrayLike, 'n t r'],
    mask: Bool[ArrayLike, 'n t'],
    beta: float | Float[ArrayLike, ''] = 0.0,
) -> tuple[Int[Array, 'n t'], Float[Array, ' n']]:
    """Assignments of maximal energy, by the Viterbi algorithm in O(t r), since the pairwise term is a Potts model.

    Args:
      scores: Scores of every word for every region.
      mask: Mask of the words; padding has no effect.
      beta: Reward for two neighboring words with the same region, nonnegative; may be traced, and a negative
        traced value is not detected.

    Returns:
      (regions, energy): a region for every word (0 for padding), and the maximum of E.
    """
    scores, mask = jnp.asarray(scores), jnp.asarray(mask)
    beta = jnp.asarray(beta, scores.dtype)

    def forward(best, inputs):
        score, is_word = inputs
        change = best.argmax(1)
        stay = best + beta
        highest = jnp.max(best, axis=1, keepdims=True)
        regions = jnp.arange(score.shape[1])[None]
        previous = jnp.where(stay >= highest, regions, change[:, None])
        new = score + jnp.maximum(stay, highest)
        new = jnp.where(is_word[:, None], new, best)
        return new, jnp.where(is_word[:, None], previous, regions)

    steps = (scores[:, 1:].swapaxes(0, 1), mask[:, 1:].T)
    first = vary_like(jnp.where(mask[:, :1], scores[:, 0], 0), (steps, beta))
    best, previous = jax.lax.scan(forward, first, steps)

    def backward(region, previous):
        before = jnp.take_along_axis(previous, region[:, None], 1)[:, 0]
        return before, before

    last = best.argmax(1)
    _, earlier = jax.lax.scan(backward, last, previous, reverse=True)
    regions = jnp.concatenate([earlier, last[None]]).T
    return jnp.where(mask, regions, 0), best.max(1)


def segments(
    scores: Float[ArrayLike, 't r'], regions: Int[ArrayLike, ' t'], num_words: int
) -> list[Segment]:
    """Runs of words with the same region, in the order of the sentence.

    Args:
      scores: Scores of every word for every region.
      regions: Region of every word.
      num_words: Number of words of the sentence; the rest is padding.
    """
    scores, regions = np.asarray(scores), np.asarray(regions)[:num_words]
    starts = [0, *(np.flatnonzero(np.diff(regions)) + 1).tolist(), num_words]
    result = []
    for start, stop in itertools.pairwise(starts):
        if stop > start:
            region = int(regions[start])
            mean = float(scores[start:stop, region].mean())
            result.append(Segment(start, stop, region, mean))
    return result


def as_text(
    text: Sequence[str], scores: Float[ArrayLike, 't r'], regions: Int[ArrayLike, ' t']
) -> list[tuple[str, int, float]]:
    """The segments of a sentence: (words, region, mean score) each.

    Args:
      text: The words.
      scores: Scores of every word, and of padding behind them, for every region.
      regions: Region of every word, and of the padding behind them.
    """
    return [
        (' '.join(text[part.start : part.stop]), part.region, part.score)
        for part in segments(scores, regions, len(text))
    ]


def sweep_beta(
    scores: Float[np.ndarray, 'n t r'],
    mask: Bool[np.ndarray, 'n t'],
    betas: Sequence[float] | Float[np.ndarray, ' _b'],
    word_groups: Sequence[Int[np.ndarray, ' _t']] | None = None,
    region_groups: Int[np.ndarray, 'n r'] | None = None,
) -> list[dict[str, float]]:
    """Effect of the reward: mean length of segments, and accuracy if the object of every word is known.

    Args:
      scores: Scores of every word for every region of the sentence's own image.
      mask: Mask of the words.
      betas: Rewards to evaluate.
      word_groups: Object that each word of every sentence refers to, -1 for none; None if unknown.
      region_groups: Object of each region of every image, -1 for none.

    Returns:
      For each beta {'beta', 'segment_length' in words, 'word_accuracy' a fraction, of words about an object}.
    """
    records = []
    for beta in betas:
        regions = np.asarray(assign_regions(scores, mask, float(beta))[0])
        lengths = mask.sum(1)
        count = sum(
            len(segments(s, r, int(n))) for s, r, n in zip(scores, regions, lengths, strict=True)
        )
        record = {'beta': float(f'{beta:.3g}'), 'segment_length': float(lengths.sum() / count)}
        if word_groups is not None and region_groups is not None:
            is_correct = [
                region_groups[i, regions[i, : len(about)]][about >= 0] == about[about >= 0]
                for i, about in enumerate(word_groups)
            ]
            record['word_accuracy'] = float(np.concatenate(is_correct).mean())
        records.append(record)
    return records


def functions(
    network: alignment.AlignmentNetwork,
    prepare: Callable[[Float[Array, 'k r d']], Float[Array, 'k r e']],
    *,
    form: alignment.Form,
    mean: bool,
    beta: float,
) -> dict[str, Callable[..., Any]]:
    """Functions of a state of training: 'scores' of raw features and sentences, and 'encode', words' regions.

    Args:
      network: The network, whose parameters are the state's field `params`.
      prepare: Features of regions -> inputs of the network.
      form: As in `alignment.image_sentence_scores`.
      mean: As in `alignment.image_sentence_scores`.
      beta: As in `assign_regions`.
    """

    def scores(
        state: Any, features: Float[Array, 'k r d'], words: Int[Array, 'l t']
    ) -> Float[Array, 'k l']:
        """Scores [k, l] of images, by features [k, r, d] of regions, and sentences, word indices [l, t]."""
        v, s, mask = alignment.embed(network, state.params, prepare(features), words)
        return alignment.image_sentence_scores(v, s, mask, form, mean=mean)

    def encode(state: Any, rows: Mapping[str, Array]) -> dict[str, Int[Array, 'n t']]:
        """The region of every word of training sentences, by inputs of the network and word indices."""
        unary, mask = alignment.own_word_scores(network, state.params, **rows)
        return {'regions': assign_regions(unary, mask, beta)[0]}

    return {'scores': scores, 'encode': encode}
