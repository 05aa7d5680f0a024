"""Weighted sums of pixels, the operation of every sampler, in the form that suits the target platform.

A point's value is the sum over its taps of weight * pixel, where taps and weights are products over the axes.
With gathers this takes a few operations per pixel on every device. XLA's CPU backend transposes several gathers into
as many scatters over whole images and sums those; here the gradient passes once over the points, in chunks that stay
in the cache. A TPU has no fast gather of single numbers: there small images are multiplied by the matrices of weights.
"""

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from lecture4.ops.varying import vary_like, vary_together

Method = Literal['auto', 'gather', 'matrix']
METHODS = ('auto', 'gather', 'matrix')
PART = 2**17  # size of a chunk in the CPU's gradient
# Number of pixels of an image up to which 'auto' uses matrix products on a TPU (tests/benchmarks/sampling_speed.py).
MATRIX_PIXELS = 2**14


def interpolate(
    images: Float[Array, 'n *size c'],
    indices: Sequence[Sequence[Int[Array, 'n p']]],
    weights: Sequence[Sequence[Float[Array, 'n p']]],
    method: Method = 'auto',
) -> Float[Array, 'n p c']:
    """Sum over all combinations of the axes' taps of the product of their weights and the pixel.

    Gradients: reverse mode only, with respect to images and weights (twice differentiable), unless `method` is
    'matrix'.

    Args:
      images: Images of any number of axes.
      indices: Taps of every axis of the images, one int32 array for each tap, within the image (not checked).
      weights: Weights of the taps, of the dtype of `images`.
      method: 'gather' reads each tap; 'matrix' multiplies by the matrix of each axis' weights (size x p
        numbers an image); 'auto' chooses by the target the program is compiled for.

    Raises:
      ValueError: The method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f'expected method to be one of {", ".join(METHODS)}, got {method!r}')
    taps, factors = tuple(map(tuple, indices)), tuple(map(tuple, weights))
    if method == 'matrix':
        return _by_matrices(images, taps, factors)
    return _interpolate(*vary_together(images, taps, factors), method)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _interpolate(images, indices, weights, method):
    return lax.platform_dependent(
        images, indices, weights, cpu=_gather_flat, tpu=_on_tpu(images, method), default=_gather
    )


def _forward(images, indices, weights, method):
    return _interpolate(images, indices, weights, method), (images, indices, weights)


def _backward(method, saved, g):
    def transposed(form):
        def run(images, indices, weights, g):
            return jax.vjp(lambda *args: form(args[0], indices, args[1]), images, weights)[1](g)

        return run

    on_tpu = _on_tpu(saved[0], method)
    tpu = _gather_transposed if on_tpu is _gather else transposed(on_tpu)
    d_images, d_weights = lax.platform_dependent(
        *saved, g, cpu=_gather_flat_transposed, tpu=tpu, default=_gather_transposed
    )
    return d_images, None, d_weights


_interpolate.defvjp(_forward, _backward)


def _on_tpu(images, method):
    small = math.prod(images.shape[1:-1]) <= MATRIX_PIXELS
    return _by_matrices if method == 'auto' and small else _gather


def _by_matrices(images, indices, weights):
    """A product of matrices over the first axis, then sums over the others."""
    matrices = []
    for axis, (taps, factors) in enumerate(zip(indices, weights, strict=True)):
        pixels = jnp.arange(images.shape[axis + 1], dtype=jnp.int32)[None, None, :]
        matrices.append(
            sum(
                jnp.where(tap[..., None] == pixels, factor[..., None], 0)
                for tap, factor in zip(taps, factors, strict=True)
            )
        )
    n, p, _ = matrices[0].shape
    rows = images.reshape(*images.shape[:2], -1)
    y = jnp.matmul(matrices[0], rows, precision=lax.Precision.HIGHEST)
    y = y.reshape(n, p, *images.shape[2:])
    for matrix in matrices[1:]:
        y = jnp.sum(y * jnp.expand_dims(matrix, range(3, y.ndim)), axis=2)
    return y


def _positions(indices, size):
    """Flat positions of all combinations of the axes' taps."""
    positions = indices[0]
    for taps, length in zip(indices[1:], size[1:], strict=True):
        positions = tuple(a * length + b for a in positions for b in taps)
    return positions


def _products(weights):
    """Weights of all combinations of the axes' taps, in the order of `_positions`."""
    return tuple(functools.reduce(operator.mul, w) for w in itertools.product(*weights))


def _read(pixels, position):
    return pixels.at[position].get(mode='promise_in_bounds')


def _sum_taps(pixels, positions, weights):
    """Pixels [m, c], positions and weights [p] -> [p, c]."""
    taps = [_read(pixels, at) * w[:, None] for at, w in zip(positions, weights, strict=True)]
    return sum(taps[1:], taps[0])


def _sum_taps_transposed(total, pixels, positions, weights, g):
    """`total` [m, c] plus the gradient with respect to the pixels, and the gradients [p] with respect to the weights.

    g is [p, c]; a single channel may lack its axis: total [m], g [p].
    """
    axes = (slice(None), *[None] * (g.ndim - 1))
    for at, w in zip(positions, weights, strict=True):
        total = total.at[at].add(g * w[axes], mode='promise_in_bounds')
    channels = tuple(range(1, g.ndim))
    return total, tuple(jnp.sum(_read(pixels, at) * g, axis=channels) for at in positions)


def _gather(images, indices, weights):
    """One image at a time under vmap, so that a batch may be sharded over devices."""
    positions = _positions(indices, images.shape[1:-1])
    return jax.vmap(_sum_taps)(_pixels(images), positions, _products(weights))


def _gather_transposed(images, indices, weights, g):
    pixels = _pixels(images)
    positions = _positions(indices, images.shape[1:-1])
    products, products_vjp = jax.vjp(_products, weights)
    d_pixels, d_products = jax.vmap(_sum_taps_transposed)(
        jnp.zeros_like(pixels), pixels, positions, products, g
    )
    return d_pixels.reshape(images.shape), *products_vjp(d_products)


def _pixels(images):
    return images.reshape(images.shape[0], -1, images.shape[-1])


def _gather_flat(images, indices, weights):
    """All images as one array: gathers without a batch axis are faster on a CPU."""
    c = images.shape[-1]
    positions, products = _flat_positions(images, indices), _products(weights)
    shape = products[0].shape
    y = _sum_taps(images.reshape(-1, c), *jax.tree.map(jnp.ravel, (positions, products)))
    return y.reshape(*shape, c)


def _flat_positions(images, indices):
    size = images.shape[1:-1]
    first = jnp.arange(images.shape[0], dtype=jnp.int32)[:, None] * math.prod(size)
    return tuple(at + first for at in _positions(indices, size))


def _gather_flat_transposed(images, indices, weights, g):
    c, shape = images.shape[-1], g.shape[:-1]
    products, products_vjp = jax.vjp(_products, weights)
    pixels, n_points = images.reshape(-1, c), math.prod(shape)
    if c == 1:  # a scatter of scalars is faster than one of rows of length 1
        pixels, g = pixels[:, 0], g[..., 0]
    # XLA's CPU backend would recompute positions and weights, from the parameters of a transformation if need be, for
    # every read and every scatter, and read the pixels again for every sum over points. It removes
    # optimization_barrier before it fuses; but it does not fuse across a loop, unless that has a single iteration.
    n_parts = max(2, n_points * c // PART)
    length = -(-n_points // n_parts)

    def parts(a):  # points of weight 0 fill the last chunk
        a = a.reshape(n_points, *a.shape[2:])
        a = jnp.pad(a, [(0, n_parts * length - n_points)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(n_parts, length, *a.shape[1:])

    def add(total, part):
        return _sum_taps_transposed(total, pixels, *part)

    rows = jax.tree.map(parts, (_flat_positions(images, indices), products, g))
    d_pixels, d_products = lax.scan(add, vary_like(jnp.zeros_like(pixels), rows), rows)
    d_products = jax.tree.map(lambda a: a.reshape(-1)[:n_points].reshape(shape), d_products)
    return d_pixels.reshape(images.shape), *products_vjp(d_products)
