"""torchvision's Faster R-CNN on a feature pyramid, with random weights: the same boxes, scores and labels here."""

import dataclasses
import functools
import importlib.util
import sys

import jax
import numpy as np
import pytest

from lecture4.vision.detection import faster_rcnn, networks, recipe
from lecture4.vision.weights import detectors


@pytest.fixture
def torchvision():
    """torchvision, also where its compiled operators do not fit the installed torch."""
    torch = pytest.importorskip('torch')
    if importlib.util.find_spec('torchvision') is None:
        pytest.skip('needs torchvision')
    try:
        import torchvision
    except RuntimeError:  # its Python operators remain
        torch.library.register_fake = lambda *args, **kwargs: lambda f: f
        for name in [name for name in sys.modules if name.startswith('torchvision')]:
            del sys.modules[name]
        import torchvision
    return torchvision


def sequential_nms(torch, box_iou, boxes, scores, threshold):
    overlaps = box_iou(boxes, boxes)
    alive, keep = torch.ones(len(boxes), dtype=torch.bool), []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if alive[i]:
            keep.append(i)
            alive &= ~(overlaps[i] > threshold)
    return torch.tensor(keep, dtype=torch.int64)


@pytest.mark.slow
def test_detections_are_those_of_torchvision(torchvision, monkeypatch):
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn
    from torchvision.ops import boxes as box_ops

    if not torchvision.extension._has_ops():
        own = functools.partial(sequential_nms, torch, box_ops.box_iou)
        monkeypatch.setattr(box_ops, 'nms', own)
        monkeypatch.setattr(torch, 'compile', lambda function, **options: function)
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=160, max_size=256,
        rpn_post_nms_top_n_test=300,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'running_mean' in name:
                value.normal_(0, 0.1)
            elif 'running_var' in name:
                value.uniform_(0.8, 1.2)
            elif 'bn3.weight' in name:  # keeps the activations of order 1
                value.uniform_(0.1, 0.3)
            elif name.startswith('rpn.head') and name.endswith('weight'):
                value.normal_(0, 0.03)
            elif 'cls_score.weight' in name:
                value.normal_(0, 1)
            elif 'bbox_pred.weight' in name:
                value.normal_(0, 0.1)
        images = [torch.rand(3, 160, 224), torch.rand(3, 160, 192)]
        images = [4 * torch.nn.functional.avg_pool2d(image - 0.5, 9, 1, 4) for image in images]
        prepared, _ = model.transform(images)
        expected = model(images)
    state = {name: value.numpy() for name, value in model.state_dict().items()}

    network = networks.create(
        'resnet_50_fpn', 3, num_anchors=3, hidden_dims=(1024, 1024), dropout_rate=0.0
    )
    variables = detectors.from_torch(network, state)
    batch = {
        'images': prepared.tensors.numpy().transpose(0, 2, 3, 1),
        'sizes': np.array(prepared.image_sizes, np.int32),
    }
    constants = dataclasses.replace(recipe.TORCHVISION_FPN, post_nms=(2_000, 300))
    predict = jax.jit(functools.partial(faster_rcnn.predict, network, constants))
    result = jax.device_get(predict(variables, batch))
    for i, theirs in enumerate(expected):
        valid = result.valid[i]
        scores = theirs['scores'].numpy()
        assert valid.sum() == len(scores) > 20 and np.ptp(scores) > 0.05
        np.testing.assert_allclose(result.scores[i][valid], scores, atol=1e-5)
        np.testing.assert_array_equal(result.labels[i][valid], theirs['labels'].numpy())
        np.testing.assert_allclose(result.boxes[i][valid], theirs['boxes'].numpy(), atol=1e-3)
