"""Conversion of torchvision's Faster R-CNN with a feature pyramid to variables of this library, and back.

    network = networks.create('resnet_50_fpn', 90, num_anchors=3, hidden_dims=(1024, 1024), dropout_rate=0)
    variables = detectors.load(network, 'fasterrcnn_resnet50_fpn_coco.pth', bn_epsilon=0)
    detections = faster_rcnn.predict(network, recipe.TORCHVISION_FPN, variables, batch)

Images are normalized as in `pretrained.preprocessing` and padded to multiples of 32.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from lecture4.vision.detection.networks import Detector, FeaturePyramid
from lecture4.vision.models.resnet import ResNet
from lecture4.vision.weights import torch_format
from lecture4.vision.weights.pretrained import abstract_variables
from lecture4.vision.weights.state_dict import StateDict, WeightsError
from lecture4.vision.weights.tensor_specs import Layout, TensorSpec, tensor_specs

BN_EPSILON = 1e-5  # epsilon of the networks here, and of torchvision's FrozenBatchNorm2d

# Parts of the detector: name in the state dict, path here, layout of the kernel.
_PARTS: tuple[tuple[str, tuple[str, ...], Layout], ...] = (
    *((f'backbone.fpn.inner_blocks.{i}.0', ('backbone', f'inner{i}'), 'conv') for i in range(4)),
    *((f'backbone.fpn.layer_blocks.{i}.0', ('backbone', f'layer{i}'), 'conv') for i in range(4)),
    ('rpn.head.conv.0.0', ('rpn', 'conv'), 'conv'),
    ('rpn.head.cls_logits', ('rpn', 'objectness'), 'conv'),
    ('rpn.head.bbox_pred', ('rpn', 'deltas'), 'conv'),
    ('roi_heads.box_head.fc6', ('head', 'layers', 'fc6'), 'map'),
    ('roi_heads.box_head.fc7', ('head', 'layers', 'fc7'), 'dense'),
    ('roi_heads.box_predictor.cls_score', ('head', 'scores'), 'dense'),
    ('roi_heads.box_predictor.bbox_pred', ('head', 'deltas'), 'dense'),
)
# Names in torchvision before 0.14.
_OLD_NAMES = {
    **{
        f'backbone.fpn.{kind}_blocks.{i}.': f'backbone.fpn.{kind}_blocks.{i}.0.'
        for kind in ('inner', 'layer')
        for i in range(4)
    },
    'rpn.head.conv.': 'rpn.head.conv.0.0.',
}


def load(
    network: Detector, path: str | pathlib.Path, *, bn_epsilon: float = BN_EPSILON
) -> dict[str, Any]:
    """Variables from a .pth or .safetensors file; see `from_torch`."""
    return from_torch(network, torch_format.read(path), bn_epsilon=bn_epsilon)


def from_torch(
    network: Detector, state: StateDict, *, bn_epsilon: float = BN_EPSILON
) -> dict[str, Any]:
    """Variables {'params', 'batch_stats'} in float32 from a state dict of fasterrcnn_resnet50_fpn (or 101).

    Args:
      network: A network of `networks.create('resnet_50_fpn', ...)`, with the file's number of classes.
      state: Tensors by name; names of torchvision before 0.14 are accepted.
      bn_epsilon: Epsilon of the file's batch norm: 0 for torchvision's published COCO weights, as torchvision runs
        them. The difference to that of the network is added to the variances.

    Raises:
      WeightsError: The network is not such a detector; or a tensor is missing, superfluous, or has another shape.
    """
    state = {_new_name(name): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if 'num_batches_tracked' not in name}
    specs = list(_specs(network))
    missing = [spec.name for spec in specs if spec.name not in state]
    extra = sorted(set(state) - {spec.name for spec in specs})
    for what, names in (('lacks', missing), ('has, unlike this detector,', extra)):
        if names:
            raise WeightsError(
                f"the state dict {what} {', '.join(names[:3])}; expected one of torchvision's "
                'fasterrcnn_resnet50_fpn'
            )
    shapes: Any = abstract_variables(network, (64, 64, 3))
    variables: dict[str, Any] = {}
    for spec in specs:
        shape = _get(shapes, spec.path).shape
        value, expected = state[spec.name], spec.torch_shape(shape)
        if value.shape != expected:
            raise WeightsError(
                f'{spec.name} has shape {value.shape}, expected {expected}; pass the number of classes '
                'of the file'
            )
        leaf = np.array(spec.from_torch(value, shape), np.float32)
        if spec.path[-1] == 'var':
            leaf = leaf + np.float32(bn_epsilon - BN_EPSILON)
        node = variables
        for name in spec.path[:-1]:
            node = node.setdefault(name, {})
        node[spec.path[-1]] = jnp.asarray(leaf)
    return variables


def to_torch(network: Detector, variables: dict[str, Any]) -> StateDict:
    """The state dict of variables, for load_state_dict of torchvision's model.

    Raises:
      WeightsError: torchvision does not have this network.
    """
    return {
        spec.name: np.array(spec.to_torch(np.asarray(_get(variables, spec.path))), order='C')
        for spec in _specs(network)
    }


def _specs(network: Detector) -> Iterator[TensorSpec]:
    pyramid = network.backbone
    if not isinstance(pyramid, FeaturePyramid):
        raise WeightsError("expected a detector of networks.create('resnet_50_fpn', ...)")
    resnet = pyramid.backbone.network
    assert isinstance(resnet, ResNet)
    for spec in tensor_specs(resnet):
        if not spec.name.startswith('fc.'):
            kind, *path = spec.path
            path = (kind, 'backbone', 'backbone', 'network', *path)
            yield TensorSpec(f'backbone.body.{spec.name}', path, spec.layout)
    for name, path, layout in _PARTS:
        yield TensorSpec(f'{name}.weight', ('params', *path, 'kernel'), layout)
        yield TensorSpec(f'{name}.bias', ('params', *path, 'bias'), 'vector')


def _new_name(name):
    for old, new in _OLD_NAMES.items():
        if name.startswith(old) and not name.startswith(new):
            return new + name.removeprefix(old)
    return name


def _get(tree, path):
    for name in path:
        tree = tree[name]
    return tree
