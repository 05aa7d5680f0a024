"""GoogLeNet: inception modules, and two classifiers on the way. Szegedy et al., CVPR 2015."""

import functools
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from lecture4.ops import norm, pool
from lecture4.vision.layer_specs import INCEPTION
from lecture4.vision.layers import (
    Rule,
    adaptive_mean_pool,
    check,
    constant,
    conv,
    flatten,
    relu,
    unless_deconvnet,
    xavier,
)

AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss


class GoogLeNet(nn.Module):
    """The network of table 1, or torchvision's.

    version    'paper': biases, local response normalisation, 5 x 5 convolutions, no batch norm (as
               BVLC's); 'torchvision': batch norm in place of biases and response normalisation, 3 x 3
               where the paper has 5 x 5 (a slip that its weights depend on), a last max pool of 2.
    auxiliary  whether the two auxiliary classifiers exist: their logits are activations, 'auxiliary_4a'
               and 'auxiliary_4d', to be weighted by AUXILIARY_WEIGHT while training.
    rule       ReLU's way back, see layers.relu; axis_name  as in VGG.
    Shapes     x [n, h, w, 3], 224 x 224 in the paper, any size from 32 (from 224 with auxiliary of
               the paper, which has dense layers); logits [n, n_classes]; activations conv1, pool1,
               norm1, conv2_reduce, conv2, norm2, pool2, inception_3a .. inception_5b, pool3, pool4,
               pool5, and of each inception its four branches as 'inception_3a/3x3' and so on.
    Errors     as layers.check.
    """

    n_classes: int = 1000
    version: Literal['paper', 'torchvision'] = 'paper'
    auxiliary: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        paper = self.version == 'paper'
        check(x, 209 if self.auxiliary and paper else 32, 'GoogLeNet')
        activations = {}
        unit = functools.partial(
            Unit, batch_norm=not paper, rule=self.rule, dtype=self.dtype, axis_name=self.axis_name
        )

        def normed(name, x):
            if paper:
                x = activations[name] = unless_deconvnet(norm.local_response, x, self.rule)
            return x

        x = activations['conv1'] = unit(64, 7, 2, name='conv1')(x, train)
        x = activations['pool1'] = pool.max_pool(x, 3, 2, edge='caffe')
        x = normed('norm1', x)
        x = activations['conv2_reduce'] = unit(64, 1, name='conv2_reduce')(x, train)
        x = activations['conv2'] = unit(192, 3, name='conv2')(x, train)
        x = normed('norm2', x)
        x = activations['pool2'] = pool.max_pool(x, 3, 2, edge='caffe')
        for part, widths in INCEPTION.items():
            name = f'inception_{part}'
            x, branches = Inception(widths, not paper, unit, name=name)(x, train)
            activations |= {f'{name}/{branch}': y for branch, y in branches.items()}
            activations[name] = x
            if part in ('3b', '4e'):
                side = 3 if paper or part == '3b' else 2
                number = int(part[0])
                x = activations[f'pool{number}'] = pool.max_pool(x, side, 2, edge='caffe')
            if self.auxiliary and part in ('4a', '4d'):
                head = Auxiliary(self.n_classes, paper, unit, self.dtype, name=f'auxiliary_{part}')
                activations[f'auxiliary_{part}'] = head(activations[name], train)
        x = activations['pool5'] = jnp.mean(x, axis=(1, 2))
        x = nn.Dropout(0.4 if paper else 0.2, deterministic=not train)(x)
        classifier = nn.Dense(
            self.n_classes, kernel_init=xavier, dtype=self.dtype, name='classifier'
        )
        return classifier(x), activations


class Unit(nn.Module):
    """Convolution (with batch norm) and ReLU; padded so that stride 1 keeps the size."""

    units: int
    side: int
    stride: int = 1
    batch_norm: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        """As the class says."""
        layer = conv(
            self.units, self.side, self.stride, self.side // 2, use_bias=not self.batch_norm,
            kernel_init=xavier, bias_init=constant(0.2), dtype=self.dtype, name='conv',
        )  # fmt: skip
        x = layer(x)
        if self.batch_norm:
            x = nn.BatchNorm(
                not train, axis_name=self.axis_name, momentum=0.9, epsilon=1e-3, dtype=self.dtype,
                name='bn',
            )(x)  # fmt: skip
        return relu(x, self.rule)


class Inception(nn.Module):
    """Four branches side by side: 1 x 1, 3 x 3 and 5 x 5 behind 1 x 1, a pool before 1 x 1."""

    widths: tuple[int, ...]
    narrow: bool  # 3 x 3 in the place of 5 x 5
    unit: Any

    @nn.compact
    def __call__(self, x, train):
        """As the class says."""
        one, reduce3, three, reduce5, five, behind = self.widths
        wide = 3 if self.narrow else 5
        branches = {
            '1x1': self.unit(one, 1, name='1x1')(x, train),
            '3x3': self.unit(three, 3, name='3x3')(
                self.unit(reduce3, 1, name='3x3_reduce')(x, train), train
            ),
            '5x5': self.unit(five, wide, name='5x5')(
                self.unit(reduce5, 1, name='5x5_reduce')(x, train), train
            ),
            'pool_proj': self.unit(behind, 1, name='pool_proj')(pool.max_pool(x, 3, 1, 1), train),
        }
        return jnp.concatenate(list(branches.values()), axis=-1), branches


class Auxiliary(nn.Module):
    """The classifier on the way: mean pool to 4 x 4, 1 x 1 convolution, two dense layers."""

    n_classes: int
    paper: bool
    unit: Any
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        """As the class says."""
        x = pool.mean_pool(x, 5, 3, edge='caffe') if self.paper else adaptive_mean_pool(x, 4)
        x = flatten(self.unit(128, 1, name='conv')(x, train))
        x = nn.Dense(
            1024, kernel_init=xavier, bias_init=constant(0.2), dtype=self.dtype, name='fc'
        )(x)
        x = nn.Dropout(0.7, deterministic=not train)(jnp.maximum(x, 0))
        return nn.Dense(self.n_classes, kernel_init=xavier, dtype=self.dtype, name='classifier')(x)
