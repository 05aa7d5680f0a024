"""A variational autoencoder whose networks are convolutions: half the side at every layer.

Convolutions are written as products of matrices: XLA's, on a CPU and inside a scan of steps, spend
nearly all of a step on their gradients.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lecture4.autoencoder import network, stochastic
from lecture4.autoencoder.vae import Model, Weights, check_width, with_std

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
    """Convolution with stride 2, SAME: [n, h, w, c_in] -> [n, h/2, w/2, c_out], h and w even."""
    n, h, w, c = x.shape
    cells = _padded(x).reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, c)
    cells = cells.swapaxes(2, 3).reshape(n, h // 2 + 1, w // 2 + 1, 4 * c)
    # A window is 2 x 2 cells of 2 x 2 pixels, and so is the kernel.
    kernel = layer.kernel.reshape(2, 2, 2, 2, c, -1).swapaxes(1, 2).reshape(16 * c, -1)
    return _windows(cells) @ kernel + layer.bias[None, None, None]


def grow(layer: Conv, x):
    """Transposed convolution with stride 2, SAME: [n, h, w, c_in] -> [n, 2h, 2w, c_out].

    Of the places between the zeros that spread x, an output meets 2 x 2, in one of four ways by
    whether its row and column are odd.
    """
    n, h, w, c = x.shape
    kernel = layer.kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 4, 1, 3, 5)
    y = _windows(_padded(x)) @ kernel.reshape(4 * c, -1)
    y = y.reshape(n, h + 1, w + 1, 2, 2, -1)
    rows = [jnp.stack([y[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, -1) + layer.bias[None, None, None]


def _padded(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _windows(x):
    """[n, h, w, c] -> [n, h - 1, w - 1, 4 c]: the values in every 2 x 2."""
    _, h, w, _ = x.shape
    corners = ((i, j) for i in (0, 1) for j in (0, 1))
    return jnp.concatenate([x[:, i : i + h - 1, j : j + w - 1] for i, j in corners], axis=-1)


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
