"""Deep autoencoders, trained end to end, or stacked: layer by layer first, then together.

Layer i of a stack is an autoencoder: encoder layer i with the mirrored decoder layer. Its data are the uncorrupted
codes of the layers below; with corruption of these the stack is a stacked denoising autoencoder. There is no
corruption when all layers are trained together, nor in the classifier that shares the encoder.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense, identity
from lecture4.ops.losses import bernoulli_nll, categorical_nll, squared_error
from lecture4.ops.updates import apply_gradients
from lecture4.ops.varying import vary_like


def num_parameters(layer_dims: Sequence[int]) -> int:
    """Number of parameters of an autoencoder with encoder dimensions (d, hidden, ..., k) and a mirrored decoder."""
    return sum(2 * a * b + a + b for a, b in itertools.pairwise(layer_dims))


def equal_width_dims(d: int, depth: int, k: int, max_parameters: int) -> tuple[int, ...]:
    """Dimensions (d, width, ..., width, k) of an encoder with the largest width within a number of parameters.

    Args:
      d: Dimension of the data.
      depth: Number of hidden layers of the encoder, at least 1.
      k: Latent dimension.
      max_parameters: Largest number of parameters of encoder and mirrored decoder.

    Raises:
      ValueError: Even hidden layers of one unit have more parameters.
    """
    width = 0
    while num_parameters((d, *[width + 1] * depth, k)) <= max_parameters:
        width += 1
    if not width:
        least = num_parameters((d, *[1] * depth, k))
        raise ValueError(
            f'got {max_parameters} parameters for an autoencoder with {depth} hidden layers in its encoder; expected '
            f'at least {least}, one unit per layer'
        )
    return (d, *[width] * depth, k)


def encode(
    params: Autoencoder,
    x: Float[ArrayLike, '*n d'],
    activation: Callable = jax.nn.sigmoid,
    latent_activation: Callable = identity,
) -> Float[Array, '*n k']:
    """Codes; `latent_activation` is that of the last encoder layer (linear in the paper)."""
    return network.encode(params, x, activation, latent_activation)


def decode(
    params: Autoencoder, h: Float[ArrayLike, 'n k'], activation: Callable = jax.nn.sigmoid
) -> Float[Array, 'n d']:
    """The last layer's output before any activation: logits, or means."""
    return network.decode(params, h, activation)


def loss(
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    *,
    activation: Callable = jax.nn.sigmoid,
    latent_activation: Callable = identity,
    nll: Callable = bernoulli_nll,
) -> Float[Array, ' n']:
    """-log p(x | g(f(x))) per example.

    Args:
      params: Encoder and decoder.
      x: Examples.
      activation: Activation of the hidden layers.
      latent_activation: Activation of the last encoder layer.
      nll: (output [n, d], x [n, d]) -> [n].

    References:
      Hinton & Salakhutdinov 2006: logistic units, a linear code, the cross-entropy.
    """
    return nll(decode(params, encode(params, x, activation, latent_activation), activation), x)


def layer(params: Autoencoder, i: int) -> Autoencoder:
    """Layer i as an autoencoder: encoder layer i and the mirrored decoder layer.

    Raises:
      ValueError: The decoder is not as deep as the encoder, or there is no layer i.
    """
    depth = len(params.encoder)
    if len(params.decoder) != depth or not 0 <= i < depth:
        raise ValueError(
            f'there is no layer {i} with a mirror in {depth} encoder and {len(params.decoder)} '
            'decoder layers'
        )
    return Autoencoder((params.encoder[i],), (params.decoder[depth - 1 - i],))  # pyright: ignore


def layer_loss(
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray,
    i: int,
    *,
    activation: Callable = jax.nn.sigmoid,
    latent_activation: Callable = identity,
    nll: Callable = bernoulli_nll,
    corrupt: Callable | None = None,
) -> Float[Array, ' n']:
    """The loss of layer i on the uncorrupted codes of the layers below, per example.

    The first layer uses the data's nll; a higher layer reconstructs activations with the squared error. No gradient
    reaches the layers below.

    Args:
      params: Encoder and decoder of equal depth.
      x: Examples.
      key: A random key for the corruption.
      i: Number of the layer, from 0.
      activation: Activation of the hidden layers.
      latent_activation: Activation of the last encoder layer.
      nll: (output [n, d], x [n, d]) -> [n].
      corrupt: (key, codes) -> codes, the layer's corruption of its input.

    Raises:
      ValueError: As in `layer`.

    References:
      Bengio et al. 2007; with corruption, Vincent et al. 2010.
    """
    x = jnp.asarray(x)
    below = network.apply(params.encoder[:i], x, activation, activation) if i else x
    below = jax.lax.stop_gradient(below)
    noisy = below if corrupt is None else corrupt(key, below)
    layer_params = layer(params, i)
    is_last = i == len(params.encoder) - 1
    h = network.encode(layer_params, noisy, identity, latent_activation if is_last else activation)
    if i == 0:
        return nll(network.decode(layer_params, h, identity), below)
    return squared_error(below, network.decode(layer_params, h, identity, activation))


def stage_losses(
    n_layers: int,
    *,
    activation: Callable = jax.nn.sigmoid,
    latent_activation: Callable = identity,
    nll: Callable = bernoulli_nll,
    corrupt: Callable | None = None,
) -> tuple[Callable, ...]:
    """The losses of greedy pretraining, one per stage, and that of all layers together.

    Args:
      n_layers: Number of encoder layers, each of which is a stage.
      activation: Activation of the hidden layers.
      latent_activation: Activation of the last encoder layer.
      nll: (output [n, d], x [n, d]) -> [n].
      corrupt: (key, codes) -> codes, corruption in the stages of single layers; None for no corruption.

    Returns:
      n_layers + 1 functions (params, x [n, d], key) -> (mean loss, {}), as `train.phases` takes them: `layer_loss` of
      layers 0, 1, ..., then `loss`.
    """

    def layer_stage(params, x, key, i):
        each = layer_loss(
            params,
            x,
            key,
            i,
            activation=activation,
            latent_activation=latent_activation,
            nll=nll,
            corrupt=corrupt,
        )
        return jnp.mean(each), {}

    def joint_stage(params, x, key):
        del key
        each = loss(params, x, activation=activation, latent_activation=latent_activation, nll=nll)
        return jnp.mean(each), {}

    return (*(functools.partial(layer_stage, i=i) for i in range(n_layers)), joint_stage)


def init_classifier(params: Autoencoder, n_classes: int) -> tuple[Dense, ...]:
    """The encoder's layers and an output layer of zeros: fine-tuning starts from the codes.

    References:
      Vincent et al. 2008, section 2.4: a logistic layer on top, all layers trained.
    """
    weight = params.encoder[-1].weight
    zeros = jnp.zeros((weight.shape[1], n_classes), weight.dtype)
    return (*params.encoder, Dense(zeros, jnp.zeros(n_classes, weight.dtype)))


def classify(
    layers: Sequence[Dense], x: Float[ArrayLike, 'n d'], activation: Callable = jax.nn.sigmoid
) -> Float[Array, 'n c']:
    """Class logits of the fine-tuned network."""
    return network.apply(layers, x, activation)


def classifier_loss(
    layers: Sequence[Dense],
    x: Float[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    activation: Callable = jax.nn.sigmoid,
) -> Float[Array, ' n']:
    """-log p(label | x) per example."""
    return categorical_nll(classify(layers, x, activation), labels)


def fine_tune(
    layers: Sequence[Dense],
    train: tuple[Float[ArrayLike, 'n d'], Int[ArrayLike, ' n']],
    valid: tuple[Float[ArrayLike, 'm d'], Int[ArrayLike, ' m']],
    key: PRNGKeyArray,
    *,
    n_epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    activation: Callable = jax.nn.sigmoid,
) -> tuple[tuple[Dense, ...], Float[Array, '']]:
    """Train the classifier and return it after the epoch with the smallest error on `valid`.

    Args:
      layers: From `init_classifier`.
      train: Examples and labels; in every epoch the last n % batch_size of the permutation are left out.
      valid: Held-out examples and labels.
      key: A random key for the permutations.
      n_epochs: Number of epochs.
      batch_size: Examples per step.
      optimizer: An optax gradient transformation.
      activation: Activation of the hidden layers.

    Returns:
      (layers, error): the classifier after its best epoch and its error rate on `valid`.

    Raises:
      ValueError: batch_size exceeds the training set.
    """
    x, labels = (jnp.asarray(part) for part in train)
    layers = vary_like(tuple(layers), (train, valid))
    n_steps = len(x) // batch_size
    if not n_steps:
        raise ValueError(
            f'batch_size {batch_size} exceeds the {len(x)} training examples; use at most {len(x)}'
        )

    def step(carry, rows):
        layers, opt_state = carry

        def mean_loss(layers):
            return jnp.mean(classifier_loss(layers, x[rows], labels[rows], activation))

        return apply_gradients(optimizer, jax.grad(mean_loss)(layers), opt_state, layers), None

    def epoch(carry, key):
        layers, opt_state, best, best_error = carry
        rows = jax.random.permutation(key, len(x))[: n_steps * batch_size]
        (layers, opt_state), _ = jax.lax.scan(
            step, (layers, opt_state), rows.reshape(n_steps, batch_size)
        )
        error = error_rate(layers, valid[0], valid[1], activation)
        better = error < best_error
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), layers, best)
        return (layers, opt_state, best, jnp.minimum(error, best_error)), None

    start = (layers, optimizer.init(layers), layers, jnp.asarray(jnp.inf, x.dtype))
    start = vary_like(start, (layers, train, valid))
    (_, _, best, best_error), _ = jax.lax.scan(epoch, start, jax.random.split(key, n_epochs))
    return best, best_error


def error_rate(
    layers: Sequence[Dense],
    x: Float[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    activation: Callable = jax.nn.sigmoid,
) -> Float[Array, '']:
    """Fraction of the examples whose most probable class is not their label."""
    labels = jnp.asarray(labels)
    predicted = jnp.argmax(classify(layers, x, activation), axis=1).astype(labels.dtype)
    return jnp.mean(predicted != labels, dtype=layers[-1].bias.dtype)


def fine_tuned_error(
    params: Autoencoder,
    splits: Mapping[str, tuple[Float[ArrayLike, '_n d'], Int[ArrayLike, ' _n']]],
    n_classes: int,
    key: PRNGKeyArray,
    **options: Any,
) -> Float[Array, '']:
    """Test error, a fraction, of the classifier fine-tuned from an autoencoder's codes.

    Args:
      params: The autoencoder.
      splits: 'train', 'valid' and 'test' -> (examples, labels).
      n_classes: Number of classes.
      key: As in `fine_tune`.
      **options: Options of `fine_tune`.

    Raises:
      ValueError: As in `fine_tune`.
    """
    layers = init_classifier(params, n_classes)
    tuned, _ = fine_tune(layers, splits['train'], splits['valid'], key, **options)
    return error_rate(tuned, *splits['test'])
