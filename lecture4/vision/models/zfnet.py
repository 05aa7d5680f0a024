"""ZFNet: AlexNet with a finer first layer, chosen by looking at features. Zeiler & Fergus, ECCV 2014."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from lecture4.ops import norm, pool
from lecture4.ops.receptive_field import Edge
from lecture4.vision.layers import FullyConnected, Rule, check, conv, normal, relu, unless_deconvnet

# units of the five convolutions: the network (a) of figure 3, and the wider (b) of table 2
WIDTHS = {'a': (96, 256, 384, 384, 256), 'b': (96, 256, 512, 1024, 512)}
SHAPES = ((7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # side, stride, padding
POOLS: dict[int, Edge] = {0: 'caffe', 1: 'caffe', 4: 'floor'}  # the ragged edge of two is kept
NORMED = (0, 1)
LARGEST = 0.1  # filters of a larger root mean square are scaled back to it while training


class ZFNet(nn.Module):
    """The network of the paper: no groups, contrast normalised behind the pools.

    version  'a', or 'b' with convolutions 3 to 5 of 512, 1024 and 512 units.
    convention, dense, rule  as in AlexNet.
    Shapes   x [n, 224, 224, 3] (or larger with dense=True); logits [n, n_classes]; activations
             conv1 .. conv5 behind their ReLU, pool1, pool2, pool5, norm1, norm2, fc6, fc7.
    Errors   as layers.check.
    """

    n_classes: int = 1000
    version: Literal['a', 'b'] = 'a'
    convention: Literal['paper', 'cuda_convnet', 'caffe'] = 'paper'
    dropout: float = 0.5
    dense: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        check(x, 75 if self.dense else 224, 'ZFNet')
        activations = {}
        for i, units in enumerate(WIDTHS[self.version]):
            name = f'conv{i + 1}'
            layer = conv(units, *SHAPES[i], dtype=self.dtype, kernel_init=normal(0.01), name=name)
            x = activations[name] = relu(layer(x), self.rule)
            if i in POOLS:
                x = activations[f'pool{i + 1}'] = pool.max_pool(x, 3, 2, edge=POOLS[i])
            if i in NORMED:
                x = activations[f'norm{i + 1}'] = unless_deconvnet(
                    lambda y: norm.local_response(y, convention=self.convention), x, self.rule
                )
        head = FullyConnected(
            self.n_classes, 6, dropout=self.dropout, dense=self.dense, rule=self.rule,
            dtype=self.dtype, name='head',
        )  # fmt: skip
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}


def limited(parameters, largest=LARGEST):
    """Parameters whose convolutions' filters have a root mean square of at most `largest`, after each step.

    Shapes  kernels [h, w, c, units] of layers named conv...: each unit's filter by itself.
    Source  Zeiler & Fergus 2014, section 3.
    """

    def limit(path, leaf):
        if path[-1].key != 'kernel' or not any(key.key.startswith('conv') for key in path):
            return leaf
        size = jnp.sqrt(jnp.mean(leaf**2, (0, 1, 2), keepdims=True))
        return leaf * jnp.minimum(1, largest / jnp.maximum(size, largest))

    return jax.tree_util.tree_map_with_path(limit, parameters)
