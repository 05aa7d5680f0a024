"""Features of image regions from any activation of any image network.

With `lecture4.data.captions.feature_cache` they are computed once, over all devices, and read by the
experiments on descriptions as `--features npz:PATH`:

    network = registry.create('resnet_18', 1000)
    apply = region_features.activation_features(network, 'pool')
    feature_cache.region_features(apply, variables, data.names, data.read_image, boxes, 'train.npz', size=224,
                                  settings=('resnet_18', 'pool'))
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float


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
        outputs: Any = network.apply(variables, pixels)
        activations = outputs[1]
        if activation not in activations:
            raise ValueError(
                f'the network has no activation {activation!r}; it has {", ".join(activations)}'
            )
        features = activations[activation]
        return features.mean(tuple(range(1, features.ndim - 1)))

    return apply
