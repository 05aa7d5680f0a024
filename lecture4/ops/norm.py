"""Local normalization of activations: local response (across channels) and local contrast."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.prox import require_floating


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
