"""VGG A to E: 3 x 3 convolutions, doubled where the maps are halved. Simonyan & Zisserman, ICLR 2015.

The lecture's slide says "batch gradient descent". The paper's is stochastic, in batches of 256 images with momentum.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lecture4.vision.layer_specs import VGG_BLOCKS
from lecture4.vision.layers import (
    DENSE_MODEL_AXES,
    Activations,
    BackwardRule,
    BatchNorm,
    FullyConnected,
    LRNConvention,
    adaptive_mean_pool,
    check_images,
    conv,
    he_fan_out,
    local_response_norm,
    max_pool,
    relu,
)


class VGG(nn.Module):
    """One configuration of table 1.

    Attributes:
      configuration: 'a' (11 layers), 'a_lrn', 'b' (13), 'c' (16, some of 1 x 1), 'd' (16), 'e' (19).
      n_classes: Number of classes.
      batch_norm: Whether batch norm follows every convolution: not in the paper, but in torchvision's vgg16_bn etc.
      initializer: 'paper' samples from N(0, 0.01), where 0.01 is the variance, as for the training of A; 'he' as in
        torchvision.
      convention: Convention of the local response normalization of 'a_lrn', see `layers.local_response_norm`; 'paper'
        (Krizhevsky's, which the paper cites) by default, 'caffe' as in torch and Caffe.
      dropout_rate: Dropout rate after fc6 and fc7.
      dense: Larger images give a map of logits [n, h, w, n_classes], whose mean is the paper's dense evaluation;
        otherwise maps of another size are pooled to 7 x 7.
      features_only: Whether to return pool5 in place of the logits, for detectors.
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.
      axis_name: Under pmap or shard_map, the device axis over which batch statistics are averaged.
      remat: Whether the backward pass computes the layers of a stage again in place of storing their activations.
    """

    configuration: Literal['a', 'a_lrn', 'b', 'c', 'd', 'e'] = 'd'
    n_classes: int = 1000
    batch_norm: bool = False
    initializer: Literal['paper', 'he'] = 'he'
    convention: LRNConvention = 'paper'
    dropout_rate: float = 0.5
    dense: bool = False
    features_only: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None
    axis_name: str | None = None
    remat: bool = False

    model_axes = DENSE_MODEL_AXES

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, '...'], Activations]:
        """Logits and activations.

        Args:
          x: Images [n, 224, 224, 3].
          train: Whether dropout is on and batch norm uses the statistics of the batch.

        Returns:
          Logits [n, n_classes]; activations conv1_1, conv1_2, ... after their ReLU, pool1 .. pool5, fc6, fc7,
          and norm1_1 of 'a_lrn'.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
          KeyError: There is no such configuration.
        """
        check_images(x, 224 if self.dense else 32, 'VGG')
        x = jnp.asarray(x)
        activations: Activations = {}
        paper = self.initializer == 'paper'
        blocks = VGG_BLOCKS[self.configuration.removesuffix('_lrn')]
        stage = nn.remat(VGG._stage, static_argnums=(2, 3, 4)) if self.remat else VGG._stage
        for i, kernel_sizes in enumerate(([3] * n_3x3 + [1] * n_1x1 for n_3x3, n_1x1 in blocks), 1):
            x, stored = stage(self, x, i, tuple(kernel_sizes), train)
            activations |= stored
        if self.features_only:
            return x, activations
        if not self.dense and x.shape[1:3] != (7, 7):
            x = adaptive_mean_pool(x, 7)
        head = FullyConnected(
            self.n_classes,
            7,
            0.1 if paper else 0.01,
            dropout_rate=self.dropout_rate,
            dense=self.dense,
            backward_rule=self.backward_rule,
            dtype=self.dtype,
            name='head',
        )
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}

    def _stage(self, x, i, kernel_sizes, train):
        """Convolutions and max pooling: the output, and the activations by name."""
        activations: Activations = {}
        paper = self.initializer == 'paper'
        for j, kernel_size in enumerate(kernel_sizes, 1):
            name = f'conv{i}_{j}'
            layer = conv(
                64 * 2 ** min(i - 1, 3),
                kernel_size,
                1,
                kernel_size // 2,
                kernel_init=nn.initializers.normal(0.1) if paper else he_fan_out,
                dtype=self.dtype,
                name=name,
            )
            x = layer(x)
            if self.batch_norm:
                batch_norm = BatchNorm(
                    not train,
                    axis_name=self.axis_name,
                    momentum=0.9,
                    dtype=self.dtype,
                    name=f'bn{i}_{j}',
                )
                x = batch_norm(x)
            x = activations[name] = relu(x, self.backward_rule)
            if self.configuration == 'a_lrn' and name == 'conv1_1':
                x = local_response_norm(x, self.convention, self.backward_rule)
                activations['norm1_1'] = x
        x = activations[f'pool{i}'] = max_pool(x, 2, backward_rule=self.backward_rule)
        return x, activations
