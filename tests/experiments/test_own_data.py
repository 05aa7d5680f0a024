"""Every experiment on images takes own data: one size, held-out images, rows, files that cannot be read."""

import importlib

import numpy as np
import pytest

from experiments.__main__ import listed
from lecture4.train import cli, experiment
from lecture4.train.config import UsageError

SQUARE = (
    'autoencoders.contractive',
    'autoencoders.deep',
    'autoencoders.family',
    'autoencoders.latent_spaces',
    'autoencoders.linear',
    'autoencoders.manifolds',
    'autoencoders.maps',
    'autoencoders.stacked',
    'autoencoders.stochastic',
    'autoencoders.variational',
    'convnets.resnet_cifar',
    'convnets.small_network',
    'convnets.spatial_transformer',
    'convnets.image_classification',
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
    'spatial_transformer': ['--num_train', '0', '--num_test', '0'],
}


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """Rows of 10 x 12 pixels, two classes, without a test split."""
    path = tmp_path_factory.mktemp('own') / 'own.npz'
    rng = np.random.default_rng(0)
    np.savez(path, X=rng.integers(0, 256, (80, 120), np.uint8), y=np.arange(80) % 2)
    return f'npz:{path}'


@pytest.mark.parametrize('name', SQUARE)
def test_rows_of_own_images_are_loaded(name, rows):
    this = experiment.from_module(importlib.import_module(f'experiments.{name}'))
    argv = ['--preset', 'smoke', '--source', rows, '--image_shape', '10', '12']
    argv += ['--image_size', '8', '--held_out', '0.25', *FEW.get(this.name, [])]
    data = experiment.load(this, cli.parse(this, argv))
    assert 64 in (np.prod(data.spec.shape), np.prod(data.spec.shape[:2])) or this.name in (
        'spatial_transformer',  # a larger canvas
        'small_network',  # a margin
    )


@pytest.mark.parametrize('name', sorted(set(listed()) - set(NO_IMAGE_FILES)))
def test_unreadable_files_can_be_skipped_everywhere(name):
    this = experiment.from_module(importlib.import_module(name))
    config = cli.parse(this, ['--unreadable', 'skip'])
    assert config.data_kwargs()['unreadable'] == 'skip'


def test_what_is_missing_is_named_by_its_option(rows):
    this = experiment.from_module(importlib.import_module('experiments.autoencoders.variational'))
    for argv, match in (
        ([], '--image_shape H W'),
        (['--image_shape', '10', '12'], '--held_out 0.1'),
    ):
        with pytest.raises(UsageError, match=match):
            experiment.load(this, cli.parse(this, ['--source', rows, *argv]))
