"""ResNets and the plain networks beside them. He, Zhang, Ren & Sun, CVPR 2016.

imagenet(50)            ResNet-50 as in the paper; version='v1.5' strides on the 3 x 3, as torchvision
imagenet(34, None)      plain-34
cifar(20), cifar(20, None)
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from lecture4.ops import pool
from lecture4.vision.layer_specs import RESNET_BLOCKS, Shortcut
from lecture4.vision.layers import Rule, check, conv, he, relu


class ResNet(nn.Module):
    """Stages of residual blocks; `imagenet` and `cifar` name the networks of the paper.

    blocks      number of blocks of each stage; the first of every stage but the first halves the maps.
    units       channels of each stage (of the 3 x 3 in a bottleneck, whose output has four times as many).
    bottleneck  blocks of 1 x 1, 3 x 3, 1 x 1 instead of two 3 x 3.
    stem        'imagenet': 7 x 7 of stride 2 and a max pool; 'cifar': 3 x 3.
    shortcut    'A' subsampled with zeros for new channels, 'B' projected where the shape changes, 'C'
                always projected, None: a plain network.
    version     where a bottleneck strides: on its first 1 x 1 (v1, the paper) or on its 3 x 3.
    rule        ReLU's way back, see layers.relu.
    axis_name   under pmap, the axis of devices over which batch statistics are taken.
    scan        run a stage's equal blocks as one compiled loop: a deep network compiles many times sooner.
                Variables and numbers are the same (a copy of the blocks' variables is made a call).
    Shapes      x [n, h, w, 3], any size from 32; logits [n, n_classes]; activations conv1, pool1,
                and behind the ReLU of every block 'conv2_1' and so on, pool.
    Notes       Batch norm: running averages of momentum 0.9, epsilon 1e-5; flax keeps the biased variance
                where torch keeps the unbiased one. Convolutions have no bias.
    Errors      as layers.check.
    """

    blocks: tuple[int, ...]
    units: tuple[int, ...]
    bottleneck: bool = False
    stem: Literal['imagenet', 'cifar'] = 'imagenet'
    n_classes: int = 1000
    shortcut: Shortcut = 'B'
    version: Literal['v1', 'v1.5'] = 'v1'
    rule: Rule = 'gradient'
    dtype: Any = None
    axis_name: str | None = None
    scan: bool = False

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        check(x, 32 if self.stem == 'imagenet' else 8, 'ResNet')
        activations = {}
        side, stride = (7, 2) if self.stem == 'imagenet' else (3, 1)
        first = self.units[0]
        normed = ConvNorm(first, side, stride, self.dtype, self.axis_name, name='conv1')
        x = activations['conv1'] = relu(normed(x, train), self.rule)
        if self.stem == 'imagenet':
            x = activations['pool1'] = pool.max_pool(x, 3, 2, 1)
        for i, (n_blocks, units) in enumerate(zip(self.blocks, self.units, strict=True)):
            names = [f'conv{i + 2}_{j + 1}' for j in range(n_blocks)]
            make = functools.partial(
                Block, units, bottleneck=self.bottleneck, shortcut=self.shortcut,
                first_strides=self.version == 'v1', rule=self.rule, dtype=self.dtype,
                axis_name=self.axis_name,
            )  # fmt: skip
            alone = 1 if self.scan and not self.is_initializing() else n_blocks
            for j, name in enumerate(names[:alone]):
                x = activations[name] = make(2 if i and not j else 1, name=name)(x, train)
            if names[alone:]:
                x, found = self._scanned(make(1, parent=None), names[alone:], x, train)
                activations |= found
        x = activations['pool'] = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.n_classes, dtype=self.dtype, name='fc')(x), activations

    def _scanned(self, block, names, x, train):
        """(output, activations) of blocks of equal shapes, one after another in a loop."""
        variables = [
            {kind: tree[name] for kind, tree in self.variables.items() if name in tree}
            for name in names
        ]

        def run(x, variables):
            y, changed = block.apply(variables, x, train, mutable=['batch_stats'])
            return y, (y, changed)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
        x, (maps, changed) = jax.lax.scan(run, x, stacked)
        if self.is_mutable_collection('batch_stats'):
            for j, name in enumerate(names):
                own = jax.tree.map(lambda leaf, j=j: leaf[j], changed['batch_stats'])
                self.put_variable('batch_stats', name, own)
        return x, {name: maps[j] for j, name in enumerate(names)}


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    units: int
    side: int
    stride: int
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        """As the class says."""
        x = conv(
            self.units, self.side, self.stride, self.side // 2, use_bias=False, kernel_init=he,
            dtype=self.dtype, name='conv',
        )(x)  # fmt: skip
        return nn.BatchNorm(
            not train, axis_name=self.axis_name, momentum=0.9, dtype=self.dtype, name='bn'
        )(x)


class Block(nn.Module):
    """One residual block, or its layers alone where shortcut is None."""

    units: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut
    first_strides: bool
    rule: Rule
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        """As the class says."""
        n_out = 4 * self.units if self.bottleneck else self.units
        if self.bottleneck:
            strides = (self.stride, 1) if self.first_strides else (1, self.stride)
            shapes = ((self.units, 1, strides[0]), (self.units, 3, strides[1]), (n_out, 1, 1))
        else:
            shapes = ((n_out, 3, self.stride), (n_out, 3, 1))
        y = x
        for k, (units, side, stride) in enumerate(shapes, 1):
            layer = ConvNorm(units, side, stride, self.dtype, self.axis_name, name=f'conv{k}')
            y = layer(y, train)
            if k < len(shapes):
                y = relu(y, self.rule)
        if self.shortcut is not None:
            y = y + self._beside(x, n_out, train)
        return relu(y, self.rule)

    def _beside(self, x, n_out, train):
        changes = self.stride > 1 or x.shape[-1] != n_out
        if self.shortcut == 'C' or (self.shortcut == 'B' and changes):
            project = ConvNorm(n_out, 1, self.stride, self.dtype, self.axis_name, name='project')
            return project(x, train)
        if not changes:
            return x
        x = pool.subsample(x, self.stride)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, n_out - x.shape[-1])))  # zeros appended


def imagenet(
    depth: int, shortcut: Shortcut = 'B', version: Literal['v1', 'v1.5'] = 'v1', **options
):
    """The ResNet of 18, 34, 50, 101 or 152 layers; shortcut None is the plain one.

    Errors  ValueError for another depth.
    """
    if depth not in RESNET_BLOCKS:
        raise ValueError(f'depth is {depth}; one of {", ".join(map(str, RESNET_BLOCKS))} is wanted')
    return ResNet(
        RESNET_BLOCKS[depth], (64, 128, 256, 512), depth >= 50, shortcut=shortcut, version=version,
        **options,
    )  # fmt: skip


def cifar(depth: int, shortcut: Shortcut = 'A', n_classes: int = 10, **options):
    """The thin ResNet of 6 n + 2 layers for pictures of 32 x 32: 20, 32, 44, 56, 110, 1202.

    Errors  ValueError where depth is not 6 n + 2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f'depth is {depth}; it has to be 6 n + 2: 20, 32, 44, 56, 110, ...')
    blocks = ((depth - 2) // 6,) * 3
    return ResNet(
        blocks, (16, 32, 64), stem='cifar', n_classes=n_classes, shortcut=shortcut, **options
    )
