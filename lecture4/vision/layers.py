"""What the image networks share: convolutions by their paper's letters, ReLU's backward rules, heads.

Every network is a linen module that returns (logits, activations): a dict of named maps in the order in
which they arise. Parameters are float32; `dtype` is what is computed in. Names of layers are those of
`layouts`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from lecture4.ops import conv_cpu

Rule = Literal['gradient', 'deconvnet', 'guided']
RULES = ('gradient', 'deconvnet', 'guided')


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relu(x, rule: Rule = 'gradient'):
    """max(x, 0), with one of three ways back for a signal g from above.

    rule    'gradient'   g where x > 0: the derivative
            'deconvnet'  g where g > 0: what Zeiler & Fergus send down, whatever went up
            'guided'     g where both are: Springenberg et al.
    Errors  ValueError for another rule.
    Source  Zeiler & Fergus 2014, section 2.1; Springenberg et al. 2015, figure 1.
    """
    if rule not in RULES:
        raise ValueError(f'rule is {rule!r}; one of {", ".join(RULES)} is wanted')
    return jnp.maximum(x, 0)


def _relu_forward(x, rule):
    return relu(x, rule), x > 0


def _relu_backward(rule, up, g):
    zero = jnp.zeros_like(g)
    if rule != 'gradient':
        g = jnp.where(g > 0, g, zero)
    return (g if rule == 'deconvnet' else jnp.where(up, g, zero),)


relu.defvjp(_relu_forward, _relu_backward)


def unless_deconvnet(f: Callable[[jax.Array], jax.Array], x, rule: Rule):
    """f(x), through which a deconvnet's signal passes unchanged: contrast normalisation is not undone."""
    return x + lax.stop_gradient(f(x) - x) if rule == 'deconvnet' else f(x)


def normal(deviation: float):
    """Initial weights from N(0, deviation^2)."""
    return nn.initializers.normal(deviation)


def constant(value: float):
    """Initial biases."""
    return nn.initializers.constant(value)


# He et al. 2015, of the outputs of a unit as in the reference code: N(0, 2 / (k * k * n_out)).
he = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# Glorot & Bengio 2010 as Caffe reads it: uniform with variance 1 / n_in.
xavier = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


def conv(units, side, stride=1, padding=0, **options):
    """A cross-correlation of side x side with symmetric zero padding: linen's Conv said shortly."""
    return nn.Conv(
        units, (side, side), (stride, stride), [(padding, padding)] * 2,
        conv_general_dilated=conv_cpu.conv_general_dilated, **options,
    )  # fmt: skip


def flatten(x):
    """[n, h, w, c] -> [n, h * w * c], rows of a map after each other."""
    return x.reshape(x.shape[0], -1)


def adaptive_mean_pool(x, side: int):
    """Means over side x side bins that cover maps of any size, as torch's AdaptiveAvgPool2d.

    Shapes  x [n, h, w, c] -> [n, side, side, c]. Bin i of an axis of n holds floor(i n / side) to
            ceil((i + 1) n / side) - 1: bins overlap where the size is not a multiple.
    """
    for axis in (1, 2):
        weights = jnp.asarray(_bins(x.shape[axis], side), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(weights, x, axes=(1, axis)), 0, axis)
    return x


def _bins(n, side):
    i, positions = np.arange(side)[:, None], np.arange(n)[None, :]
    inside = (positions >= i * n // side) & (positions < -(-(i + 1) * n // side))
    return inside / inside.sum(1, keepdims=True)


def check(x, least: int, what: str, channels: int = 3):
    """Refuse pictures that the network cannot take, naming the mend.

    Errors  TypeError for integers; ValueError where x is not [n, h, w, channels] (said so where the
            channels come first), or a side is below `least`.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f'{what}: pictures of type {x.dtype}; convert to float and normalise them')
    if x.ndim == 4 and x.shape[1] == channels != x.shape[3]:
        raise ValueError(
            f'{what}: pictures of shape {x.shape} have their channels first; move them last: '
            'x.transpose(0, 2, 3, 1)'
        )
    if x.ndim != 4 or x.shape[3] != channels:
        raise ValueError(f'{what}: pictures of shape {x.shape}; wanted [n, h, w, {channels}]')
    if min(x.shape[1:3]) < least:
        raise ValueError(
            f'{what}: pictures of {x.shape[1]} x {x.shape[2]} are too small; '
            f'use {least} x {least} or larger'
        )


def decayed(parameters, what: Literal['all', 'kernels'] = 'kernels'):
    """Mask for optax's weight decay: True for what the paper decays.

    what  'kernels' leaves out biases and the scales and shifts of batch normalisation (Caffe's
          recipes: AlexNet, GoogLeNet); 'all' decays everything (Torch's: ResNet, VGG).
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: what == 'all' or path[-1].key == 'kernel', parameters
    )


class FullyConnected(nn.Module):
    """Two hidden layers of 4096 with dropout, then classes: the head of AlexNet, ZFNet and VGG.

    On maps of `side` x `side` they are dense layers. With dense=True the same parameters are moved
    over larger maps as convolutions of side x side and 1 x 1: logits [n, h', w', n_classes].
    Shapes  x [n, h, w, c]. Returns logits and {fc6, fc7}, behind their ReLUs.
    Source  Simonyan & Zisserman 2015, section 3.2 (dense evaluation).
    """

    n_classes: int
    side: int
    deviation: float = 0.01
    hidden_bias: float = 0.0
    dropout: float = 0.5
    dense: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None
    hidden: int = 4096

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        if not self.dense and x.shape[1:3] != (self.side, self.side):
            raise ValueError(
                f'fc6 takes maps of {self.side} x {self.side}, these are {x.shape[1]} x {x.shape[2]}; '
                'use pictures of the size the network was made for, or dense=True'
            )
        activations = {}
        widths = {'fc6': self.hidden, 'fc7': self.hidden, 'fc8': self.n_classes}
        side = self.side
        for name, units in widths.items():
            bias = self.hidden_bias if name != 'fc8' else 0.0
            # Parameters of a convolution in either case, so that one set serves both.
            layer = conv(
                units, side, kernel_init=normal(self.deviation), bias_init=constant(bias),
                dtype=self.dtype, name=name,
            )  # fmt: skip
            x = layer(x)
            side = 1
            if name != 'fc8':
                x = activations[name] = relu(x, self.rule)
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if not self.dense:
            activations = {name: flatten(a) for name, a in activations.items()}
            x = flatten(x)
        return x, activations
