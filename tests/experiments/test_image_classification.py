"""The experiment with a tiny network in the place of the classic ones; mistakes on its command line."""

import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from experiments.convnets import image_classification as job
from lecture4.data import images as image_data
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment
from lecture4.vision import layers, multi_crop
from lecture4.vision.models import registry
from lecture4.vision.weights import transfer

EXPERIMENT = Experiment(job.Config, job.data, job.build, job.report, job.PRESETS, job.SWEEPS)
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


class Tiny(nn.Module):
    """One convolution and the mean over its map: takes pictures of any size from 3 x 3."""

    n_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(self, x, *, train=False):
        layers.check_images(x, 3, 'Tiny')
        x = layers.conv(4, 3, name='conv1')(x)
        x = jnp.maximum(x, 0).mean((1, 2))
        return nn.Dense(self.n_classes, name='fc')(x), {'x': x}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(registry.NETWORKS, 'tiny', Tiny)


@pytest.fixture
def source(tmp_path):
    """Four classes of 12 x 12, unequally frequent."""
    labels = np.repeat([0, 1, 2, 3], [40, 40, 10, 10])
    images = RNG.integers(0, 256, (110, 12, 12, 3), np.uint8)
    np.savez(
        tmp_path / 'set.npz', x_train=images[:100], y_train=labels,
        x_test=images[100:], y_test=np.arange(10) % 4,
    )  # fmt: skip
    return f'npz:{tmp_path}/set.npz'


def configured(source, **options):
    given = {
        'network': 'tiny',
        'source': source,
        'side': 0,
        'cut': False,
        'crop': 8,
        'batch_size': 8,
    }
    return job.Config(**{**given, **options})


def test_balanced_batches_hold_all_classes_equally_often(source):
    for balanced, counts in ((True, [20, 20, 20, 20]), (False, [32, 32, 8, 8])):
        data = job.data(configured(source, class_balanced=balanced))
        rows = np.concatenate([data.batch(n)['rows'] for n in range(10)])
        drawn = np.bincount(data.resident['kept']['labels'][rows], minlength=4)
        assert abs(drawn - counts).max() <= 8


def test_pictures_on_the_device_and_from_the_host_make_the_same_batches(source):
    made = []
    for stored in ('devices', 'host'):
        data = job.data(configured(source, stored=stored, colour_noise=0.1, colour_jitter=0.2))
        made.append(jax.jit(data.prepare)(data.resident, data.batch(3), KEY))
    assert made[0]['images'].shape == (8, 8, 8, 3)
    jax.tree.map(np.testing.assert_array_equal, *made)


def test_the_average_of_the_second_half_is_what_is_tested(source):
    config = configured(source, steps=6, average_from=0.5, learning_rate=0.1, bias_rate=2.0)
    data, task = job.data(config), job.build(config)
    step, prepare, passed = jax.jit(task.step), jax.jit(data.prepare), []
    state = jax.jit(task.init)(KEY, prepare(data.resident, data.batch(0), KEY))
    for n in range(6):
        state, _ = step(state, prepare(data.resident, data.batch(n), KEY), KEY)
        passed.append(state.variables)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *passed[3:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.mean, mean)
    evaluate = jax.jit(task.evaluate)
    averaged = evaluate(state._replace(variables=passed[0]), data.evaluation)['loss']
    plain = evaluate(state._replace(variables=state.mean, mean={}), data.evaluation)['loss']
    np.testing.assert_allclose(averaged, plain, rtol=1e-5)


def test_given_weights_are_taken_over_and_a_new_head_started(source, monkeypatch):
    given = Tiny(4).init(jax.random.key(5), jnp.zeros((1, 8, 8, 3)))
    given['params']['fc'] = {'kernel': None, 'bias': None}
    asked = {}
    monkeypatch.setattr(transfer, 'load', lambda network, path, new_head: asked.update(
        path=path, n=network.n_classes, new=new_head) or given)  # fmt: skip
    config = configured(source, init='w.pth', new_head=True)
    data, task = job.data(config), job.build(config)
    assert asked == {'path': 'w.pth', 'n': 4, 'new': True}
    np.testing.assert_allclose(data.extra['scale'].mean.ravel(), [0.485, 0.456, 0.406], rtol=1e-6)
    batch = jax.jit(data.prepare)(data.resident, data.batch(0), KEY)
    state = jax.jit(task.init)(KEY, batch)
    params = state.variables['params']
    np.testing.assert_array_equal(params['conv1']['kernel'], given['params']['conv1']['kernel'])
    assert params['fc']['kernel'].shape == (4, 4) and abs(params['fc']['kernel']).min() > 0


def test_runs_by_many_looks_and_an_ensemble_of_them(source, tmp_path, capsys):
    common = ['--network', 'tiny', '--source', source, '--side', '0', '--no_cut', '--crop', '8']
    common += ['--steps', '2', '--batch_size', '8', '--cache_dir', 'none', '--progress', 'none']

    def run(name, *options):
        argv = [*common, '--workdir', str(tmp_path / name), *options]
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
        return json.loads((tmp_path / name / 'results.json').read_text())['tables'][0]['records']

    alone = run('a', '--views', 'center', '--seed', '1')
    rows = run('b', '--views', '10', 'center', 'dense', '--ensemble', str(tmp_path / 'a'))
    by = {(row['views'], row['network']): row['first answer'] for row in rows}
    assert len(rows) == 9 and by['center', str(tmp_path / 'a')] == alone[0]['first answer']
    assert {name for _, name in by} == {'this network', str(tmp_path / 'a'), 'mean of all'}
    assert (tmp_path / 'b/figures/worst.png').exists()
    assert 'of 10 test pictures of 4 classes' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('preset', ['alexnet', 'zfnet', 'vgg', 'googlenet', 'resnet'])
def test_the_papers_recipes_fit_together(preset, monkeypatch):
    """By shapes alone: the preset's squares, crops, network, step, evaluation and looks."""
    side = job.PRESETS[preset]['side']
    images, labels = np.zeros((4, side, side, 3), np.uint8), np.arange(4, dtype=np.int32)
    names = tuple(map(str, range(4)))
    task = image_data.ImageTask(images, labels, images, labels, names)
    monkeypatch.setattr(image_data, 'load', lambda *_, **__: task)
    config = job.Config(**{**job.PRESETS[preset], 'batch_size': 2})
    data, made = job.data(config), job.build(config)
    batch = jax.eval_shape(data.prepare, data.resident, data.batch(0), KEY)
    state = jax.eval_shape(made.init, KEY, batch)
    new, metrics = jax.eval_shape(made.step, state, batch, KEY)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {'loss', 'accuracy'}
    assert set(jax.eval_shape(made.evaluate, state, data.evaluation)) == {'loss', 'accuracy'}
    for kind in config.views:
        plan = multi_crop.plan_for(
            kind, (side, side), data.extra['crop'], job.scales_of(config, kind)
        )
        assert plan is None or plan.n_crops == (1 if kind == 'center' else int(kind))

    def dense(variables, images):
        network = job.network_of(config, 4)
        wide = network.clone(dense=True) if hasattr(network, 'dense') else network
        return multi_crop.dense_probs(lambda x: wide.apply(variables, x)[0], images, config.scales)

    if 'dense' in config.views:
        seen = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        assert jax.eval_shape(dense, state.variables, seen).shape == (1, 4)


def write_folder(path):
    for split in ('train', 'test'):
        for name in 'ab':
            (path / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(3):
                pixels = RNG.integers(0, 256, (10, 12, 3), np.uint8)
                Image.fromarray(pixels).save(path / split / name / f'{i}.png')


def test_pictures_that_cannot_be_read_are_named_and_left_out_if_asked(tmp_path):
    write_folder(tmp_path)
    bad = tmp_path / 'train/a/1.png'
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(ValueError, match=r'train/a/1\.png cannot be read'):
        job.data(configured(f'dir:{tmp_path}', side=8))
    data = job.data(configured(f'dir:{tmp_path}', side=8, unreadable='skip'))
    assert len(data.extra['task'].train_images) == 5


def test_pictures_on_the_disk_make_the_same_run(tmp_path):
    write_folder(tmp_path / 'set')
    common = ['--network', 'tiny', '--source', f'dir:{tmp_path}/set', '--side', '9', '--crop', '8']
    common += [
        '--steps',
        '3',
        '--batch_size',
        '4',
        '--looked_at',
        '8',
        '--views',
        'center',
        'dense',
    ]
    common += ['--cache_dir', 'none', '--progress', 'none']
    found = []
    for stored in ('devices', 'disk'):
        argv = [*common, '--stored', stored, '--workdir', str(tmp_path / stored)]
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
        lines = (tmp_path / stored / 'metrics.jsonl').read_text().splitlines()
        found.append([{k: v for k, v in json.loads(r).items() if k != 'seconds'} for r in lines])
    assert found[0] == found[1] and len(found[0]) > 1


def pictures(shape, labels=(0, 1), dtype=np.uint8):
    images = np.zeros((2, *shape), dtype)
    return {'x_train': images, 'y_train': np.array(labels), 'x_test': images, 'y_test': [0, 1]}


@pytest.mark.parametrize(
    'arrays, argv, told',
    [
        (pictures((12, 12, 4)), [], r'\(12, 12, 4\), wanted .*1 or 3 channels'),
        (pictures((3, 12, 12)), [], r'channels first.*transpose\(0, 2, 3, 1\)'),
        (pictures((12, 10, 3)), [], 'not all squares of one size; name the side'),
        (pictures((12, 12, 3), (0, -1)), [], 'labels run from -1 to 0'),
        (pictures((12, 12, 3), (0, 0.5)), [], 'labels have .* dtype float64'),
        (pictures((12, 12, 3), (0, 0)), [], 'test has 1, which training has not'),
        (pictures((12, 12, 3)), ['--crop', '13'], 'images of 12 x 12 are smaller than the crop of 13 x 13'),
        (pictures((12, 12, 3)), ['--crop', '2'], 'Tiny: images of 2 x 2 are too small; use 3 x 3'),
        (pictures((12, 12, 3)), ['--network', 'alexnet'], 'AlexNet: images of 8 x 8 .* use 227'),
        (pictures((12, 12, 3)), ['--network', 'vgg_d', '--views', 'center'], 'VGG: .* too small; use 32'),
        (pictures((12, 12, 3)), ['--augmentation', 'jitter', '--jitter', '6', '9'], 'crop has to fit'),
        (pictures((12, 12, 3)), ['--views', '150', '--scales', '7'], 'images of 7 x 7 are smaller than the crop'),
        (pictures((12, 12, 3)), ['--ensemble', 'nowhere'], 'nowhere holds no run'),
        (pictures((12, 12, 3)), ['--network', 'vgg_f'], 'unknown network vgg_f; did you mean vgg_'),
        (pictures((12, 12, 3)), ['--momentum', '1'], '--momentum is 1.0; .* at least 0, below 1'),
        (pictures((12, 12, 3)), ['--stored', 'disk'], 'only whole pictures of dir:PATH'),
        (pictures((12, 12, 3)), ['--looked_at', '6'], 'pictures of 6 x 6 have no crop of 8 x 8'),
        (pictures((12, 12, 3)), ['--test_split', 'val'], "no split 'val'; it has train, test"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(arrays, argv, told, tmp_path):
    np.savez(tmp_path / 'set.npz', **arrays)
    argv = ['--source', f'npz:{tmp_path}/set.npz', '--side', '0', '--no_cut', '--crop', '8', *argv]
    argv = ['--network', 'tiny', '--batch_size', '2', '--stage', 'data', *argv]
    with pytest.raises(UsageError, match=told) as caught:
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    assert '\n' not in str(caught.value)


class Attack:
    def __reduce__(self):
        return print, ('run',)


@pytest.mark.parametrize(
    'content, told',
    [
        (pickle.dumps(Attack()), r'asks for builtins\.print, which is no tensor; it was not run'),
        (b'none', 'is not a whole file of weights'),
        (None, 'is not a file; download the weights'),
    ],
    ids=['attack', 'damaged', 'missing'],
)
def test_weights_that_are_none_are_one_line(content, told, source, tmp_path, capsys):
    if content:
        (tmp_path / 'w.pth').write_bytes(content)
    argv = ['--source', source, '--side', '32', '--no_cut', '--crop', '32', '--stage', 'data']
    argv += ['--network', 'resnet_18', '--init', str(tmp_path / 'w.pth')]
    with pytest.raises(UsageError, match=told):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    assert 'run' not in capsys.readouterr().out
