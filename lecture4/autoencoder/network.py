"""Fully connected encoders and decoders: a few matrices in plain tuples, activations as functions.

A network is a tuple of `Dense` layers. An `Autoencoder` is an encoder with a decoder that has either
layers of its own or, tied, nothing but biases: then its weights are the encoder's, transposed, and
there is one array to learn, to which the gradients of both uses add up.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Half-widths of the uniform distribution over sqrt(6 / (d_in + d_out)), standard deviations of the
# normal one over sqrt(1 / d_in).
UNIFORM = {'glorot': 1.0, 'sigmoid': 4.0}
NORMAL = {'lecun': 1.0, 'he': math.sqrt(2.0)}


class Dense(NamedTuple):
    """One layer, x @ weight + bias: weight [d_in, d_out], bias [d_out]."""

    weight: jax.Array
    bias: jax.Array


class Autoencoder(NamedTuple):
    """Encoder layers, and decoder layers in the order they are applied.

    Tied: `decoder` holds only the biases [d] of the decoder's layers.
    """

    encoder: tuple[Dense, ...]
    decoder: tuple[Any, ...]  # Dense layers, or biases


def identity(x):
    """The activation that changes nothing."""
    return x


def init(key, widths, *, scale: str | float = 'glorot', dtype=jnp.float32) -> tuple[Dense, ...]:
    """Layers between the given widths, biases 0.

    widths  (d_in, hidden, ..., d_out): one layer fewer than there are widths.
    scale   'glorot'   uniform in +- sqrt(6 / (d_in + d_out));
            'sigmoid'  four times that, for logistic units, whose slope at 0 is 1/4;
            'lecun', 'he'  normal of variance 1 / d_in, 2 / d_in;
            a number: normal of that standard deviation.
    Errors  ValueError for fewer than two widths, one below 1, or an unknown scale.
    Source  Glorot & Bengio 2010, eq. 16; He et al. 2015.
    """
    widths = tuple(widths)
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f'widths {widths}: a network has an input and an output, each at least 1 wide'
        )
    keys = jax.random.split(key, len(widths) - 1)
    return tuple(
        Dense(_weight(k, d_in, d_out, scale, dtype), jnp.zeros(d_out, dtype))
        for k, (d_in, d_out) in zip(keys, itertools.pairwise(widths), strict=True)
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
        raise ValueError(f'scale {scale!r} is unknown; there are {names}, or give a number')
    return jnp.asarray(scale, dtype) * jax.random.normal(key, shape, dtype)


def init_autoencoder(
    key,
    widths,
    *,
    decoder_widths: Sequence[int] | None = None,
    tied: bool = False,
    scale: str | float = 'glorot',
    dtype=jnp.float32,
) -> Autoencoder:
    """An encoder of the given widths and its mirror image, or a decoder of any other widths.

    widths          (d, hidden, ..., k): k is the width of the code, more or less than d.
    decoder_widths  (k, ..., d) where the decoder is not the mirror image.
    Errors  ValueError as init; for a decoder that does not lead from k to d; for a tied one that is
            not the mirror image.
    """
    widths = tuple(widths)
    mirror = widths[::-1]
    decoder_widths = mirror if decoder_widths is None else tuple(decoder_widths)
    encoder_key, decoder_key = jax.random.split(key)
    encoder = init(encoder_key, widths, scale=scale, dtype=dtype)
    if (decoder_widths[0], decoder_widths[-1]) != (mirror[0], mirror[-1]):
        raise ValueError(
            f'decoder_widths {decoder_widths} lead from {decoder_widths[0]} to '
            f'{decoder_widths[-1]}; from the code, {mirror[0]}, to the data, {mirror[-1]}, is wanted'
        )
    if not tied:
        return Autoencoder(encoder, init(decoder_key, decoder_widths, scale=scale, dtype=dtype))
    if decoder_widths != mirror:
        raise ValueError(
            f'decoder_widths {decoder_widths} cannot be tied to an encoder of widths {widths}; use '
            f'{mirror}, or tied=False'
        )
    return Autoencoder(encoder, tuple(jnp.zeros(d, dtype) for d in mirror[1:]))


def transposed(encoder, biases) -> tuple[Dense, ...]:
    """The decoder that an encoder's weights, transposed and in reverse order, make with biases."""
    return tuple(
        Dense(layer.weight.T, bias) for layer, bias in zip(encoder[::-1], biases, strict=True)
    )


def decoder_layers(autoencoder: Autoencoder) -> tuple[Dense, ...]:
    """The decoder's layers, tied or not."""
    if isinstance(autoencoder.decoder[0], Dense):
        return autoencoder.decoder
    return transposed(autoencoder.encoder, autoencoder.decoder)


def affine(layer: Dense, x):
    """The layer before its activation: x @ weight + bias.

    Shapes  x [..., d_in]. Returns [..., d_out].
    Errors  ValueError where x has another width, naming both.
    """
    if x.shape[-1] != layer.weight.shape[0]:
        raise ValueError(
            f'x of shape {x.shape} does not meet a layer that takes {layer.weight.shape[0]} values'
        )
    product = x @ layer.weight
    return product + layer.bias.reshape((1,) * (product.ndim - 1) + layer.bias.shape)


def apply(layers, x, activation: Callable | Sequence[Callable], last: Callable = identity):
    """The network's output.

    activation  of all layers but the last; or a sequence, one function for each of those.
    last        of the last layer.
    Shapes  x [..., d_in]. Returns [..., d_out].
    """
    return activations(layers, x, activation, last)[-1]


def activations(layers, x, activation: Callable | Sequence[Callable], last: Callable = identity):
    """The outputs of all layers, first to last; shapes and arguments as in apply."""
    n_hidden = len(layers) - 1
    hidden = [activation] * n_hidden if callable(activation) else list(activation)
    if len(hidden) != n_hidden:
        raise ValueError(
            f'{len(hidden)} activations for {n_hidden} hidden layers; give one for each, or one '
            'function for all'
        )
    outputs = []
    for layer, function in zip(layers, [*hidden, last], strict=True):
        x = function(affine(layer, x))
        outputs.append(x)
    return outputs


def encode(autoencoder: Autoencoder, x, activation, last: Callable = identity):
    """The code of x: [..., d] -> [..., k]; `last` is the activation of the code."""
    return apply(autoencoder.encoder, x, activation, last)


def decode(autoencoder: Autoencoder, code, activation, last: Callable = identity):
    """What the code stands for: [..., k] -> [..., d]; `last` is the activation of the output."""
    return apply(decoder_layers(autoencoder), code, activation, last)
