"""Spatial transformers' experiment: what a trained network offers, sums of digits, published numbers, mistakes."""

import jax
import numpy as np
import pytest

from experiments.convnets import spatial_transformer as job
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import from_module
from lecture4.vision.models import distorted_digits

EXPERIMENT = from_module(job)


@pytest.fixture(scope='module')
def sums():
    """A network with two transformers for sums of tiny digits, before training."""
    config = job.Config(
        networks=('2xST-FCN-affine',), addition=True, distortion='none', image_size=8, num_params=12_000,
        num_train=32, num_test=20, batch_size=8,
    )  # fmt: skip
    data = job.data(config)
    batch = data.prepare(data.device_arrays, data.batch(0), jax.random.key(0))
    state = jax.jit(job.build(config, data.spec).init)(jax.random.key(0), batch)
    return config, data, batch, state


def test_sums_are_predicted_from_two_channels(sums):
    config, data, batch, state = sums
    assert data.spec.shape == (8, 8, 2) and data.spec.num_classes == 19
    functions = job.apply(config, data.spec)
    probs = jax.jit(functions['predict'])(state, batch['images'])
    np.testing.assert_allclose(np.sum(probs, axis=1), 1, rtol=1e-5)
    assert probs.shape == (8, 19)
    warped = jax.jit(functions['warp'])(state, batch['images'])
    both = np.concatenate([batch['images']] * 2, axis=-1)
    np.testing.assert_allclose(warped, both, atol=1e-5)  # before training: the identity, twice


def test_raw_uint8_images_are_understood(sums):
    config, data, batch, state = sums
    predict = jax.jit(job.apply(config, data.spec)['predict'])
    raw = np.round(255 * np.asarray(batch['images'])).astype(np.uint8)
    unit = raw.astype(np.float32) / 255
    np.testing.assert_allclose(predict(state, raw), predict(state, unit), rtol=1e-4)


def test_history_has_the_attention_of_every_frame(sums):
    _, data, _, state = sums
    logits, theta, warped = state.history
    n = len(data.spec.constants['examples'])
    assert theta.shape == (job.NUM_FRAMES, n, 2, 6) and logits.shape == (job.NUM_FRAMES, n, 19)
    assert warped.shape == (job.NUM_FRAMES, n, 8, 8, 4)


def test_sweep_of_table_1_covers_the_published_table():
    variants = EXPERIMENT.sweeps['table_1']
    names = {(name, v['distortion']) for v in variants for name in v['networks']}
    assert names == {(n, d) for d in ('R', 'RTS', 'P', 'E') for n in distorted_digits.TABLE_1}
    assert all(distorted_digits.PUBLISHED[d][n] < 0.06 for n, d in names)


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--networks', 'ST-CNN'], '--networks ST-CNN: expected one of FCN, CNN'),
        (['--num_params', '100'], r'FCN for images of .* has at least .* got num_params 100; allow more'),
        (['--distortion', 'X'], '--distortion X: expected one of none, R'),
        (['--localization_lr_multiplier', '0'], 'localization_lr_multiplier is 0.0; it has to be above 0'),
        (['--source', 'gtsrb', '--manual_dir', '/nonexistent'], 'is not a folder'),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(argv, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        config = cli.parse(EXPERIMENT, ['--workdir', str(tmp_path / 'run'), *argv])
        cli.run(EXPERIMENT, config)
    assert not (tmp_path / 'run' / 'results.json').exists()
