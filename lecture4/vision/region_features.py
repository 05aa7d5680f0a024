"""Features of image regions from any activation of any image network.

`load_pooled` is the form of `--features NETWORK:ACTIVATION --init WEIGHTS` of the experiments on descriptions: one
pass of the network per image, and means of its feature maps over the regions. `activation_features` has one pass per
region, warped as in R-CNN. With `lecture4.data.captions.feature_cache` both are computed once, over all devices, and
the latter are read by the experiments as `--features npz:PATH`:

    network = registry.create('resnet_18', 1000)
    apply = region_features.activation_features(network, 'pool')
    feature_cache.region_features(apply, variables, data.names, data.read_image, boxes, 'train.npz', size=224,
                                  settings=('resnet_18', 'pool'))
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from lecture4.vision.models import registry
from lecture4.vision.weights import convolutions, pretrained, transfer

PooledFn = Callable[
    [Mapping[str, Any], Float[Array, 'm h w 3'], Float[Array, 'm r 4']], Float[Array, 'm k d']
]


def activation_features(
    network: nn.Module,
    activation: str,
    *,
    mean: Sequence[float] | Float[ArrayLike, ' 3'] = (0.485, 0.456, 0.406),
    std: Sequence[float] | Float[ArrayLike, ' 3'] = (0.229, 0.224, 0.225),
) -> Callable[[Mapping[str, Any], Float[Array, 'm h w 3']], Float[Array, 'm d']]:
    """A function of the network's variables and of crops in [0, 1] that returns spatial means of one activation.

    Args:
      network: An image network whose outputs are logits and a dict of activations.
      activation: Name of the activation.
      mean: Mean to subtract from the pixels; by default that of ImageNet.
      std: Standard deviation by which the pixels are then divided.

    Raises:
      ValueError: Raised by the function: the network has no such activation; the message lists its activations.
    """

    def apply(variables: Mapping[str, Any], crops: Float[Array, 'm h w 3']) -> Float[Array, 'm d']:
        pixels = (crops - jnp.asarray(mean, crops.dtype)[None, None, None]) / jnp.asarray(
            std, crops.dtype
        )[None, None, None]
        features = _activation(network, activation, variables, pixels)
        return features.mean(tuple(range(1, features.ndim - 1)))

    return apply


def _activation(network, activation, variables, images) -> Any:
    outputs: Any = network.apply(variables, images)
    activations = outputs[1]
    if activation not in activations:
        raise ValueError(
            f'the network has no activation {activation!r}; it has {", ".join(activations)}'
        )
    return activations[activation]


def box_means(
    maps: Float[Array, 'm h w d'], boxes: Float[ArrayLike, 'm r 4']
) -> Float[Array, 'm r d']:
    """Means of feature maps over boxes; cells that a box covers partly count by the covered area.

    Args:
      maps: Feature maps; cell i of h extends from i / h to (i + 1) / h of the image.
      boxes: Boxes [x1, y1, x2, y2] of positive area in units of the image's width and height, in [0, 1].
    """
    boxes = jnp.asarray(boxes, maps.dtype)

    def weights(low, high, n):
        edges = jnp.arange(n + 1, dtype=maps.dtype) / n
        first, last = edges[None, None, :-1], edges[None, None, 1:]
        low, high = low[..., None], high[..., None]
        covered = jnp.maximum(jnp.minimum(high, last) - jnp.maximum(low, first), 0)
        return covered / (high - low)

    y = weights(boxes[..., 1], boxes[..., 3], maps.shape[1])
    x = weights(boxes[..., 0], boxes[..., 2], maps.shape[2])
    return jnp.einsum('mhwd,mrh,mrw->mrd', maps, y, x)


def pooled_features(network: nn.Module, activation: str) -> PooledFn:
    """A function of the network's variables, of normalized images and of boxes: features of the boxes.

    Feature maps are averaged over the boxes by `box_means`. An activation without height and width, such as fc7,
    gives one feature per image, that of the whole image (k = 1).

    Args:
      network: An image network that returns (output, dict of activations).
      activation: Name of the activation.

    Raises:
      ValueError: Raised by the function: the network has no such activation; the message lists its activations.
    """

    def apply(
        variables: Mapping[str, Any],
        images: Float[Array, 'm h w 3'],
        boxes: Float[Array, 'm r 4'],
    ) -> Float[Array, 'm k d']:
        features = _activation(network, activation, variables, images)
        return box_means(features, boxes) if features.ndim == 4 else features[:, None]

    return apply


def load_pooled(
    name: str,
    activation: str,
    weights: str | pathlib.Path | Mapping[str, Any],
    image_size: int,
) -> tuple[PooledFn, dict[str, Any], Literal['torchvision', 'inception']]:
    """`pooled_features` of a network with given weights.

    Args:
      name: A key of `registry.NETWORKS`.
      activation: Name of the activation.
      weights: Weights of the whole network, by torchvision or timm, or the variables of a run; or a pickle of its
        convolutions, .ckpt or .pkl, as `convolutions.load` reads it.
      image_size: Height and width of the images.

    Returns:
      (function, variables, name of the normalization that published weights of the network expect).

    Raises:
      ValueError: The network is unknown, or has only whole weights (WeightsError).
      WeightsError: The file cannot be read, or its weights are those of another network.
    """
    network = registry.create(name, 1)
    if not isinstance(weights, Mapping) and pathlib.Path(weights).suffix in ('.ckpt', '.pkl'):
        if not hasattr(network, 'features_only'):
            raise convolutions.WeightsError(
                f'{weights} has convolutions only, which {name} cannot be without its dense layers; use weights '
                'of the whole network'
            )
        network = network.clone(features_only=True)
        variables = convolutions.load(network, weights)
    else:
        shape = (image_size, image_size, 3)
        network, variables = transfer.load_unchanged(network, weights, image_shape=shape)
    return pooled_features(network, activation), variables, pretrained.normalization(network)
