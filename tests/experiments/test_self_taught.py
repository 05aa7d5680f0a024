"""The main experiment from its command line: errors are one line, sparse codes beat pixels and PCA."""

import json

import numpy as np
import pytest

from experiments.sparse_coding import self_taught as job
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import from_module

EXPERIMENT = from_module(job)
QUICK = ('--preset', 'smoke', '--progress', 'none')


def run(directory, *argv):
    config = cli.parse(EXPERIMENT, [*QUICK, '--workdir', str(directory), *argv])
    return cli.run(EXPERIMENT, config)


@pytest.fixture(scope='module')
def arrays(tmp_path_factory):
    """Sets that cannot be used, by name."""
    folder = tmp_path_factory.mktemp('arrays')
    images = np.random.default_rng(0).random((20, 16, 16)).astype(np.float32)
    labels = np.arange(20) % 2
    damaged = images.copy()
    damaged[3, 2, 2] = np.nan
    np.savez(folder / 'nan.npz', images=damaged, labels=labels)
    np.savez(folder / 'channels_first.npz', images=images[:, None].repeat(4, 1), labels=labels)
    np.savez(folder / 'small.npz', images=images[:, :4, :4], labels=labels)
    np.savez(folder / 'one_class.npz', images=images, labels=0 * labels)
    return folder


@pytest.mark.parametrize(
    'argv, message',
    [
        (['--l1_penalty', '0'], '--l1_penalty is 0.0; it has to be above 0'),
        (['--num_atoms', '0'], '--num_atoms is 0; it has to be at least 1'),
        (['--labels_per_class', '0'], 'it has to be at least 1'),
        (
            ['--labels_per_class', '500'],
            r'--labels_per_class 500, but textures has a class of \d+ .* use at most',
        ),
        (['--preset', 'smoek'], "unknown preset 'smoek'; did you mean smoke?"),
        (['--labeled', 'mnst'], "unknown data set 'mnst'; did you mean mnist?"),
        (['--labeled', 'mnist', '--data_dir', '{}/none'], 'run again with --download'),
        (['--labeled', 'photos'], 'photos has no labels'),
        (['--patch_size', '99'], '--patch_size 99 does not fit images of 32 x 32; use 1 to 32'),
        (['--unlabeled', 'npz:{}/nan.npz'], '1 of 20 images contain NaN .* index 3'),
        (['--unlabeled', 'npz:{}/channels_first.npz'], '1 or 3 channels'),
        (['--unlabeled', 'npz:{}/small.npz'], 'has no crop of 8 x 8; take a smaller crop'),
        (['--labeled', 'npz:{}/small.npz'], 'has no crop of 32 x 32'),
        (['--labeled', 'npz:{}/one_class.npz', '--crop_size', '8'], 'needs two or more'),
    ],
)
def test_mistakes_are_one_line_and_touch_nothing(argv, message, arrays, tmp_path, monkeypatch):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    with pytest.raises(UsageError, match=message) as error:
        run(tmp_path / 'run', *(word.format(arrays) for word in argv))
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize('encoder', ['threshold', pytest.param('sparse', marks=pytest.mark.slow)])
def test_color_patches_over_quadrants_by_either_encoder(encoder, tmp_path):
    """The preset cifar10 on images of its kind: one class has red halves left, the other right."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = 0.5 + 0.1 * rng.standard_normal((40, 16, 16, 3))
    for image, label in zip(images, labels, strict=True):
        image[:, 8 * label : 8 * label + 8, 0] += 0.5 * rng.standard_normal((16, 8))
    images = images.clip(0, 1).astype(np.float32)
    source = f'npz:{tmp_path}/set.npz'
    split = {'test_images': images[30:], 'test_labels': labels[30:]}
    np.savez(tmp_path / 'set.npz', images=images[:30], labels=labels[:30], **split)
    words = (
        f'--preset cifar10 --unlabeled {source} --labeled {source} --encoder {encoder} '
        '--steps 20 --batch_size 64 --num_atoms 16 --num_signals 1000 '
        '--labels_per_class 4 --num_trials 2 --progress none'
    )
    config = cli.parse(EXPERIMENT, [*words.split(), '--workdir', str(tmp_path / 'run')])
    cli.run(EXPERIMENT, config)
    metrics = json.loads((tmp_path / 'run' / 'results.json').read_text())['metrics']
    # Where the color varies is visible in quadrants, and not in single pixels.
    assert metrics['full_data_accuracy/sparse_codes'] >= 0.9
    assert metrics['full_data_accuracy/sparse_codes'] > metrics['full_data_accuracy/raw_pixels']


@pytest.mark.slow
def test_sparse_codes_beat_raw_pixels_and_components(tmp_path):
    config = cli.parse(EXPERIMENT, ['--progress', 'none', '--workdir', str(tmp_path)])
    cli.run(EXPERIMENT, config)
    metrics = json.loads((tmp_path / 'results.json').read_text())['metrics']
    # What a prototype of the same method reached.
    least = {1: 0.78, 2: 0.93, 5: 0.99, 20: 0.997}
    for n, bound in least.items():
        codes = metrics[f'accuracy/sparse_codes/{n}']
        assert codes >= bound
        assert codes > metrics[f'accuracy/PCA/{n}'] > metrics[f'accuracy/raw_pixels/{n}']
