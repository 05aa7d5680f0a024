"""Detectors on convolutions that are not trained: their models need no other file, and keep them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from experiments.detection import faster_rcnn, rcnn
from lecture4 import train
from lecture4.ops.reduce import Reduce
from lecture4.train import cli
from lecture4.train.experiment import from_module
from lecture4.vision.models import registry
from lecture4.vision.weights import pretrained


@pytest.mark.slow
def test_a_frozen_backbone_is_saved_with_the_model(tmp_path):
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        network = registry.create('vgg_d', 2)
        shape = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), shape)
        rng = np.random.default_rng(0)
        variables = jax.tree.map(lambda s: 0.02 * rng.normal(size=s.shape).astype(s.dtype), shapes)
        tensors = pretrained.to_torch(network, variables)
        convolutions = {name: t for name, t in tensors.items() if name.startswith('features')}
        safetensors.numpy.save_file(convolutions, tmp_path / 'vgg.safetensors')
        argv = [
            '--preset',
            'smoke',
            '--network',
            'vgg_d',
            '--init',
            str(tmp_path / 'vgg.safetensors'),
        ]
        argv += ['--workdir', str(tmp_path / 'run'), '--progress', 'none', '--num_proposals', '10']
        cli.run(from_module(faster_rcnn), cli.parse(from_module(faster_rcnn), argv))
        (tmp_path / 'vgg.safetensors').unlink()
        model = train.load(tmp_path / 'run')
        images = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
        detections = model.predict(images)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(detections))
        black = model.predict(0 * images)
        assert any((a != b).any() for a, b in zip(detections, black, strict=True))


def test_rcnn_trains_dense_layers_on_given_convolutions():
    config = rcnn.Config(
        network='alexnet_v2', crop_size=64, hidden_dims=(8,), num_rois=4, batch_size=1,
        learning_rate=0.1,
    )  # fmt: skip
    crops = jnp.zeros((1, 64, 64, 3))
    given = rcnn.network_of(config, 2).network.init(jax.random.key(1), crops)
    spec = train.Spec((64, 96, 3), ('cat', 'dog'), {'convolutions': given})
    task = rcnn.build(config, spec)
    box = np.array([[[8, 8, 40, 40]]], np.float32)
    batch = {
        'images': np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32),
        'boxes': box, 'labels': np.ones((1, 1), np.int32), 'valid': np.ones((1, 1), bool),
        'proposals': np.concatenate([box, box + 50], 1), 'proposals_valid': np.ones((1, 2), bool),
    }  # fmt: skip
    state = task.init(jax.random.key(0), batch)
    trained, _ = task.step(state, batch, jax.random.key(2), Reduce())
    jax.tree.map(
        np.testing.assert_array_equal, trained.params['params']['network'], given['params']
    )
    before, after = (s.params['params']['layers']['fc6']['kernel'] for s in (state, trained))
    assert (before != after).any()


def test_rcnn_names_the_activations_it_has():
    spec = train.Spec((64, 96, 3), ('cat', 'dog'))
    message = 'unknown activation fc9; expected one of conv1_1, .*, conv4_2, fc, pool5'
    with pytest.raises(ValueError, match=message):
        rcnn.build(rcnn.Config(activation='fc9'), spec)
