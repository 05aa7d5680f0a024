"""Semantic codes of text: an autoencoder of bags of words, codes of bits, word vectors.

A document is its word counts v [V]. The encoder sees them scaled to norm 1, the decoder is a softmax
over the vocabulary, and the loss is that of drawing every word of the document from it,

    -sum_i v_i log p_i(code),

so that a long document weighs as much as its words. Documents with codes close together are about the
same things, also where they share no word; words whose weights are close together are used alike.

Semantic hashing wants codes of bits: logistic units with Gaussian noise on their input, which they
can only overcome by being far from 1/2 (`loss` with noise; `bits`, `hamming`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, identity
from lecture4.ops.prox import require_floating


def bags(encoded: Sequence[np.ndarray], n_words: int) -> np.ndarray:
    """Word counts of documents given as word numbers: float32 [n, n_words].

    Errors  ValueError for a number outside 0 .. n_words - 1, naming the document.
    """
    counts = np.zeros((len(encoded), n_words), np.float32)
    for i, numbers in enumerate(encoded):
        if len(numbers) and not 0 <= min(numbers) <= max(numbers) < n_words:
            raise ValueError(
                f'document {i} has word numbers {min(numbers)} to {max(numbers)}; {n_words} words '
                'are numbered from 0'
            )
        np.add.at(counts[i], np.asarray(numbers, int), 1)
    return counts


def init(key, n_words: int, widths: Sequence[int], *, dtype=jnp.float32) -> Autoencoder:
    """n_words - widths - n_words and back; widths (hidden, ..., code)."""
    return network.init_autoencoder(key, (n_words, *widths), scale='glorot', dtype=dtype)


def unit(counts):
    """Counts of every document scaled to norm 1, so that its length does not matter; [n, V].

    A document without a word stays 0.
    """
    counts = require_floating('counts', counts)
    norm = jnp.linalg.norm(counts, axis=-1, keepdims=True)
    return counts / jnp.where(norm > 0, norm, 1)


def encode(params: Autoencoder, counts, *, activation: Callable = jnp.tanh, code=identity):
    """Codes [n, k] of documents' counts [n, V]; `code` is the activation of the last layer."""
    return network.encode(params, unit(counts), activation, code)


def log_words(params: Autoencoder, codes, *, activation: Callable = jnp.tanh):
    """What the decoder expects, log p(word | code): [n, k] -> [n, V]."""
    return jax.nn.log_softmax(network.decode(params, codes, activation), axis=-1)


def loss(
    params: Autoencoder,
    counts,
    key=None,
    *,
    activation: Callable = jnp.tanh,
    code: Callable = identity,
    noise=0.0,
    seen=None,
):
    """-sum_i v_i log p_i of every document, in nats, [n].

    noise  standard deviation of what is added to the input of the code units: for bits. It wants a
           key. It may be traced.
    seen   counts that the encoder sees, where they are not the document's own: a corruption.
    Shapes  counts, seen [n, V] float.
    Errors  TypeError for integers; ValueError where widths do not fit.
    Source  Salakhutdinov & Hinton 2009, Semantic hashing, sections 2 and 3.
    """
    counts = require_floating('counts', counts)
    inner = network.encode(params, unit(counts if seen is None else seen), activation)
    if key is not None:
        inner = inner + jnp.asarray(noise, inner.dtype) * jax.random.normal(
            key, inner.shape, inner.dtype
        )
    return -jnp.sum(counts * log_words(params, code(inner), activation=activation), axis=-1)


def bits(codes, threshold=0.5):
    """Codes of logistic units as bits: [n, k] -> bool [n, k]."""
    return codes > threshold


def undecided(codes, margin=0.1):
    """Share of logistic units between margin and 1 - margin: those that rounding would change."""
    return jnp.mean((codes > margin) & (codes < 1 - margin), dtype=codes.dtype)


def hamming(a, b):
    """In how many bits every code of a differs from every one of b: bool [n, k], [m, k] -> int32.

    By one product of matrices of +-1; exact for k up to 2^24.
    Errors  ValueError where the codes have different widths.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f'codes of {a.shape[-1]} and of {b.shape[-1]} bits have no distance')
    signs = [jnp.where(v, 1.0, -1.0).astype(jnp.float32) for v in (a, b)]
    agreement = jnp.matmul(signs[0], signs[1].T, precision='highest')
    return ((a.shape[-1] - agreement) / 2).astype(jnp.int32)


def word_vectors(params: Autoencoder):
    """A vector for every word, the weights by which it enters the first layer: [V, h]."""
    return params.encoder[0].weight


def cooccurrences(counts) -> np.ndarray:
    """How often two words stand in one document: [n, V] -> [V, V], the diagonal pairs of one word.

    A word that comes v times makes v (v - 1) pairs with itself, ordered, as v u does with another.
    """
    counts = np.asarray(counts, np.float64)
    pairs = counts.T @ counts
    return pairs - np.diag(counts.sum(0))


def ppmi(pairs) -> np.ndarray:
    """Positive pointwise mutual information: max(0, log p(i, j) / (p(i) p(j))), [V, V].

    A linear autoencoder of its rows is a truncated singular value decomposition: the word vectors
    of latent semantic analysis.
    Shapes  pairs [V, V] counts, symmetric. Words without a pair have rows of 0.
    Source  Church & Hanks 1990; Bullinaria & Levy 2007 for its positive part.
    """
    pairs = np.asarray(pairs, np.float64)
    total, each = pairs.sum(), pairs.sum(1)
    expected = np.outer(each, each) / max(total, 1)
    ratio = np.divide(pairs, expected, out=np.zeros_like(pairs), where=(expected > 0))
    return np.log(np.maximum(ratio, 1))


def nearest(vectors, queries, n: int, *, others=None):
    """The n rows of `others` with the largest cosine to each query, and the cosines.

    Shapes  queries [m, d]; others [v, d], None: vectors, without the query's own row where queries
            are row numbers [m]. Returns int [m, n] and float [m, n], nearest first.
    """
    table = np.asarray(vectors if others is None else others, np.float64)
    rows = None
    queries = np.asarray(queries)
    if queries.ndim == 1:
        rows, queries = queries, np.asarray(vectors)[queries]
    table, queries = _unit_rows(table), _unit_rows(queries)
    cosine = queries @ table.T
    if rows is not None:
        cosine[np.arange(len(rows)), rows] = -np.inf
    order = np.argsort(-cosine, axis=1, kind='stable')[:, :n]
    return order, np.take_along_axis(cosine, order, axis=1)


def _unit_rows(rows):
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)
