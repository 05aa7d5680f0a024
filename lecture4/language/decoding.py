"""Decoding of a language model: greedy, sampling, beam search; static shapes, so that one program serves all sentences.

A model is `step(state, tokens) -> (state, log_probs)`: from a pytree of arrays with leading axis n and the last
tokens [n] to a new state and log probabilities [n, v] of the next token. END ends a sentence, and all tokens after it
are END as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from lecture4.ops.varying import vary_as_returned

END = 0
Step = Callable[[PyTree, Int[Array, ' n']], tuple[PyTree, Float[Array, 'n v']]]


class Decoded(NamedTuple):
    """Sentences and their log probabilities.

    Attributes:
      tokens: Words, followed by END.
      log_probs: Log probability of the whole sentence, including END where it was reached.
    """

    tokens: Int[Array, '*n t']
    log_probs: Float[Array, '*n']


def greedy(step: Step, state: PyTree, *, max_length: int) -> Decoded:
    """The most probable token at every step.

    Args:
      step: The model.
      state: State before the first word, with leading axis n.
      max_length: Number of steps; a sentence that has not ended is truncated.
    """
    return _walk(step, state, max_length, lambda log_probs, i: jnp.argmax(log_probs, axis=1))


def sample(
    key: PRNGKeyArray,
    step: Step,
    state: PyTree,
    *,
    max_length: int,
    temperature: float | Float[ArrayLike, ''] = 1.0,
) -> Decoded:
    """Tokens sampled from softmax(log_probs / temperature); the returned log_probs are those of the model.

    Args:
      key: A random key.
      step: The model.
      state: State before the first word, with leading axis n.
      max_length: Number of steps.
      temperature: Positive; near 0 decoding is greedy. May be traced, and a traced value of 0 or less is not
        detected.
    """

    def choose(log_probs, i):
        return jax.random.categorical(jax.random.fold_in(key, i), log_probs / temperature, axis=1)

    return _walk(step, state, max_length, choose)


def _walk(step, state, max_length, choose) -> Decoded:
    n = jax.tree.leaves(state)[0].shape[0]

    def body(carry, i):
        state, last, is_done, total = carry
        state, log_probs = step(state, last)
        token = jnp.where(is_done, END, choose(log_probs, i).astype(jnp.int32))
        gain = jnp.take_along_axis(log_probs, token[:, None], 1)[:, 0]
        total = total + jnp.where(is_done, 0, gain)
        return (state, token, is_done | (token == END), total), token

    start = (state, jnp.full(n, END, jnp.int32), jnp.zeros(n, bool), jnp.zeros(n))
    start = vary_as_returned(lambda carry: body(carry, 0)[0], start)
    (_, _, _, total), tokens = jax.lax.scan(body, start, jnp.arange(max_length))
    return Decoded(tokens.T, total)


def beam_search(step: Step, state: PyTree, *, width: int, max_length: int) -> Decoded:
    """The `width` most probable sentences of a beam search with that width, the best first.

    Exact if the width is at least the number of prefixes of max_length - 1 tokens. A sentence that has ended stays in
    the beam and competes with unfinished ones.

    Args:
      step: The model.
      state: State before the first word, with leading axis n.
      width: Number of hypotheses kept for each of the n.
      max_length: Number of steps; a sentence that has not ended is truncated.

    Returns:
      tokens [n, width, max_length] and log_probs [n, width]; -inf if there are fewer sentences.
    """
    n = jax.tree.leaves(state)[0].shape[0]

    def repeat(leaf):
        return jnp.repeat(leaf, width, axis=0)

    def body(carry, i):
        state, last, total, tokens = carry
        state, log_probs = step(state, last.reshape(-1))
        v = log_probs.shape[1]
        only_end = jnp.where(jnp.arange(v) == END, 0.0, -jnp.inf).astype(log_probs.dtype)
        is_done = (last == END) & (i > 0)
        log_probs = jnp.where(
            is_done[:, :, None], only_end[None, None], log_probs.reshape(n, width, v)
        )
        candidates = (total[:, :, None] + log_probs).reshape(n, width * v)
        total, at = jax.lax.top_k(candidates, width)
        beam, token = at // v, (at % v).astype(jnp.int32)
        rows = (jnp.arange(n)[:, None] * width + beam).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[rows], state)
        tokens = jnp.take_along_axis(tokens, beam[:, :, None], axis=1).at[:, :, i].set(token)
        return (state, token, total, tokens), None

    first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    start = (
        jax.tree.map(repeat, state),
        jnp.full((n, width), END, jnp.int32),
        jnp.broadcast_to(first[None], (n, width)),
        jnp.full((n, width, max_length), END, jnp.int32),
    )
    start = vary_as_returned(lambda carry: body(carry, 0)[0], start)
    (_, _, total, tokens), _ = jax.lax.scan(body, start, jnp.arange(max_length))
    return Decoded(tokens, total)


def words(tokens: Int[ArrayLike, ' t'], vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a decoded sentence, up to END."""
    sentence = []
    for token in np.asarray(tokens).tolist():
        if token == END:
            break
        sentence.append(vocabulary[token])
    return tuple(sentence)
