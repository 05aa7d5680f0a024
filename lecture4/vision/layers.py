"""Building blocks of the image networks: convolutions, backward rules of ReLU, pooling, dense heads.

Every network is a linen module that returns (logits, activations): a dict of named activations in the
order of the forward pass. Parameters are float32; `dtype` is the type of the computation. Layer names are
those of `layer_specs`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from lecture4.ops import conv_cpu, norm, pool
from lecture4.ops.receptive_field import Edge, Padding, PerAxis

BackwardRule = Literal['gradient', 'deconvnet', 'deconvnet_assign', 'guided']
BACKWARD_RULES: tuple[BackwardRule, ...] = get_args(BackwardRule)
DECONVNET: tuple[BackwardRule, ...] = ('deconvnet', 'deconvnet_assign')
LRNConvention = Literal['paper', 'cuda_convnet', 'caffe']

Activations = dict[str, Float[Array, '...']]


def relu(
    x: Float[Array | np.ndarray, '*shape'], backward_rule: BackwardRule = 'gradient'
) -> Float[Array, '*shape']:
    """max(x, 0), with a choice of backward rule for the incoming signal g.

    Args:
      x: Input, any shape.
      backward_rule: 'gradient' passes g where x > 0 (the derivative); 'deconvnet' and 'deconvnet_assign'
        pass g where g > 0, for any x (Zeiler & Fergus); 'guided' passes g where both hold
        (Springenberg et al.).

    Raises:
      ValueError: `backward_rule` is none of these.

    References:
      Zeiler & Fergus 2014, section 2.1; Springenberg et al. 2015, figure 1.
    """
    if backward_rule not in BACKWARD_RULES:
        raise ValueError(
            f'backward_rule is {backward_rule!r}; expected one of {", ".join(BACKWARD_RULES)}'
        )
    return cast(Array, _relu(jnp.asarray(x), backward_rule))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _relu(x, backward_rule):
    return jnp.maximum(x, 0)


def _relu_forward(x, backward_rule):
    return jnp.maximum(x, 0), x > 0


def _relu_backward(backward_rule, is_positive, g):
    zero = jnp.zeros_like(g)
    if backward_rule != 'gradient':
        g = jnp.where(g > 0, g, zero)
    return (g if backward_rule in DECONVNET else jnp.where(is_positive, g, zero),)


_relu.defvjp(_relu_forward, _relu_backward)


def max_pool(
    x: Float[Array, 'n *size c'],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    backward_rule: BackwardRule = 'gradient',
) -> Float[Array, 'n *out c']:
    """`ops.pool.max_pool`, whose backward pass unpools by the switches.

    Args:
      x: Input, float.
      window: As in `ops.pool.max_pool`, like the next three.
      stride: Stride; None takes the window.
      padding: Number of zeros around the input, smaller than the window.
      edge: Treatment of incomplete windows at the end.
      backward_rule: Matters only if windows overlap and several have their maximum at the same position.
        'deconvnet_assign' keeps the signal of the last of these windows in row-major order
        (`pool.unpool(..., 'assign')`); every other rule adds their signals, as the gradient does.
    """
    if backward_rule == 'deconvnet_assign':
        return cast(Array, _max_pool_assign(x, window, stride, padding, edge))
    return pool.max_pool(x, window, stride, padding, edge)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool_assign(x, window, stride, padding, edge):
    return pool.max_pool(x, window, stride, padding, edge)


def _max_pool_assign_forward(x, window, stride, padding, edge):
    y, switches = pool.max_pool_with_switches(x, window, stride, padding, edge)
    return y, (switches, jnp.zeros_like(x))  # zeros carry the shape, since residuals are arrays


def _max_pool_assign_backward(window, stride, padding, edge, residuals, g):
    switches, like = residuals
    return (pool.unpool(g, switches, like.shape, 'assign'),)


_max_pool_assign.defvjp(_max_pool_assign_forward, _max_pool_assign_backward)


def identity_in_deconvnet(
    f: Callable[[Array], Array], x: Float[Array, '*shape'], backward_rule: BackwardRule
) -> Float[Array, '*shape']:
    """f(x) with the identity as backward pass in a deconvnet, which does not invert contrast normalization."""
    return x + lax.stop_gradient(f(x) - x) if backward_rule in DECONVNET else f(x)


def local_response_norm(
    x: Float[Array, '*batch c'],
    convention: LRNConvention = 'paper',
    backward_rule: BackwardRule = 'gradient',
    groups: int = 1,
) -> Float[Array, '*batch c']:
    """`ops.norm.local_response`, with the identity as backward pass in a deconvnet.

    Args:
      x: Feature maps, channels last.
      convention: Convention of the constants: 'paper' has k = 2 and alpha times the sum of squares (Krizhevsky
        et al. 2012, as printed), 'cuda_convnet' k = 2 and alpha times their mean, 'caffe' k = 1 and alpha
        times their mean (BVLC's models, torch.nn.LocalResponseNorm).
      backward_rule: See `relu`.
      groups: Number of groups into which the channels are split, each normalized separately.
    """

    def normalize(x):
        parts = jnp.split(x, groups, axis=-1) if groups > 1 else [x]
        parts = [norm.local_response(part, convention=convention) for part in parts]
        return jnp.concatenate(parts, axis=-1) if groups > 1 else parts[0]

    return identity_in_deconvnet(normalize, x, backward_rule)


# He et al. 2015 with fan-out, as in the reference code: N(0, 2 / (k * k * n_out)).
he_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# What Caffe calls xavier (Glorot & Bengio 2010): uniform with variance 1 / n_in.
caffe_xavier = nn.initializers.lecun_uniform()


def conv(
    features: int, kernel_size: int, stride: int = 1, padding: int = 0, **options: Any
) -> nn.Conv:
    """Linen's Conv with a square kernel and symmetric zero padding: a cross-correlation.

    Args:
      features: Number of output channels.
      kernel_size: Height and width of the kernels.
      stride: Stride along both axes.
      padding: Number of zeros added at each end of both axes.
      **options: Options of `nn.Conv`.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        (stride, stride),
        [(padding, padding)] * 2,
        conv_general_dilated=conv_cpu.conv_general_dilated,
        **options,
    )


class BatchNorm(nn.BatchNorm):
    """Linen's BatchNorm of the last axis, with scale and bias; in training on whole batches by `ops.norm.batch_norm`.

    With a device axis, a mask or the running statistics it is linen's own. Variables and values are always the same.
    """

    def __call__(
        self,
        x: Float[Array | np.ndarray, '*batch c'],
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
    ) -> Float[Array, '*batch c']:
        """Normalized x; arguments as in linen."""
        runs = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
        if runs or self.axis_name is not None or mask is not None or self.is_initializing():
            return super().__call__(x, use_running_average, mask=mask)
        scale, bias = (self.get_variable('params', name) for name in ('scale', 'bias'))
        y, *statistics = norm.batch_norm(x, scale, bias, self.epsilon, self.dtype)
        for name, value in zip(('mean', 'var'), statistics, strict=True):
            average = self.get_variable('batch_stats', name)
            average = self.momentum * average + (1 - self.momentum) * value
            self.put_variable('batch_stats', name, average)
        return y


def flatten(x: Shaped[Array, 'n h w c']) -> Shaped[Array, 'n d']:
    """[n, h, w, c] -> [n, h * w * c], in row-major order."""
    return x.reshape(x.shape[0], -1)


def adaptive_mean_pool(
    x: Float[Array, 'n h w c'], output_size: int
) -> Float[Array, 'n {output_size} {output_size} c']:
    """Means over output_size x output_size bins that cover feature maps of any size.

    Bin i of an axis of length n covers floor(i n / output_size) to ceil((i + 1) n / output_size) - 1: bins
    overlap where n is not a multiple of the output size. The same as torch's AdaptiveAvgPool2d.
    """
    for axis in (1, 2):
        weights = jnp.asarray(_bins(x.shape[axis], output_size), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(weights, x, axes=(1, axis)), 0, axis)
    return x


def _bins(n, output_size):
    i, positions = np.arange(output_size)[:, None], np.arange(n)[None, :]
    inside = (positions >= i * n // output_size) & (positions < -(-(i + 1) * n // output_size))
    return inside / inside.sum(1, keepdims=True)


def check_images(
    x: Shaped[Array | np.ndarray, '...'], min_size: int, network: str, channels: int = 3
) -> None:
    """Refuse images that the network cannot take.

    Args:
      x: Images; accepted as float [n, h, w, channels].
      min_size: Smallest height and width.
      network: Name of the network, for the messages.
      channels: Number of channels.

    Raises:
      TypeError: The images are integers.
      ValueError: `x` is not [n, h, w, channels] (with a hint if the channels come first), or smaller
        than `min_size`.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f'{network}: images have dtype {x.dtype}; convert them to float and normalize'
        )
    if x.ndim == 4 and x.shape[1] == channels != x.shape[3]:
        raise ValueError(
            f'{network}: images of shape {x.shape} have their channels first; move them last: '
            'x.transpose(0, 2, 3, 1)'
        )
    if x.ndim != 4 or x.shape[3] != channels:
        raise ValueError(f'{network}: expected images [n, h, w, {channels}], got shape {x.shape}')
    if min(x.shape[1:3]) < min_size:
        raise ValueError(
            f'{network}: images of {x.shape[1]} x {x.shape[2]} are too small; '
            f'use {min_size} x {min_size} or larger'
        )


# Axes along which model parallelism divides the dense layers: the outputs of fc6, then the inputs of fc7, so that only
# the outputs of fc7 are summed over devices (Krizhevsky 2014).
DENSE_MODEL_AXES = {'fc6/kernel$': -1, 'fc6/bias$': -1, 'fc7/kernel$': -2}


class FullyConnected(nn.Module):
    """Two hidden layers of 4096 with dropout, then the classifier: the head of AlexNet, ZFNet and VGG.

    On feature maps of input_size x input_size they are dense layers. With dense=True the same parameters
    are applied to larger maps as convolutions of input_size x input_size and 1 x 1: logits
    [n, h', w', n_classes].

    Attributes:
      n_classes: Number of classes.
      input_size: Height and width of the feature maps.
      kernel_std: Standard deviation of the initial kernels.
      hidden_bias: Initial biases of fc6 and fc7.
      dropout_rate: Dropout rate after fc6 and fc7.
      dense: Whether to apply the layers to larger maps.
      backward_rule: Backward rule of ReLU, see `relu`.
      dtype: Dtype of the computation.
      hidden_dim: Number of units of fc6 and fc7.

    References:
      Simonyan & Zisserman 2015, section 3.2 (dense evaluation).
    """

    n_classes: int
    input_size: int
    kernel_std: float = 0.01
    hidden_bias: float = 0.0
    dropout_rate: float = 0.5
    dense: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None
    hidden_dim: int = 4096

    @nn.compact
    def __call__(
        self, x: Float[Array, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, '...'], Activations]:
        """Logits, and the activations 'fc6' and 'fc7' after their ReLUs.

        Raises:
          ValueError: The maps are not input_size x input_size, and `dense` is False.
        """
        size = self.input_size
        if not self.dense and x.shape[1:3] != (size, size):
            raise ValueError(
                f'fc6: expected feature maps of {size} x {size}, got {x.shape[1]} x {x.shape[2]}; '
                'use images of the size the network was made for, or dense=True'
            )
        activations = {}
        features = {'fc6': self.hidden_dim, 'fc7': self.hidden_dim, 'fc8': self.n_classes}
        for name, n_features in features.items():
            is_last = name == 'fc8'
            # Parameters of a convolution in both cases, so that the same parameters serve both.
            layer = conv(
                n_features,
                size if name == 'fc6' else 1,
                kernel_init=nn.initializers.normal(self.kernel_std),
                bias_init=nn.initializers.constant(0.0 if is_last else self.hidden_bias),
                dtype=self.dtype,
                name=name,
            )
            x = layer(x)
            if not is_last:
                x = activations[name] = relu(x, self.backward_rule)
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        if not self.dense:
            activations = {name: flatten(a) for name, a in activations.items()}
            x = flatten(x)
        return x, activations
