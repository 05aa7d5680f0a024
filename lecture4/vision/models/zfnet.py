"""ZFNet: AlexNet with a finer first layer, chosen by visualizing features. Zeiler & Fergus, ECCV 2014.

The lecture's slide gives it a smaller training set than AlexNet's. It is the same, ILSVRC-2012's 1.3 million images.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lecture4.ops.receptive_field import Edge
from lecture4.vision.layers import (
    DENSE_MODEL_AXES,
    Activations,
    BackwardRule,
    FullyConnected,
    LRNConvention,
    check_images,
    conv,
    local_response_norm,
    max_pool,
    relu,
)

# Features of the five convolutions: network (a) of figure 3, and the wider (b) of table 2.
FEATURES = {'a': (96, 256, 384, 384, 256), 'b': (96, 256, 512, 1024, 512)}
SHAPES = ((7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # kernel size, stride, padding
POOLS: dict[int, Edge] = {
    0: 'caffe',
    1: 'caffe',
    4: 'floor',
}  # incomplete windows of two pools are kept
NORMALIZED = (0, 1)
MAX_FILTER_RMS = 0.1


class ZFNet(nn.Module):
    """The network of the paper: without groups, with contrast normalization after the pools.

    Attributes:
      n_classes: Number of classes.
      version: 'a', or 'b' with 512, 1024 and 512 features in convolutions 3 to 5.
      convention: Convention of local response normalization, see `layers.local_response_norm`; 'paper' (Krizhevsky's)
        by default.
      dropout_rate: Dropout rate after fc6 and fc7.
      dense: Larger images give a map of logits [n, h, w, n_classes].
      features_only: Whether to return pool5 in place of the logits, for detectors.
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.
    """

    n_classes: int = 1000
    version: Literal['a', 'b'] = 'a'
    convention: LRNConvention = 'paper'
    dropout_rate: float = 0.5
    dense: bool = False
    features_only: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None

    model_axes = DENSE_MODEL_AXES

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, '...'], Activations]:
        """Logits and activations.

        Args:
          x: Images [n, 224, 224, 3], or larger with dense=True.
          train: Whether dropout is on.

        Returns:
          Logits [n, n_classes]; activations conv1 .. conv5 after their ReLU, pool1, pool2, pool5, norm1,
          norm2, fc6, fc7.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
        """
        check_images(x, 75 if self.dense or self.features_only else 224, 'ZFNet')
        x = jnp.asarray(x)
        activations: Activations = {}
        for i, features in enumerate(FEATURES[self.version]):
            name = f'conv{i + 1}'
            layer = conv(
                features,
                *SHAPES[i],
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                name=name,
            )
            x = activations[name] = relu(layer(x), self.backward_rule)
            if i in POOLS:
                x = max_pool(x, 3, 2, edge=POOLS[i], backward_rule=self.backward_rule)
                activations[f'pool{i + 1}'] = x
            if i in NORMALIZED:
                x = local_response_norm(x, self.convention, self.backward_rule)
                activations[f'norm{i + 1}'] = x
        if self.features_only:
            return x, activations
        head = FullyConnected(
            self.n_classes,
            6,
            dropout_rate=self.dropout_rate,
            dense=self.dense,
            backward_rule=self.backward_rule,
            dtype=self.dtype,
            name='head',
        )
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}


def renormalize_filters(
    params: Mapping[str, Any], max_filter_rms: float = MAX_FILTER_RMS
) -> dict[str, Any]:
    """Rescale convolution filters to a bounded root mean square, after each training step.

    Args:
      params: Parameters of a network.
      max_filter_rms: Upper bound of the root mean square of each filter; a kernel [h, w, c, features] has one filter
        per feature. Smaller filters, biases and layers not named conv... are unchanged.

    References:
      Zeiler & Fergus 2014, section 3.
    """

    def renormalize(path, leaf):
        if path[-1].key != 'kernel' or not any(key.key.startswith('conv') for key in path):
            return leaf
        rms = jnp.sqrt(jnp.mean(leaf**2, (0, 1, 2), keepdims=True))
        return leaf * jnp.minimum(1, max_filter_rms / jnp.maximum(rms, max_filter_rms))

    return jax.tree_util.tree_map_with_path(renormalize, params)
