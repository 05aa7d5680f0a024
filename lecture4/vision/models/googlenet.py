"""GoogLeNet: inception modules, and two auxiliary classifiers. Szegedy et al., CVPR 2015."""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lecture4.ops import pool
from lecture4.vision.layer_specs import INCEPTION
from lecture4.vision.layers import (
    Activations,
    BackwardRule,
    BatchNorm,
    LRNConvention,
    adaptive_mean_pool,
    caffe_xavier,
    check_images,
    conv,
    flatten,
    local_response_norm,
    max_pool,
    relu,
)

AUXILIARY_WEIGHT = 0.3  # weight of each auxiliary loss


class GoogLeNet(nn.Module):
    """The network of table 1, or torchvision's.

    Attributes:
      n_classes: Number of classes.
      version: 'paper' has biases, local response normalization, 5 x 5 convolutions, no batch norm;
        'torchvision' has batch norm in place of biases and response normalization, 3 x 3 where the paper has 5 x 5 (a
        mistake that its weights depend on), and a last max pool of 2.
      convention: Convention of local response normalization, see `layers.local_response_norm`. The paper gives no
        constants: 'paper', the default, is Krizhevsky's (k = 2, alpha times the sum of squares);
        'caffe' (k = 1, alpha / 5) gives BVLC's GoogLeNet.
      auxiliary: Whether the two auxiliary classifiers exist: their logits are activations, 'auxiliary_4a' and
        'auxiliary_4d', whose losses are weighted by AUXILIARY_WEIGHT in training.
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.
      axis_name: Under pmap or shard_map, the device axis over which batch statistics are averaged.
      remat: Whether the backward pass computes the layers of a module again in place of storing their activations.
    """

    n_classes: int = 1000
    version: Literal['paper', 'torchvision'] = 'paper'
    convention: LRNConvention = 'paper'
    auxiliary: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, '...'], Activations]:
        """Logits and activations.

        Args:
          x: Images [n, h, w, 3], 224 x 224 in the paper, any size from 32 (from 209 with the auxiliary
            classifiers of the paper, which have dense layers).
          train: Whether dropout is on and batch norm uses the statistics of the batch.

        Returns:
          Logits [n, n_classes]; activations conv1, pool1, norm1, conv2_reduce, conv2, norm2, pool2,
          inception_3a .. inception_5b, pool3, pool4, pool5, and the four branches of each inception module as
          'inception_3a/3x3' and so on.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
        """
        paper = self.version == 'paper'
        check_images(x, 209 if self.auxiliary and paper else 32, 'GoogLeNet')
        x = jnp.asarray(x)
        activations: Activations = {}
        block = functools.partial(
            ConvBlock,
            batch_norm=not paper,
            backward_rule=self.backward_rule,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

        def normalize(name, x):
            if paper:
                x = local_response_norm(x, self.convention, self.backward_rule)
                activations[name] = x
            return x

        def halve(name, x, window=3):
            x = max_pool(x, window, 2, edge='caffe', backward_rule=self.backward_rule)
            activations[name] = x
            return x

        x = activations['conv1'] = block(64, 7, 2, name='conv1')(x, train)
        x = normalize('norm1', halve('pool1', x))
        x = activations['conv2_reduce'] = block(64, 1, name='conv2_reduce')(x, train)
        x = activations['conv2'] = block(192, 3, name='conv2')(x, train)
        x = halve('pool2', normalize('norm2', x))
        for part, features in INCEPTION.items():
            name = f'inception_{part}'
            inception = nn.remat(Inception, static_argnums=(2,)) if self.remat else Inception
            module = inception(features, 5 if paper else 3, block, self.backward_rule, name=name)
            x, branches = module(x, train)
            activations |= {f'{name}/{branch}': y for branch, y in branches.items()}
            activations[name] = x
            if part == '3b':
                x = halve('pool3', x)
            if part == '4e':
                x = halve('pool4', x, 3 if paper else 2)
            if self.auxiliary and part in ('4a', '4d'):
                head = Auxiliary(self.n_classes, paper, block, self.dtype, name=f'auxiliary_{part}')
                activations[f'auxiliary_{part}'] = head(activations[name], train)
        x = activations['pool5'] = jnp.mean(x, axis=(1, 2))
        x = nn.Dropout(0.4 if paper else 0.2, deterministic=not train)(x)
        classifier = nn.Dense(
            self.n_classes, kernel_init=caffe_xavier, dtype=self.dtype, name='classifier'
        )
        return classifier(x), activations


class ConvBlock(nn.Module):
    """Convolution (with batch norm) and ReLU; padded so that stride 1 keeps the size.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernels.
      stride: Stride along both axes.
      batch_norm: Whether batch norm replaces the biases.
      backward_rule: Backward rule of ReLU.
      dtype: Dtype of the computation.
      axis_name: Device axis over which batch norm averages its statistics.
    """

    features: int
    kernel_size: int
    stride: int = 1
    batch_norm: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], train: bool
    ) -> Float[Array, 'n h2 w2 c2']:
        """[n, h, w, c] -> [n, h / stride, w / stride, features]."""
        layer = conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.kernel_size // 2,
            use_bias=not self.batch_norm,
            kernel_init=caffe_xavier,
            bias_init=nn.initializers.constant(0.2),
            dtype=self.dtype,
            name='conv',
        )
        x = layer(x)
        if self.batch_norm:
            batch_norm = BatchNorm(
                not train,
                axis_name=self.axis_name,
                momentum=0.9,
                epsilon=1e-3,
                dtype=self.dtype,
                name='bn',
            )
            x = batch_norm(x)
        return relu(x, self.backward_rule)


class Inception(nn.Module):
    """Four parallel branches: 1 x 1; 3 x 3 and 5 x 5 after a 1 x 1; a pool before a 1 x 1.

    Attributes:
      features: Numbers of filters of the convolutions, in the order of `layer_specs.INCEPTION`.
      large_kernel_size: 5, or 3 in torchvision's version.
      block: Function that makes a convolution with its ReLU.
      backward_rule: Backward rule of the pool.
    """

    features: tuple[int, ...]
    large_kernel_size: int
    block: Callable[..., nn.Module]
    backward_rule: BackwardRule = 'gradient'

    @nn.compact
    def __call__(
        self, x: Float[Array, 'n h w c'], train: bool
    ) -> tuple[Float[Array, 'n h w c2'], Activations]:
        """The joined feature maps, and the branches by name."""
        n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool_proj = self.features
        pooled = max_pool(x, 3, 1, 1, backward_rule=self.backward_rule)
        branches = {
            '1x1': self.block(n_1x1, 1, name='1x1')(x, train),
            '3x3': self.block(n_3x3, 3, name='3x3')(
                self.block(n_3x3_reduce, 1, name='3x3_reduce')(x, train), train
            ),
            '5x5': self.block(n_5x5, self.large_kernel_size, name='5x5')(
                self.block(n_5x5_reduce, 1, name='5x5_reduce')(x, train), train
            ),
            'pool_proj': self.block(n_pool_proj, 1, name='pool_proj')(pooled, train),
        }
        return jnp.concatenate(list(branches.values()), axis=-1), branches


class Auxiliary(nn.Module):
    """An auxiliary classifier: mean pool to 4 x 4, 1 x 1 convolution, two dense layers.

    Attributes:
      n_classes: Number of classes.
      paper: Whether the pool is that of the paper; otherwise torchvision's adaptive one.
      block: Function that makes a convolution with its ReLU.
      dtype: Dtype of the computation.
    """

    n_classes: int
    paper: bool
    block: Callable[..., nn.Module]
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n n_classes']:
        """Logits of the auxiliary classifier."""
        x = pool.mean_pool(x, 5, 3, edge='caffe') if self.paper else adaptive_mean_pool(x, 4)
        x = flatten(self.block(128, 1, name='conv')(x, train))
        hidden = nn.Dense(
            1024,
            kernel_init=caffe_xavier,
            bias_init=nn.initializers.constant(0.2),
            dtype=self.dtype,
            name='fc',
        )
        x = nn.Dropout(0.7, deterministic=not train)(jnp.maximum(hidden(x), 0))
        classifier = nn.Dense(
            self.n_classes, kernel_init=caffe_xavier, dtype=self.dtype, name='classifier'
        )
        return classifier(x)
