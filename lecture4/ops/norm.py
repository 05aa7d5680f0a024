"""Normalization of activations: by the statistics of a batch, local response (across channels), local contrast."""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.prox import require_floating
from lecture4.ops.varying import vary_together


class Convention(NamedTuple):
    """Convention of the constants of local response normalization.

    Attributes:
      k: Default of the additive constant.
      per_value: Whether alpha multiplies the mean of the window's squares, not their sum.
    """

    k: float
    per_value: bool


CONVENTIONS = {
    'paper': Convention(2.0, per_value=False),  # Krizhevsky et al. 2012, as printed
    'cuda_convnet': Convention(2.0, per_value=True),  # the paper's k, alpha over the window's size
    'caffe': Convention(1.0, per_value=True),  # Caffe's and torch's defaults
}


def batch_norm(
    x: Float[ArrayLike, '*batch c'],
    scale: Float[ArrayLike, ' c'],
    bias: Float[ArrayLike, ' c'],
    epsilon: float = 1e-5,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, '*batch c'], Float[Array, ' c'], Float[Array, ' c']]:
    """Normalize every channel by its mean and variance: scale * (x - mean) / sqrt(var + epsilon) + bias.

    The values of `flax.linen.BatchNorm`, of which the gradient saves x and no other array of that size. The variance is
    the mean of squares less the squared mean, as there, and the gradient has the sum of g * (x - mean) in the same
    way: float32 loses digits in both where a channel's mean is much larger than its standard deviation.

    Args:
      x: Activations; sums over them are float32 at least.
      scale: Scale of each channel.
      bias: Bias of each channel.
      epsilon: Added to the variance.
      dtype: Dtype of the result; None takes that of x, scale and bias together.

    Returns:
      Normalized x; the mean and the biased variance, float32 at least. Reverse mode only.

    Raises:
      TypeError: x is not floating point.

    References:
      Ioffe & Szegedy 2015, algorithm 1.
    """
    x, scale, bias = require_floating('x', x), jnp.asarray(scale), jnp.asarray(bias)
    dtype = jnp.result_type(x, scale, bias) if dtype is None else jnp.dtype(dtype)
    # In a user's shard_map a custom gradient needs operands that all vary, or none.
    return _batch_norm(*vary_together(x, scale, bias), epsilon, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(x, scale, bias, epsilon, dtype):
    return _batch_norm_forward(x, scale, bias, epsilon, dtype)[0]


def _batch_norm_forward(x, scale, bias, epsilon, dtype):
    wide = x.astype(x.dtype if x.dtype.itemsize >= 4 else jnp.float32)
    n = math.prod(x.shape[:-1])
    mean = _channel_sum(wide) / n
    var = jnp.maximum(0, _channel_sum(wide * wide) / n - mean * mean)
    inverse_std = lax.rsqrt(var + epsilon)
    y = (wide - mean) * (inverse_std * scale.reshape(mean.shape)) + bias.reshape(mean.shape)
    return (y.astype(dtype), mean.ravel(), var.ravel()), (x, scale, bias, mean, inverse_std)


def _batch_norm_backward(epsilon, dtype, saved, gradients):
    x, scale, bias, mean, inverse_std = saved
    wide, g, g_mean, g_var = (a.astype(mean.dtype) for a in (x, *gradients))
    g_mean, g_var, factor = (a.reshape(mean.shape) for a in (g_mean, g_var, scale))
    factor, n = factor * inverse_std, math.prod(x.shape[:-1])
    d_bias = _channel_sum(g)
    # Of g * (x - mean), XLA's CPU backend would write the difference to memory.
    d_scale = inverse_std * (_channel_sum(g * wide) - mean * d_bias)
    slope = (2 * g_var - factor * inverse_std * d_scale) / n
    dx = factor * g + slope * (wide - mean) + (g_mean - factor * d_bias) / n
    return (
        dx.astype(x.dtype),
        d_scale.ravel().astype(scale.dtype),
        d_bias.ravel().astype(bias.dtype),
    )


def _channel_sum(x):
    """[..., c] -> [1, ..., 1, c]."""
    return jnp.sum(x, range(x.ndim - 1), keepdims=True)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def local_response(
    x: Float[ArrayLike, '*batch c'],
    size: int = 5,
    alpha: Real[ArrayLike, ''] = 1e-4,
    beta: Real[ArrayLike, ''] = 0.75,
    k: Real[ArrayLike, ''] | None = None,
    convention: Literal['paper', 'cuda_convnet', 'caffe'] = 'paper',
) -> Float[Array, '*batch c']:
    """Divide x by (k + alpha * S)^beta, with S computed from the squares of `size` neighboring channels.

    Channels beyond the first and the last count as zeros; a mean of squares is still over `size` channels.

    Args:
      x: Activations.
      size: Number of channels in a window, at least 1. An even window extends one channel further down: from c - size
        // 2 to c + (size - 1) // 2, as in torch.
      alpha: Factor on S, nonnegative; alpha, beta and k may be traced.
      beta: Exponent.
      k: Additive constant, positive; None takes that of the convention.
      convention: 'paper': k = 2, S the sum of squares. 'cuda_convnet': k = 2, S their sum / size.
        'caffe': k = 1, S their sum / size; also torch.nn.LocalResponseNorm.

    Raises:
      TypeError: x is not floating point.
      ValueError: The size is below 1, or the convention is unknown.

    References:
      Krizhevsky, Sutskever & Hinton 2012, section 3.3.
    """
    x = require_floating('x', x)
    if size < 1:
        raise ValueError(f'size is {size}; the window has to hold at least 1 channel')
    if convention not in CONVENTIONS:
        names = ', '.join(map(repr, CONVENTIONS))
        raise ValueError(f'expected convention one of {names}, got {convention!r}')
    chosen = CONVENTIONS[convention]
    k = jnp.asarray(chosen.k if k is None else k, x.dtype)
    alpha = jnp.asarray(alpha, x.dtype) / (size if chosen.per_value else 1)
    scale = k + alpha * _window_sum(x * x, size)
    if (
        isinstance(beta, float) and beta == 0.75
    ):  # two square roots are several times faster than a power
        root = lax.rsqrt(scale)
        return x * (root * jnp.sqrt(root))
    return x * scale ** -jnp.asarray(beta, x.dtype)


def _window_sum(x, size):
    """Sum over `size` channels around each, zeros beyond the ends."""
    n = x.shape[-1]
    below = min(size // 2, n - 1)
    above = min((size - 1) // 2, n - 1)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(below, above)])
    total = padded[..., :n]
    for i in range(1, below + above + 1):
        total = total + padded[..., i : i + n]
    return total


def local_contrast(
    x: Float[ArrayLike, 'n h w c'],
    size: int = 9,
    sigma: int | float | None = None,
    min_std: Real[ArrayLike, ''] | None = None,
) -> Float[Array, 'n h w c']:
    """Subtractive, then divisive normalization by a Gaussian window over space and all channels.

    v = x - sum_w w x, then v / max(min_std, s) with s = sqrt(sum_w w v^2), the same s for all
    channels of a position. At the border the weights are those inside the image, normalized to sum
    to 1, so that a constant image becomes 0 everywhere. A position with v = 0 in the whole window becomes 0, even for
    min_std = 0.

    Args:
      x: Images or feature maps.
      size: Size of the window, odd.
      sigma: Standard deviation of the window in pixels, positive; None takes size / 4.
      min_std: Smallest divisor, nonnegative, in the unit of x; None takes the mean of s over each image.

    Raises:
      TypeError: x is not floating point.
      ValueError: x has another rank, the size is even, or sigma <= 0.

    References:
      Jarrett, Kavukcuoglu, Ranzato & LeCun 2009, section 2.1, up to the border and sigma.
    """
    x = require_floating('x', x)
    if x.ndim != 4:
        raise ValueError(f'expected x of shape [n, h, w, c] (one image: x[None]), got {x.shape}')
    if size < 1 or size % 2 == 0:
        raise ValueError(f'expected an odd size, so that a window has a center, got {size}')
    sigma = size / 4 if sigma is None else sigma
    if not sigma > 0:
        raise ValueError(f'sigma is {sigma}; it has to be above 0')
    v = x - _blur(x, size, sigma)
    energy = _blur(v * v, size, sigma)
    s = jnp.sqrt(jnp.where(energy > 0, energy, 1)) * (energy > 0).astype(x.dtype)
    if min_std is None:
        floor = jnp.mean(s, axis=(1, 2, 3), keepdims=True)
    else:
        floor = jnp.asarray(min_std, x.dtype)
    scale = jnp.maximum(floor, s)
    return v / jnp.where(scale > 0, scale, 1)


def _blur(x, size, sigma):
    """Gaussian mean over space and channels [n, h, w, 1], weights inside the image."""
    x = jnp.mean(x, axis=-1, keepdims=True)
    for axis in (1, 2):
        matrix = jnp.asarray(_gaussian(x.shape[axis], size, sigma), x.dtype)
        with jax.default_matmul_precision('highest'):
            x = jnp.moveaxis(jnp.tensordot(matrix, x, axes=(1, axis)), 0, axis)
    return x


def _gaussian(n, size, sigma):
    """[n, n]: row i holds the weights of the window around i, which sum to 1."""
    offset = np.arange(n)[:, None] - np.arange(n)[None, :]
    weights = np.exp(-0.5 * (offset / sigma) ** 2) * (abs(offset) <= size // 2)
    return weights / weights.sum(1, keepdims=True)
