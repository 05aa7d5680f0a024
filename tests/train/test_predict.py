"""A finished run applied to new images: files, folders, arrays; what is refused."""

import csv
import dataclasses
import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.convnets import image_classification
from experiments.detection import faster_rcnn
from lecture4 import train
from lecture4.data.detection.buckets import ScaleRule
from lecture4.data.detection.coco import read_coco
from lecture4.train import cli, experiment, inputs, predict, predict_boxes, saved_model
from lecture4.train.config import UsageError
from lecture4.vision.models import registry
from lecture4.vision.weights import pretrained, transfer
from tests.train import toy

pytestmark = pytest.mark.usefixtures('no_figures')
THIS = experiment.from_module(image_classification)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp('run')
    options = ['--preset', 'smoke', '--steps', '2', '--progress', 'none']
    config = cli.parse(THIS, [*options, '--devices', '1', '--workdir', str(directory)])
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        cli.run(THIS, config)
    return config


def predicted(config, *given, **options):
    config = dataclasses.replace(config, stage='predict', input=tuple(map(str, given)), **options)
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        path = cli.run(THIS, config)
    assert path is not None
    with path.open() as file:
        return list(csv.DictReader(file))


def digit(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_files_folders_and_arrays(run, tmp_path):
    small, large = digit(0, 8, 8), digit(1, 20, 30, 3)
    (tmp_path / 'new' / 'below').mkdir(parents=True)
    Image.fromarray(small).save(tmp_path / 'new' / 'a.png')
    Image.fromarray(large).save(tmp_path / 'new' / 'below' / 'b.JPG')
    np.savez(tmp_path / 'x.npz', x=small[None])
    rows = predicted(run, f'dir:{tmp_path}/new')
    assert [pathlib.Path(row['path']).name for row in rows] == ['a.png', 'b.JPG']
    probabilities = [float(rows[0][f'probability_{i}']) for i in range(1, 6)]
    assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    model = train.load(run.workdir)
    expected = np.asarray(model.predict(small[None, ..., None]))[0]
    assert rows[0]['class_1'] == model.spec.class_names[expected.argmax()]
    assert probabilities[0] == pytest.approx(expected.max(), abs=2e-6)
    (alone,) = predicted(run, tmp_path / 'new' / 'a.png')
    (from_array,) = predicted(run, f'npz:{tmp_path}/x.npz')
    del rows[0]['path'], alone['path'], from_array['path']
    assert alone == from_array == rows[0]


def test_unreadable_images_are_named_or_left_out(run, tmp_path):
    Image.fromarray(digit(0, 8, 8)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'none')
    with pytest.raises(UsageError, match=r'b\.png cannot be read.*--unreadable skip'):
        predicted(run, f'dir:{tmp_path}')
    assert len(predicted(run, f'dir:{tmp_path}', unreadable='skip')) == 1


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        ((), 'expected --input with image files'),
        (('missing.png',), r'--input missing\.png: no such file'),
        (('dir:/nowhere',), 'contains no image files'),
        (('/tmp',), 'is a folder; give dir:/tmp'),
        (('dir:a', 'b.png'), 'expected no other input, got 1 more'),
        (('npz:/nowhere.npz',), 'is not a file; name an .npz file'),
    ],
)
def test_wrong_inputs_are_refused(given, match):
    with pytest.raises(UsageError, match=match):
        inputs.find(given)


def test_arrays_of_other_shapes_are_refused(run, tmp_path):
    np.savez(tmp_path / 'x.npz', x=np.zeros((2, 3, 4, 5)))
    with pytest.raises(UsageError, match=r'x has the shape \(2, 3, 4, 5\); expected \[n, h, w\]'):
        inputs.find((f'npz:{tmp_path}/x.npz',))
    np.savez(tmp_path / 'x.npz', x=np.zeros((2, 3)))
    with pytest.raises(UsageError, match=r'shape \(3,\); this model takes examples of \(8, 8, 1\)'):
        predicted(run, f'npz:{tmp_path}/x.npz')


def vectors_run(tmp_path):
    """A model of vectors of 4 numbers, as the toy experiment's."""
    config = toy.Config(stage='predict', workdir=str(tmp_path), input=(f'npz:{tmp_path}/x.npz',))
    state = train.State(np.int32(1), np.arange(12, dtype=np.float32).reshape(4, 3))
    saved_model.save(tmp_path / 'model.safetensors', '', config, state, train.Spec((4,)))
    return experiment.from_module(toy), config, state.params


def test_vectors_are_encoded_and_images_flattened(tmp_path):
    this, config, params = vectors_run(tmp_path)
    x = np.random.default_rng(0).random((5, 4), np.float32)
    np.savez(tmp_path / 'x.npz', X=x)
    path = cli.run(this, config)
    with np.load(path) as codes:
        np.testing.assert_allclose(codes['codes'], x @ params, rtol=1e-5)
        assert codes['names'][1] == f'{tmp_path}/x.npz[1]'
    np.savez(tmp_path / 'x.npz', X=x.reshape(5, 2, 2))
    with np.load(cli.run(this, config)) as codes:
        np.testing.assert_allclose(codes['codes'], x @ params, rtol=1e-5)
    np.savez(tmp_path / 'x.npz', X=np.zeros((5, 3, 2)))
    with pytest.raises(UsageError, match=r'shape \(3, 2, 1\); this model takes examples of \(4,\)'):
        cli.run(this, config)


def test_models_of_no_images_are_refused(tmp_path):
    model = train.Model(toy.Config(), (), train.Spec((8, 4, 3)), {})
    with pytest.raises(UsageError, match='does not take square images'):
        predict.shape_of(model, tmp_path)


def test_all_devices_predict_the_same(run, tmp_path):
    np.savez(tmp_path / 'x.npz', x=digit(0, 5, 8, 8))
    one, four = (predicted(run, f'npz:{tmp_path}/x.npz', devices=n) for n in (1, 4))
    assert one == four and len(one) == 5


def test_weights_alone_predict_with_imagenet_names(tmp_path, monkeypatch):
    network = registry.create('resnet_18', 1000)
    shapes = pretrained.abstract_variables(network)
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    weights['params']['fc']['bias'][[3, 134]] = 5, 4
    monkeypatch.setattr(transfer, 'load_unchanged', lambda *_, **__: (network, weights))
    Image.fromarray(digit(0, 30, 40, 3)).save(tmp_path / 'a.png')
    argv = ['--network', 'resnet_18', '--init', 'resnet18.pth', '--devices', '1']
    config = cli.parse(THIS, [*argv, '--workdir', str(tmp_path / 'out'), '--progress', 'none'])
    monkeypatch.setattr(predict, 'BLOCK', 1)
    (row,) = predicted(config, tmp_path / 'a.png')
    assert (row['class_1'], row['class_2']) == ('tiger shark', 'crane bird')
    with pytest.raises(UsageError, match='give its directory as --workdir, not as --init'):
        predicted(dataclasses.replace(config, init=str(tmp_path)), tmp_path / 'a.png')


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


def test_detections_are_written_in_the_format_of_coco(tmp_path):
    shapes = {'a.png': (20, 40, 3), 'b.jpg': (90, 50)}
    for i, (name, shape) in enumerate(shapes.items()):
        Image.fromarray(digit(i, *shape)).save(tmp_path / name)
    (tmp_path / 'c.png').write_bytes(b'none')
    seen = []

    def detector(images, sizes):  # the left half of each image, as class 2
        seen.append((images.shape, sizes.tolist()))
        boxes = np.zeros((len(images), 2, 4), np.float32)
        boxes[:, 0, 2:] = sizes[:, ::-1] * [0.5, 1]
        valid = np.tile([True, False], (len(images), 1))
        scores = np.full(valid.shape, 0.75, np.float32)
        return Found(boxes, scores, np.full(valid.shape, 2), valid)

    spec = train.Spec((32, 32, 3), ('cat', 'dog'), {'scale_rule': ScaleRule(16, 64, 8)})
    config = toy.Config(progress='none')
    given = inputs.find((f'dir:{tmp_path}',))
    with pytest.raises(UsageError, match=r'c\.png cannot be read.*--unreadable skip'):
        predict_boxes.run(spec, lambda _: detector, given, config, tmp_path, skip=False)
    path = predict_boxes.run(spec, lambda _: detector, given, config, tmp_path, skip=True)
    assert seen == [((2, 64, 64, 3), [[16, 32], [29, 16]])]
    dataset = read_coco(path)
    assert dataset.class_names == ('cat', 'dog')
    np.testing.assert_allclose(dataset.boxes[0], [[0, 0, 20, 20]])
    np.testing.assert_allclose(dataset.boxes[1], [[0, 0, 25, 90]], atol=0.1)
    assert [labels.tolist() for labels in dataset.labels] == [[2], [2]]
    assert {entry['score'] for entry in json.loads(path.read_text())['annotations']} == {0.75}


def test_faster_rcnn_predicts_padded_images():
    config = faster_rcnn.Config(anchor_sizes=(20.0,), anchor_ratios=(1.0,), hidden_dims=(8,))
    spec = train.Spec((64, 64, 3), ('a', 'b'))
    batch = {'images': jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)}
    key = jax.random.key(0)
    state = jax.eval_shape(faster_rcnn.build(config, spec).init, key, batch)
    found = jax.eval_shape(
        faster_rcnn.apply(config, spec)['predict'],
        state,
        jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8),
        jax.ShapeDtypeStruct((2, 2), np.int32),
    )
    assert found.boxes.shape == (2, 50, 4)
