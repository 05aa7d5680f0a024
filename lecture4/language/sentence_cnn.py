"""A convolutional network for sentences: filters over n-grams, the maximum over time, softmax. Kim, EMNLP 2014.

What it computes is a convolution over the sentence's word vectors. How: a filter of width h at position t is the sum
of h products, one for each word under it, and a word occurs in many windows. So every distinct word is multiplied by
every filter tap once, as one matrix product [words, d] x [d, sum(widths) * maps], and a window's response is a sum of
h rows of the result. The largest response is found without a gradient and then read again with one: its gradient is a
few numbers to scatter, not a tensor of all windows.

The convolution is the cross-correlation, as in all these networks (Kim's Theano flips the filter: the same models).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


def uniform(scale):
    """Initial values from U(-scale, scale)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return init


class SentenceCNN(nn.Module):
    """Kim's network, from word vectors and sentences to logits.

    n_classes  classes.
    widths     words under a filter, one number for each group of filters.
    maps       filters of each width.
    dropout    share of the features that a training step leaves out. As in Kim's code the features are not scaled up
               when training, but down by 1 - dropout when not: the bound on the softmax weights holds for the former.
    padding    zero vectors on each side of a sentence that windows may reach into; None: as many as it takes, and one
               window of nothing but zeros. That is Kim's network for all but the longest sentence of a set, whose own
               padding is 4: a filter's feature is then at least ReLU(bias). With fewer, windows beyond are left out;
               where a sentence has no window of a width, its response is that of the window of zeros.
    """

    n_classes: int
    widths: Sequence[int] = (3, 4, 5)
    maps: int = 100
    dropout: Any = 0.5
    padding: int | None = None

    @nn.compact
    def __call__(self, vectors, words, *, train: bool = False):
        """Logits of sentences, and the activations they come from.

        The answer depends on the words alone: not on how many zeros follow them, nor on the other sentences.
        Shapes  vectors float [r, d], or a tuple of such channels: each filter is applied to all, and the responses
                added (Kim 2014, section 2.1). Row 0 is the padding and counts as zero, whatever it holds.
                words int [n, t], rows of `vectors`, zeros behind a sentence's words.
                Returns logits [n, n_classes] and {response_H [n, windows, maps] before bias and ReLU, for each width H;
                start_H int [n, maps], the position of the strongest window's first word, negative in the padding;
                features [n, widths * maps]; logits}. What is not used is not computed under jit.
        Rngs    'dropout' where train.
        Errors  TypeError for words that are no integers; ValueError for other shapes, channels that differ, widths
                below 1 or a padding below 0.
        """
        channels = vectors if isinstance(vectors, tuple | list) else (vectors,)
        channels, words = tuple(map(jnp.asarray, channels)), jnp.asarray(words)
        widths = tuple(self.widths)
        _check(channels, words, widths, self.padding)
        d, dtype = channels[0].shape[1], channels[0].dtype
        filters = [
            self.param(f'filters_{h}', uniform(0.01), (h, d, self.maps), dtype) for h in widths
        ]
        bias = self.param('bias', nn.initializers.zeros, (len(widths) * self.maps,), dtype)
        table = sum(channels[1:], channels[0]).at[0].set(0)
        taps = jnp.concatenate([jnp.moveaxis(f, 0, 1).reshape(d, -1) for f in filters], axis=1)
        products = table @ taps  # [r, sum(widths) * maps], tap by tap
        widest = max(widths)
        length = jnp.sum(words != 0, axis=1, dtype=jnp.int32)
        words = jnp.pad(words, ((0, 0), (widest, widest - 1)))
        activations, best, column = {}, [], 0
        for h in widths:
            ends = [column + (j + 1) * self.maps for j in range(h)]
            n_windows = words.shape[1] - h + 1
            response = sum(
                products[:, end - self.maps : end][words[:, j : j + n_windows]]
                for j, end in enumerate(ends)
            )
            choose = jax.lax.stop_gradient(response)
            if self.padding is not None and self.padding < widest:
                choose = _within(choose, length, h, self.padding, widest)
            at = jnp.argmax(choose, axis=1).astype(jnp.int32)
            unit = jnp.arange(self.maps)[None]
            best += [
                sum(
                    products[jnp.take_along_axis(words, at + j, axis=1), end - self.maps + unit]
                    for j, end in enumerate(ends)
                )
            ]
            activations |= {f'response_{h}': response, f'start_{h}': at - widest}
            column = ends[-1]
        features = jax.nn.relu(jnp.concatenate(best, axis=1) + bias[None])
        keep = 1 - jnp.asarray(self.dropout, features.dtype)
        if train:
            kept = jax.random.bernoulli(self.make_rng('dropout'), keep, features.shape)
            seen = jnp.where(kept, features, 0)
        else:
            seen = features * keep
        softmax = nn.Dense(
            self.n_classes, param_dtype=dtype, kernel_init=nn.initializers.zeros, name='softmax'
        )
        logits = softmax(seen)
        return logits, activations | {'features': features, 'logits': logits}


def _within(response, length, width, padding, widest):
    """The responses with -inf where a window reaches past the padding; a sentence without a window keeps its first,
    which lies in the padding, is zero, and so stands for it.
    """
    start = jnp.arange(response.shape[1], dtype=jnp.int32)[None] - widest
    inside = (start >= -padding) & (start + width <= length[:, None] + padding)
    none = ~inside.any(axis=1, keepdims=True)
    inside |= none & (start == -widest)
    return jnp.where(inside[:, :, None], response, -jnp.inf)


def _check(channels, words, widths, padding):
    if not jnp.issubdtype(words.dtype, jnp.integer):
        raise TypeError(f'words are {words.dtype}; give rows of the word vectors as integers')
    shapes = {channel.shape for channel in channels}
    if words.ndim != 2 or len(shapes) != 1 or channels[0].ndim != 2:
        raise ValueError(
            f'words {words.shape} and vectors {sorted(shapes)}: wanted words [n, t] and channels of one shape [r, d]'
        )
    if not widths or min(widths) < 1 or (padding is not None and padding < 0):
        raise ValueError(
            f'widths {widths}, padding {padding}: wanted widths of at least 1, and a padding None or at least 0'
        )


def count(params) -> int:
    """How many parameters there are; word vectors are not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def loss(logits, labels):
    """Mean cross-entropy and share of right answers.

    Shapes  logits [n, c]; labels int [n].
    Domain  0 <= label < c; a label outside makes the loss not-a-number, since it may be traced here.
    """
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    known = (labels >= 0) & (labels < logits.shape[1])
    entropy = jnp.where(known, entropy, jnp.nan)
    right = jnp.argmax(logits, axis=1).astype(labels.dtype) == labels
    return jnp.mean(entropy), {'accuracy': jnp.mean(right, dtype=logits.dtype)}


def bound_columns(bound) -> optax.GradientTransformation:
    """Updates after which no column of a matrix has a norm above `bound`: longer ones are scaled down to it.

    The norm is over the first axis, the inputs of an output unit. Comes last in a chain, since it looks at what the
    parameters will be; without parameters ValueError.
    Source  Hinton et al. 2012, Improving neural networks by preventing co-adaptation; Kim 2014, section 2.2.
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError('bound_columns needs the parameters: update(updates, state, params)')

        def one(step, param):
            moved = param + step
            norm = jnp.sqrt(jnp.sum(moved * moved, axis=0, keepdims=True))
            limit = jnp.asarray(bound, param.dtype)
            return moved * (limit / jnp.maximum(norm, limit)) - param

        return jax.tree.map(one, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def optimizer(learning_rate=1.0, norm_bound=3.0, weight_decay=0.0) -> optax.GradientTransformation:
    """Adadelta (rho .95, eps 1e-6), the softmax columns bounded. Kim 2014; Zeiler 2012.

    weight_decay  times the filters and softmax weights (not the biases) is added to their gradients: an L2 penalty.
    """

    def weights(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    def softmax(params):
        return {
            name: jax.tree.map(lambda leaf, own=name == 'softmax': own and leaf.ndim == 2, part)
            for name, part in params.items()
        }

    return optax.chain(
        optax.add_decayed_weights(weight_decay, weights),
        optax.scale_by_adadelta(rho=0.95, eps=1e-6),
        optax.scale_by_learning_rate(learning_rate),
        optax.masked(bound_columns(norm_bound), softmax),
    )
