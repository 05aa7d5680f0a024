"""What the autoencoder experiments refuse, and the messages."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.autoencoders import (
    contractive,
    deep,
    family,
    linear,
    manifolds,
    maps,
    predictive,
    sparse,
    sparse_kl,
    stacked,
    stochastic,
    variational,
)
from lecture4.data import sources
from lecture4.train import loop
from lecture4.train.config import UsageError
from lecture4.train.distributed.runtime import Runtime
from lecture4.train.experiment import from_module, load
from lecture4.train.step import bind


def pixels(tmp_path, value, splits=('train', 'test')):
    """An .npz data set with one pixel of that value in those splits."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (('train', 40), ('test', 20)):
        images = rng.uniform(size=(n, 6, 6, 1)).astype(np.float32)
        if split in splits:
            images[3, 2, 2] = value
        arrays[f'{split}_images'], arrays[f'{split}_labels'] = images, np.arange(n) % 2
    path = tmp_path / 'set.npz'
    np.savez(path, **arrays)
    return f'npz:{path}'


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize(
    'module, options',
    [
        (deep, {}),
        (family, {}),
        (contractive, {'num_train': 20, 'num_valid': 10, 'num_test': 30}),
        (stacked, {'num_train': 20}),
        (maps, {'num_shown': 12}),
        (stochastic, {}),
        (variational, {}),
        (variational, {'binarization': 'gray'}),
    ],
)
def test_pixels_outside_the_unit_interval_stop_a_bernoulli_decoder(
    tmp_path, module, options, split
):
    config = module.Config(source=pixels(tmp_path, 1.5, (split,)), **options)
    with pytest.raises(UsageError, match=r'1\.5.*\[0, 1\]'):
        load(from_module(module), config)


@pytest.mark.parametrize(
    'module, options',
    [(deep, {}), (variational, {}), (stochastic, {}), (sparse, {'patch_size': 3})],
)
def test_not_a_number_in_the_data_is_refused_with_its_image(tmp_path, module, options):
    with pytest.raises(sources.DataError, match='index 3'):
        module.data(module.Config(source=pixels(tmp_path, np.nan), **options))


def test_not_a_number_in_a_batch_stops_the_run_with_its_step(tmp_path):
    config = linear.Config(steps=3, batch_size=16, progress='none', cache_dir='none', devices=1)
    data = linear.data(config)
    arrays = np.array(data.device_arrays)
    arrays[data.batch(1)[0]] = np.nan
    data = dataclasses.replace(data, device_arrays=arrays)
    runtime = Runtime(Mesh(np.array(jax.devices()[:1]), ('data',)))
    with pytest.raises(loop.Diverged, match='loss is nan at step 2'):
        loop.run(bind(linear.build(config, data.spec), data, 0), config, runtime, tmp_path)


@pytest.mark.parametrize(
    'module, field, value',
    [
        *((m, 'latent_dim', 0) for m in (linear, family, variational, stochastic, maps)),
        *((m, 'latent_dim', 0) for m in (contractive, predictive, sparse_kl)),
        *((m, 'hidden_dims', (8, 0)) for m in (deep, stacked, manifolds)),
        *((m, 'mask_rate', 2.0) for m in (contractive, stacked, family)),
        (family, 'k', 0),
        (manifolds, 'noise_std', 0.0),
        (linear, 'learning_rate', float('nan')),
    ],
)
def test_options_outside_their_domain_are_named(module, field, value):
    with pytest.raises(ValueError, match=rf'--{field} .*it has to be'):
        module.Config(**{field: value})


def test_pretraining_has_to_leave_steps_for_all_layers():
    with pytest.raises(ValueError, match='--pretraining_steps is 50'):
        deep.Config(steps=100, pretraining_steps=50)


def test_too_few_images_are_counted():
    with pytest.raises(ValueError, match='1797'):
        contractive.data(contractive.Config(num_train=10_000, num_test=49_703))
    with pytest.raises(ValueError, match='leaves none to test'):
        stacked.data(stacked.Config(num_train=1797))
