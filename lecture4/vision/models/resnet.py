"""ResNets, and the plain networks that they are compared with. He, Zhang, Ren & Sun, CVPR 2016.

imagenet(50)            ResNet-50 as in the paper; version='v1.5' strides on the 3 x 3, as in torchvision
imagenet(34, None)      plain-34
cifar(20), cifar(20, None)
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lecture4.ops import pool
from lecture4.ops.varying import vary_like
from lecture4.vision.layer_specs import RESNET_BLOCKS, ResNetVersion, Shortcut, check_cifar_depth
from lecture4.vision.layers import (
    Activations,
    BackwardRule,
    BatchNorm,
    check_images,
    conv,
    he_fan_out,
    max_pool,
    relu,
)

# Test errors on CIFAR-10 by depth, table 6; the paper shows those of plain networks only as curves. 1202 layers
# overfit: their training error is that of 110.
CIFAR_ERRORS = {20: 0.0875, 32: 0.0751, 44: 0.0717, 56: 0.0697, 110: 0.0643, 1202: 0.0793}


class ResNet(nn.Module):
    """Stages of residual blocks; `imagenet` and `cifar` make the networks of the paper.

    Attributes:
      blocks: Number of blocks of each stage; the first block of every stage except the first halves the maps.
      features: Channels of each stage (of the 3 x 3 in a bottleneck, whose output has four times as many).
      bottleneck: Whether blocks are 1 x 1, 3 x 3, 1 x 1 instead of two 3 x 3.
      stem: First layers: 'imagenet': 7 x 7 with stride 2 and a max pool; 'cifar': 3 x 3.
      n_classes: Number of classes.
      shortcut: 'A' subsamples and appends zeros for new channels, 'B' projects where the shape changes, 'C'
        always projects, None is a plain network.
      version: Position of the stride of a bottleneck: its first 1 x 1 ('v1', the paper) or its 3 x 3 ('v1.5').
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.
      axis_name: Under pmap or shard_map, the device axis over which batch statistics are averaged.
      features_only: Whether to return the output of the last block in place of the logits, for detectors.
      scan_blocks: Whether to run the equal blocks of a stage as one compiled loop: a deep network compiles many times
        faster. Variables and results are the same (each call copies the blocks' variables).
      remat: Whether the backward pass computes the layers of a block again in place of storing their activations.

    Batch norm keeps running averages of momentum 0.9, with epsilon 1e-5; flax averages the biased variance, torch the
    unbiased one. Convolutions have no bias.
    """

    blocks: tuple[int, ...]
    features: tuple[int, ...]
    bottleneck: bool = False
    stem: Literal['imagenet', 'cifar'] = 'imagenet'
    n_classes: int = 1000
    shortcut: Shortcut = 'B'
    version: ResNetVersion = 'v1'
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None
    axis_name: str | None = None
    scan_blocks: bool = False
    remat: bool = False
    features_only: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n ...'], Activations]:
        """Logits and activations.

        Args:
          x: Images [n, h, w, 3], any size from 32 (from 8 with the stem 'cifar').
          train: Whether batch norm uses the statistics of the batch.

        Returns:
          Logits [n, n_classes]; activations conv1, pool1, 'conv2_1' and so on after the ReLU of every block,
          pool.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
        """
        check_images(x, 32 if self.stem == 'imagenet' else 8, 'ResNet')
        x = jnp.asarray(x)
        activations: Activations = {}
        kernel_size, stride = (7, 2) if self.stem == 'imagenet' else (3, 1)
        stem = ConvNorm(
            self.features[0], kernel_size, stride, self.dtype, self.axis_name, name='conv1'
        )
        x = activations['conv1'] = relu(stem(x, train), self.backward_rule)
        if self.stem == 'imagenet':
            x = activations['pool1'] = max_pool(x, 3, 2, 1, backward_rule=self.backward_rule)
        for i, (n_blocks, features) in enumerate(zip(self.blocks, self.features, strict=True)):
            names = [f'conv{i + 2}_{j + 1}' for j in range(n_blocks)]
            block = functools.partial(
                nn.remat(Block, static_argnums=(2,)) if self.remat else Block,
                features,
                bottleneck=self.bottleneck,
                shortcut=self.shortcut,
                version=self.version,
                backward_rule=self.backward_rule,
                dtype=self.dtype,
                axis_name=self.axis_name,
            )
            n_unrolled = 1 if self.scan_blocks and not self.is_initializing() else n_blocks
            for j, name in enumerate(names[:n_unrolled]):
                x = activations[name] = block(2 if i and not j else 1, name=name)(x, train)
            if names[n_unrolled:]:
                x, scanned = self._scan(block(1, parent=None), names[n_unrolled:], x, train)
                activations |= scanned
        if self.features_only:
            return jnp.asarray(x), activations
        x = activations['pool'] = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.n_classes, dtype=self.dtype, name='fc')(x), activations

    def _scan(self, block, names, x, train):
        """(output, activations) of blocks of equal shapes, one after another in a loop."""
        variables = [
            {kind: tree[name] for kind, tree in self.variables.items() if name in tree}
            for name in names
        ]

        def run(x, variables):
            y, updated = block.apply(variables, x, train, mutable=['batch_stats'])
            return y, (y, updated)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
        x, (outputs, updated) = jax.lax.scan(run, vary_like(x, stacked), stacked)
        if self.is_mutable_collection('batch_stats'):
            for j, name in enumerate(names):
                statistics = jax.tree.map(lambda leaf, j=j: leaf[j], updated['batch_stats'])
                self.put_variable('batch_stats', name, statistics)
        return x, {name: outputs[j] for j, name in enumerate(names)}


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernels.
      stride: Stride along both axes.
      dtype: Dtype of the computation.
      axis_name: Device axis over which batch norm averages its statistics.
    """

    features: int
    kernel_size: int
    stride: int
    dtype: DTypeLike | None
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], train: bool
    ) -> Float[Array, 'n h2 w2 c2']:
        """[n, h, w, c] -> [n, h / stride, w / stride, features], rounded up."""
        layer = conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.kernel_size // 2,
            use_bias=False,
            kernel_init=he_fan_out,
            dtype=self.dtype,
            name='conv',
        )
        return BatchNorm(
            not train, axis_name=self.axis_name, momentum=0.9, dtype=self.dtype, name='bn'
        )(layer(x))


class Block(nn.Module):
    """One residual block, or only its layers if shortcut is None; the fields are those of ResNet.

    Attributes:
      features: Channels of the block (of the 3 x 3 in a bottleneck).
      stride: Stride of the block.
      bottleneck: See ResNet, like the rest.
      shortcut: See ResNet.
      version: See ResNet.
      backward_rule: See ResNet.
      dtype: See ResNet.
      axis_name: See ResNet.
    """

    features: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut
    version: ResNetVersion
    backward_rule: BackwardRule
    dtype: DTypeLike | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h2 w2 c2']:
        """[n, h, w, c] -> [n, h / stride, w / stride, c2]; c2 is `features`, or 4 times that."""
        n_out = 4 * self.features if self.bottleneck else self.features
        if self.bottleneck:
            strides = (self.stride, 1) if self.version == 'v1' else (1, self.stride)
            shapes = ((self.features, 1, strides[0]), (self.features, 3, strides[1]), (n_out, 1, 1))
        else:
            shapes = ((n_out, 3, self.stride), (n_out, 3, 1))
        y = x
        for k, (features, kernel_size, stride) in enumerate(shapes, 1):
            layer = ConvNorm(
                features, kernel_size, stride, self.dtype, self.axis_name, name=f'conv{k}'
            )
            y = layer(y, train)
            if k < len(shapes):
                y = relu(y, self.backward_rule)
        if self.shortcut is not None:
            y = y + self._shortcut(x, n_out, train)
        return relu(y, self.backward_rule)

    def _shortcut(self, x, n_out, train):
        changes_shape = self.stride > 1 or x.shape[-1] != n_out
        if self.shortcut == 'C' or (self.shortcut == 'B' and changes_shape):
            project = ConvNorm(n_out, 1, self.stride, self.dtype, self.axis_name, name='project')
            return project(x, train)
        if not changes_shape:
            return x
        x = pool.subsample(x, self.stride)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, n_out - x.shape[-1])))  # append zeros


def imagenet(
    depth: int, shortcut: Shortcut = 'B', version: ResNetVersion = 'v1', **options: Any
) -> ResNet:
    """The ResNet for ImageNet.

    Args:
      depth: 18, 34, 50, 101 or 152.
      shortcut: Kind of shortcut; None is the plain network.
      version: See ResNet; torchvision's and timm's weights need 'v1.5' from depth 50 on.
      **options: Other fields of ResNet.

    Raises:
      ValueError: There is no ResNet of this depth.
    """
    if depth not in RESNET_BLOCKS:
        raise ValueError(f'depth is {depth}; expected one of {", ".join(map(str, RESNET_BLOCKS))}')
    return ResNet(
        RESNET_BLOCKS[depth],
        (64, 128, 256, 512),
        depth >= 50,
        shortcut=shortcut,
        version=version,
        **options,
    )


def cifar(depth: int, shortcut: Shortcut = 'A', n_classes: int = 10, **options: Any) -> ResNet:
    """The narrow ResNet of 6 n + 2 layers for images of 32 x 32.

    Args:
      depth: 20, 32, 44, 56, 110, 1202, ...
      shortcut: Kind of shortcut; None is the plain network.
      n_classes: Number of classes.
      **options: Other fields of ResNet.

    Raises:
      ValueError: `depth` is not 6 n + 2.
    """
    check_cifar_depth(depth)
    blocks = ((depth - 2) // 6,) * 3
    return ResNet(
        blocks, (16, 32, 64), stem='cifar', n_classes=n_classes, shortcut=shortcut, **options
    )


def small(n_classes: int = 10, **options: Any) -> ResNet:
    """Plain network with 7 x 7 filters and three stages of one block: quick to train, with visible filters.

    Args:
      n_classes: Number of classes.
      **options: Other fields of `ResNet`.
    """
    return ResNet((1, 1, 1), (32, 64, 96), shortcut=None, n_classes=n_classes, **options)
