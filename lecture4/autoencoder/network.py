"""Fully connected encoders and decoders: weights in tuples, activations as functions.

A network is a tuple of `Dense` layers. An `Autoencoder` is an encoder with a decoder that has either its own layers
or, if tied, only biases: then its weights are the encoder's, transposed, and the gradients of both uses add up in one
array.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Shaped

# Half-widths of the uniform distribution over sqrt(6 / (d_in + d_out)), standard deviations of the
# normal one over sqrt(1 / d_in).
UNIFORM = {'glorot': 1.0, 'sigmoid': 4.0}
NORMAL = {'lecun': 1.0, 'he': math.sqrt(2.0)}


class Dense(NamedTuple):
    """One layer, x @ weight + bias."""

    weight: Float[Array, 'd_in d_out']
    bias: Float[Array, ' d_out']


class Autoencoder(NamedTuple):
    """Encoder layers, and decoder layers in the order they are applied.

    Attributes:
      encoder: Layers of the encoder.
      decoder: Layers of the decoder; if tied, only the biases [d] of its layers.
    """

    encoder: tuple[Dense, ...]
    decoder: tuple[Any, ...]


def identity(x: Array) -> Array:
    """The identity as activation."""
    return x


def init(
    key: PRNGKeyArray,
    layer_dims: Sequence[int],
    *,
    scale: str | float = 'glorot',
    dtype: DTypeLike = jnp.float32,
) -> tuple[Dense, ...]:
    """Layers between the given dimensions, biases 0.

    Args:
      key: A random key.
      layer_dims: (d_in, hidden, ..., d_out): one layer fewer than there are dimensions.
      scale: Distribution of the weights.
        'glorot': uniform in +- sqrt(6 / (d_in + d_out));
        'sigmoid': four times that, for logistic units, whose slope at 0 is 1/4;
        'lecun', 'he': normal of variance 1 / d_in, 2 / d_in;
        a number: normal of that standard deviation.
      dtype: A floating-point dtype.

    Returns:
      The layers, first to last.

    Raises:
      ValueError: There are fewer than two dimensions, a dimension is below 1, or the scale is unknown.

    References:
      Glorot & Bengio 2010, eq. 16; He et al. 2015.
    """
    layer_dims = tuple(layer_dims)
    if len(layer_dims) < 2 or min(layer_dims) < 1:
        raise ValueError(
            f'expected layer_dims of an input and an output, each at least 1, got {layer_dims}'
        )
    keys = jax.random.split(key, len(layer_dims) - 1)
    return tuple(
        Dense(_weight(k, d_in, d_out, scale, dtype), jnp.zeros(d_out, dtype))
        for k, (d_in, d_out) in zip(keys, itertools.pairwise(layer_dims), strict=True)
    )


def _weight(key, d_in, d_out, scale, dtype):
    shape = (d_in, d_out)
    if scale in UNIFORM:
        half = UNIFORM[scale] * math.sqrt(6 / (d_in + d_out))
        return jax.random.uniform(key, shape, dtype, -half, half)
    if scale in NORMAL:
        scale = NORMAL[scale] / math.sqrt(d_in)
    if isinstance(scale, str):
        names = ', '.join([*UNIFORM, *NORMAL])
        raise ValueError(f'expected scale to be a number or one of {names}, got {scale!r}')
    return jnp.asarray(scale, dtype) * jax.random.normal(key, shape, dtype)


def init_autoencoder(
    key: PRNGKeyArray,
    layer_dims: Sequence[int],
    *,
    decoder_dims: Sequence[int] | None = None,
    tied: bool = False,
    scale: str | float = 'glorot',
    dtype: DTypeLike = jnp.float32,
) -> Autoencoder:
    """An encoder with its mirror image as decoder, or with a decoder of other layers.

    Args:
      key: A random key.
      layer_dims: (d, hidden, ..., k) of the encoder; the latent dimension k may exceed d.
      decoder_dims: (k, hidden, ..., d); None takes the mirror image of the encoder.
      tied: Whether the decoder's weights are the encoder's, transposed.
      scale: As in `init`.
      dtype: As in `init`.

    Returns:
      Encoder and decoder, biases 0.

    Raises:
      ValueError: As in `init`; the decoder does not map from k to d; a tied decoder is not the mirror
        image of the encoder.
    """
    layer_dims = tuple(layer_dims)
    mirror = layer_dims[::-1]
    decoder_dims = mirror if decoder_dims is None else tuple(decoder_dims)
    encoder_key, decoder_key = jax.random.split(key)
    encoder = init(encoder_key, layer_dims, scale=scale, dtype=dtype)
    if (decoder_dims[0], decoder_dims[-1]) != (mirror[0], mirror[-1]):
        raise ValueError(
            f'expected decoder_dims from the latent dimension {mirror[0]} to the data dimension '
            f'{mirror[-1]}, got {decoder_dims}'
        )
    if not tied:
        return Autoencoder(encoder, init(decoder_key, decoder_dims, scale=scale, dtype=dtype))
    if decoder_dims != mirror:
        raise ValueError(
            f'decoder_dims {decoder_dims} cannot be tied to an encoder of layer_dims {layer_dims}; '
            f'use {mirror}, or tied=False'
        )
    return Autoencoder(encoder, tuple(jnp.zeros(d, dtype) for d in mirror[1:]))


def init_each(
    key: PRNGKeyArray, layer_dims: Mapping[str, Sequence[int]], **options: Any
) -> dict[str, Autoencoder]:
    """Several autoencoders, each by `init_autoencoder` with a different key.

    Args:
      key: A random key.
      layer_dims: Name -> dimensions of the encoder.
      **options: Options of `init_autoencoder`, the same for all.
    """
    keys = jax.random.split(key, len(layer_dims))
    return {
        name: init_autoencoder(own, dims, **options)
        for own, (name, dims) in zip(keys, layer_dims.items(), strict=True)
    }


def transpose_layers(encoder: Sequence[Dense], biases: Sequence[Array]) -> tuple[Dense, ...]:
    """A decoder with an encoder's weights, transposed and in reverse order, and given biases."""
    return tuple(
        Dense(layer.weight.T, bias) for layer, bias in zip(encoder[::-1], biases, strict=True)
    )


def decoder_layers(autoencoder: Autoencoder) -> tuple[Dense, ...]:
    """The decoder's layers, tied or not."""
    if isinstance(autoencoder.decoder[0], Dense):
        return autoencoder.decoder
    return transpose_layers(autoencoder.encoder, autoencoder.decoder)


def affine(layer: Dense, x: Shaped[ArrayLike, '*batch d_in']) -> Float[Array, '*batch d_out']:
    """The layer before its activation, x @ weight + bias.

    Raises:
      ValueError: The number of values of x differs from the number of rows of the layer's weight.
    """
    x = jnp.asarray(x)
    if x.shape[-1] != layer.weight.shape[0]:
        raise ValueError(
            f'expected x of {layer.weight.shape[0]} values per example, got shape {x.shape}'
        )
    product = x @ layer.weight
    return product + layer.bias.reshape((1,) * (product.ndim - 1) + layer.bias.shape)


def apply(
    layers: Sequence[Dense],
    x: Shaped[ArrayLike, '*batch d_in'],
    activation: Callable | Sequence[Callable],
    output_activation: Callable = identity,
) -> Float[Array, '*batch d_out']:
    """The network's output.

    Args:
      layers: Layers, first to last.
      x: Inputs.
      activation: Activation of all layers but the last; or a sequence, one function for each of them.
      output_activation: Activation of the last layer.

    Raises:
      ValueError: x does not fit the first layer, or the number of activations does not fit the hidden layers.
    """
    return activations(layers, x, activation, output_activation)[-1]


def activations(
    layers: Sequence[Dense],
    x: Shaped[ArrayLike, '*batch d_in'],
    activation: Callable | Sequence[Callable],
    output_activation: Callable = identity,
) -> list[Float[Array, '*batch _']]:
    """The outputs of all layers, first to last; arguments and errors as in `apply`."""
    n_hidden = len(layers) - 1
    hidden = [activation] * n_hidden if callable(activation) else list(activation)
    if len(hidden) != n_hidden:
        raise ValueError(
            f'got {len(hidden)} activations for {n_hidden} hidden layers; give one for each, or '
            'one function for all'
        )
    outputs = []
    for layer, function in zip(layers, [*hidden, output_activation], strict=True):
        x = function(affine(layer, x))
        outputs.append(x)
    return outputs


def encode(
    autoencoder: Autoencoder,
    x: Shaped[ArrayLike, '*batch d'],
    activation: Callable | Sequence[Callable],
    latent_activation: Callable = identity,
) -> Float[Array, '*batch k']:
    """Codes of x; `latent_activation` is that of the encoder's last layer."""
    return apply(autoencoder.encoder, x, activation, latent_activation)


def decode(
    autoencoder: Autoencoder,
    code: Shaped[ArrayLike, '*batch k'],
    activation: Callable | Sequence[Callable],
    output_activation: Callable = identity,
) -> Float[Array, '*batch d']:
    """Reconstructions from codes; `output_activation` is that of the decoder's last layer."""
    return apply(decoder_layers(autoencoder), code, activation, output_activation)
