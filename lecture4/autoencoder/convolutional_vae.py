"""A variational autoencoder of convolutional networks: every layer halves height and width.

Convolutions are written as matrix products, because on a CPU and inside a scan of steps XLA spends nearly all of a
step on the gradients of its convolutions.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lecture4.autoencoder import network, stochastic
from lecture4.autoencoder.vae import Model, Params, append_log_std, check_options

KERNEL_SIZE = 4  # a multiple of the stride, so that every output is covered equally often
STRIDE = 2


class Conv(NamedTuple):
    """A convolutional layer."""

    kernel: Float[Array, '4 4 c_in c_out']
    bias: Float[Array, ' c_out']


class Stack(NamedTuple):
    """Convolutional layers, and the dense layers between the smallest feature map and the latent variables."""

    conv: tuple[Conv, ...]
    dense: tuple[network.Dense, ...]


def init_conv(key: PRNGKeyArray, c_in: int, c_out: int) -> Conv:
    """Normal weights of variance 2 / fan-in, biases 0."""
    scale = math.sqrt(2 / (KERNEL_SIZE * KERNEL_SIZE * c_in))
    shape = (KERNEL_SIZE, KERNEL_SIZE, c_in, c_out)
    return Conv(scale * jax.random.normal(key, shape), jnp.zeros(c_out))


def downsample(layer: Conv, x: Float[Array, 'n h w c_in']) -> Float[Array, 'n h//2 w//2 c_out']:
    """Convolution with stride 2 and SAME padding; h and w are even."""
    n, h, w, c = x.shape
    cells = _pad(x).reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, c)
    cells = cells.swapaxes(2, 3).reshape(n, h // 2 + 1, w // 2 + 1, 4 * c)
    # A window is 2 x 2 cells of 2 x 2 pixels, and so is the kernel.
    kernel = layer.kernel.reshape(2, 2, 2, 2, c, -1).swapaxes(1, 2).reshape(16 * c, -1)
    return _windows(cells) @ kernel + layer.bias[None, None, None]


def upsample(layer: Conv, x: Float[Array, 'n h w c_in']) -> Float[Array, 'n 2*h 2*w c_out']:
    """Transposed convolution with stride 2 and SAME padding.

    In the zero-dilated input an output covers 2 x 2 values of x, in one of four ways that depend on the parity of its
    row and column.
    """
    n, h, w, c = x.shape
    kernel = layer.kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 4, 1, 3, 5)
    y = _windows(_pad(x)) @ kernel.reshape(4 * c, -1)
    y = y.reshape(n, h + 1, w + 1, 2, 2, -1)
    rows = [jnp.stack([y[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, -1) + layer.bias[None, None, None]


def _pad(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _windows(x):
    """[n, h, w, c] -> [n, h - 1, w - 1, 4 c]: the values in every 2 x 2."""
    _, h, w, _ = x.shape
    corners = ((i, j) for i in (0, 1) for j in (0, 1))
    return jnp.concatenate([x[:, i : i + h - 1, j : j + w - 1] for i, j in corners], axis=-1)


def convolutional(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    latent_dim: int,
    *,
    hidden_dim: int = 128,
    pixels: stochastic.Distribution = stochastic.BERNOULLI,
    latent: stochastic.Distribution = stochastic.GAUSSIAN,
    learn_std: bool = False,
    activation: Callable = jax.nn.relu,
) -> Model:
    """A model with convolutions, a hidden layer and latent variables as encoder, and the mirror image as decoder.

    Args:
      shape: (h, w, c) of the images, which are passed as vectors [n, h * w * c].
      channels: Channels of the layers, from the image inwards; each layer halves height and width.
      latent_dim: Number of latent variables.
      hidden_dim: Number of units of the layer between the smallest feature map and the latent variables.
      pixels: As in `vae.mlp`; a Gaussian's log standard deviations are further channels of the last
        layer.
      latent: As in `vae.mlp`.
      learn_std: As in `vae.mlp`.
      activation: Activation of all hidden layers.

    Raises:
      ValueError: Height or width cannot be halved that often, or as `vae.mlp`.
    """
    check_options(latent_dim, pixels, learn_std)
    h, w, c = shape
    factor = STRIDE ** len(channels)
    if not channels or h % factor or w % factor:
        raise ValueError(
            f'images of {h} x {w} cannot be halved {len(channels)} times (once for every number '
            f'of channels {tuple(channels)}); crop or pad them to a multiple of {factor}, or use '
            'fewer layers'
        )
    small = (h // factor, w // factor, channels[-1])
    area = math.prod(small)
    c_out = c if learn_std else pixels.n_outputs(c)

    def conv_layers(key, channels):
        keys = jax.random.split(key, len(channels) - 1)
        return tuple(
            init_conv(k, a, b) for k, a, b in zip(keys, channels[:-1], channels[1:], strict=True)
        )

    def init(key):
        keys = jax.random.split(key, 4)
        encoder_dims = (area, hidden_dim, latent.n_outputs(latent_dim))
        decoder_dims = (latent.n_values(latent_dim), hidden_dim, area)
        return Params(
            Stack(conv_layers(keys[0], (c, *channels)), network.init(keys[1], encoder_dims)),
            Stack(
                conv_layers(keys[2], (*channels[::-1], c_out)), network.init(keys[3], decoder_dims)
            ),
            jnp.zeros(()) if learn_std else None,
        )

    def encode(params, x):
        features = x.reshape(len(x), h, w, c)
        for layer in params.encoder.conv:
            features = activation(downsample(layer, features))
        return network.apply(params.encoder.dense, features.reshape(len(x), -1), activation)

    def decode(params, z):
        features = network.apply(params.decoder.dense, z, activation, activation)
        features = features.reshape(len(z), *small)
        *inner, last = params.decoder.conv
        for layer in inner:
            features = activation(upsample(layer, features))
        outputs = upsample(last, features)
        # Channels of one kind of output (means, then log standard deviations) are contiguous.
        outputs = outputs.reshape(len(z), h * w, c_out // c, c).swapaxes(1, 2)
        return append_log_std(params, outputs.reshape(len(z), -1))

    return Model(init, encode, decode, latent, pixels, latent_dim)
