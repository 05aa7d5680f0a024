"""What the autoencoder experiments refuse, and the messages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.autoencoders import (
    contractive,
    deep,
    denoising,
    family,
    layered,
    linear,
    manifolds,
    maps,
    predictive,
    semantic,
    sparse,
    sparse_kl,
    stacked,
    stochastic,
    variational,
)
from lecture4.data import sources
from lecture4.train import cli, loop
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
    with pytest.raises(UsageError, match=r'npz:.* lies in \[.*, 1.5\].*\[0, 1\].*: rescale'):
        load(from_module(module), config)


@pytest.mark.parametrize(
    'module, options',
    [(deep, {}), (variational, {}), (stochastic, {}), (denoising, {}), (sparse, {'patch_size': 3})],
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
    'make, message',
    [
        (lambda: linear.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: family.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: variational.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: stochastic.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: maps.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: contractive.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: predictive.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: sparse_kl.Config(latent_dim=0), '--latent_dim is 0; it has to be at least 1'),
        (lambda: deep.Config(hidden_dims=(8, 0)), r'--hidden_dims \(entry 2\) is 0'),
        (lambda: stacked.Config(hidden_dims=(8, 0)), r'--hidden_dims \(entry 2\) is 0'),
        (lambda: manifolds.Config(hidden_dims=(8, 0)), r'--hidden_dims \(entry 2\) is 0'),
        (lambda: semantic.Config(num_bits=0), '--num_bits is 0; it has to be at least 1'),
        (lambda: layered.Config(num_filters=(8, 0, 16)), r'--num_filters \(entry 2\) is 0'),
        (lambda: layered.Config(strides=(2, 2)), r'--strides is \(2, 2\); expected 3 values'),
        (lambda: layered.Config(steps=2), '--steps is 2; expected at least 3, one per layer'),
        (lambda: sparse.Config(latent_dim=8, k=9), '--k is 9; expected at most --latent_dim 8'),
        (lambda: family.Config(latent_dim=8, k=9), '--k is 9; expected at most --latent_dim 8'),
        (lambda: family.Config(k=0), '--k is 0; it has to be at least 1'),
        (
            lambda: denoising.Config(corruption='masking', level=1.5),
            '--level is 1.5; expected at most 1 for --corruption masking',
        ),
        (lambda: denoising.Config(level=-0.1), '--level is -0.1; it has to be at least 0'),
        (lambda: denoising.Config(level=float('nan')), '--level is nan; it has to be'),
        (
            lambda: contractive.Config(mask_rate=-0.2),
            '--mask_rate is -0.2.*at least 0 and at most 1',
        ),
        (lambda: stacked.Config(mask_rate=2.0), '--mask_rate is 2.0.*at least 0 and at most 1'),
        (lambda: family.Config(mask_rate=-0.5), '--mask_rate is -0.5.*at least 0 and at most 1'),
        (lambda: semantic.Config(mask_rate=1.5), '--mask_rate is 1.5.*at least 0 and below 1'),
        (lambda: manifolds.Config(noise_std=0.0), '--noise_std is 0.0; it has to be above 0'),
        (lambda: manifolds.Config(manifold_dim=2), '--manifold_dim is 2; expected 1 on a curve'),
        (lambda: linear.Config(learning_rate=float('nan')), '--learning_rate is nan'),
        (
            lambda: deep.Config(steps=100, pretraining_steps=50),
            '--pretraining_steps is 50; expected 0 or less than steps / 3',
        ),
        (
            lambda: variational.Config(decoder='gaussian'),
            '--binarization is dynamic; expected gray with a Gaussian --decoder',
        ),
        (
            lambda: stochastic.Config(estimator='pathwise'),
            '--latent is bernoulli; expected gaussian with --estimator pathwise',
        ),
    ],
)
def test_options_outside_their_domain_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_methods_are_refused_with_the_known_ones():
    with pytest.raises((UsageError, SystemExit)):
        cli.parse(from_module(contractive), ['--methods', 'plian'])


def test_posterior_collapse_is_reported_with_the_number_of_active_units(monkeypatch):
    """An encoder that ignores its input: the run warns, and its report begins with the warning."""
    monkeypatch.setattr('lecture4.figures.latent.gallery', lambda *_, **__: {})  # not drawn
    monkeypatch.setattr(variational.latent_space, 'survey', lambda *_: {})
    monkeypatch.setattr(variational.importance_sampling, 'bound_records', lambda *_: [])
    config = variational.Config(hidden_dims=(8,), latent_dim=4)
    data = variational.data(config)
    x = jnp.asarray(data.evaluation)
    state = variational.build(config, data.spec).init(jax.random.key(0), x)
    *hidden, last = state.params.encoder
    dull = (*hidden, last._replace(weight=0 * last.weight))
    state = state._replace(params=state.params._replace(encoder=dull))
    with pytest.warns(UserWarning, match='posterior collapse: 0 of 4 latent variables are active'):
        report = variational.report(config, state, data)
    assert report.metrics['active_units'] == 0
    assert report.summary.startswith('posterior collapse: 0 of 4 latent variables')
    assert '0 of 4 units active' in report.tables[0].caption


def test_too_few_images_are_counted():
    with pytest.raises(
        ValueError, match=r'at most 1797 images in all parts, got 10000 \+ 297 \+ 49703'
    ):
        contractive.data(contractive.Config(num_train=10_000, num_test=49_703))
    with pytest.raises(
        ValueError, match='--num_train 1797 of 1797 images of digits leaves no test images'
    ):
        stacked.data(stacked.Config(num_train=1797))
    with pytest.raises(
        ValueError, match=r'--num_eval 999 of \d+ images of photos leaves no training images'
    ):
        denoising.data(denoising.Config(num_eval=999))


def test_patches_and_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='--patch_size 40 does not fit images to denoise of 32'):
        denoising.data(denoising.Config(crop_size=32, patch_size=40, num_patches=10, num_eval=1))
    with pytest.raises(ValueError, match='layer 2 does not fit its input'):
        layered.data(layered.Config(crop_size=16))
