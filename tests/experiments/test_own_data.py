"""Every experiment on images takes own data: one size, held-out images, rows, files that cannot be read."""

import dataclasses
import importlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import listed
from lecture4 import train
from lecture4.train import cli, experiment
from lecture4.train.config import UsageError

SQUARE = (
    'autoencoders.contractive',
    'autoencoders.deep',
    'autoencoders.deep_or_wide',
    'autoencoders.family',
    'autoencoders.latent_spaces',
    'autoencoders.linear',
    'autoencoders.manifolds',
    'autoencoders.maps',
    'autoencoders.stacked',
    'autoencoders.stochastic',
    'autoencoders.variational',
    'convnets.activations',
    'convnets.dropout',
    'convnets.first_layer',
    'convnets.pooling',
    'convnets.resnet_cifar',
    'convnets.small_network',
    'convnets.spatial_transformer',
    'convnets.image_classification',
    'convnets.feature_visualization',
    'sparse_coding.learning_settings',
)
# Experiments on sentences, and on images with sentences.
NO_IMAGE_FILES = (
    'experiments.autoencoders.semantic',
    'experiments.convnets.sentence_classification',
    'experiments.descriptions.alignment',
    'experiments.descriptions.captions',
)
# Options without which 60 images are too few for an experiment's smoke preset.
FEW = {
    'contractive': ['--num_train', '40', '--num_valid', '8', '--num_test', '8'],
    'stacked': ['--num_train', '40', '--num_test', '10'],
    'first_layer': ['--crop_size', '0'],
    'spatial_transformer': ['--num_train', '0', '--num_test', '0'],
    'feature_visualization': ['--image_size', '48'],
    'learning_settings': ['--classes', '0', '1', '--other_classes', '2', '3'],
}


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """Rows of 10 x 12 pixels, four classes, without a test split."""
    path = tmp_path_factory.mktemp('own') / 'own.npz'
    rng = np.random.default_rng(0)
    np.savez(path, X=rng.integers(0, 256, (80, 120), np.uint8), y=np.arange(80) % 4)
    return f'npz:{path}'


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', SQUARE[::-1])
def test_rows_of_own_images_are_loaded(name, rows):
    this = experiment.from_module(importlib.import_module(f'experiments.{name}'))
    argv = ['--preset', 'smoke', '--source', rows, '--image_shape', '10', '12']
    argv += ['--image_size', '8', '--held_out', '0.25', *FEW.get(this.name, [])]
    data = experiment.load(this, cli.parse(this, argv))
    assert 64 in (np.prod(data.spec.shape), np.prod(data.spec.shape[:2])) or this.name in (
        'spatial_transformer',  # a larger canvas
        'small_network',  # a margin
        'pooling',  # likewise
        'feature_visualization',  # deep for 8 x 8 pixels
    )


@pytest.mark.parametrize('name', sorted(set(listed()) - set(NO_IMAGE_FILES)))
def test_unreadable_files_can_be_skipped_everywhere(name):
    config_type = importlib.import_module(name).Config
    if {'source', 'unlabeled', 'labeled'} & {f.name for f in dataclasses.fields(config_type)}:
        assert config_type(unreadable='skip').data_kwargs()['unreadable'] == 'skip'


@pytest.mark.slow
def test_a_variational_autoencoder_of_own_photographs_samples_images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'own').mkdir()
    for i in range(120):
        pixels = rng.integers(0, 256, (9 + i % 3, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'own/{i}.png')
    (tmp_path / 'own/none.jpg').write_bytes(b'none')
    this = experiment.from_module(importlib.import_module('experiments.autoencoders.variational'))
    argv = ['--preset', 'smoke', '--source', f'dir:{tmp_path}/own', '--workdir', f'{tmp_path}/run']
    argv += ['--image_size', '8', '--held_out', '0.1', '--unreadable', 'skip', '--devices', '1']
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        cli.run(this, cli.parse(this, [*argv, '--progress', 'none']))
        model = train.load(tmp_path / 'run')
        samples = np.asarray(model.sample(jax.random.key(0), 5))
    assert samples.shape == (5, 8, 8, 1) and 0 <= samples.min() < samples.max() <= 1


def test_what_is_missing_is_named_by_its_option(rows):
    this = experiment.from_module(importlib.import_module('experiments.autoencoders.variational'))
    for argv, match in (
        ([], '--image_shape H W'),
        (['--image_shape', '10', '12'], '--held_out 0.1'),
    ):
        with pytest.raises(UsageError, match=match):
            experiment.load(this, cli.parse(this, ['--source', rows, *argv]))


@pytest.mark.parametrize('name', SQUARE)
def test_messages_name_options_of_the_experiment(name, rows):
    this = experiment.from_module(importlib.import_module(f'experiments.{name}'))
    for argv in ([], ['--image_shape', '10', '12']):
        with pytest.raises(UsageError) as raised:
            argv = ['--preset', 'smoke', '--source', rows, *argv, *FEW.get(this.name, [])]
            experiment.load(this, cli.parse(this, argv))
        named = re.findall(r'--(\w+)', str(raised.value))
        assert named and set(named) <= {field.name for field in dataclasses.fields(this.config)}
