"""Semantic codes of text: an autoencoder of bags of words, binary codes, word vectors.

A document is its word counts v [V]. The encoder receives them scaled to norm 1, the decoder is a softmax over the
vocabulary, and the loss is the negative log-likelihood of sampling every word of the document from it,

    -sum_i v_i log p_i(code),

so that a document's weight is its number of words. Documents with nearby codes are about the same subjects even if
they share no word; words with nearby weights are used in similar ways.

Semantic hashing needs binary codes: logistic units with Gaussian noise on their input, against which they are robust
only far from 1/2 (`loss` with noise; `to_bits`, `hamming_distance`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, ScalarLike, Shaped

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, identity
from lecture4.ops import random_numbers
from lecture4.ops.prox import require_floating


def bag_of_words(documents: Sequence[Sequence[int] | np.ndarray], n_words: int) -> np.ndarray:
    """Word counts of documents.

    Args:
      documents: Documents, each a sequence of word indices.
      n_words: Size of the vocabulary.

    Returns:
      float32 counts [n, n_words].

    Raises:
      ValueError: A word index lies outside 0 .. n_words - 1; the message names the document.
    """
    counts = np.zeros((len(documents), n_words), np.float32)
    for i, numbers in enumerate(documents):
        if len(numbers) and not 0 <= min(numbers) <= max(numbers) < n_words:
            raise ValueError(
                f'document {i}: expected word numbers from 0 to {n_words - 1}, got {min(numbers)} '
                f'to {max(numbers)}'
            )
        np.add.at(counts[i], np.asarray(numbers, int), 1)
    return counts


def init(
    key: PRNGKeyArray,
    n_words: int,
    layer_dims: Sequence[int],
    *,
    dtype: DTypeLike = jnp.float32,
) -> Autoencoder:
    """An autoencoder with encoder n_words - layer_dims, and its mirror image as decoder.

    Args:
      key: A random key.
      n_words: Size of the vocabulary.
      layer_dims: (hidden, ..., k) of the encoder, k the latent dimension.
      dtype: A floating-point dtype.
    """
    return network.init_autoencoder(key, (n_words, *layer_dims), scale='glorot', dtype=dtype)


def normalize_counts(counts: Float[ArrayLike, '*batch V']) -> Float[Array, '*batch V']:
    """Counts of every document scaled to norm 1; a document without words stays 0.

    Raises:
      TypeError: counts is an integer array.
    """
    counts = require_floating('counts', counts)
    norm = jnp.linalg.norm(counts, axis=-1, keepdims=True)
    return counts / jnp.where(norm > 0, norm, 1)


def encode(
    params: Autoencoder,
    counts: Float[ArrayLike, 'n V'],
    *,
    activation: Callable = jnp.tanh,
    latent_activation: Callable = identity,
) -> Float[Array, 'n k']:
    """Codes of documents; `latent_activation` is that of the encoder's last layer."""
    return network.encode(params, normalize_counts(counts), activation, latent_activation)


def log_word_probs(
    params: Autoencoder, codes: Float[ArrayLike, 'n k'], *, activation: Callable = jnp.tanh
) -> Float[Array, 'n V']:
    """Log p(word | code) of the decoder."""
    return jax.nn.log_softmax(network.decode(params, codes, activation), axis=-1)


def loss(
    params: Autoencoder,
    counts: Float[ArrayLike, 'n V'],
    key: PRNGKeyArray | None = None,
    *,
    activation: Callable = jnp.tanh,
    latent_activation: Callable = identity,
    noise_std: ScalarLike = 0.0,
    encoder_counts: Float[ArrayLike, 'n V'] | None = None,
) -> Float[Array, ' n']:
    """-sum_i v_i log p_i of every document, in nats.

    Args:
      params: Encoder and decoder.
      counts: Word counts of the documents.
      key: A random key for the noise; None adds none.
      activation: Activation of the hidden layers.
      latent_activation: Activation of the encoder's last layer.
      noise_std: Standard deviation of the noise on the input of the latent units, for binary codes;
        may be traced.
      encoder_counts: Counts that the encoder receives, if they are corrupted; None takes `counts`.

    Raises:
      TypeError: The counts are integers.
      ValueError: The counts do not fit the encoder.

    References:
      Salakhutdinov & Hinton 2009, Semantic hashing, sections 2 and 3.
    """
    counts = require_floating('counts', counts)
    inputs = normalize_counts(counts if encoder_counts is None else encoder_counts)
    inner = network.encode(params, inputs, activation)
    if key is not None:
        inner = inner + jnp.asarray(noise_std, inner.dtype) * random_numbers.normal(
            key, inner.shape, inner.dtype
        )
    log_p = log_word_probs(params, latent_activation(inner), activation=activation)
    return -jnp.sum(counts * log_p, axis=-1)


def to_bits(
    codes: Float[Array | np.ndarray, 'n k'], threshold: ScalarLike = 0.5
) -> Bool[Array | np.ndarray, 'n k']:
    """Binary codes of logistic units: whether each exceeds the threshold."""
    return codes > threshold


def undecided_fraction(
    codes: Float[Array | np.ndarray, 'n k'], margin: ScalarLike = 0.1
) -> Float[Array, '']:
    """Fraction of logistic units between margin and 1 - margin, which rounding would change."""
    return jnp.mean((codes > margin) & (codes < 1 - margin), dtype=codes.dtype)


def hamming_distance(a: Bool[Array, 'n k'], b: Bool[Array, 'm k']) -> Int[Array, 'n m']:
    """Number of bits in which every code of a differs from every code of b.

    Computed by one product of matrices of +-1; exact for k up to 2^24.

    Raises:
      ValueError: The codes have different numbers of bits.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f'expected codes of equal length, got {a.shape[-1]} and {b.shape[-1]} bits'
        )
    signs = [jnp.where(v, 1.0, -1.0).astype(jnp.float32) for v in (a, b)]
    agreement = jnp.matmul(signs[0], signs[1].T, precision='highest')
    return ((a.shape[-1] - agreement) / 2).astype(jnp.int32)


def word_vectors(params: Autoencoder) -> Float[Array, 'V h']:
    """A vector for every word: its weights in the first layer."""
    return params.encoder[0].weight


def cooccurrences(counts: Shaped[ArrayLike, 'n V']) -> Float[np.ndarray, 'V V']:
    """Co-occurrence counts of words in documents; on the diagonal, pairs of one word.

    A word that occurs v times makes v (v - 1) ordered pairs with itself, and v u pairs with another word that occurs
    u times.
    """
    counts = np.asarray(counts, np.float64)
    pairs = counts.T @ counts
    return pairs - np.diag(counts.sum(0))


def ppmi(pairs: Shaped[ArrayLike, 'V V']) -> Float[np.ndarray, 'V V']:
    """Positive pointwise mutual information: max(0, log p(i, j) / (p(i) p(j))).

    A linear autoencoder of its rows is a truncated singular value decomposition: the word vectors
    of latent semantic analysis.

    Args:
      pairs: Symmetric co-occurrence counts. Words without a pair have rows of 0.

    References:
      Church & Hanks 1990; Bullinaria & Levy 2007 for its positive part.
    """
    pairs = np.asarray(pairs, np.float64)
    total, each = pairs.sum(), pairs.sum(1)
    expected = np.outer(each, each) / max(total, 1)
    ratio = np.divide(pairs, expected, out=np.zeros_like(pairs), where=(expected > 0))
    return np.log(np.maximum(ratio, 1))


def nearest_by_cosine(
    vectors: Shaped[ArrayLike, 'v d'],
    queries: Shaped[ArrayLike, 'm *d'],
    n: int,
    *,
    others: Shaped[ArrayLike, 'u d'] | None = None,
) -> tuple[Int[np.ndarray, 'm n'], Float[np.ndarray, 'm n']]:
    """The n rows with the largest cosine to each query, nearest first, and the cosines.

    Args:
      vectors: Vectors in rows.
      queries: Vectors [m, d], or row numbers [m] of `vectors`.
      n: Number of rows per query.
      others: Vectors to search; None takes `vectors`, without the query's row if queries are row numbers.
    """
    vectors = np.asarray(vectors)
    table = np.asarray(vectors if others is None else others, np.float64)
    rows = None
    queries = np.asarray(queries)
    if queries.ndim == 1:
        rows, queries = queries, vectors[queries]
    table, queries = _unit_rows(table), _unit_rows(queries)
    cosine = queries @ table.T
    if rows is not None:
        cosine[np.arange(len(rows)), rows] = -np.inf
    order = np.argsort(-cosine, axis=1, kind='stable')[:, :n]
    return order, np.take_along_axis(cosine, order, axis=1)


def _unit_rows(rows):
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)
