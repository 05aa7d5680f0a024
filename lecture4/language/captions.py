"""Sentences from images: a recurrent network that predicts the next word, given an image or a region.

Token 0 is START before a sentence, END after it and the padding, as the shared index in neuraltalk; token 1,
the unknown word, is never generated. Karpathy & Fei-Fei, CVPR 2015, section 3.2; the LSTM as in Vinyals
et al. 2015 and neuraltalk; soft attention over regions as in Xu et al. 2015.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

from lecture4.language import decoding, recurrent
from lecture4.language.sentence_cnn import symmetric_uniform

START = END = PADDING = 0
UNKNOWN = 1
Cell = Literal['relu', 'lstm']
ImageAt = Literal['first', 'every']


class DecoderState(NamedTuple):
    """State of the network between two words.

    Attributes:
      hidden: State of the recurrence.
      image: Embedded image, if it is added to the inputs.
      is_first: Whether START is the next input.
      regions: Embedded regions, with attention.
    """

    hidden: recurrent.State
    image: Float[Array, 'n e']
    is_first: Bool[Array, ' n']
    regions: Float[Array, 'n r e'] | None = None


class CaptionNetwork(nn.Module):
    """A multimodal recurrent network: next-word logits from an image and the words so far.

    Attributes:
      num_tokens: Size of the vocabulary, including tokens 0 and 1.
      embed_dim: Dimension of word and image embeddings.
      hidden_dim: Dimension of the hidden state, 512 in the paper.
      cell: Recurrence: 'relu' is the paper's h_t = max(0, W_hx x_t + W_hh h_{t-1} + b_h + b_v); 'lstm' is
        neuraltalk's, with a tanh after its memory cell.
      image_at: Whether b_v, the embedded image, is added at the 'first' step only, as published, or at 'every'
        step, neuraltalk's default for its RNN. With 'first', the LSTM gets it in a separate step before START.
        attention: Whether a weighted mean of the regions is a further input of every step, with weights that depend
          on the hidden state.
        dropout_rate: Dropout rate of the embeddings, and of the hidden states before the softmax.
    """

    num_tokens: int
    embed_dim: int = 256
    hidden_dim: int = 512
    cell: Cell = 'lstm'
    image_at: ImageAt = 'first'
    attention: bool = False
    dropout_rate: float = 0.5

    def setup(self) -> None:
        """Layers with neuraltalk's initialization; the embedding of the image initially has unit gain."""
        weights, gates = symmetric_uniform(0.1), recurrent.NUM_GATES[self.cell] * self.hidden_dim
        self.image = nn.Dense(self.embed_dim, kernel_init=nn.initializers.lecun_normal())
        self.words = self.param('words', weights, (self.num_tokens, self.embed_dim))
        self.inputs = nn.Dense(gates, kernel_init=weights)
        self.kernel = self.param('kernel', weights, (self.hidden_dim, gates))
        self.logits = nn.Dense(self.num_tokens, kernel_init=symmetric_uniform(0.01))
        self.drop = nn.Dropout(self.dropout_rate)
        if self.attention:
            self.regions = nn.Dense(self.embed_dim)
            self.query = nn.Dense(self.embed_dim, use_bias=False)
            self.attention_score = nn.Dense(1, use_bias=False)

    def start(self, features: Float[ArrayLike, 'n r d'], *, train: bool = False) -> DecoderState:
        """The state before the first word.

        Args:
          features: Features of regions; the first is the image that is described, and all are attended to.
          train: Whether dropout is on; needs the rng 'dropout'.
        """
        features = jnp.asarray(features)
        n = features.shape[0]
        image = self.drop(self.image(features[:, 0]), deterministic=not train)
        hidden = recurrent.initial_state(self.cell, n, self.hidden_dim, features.dtype)
        if self.cell == 'lstm' and self.image_at == 'first':
            hidden = recurrent.advance(self.cell, hidden, self.inputs(image), self.kernel)
            image = jnp.zeros_like(image)
        regions = jax.nn.relu(self.regions(features)) if self.attention else None
        return DecoderState(hidden, image, jnp.ones(n, bool), regions)

    def advance(
        self, state: DecoderState, x: Float[Array, 'n e']
    ) -> tuple[DecoderState, Float[Array, 'n r'] | None]:
        """One step of the recurrence: (state, attention weights or None)."""
        weights, image = None, state.image
        if self.image_at == 'first':
            image = jnp.where(state.is_first[:, None], image, 0)
        if state.regions is not None:
            query = self.query(state.hidden[0])[:, None]
            energy = self.attention_score(jnp.tanh(state.regions + query))[:, :, 0]
            weights = jax.nn.softmax(energy, axis=1)
            image = image + jnp.einsum('nr,nre->ne', weights, state.regions)
        inputs = self.inputs(x + image)
        hidden = recurrent.advance(self.cell, state.hidden, inputs, self.kernel)
        new = state._replace(hidden=hidden, is_first=jnp.zeros_like(state.is_first))
        return new, weights

    def next_word(
        self, state: DecoderState, tokens: Int[Array, ' n']
    ) -> tuple[DecoderState, Float[Array, 'n v']]:
        """One step of decoding: (state, log probabilities of the next token), -inf for the unknown word."""
        state, _ = self.advance(state, self.words[tokens])
        logits = self.logits(state.hidden[0]).at[:, UNKNOWN].set(-jnp.inf)
        return state, jax.nn.log_softmax(logits)

    def __call__(
        self,
        features: Float[ArrayLike, 'n r d'],
        tokens: Int[ArrayLike, 'n t'],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, 'n t+1 v'], Float[Array, 'n t+1 r'] | None]:
        """Logits of every word and of END after the last one, given the preceding words; and attention weights.

        Args:
          features: Features of regions; the first is the image that is described.
          tokens: Words, padded with zeros.
          train: Whether dropout is on; needs the rng 'dropout'.
        """
        inputs = jnp.pad(jnp.asarray(tokens), ((0, 0), (1, 0)))
        x = self.drop(self.words[inputs], deterministic=not train)
        state = self.start(features, train=train)
        if not self.attention:  # all inputs are known: one product for the gates of all steps
            image = state.image[:, None]
            if self.image_at == 'first':
                image = jnp.where(jnp.arange(x.shape[1])[None, :, None] == 0, image, 0)
            everywhere = jnp.ones(x.shape[:2], bool)
            hidden = recurrent.run(
                self.cell, self.inputs(x + image), everywhere, self.kernel, state=state.hidden
            )
            return self.logits(self.drop(hidden, deterministic=not train)), None

        def body(network, state, x):
            state, weights = network.advance(state, x)
            return state, (state.hidden[0], weights)

        scan = nn.scan(
            body, variable_broadcast='params', split_rngs={'params': False}, in_axes=1, out_axes=1
        )
        _, (hidden, weights) = scan(self, state, x)
        return self.logits(self.drop(hidden, deterministic=not train)), weights


def token_log_likelihood(
    logits: Float[Array, 'n s v'], tokens: Int[ArrayLike, 'n t']
) -> tuple[Float[Array, ' n'], Int[Array, ' n']]:
    """Log-likelihood of sentences in nats, and the number of their tokens, including END.

    Args:
      logits: Logits of every word and of END, s = t + 1, as the network returns them.
      tokens: Words, padded with zeros.
    """
    targets = jnp.pad(jnp.asarray(tokens), ((0, 0), (0, 1)))
    length = jnp.sum(targets != PADDING, axis=1, dtype=jnp.int32)
    is_token = jnp.arange(targets.shape[1])[None] <= length[:, None]
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return -jnp.sum(jnp.where(is_token, entropy, 0), axis=1), length + 1


def loss(logits: Float[Array, 'n s v'], tokens: Int[ArrayLike, 'n t']) -> Float[Array, '']:
    """Mean negative log-likelihood of a token in nats; the perplexity is its exponential."""
    log_likelihood, num_tokens = token_log_likelihood(logits, tokens)
    return -jnp.sum(log_likelihood) / jnp.sum(num_tokens).astype(logits.dtype)


def optimizer(
    learning_rate: float | optax.Schedule = 1e-3,
    *,
    decay: float = 0.999,
    epsilon: float = 1e-8,
    clip: float = 5.0,
) -> optax.GradientTransformation:
    """RMSprop with neuraltalk's constants and elementwise gradient clipping.

    Args:
      learning_rate: Learning rate, positive.
      decay: Decay rate of the mean of squared gradients.
      epsilon: Constant added to this mean under the root.
      clip: Bound on every entry of the gradient.
    """
    return optax.chain(
        optax.clip(clip),
        optax.scale_by_rms(decay=decay, eps=epsilon),
        optax.scale_by_learning_rate(learning_rate),
    )


def decoder(network: CaptionNetwork, params: PyTree) -> decoding.Step:
    """The network as a model of `decoding`, whose initial state is that of `network.start`."""

    def step(state: Any, tokens: Array) -> tuple[Any, Array]:
        outputs: Any = network.apply({'params': params}, state, tokens, method='next_word')
        return outputs

    return step


@functools.partial(jax.jit, static_argnames=('network', 'width', 'max_length'))
def describe(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[ArrayLike, 'n r d'],
    *,
    width: int = 1,
    max_length: int = 20,
) -> decoding.Decoded:
    """The most probable sentence of every image by beam search; compiled once for each shape and width.

    Args:
      network: The network.
      params: Its parameters.
      features: Features of regions; the first is the image that is described.
      width: Beam width; 1 is greedy search.
      max_length: Largest number of tokens of a sentence.

    Returns:
      tokens [n, max_length] and log_probs [n].
    """
    state = network.apply({'params': params}, features, method='start')
    step = decoder(network, params)
    if width == 1:
        return decoding.greedy(step, state, max_length=max_length)
    beam = decoding.beam_search(step, state, width=width, max_length=max_length)
    return decoding.Decoded(beam.tokens[:, 0], beam.log_probs[:, 0])


def sample(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[ArrayLike, 'n r d'],
    key: PRNGKeyArray,
    *,
    temperature: float | Float[ArrayLike, ''] = 1.0,
    max_length: int = 20,
) -> decoding.Decoded:
    """A sentence for every image, sampled word by word from the network's distribution.

    Args:
      network: As in `describe`.
      params: As in `describe`.
      features: As in `describe`.
      key: Random key of the samples.
      temperature: Divisor of the logits, positive.
      max_length: As in `describe`.
    """
    start = network.apply({'params': params}, features, method='start')
    step = decoder(network, params)
    return decoding.sample(key, step, start, max_length=max_length, temperature=temperature)


@functools.partial(jax.jit, static_argnames=('network',))
def log_likelihood(
    network: CaptionNetwork,
    params: PyTree,
    features: Float[ArrayLike, 'n r d'],
    tokens: Int[ArrayLike, 'n t'],
) -> tuple[Float[Array, ' n'], Int[Array, ' n']]:
    """Log-likelihood of sentences given images, in nats, and their numbers of tokens, including END."""
    outputs: Any = network.apply({'params': params}, features, tokens)
    return token_log_likelihood(outputs[0], tokens)


def functions(
    network: CaptionNetwork,
    prepare: Callable[[Float[Array, 'n r d']], Float[Array, 'n r k']],
    *,
    width: int,
    max_length: int,
) -> dict[str, Callable[..., Array]]:
    """Functions of a state of training and of raw features: 'describe', 'sample', 'log_likelihood'.

    Args:
      network: The network, whose parameters are the state's field `params`.
      prepare: Features of regions -> inputs of the network.
      width: Beam width of 'describe'.
      max_length: Largest number of words of a generated sentence.
    """

    def describe_(state: Any, features: Float[Array, 'n r d']) -> Int[Array, 'n max_length']:
        """Sentences for images as word indices [n, max_length], from features [n, r, d] of their regions."""
        options = {'width': width, 'max_length': max_length}
        return describe(network, state.params, prepare(features), **options).tokens

    def sample_(
        state: Any,
        features: Float[Array, 'n r d'],
        key: PRNGKeyArray,
        temperature: float | Float[Array, ''] = 1.0,
    ) -> Int[Array, 'n max_length']:
        """Sentences sampled from the model, otherwise as `describe`."""
        options = {'temperature': temperature, 'max_length': max_length}
        return sample(network, state.params, prepare(features), key, **options).tokens

    def log_likelihood_(
        state: Any, features: Float[Array, 'n r d'], words: Int[Array, 'n t']
    ) -> Float[Array, ' n']:
        """Log likelihood (nats) of sentences, word indices [n, t], given images."""
        return log_likelihood(network, state.params, prepare(features), words)[0]

    return {'describe': describe_, 'sample': sample_, 'log_likelihood': log_likelihood_}
