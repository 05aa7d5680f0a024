"""Detectors on convolutions that are not trained: their models need no other file."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments.detection import faster_rcnn
from lecture4 import train
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
