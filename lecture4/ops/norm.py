"""Local normalisations of activations: local response (across channels) and local contrast."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.ops.prox import require_floating


class Convention(NamedTuple):
    """How local response normalisation reads its constants.

    k          the additive constant, where the caller gives none.
    per_value  whether alpha multiplies the mean of the window's squares, not their sum.
    """

    k: float
    per_value: bool


CONVENTIONS = {
    'paper': Convention(2.0, per_value=False),  # Krizhevsky et al. 2012, as printed
    'cuda_convnet': Convention(2.0, per_value=True),  # the paper's k, alpha over the window's size
    'caffe': Convention(1.0, per_value=True),  # Caffe's and torch's defaults
}


def local_response(
    x,
    size=5,
    alpha=1e-4,
    beta=0.75,
    k=None,
    convention: Literal['paper', 'cuda_convnet', 'caffe'] = 'paper',
):
    """Divides x by (k + alpha * S)^beta, S from the squares of `size` neighbouring channels.

    convention  'paper'         k = 2, S the sum of squares
                'cuda_convnet'  k = 2, S their sum / size
                'caffe'         k = 1, S their sum / size; also torch.nn.LocalResponseNorm
                `k` replaces the convention's. At the border of the channels missing ones are 0,
                and the sum is still divided by `size`.
    Shapes  x [..., c] float; size a whole number; alpha, beta, k scalars (they may be traced).
            Returns x's shape and dtype. An even window reaches one channel further down: from
            c - size // 2 to c + (size - 1) // 2, as torch's.
    Domain  k > 0, alpha >= 0, size >= 1.
    Errors  TypeError for integers; ValueError for size below 1 or an unknown convention.
    Source  Krizhevsky, Sutskever & Hinton 2012, section 3.3.
    """
    x = require_floating('x', x)
    if size < 1:
        raise ValueError(f'size is {size}; the window has to hold at least 1 channel')
    if convention not in CONVENTIONS:
        names = ', '.join(map(repr, CONVENTIONS))
        raise ValueError(f'convention is {convention!r}; one of {names} is wanted')
    chosen = CONVENTIONS[convention]
    k = jnp.asarray(chosen.k if k is None else k, x.dtype)
    alpha = jnp.asarray(alpha, x.dtype) / (size if chosen.per_value else 1)
    scale = k + alpha * _window_sum(x * x, size)
    if isinstance(beta, float) and beta == 0.75:  # two roots are several times faster than a power
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


def local_contrast(x, size=9, sigma=None, floor=None):
    """Subtractive, then divisive normalisation by a Gaussian window over space and all channels.

    v = x - sum_w w x, then v / max(floor, s) with s = sqrt(sum_w w v^2), the same s for all
    channels of a place. At the border the weights are those inside the picture, made to sum to 1,
    so that a constant picture becomes 0 everywhere.

    Shapes  x [n, h, w, c] float; size of the window, odd; sigma its standard deviation in pixels,
            size / 4 where None; floor scalar, None: the mean of s over each picture. Returns x's
            shape and dtype.
    Domain  floor >= 0; a place with v = 0 all round becomes 0, even for floor = 0.
    Errors  TypeError for integers; ValueError for other shapes, an even size, sigma <= 0.
    Source  Jarrett, Kavukcuoglu, Ranzato & LeCun 2009, section 2.1, up to the border and sigma.
    """
    x = require_floating('x', x)
    if x.ndim != 4:
        raise ValueError(f'x has shape {x.shape}; [n, h, w, c] is wanted (one picture: x[None])')
    if size < 1 or size % 2 == 0:
        raise ValueError(f'size is {size}; an odd number is wanted, so that a window has a middle')
    sigma = size / 4 if sigma is None else sigma
    if not sigma > 0:
        raise ValueError(f'sigma is {sigma}; it has to be above 0')
    v = x - _blur(x, size, sigma)
    energy = _blur(v * v, size, sigma)
    s = jnp.sqrt(jnp.where(energy > 0, energy, 1)) * (energy > 0).astype(x.dtype)
    if floor is None:
        floor = jnp.mean(s, axis=(1, 2, 3), keepdims=True)
    scale = jnp.maximum(jnp.asarray(floor, x.dtype), s)
    return v / jnp.where(scale > 0, scale, 1)


def _blur(x, size, sigma):
    """Gaussian mean over space and channels [n, h, w, 1], weights inside the picture."""
    x = jnp.mean(x, axis=-1, keepdims=True)
    for axis in (1, 2):
        matrix = jnp.asarray(_gaussian(x.shape[axis], size, sigma), x.dtype)
        with jax.default_matmul_precision('highest'):
            x = jnp.moveaxis(jnp.tensordot(matrix, x, axes=(1, axis)), 0, axis)
    return x


def _gaussian(n, size, sigma):
    """[n, n]: row i holds the weights of the window round i, which sum to 1."""
    offset = np.arange(n)[:, None] - np.arange(n)[None, :]
    weights = np.exp(-0.5 * (offset / sigma) ** 2) * (abs(offset) <= size // 2)
    return weights / weights.sum(1, keepdims=True)
