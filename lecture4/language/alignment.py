"""Alignment of words and image regions: one embedding of both, learned from whole sentences.

Regions and words are vectors in one space; a word's score for a region is their inner product, and the score of an
image and a sentence sums the scores of the words for their best regions. A ranking loss over images and sentences
trains both embeddings; no word is ever labeled with a region. Karpathy & Fei-Fei, CVPR 2015, section 3.1.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from lecture4.language.recurrent import Cell, Recurrence

Form = Literal['best_region', 'all_pairs']
Negatives = Literal['all', 'hardest']
Loss = Literal['ranking', 'hardest', 'softmax']


class RegionEncoder(nn.Module):
    """Region features to embeddings: v = W_m x + b_m.

    Attributes:
      embed_dim: Dimension h of the embedding, 1000 to 1600 in the paper.
      dropout_rate: Dropout rate of the features.
      normalize: Whether embeddings are normalized to unit length; the published ones are not.
    """

    embed_dim: int = 1000
    dropout_rate: float = 0.0
    normalize: bool = False

    @nn.compact
    def __call__(
        self, features: Float[ArrayLike, 'n r d'], *, train: bool = False
    ) -> Float[Array, 'n r h']:
        """Embeddings of the regions; with `train`, the rng 'dropout' is needed."""
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        v = nn.Dense(self.embed_dim, name='embedding')(drop(jnp.asarray(features)))
        return unit_length(v) if self.normalize else v


class SentenceEncoder(nn.Module):
    """Word vectors to embeddings in context: a dense layer, a bidirectional recurrence, a dense layer.

    e = f(W_e x + b_e), h = forward(e) + backward(e), s = f(W_d h + b_d), f the ReLU. The cells 'gru' and 'lstm'
    take x unchanged and leave s linear.

    Attributes:
      embed_dim: Dimension h of the embedding.
      hidden_dim: Dimension of the recurrences; None takes embed_dim.
      cell: Kind of the recurrences; 'relu' in the paper.
      dropout_rate: Dropout rate of inputs and outputs, not of recurrences.
      normalize: Whether embeddings are normalized to unit length; the published ones are not.
    """

    embed_dim: int = 1000
    hidden_dim: int | None = None
    cell: Cell = 'relu'
    dropout_rate: float = 0.0
    normalize: bool = False

    @nn.compact
    def __call__(
        self,
        vectors: Float[ArrayLike, 'n t d'],
        mask: Bool[ArrayLike, 'n t'],
        *,
        train: bool = False,
    ) -> Float[Array, 'n t h']:
        """Embeddings of the words; with `train`, the rng 'dropout' is needed.

        Args:
          vectors: Word vectors.
          mask: Mask of the words, False for padding, whose embeddings are zero.
          train: Whether dropout is on.
        """
        vectors, mask = jnp.asarray(vectors), jnp.asarray(mask)
        hidden_dim = self.hidden_dim or self.embed_dim
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        published = self.cell == 'relu'
        x = drop(vectors)
        if published:
            x = jax.nn.relu(nn.Dense(hidden_dim, name='inputs')(x))
        recurrence = Recurrence(
            hidden_dim, self.cell, bidirectional=True, project_inputs=not published
        )
        s = nn.Dense(self.embed_dim, name='embedding')(drop(recurrence(x, mask)))
        if published:
            s = jax.nn.relu(s)
        s = unit_length(s) if self.normalize else s
        return jnp.where(mask[:, :, None], s, 0)


class AlignmentNetwork(nn.Module):
    """Both encoders, and the word vectors between word indices and the sentence encoder.

    Attributes:
      num_words: Number of rows of the table of word vectors, the parameter 'word_vectors'; row 0 is the padding.
      vector_dim: Dimension of the word vectors. Initial vectors are normal; pretrained ones replace them in the
        parameters.
      train_vectors: Whether the word vectors are trained; not so in the paper.
      embed_dim: As in `RegionEncoder`.
      hidden_dim: As in `SentenceEncoder`.
      cell: As in `SentenceEncoder`.
      dropout_rate: As in both encoders.
      normalize: Whether regions are normalized to unit length; the length of a word is its weight.
    """

    num_words: int
    vector_dim: int = 300
    train_vectors: bool = False
    embed_dim: int = 1000
    hidden_dim: int | None = None
    cell: Cell = 'relu'
    dropout_rate: float = 0.0
    normalize: bool = False

    @nn.compact
    def __call__(
        self,
        features: Float[ArrayLike, 'k r d'],
        words: Int[ArrayLike, 'l t'],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, 'k r h'], Float[Array, 'l t h'], Bool[Array, 'l t']]:
        """Embeddings of regions and of words, and the mask of words that are not padding.

        Args:
          features: Features of the regions of k images.
          words: Word indices of l sentences, padded with zeros.
          train: Whether dropout is on; needs the rng 'dropout'.
        """
        shape = (self.num_words, self.vector_dim)
        table = self.param('word_vectors', nn.initializers.normal(0.1), shape)
        if not self.train_vectors:
            table = jax.lax.stop_gradient(table)
        words = jnp.asarray(words)
        mask = words != 0
        regions = RegionEncoder(self.embed_dim, self.dropout_rate, self.normalize, name='regions')
        sentences = SentenceEncoder(
            self.embed_dim, self.hidden_dim, self.cell, self.dropout_rate, name='sentences'
        )
        v = regions(features, train=train)
        return v, sentences(table[words], mask, train=train), mask


def embed(
    network: AlignmentNetwork,
    params: PyTree,
    features: Float[ArrayLike, 'k r d'],
    words: Int[ArrayLike, 'l t'],
    **options: Any,
) -> tuple[Float[Array, 'k r h'], Float[Array, 'l t h'], Bool[Array, 'l t']]:
    """Apply the network: embeddings of regions and words, and the mask of words; `options` as in flax's apply."""
    outputs: Any = network.apply({'params': params}, features, words, **options)
    return outputs


@functools.partial(jax.jit, static_argnames=('network',))
def own_word_scores(
    network: AlignmentNetwork,
    params: PyTree,
    features: Float[ArrayLike, 'n r d'],
    words: Int[ArrayLike, 'n t'],
) -> tuple[Float[Array, 'n t r'], Bool[Array, 'n t']]:
    """Scores of every word for every region of the sentence's own image, and the mask of words.

    Args:
      network: The network.
      params: Parameters of the network.
      features: Features of the regions of n images.
      words: Word indices of one sentence for each image, padded with zeros.
    """
    v, s, mask = embed(network, params, features, words)
    return jnp.einsum('nrh,nth->ntr', v, s), mask


def unit_length(v: Float[Array, '*n h'], epsilon: float = 1e-8) -> Float[Array, '*n h']:
    """Vectors divided by their norms; zero stays zero, with a finite gradient."""
    return v * jax.lax.rsqrt(jnp.sum(jnp.square(v), axis=-1, keepdims=True) + epsilon)


def image_sentence_scores(
    regions: Float[ArrayLike, 'k r h'],
    words: Float[ArrayLike, 'l t h'],
    mask: Bool[ArrayLike, 'l t'],
    form: Form = 'best_region',
    *,
    region_mask: Bool[ArrayLike, 'k r'] | None = None,
    mean: bool = False,
) -> Float[Array, 'k l']:
    """Scores S_kl of images and sentences.

    'best_region': S_kl = sum over words t of the maximum over regions i of v_i . s_t (eq. 8 of the paper).
    'all_pairs': S_kl = sum over words and regions of max(0, v_i . s_t), the form of Karpathy, Joulin & Fei-Fei
    2014 (eq. 7).

    Args:
      regions: Embeddings v of k images.
      words: Embeddings s of l sentences.
      mask: Mask of the words.
      form: One of the two forms.
      region_mask: Mask of the regions of each image; None if all have r.
      mean: Whether to divide by the number of words, so that long sentences do not have larger scores.
    """
    mask = jnp.asarray(mask)
    # [l, t, k, r], the order of a product of two matrices, which needs no transpose
    scores = jnp.einsum('lth,krh->ltkr', jnp.asarray(words), jnp.asarray(regions))
    if region_mask is not None:
        lowest = -jnp.inf if form == 'best_region' else 0.0
        scores = jnp.where(jnp.asarray(region_mask)[None, None], scores, lowest)
    if form == 'best_region':
        per_word = scores.max(3)
    elif form == 'all_pairs':
        per_word = jax.nn.relu(scores).sum(3)
    else:
        raise ValueError(f"form is {form!r}; expected 'best_region' or 'all_pairs'")
    total = jnp.where(mask[:, :, None], per_word, 0).sum(1)
    if mean:
        total = total / jnp.maximum(mask.sum(1), 1).astype(total.dtype)[:, None]
    return total.T


def ranking_loss(
    scores: Float[Array, 'n n'],
    is_same: Bool[ArrayLike, 'n n'] | None = None,
    *,
    margin: float | Float[Array, ''] = 1.0,
    negatives: Negatives = 'all',
) -> Float[Array, '']:
    """Two-sided hinge loss of pairs, mean over pairs: image k and sentence k belong together.

    sum over l of max(0, S_kl - S_kk + margin) + max(0, S_lk - S_kk + margin). The paper's sum contains l = k,
    a constant of 2 margin for each pair, which is left out here.

    Args:
      scores: Scores S of image k (row) and sentence l (column).
      is_same: Mask of the pairs k, l for which sentence l also describes image k, which are not negatives. None: k =
        l only.
      margin: Margin, positive.
      negatives: 'all' as published, or the 'hardest' of each row and column (Faghri et al. 2018).
    """
    eye = jnp.eye(scores.shape[0], dtype=bool)
    positive = jnp.sum(jnp.where(eye, scores, 0), axis=1)  # as a gather it would move the batch
    same = eye if is_same is None else jnp.asarray(is_same)
    sentences = jnp.where(same, 0, jax.nn.relu(margin + scores - positive[:, None]))
    images = jnp.where(same, 0, jax.nn.relu(margin + scores - positive[None, :]))
    if negatives == 'hardest':
        return jnp.mean(sentences.max(1) + images.max(0))
    if negatives != 'all':
        raise ValueError(f"negatives is {negatives!r}; expected 'all' or 'hardest'")
    return jnp.mean(sentences.sum(1) + images.sum(0))


def contrastive_loss(
    scores: Float[Array, 'n n'],
    is_same: Bool[ArrayLike, 'n n'] | None = None,
    *,
    temperature: float | Float[Array, ''] = 0.1,
) -> Float[Array, '']:
    """Mean of the cross-entropies of classifying the sentence of every image and the image of every sentence.

    This is a smooth version of `ranking_loss`: the hardest negatives have the largest weights (Oord et al. 2018;
    Radford et al. 2021).

    Args:
      scores: Scores S of image k (row) and sentence l (column).
      is_same: As in `ranking_loss`: other sentences of the same image are left out of both sums.
      temperature: Positive divisor of the scores.
    """
    eye = jnp.eye(scores.shape[0], dtype=bool)
    same = eye if is_same is None else jnp.asarray(is_same)
    logits = jnp.where(same & ~eye, -jnp.inf, scores / temperature)
    matching = jnp.sum(jnp.where(eye, logits, 0), axis=1)
    sentences = jax.nn.logsumexp(logits, axis=1) - matching
    images = jax.nn.logsumexp(logits, axis=0) - matching
    return jnp.mean(sentences + images) / 2


def pair_loss(
    scores: Float[Array, 'n n'],
    is_same: Bool[ArrayLike, 'n n'] | None = None,
    *,
    kind: Loss = 'ranking',
    margin: float | Float[Array, ''] = 1.0,
    temperature: float | Float[Array, ''] = 0.1,
) -> Float[Array, '']:
    """`ranking_loss` over all or the hardest negatives, or `contrastive_loss`, by name.

    Args:
      scores: As in `ranking_loss`.
      is_same: As in `ranking_loss`.
      kind: 'ranking' over all negatives, 'hardest', or 'softmax'.
      margin: Margin of the ranking losses.
      temperature: Temperature of the softmax loss.
    """
    if kind == 'softmax':
        return contrastive_loss(scores, is_same, temperature=temperature)
    negatives: Negatives = 'all' if kind == 'ranking' else 'hardest'
    return ranking_loss(scores, is_same, margin=margin, negatives=negatives)


def all_scores(
    regions: Float[Array, 'k r h'],
    words: Float[Array, 'l t h'],
    mask: Bool[Array, 'l t'],
    form: Form = 'best_region',
    *,
    mean: bool = False,
    chunk: int = 50,
) -> Float[Array, 'k l']:
    """`image_sentence_scores` of many images, `chunk` at a time: for retrieval over a whole test set."""
    k = regions.shape[0]
    padded = jnp.pad(regions, ((0, -k % chunk), (0, 0), (0, 0)))
    groups = padded.reshape(-1, chunk, *regions.shape[1:])
    scores = jax.lax.map(
        lambda group: image_sentence_scores(group, words, mask, form, mean=mean), groups
    )
    return scores.reshape(-1, words.shape[0])[:k]


@functools.partial(jax.jit, static_argnames=('network', 'form', 'mean'))
def _scores(network, params, features, words, form, mean):
    return all_scores(*embed(network, params, features, words), form, mean=mean)


def retrieval_scores(
    network: AlignmentNetwork,
    params: PyTree,
    features: Float[np.ndarray, 'n r d'],
    groups: Sequence[tuple[Int[np.ndarray, ' _k'], Int[np.ndarray, '_k _t']]],
    form: Form = 'best_region',
    *,
    mean: bool = False,
    size: int = 250,
) -> Float[np.ndarray, 'n m']:
    """Scores of all images and all sentences of a split, compiled once for each sentence length.

    Args:
      network: The network.
      params: Parameters of the network.
      features: Features of the regions of n images.
      groups: (rows, padded words) of sentences of similar length; the rows of all groups are 0..m - 1.
      form: As in `image_sentence_scores`.
      mean: As in `image_sentence_scores`.
      size: Number of sentences at a time.
    """
    result = np.empty((len(features), sum(len(rows) for rows, _ in groups)), np.float32)
    for rows, words in groups:
        for start in range(0, len(rows), size):
            at = np.resize(np.arange(start, min(start + size, len(rows))), size)
            result[:, rows[at]] = _scores(network, params, features, words[at], form, mean)
    return result
