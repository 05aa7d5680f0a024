"""A convolutional network for sentences: filters over n-grams, the maximum over time, softmax. Kim, EMNLP 2014.

The network is a convolution over the sentence's word vectors, computed as follows: the response of a filter of size h
at position t is the sum of h products, one for each word under it, and a word occurs in many windows. So every
distinct word is multiplied by every filter tap once, as one matrix product [words, d] x [d, sum(kernel_sizes) *
num_filters], and a window's response is a sum of h rows of the result. The largest response is located without a
gradient and then recomputed with one, so that its gradient scatters a few numbers instead of a tensor of all windows.

The convolution is a cross-correlation, as in all these networks (Kim's Theano code flips the filters, which gives the
same models).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, ScalarLike, Shaped


def symmetric_uniform(scale: float) -> Callable[..., Array]:
    """An initializer with values from U(-scale, scale); those of jax.nn.initializers.uniform are nonnegative."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return init


class SentenceCNN(nn.Module):
    """Kim's network, from word vectors and sentences to logits.

    Attributes:
      n_classes: Number of classes.
      kernel_sizes: Number of words under a filter, one for each group of filters.
      num_filters: Number of filters of each size.
      dropout: Dropout rate of the features; may be traced. As in Kim's code the features are not
        scaled up in training, but down by 1 - dropout otherwise: the bound on the softmax weights holds for the former.
      padding: Number of zero vectors on each side of a sentence that windows may extend over; None sets no limit and
        includes one window of zeros only. That is Kim's network for all except the longest sentence of a set, whose
        padding is 4: a filter's feature is then at least ReLU(bias). With a limit, windows beyond it are left out; if
        a sentence has no window of a size, its response is that of the window of zeros.
    """

    n_classes: int
    kernel_sizes: Sequence[int] = (3, 4, 5)
    num_filters: int = 100
    dropout: Any = 0.5
    padding: int | None = None

    @nn.compact
    def __call__(
        self,
        vectors: Float[ArrayLike, 'r d'] | Sequence[Float[ArrayLike, 'r d']],
        words: Int[ArrayLike, 'n t'],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, 'n c'], dict[str, Shaped[Array, 'n ...']]]:
        """Logits of sentences, and the activations of the network.

        The logits of a sentence depend only on its words, neither on the number of zeros that follow nor on other
        sentences.

        Args:
          vectors: Word vectors, or a sequence of such channels: each filter is applied to all of them, and the
            responses are added (Kim 2014, section 2.1). Row 0 is the padding and counts as zero, whatever its values.
          words: Rows of `vectors`, padded with zeros.
          train: Whether dropout is on; needs the rng 'dropout'.

        Returns:
          (logits, activations): `response_H` [n, windows, num_filters] before bias and ReLU, for each kernel size H;
          `start_H` int [n, num_filters], the position of the strongest window's first word, negative in the padding;
          `features` [n, len(kernel_sizes) * num_filters]; `logits`. Unused activations are not computed under jit.

        Raises:
          TypeError: `words` is not an integer array.
          ValueError: Shapes do not fit, channels differ, a kernel size is below 1 or the padding below 0.
        """
        channels = vectors if isinstance(vectors, tuple | list) else (vectors,)
        channels, words = tuple(map(jnp.asarray, channels)), jnp.asarray(words)
        sizes, n = tuple(self.kernel_sizes), self.num_filters
        _check(channels, words, sizes, self.padding)
        d, dtype = channels[0].shape[1], channels[0].dtype
        filters = [
            self.param(f'filters_{h}', symmetric_uniform(0.01), (h, d, n), dtype) for h in sizes
        ]
        bias = self.param('bias', nn.initializers.zeros, (len(sizes) * n,), dtype)
        table = sum(channels[1:], channels[0]).at[0].set(0)
        taps = jnp.concatenate([jnp.moveaxis(f, 0, 1).reshape(d, -1) for f in filters], axis=1)
        products = table @ taps  # [r, sum(sizes) * n], tap by tap
        largest = max(sizes)
        length = jnp.sum(words != 0, axis=1, dtype=jnp.int32)
        words = jnp.pad(words, ((0, 0), (largest, largest - 1)))
        activations, strongest, column = {}, [], 0
        for h in sizes:
            ends = [column + (j + 1) * n for j in range(h)]
            n_windows = words.shape[1] - h + 1
            response = sum(
                products[:, end - n : end][words[:, j : j + n_windows]]
                for j, end in enumerate(ends)
            )
            candidates = jax.lax.stop_gradient(response)
            if self.padding is not None and self.padding < largest:
                candidates = _inside(candidates, length, h, self.padding, largest)
            at = jnp.argmax(candidates, axis=1).astype(jnp.int32)
            unit = jnp.arange(n)[None]
            strongest += [
                sum(
                    products[jnp.take_along_axis(words, at + j, axis=1), end - n + unit]
                    for j, end in enumerate(ends)
                )
            ]
            activations |= {f'response_{h}': response, f'start_{h}': at - largest}
            column = ends[-1]
        features = jax.nn.relu(jnp.concatenate(strongest, axis=1) + bias[None])
        keep = 1 - jnp.asarray(self.dropout, features.dtype)
        if train:
            mask = jax.random.bernoulli(self.make_rng('dropout'), keep, features.shape)
            dropped = jnp.where(mask, features, 0)
        else:
            dropped = features * keep
        softmax = nn.Dense(
            self.n_classes, param_dtype=dtype, kernel_init=nn.initializers.zeros, name='softmax'
        )
        logits = softmax(dropped)
        return logits, activations | {'features': features, 'logits': logits}


def _inside(response, length, size, padding, largest):
    """Responses with -inf where a window extends past the padding.

    A sentence without a window keeps its first one, which lies in the padding and is zero.
    """
    start = jnp.arange(response.shape[1], dtype=jnp.int32)[None] - largest
    inside = (start >= -padding) & (start + size <= length[:, None] + padding)
    none = ~inside.any(axis=1, keepdims=True)
    inside |= none & (start == -largest)
    return jnp.where(inside[:, :, None], response, -jnp.inf)


def _check(channels, words, sizes, padding):
    if not jnp.issubdtype(words.dtype, jnp.integer):
        raise TypeError(f'expected words as integer rows of the word vectors, got {words.dtype}')
    shapes = {channel.shape for channel in channels}
    if words.ndim != 2 or len(shapes) != 1 or channels[0].ndim != 2:
        raise ValueError(
            f'expected words [n, t] and channels of one shape [r, d], got words {words.shape} and '
            f'channels {sorted(shapes)}'
        )
    if not sizes or min(sizes) < 1:
        raise ValueError(f'expected kernel_sizes of at least 1, got {sizes}')
    if padding is not None and padding < 0:
        raise ValueError(f'expected padding to be None or at least 0, got {padding}')


def num_params(params: PyTree) -> int:
    """Number of parameters, without word vectors."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def loss(
    logits: Float[Array, 'n c'], labels: Int[ArrayLike, ' n']
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """Mean cross-entropy and accuracy.

    Args:
      logits: Logits of the network.
      labels: Labels 0 <= label < c; a label outside makes the loss NaN.

    Returns:
      (loss, {'accuracy': fraction}).
    """
    labels = jnp.asarray(labels)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    known = (labels >= 0) & (labels < logits.shape[1])
    entropy = jnp.where(known, entropy, jnp.nan)
    correct = jnp.argmax(logits, axis=1).astype(labels.dtype) == labels
    return jnp.mean(entropy), {'accuracy': jnp.mean(correct, dtype=logits.dtype)}


def clip_column_norms(max_norm: ScalarLike) -> optax.GradientTransformation:
    """Updates after which no column of a matrix has a norm above max_norm: longer columns are scaled down to it.

    The norm is over the first axis, the inputs of an output unit. Put it last in a chain, since it depends on the
    parameters after the update.

    Args:
      max_norm: Largest norm, positive; may be traced.

    Raises:
      ValueError: Raised by update: the parameters are missing.

    References:
      Hinton et al. 2012, Improving neural networks by preventing co-adaptation; Kim 2014, section 2.2.
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                'clip_column_norms needs the parameters: update(updates, state, params)'
            )

        def clip(step, param):
            moved = param + step
            norm = jnp.sqrt(jnp.sum(moved * moved, axis=0, keepdims=True))
            limit = jnp.asarray(max_norm, param.dtype)
            return moved * (limit / jnp.maximum(norm, limit)) - param

        return jax.tree.map(clip, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def optimizer(
    learning_rate: float | Array = 1.0,
    max_norm: ScalarLike = 3.0,
    weight_decay: float | Array = 0.0,
) -> optax.GradientTransformation:
    """Adadelta (rho 0.95, eps 1e-6) with bounded norms of the softmax columns.

    Args:
      learning_rate: Factor on Adadelta's updates.
      max_norm: Largest norm of each class's softmax weights.
      weight_decay: L2 penalty of filters and softmax weights, not of biases, added to their gradients.

    References:
      Kim 2014; Zeiler 2012.
    """

    def weights(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    def softmax_kernel(params):
        return {
            name: jax.tree.map(lambda leaf, own=name == 'softmax': own and leaf.ndim == 2, part)
            for name, part in params.items()
        }

    return optax.chain(
        optax.add_decayed_weights(weight_decay, weights),
        optax.scale_by_adadelta(rho=0.95, eps=1e-6),
        optax.scale_by_learning_rate(learning_rate),
        optax.masked(clip_column_norms(max_norm), softmax_kernel),
    )
