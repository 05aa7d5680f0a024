"""Sentences and likelihoods of whole corpora by a caption network, with the metrics of caption_metrics."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from lecture4.language import caption_metrics, decoding
from lecture4.language.bleu import Sentence
from lecture4.language.captions import CaptionNetwork, describe, log_likelihood


def describe_all(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'n r d'],
    vocabulary: tuple[str, ...],
    *,
    width: int = 1,
    max_length: int = 20,
    size: int = 125,
) -> list[tuple[str, ...]]:
    """Sentences of many images as words, `size` images at a time.

    Args:
      network: As in `describe`.
      params: As in `describe`.
      features: As in `describe`.
      vocabulary: Word of every token.
      width: As in `describe`.
      max_length: As in `describe`.
      size: Number of images at a time.
    """
    sentences = []
    for start in range(0, len(features), size):
        part = features[start : start + size]
        padded = np.resize(part, (size, *part.shape[1:]))
        tokens = describe(network, params, padded, width=width, max_length=max_length).tokens
        sentences += [decoding.words(row, vocabulary) for row in np.asarray(tokens)[: len(part)]]
    return sentences


def corpus_likelihood(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'n r d'],
    image_of: Int[np.ndarray, ' m'],
    groups: Sequence[tuple[Int[np.ndarray, ' _k'], Int[np.ndarray, '_k _t']]],
    size: int = 250,
) -> tuple[float, int]:
    """Log-likelihood in nats and number of tokens of all sentences, compiled once for each length.

    Args:
      network: The network.
      params: Parameters of the network.
      features: Features of the regions of the images.
      image_of: Row of the image of each sentence.
      groups: (rows, padded words) of sentences of similar length.
      size: Number of sentences at a time.
    """
    total, count = 0.0, 0
    for rows, words in groups:
        for start in range(0, len(rows), size):
            at = np.arange(start, min(start + size, len(rows)))
            padded = np.resize(at, size)
            sentence_features = features[image_of[rows[padded]]]
            values, tokens = log_likelihood(network, params, sentence_features, words[padded])
            total += float(np.asarray(values)[: len(at)].sum())
            count += int(np.asarray(tokens)[: len(at)].sum())
    return total, count


def describe_regions(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'n r d'],
    vocabulary: tuple[str, ...],
    *,
    max_length: int = 20,
    num_regions: int = 6,
) -> list[list[tuple[str, int, float]]]:
    """Describe every region of an image as if it were the image: for each image (sentence, region, 0).

    Args:
      network: As in `describe`.
      params: As in `describe`.
      features: As in `describe`; the first region, the image, is left out.
      vocabulary: Word of every token.
      max_length: As in `describe`.
      num_regions: Largest number of regions per image.
    """
    described = []
    for own in features:
        regions = own[1 : 1 + num_regions, None]
        texts = describe_all(
            network, params, regions, vocabulary, max_length=max_length, size=num_regions
        )
        described.append([(' '.join(text), r, 0.0) for r, text in enumerate(texts, 1)])
    return described


def attention(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'r d'],
    sentence: Sentence,
    vocabulary: tuple[str, ...],
) -> Float[np.ndarray, 't r']:
    """Attention of every word of a sentence, and of END, over the regions of one image.

    Args:
      network: A network with attention.
      params: Parameters of the network.
      features: Features of the regions.
      sentence: Words of the vocabulary.
      vocabulary: Word of every token.
    """
    tokens = np.array([[vocabulary.index(word) for word in sentence]], np.int32)
    outputs: Any = jax.jit(network.apply)({'params': params}, features[None], tokens)
    return np.asarray(outputs[1][0])


def evaluate(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'n r d'],
    image_of: Int[np.ndarray, ' m'],
    groups: Sequence[tuple[Int[np.ndarray, ' _k'], Int[np.ndarray, '_k _t']]],
    references: Sequence[Sequence[Sentence]],
    vocabulary: tuple[str, ...],
    *,
    beam_widths: Sequence[int],
    max_length: int = 20,
    train_sentences: Sequence[Sequence[Sentence]] = (),
) -> tuple[list[tuple[str, ...]], dict[str, Any], list[dict[str, Any]]]:
    """Sentences for the last beam width, their metrics, and the metrics for every width.

    Args:
      network: As in `describe`.
      params: As in `describe`.
      features: As in `describe`.
      image_of: As in `corpus_likelihood`.
      groups: As in `corpus_likelihood`.
      references: One or more sentences of each image.
      vocabulary: Word of every token.
      beam_widths: Beam widths, at least one.
      max_length: As in `describe`.
      train_sentences: Sentences of each training image.

    Returns:
      (sentences, the metrics of `caption_metrics.evaluate` with the interval as text in percent, 'perplexity' of the
      references and the fraction 'copied' from training sentences, records {'beam_width', metrics}).
    """
    records, sentences, values = [], [], {}
    for width in beam_widths:
        sentences = describe_all(
            network, params, features, vocabulary, width=width, max_length=max_length
        )
        values = caption_metrics.evaluate(sentences, references)
        low, high = values.pop('bleu_4_interval')
        records.append({'beam_width': width, **values})
        values['95 % of BLEU-4'] = f'{100 * low:.1f} to {100 * high:.1f}'
    total = corpus_likelihood(network, params, features, image_of, groups)
    known = {tuple(sentence) for own in train_sentences for sentence in own}
    values['perplexity'] = caption_metrics.perplexity(*total)
    values['copied'] = float(np.mean([sentence in known for sentence in sentences]))
    return sentences, values, records
