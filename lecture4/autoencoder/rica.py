"""Layered sparse networks of local receptive fields: reconstruction ICA, pooled and normalised.

Le et al., ICML 2012 (the "cat neuron"). A layer is three sublayers on pictures [n, h, w, c]:

    filters    h = W x: at every place `maps` units of their own, each seeing size x size pixels of
               all channels. Places do not share weights.
    pooled     sqrt(epsilon + sum h^2) over pool x pool neighbouring places of one map, fixed
    contrast   local contrast normalisation over space and maps

A layer is learned without labels, on what the layers below make of pictures: it is to reconstruct
its input while few pools answer,

    ||V h - x||^2 + weight sum_pools sqrt(epsilon + sum h^2),

where V puts back what fields see, summed where they overlap; tied, V = W'. With whitened input and
one field over all of it that is reconstruction ICA, in which the first term stands for the
orthonormality of W: E||W'Wx - x||^2 = ||W W' - I||^2 + d - k.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lecture4.ops import norm, patches, pool
from lecture4.ops.prox import require_floating

EPSILON = 1e-4  # inside the root of a pool, small beside the square of a typical filter's output


class Stage(NamedTuple):
    """The sizes of one layer, in units of its own input."""

    size: int  # side of a receptive field
    maps: int  # units at every place
    stride: int = 1  # between neighbouring places
    pool: int = 3  # side of a pool, in places
    pool_stride: int = 1
    contrast: int = 5  # side of the window of the contrast normalisation, odd


class Layer(NamedTuple):
    """What is learned of a layer: weights of every place. Tied, the decoder is None."""

    encoder: jax.Array  # [rows, cols, size * size * c, maps]
    decoder: jax.Array | None  # [rows, cols, maps, size * size * c]


def shapes(shape, stages: Sequence[Stage]):
    """The input's shape, then each layer's output's: [(h, w, c), ...].

    Errors  ValueError where a receptive field or a pool does not fit, naming the layer.
    """
    found = [tuple(shape)]
    for i, stage in enumerate(stages):
        try:
            places = patches.grid(found[-1], stage.size, stage.stride)
            found.append((*patches.grid(places, stage.pool, stage.pool_stride), stage.maps))
        except ValueError as error:
            raise ValueError(f'layer {i + 1} does not fit its input {found[-1]}: {error}') from None
    return found


def init(key, x, stage: Stage, *, tied=True) -> Layer:
    """Filters are what random examples have in the fields, scaled to reconstruct these best.

    Random numbers would do for white input; of other input they keep, for long, the directions that
    it hardly has, and answer to those most. One scale is common to all filters.
    Shapes  x [n, h, w, c] float, n >= 1: what the layer is to see.
    Errors  TypeError for integers; ValueError for fewer than one map; as shapes.
    """
    x = require_floating('x', x)
    if stage.maps < 1:
        raise ValueError(f'maps {stage.maps} has to be at least 1')
    shapes(x.shape[1:], [stage])
    seen = patches.extract(x, stage.size, stage.stride)
    rows, cols = seen.shape[1:3]
    chosen_key, noise_key = jax.random.split(key)
    chosen = jax.random.randint(chosen_key, (rows, cols, stage.maps), 0, len(x))
    W = seen[chosen, jnp.arange(rows)[:, None, None], jnp.arange(cols)[None, :, None]]
    # A little noise, for fields in which nothing is.
    size = jnp.sqrt(jnp.mean(x * x)) + jnp.finfo(x.dtype).eps
    W = W + 0.01 * size * jax.random.normal(noise_key, W.shape, x.dtype)
    W = (W / jnp.linalg.norm(W, axis=3, keepdims=True)).swapaxes(2, 3)
    back = reconstruct(Layer(W, None), filters(Layer(W, None), x, stage), x.shape[1:], stage)
    power = jnp.sum(back * back)
    W = W * jnp.sqrt(jnp.sum(back * x) / jnp.where(power > 0, power, 1))
    return Layer(W, None if tied else W.swapaxes(2, 3))


def filters(layer: Layer, x, stage: Stage):
    """Outputs of the linear filters: [n, h, w, c] -> [n, rows, cols, maps].

    Errors  TypeError for integers; ValueError where x has another size than the layer was made for.
    """
    x = require_floating('x', x)
    seen = patches.extract(x, stage.size, stage.stride)
    if seen.shape[1:] != layer.encoder.shape[:3]:
        raise ValueError(
            f'x {x.shape} has fields {seen.shape[1:]}, the layer weights for '
            f'{layer.encoder.shape[:3]}; places do not share weights: give pictures of that size'
        )
    return jnp.einsum('nrcd,rcdm->nrcm', seen, layer.encoder)


def reconstruct(layer: Layer, h, shape, stage: Stage):
    """Pictures [n, h, w, c] from filters' outputs [n, rows, cols, maps], overlaps summed."""
    decoder = layer.encoder.swapaxes(2, 3) if layer.decoder is None else layer.decoder
    return patches.reassemble(
        jnp.einsum('nrcm,rcmd->nrcd', h, decoder), shape, stage.size, stage.stride
    )


def pooled(h, stage: Stage, epsilon=EPSILON):
    """sqrt(epsilon + sum h^2) over neighbouring places of one map.

    Shapes  h [n, rows, cols, maps]. Returns [n, rows', cols', maps].
    """
    mean = pool.mean_pool(h * h, stage.pool, stage.pool_stride)
    return jnp.sqrt(jnp.asarray(epsilon, h.dtype) + stage.pool**2 * mean)


def loss(layer: Layer, x, stage: Stage, *, weight=0.1, epsilon=EPSILON):
    """Reconstruction error + weight * sum over pools, per example; (loss [n], metrics).

    metrics  reconstruction and sparsity (without its weight), means over the batch.
    Domain   weight >= 0, it may be traced; it is relative to the scale of x.
    Source   Le et al. 2012, section 3; Le, Karpenko, Ngiam & Ng 2011 for pools of one unit, tied.
    """
    h = filters(layer, x, stage)
    error = jnp.sum((reconstruct(layer, h, x.shape[1:], stage) - x) ** 2, axis=(1, 2, 3))
    sparsity = jnp.sum(pooled(h, stage, epsilon), axis=(1, 2, 3))
    value = error + jnp.asarray(weight, x.dtype) * sparsity
    return value, {'reconstruction': jnp.mean(error), 'sparsity': jnp.mean(sparsity)}


def apply(layers: Sequence[Layer], x, stages: Sequence[Stage], *, floor=0.01, epsilon=EPSILON):
    """What every sublayer makes of pictures, first to last.

    floor   the least divisor of the contrast normalisation, which else blows up faint places.
    Shapes  x [n, h, w, c]. Returns a list, one dict a layer, of 'filters', 'pooled', 'contrast';
            the last is what the next layer sees.
    """
    outputs = []
    for layer, stage in zip(layers, stages, strict=True):
        h = filters(layer, x, stage)
        p = pooled(h, stage, epsilon)
        x = norm.local_contrast(p, stage.contrast, min_std=floor)
        outputs.append({'filters': h, 'pooled': p, 'contrast': x})
    return outputs


def layer_loss(
    layers: Sequence[Layer], x, i: int, stages: Sequence[Stage], *, weight=0.1, floor=0.01
):
    """The loss of layer i on what the layers below make of x, to which no gradient goes."""
    if i:
        x = apply(jax.lax.stop_gradient(layers[:i]), x, stages[:i], floor=floor)[-1]['contrast']
    return loss(layers[i], jax.lax.stop_gradient(x), stages[i], weight=weight)


def unit(layers: Sequence[Layer], stages: Sequence[Stage], kind: str, map_, *, floor=0.01):
    """A unit of the last layer, at the middle place, as a function of one picture: [h, w, c] -> scalar.

    kind  'filters', as absolute value, 'pooled' or 'contrast'. map_ may be traced.
    """

    def response(x):
        outputs = apply(layers, x[None], stages, floor=floor)[-1][kind][0]
        value = outputs[outputs.shape[0] // 2, outputs.shape[1] // 2, map_]
        return jnp.abs(value) if kind == 'filters' else value

    return response


def field(stages: Sequence[Stage], place):
    """The pixels that a unit at a place of the last layer's pools can see: (rows, cols) slices.

    Contrast normalisation of layers below widens what has an influence, by half a window each; the
    slices are those of filters and pools alone.
    """
    low = [int(p) for p in place]
    high = list(low)
    for stage in reversed(stages):
        for axis in range(2):
            low[axis] = low[axis] * stage.pool_stride * stage.stride
            high[axis] = (high[axis] * stage.pool_stride + stage.pool - 1) * stage.stride
            high[axis] += stage.size - 1
    return tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
