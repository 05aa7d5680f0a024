"""A variational autoencoder whose networks are convolutions: half the side at every layer."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lecture4.autoencoder import network, stochastic
from lecture4.autoencoder.variational import Model, Weights, check_width, with_std

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
SIDE = 4  # of the kernels: a multiple of the stride, so that every output is covered equally often
STRIDE = 2


class Conv(NamedTuple):
    """A layer of kernels [SIDE, SIDE, c_in, c_out] and biases [c_out]."""

    kernel: jax.Array
    bias: jax.Array


class Stack(NamedTuple):
    """Convolutions, and the affine layers between the smallest map and the code."""

    maps: tuple[Conv, ...]
    dense: tuple[network.Dense, ...]


def init_conv(key, c_in: int, c_out: int) -> Conv:
    """Normal weights of variance 2 / fan-in, biases 0."""
    scale = math.sqrt(2 / (SIDE * SIDE * c_in))
    return Conv(scale * jax.random.normal(key, (SIDE, SIDE, c_in, c_out)), jnp.zeros(c_out))


def shrink(layer: Conv, x):
    """Convolution with stride 2: [n, h, w, c_in] -> [n, h/2, w/2, c_out]."""
    y = jax.lax.conv_general_dilated(
        x, layer.kernel, (STRIDE, STRIDE), 'SAME', dimension_numbers=LAYOUT
    )
    return y + layer.bias[None, None, None]


def grow(layer: Conv, x):
    """Transposed convolution with stride 2: [n, h, w, c_in] -> [n, 2h, 2w, c_out]."""
    y = jax.lax.conv_transpose(x, layer.kernel, (STRIDE, STRIDE), 'SAME', dimension_numbers=LAYOUT)
    return y + layer.bias[None, None, None]


def convolutional(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    width: int,
    *,
    hidden: int = 128,
    pixels: stochastic.Family = stochastic.BERNOULLI,
    code: stochastic.Family = stochastic.GAUSSIAN,
    learn_std: bool = False,
    activation=jax.nn.relu,
) -> Model:
    """Convolutions, a hidden layer, the code; and the mirror image as decoder.

    shape      (h, w, c) of the pictures, which come and go as vectors [n, h * w * c].
    channels   of the layers, from the picture inwards; each halves both sides.
    hidden     width of the layer between the smallest map and the code.
    pixels, code, learn_std  as variational.mlp; a Gaussian's log standard deviations are further
               channels of the last layer.
    Errors     ValueError where the sides cannot be halved that often, or as variational.mlp.
    """
    check_width(width)
    if learn_std and pixels is not stochastic.GAUSSIAN:
        raise ValueError('learn_std wants pixels=GAUSSIAN, whose log standard deviation it learns')
    h, w, c = shape
    factor = STRIDE ** len(channels)
    if not channels or h % factor or w % factor:
        raise ValueError(
            f'pictures of {h} x {w} cannot be halved {len(channels)} times (once for every number '
            f'of channels {tuple(channels)}); crop or pad them to a multiple of {factor}, or take '
            'fewer layers'
        )
    small = (h // factor, w // factor, channels[-1])
    c_out = c if learn_std else pixels.n_outputs(c)
    inwards, outwards = (c, *channels), (*channels[::-1], c_out)

    def maps(key, sizes):
        keys = jax.random.split(key, len(sizes) - 1)
        return tuple(
            init_conv(k, a, b) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
        )

    def init(key):
        keys = jax.random.split(key, 4)
        area = math.prod(small)
        return Weights(
            Stack(maps(keys[0], inwards), network.init(keys[1], (area, hidden, code.n_outputs(width)))),
            Stack(maps(keys[2], outwards), network.init(keys[3], (code.n_values(width), hidden, area))),
            jnp.zeros(()) if learn_std else None,
        )  # fmt: skip

    def encode(params, x):
        found = x.reshape(len(x), h, w, c)
        for layer in params.encoder.maps:
            found = activation(shrink(layer, found))
        return network.apply(params.encoder.dense, found.reshape(len(x), -1), activation)

    def decode(params, z):
        found = network.apply(params.decoder.dense, z, activation, activation)
        found = found.reshape(len(z), *small)
        *inner, last = params.decoder.maps
        for layer in inner:
            found = activation(grow(layer, found))
        found = grow(last, found)
        # Channels that mean one kind of output (means, then log deviations) stay together.
        found = found.reshape(len(z), h * w, c_out // c, c).swapaxes(1, 2)
        return with_std(params, found.reshape(len(z), -1))

    return Model(init, encode, decode, code, pixels, width)
