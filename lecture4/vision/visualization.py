"""The visualizations of a trained network of Zeiler & Fergus (ECCV 2014), as arrays for figures and tables.

    shown = visualize(network, variables, inputs, images, labels, layers=('conv2', 'conv5'))
    shown.features['conv5'].patches, shown.by_rule['gradient'], shown.occlusions[0].probability, ...

`images` are in [0, 1], `inputs` are the same images as inputs of the network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from lecture4.vision import deconvnet, multi_crop
from lecture4.vision.layers import BackwardRule
from lecture4.vision.models import registry

Variables = Mapping[str, Any]
NUM_TOP = 9  # number of strongest images of a feature map, as in the paper
CHUNK_SIZE = 50  # number of images per call
RULES: dict[str, BackwardRule] = {
    'deconvnet': 'deconvnet',
    'guided backpropagation': 'guided',
    'gradient': 'gradient',
}


def choose_layers(
    network: nn.Module, shape: Sequence[int], names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Layers to visualize, from shapes alone: activations [n, h, w, c] of a network outside of its blocks.

    Args:
      network: Any image network.
      shape: (h, w, c) of an input.
      names: Names of the layers; () chooses three.

    Raises:
      ValueError: The network does not take inputs of this shape, or has no such layer.
    """
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    (_, activations), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), example)
    known = [name for name, a in activations.items() if len(a.shape) == 4 and '/' not in name]
    for name in names:
        if name not in known:
            raise ValueError(f'layers: {name} is not one of {", ".join(known)}')
    return tuple(names) or tuple(known[len(known) * i // 3] for i in range(3))


def first_filters(params: Mapping[str, Any]) -> Float[Array | np.ndarray, 'h w 3 features'] | Any:
    """Kernel of conv1 (VGG's conv1_1), with or without batch norm."""
    layer = params['conv1' if 'conv1' in params else 'conv1_1']
    return layer.get('conv', layer)['kernel']


class TopFeatures(NamedTuple):
    """The strongest activations of some feature maps of a layer.

    Attributes:
      top: Strongest inputs of every feature map, see `deconvnet.top_images`.
      active: Feature maps that are active in all of their strongest images, or else the first map.
      channels: The active maps that are shown.
      patches: Name of a map -> (patches of its strongest units, in [0, 1]; projections of the units).
    """

    top: deconvnet.TopImages
    active: Int[np.ndarray, ' active']
    channels: Int[np.ndarray, ' shown']
    patches: dict[str, tuple[np.ndarray, np.ndarray]]


def top_features(
    network: nn.Module,
    variables: Variables,
    inputs: Float[np.ndarray, 'n h w c'],
    images: Float[np.ndarray, 'n h w c'],
    layer: str,
    num_maps: int,
) -> TopFeatures:
    """The NUM_TOP images with the strongest activation of each of some feature maps, and the projections of the units.

    Args:
      network: Any image network.
      variables: Variables of the network.
      inputs: At least NUM_TOP inputs.
      images: The same images in [0, 1].
      layer: Name of an activation.
      num_maps: Largest number of maps to show, evenly spaced among the active ones.

    References:
      Zeiler & Fergus 2014, figure 2.
    """
    chunks = [inputs[start : start + CHUNK_SIZE] for start in range(0, len(inputs), CHUNK_SIZE)]
    top = deconvnet.top_images(network, variables, chunks, layer, NUM_TOP)
    num_active = max((top.values[-1] > 0).sum(), 1)
    active = np.argsort(top.values[-1] <= 0, kind='stable')[:num_active]
    channels = evenly(active, min(num_maps, num_active))
    run = _projector(network, layer)
    field = registry.receptive_field_of(network, layer, inputs.shape[1:])
    patches = {}
    for c in channels:
        rows = top.indices[:, c]
        pair = images[rows] - 0.5, run(variables, inputs[rows], np.full(NUM_TOP, c)).pixels
        if max(field.receptive_field) < inputs.shape[1]:
            positions = top.positions[:, c]
            pair = (deconvnet.receptive_field_patches(part, positions, field) for part in pair)
        seen, projections = map(np.asarray, pair)
        patches[f'{layer}, map {c}'] = seen + 0.5, projections
    return TopFeatures(top, active, channels, patches)


def evenly(channels: Int[np.ndarray, ' n'], num: int) -> Int[np.ndarray, ' num']:
    """`num` evenly spaced channels, including the first and the last."""
    return channels[np.linspace(0, len(channels) - 1, num).astype(int)]


def _projector(network, layer, rule: BackwardRule = 'deconvnet'):
    """(variables, inputs, one channel per input) -> Projection, compiled once."""
    return jax.jit(lambda v, x, c: deconvnet.project(network, v, x, layer, c, rule))


def project_by_rules(
    network: nn.Module,
    variables: Variables,
    layer: str,
    inputs: Float[np.ndarray, 'n h w c'],
    channels: Int[np.ndarray, ' n'],
) -> dict[str, Float[Array, 'n h w c']]:
    """Projections of one unit for each image by the backward rules RULES.

    Args:
      network: Any image network.
      variables: Variables of the network.
      layer: Name of an activation.
      inputs: Images.
      channels: A channel of the layer for each image.
    """
    return {
        name: _projector(network, layer, rule)(variables, inputs, channels).pixels
        for name, rule in RULES.items()
    }


def least_certain(
    probs: Float[np.ndarray, 'n classes'], labels: Int[np.ndarray, ' n'], num: int
) -> list[int]:
    """Rows of the correctly classified images with the smallest probability, one for each of `num` classes.

    Args:
      probs: Predicted probabilities.
      labels: True classes; misclassified images follow if there are too few correct ones.
      num: Largest number of rows.
    """
    predictions = probs.argmax(1)
    order = np.argsort(probs.max(1) + 2 * (predictions != labels))
    _, first = np.unique(predictions[order], return_index=True)
    return order[np.sort(first)][:num].tolist()


def occlude_all(
    network: nn.Module,
    variables: Variables,
    inputs: Float[np.ndarray, 'n h w c'],
    classes: Int[np.ndarray, ' n'],
    layer: str,
    progress_fn: Callable[[list[int]], Iterable[int]] = iter,
) -> list[deconvnet.Occlusion]:
    """`deconvnet.occlude` of several images, with the square and the stride of `occluder`.

    Args:
      network: Any image network.
      variables: Variables of the network.
      inputs: Images.
      classes: Class of each image whose probability is recorded.
      layer: Name of an activation.
      progress_fn: Iterates over the indices of the images, and may show progress.
    """
    size, stride = occluder(inputs.shape[1])
    return [
        deconvnet.occlude(
            network,
            variables,
            inputs[i],
            int(classes[i]),
            layer,
            occluder_size=size,
            stride=stride,
            batch_size=64,
        )
        for i in progress_fn(list(range(len(inputs))))
    ]


def occluder(image_size: int) -> tuple[int, int]:
    """Size and stride of the occluding square in pixels: 50 and 10 for images of 224 as in the paper, in proportion."""
    return max(image_size * 50 // 224, 1), max(image_size * 10 // 224, 1)


def sign_distances(
    network: nn.Module,
    variables: Variables,
    inputs: Float[np.ndarray, 'n h w c'],
    layer: str,
    top: deconvnet.TopImages,
    channels: Iterable[int] | Int[np.ndarray, ' _c'],
    seed: int,
) -> tuple[float, float]:
    """Consistency of feature changes: occlusion at the strongest unit of a feature map, compared with random positions.

    The strongest images of each channel are occluded by a square of zeros (the mean color) of the size of `occluder`,
    once at the strongest unit and once at a random position; features are spatial means of the layer's maps.

    Args:
      network: Any image network.
      variables: Variables of the network.
      inputs: Images.
      layer: Name of an activation.
      top: Strongest inputs of the layer, as indices into `inputs`.
      channels: Feature maps.
      seed: Seed of the random positions.

    Returns:
      (at the unit, at random positions): `deconvnet.correspondence`, means over channels.
    """
    field = registry.receptive_field_of(network, layer, inputs.shape[1:])
    size, _ = occluder(inputs.shape[1])
    run = jax.jit(lambda v, x: deconvnet.activation(network, v, x, layer).mean((1, 2)))
    rng = np.random.default_rng(seed)
    distances = []
    for c in channels:
        images = inputs[top.indices[:, c]]
        centers = [field.center(position) for position in top.positions[:, c]]
        at_unit = np.round(np.array(centers) - size / 2).astype(int)
        end = np.array(inputs.shape[1:3]) - size + 1
        at_random = rng.integers(0, end, (len(images), 2))
        distances.append(
            [
                deconvnet.correspondence(
                    lambda x: run(variables, x), images, _occlude(images, at, size)
                )
                for at in (at_unit, at_random)
            ]
        )
    part, random = np.mean(distances, 0)
    return float(part), float(random)


def _occlude(images, corners, size):
    """The images, each with a square set to zero."""
    occluded = images.copy()
    for image, (top, left) in zip(occluded, corners, strict=True):
        image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return occluded


class Visualization(NamedTuple):
    """All visualizations of this module for one network; `last` is the last of the layers.

    Attributes:
      accuracy: Accuracy of the network on the images.
      features: Layer -> its top features.
      rule_rows: For each of some feature maps of `last`, the image with the strongest activation.
      by_rule: Backward rule -> projections of these units.
      occluded_rows: The occluded images, see `least_certain`.
      occluded_classes: Their predicted classes.
      occlusions: Occlusions of each image, with the features of `last`.
      occluder_size: Height and width of the occluding square.
      distances: Distances at the layer `last`, see `sign_distances`.
    """

    accuracy: float
    features: dict[str, TopFeatures]
    rule_rows: Int[np.ndarray, ' units']
    by_rule: dict[str, Any]
    occluded_rows: list[int]
    occluded_classes: Int[np.ndarray, ' images']
    occlusions: list[deconvnet.Occlusion]
    occluder_size: int
    distances: tuple[float, float]

    @property
    def probability_drop(self) -> float:
        """Largest relative decrease of the class probability by occlusion, mean over the images."""
        drops = [1 - one.probability.min() / one.probability.max() for one in self.occlusions]
        return float(np.mean(drops))


def visualize(
    network: nn.Module,
    variables: Variables,
    inputs: Float[np.ndarray, 'n h w c'],
    images: Float[np.ndarray, 'n h w c'],
    labels: Int[np.ndarray, ' n'],
    *,
    layers: Sequence[str],
    num_maps: int = 6,
    num_occluded: int = 3,
    seed: int = 0,
    progress_fn: Callable[[Sequence[Any], str], Iterable[Any]] = lambda items, title: items,
) -> Visualization:
    """Compute the paper's visualizations of a network on one set of images.

    Args:
      network: Any image network.
      variables: Variables of the network.
      inputs: At least NUM_TOP inputs.
      images: The same images in [0, 1].
      labels: Classes of the images.
      layers: Names of activations.
      num_maps: Number of feature maps shown per layer.
      num_occluded: Number of images that are occluded at every position.
      seed: Seed of the random positions that are occluded.
      progress_fn: (items, title) -> the items; may show progress.
    """
    probs = multi_crop.map_batches(
        lambda x: jax.nn.softmax(network.apply(variables, x)[0]), inputs, CHUNK_SIZE
    )
    features = {
        layer: top_features(network, variables, inputs, images, layer, num_maps)
        for layer in progress_fn(layers, 'layers')
    }
    last = layers[-1]
    units = evenly(features[last].active, NUM_TOP)
    rows, size = features[last].top.indices[0, units], occluder(inputs.shape[1])[0]
    at = least_certain(probs, labels, num_occluded)
    classes = probs[at].argmax(1)
    top, channels = features[last].top, features[last].channels

    def occluded_progress(items):
        return progress_fn(items, 'occluded images')

    return Visualization(
        float((probs.argmax(1) == labels).mean()),
        features,
        rows,
        project_by_rules(network, variables, last, inputs[rows], units),
        at,
        classes,
        occlude_all(network, variables, inputs[at], classes, last, occluded_progress),
        size,
        sign_distances(network, variables, inputs, last, top, channels, seed),
    )
