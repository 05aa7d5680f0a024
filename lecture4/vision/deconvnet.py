"""Visualization of what activates a unit: projections to pixels, strongest images, occlusion, correspondence.

    projection = deconvnet.project(vgg.VGG('d'), variables, images, 'conv5_3', channel=10)

Zeiler & Fergus, ECCV 2014. A deconvnet propagates one activation back through switches, rectification and transposed
filters. This is the network's backward pass with another rule at its ReLUs (and the identity at contrast
normalization), so every network here has one: its field `backward_rule` selects the rule, and units are addressed by
the names of the network's activations.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Shaped

from lecture4.ops import receptive_field
from lecture4.vision.layers import BackwardRule

Variables = Mapping[str, Any]


class Projection(NamedTuple):
    """Projection of a unit to the pixels of each image.

    Attributes:
      pixels: [n, h, w, c], the signal at the image.
      value: [n], activation of the unit.
      position: int [n, 2], the unit's row and column in its feature map (0, 0 for a dense layer).
    """

    pixels: Float[Array, 'n h w c']
    value: Float[Array, 'n']
    position: Int[Array, 'n 2']


def project(
    network: nn.Module,
    variables: Variables,
    images: Float[Array | np.ndarray, 'n h w c'],
    layer: str,
    channel: int | Int[Array | np.ndarray, '*n'],
    backward_rule: BackwardRule = 'deconvnet',
) -> Projection:
    """Project the strongest unit of one channel to the pixels of each image. Traceable.

    If pooling windows overlap (3 x 3 with stride 2 in AlexNet, ZFNet, GoogLeNet and ResNet), several of them can have
    their maximum at the same position. 'deconvnet' then adds their signals, as the gradient does; 'deconvnet_assign'
    keeps the last one in row-major order, as `ops.pool.unpool` does by default. The two projections differ by up to a
    few times the largest value.

    Args:
      network: Any image network.
      variables: Variables of the network.
      images: Inputs of the network.
      layer: Name of an activation.
      channel: Index on the activation's last axis, or one index per image, int [n].
      backward_rule: 'deconvnet', 'deconvnet_assign', 'guided' (backpropagation), or 'gradient' of the unit times its
        value.

    Raises:
      KeyError: The network has no such activation; the message lists its activations.
      ValueError: The layer has no such channel.
    """
    network = network.clone(backward_rule=backward_rule)
    position, value = strongest_unit(activation(network, variables, images, layer), channel)

    def activation_of(pixels):
        return activation(network, variables, pixels, layer)

    a, backward = jax.vjp(activation_of, jnp.asarray(images))
    rows, channel = jnp.arange(a.shape[0]), jnp.broadcast_to(channel, a.shape[0])
    index = (rows, position[:, 0], position[:, 1], channel) if a.ndim == 4 else (rows, channel)
    signal = jnp.zeros_like(a).at[index].set(value)
    return Projection(backward(signal)[0], value, position)


def activation(
    network: nn.Module,
    variables: Variables,
    images: Float[Array | np.ndarray, 'n h w c'],
    layer: str,
) -> Float[Array, 'n *shape']:
    """A named activation of a network; errors as in `project`."""
    outputs: Any = network.apply(variables, images)
    _, activations = outputs
    if layer not in activations:
        raise KeyError(f'{layer!r} is not an activation; expected one of {", ".join(activations)}')
    return activations[layer]


def strongest_unit(
    a: Float[Array, 'n *size c'], channel: int | Int[Array | np.ndarray, '*n']
) -> tuple[Int[Array, 'n 2'], Float[Array, 'n']]:
    """Position [n, 2] and value [n] of the largest unit of a channel.

    Args:
      a: Activations [n, h, w, c] or [n, c].
      channel: One index for all images, or one per image, int [n]. A traced index out of range is not detected.

    Raises:
      ValueError: There is no such channel.
    """
    if not isinstance(channel, Tracer):
        channels = np.ravel(channel)
        if channels.min() < 0 or channels.max() >= a.shape[-1]:
            raise ValueError(
                f'channel {channels.max()} is out of range; expected 0 to {a.shape[-1] - 1}'
            )
    rows, channel = jnp.arange(a.shape[0]), jnp.broadcast_to(channel, a.shape[0])
    if a.ndim == 2:
        return jnp.zeros((a.shape[0], 2), jnp.int32), a[rows, channel]
    n, _, w, _ = a.shape
    flat = a[rows, :, :, channel].reshape(n, -1)
    index = jnp.argmax(flat, axis=1).astype(jnp.int32)
    return jnp.stack([index // w, index % w], axis=1), jnp.max(flat, axis=1)


class TopImages(NamedTuple):
    """The images of a set with the strongest activation of each channel.

    Attributes:
      indices: int [k, features], indices of the images, strongest first.
      values: [k, features], activations.
      positions: int [k, features, 2], row and column of the units.
    """

    indices: Int[np.ndarray, 'k features']
    values: Float[np.ndarray, 'k features']
    positions: Int[np.ndarray, 'k features 2']


def top_images(
    network: nn.Module,
    variables: Variables,
    batches: Iterable[Float[Array | np.ndarray, '_ h w c']],
    layer: str,
    k: int = 9,
) -> TopImages:
    """The k images with each channel's largest activations over a set, with one position per image.

    Args:
      network: Any image network.
      variables: Variables of the network.
      batches: Batches of images, all of one size except the last.
      layer: Name of an activation.
      k: Number of images per channel.

    Raises:
      KeyError: As in `project`.
      ValueError: There are fewer than k images.
    """

    @jax.jit
    def peaks(variables, images):
        a = activation(network, variables, images, layer)
        a = a if a.ndim == 4 else a[:, None, None, :]
        n, h, w, c = a.shape
        flat = a.reshape(n, h * w, c)
        return jnp.max(flat, axis=1), jnp.argmax(flat, axis=1), w

    values, positions, n_images = [], [], 0
    for images in batches:
        value, index, w = (np.asarray(x) for x in peaks(variables, images))
        values.append(value)
        positions.append(np.stack([index // w, index % w], axis=-1))
        n_images += len(value)
    if n_images < k:
        raise ValueError(f'expected at least {k} images for the strongest {k}, got {n_images}')
    values, positions = np.concatenate(values), np.concatenate(positions)
    indices = np.argsort(-values, axis=0, kind='stable')[:k]
    channels = np.arange(values.shape[1])[None, :]
    return TopImages(indices, values[indices, channels], positions[indices, channels])


def receptive_field_patches(
    images: Shaped[Array | np.ndarray, 'n h w c'],
    positions: Int[Array | np.ndarray, 'n 2'],
    row: receptive_field.LayerSummary,
) -> Shaped[np.ndarray, 'n h2 w2 c']:
    """The crop of each unit's receptive field, black outside the image.

    Args:
      images: One image per unit.
      positions: Row and column of the units in their feature map.
      row: The layer's entry in `ops.receptive_field.summarize`.

    Returns:
      Patches [n, *row.receptive_field, c].
    """
    images, positions = np.asarray(images), np.asarray(positions)
    field = row.receptive_field
    patches = np.zeros((len(images), *field, images.shape[-1]), images.dtype)
    for image, position, patch in zip(images, positions, patches, strict=True):
        corner = [
            round(row.start[i] + position[i] * row.stride[i] - (field[i] - 1) / 2) for i in range(2)
        ]
        low = [max(c, 0) for c in corner]
        high = [min(corner[i] + field[i], image.shape[i]) for i in range(2)]
        inside = tuple(slice(low[i] - corner[i], high[i] - corner[i]) for i in range(2))
        patch[inside] = image[low[0] : high[0], low[1] : high[1]]
    return patches


class Occlusion(NamedTuple):
    """The network's output when a square at each position is occluded.

    Attributes:
      probability: [rows, columns], probability of the given class.
      predicted: int [rows, columns], the most probable class.
      response: [rows, columns], sum of the feature map of the layer's channel that is strongest on the
        unoccluded image.
    """

    probability: Float[np.ndarray, 'rows columns']
    predicted: Int[np.ndarray, 'rows columns']
    response: Float[np.ndarray, 'rows columns']


def occlude(
    network: nn.Module,
    variables: Variables,
    image: Float[Array | np.ndarray, 'h w c'],
    label: int | Int[Array | np.ndarray, ''],
    layer: str,
    *,
    occluder_size: int = 50,
    stride: int = 10,
    fill: float = 0.0,
    batch_size: int = 32,
) -> Occlusion:
    """Occlude one image by a gray square at every position, and record class and features.

    Args:
      network: Any image network.
      variables: Variables of the network.
      image: Input of the network.
      label: Class whose probability is recorded.
      layer: Name of an activation.
      occluder_size: Height and width of the square, clipped at the lower and right border.
      stride: Distance between positions in pixels.
      fill: Gray value in the units of the normalized image (0 if the mean is subtracted).
      batch_size: Number of occluded images per batch.

    References:
      Zeiler & Fergus 2014, section 4.2 and figure 7.
    """
    image = jnp.asarray(image)
    h, w, _ = image.shape
    a = activation(network, variables, image[None], layer)
    channel = int(jnp.argmax(a.sum(axis=tuple(range(a.ndim - 1)))))
    corners = np.stack(
        np.meshgrid(np.arange(0, h, stride), np.arange(0, w, stride), indexing='ij'), axis=-1
    )
    flat = corners.reshape(-1, 2)
    gray = jnp.asarray(fill, image.dtype)
    results = []
    for i in range(0, len(flat), batch_size):
        batch = flat[i : i + batch_size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        outputs = _occluded_outputs(
            network,
            layer,
            occluder_size,
            variables,
            image,
            gray,
            jnp.int32(label),
            jnp.int32(channel),
            jnp.asarray(padded),
        )
        results.append([np.asarray(x)[: len(batch)] for x in outputs])
    columns = (np.concatenate(column) for column in zip(*results, strict=True))
    return Occlusion(*(column.reshape(corners.shape[:2]) for column in columns))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _occluded_outputs(
    network, layer, occluder_size, variables, image, gray, label, channel, corners
):
    """(probability, predicted class, sum of the feature map) per corner: one program for all images."""
    h, w, _ = image.shape
    r, c = jnp.arange(h)[None, :, None], jnp.arange(w)[None, None, :]
    top, left = corners[:, 0][:, None, None], corners[:, 1][:, None, None]
    covered = (r >= top) & (r < top + occluder_size) & (c >= left) & (c < left + occluder_size)
    logits, activations = network.apply(variables, jnp.where(covered[..., None], gray, image[None]))
    a = activations[layer]
    return (
        jax.nn.softmax(logits)[:, label],
        jnp.argmax(logits, axis=1),
        a.reshape(a.shape[0], -1, a.shape[-1])[..., channel].sum(1),
    )


def correspondence(
    feature_fn: Callable[[Any], Any],
    images: Float[Array | np.ndarray, 'n ...'],
    occluded: Float[Array | np.ndarray, 'n ...'],
) -> float:
    """Consistency of feature changes when the same part of each image is occluded.

    Args:
      feature_fn: Images -> features [n, d].
      images: [n, h, w, c].
      occluded: The same images with the part occluded.

    Returns:
      Mean over pairs of images of the Hamming distance of the signs of their changes, as a fraction of the features:
      0 if the changes of all images have equal signs.

    Raises:
      ValueError: There are fewer than two images.

    References:
      Zeiler & Fergus 2014, section 4.3; there the sum over pairs, here a mean in [0, 1].
    """
    if len(images) < 2:
        raise ValueError(f'expected at least two images to compare, got {len(images)}')
    signs = np.sign(np.asarray(feature_fn(images) - feature_fn(occluded)))
    distance = (signs[:, None, :] != signs[None, :, :]).mean(-1)
    return float(distance[np.triu_indices(len(signs), 1)].mean())
