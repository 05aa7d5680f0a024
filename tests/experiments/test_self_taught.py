"""The main job from its command line: mistakes are one line, and what it finds is worth showing."""

import json

import numpy as np
import pytest

from experiments.sparse_coding import self_taught as job
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment

EXPERIMENT = Experiment(job.Config, job.data, job.build, job.report, job.PRESETS, job.SWEEPS)
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
    spoiled = images.copy()
    spoiled[3, 2, 2] = np.nan
    np.savez(folder / 'nan.npz', images=spoiled, labels=labels)
    np.savez(folder / 'channels_first.npz', images=images[:, None].repeat(4, 1), labels=labels)
    np.savez(folder / 'small.npz', images=images[:, :4, :4], labels=labels)
    np.savez(folder / 'one_class.npz', images=images, labels=0 * labels)
    return folder


@pytest.mark.parametrize(
    'argv, told',
    [
        (['--weight', '0'], '--weight is 0.0; it has to be above 0'),
        (['--atoms', '0'], '--atoms is 0; it has to be at least 1'),
        (['--labels', '0'], 'it has to be one or more numbers, each >= 1'),
        (['--labels', '500'], r'--labels 500, but textures has a class of \d+ .* use at most'),
        (['--preset', 'smoek'], "unknown preset 'smoek'; did you mean smoke?"),
        (['--labelled', 'mnst'], "unknown data set 'mnst'; did you mean mnist?"),
        (['--labelled', 'mnist', '--data_dir', '{}/none'], 'run again with --download'),
        (['--labelled', 'photos'], 'photos has no labels'),
        (['--patch', '99'], '--patch 99 does not fit pictures of 32 x 32; use 1 to 32'),
        (['--unlabelled', 'npz:{}/nan.npz'], '1 of 20 images hold NaN .* number 3'),
        (['--unlabelled', 'npz:{}/channels_first.npz'], 'wanted .* 1 or 3 channels'),
        (['--unlabelled', 'npz:{}/small.npz'], 'has no crop of 8 x 8; take a smaller crop'),
        (['--labelled', 'npz:{}/small.npz'], 'has no crop of 32 x 32'),
        (['--labelled', 'npz:{}/one_class.npz', '--crop', '8'], 'two classes'),
    ],
)
def test_mistakes_are_one_line_and_touch_nothing(argv, told, arrays, tmp_path, monkeypatch):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    with pytest.raises(UsageError, match=told) as error:
        run(tmp_path / 'run', *(word.format(arrays) for word in argv))
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('encoder', ['threshold', pytest.param('sparse', marks=pytest.mark.slow)])
def test_coloured_patches_over_quadrants_by_either_encoder(encoder, tmp_path):
    """The preset cifar10 on pictures of its kind: one class has red halves left, the other right."""
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
        f'--preset cifar10 --unlabelled {source} --labelled {source} --encoder {encoder} '
        '--steps 20 --batch_size 64 --atoms 16 --signals 1000 --labels 4 --draws 2 --progress none'
    )
    config = cli.parse(EXPERIMENT, [*words.split(), '--workdir', str(tmp_path / 'run')])
    cli.run(EXPERIMENT, config)
    found = json.loads((tmp_path / 'run' / 'results.json').read_text())['metrics']
    # Where the colour varies is what quadrants tell, and pixels by themselves do not.
    assert found['accuracy_sparse_codes_whole'] >= 0.9
    assert found['accuracy_sparse_codes_whole'] > found['accuracy_raw_pixels_whole']


@pytest.mark.slow
def test_sparse_codes_beat_raw_pixels_and_components(tmp_path):
    config = cli.parse(EXPERIMENT, ['--progress', 'none', '--workdir', str(tmp_path)])
    cli.run(EXPERIMENT, config)
    found = json.loads((tmp_path / 'results.json').read_text())['metrics']
    # What a prototype of the same method reached.
    least = {1: 0.78, 2: 0.93, 5: 0.99, 20: 0.997}
    for n, bound in least.items():
        codes = found[f'accuracy_sparse_codes_{n}']
        assert codes >= bound
        assert codes > found[f'accuracy_PCA_{n}'] > found[f'accuracy_raw_pixels_{n}']
