"""Conversion of the weights of torchvision's and timm's networks to variables of this library, and back.

    network = resnet.imagenet(50, version='v1.5')
    variables = pretrained.load(network, 'resnet50.safetensors')

Available: alexnet (AlexNetV2), vgg11 to vgg19 with and without batch norm (VGG a, b, d, e), googlenet
(version 'torchvision'), resnet18 to resnet152 (v1.5 from 50 on); timm has all of them except alexnet and googlenet,
the residual networks under torchvision's names. Images have to be preprocessed as the weights require, see
`preprocessing`.
"""

import collections
import functools
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lecture4.vision.models.googlenet import GoogLeNet
from lecture4.vision.weights import torch_format
from lecture4.vision.weights.state_dict import StateDict, WeightsError
from lecture4.vision.weights.tensor_specs import Library, Path, tensor_specs

Variables = Mapping[str, Any]


class Preprocessing(NamedTuple):
    """Preprocessing of images: resize the shorter side, center crop, (x - mean) / std of RGB in [0, 1].

    Attributes:
      resize: Length of the shorter side.
      crop_size: Size of the center crop.
      mean: Mean per color channel.
      std: Standard deviation per color channel.
      antialias: Whether the bilinear resizing is antialiased.
    """

    resize: int
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    antialias: bool


def preprocessing(network: nn.Module) -> Preprocessing:
    """Preprocessing for torchvision's first weights of the network, with bilinear resizing.

    GoogLeNet's were trained on pixels in [-1, 1]: torchvision converts inside the network. Later weights
    (torchvision's V2, most of timm's) have the same normalization but differ in image size, crop and interpolation:
    see their publication.
    """
    if isinstance(network, GoogLeNet):
        return Preprocessing(256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), True)
    return Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True)


def normalization(network: nn.Module) -> Literal['torchvision', 'inception']:
    """Name of the normalization of `preprocessing` in `data.images.normalize.PUBLISHED`."""
    return 'inception' if isinstance(network, GoogLeNet) else 'torchvision'


def class_names(n_classes: int) -> tuple[str, ...]:
    """Names of the classes of published weights: ImageNet's 1000 as torchvision has them, else 'class 0', ..."""
    if n_classes != 1000:
        return tuple(f'class {i}' for i in range(n_classes))
    path = pathlib.Path(__file__).parent / 'imagenet_classes.txt'
    return tuple(path.read_text(encoding='utf-8').splitlines())


def load(
    network: nn.Module, path: str | pathlib.Path, like: Variables | None = None
) -> dict[str, Any]:
    """Variables of the network from a file: all shapes and names are checked.

    Args:
      network: Any network of `tensor_specs`.
      path: .safetensors, .pth or .pt.
      like: Variables of the expected shapes; None takes those of the network on 224 x 224 images.

    Raises:
      WeightsError: As in `torch_format.read` and `from_torch`.
    """
    return from_torch(network, torch_format.read(path), like)


def match_names(network: nn.Module, state: StateDict) -> tuple[Library, StateDict]:
    """The library whose names a state dict has, and the state dict without the prefix of its names.

    DataParallel ('module.'), torch.compile ('_orig_mod.'), and classes that contain a network ('backbone.') add
    prefixes to the names of tensors, possibly several. The prefix that yields the most names of the network is
    removed; other tensors keep their names.
    """
    libraries: tuple[Library, ...] = ('torchvision', 'timm')
    matches = {library: _best_prefix(network, state, library) for library in libraries}
    library = max(libraries, key=lambda library: matches[library][1])
    prefix = matches[library][0]
    return library, {name.removeprefix(prefix): value for name, value in state.items()}


def _best_prefix(network, state, library):
    """(prefix, number of the network's names that it yields)."""
    try:
        expected = {spec.name for spec in tensor_specs(network, library)}
    except WeightsError:
        if library == 'torchvision':  # the library to be named in the error
            raise
        return '', -1
    counts = collections.Counter({'': 0})
    for name in state:
        words = name.split('.')
        for i in range(len(words)):
            if '.'.join(words[i:]) in expected:
                counts['.'.join([*words[:i], ''])] += 1
    prefix = max(counts, key=lambda prefix: (counts[prefix], -len(prefix)))
    return prefix, counts[prefix]


def n_classes(network: nn.Module, state: StateDict) -> int:
    """Number of classes of a state dict; that of the network if the state dict has no classifier."""
    library, state = match_names(network, state)
    *_, bias = tensor_specs(network, library)
    return state[bias.name].shape[0] if bias.name in state else network.n_classes


def from_torch(
    network: nn.Module,
    state: StateDict,
    like: Variables | None = None,
    without: Collection[Path] = (),
) -> dict[str, Any]:
    """Variables {'params', 'batch_stats'} in float32 from a state dict.

    Args:
      network: Any network of `tensor_specs`.
      state: Tensors by name.
      like: Variables of the expected shapes; None takes those of the network on 224 x 224 images.
      without: Paths of variables to leave out: their leaves are None, whether or not the state dict has them.

    Raises:
      WeightsError: A tensor is missing, does not belong to this network, or has another shape; or the library does
        not have this network.
    """
    library, state = match_names(network, state)
    specs = tensor_specs(network, library)
    state = {name: value for name, value in state.items() if not _is_ignored(network, name)}
    names = {spec.name for spec in specs}
    _refuse('lacks', [s.name for s in specs if s.path not in without and s.name not in state])
    _refuse('has, unlike this network,', sorted(set(state) - names))
    like = abstract_variables(network) if like is None else like
    leaves: dict[Path, Any] = {}
    for spec in specs:
        if spec.path in without:
            leaves[spec.path] = None
            continue
        shape, value = _get(like, spec.path).shape, state[spec.name]
        expected = spec.torch_shape(shape)
        if value.shape != expected:
            raise WeightsError(
                f'{spec.name} has shape {value.shape}, expected {expected}; these are weights of '
                'another network, or of another number of classes'
            )
        leaves[spec.path] = jnp.array(spec.from_torch(value, shape), jnp.float32)
    return _nested(leaves)


def to_torch(
    network: nn.Module, variables: Variables, library: Library = 'torchvision'
) -> StateDict:
    """The state dict of variables, for `from_torch` and for load_state_dict of that library's model.

    Every array is a contiguous copy, which safetensors, np.savez and torch.from_numpy accept.

    Raises:
      WeightsError: The library has no such network, or one with the same names and different arithmetic.
    """
    return {
        spec.name: np.array(spec.to_torch(np.asarray(_get(variables, spec.path))), order='C')
        for spec in tensor_specs(network, library)
    }


def _is_ignored(network, name):
    """Whether a tensor is ignored: counters of steps, and auxiliary classifiers if the network has none."""
    no_auxiliary = isinstance(network, GoogLeNet) and not network.auxiliary
    return name.endswith('num_batches_tracked') or (no_auxiliary and name.startswith('aux'))


def _refuse(what, names):
    if names:
        more = f' and {len(names) - 5} more' if len(names) > 5 else ''
        raise WeightsError(
            f'the state dict {what} {", ".join(names[:5])}{more}; these are weights of another network'
        )


def abstract_variables(
    network: nn.Module, image_shape: tuple[int, ...] = (224, 224, 3)
) -> dict[str, Any]:
    """Shapes and dtypes of the network's variables, made for images of one shape (h, w, c)."""
    return _abstract_variables(network, tuple(image_shape))


@functools.lru_cache(maxsize=8)  # tracing a deep network takes seconds
def _abstract_variables(network, image_shape):
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)


def _get(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _nested(leaves):
    tree = {}
    for path, value in leaves.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree
