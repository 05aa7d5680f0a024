"""A finished run applied to new images: files, folders, arrays; what is refused."""

import csv
import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.convnets import image_classification
from lecture4 import train
from lecture4.train import cli, experiment, predict
from lecture4.train.config import UsageError
from tests.train import toy

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
        (('dir:a', 'b.png'), 'expected no other input, got 1 more'),
        (('npz:/nowhere.npz',), 'No such file'),
    ],
)
def test_wrong_inputs_are_refused(given, match):
    with pytest.raises(UsageError, match=match):
        predict.find(given)


def test_array_of_another_shape_is_refused(tmp_path):
    np.savez(tmp_path / 'x.npz', x=np.zeros((2, 3)))
    with pytest.raises(UsageError, match=r'x has the shape \(2, 3\); expected \[n, h, w\]'):
        predict.find((f'npz:{tmp_path}/x.npz',))


def test_models_of_no_images_are_refused(tmp_path):
    model = train.Model(toy.Config(), (), train.Spec((8,)), {})
    with pytest.raises(UsageError, match='does not take square images'):
        predict.shape_of(model, tmp_path)
