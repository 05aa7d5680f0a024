"""torchvision's Faster R-CNN: every tensor converted and back; state dicts that do not fit."""

import jax
import numpy as np
import pytest

from lecture4.vision.detection import networks
from lecture4.vision.weights import detectors
from lecture4.vision.weights.pretrained import abstract_variables
from lecture4.vision.weights.torch_format import WeightsError


def pyramid(num_classes):
    return networks.create(
        'resnet_50_fpn', num_classes, num_anchors=3, hidden_dims=(1024, 1024), dropout_rate=0.0
    )


def test_torchvision_weights_survive_export_and_import():
    network = pyramid(90)
    shapes = abstract_variables(network, (64, 64, 3))
    # As torchvision counts, which leaves out the scales and shifts of frozen batch norm.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == 41_755_286 + 53_120
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
    state = detectors.to_torch(network, variables)
    assert state['roi_heads.box_predictor.bbox_pred.weight'].shape == (364, 1024)
    state['rpn.head.conv.weight'] = state.pop('rpn.head.conv.0.0.weight')  # before torchvision 0.14
    back = detectors.from_torch(network, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    exact = detectors.from_torch(network, state, bn_epsilon=0.0)
    change = jax.tree.leaves(exact['batch_stats'])[1] - jax.tree.leaves(back['batch_stats'])[1]
    np.testing.assert_allclose(change, -1e-5, atol=1e-7)
    with pytest.raises(WeightsError, match=r'lacks backbone\.body\.conv1\.weight'):
        detectors.from_torch(network, {})
    with pytest.raises(WeightsError, match='pass the number of classes of the file'):
        detectors.from_torch(pyramid(20), state)
