"""AlexNet: five convolutions in two streams, three dense layers. Krizhevsky, Sutskever & Hinton, NIPS 2012.

Convolutions 2, 4 and 5 see their own stream's maps only: a convolution in two groups. `in_streams` runs
the same parameters as the paper did, one stream a device.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from lecture4.ops import norm, pool
from lecture4.vision.layers import (
    FullyConnected,
    Rule,
    adaptive_mean_pool,
    check,
    constant,
    conv,
    flatten,
    normal,
    relu,
    unless_deconvnet,
)

# units, side, stride, padding, bias at the start; pooled 3 / 2 behind conv1, conv2 and conv5
CONVOLUTIONS = (
    (96, 11, 4, 0, 0.0),
    (256, 5, 1, 2, 1.0),
    (384, 3, 1, 1, 0.0),
    (384, 3, 1, 1, 1.0),
    (256, 3, 1, 1, 1.0),
)
STREAMED = (1, 3, 4)  # of them: the ones in two groups
NORMED, POOLED = (0, 1), (0, 1, 4)


class AlexNet(nn.Module):
    """The network of the paper.

    groups      2 as in the paper; 1 joins the streams, which makes a larger network.
    convention  of local response normalisation, see ops.norm.
    across      whether normalisation reaches from one stream's maps into the other's, as in Caffe's
                one-device version; the paper's devices normalised their own.
    dense       larger pictures give a map of logits [n, h, w, classes].
    rule        ReLU's way back, see layers.relu.
    Shapes      x [n, 227, 227, 3] (or larger with dense=True); logits [n, n_classes]; activations
                conv1 .. conv5 behind their ReLU, norm1, norm2, pool1, pool2, pool5, fc6, fc7.
    Notes       The text's 224 gives no whole number of windows: 227 does. Dropout is inverted.
    Errors      as layers.check.
    """

    n_classes: int = 1000
    groups: int = 2
    convention: Literal['paper', 'cuda_convnet', 'caffe'] = 'paper'
    across: bool = False
    dropout: float = 0.5
    dense: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        check(x, 67 if self.dense else 227, 'AlexNet')
        activations = {}
        for i, (units, side, stride, padding, bias) in enumerate(CONVOLUTIONS):
            groups = self.groups if i in STREAMED else 1
            layer = conv(
                units, side, stride, padding, feature_group_count=groups, dtype=self.dtype,
                kernel_init=normal(0.01), bias_init=constant(bias), name=f'conv{i + 1}',
            )  # fmt: skip
            x = activations[f'conv{i + 1}'] = relu(layer(x), self.rule)
            if i in NORMED:
                streams = 1 if self.across else self.groups
                x = activations[f'norm{i + 1}'] = unless_deconvnet(
                    lambda y, s=streams: normed(y, self.convention, s), x, self.rule
                )
            if i in POOLED:
                x = activations[f'pool{i + 1}'] = pool.max_pool(x, 3, 2)
        head = FullyConnected(
            self.n_classes, 6, hidden_bias=1.0, dropout=self.dropout, dense=self.dense,
            rule=self.rule, dtype=self.dtype, name='head',
        )  # fmt: skip
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}


def normed(x, convention, streams):
    """Local response normalisation of each stream's channels for themselves."""
    parts = jnp.split(x, streams, axis=-1)
    return jnp.concatenate([norm.local_response(p, convention=convention) for p in parts], axis=-1)


def in_streams(variables, x, mesh: Mesh, *, convention='paper'):
    """Logits of AlexNet with one stream on each of two devices, as it was trained.

    The maps of a stream stay on its device; they meet before conv3 and in the dense layers, whose
    columns are split between the devices: the communication of figure 2 of the paper.

    Shapes  variables of AlexNet(groups=2); x [n, 227, 227, 3]; mesh a jax.sharding.Mesh of two devices
            along one axis. Returns logits [n, n_classes], the same numbers as AlexNet's. Traceable.
    Errors  ValueError for a mesh of another size.
    """
    if mesh.size != 2 or len(mesh.axis_names) != 1:
        raise ValueError(f'a mesh of {dict(mesh.shape)}; two devices along one axis are wanted')
    axis = mesh.axis_names[0]
    parameters = variables['params']

    def together(y):
        return lax.all_gather(y, axis, axis=y.ndim - 1, tiled=True)

    def stream(parameters, x):
        for i, (_, _, stride, padding, _) in enumerate(CONVOLUTIONS):
            layer = parameters[f'conv{i + 1}']
            if i == 2:
                x = together(x)
            x = lax.conv_general_dilated(
                x, layer['kernel'], (stride, stride), [(padding, padding)] * 2,
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )  # fmt: skip
            x = jnp.maximum(x + layer['bias'][None, None, None, :], 0)
            if i in NORMED:
                x = norm.local_response(x, convention=convention)
            if i in POOLED:
                x = pool.max_pool(x, 3, 2)
        x = together(x)
        for name in ('fc6', 'fc7'):
            layer = parameters['head'][name]
            kernel = layer['kernel'].reshape(-1, layer['kernel'].shape[-1])
            x = jnp.maximum(flatten(x) @ kernel + layer['bias'][None, :], 0)
            x = together(x)
        layer = parameters['head']['fc8']
        return x @ layer['kernel'][0, 0] + layer['bias'][None, :]

    # Every kernel's and bias's last axis, its units, is divided; the classes are not.
    last = jax.tree.map(lambda leaf: P(*[None] * (leaf.ndim - 1), axis), parameters)
    last['head']['fc8'] = jax.tree.map(lambda _: P(), parameters['head']['fc8'])
    return jax.shard_map(stream, mesh=mesh, in_specs=(last, P()), out_specs=P(), check_vma=False)(
        parameters, x
    )


class OneTower(nn.Module):
    """The one-tower variant that torchvision calls alexnet: fewer filters, no normalisation, no groups.

    dense   larger pictures give a map of logits [n, h, w, classes].
    Shapes  x [n, 224, 224, 3]; activations as AlexNet's without norms.
    Notes   Dropout before fc6 and fc7, not behind them. Other sizes are pooled to 6 x 6 bins.
    Source  Krizhevsky 2014, 'One weird trick'.
    """

    n_classes: int = 1000
    dropout: float = 0.5
    dense: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        check(x, 223 if self.dense else 63, 'OneTower')
        activations = {}
        shapes = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
        for i, (units, side, stride, padding) in enumerate(shapes):
            layer = conv(units, side, stride, padding, dtype=self.dtype, name=f'conv{i + 1}')
            x = activations[f'conv{i + 1}'] = relu(layer(x), self.rule)
            if i in POOLED:
                x = activations[f'pool{i + 1}'] = pool.max_pool(x, 3, 2)
        if not self.dense:
            x = flatten(adaptive_mean_pool(x, 6))
        for name, side in (('fc6', 6), ('fc7', 1)):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            layer = DenseOrMoved(4096, side, self.dtype, name=name)
            x = activations[name] = relu(layer(x), self.rule)
        return DenseOrMoved(self.n_classes, 1, self.dtype, name='fc8')(x), activations


class DenseOrMoved(nn.Module):
    """A dense layer on [n, d]; on maps [n, h, w, c] the same weights, moved as a convolution of side x side."""

    units: int
    side: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        """As the class says."""
        n_inputs = x.shape[-1] * (self.side**2 if x.ndim == 4 else 1)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (n_inputs, self.units))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.units,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if x.ndim == 2:
            return x @ kernel + bias[None, :]
        kernel = kernel.reshape(self.side, self.side, x.shape[-1], self.units)
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        return x + bias[None, None, None, :]
