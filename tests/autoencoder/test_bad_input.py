"""What the experiments of the family refuse, and in which words."""

import dataclasses

import jax
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
from lecture4.train import loop
from lecture4.train.config import UsageError
from lecture4.train.distributed.runtime import Runtime
from lecture4.train.experiment import Experiment, load
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
        (contractive, {'train_examples': 20, 'valid_examples': 10, 'test_examples': 30}),
        (stacked, {'train_examples': 20}),
        (maps, {'shown': 12}),
        (stochastic, {}),
        (variational, {}),
        (variational, {'binarisation': 'grey'}),
    ],
)
def test_pixels_outside_the_unit_interval_stop_a_bernoulli_decoder(
    tmp_path, module, options, split
):
    config = module.Config(source=pixels(tmp_path, 1.5, (split,)), **options)
    experiment = Experiment(module.Config, module.data, module.build, module.report, {}, {})
    with pytest.raises(UsageError, match=r'npz:.* lies in \[.*, 1.5\].*\[0, 1\].*: rescale'):
        load(experiment, config)


@pytest.mark.parametrize(
    'module, options',
    [(deep, {}), (variational, {}), (stochastic, {}), (denoising, {}), (sparse, {'patch': 3})],
)
def test_not_a_number_in_the_data_is_refused_with_its_picture(tmp_path, module, options):
    with pytest.raises(sources.DataError, match='number 3'):
        module.data(module.Config(source=pixels(tmp_path, np.nan), **options))


def test_not_a_number_in_a_batch_stops_the_run_with_its_step(tmp_path):
    config = linear.Config(steps=3, batch_size=16, progress='none', cache_dir='none', devices=1)
    data = linear.data(config)
    resident = np.array(data.resident)
    resident[data.batch(1)[0]] = np.nan
    data = dataclasses.replace(data, resident=resident)
    runtime = Runtime(Mesh(np.array(jax.devices()[:1]), ('data',)))
    with pytest.raises(loop.Diverged, match='loss is nan at step 2'):
        loop.run(bind(linear.build(config), data, 0), config, runtime, tmp_path)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: linear.Config(code=0), '--code is 0; it has to be at least 1'),
        (lambda: family.Config(width=0), '--width is 0'),
        (lambda: deep.Config(widths=(8, 0)), r'--widths is \(8, 0\)'),
        (lambda: variational.Config(width=0), '--width is 0; it has to be at least 1'),
        (lambda: stochastic.Config(width=0), '--width is 0; it has to be at least 1'),
        (lambda: maps.Config(code=0), '--code is 0; it has to be at least 1'),
        (lambda: contractive.Config(width=0), '--width is 0; it has to be at least 1'),
        (lambda: stacked.Config(widths=(8, 0)), r'--widths is \(8, 0\)'),
        (lambda: manifolds.Config(hidden=(8, 0)), r'--hidden is \(8, 0\)'),
        (lambda: semantic.Config(bits=0), '--bits is 0; it has to be at least 1'),
        (lambda: predictive.Config(width=0), '--width is 0; it has to be at least 1'),
        (lambda: layered.Config(maps=(8, 0, 16)), r'--maps is \(8, 0, 16\)'),
        (lambda: sparse_kl.Config(width=0), '--width is 0; it has to be at least 1'),
        (lambda: sparse.Config(width=8, k=9), '--k is 9; it has to be between 1 and --width 8'),
        (lambda: family.Config(k=0), '--k is 0'),
        (lambda: denoising.Config(corruption='masking', level=1.5), '--level is 1.5.*0 and 1'),
        (lambda: denoising.Config(level=-0.1), '--level is -0.1; it has to be at least 0'),
        (lambda: contractive.Config(masking=-0.2), '--masking is -0.2.*between 0 and 1'),
        (lambda: contractive.Config(methods=('plian',)), '--methods.*some of random, plain'),
        (lambda: stacked.Config(masking=2.0), '--masking is 2.0'),
        (lambda: family.Config(masking=-0.5), '--masking is -0.5.*between 0 and 1'),
        (lambda: semantic.Config(masking=1.5), '--masking is 1.5.*at least 0 and below 1'),
        (lambda: manifolds.Config(noise=0.0), '--noise is 0.0; it has to be positive'),
        (lambda: denoising.Config(level=float('nan')), '--level is nan'),
        (lambda: deep.Config(steps=100, pretraining=50), '--pretraining is 50'),
    ],
)
def test_options_outside_their_domain_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_posterior_collapse_is_reported_with_the_number_of_active_units(monkeypatch):
    """An encoder that ignores its input: the run warns, and its report begins with the warning."""
    monkeypatch.setattr(variational, 'drawn', lambda *_: {})  # pictures are not looked at
    config = variational.Config(hidden=(8,), width=4, importance=(1,))
    data = variational.data(config)
    state = variational.build(config).init(jax.random.key(0), data.evaluation)
    params = state.trained.params
    *hidden, last = params.encoder
    dull = (*hidden, last._replace(weight=0 * last.weight))
    trained = state.trained._replace(params=params._replace(encoder=dull))
    with pytest.warns(UserWarning, match='posterior collapse: 0 of 4 latent variables are active'):
        found = variational.report(config, state._replace(trained=trained), data)
    assert found.metrics['active_units'] == 0
    assert found.summary.startswith('posterior collapse: 0 of 4 latent variables')
    assert '0 of 4 units active' in found.tables[0].caption


def test_too_few_pictures_are_counted():
    with pytest.raises(
        ValueError, match=r'10000 \+ 297 \+ 49703 pictures are wanted, and there are 1797'
    ):
        contractive.data(contractive.Config(train_examples=10_000, test_examples=49_703))
    with pytest.raises(ValueError, match='leaves none to test on'):
        stacked.data(stacked.Config(train_examples=1797))
