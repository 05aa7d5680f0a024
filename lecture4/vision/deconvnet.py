"""Seeing inside a network: what drives a unit, projected back to pixels; occlusion; correspondence.

    seen = deconvnet.project(vgg.VGG('d'), variables, images, 'conv5_3', channel=10)

Zeiler & Fergus, ECCV 2014. A deconvnet sends one activation down through switches, rectification and
transposed filters. That is the network's own backward pass with another rule at its ReLUs (and none at
contrast normalisation), so every network here has one: `rule` of the network says which, and all are
reached by the names of its activations.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lecture4.vision.layers import Rule


class Projection(NamedTuple):
    """What a unit is driven by in each picture.

    Shapes  pixels [n, h, w, c]: the signal that arrives at the picture; value [n] of the unit; place int
            [n, 2]: its row and column in the map (0, 0 for a dense layer).
    """

    pixels: jax.Array
    value: jax.Array
    place: jax.Array


def project(network, variables, images, layer: str, channel, rule: Rule = 'deconvnet'):
    """The strongest unit of one channel, alone, sent back to the pixels of each picture.

    layer    name of an activation; channel a number on its last axis, or one a picture, int [n].
    rule     'deconvnet', 'guided' (backpropagation), or 'gradient' of the unit, times its value.
    Shapes   images [n, h, w, c]. Returns a Projection. Traceable.
    Errors   KeyError for a name that is no activation, with those that are; ValueError for a channel
             that the layer has not.
    """
    network = network.clone(rule=rule)
    place, value = strongest(activation(network, variables, images, layer), channel)

    def unit(pixels):
        return activation(network, variables, pixels, layer)

    a, back = jax.vjp(unit, images)
    rows, channel = jnp.arange(a.shape[0]), jnp.broadcast_to(channel, a.shape[0])
    where = (rows, place[:, 0], place[:, 1], channel) if a.ndim == 4 else (rows, channel)
    alone = jnp.zeros_like(a).at[where].set(value)
    return Projection(back(alone)[0], value, place)


def activation(network, variables, images, layer: str):
    """The named activation of a network on pictures. Errors as `project`."""
    _, found = network.apply(variables, images)
    if layer not in found:
        raise KeyError(f'{layer!r} is no activation; there are {", ".join(found)}')
    return found[layer]


def strongest(a, channel):
    """Place int [n, 2] and value [n] of the largest unit of a channel, or of one a picture, int [n].

    a is [n, h, w, c] or [n, c]. A traced channel out of range is not detected.
    """
    if not isinstance(channel, Tracer):
        numbers = np.ravel(channel)
        if numbers.min() < 0 or numbers.max() >= a.shape[-1]:
            raise ValueError(f'channel {numbers.max()} of {a.shape[-1]}; they are numbered from 0')
    rows, channel = jnp.arange(a.shape[0]), jnp.broadcast_to(channel, a.shape[0])
    if a.ndim == 2:
        return jnp.zeros((a.shape[0], 2), jnp.int32), a[rows, channel]
    n, _, w, _ = a.shape
    flat = a[rows, :, :, channel].reshape(n, -1)
    at = jnp.argmax(flat, axis=1).astype(jnp.int32)
    return jnp.stack([at // w, at % w], axis=1), jnp.max(flat, axis=1)


class Top(NamedTuple):
    """The pictures of a set that drive each channel most.

    Shapes  rows int [k, c] of the pictures, strongest first; values [k, c]; places int [k, c, 2].
    """

    rows: np.ndarray
    values: np.ndarray
    places: np.ndarray


def top(network, variables, batches, layer: str, k: int = 9) -> Top:
    """The k pictures of each channel's largest activations over a set, at most one place a picture.

    batches  an iterable of pictures [n, h, w, c], all of one size but the last.
    Errors   as `project`; ValueError for fewer than k pictures.
    """

    @jax.jit
    def peaks(variables, images):
        a = activation(network, variables, images, layer)
        a = a if a.ndim == 4 else a[:, None, None, :]
        n, h, w, c = a.shape
        flat = a.reshape(n, h * w, c)
        return jnp.max(flat, axis=1), jnp.argmax(flat, axis=1), w  # w goes along as a number

    values, places, first = [], [], 0
    for images in batches:
        value, at, w = (np.asarray(x) for x in peaks(variables, images))
        values.append(value)
        places.append(np.stack([at // w, at % w], axis=-1))
        first += len(value)
    if first < k:
        raise ValueError(f'{first} pictures; {k} or more are wanted for the strongest {k}')
    values, places = np.concatenate(values), np.concatenate(places)
    rows = np.argsort(-values, axis=0, kind='stable')[:k]
    channels = np.arange(values.shape[1])[None, :]
    return Top(rows, values[rows, channels], places[rows, channels])


def patches(images, places, row):
    """What each unit sees: the crop of its receptive field, black outside the picture.

    row      the layer's entry in ops.receptive_field.summarize: its field, stride and start.
    Shapes   images [n, h, w, c]; places int [n, 2]. Returns [n, field, field, c].
    """
    images, places = np.asarray(images), np.asarray(places)
    field = row.receptive_field
    cut = np.zeros((len(images), *field, images.shape[-1]), images.dtype)
    for image, place, out in zip(images, places, cut, strict=True):
        corner = [
            round(row.start[i] + place[i] * row.stride[i] - (field[i] - 1) / 2) for i in range(2)
        ]
        low = [max(c, 0) for c in corner]
        high = [min(corner[i] + field[i], image.shape[i]) for i in range(2)]
        inside = tuple(slice(low[i] - corner[i], high[i] - corner[i]) for i in range(2))
        out[inside] = image[low[0] : high[0], low[1] : high[1]]
    return cut


class Occlusion(NamedTuple):
    """What is left when a square at each place is covered.

    Shapes  [rows, columns] each: probability of the class; most probable class; sum of the map of the
            layer's channel (the one that is strongest on the whole picture).
    """

    probability: np.ndarray
    predicted: np.ndarray
    response: np.ndarray


def occlude(
    network,
    variables,
    image,
    label: int,
    layer: str,
    *,
    size: int = 50,
    stride: int = 10,
    fill: float = 0.0,
    batch: int = 32,
) -> Occlusion:
    """Covers one picture with a grey square at every place, and watches class and features.

    fill     the grey, in the units of the prepared picture (0 where the mean was subtracted).
    Shapes   image [h, w, c]. The square is clipped at the right and lower border.
    Source   Zeiler & Fergus 2014, section 4.2 and figure 7.
    """
    image = jnp.asarray(image)
    h, w, _ = image.shape
    whole = activation(network, variables, image[None], layer)
    channel = int(jnp.argmax(whole.sum(axis=tuple(range(whole.ndim - 1)))))
    corners = np.stack(
        np.meshgrid(np.arange(0, h, stride), np.arange(0, w, stride), indexing='ij'), axis=-1
    )
    flat = corners.reshape(-1, 2)
    grey = jnp.asarray(fill, image.dtype)
    watch = functools.partial(
        _watch, network, layer, size, variables, image, grey, jnp.int32(label), jnp.int32(channel)
    )
    results = []
    for i in range(0, len(flat), batch):
        part = flat[i : i + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        results.append([np.asarray(x)[: len(part)] for x in watch(jnp.asarray(filled))])
    columns = (np.concatenate(column) for column in zip(*results, strict=True))
    return Occlusion(*(column.reshape(corners.shape[:2]) for column in columns))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _watch(network, layer, size, variables, image, grey, label, channel, corners):
    """(probability, answer, sum of the map) for each corner of the square: one program for all pictures."""
    h, w, _ = image.shape
    r, c = jnp.arange(h)[None, :, None], jnp.arange(w)[None, None, :]
    top_, left = corners[:, 0][:, None, None], corners[:, 1][:, None, None]
    covered = (r >= top_) & (r < top_ + size) & (c >= left) & (c < left + size)
    logits, found = network.apply(variables, jnp.where(covered[..., None], grey, image[None]))
    a = found[layer]
    return (
        jax.nn.softmax(logits)[:, label],
        jnp.argmax(logits, axis=1),
        a.reshape(a.shape[0], -1, a.shape[-1])[..., channel].sum(1),
    )


def correspondence(feature_fn: Callable, images, covered) -> float:
    """How alike pictures change when the same part of each is covered: mean Hamming distance of signs.

    feature_fn  pictures [n, h, w, c] -> features [n, d].
    Shapes      images [n, h, w, c]; covered the same pictures with the part covered. Returns the mean
                over pairs of pictures of the share of features whose changes differ in sign.
    Source      Zeiler & Fergus 2014, section 4.3; there the sum over pairs, here a mean in [0, 1].
    Errors      ValueError for fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError('one picture; two or more are wanted to be compared')
    signs = np.sign(np.asarray(feature_fn(images) - feature_fn(covered)))
    distance = (signs[:, None, :] != signs[None, :, :]).mean(-1)
    return float(distance[np.triu_indices(len(signs), 1)].mean())
