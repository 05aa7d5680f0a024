"""The networks of the detectors: backbones with one or several feature maps, the region proposal head, box heads."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.vision.layers import conv, flatten, he_fan_out, max_pool, relu
from lecture4.vision.models import registry
from lecture4.vision.models.resnet import Block

# Last feature maps of each network before the detector's head, at stride 16.
LAST_MAPS = {
    'vgg_d': 'conv5_3',
    'zfnet': 'conv5',
    'resnet_50_v1_5': 'conv4_6',
    'resnet_101_v1_5': 'conv4_23',
}


class SmallNetwork(nn.Module):
    """A few 3 x 3 convolutions with max pools between the stages: a backbone that trains in minutes on a CPU.

    Attributes:
      features: Channels of each stage; the maps are halved after every stage except the last.
      num_convolutions: Number of convolutions of each stage.
    """

    features: tuple[int, ...] = (16, 32, 64, 64)
    num_convolutions: tuple[int, ...] = (1, 1, 2, 2)

    @property
    def stride(self) -> int:
        """Pixels per cell of the last feature maps."""
        return 2 ** (len(self.features) - 1)

    @property
    def last(self) -> str:
        """Name of the last feature maps."""
        return f'conv{len(self.features)}_{self.num_convolutions[-1]}'

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n h2 w2 c2'], dict[str, Float[Array, '...']]]:
        """The last feature maps, and all by name: conv1_1, conv1_2, ..."""
        del train
        x, activations = jnp.asarray(x), {}
        stages = zip(self.features, self.num_convolutions, strict=True)
        for i, (features, n) in enumerate(stages, 1):
            for j in range(1, n + 1):
                name = f'conv{i}_{j}'
                x = relu(conv(features, 3, 1, 1, kernel_init=he_fan_out, name=name)(x))
                activations[name] = x
            if i < len(self.features):
                x = max_pool(x, 2)
        return x, activations


class Backbone(nn.Module):
    """Named feature maps of an image network, finest first. Batch norm is frozen: it uses its running averages.

    Attributes:
      network: A network with features_only=True.
      names: Names of the activations.
    """

    network: nn.Module
    names: tuple[str, ...]

    @nn.compact
    def __call__(
        self, images: Float[Array | np.ndarray, 'n h w c']
    ) -> tuple[Float[Array, 'n ...'], ...]:
        """Normalized images -> feature maps."""
        _, activations = self.network(images)
        return tuple(activations[name] for name in self.names)


class FeaturePyramid(nn.Module):
    """A feature pyramid on the four stages of a ResNet, and a fifth map for the largest anchors.

    Each level is a 1 x 1 convolution of its stage's maps plus the upsampled (nearest) coarser level, smoothed by a 3
    x 3 convolution; the fifth takes every other cell of the fourth.

    Attributes:
      backbone: Backbone that returns the maps of the stages.
      features: Channels of every level.

    References:
      Lin et al. 2017, section 3.
    """

    backbone: nn.Module
    features: int = 256

    @nn.compact
    def __call__(
        self, images: Float[Array | np.ndarray, 'n h w c']
    ) -> tuple[Float[Array, 'n ...'], ...]:
        """Normalized images -> five feature maps, at strides 4 to 64."""
        stages = self.backbone(images)
        coarser, levels = None, []
        for i in reversed(range(len(stages))):
            x = conv(self.features, 1, name=f'inner{i}')(stages[i])
            if coarser is not None:
                x = x + _upsample(coarser, x.shape[1:3])
            coarser = x
            levels.append(conv(self.features, 3, 1, 1, name=f'layer{i}')(x))
        levels = levels[::-1]
        return (*levels, levels[-1][:, ::2, ::2])


def _upsample(x, shape):
    """Nearest-neighbor upsampling to a size, as by torch's interpolate(mode='nearest')."""
    for axis, length in zip((1, 2), shape, strict=True):
        n = x.shape[axis]
        if length == 2 * n:
            x = jnp.repeat(x, 2, axis=axis)
        else:
            x = jnp.take(x, jnp.arange(length) * n // length, axis=axis)
    return x


class RPNHead(nn.Module):
    """Scores and regression outputs of the anchors of every cell; the same weights for every level.

    One logit per anchor, equivalent to the paper's softmax of two.

    Attributes:
      num_anchors: Number of anchors per cell.
      features: Channels of the 3 x 3 convolution: 512 for VGG-16, 256 for ZF and pyramids.
    """

    num_anchors: int
    features: int = 512

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[Array | np.ndarray, 'n _ _ _']]
    ) -> tuple[tuple[Float[Array, 'n _'], ...], tuple[Float[Array, 'n _ 4'], ...]]:
        """(logits, deltas) of every level, cells in row-major order."""
        init = nn.initializers.normal(0.01)
        hidden = conv(self.features, 3, 1, 1, kernel_init=init, name='conv')
        objectness = conv(self.num_anchors, 1, kernel_init=init, name='objectness')
        deltas = conv(4 * self.num_anchors, 1, kernel_init=init, name='deltas')
        logits, boxes = [], []
        for level in levels:
            x = relu(hidden(level))
            logits.append(objectness(x).reshape(len(x), -1))
            boxes.append(deltas(x).reshape(len(x), -1, 4))
        return tuple(logits), tuple(boxes)


class DenseLayers(nn.Module):
    """Dense layers with ReLUs on pooled RoIs: VGG's and ZF's fc6 and fc7, torchvision's box head.

    Attributes:
      hidden_dims: Numbers of units of fc6, fc7, ...: 4096 in the papers, 1024 in torchvision.
      dropout_rate: Dropout rate after each layer: 0.5 in the papers, 0 in torchvision.
      kernel_std: Standard deviation of the initial kernels; None takes He's initialization.
    """

    hidden_dims: tuple[int, ...] = (4096, 4096)
    dropout_rate: float = 0.5
    kernel_std: float | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'r h w c'], train: bool = False
    ) -> Float[Array, 'r d']:
        """[r, h, w, c] -> [r, d], flattened in row-major order."""
        x = flatten(jnp.asarray(x))
        init = nn.initializers.he_normal()
        if self.kernel_std is not None:
            init = nn.initializers.normal(self.kernel_std)
        for i, features in enumerate(self.hidden_dims, 6):
            x = relu(nn.Dense(features, kernel_init=init, name=f'fc{i}')(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x


class LastStage(nn.Module):
    """The last stage of a ResNet on pooled RoIs, followed by the mean: the head on conv4 maps. Batch norm is frozen.

    Attributes:
      num_blocks: Number of blocks of the stage.
      features: Number of filters of its 3 x 3 convolutions.
    """

    num_blocks: int = 3
    features: int = 512

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'r h w c'], train: bool = False
    ) -> Float[Array, 'r d']:
        """[r, h, w, c] -> [r, 4 * features]."""
        del train
        x = jnp.asarray(x)
        for j in range(self.num_blocks):
            block = Block(
                self.features,
                1 if j else 2,
                bottleneck=True,
                shortcut='B',
                version='v1.5',
                backward_rule='gradient',
                dtype=None,
                axis_name=None,
                name=f'conv5_{j + 1}',
            )
            x = block(x, False)
        return jnp.mean(x, axis=(1, 2))


class BoxHead(nn.Module):
    """Class scores and regression outputs of every class for pooled RoIs.

    Attributes:
      layers: Layers before the two outputs.
      num_classes: Number of classes without the background.
    """

    layers: nn.Module
    num_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'r h w c'], train: bool = False
    ) -> tuple[Float[Array, 'r k'], Float[Array, 'r k 4']]:
        """(logits, deltas) over the background and num_classes classes."""
        x = self.layers(x, train)
        k = self.num_classes + 1
        scores = nn.Dense(k, kernel_init=nn.initializers.normal(0.01), name='scores')(x)
        deltas = nn.Dense(4 * k, kernel_init=nn.initializers.normal(0.001), name='deltas')(x)
        return scores, deltas.reshape(len(x), k, 4)


class Detector(nn.Module):
    """The parts of Fast and Faster R-CNN as methods; `init` with images makes all parameters.

    Attributes:
      backbone: Normalized images -> feature maps, finest first.
      head: Pooled RoIs -> (logits, deltas).
      rpn: Feature maps -> (logits, deltas) of anchors; None in Fast R-CNN.
      pool_size: Number of bins of a RoI along both axes.
    """

    backbone: nn.Module
    head: nn.Module
    rpn: nn.Module | None = None
    pool_size: int = 7

    def features(
        self, images: Float[Array | np.ndarray, 'n h w c']
    ) -> tuple[Float[Array, 'n ...'], ...]:
        """Feature maps of normalized images."""
        return self.backbone(images)

    def propose(self, levels: Sequence[Float[Array | np.ndarray, 'n _ _ _']]) -> Any:
        """Outputs of the region proposal network on feature maps, see `RPNHead`."""
        assert self.rpn is not None
        return self.rpn(levels)

    def classify(
        self, pooled: Float[Array | np.ndarray, 'r h w c'], train: bool = False
    ) -> tuple[Float[Array, 'r k'], Float[Array, 'r k 4']]:
        """(logits, deltas) of pooled RoIs."""
        return self.head(pooled, train)

    def from_features(self, levels: Sequence[Float[Array | np.ndarray, 'n _ _ _']]) -> Any:
        """Run everything except the backbone once, for `init` with cached feature maps."""
        outputs = self.rpn(levels) if self.rpn is not None else None
        channels = levels[0].shape[-1]
        size = (1, self.pool_size, self.pool_size, channels)
        return outputs, self.head(jnp.zeros(size, levels[0].dtype))

    def __call__(self, images: Float[Array | np.ndarray, 'n h w c']) -> Any:
        """Run everything once, for `init`."""
        return self.from_features(self.backbone(images))


def create(
    name: str,
    num_classes: int,
    *,
    num_anchors: int = 9,
    with_rpn: bool = True,
    hidden_dims: Sequence[int] = (4096, 4096),
    dropout_rate: float = 0.5,
    small: SmallNetwork = SmallNetwork(),
) -> Detector:
    """A detector on one feature map, or on a pyramid.

    Args:
      name: 'vgg_d', 'zfnet', 'resnet_50_v1_5', 'resnet_101_v1_5' (conv4 maps and conv5 as the head),
        'resnet_50_fpn', 'resnet_101_fpn' (torchvision's), or 'small'.
      num_classes: Number of classes without the background.
      num_anchors: Number of anchors per cell; 3 in torchvision's pyramids.
      with_rpn: Whether the detector makes its own proposals.
      hidden_dims: Numbers of units of the dense layers of the head, if it has any; torchvision's pyramids have (1024,
        1024).
      dropout_rate: Dropout rate of these layers; torchvision has no dropout.
      small: Backbone of 'small'.

    Raises:
      ValueError: There is no such detector.
    """
    pool_size = 7
    layers: nn.Module = DenseLayers(tuple(hidden_dims), dropout_rate)
    rpn_features = 256
    if name == 'small':
        backbone: nn.Module = Backbone(small, (small.last,))
        rpn_features = 64
    elif name in ('resnet_50_fpn', 'resnet_101_fpn'):
        network = registry.create(name.replace('fpn', 'v1_5'), 1, features_only=True)
        stages = tuple(f'conv{i + 2}_{n}' for i, n in enumerate(network.blocks))
        backbone = FeaturePyramid(Backbone(network, stages))
    elif name in LAST_MAPS:
        options: dict[str, Any] = {'features_only': True}
        backbone = Backbone(registry.create(name, 1, **options), (LAST_MAPS[name],))
        rpn_features = 256 if name == 'zfnet' else 512
        if name.startswith('resnet'):
            layers, pool_size = LastStage(), 14
            network = backbone.network.clone(
                blocks=backbone.network.blocks[:3], features=(64, 128, 256)
            )
            backbone = Backbone(network, backbone.names)
    else:
        known = ', '.join(['small', *LAST_MAPS, 'resnet_50_fpn', 'resnet_101_fpn'])
        raise ValueError(f'unknown detector {name}; expected one of {known}')
    rpn = RPNHead(num_anchors, rpn_features) if with_rpn else None
    return Detector(backbone, BoxHead(layers, num_classes), rpn, pool_size)


def freeze(variables: Any, layers: Sequence[str] = ()) -> Any:
    """The same variables, with no gradient through those of frozen layers.

    Batch norm is always frozen, parameters and statistics. A backward pass is not even computed below the first
    layer that is trained.

    Args:
      variables: {'params', 'batch_stats'}, or gradients of their structure.
      layers: Prefixes of the names of frozen modules: ('conv1', 'conv2') in Fast and Faster R-CNN with VGG-16,
        ('backbone',) for the whole backbone.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if is_frozen(path, layers) else leaf,
        variables,
    )


def is_frozen(path: Sequence[Any], layers: Sequence[str]) -> bool:
    """Whether the leaf at a path belongs to a frozen layer, see `freeze`."""
    names = [key.key for key in path]
    frozen = any(name.startswith(tuple(layers)) for name in names) if layers else False
    return frozen or names[0] == 'batch_stats' or 'bn' in names


def trainable_mask(variables: Any, layers: Sequence[str] = ()) -> Any:
    """A tree of booleans for optax.masked: True where `freeze` lets gradients pass."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not is_frozen(path, layers), variables)
