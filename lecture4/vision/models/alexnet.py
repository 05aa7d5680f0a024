"""AlexNet: five convolutions in two groups, three dense layers. Krizhevsky, Sutskever & Hinton, NIPS 2012.

Convolutions 2, 4 and 5 are grouped: they read only the feature maps of their own group. `apply_on_two_devices` runs
the same parameters as in the paper, with one group per device.

The lecture's slide gives 1998 as its year, which is that of LeNet-5's paper (LeCun, Bottou, Bengio & Haffner), and
AlexNet and ZFNet training sets of different sizes. Both learned from the 1.2 to 1.3 million images of ILSVRC-2012;
15 million is the whole of ImageNet.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lecture4.ops import norm, pool
from lecture4.vision.layers import (
    DENSE_MODEL_AXES,
    Activations,
    BackwardRule,
    FullyConnected,
    LRNConvention,
    adaptive_mean_pool,
    check_images,
    conv,
    flatten,
    local_response_norm,
    max_pool,
    relu,
)

# features, kernel size, stride, padding, initial bias; pooled by 3 / 2 after conv1, conv2 and conv5
CONVOLUTIONS = (
    (96, 11, 4, 0, 0.0),
    (256, 5, 1, 2, 1.0),
    (384, 3, 1, 1, 0.0),
    (384, 3, 1, 1, 1.0),
    (256, 3, 1, 1, 1.0),
)
GROUPED = (1, 3, 4)  # indices of the convolutions with two groups
NORMALIZED, POOLED = (0, 1), (0, 1, 4)


class AlexNet(nn.Module):
    """The network of the paper.

    Attributes:
      n_classes: Number of classes.
      groups: Number of groups: 2 as in the paper; 1 joins the groups, which makes a larger network.
      convention: Convention of local response normalization, see `layers.local_response_norm`; 'paper' by default.
      lrn_across_groups: Whether windows of normalization extend across the two groups, as in Caffe's one-device
        version; in the paper each device normalizes its own feature maps.
      dropout_rate: Dropout rate after fc6 and fc7. The dropout is inverted: activations are scaled in training.
      dense: Larger images give a map of logits [n, h, w, n_classes].
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.

    The image size 224 of the paper's text does not give an integer number of windows; 227 does.
    """

    n_classes: int = 1000
    groups: int = 2
    convention: LRNConvention = 'paper'
    lrn_across_groups: bool = False
    dropout_rate: float = 0.5
    dense: bool = False
    backward_rule: BackwardRule = 'gradient'
    dtype: DTypeLike | None = None

    model_axes = DENSE_MODEL_AXES

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, '...'], Activations]:
        """Logits and activations.

        Args:
          x: Images [n, 227, 227, 3], or larger with dense=True.
          train: Whether dropout is on.

        Returns:
          Logits [n, n_classes]; activations conv1 .. conv5 after their ReLU, norm1, norm2, pool1, pool2,
          pool5, fc6, fc7.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
        """
        check_images(x, 67 if self.dense else 227, 'AlexNet')
        x = jnp.asarray(x)
        activations: Activations = {}
        for i, (features, kernel_size, stride, padding, bias) in enumerate(CONVOLUTIONS):
            layer = conv(
                features,
                kernel_size,
                stride,
                padding,
                feature_group_count=self.groups if i in GROUPED else 1,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                bias_init=nn.initializers.constant(bias),
                name=f'conv{i + 1}',
            )
            x = activations[f'conv{i + 1}'] = relu(layer(x), self.backward_rule)
            if i in NORMALIZED:
                groups = 1 if self.lrn_across_groups else self.groups
                x = local_response_norm(x, self.convention, self.backward_rule, groups)
                activations[f'norm{i + 1}'] = x
            if i in POOLED:
                x = max_pool(x, 3, 2, backward_rule=self.backward_rule)
                activations[f'pool{i + 1}'] = x
        head = FullyConnected(
            self.n_classes,
            6,
            hidden_bias=1.0,
            dropout_rate=self.dropout_rate,
            dense=self.dense,
            backward_rule=self.backward_rule,
            dtype=self.dtype,
            name='head',
        )
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}


def apply_on_two_devices(
    variables: Mapping[str, Any],
    x: Float[Array | np.ndarray, 'n 227 227 3'],
    mesh: Mesh,
    *,
    convention: LRNConvention = 'paper',
) -> Float[Array, 'n n_classes']:
    """Logits of AlexNet with one group on each of two devices, as in the paper.

    The feature maps of a group stay on its device; they are joined before conv3 and in the dense layers, whose
    columns are split between the devices: the communication of figure 2 of the paper. Traceable.

    Args:
      variables: Variables of AlexNet(groups=2).
      x: Images.
      mesh: Two devices along one axis.
      convention: As in AlexNet.

    Returns:
      The same logits as AlexNet's, up to rounding.

    Raises:
      ValueError: The mesh does not have two devices along one axis.
    """
    if mesh.size != 2 or len(mesh.axis_names) != 1:
        raise ValueError(f'expected a mesh of two devices along one axis, got {dict(mesh.shape)}')
    axis = mesh.axis_names[0]
    params = variables['params']

    def gather(y):
        return lax.all_gather(y, axis, axis=y.ndim - 1, tiled=True)

    def forward(params, x):
        for i, (_, _, stride, padding, _) in enumerate(CONVOLUTIONS):
            layer = params[f'conv{i + 1}']
            if i == 2:
                x = gather(x)
            x = lax.conv_general_dilated(
                x,
                layer['kernel'],
                (stride, stride),
                [(padding, padding)] * 2,
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )
            x = jnp.maximum(x + layer['bias'][None, None, None, :], 0)
            if i in NORMALIZED:
                x = norm.local_response(x, convention=convention)
            if i in POOLED:
                x = pool.max_pool(x, 3, 2)
        x = gather(x)
        for name in ('fc6', 'fc7'):
            layer = params['head'][name]
            kernel = layer['kernel'].reshape(-1, layer['kernel'].shape[-1])
            x = jnp.maximum(flatten(x) @ kernel + layer['bias'][None, :], 0)
            x = gather(x)
        layer = params['head']['fc8']
        return x @ layer['kernel'][0, 0] + layer['bias'][None, :]

    # The last axis (features) of every kernel and bias is divided; the classes are not.
    specs = jax.tree.map(lambda leaf: P(*[None] * (leaf.ndim - 1), axis), params)
    specs['head']['fc8'] = jax.tree.map(lambda _: P(), params['head']['fc8'])
    return jax.shard_map(forward, mesh=mesh, in_specs=(specs, P()), out_specs=P(), check_vma=False)(
        params, x
    )


class AlexNetV2(nn.Module):
    """AlexNet with fewer filters, without normalization and groups: torchvision's alexnet.

    Attributes:
      n_classes: Number of classes.
      dropout_rate: Dropout rate before fc6 and fc7, not after them.
      dense: Larger images give a map of logits [n, h, w, n_classes].
      features_only: Whether to return pool5 in place of the logits, for detectors.
      backward_rule: Backward rule of ReLU, see `layers.relu`.
      dtype: Dtype of the computation.

    References:
      Krizhevsky 2014, 'One weird trick for parallelizing convolutional neural networks'.
    """

    n_classes: int = 1000
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
        """Logits and activations, as in AlexNet without norms.

        Args:
          x: Images [n, 224, 224, 3]; the feature maps of other sizes are pooled to 6 x 6 bins.
          train: Whether dropout is on.

        Raises:
          TypeError, ValueError: As in `layers.check_images`.
        """
        check_images(x, 223 if self.dense else 63, 'AlexNetV2')
        x = jnp.asarray(x)
        activations: Activations = {}
        shapes = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
        for i, shape in enumerate(shapes):
            layer = conv(*shape, dtype=self.dtype, name=f'conv{i + 1}')
            x = activations[f'conv{i + 1}'] = relu(layer(x), self.backward_rule)
            if i in POOLED:
                x = max_pool(x, 3, 2, backward_rule=self.backward_rule)
                activations[f'pool{i + 1}'] = x
        if self.features_only:
            return x, activations
        if not self.dense:
            x = flatten(adaptive_mean_pool(x, 6))
        for name, kernel_size in (('fc6', 6), ('fc7', 1)):
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
            layer = DenseOrConv(4096, kernel_size, self.dtype, name=name)
            x = activations[name] = relu(layer(x), self.backward_rule)
        return DenseOrConv(self.n_classes, 1, self.dtype, name='fc8')(x), activations


class DenseOrConv(nn.Module):
    """A dense layer on [n, d]; on feature maps [n, h, w, c] the same weights are used as a convolution.

    Attributes:
      features: Number of outputs.
      kernel_size: Height and width of the maps that were flattened to d values.
      dtype: Dtype of the computation.
    """

    features: int
    kernel_size: int
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Float[Array, 'n *size c']) -> Float[Array, 'n *out features']:
        """[n, d] -> [n, features], or [n, h, w, c] -> [n, h', w', features]."""
        n_inputs = x.shape[-1] * (self.kernel_size**2 if x.ndim == 4 else 1)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (n_inputs, self.features))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if x.ndim == 2:
            return x @ kernel + bias[None, :]
        kernel = kernel.reshape(self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        return x + bias[None, None, None, :]
