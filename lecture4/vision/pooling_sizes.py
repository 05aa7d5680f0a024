"""Poolings of different kind, width and stride after one convolution: accuracy, invariance and cost compared."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from lecture4.ops import pool, receptive_field
from lecture4.ops.receptive_field import Layer
from lecture4.ops.updates import apply_gradients


class Pooling(NamedTuple):
    """A pooling.

    Attributes:
      kind: 'max', 'mean', or 'subsample', the first value of every window.
      window: Height and width of the windows.
      stride: Distance between windows; smaller than `window` where they overlap.
    """

    kind: Literal['max', 'mean', 'subsample']
    window: int
    stride: int

    @property
    def name(self) -> str:
        """'max-3-2': kind, window, stride."""
        return f'{self.kind}-{self.window}-{self.stride}'

    def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 c']:
        """Pooled feature maps; incomplete windows at the end are included."""
        if self.kind == 'subsample':
            return x[:, :: self.stride, :: self.stride]
        if self.kind == 'max':
            return pool.max_pool(x, self.window, self.stride, edge='torch')
        return pool.mean_pool(x, self.window, self.stride, edge='torch', count='valid')


class Network(nn.Module):
    """Convolution with padding, ReLU, pooling, a dense layer.

    Attributes:
      pooling: Pooling after the ReLU.
      features: Number of filters.
      kernel_size: Height and width of the filters, odd.
      n_classes: Number of classes.
    """

    pooling: Pooling
    features: int
    kernel_size: int
    n_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n classes'], Float[Array, 'n h2 w2 features']]:
        """Logits, and the pooled feature maps."""
        size = (self.kernel_size, self.kernel_size)
        maps = self.pooling(nn.relu(nn.Conv(self.features, size, name='conv')(jnp.asarray(x))))
        return nn.Dense(self.n_classes, name='fc')(maps.reshape(len(maps), -1)), maps

    def stack(self) -> receptive_field.Stack:
        """Layers of the network, for `receptive_field.summarize`."""
        own, padding = self.pooling, self.kernel_size // 2
        window = own.stride if own.kind == 'subsample' else own.window
        return (
            Layer('conv', 'conv', self.features, self.kernel_size, 1, padding),
            Layer('pool', 'pool', None, window, own.stride, edge='torch'),
            Layer('fc', 'dense', self.n_classes),
        )


def poolings(windows: tuple[int, ...]) -> tuple[Pooling, ...]:
    """No pooling (as 'max-1-1'), then every kind at every width; max and mean also with overlap.

    Args:
      windows: Widths of at least 2; overlapping windows have a stride of half their width, rounded up, as AlexNet's 3
        / 2.
    """
    result = [Pooling('max', 1, 1)]
    for window in windows:
        strides = sorted({window, -(-window // 2)}) if window > 2 else [window]
        result += [Pooling(kind, window, s) for kind in ('max', 'mean') for s in strides]
        result.append(Pooling('subsample', window, window))
    return tuple(result)


def cross_entropy(outputs: tuple[Array, Array], batch: Any) -> tuple[Float[Array, ''], dict]:
    """Mean cross-entropy of the logits, and no metrics."""
    log_probs = jax.nn.log_softmax(outputs[0])
    return -jnp.mean(jnp.take_along_axis(log_probs, batch['labels'][:, None], axis=1)), {}


def fit(
    network: Network,
    x: Float[ArrayLike, 'n h w c'],
    labels: Int[ArrayLike, ' n'],
    rows: Int[ArrayLike, 'steps batch'],
    *,
    learning_rate: float,
    seed: int = 0,
) -> Any:
    """Train a network on the given rows of a labeled set, in one compiled call: as many steps as there are batches.

    Args:
      network: The network.
      x: Images.
      labels: Their classes.
      rows: Row numbers of each batch; with few labels, only the labeled images occur in them.
      learning_rate: Learning rate of Adam.
      seed: Seed of the initial weights.

    Returns:
      The variables of the trained network.
    """
    variables = network.init(jax.random.key(seed), jnp.asarray(x)[:1])
    return _fit(network, variables, jnp.asarray(x), jnp.asarray(labels), rows, learning_rate)


@functools.partial(jax.jit, static_argnums=0)
def _fit(network, variables, x, labels, rows, learning_rate):
    optimizer = optax.adam(learning_rate)

    def step(carry, own):
        variables, opt_state = carry

        def loss(variables):
            outputs = network.apply(variables, x[own], train=True)
            return cross_entropy(outputs, {'labels': labels[own]})[0]

        gradient = jax.grad(loss)(variables)
        return apply_gradients(optimizer, gradient, opt_state, variables), None

    (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), rows)
    return variables


def few_label_records(
    name: str,
    network: Network,
    train: tuple[Float[np.ndarray, 'n h w c'], Int[np.ndarray, ' n']],
    test: tuple[Float[np.ndarray, 'm h w c'], Int[np.ndarray, ' m']],
    *,
    num_labels: Sequence[int],
    num_trials: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], Any]:
    """Test accuracy of the network trained on few labeled images alone.

    Args:
      name: Name of the network in the records.
      network: The network.
      train: Images and labels, from which labeled sets are drawn as in `linear_probe.label_records`.
      test: Images and labels.
      num_labels: Numbers of labeled images; a number above that of the training images means all of them.
      num_trials: Number of labeled sets of each size.
      steps: Training steps.
      batch_size: Images per step, drawn with replacement.
      learning_rate: Learning rate of Adam.
      seed: Seed of the labeled sets.

    Returns:
      (records {'features', 'num_labels', 'accuracy' [num_trials]}, variables of the last network).
    """
    (x, labels), records, variables = train, [], None
    for n in sorted({min(n, len(x)) for n in num_labels}):
        accuracy = []
        for trial in range(num_trials):
            rng = np.random.default_rng((seed, trial))
            rows = rng.choice(rng.permutation(len(x))[:n], (steps, batch_size))
            variables = fit(network, x, labels, rows, learning_rate=learning_rate, seed=trial)
            logits, _ = network.apply(variables, test[0])
            accuracy.append(np.mean(np.asarray(logits).argmax(1) == test[1]))
        records.append({'features': name, 'num_labels': n, 'accuracy': np.array(accuracy)})
    return records, variables
