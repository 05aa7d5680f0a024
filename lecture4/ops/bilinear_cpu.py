"""Bilinear sampling of images of one channel by machine code in programs for one CPU, where numba is installed.

XLA's CPU backend takes a pass over scalars for each of a point's four pixels and for each of their gradients; the
machine code takes one over the points. `ops.machine_code` says in which programs it runs; it differs from the plain
form by rounding. The first program compiles it, for 10 to 40 s; numba's cache keeps it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from lecture4.ops import machine_code

TARGET = 'lecture4_bilinear'
MAX_PIXELS = 2**24  # of an image: their numbers are computed in float32


def applies(images: Float[Array, '*image'], grid: Float[Array, '*grid'], padding: str) -> bool:
    """Whether the machine code is written for such images and points."""
    if not machine_code.supported() or len({images.dtype, grid.dtype, np.dtype('float32')}) > 1:
        return False
    *_, height, width, channels = images.shape
    is_static = all(type(n) is int for n in (*images.shape, *grid.shape))
    is_gray = is_static and grid.shape[-1] == 2 and channels == 1 and padding == 'zeros'
    return is_gray and min(height, width) > 1 and height * width <= MAX_PIXELS


def accelerated(plain: Callable[..., Array]) -> Callable[..., Any]:
    """The sampler, for arguments that `applies` accepts.

    Args:
      plain: Its plain form, (images [*batch, h, w, 1], grid [*batch, *out, 2], align_corners) -> values
        [*batch, *out, 1], for normalized coordinates.
    """

    def transposed(images, grid, g, align_corners):
        return jax.vjp(lambda *args: plain(*args, align_corners), images, grid)[1](g)

    static = ('align_corners',)
    values = machine_code.define('bilinear', plain, static, TARGET, _attributes)
    gradients = machine_code.define('bilinear_gradients', transposed, static, TARGET, _attributes)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def sample(images, grid, align_corners):
        return values.bind(images, grid, align_corners=align_corners)[0]

    def backward(align_corners, saved, g):
        return tuple(gradients.bind(*saved, g, align_corners=align_corners))

    sample.defvjp(lambda *args: (sample(*args), args[:2]), backward)
    return sample


def _attributes(context, align_corners):
    from lecture4.ops._bilinear_handler import make_handler  # loads numba

    machine_code.register(TARGET, make_handler)
    images, grid, *g = context.avals_in
    n, (height, width, _) = math.prod(images.shape[:-3]), images.shape[-3:]
    sizes = n, height, width, grid.size // (2 * n)
    return {'options': np.array([*sizes, align_corners, len(g)], np.int64)}
