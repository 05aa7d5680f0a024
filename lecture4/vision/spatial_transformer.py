"""Spatial transformers: maps resampled by a predicted transformation (Jaderberg et al., NIPS 2015).

`SpatialTransformer` is a layer: x -> (warped x, theta). It learns to invert transformations (normalization) or to
crop (attention) from the labels of the task alone, since the sampler is differentiable with respect to its sampling
positions. `Transformed` puts such layers before any named layers of a network of this library, at any depth.

    network = Transformed(vgg.VGG('D'), {'input': SpatialTransformer(localization)})
    (logits, activations), theta = network.apply(...), activations['input/theta']
"""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from lecture4.ops import conv_cpu, grids, pool, sampling
from lecture4.ops.prox import require_floating

Kind = Literal['affine', 'attention', 'projective', 'tps']
KINDS: tuple[Kind, ...] = ('affine', 'attention', 'projective', 'tps')
LOCALIZATION = (
    'localization',
    'theta',
)  # names of the modules with the localization network's parameters
INPUT = 'input'  # name of the network's input in `Transformed`


def transformation(kind: Kind, control_points: int = 4) -> grids.Transformation:
    """The transformation with a name.

    Args:
      kind: 'affine', 'attention' (a scale and a translation), 'projective' or 'tps' (thin plate spline).
      control_points: Number of control points of the spline along each side.

    Raises:
      ValueError: The kind is unknown.
    """
    match kind:
        case 'affine':
            return grids.affine()
        case 'attention':
            return grids.attention()
        case 'projective':
            return grids.projective()
        case 'tps':
            return grids.thin_plate_spline(control_points)
    raise ValueError(f'expected kind to be one of {", ".join(KINDS)}, got {kind!r}')


def outline(
    kind: Kind, theta: Float[ArrayLike, '*batch t'], n: int = 8
) -> Float[Array, '*batch p 2']:
    """The border of the sampled region, normalized (x, y): 4 n points, on straight lines between corners if affine.

    Args:
      kind: As in `transformation`.
      theta: As a `SpatialTransformer` returns it.
      n: Number of points per side.
    """
    return grids.transform(transformation(kind), theta, grids.outline(n))


def mesh(
    kind: Kind, theta: Float[ArrayLike, '*batch t'], n: int = 9
) -> Float[Array, '*batch n n 2']:
    """Input positions of an n x n mesh over the output, normalized (x, y); arguments as in `outline`."""
    return grids.grid(transformation(kind), theta, (n, n))


class SpatialTransformer(nn.Module):
    """Localization network, grid and sampler; several in parallel read the same maps.

    It is initialized as the identity (a zero kernel and the identity's parameters as bias), for any localization
    network. Theta and the grid are float32 even if maps are bfloat16.

    Attributes:
      localization: Any module from maps [n, h, w, c] to features; its output (the first of several) is flattened, and
        a dense layer maps it to theta. As always in flax, one instance passed to two transformers shares its
        parameters: make one for each.
      kind: See `transformation`.
      output_size: Height and width of the warped maps; None keeps those of the input.
      count: Number of transformers in parallel, with one localization network (the paper's birds and sums).
      control_points: See `transformation`.
      initial_theta: Initial parameters instead of the identity, [t] or [count, t] as nested tuples.
      padding: Values outside the maps, see `ops.sampling.sample`.
      align_corners: Whether -1 and 1 are centers or edges of the outermost pixels, see `ops.sampling`.
      antialias: Largest shrinking factor without aliasing, see `ops.sampling.sample`; 1 as in the paper.
    """

    localization: nn.Module
    kind: Kind = 'affine'
    output_size: tuple[int, int] | None = None
    count: int = 1
    control_points: int = 4
    initial_theta: Any = None
    padding: sampling.Padding = 'zeros'
    align_corners: bool = True
    antialias: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n h2 w2 c2'], Float[Array, 'n count t']]:
        """Warped maps with `count` times the channels (those of the first transformer first), and theta.

        Raises:
          TypeError: The maps are integers.
          ValueError: The maps are not [n, h, w, c] or have their channels first; an output size is 0.
        """
        x = _check(x)
        family = transformation(self.kind, self.control_points)
        features = _apply(self.localization, x, train)
        features = features.reshape(features.shape[0], -1).astype(jnp.float32)
        start = family.identity if self.initial_theta is None else np.asarray(self.initial_theta)
        bias = np.broadcast_to(start, (self.count, len(family.identity))).ravel()
        theta = nn.Dense(
            bias.size, kernel_init=nn.initializers.zeros,
            bias_init=lambda key, shape, dtype=jnp.float32: jnp.asarray(bias, dtype), name='theta',
        )(features)  # fmt: skip
        theta = theta.reshape(-1, self.count, len(family.identity))
        size = self.output_size or (x.shape[1], x.shape[2])
        # [n, count, h, w, 2]: all transformers of an example are points of one image
        grid = grids.grid(family, theta, size, self.align_corners)
        warped = sampling.grid_sample(
            x,
            grid,
            padding=self.padding,
            align_corners=self.align_corners,
            antialias=self.antialias,
        )
        warped = jnp.moveaxis(warped, 1, 3)  # [n, h, w, count, c]
        return warped.reshape(*warped.shape[:3], -1), theta


class Transformed(nn.Module):
    """A network of this library with spatial transformers before some of its layers.

    It returns the network's outputs, with additional activations 'NAME/theta' [n, count, t] and 'NAME/warped' for
    each transformed layer NAME; the network's activations keep their names.

    Attributes:
      network: A module that returns (logits, activations); its layers have the names of `layer_specs`.
      transformers: {name of a module of the network, or 'input' for its images: the layer before it}. A transformer
        inside the network has to preserve the size and number of the maps that the following layers expect.
      axis_name: Device axis of the network's norm layers, if it has any.
    """

    network: nn.Module
    transformers: Mapping[str, SpatialTransformer]
    axis_name: str | None = None

    def clone(self, **updates: Any) -> 'Transformed':  # pyright: ignore[reportIncompatibleMethodOverride]
        """A copy; a new `axis_name` is also passed to the network."""
        if updates.get('axis_name') is not None and hasattr(self.network, 'axis_name'):
            updates['network'] = self.network.clone(axis_name=updates['axis_name'])
        return super().clone(**updates)

    @nn.compact
    def __call__(
        self, x: Float[Array, 'n h w c'], *, train: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Logits and activations.

        Raises:
          ValueError: A name is not a layer of the network.
        """
        added: dict[str, Array] = {}
        waiting = {name for name in self.transformers if name != INPUT}

        def warp(name, x):
            warped, theta = self.transformers[name](x, train=train)
            added[f'{name}/theta'], added[f'{name}/warped'] = theta, warped
            return warped

        def before_layer(layer, args, kwargs, context):
            name = context.module.name
            if context.method_name == '__call__' and name in waiting and args:
                waiting.discard(name)
                args = (warp(name, args[0]), *args[1:])
            return layer(*args, **kwargs)

        if INPUT in self.transformers:
            x = warp(INPUT, x)
        with nn.intercept_methods(before_layer):
            logits, activations = self.network(x, train=train)
        if waiting:
            raise ValueError(
                f'the network has no layer {", ".join(sorted(waiting))} to put a transformer before; '
                f'expected names of its modules, or {INPUT!r}'
            )
        return logits, activations | added


class LocalizationMLP(nn.Module):
    """Dense layers with ReLU: the localization network of the paper's ST-FCN, 32 units each.

    Attributes:
      hidden_dims: Number of units of each layer.
    """

    hidden_dims: tuple[int, ...] = (32, 32, 32)

    @nn.compact
    def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n k']:
        """Features."""
        x = x.reshape(x.shape[0], -1)
        for units in self.hidden_dims:
            x = nn.relu(nn.Dense(units)(x))
        return x


class LocalizationCNN(nn.Module):
    """The localization network of the paper's ST-CNN: pooling, stages of convolution, ReLU and pooling, a dense layer.

    Attributes:
      filters: Number of filters of each stage.
      kernel_size: Height and width of the filters, without padding.
      units: Number of units of the dense layer.
      pool_first: Whether the maps are halved before the first stage.

    Raises:
      ValueError: The maps of a stage are smaller than its filters.
    """

    filters: tuple[int, ...] = (20, 20)
    kernel_size: int = 5
    units: int = 20
    pool_first: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n k']:
        """Features."""
        if self.pool_first:
            x = pool.max_pool(x, 2)
        for i, features in enumerate(self.filters):
            if min(x.shape[1:3]) < self.kernel_size:
                raise ValueError(
                    f'stage {i + 1} has maps of {x.shape[1]} x {x.shape[2]}, smaller than kernel_size '
                    f'{self.kernel_size}; use smaller filters, fewer stages or larger images'
                )
            x = nn.Conv(
                features, (self.kernel_size,) * 2, padding=((0, 0), (0, 0)),
                conv_general_dilated=conv_cpu.conv_general_dilated,
            )(x)  # fmt: skip
            x = nn.relu(x)
            if i + 1 < len(self.filters) and min(x.shape[1:3]) >= 2:
                x = pool.max_pool(x, 2)
        return nn.relu(nn.Dense(self.units)(x.reshape(x.shape[0], -1)))


def localization_lr_multiplier(factor: float) -> optax.GradientTransformation:
    """Scale the updates of localization networks and their theta layers by a factor; put it last in a chain.

    A network whose sampling changes faster than it learns to classify the samples does not converge: 0.1 is common.
    """

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(scale, updates), state

    def scale(path, value):
        names = {getattr(key, 'key', None) for key in path}
        return value * jnp.asarray(factor, value.dtype) if names & set(LOCALIZATION) else value

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _apply(module, x, train):
    """The first output of a module that may or may not have a `train` argument."""
    options = inspect.signature(type(module).__call__).parameters
    y = module(x, train=train) if 'train' in options else module(x)
    return y[0] if isinstance(y, tuple) else y


def _check(x):
    x = require_floating('x', x)
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[1] < min(x.shape[2:]):
        raise ValueError(
            f'spatial transformer: maps of shape {x.shape} have their channels first; move them last: '
            'x.transpose(0, 2, 3, 1)'
        )
    if x.ndim != 4:
        raise ValueError(f'spatial transformer: expected maps [n, h, w, c], got shape {x.shape}')
    return x
