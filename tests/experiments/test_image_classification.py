"""The experiment with a tiny network in place of the classic ones; errors on its command line."""

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
from lecture4 import train
from lecture4.data import images as image_data
from lecture4.ops.reduce import Reduce
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import from_module
from lecture4.vision import layers, multi_crop
from lecture4.vision.models import registry
from lecture4.vision.weights import transfer

EXPERIMENT = from_module(job)
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


class Tiny(nn.Module):
    """One convolution and the mean over its map: takes images of any size from 3 x 3."""

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
        'crop_size': 8,
        'batch_size': 8,
    }
    return job.Config(**{**given, **options})


def test_balanced_batches_hold_all_classes_equally_often(source):
    for balanced, counts in ((True, [20, 20, 20, 20]), (False, [32, 32, 8, 8])):
        data = job.data(configured(source, class_balanced=balanced))
        rows = np.concatenate([data.batch(n) for n in range(10)])
        sampled = np.bincount(data.device_arrays['labels'][rows], minlength=4)
        assert abs(sampled - counts).max() <= 8


def test_images_on_device_and_host_make_the_same_batches(source):
    made = []
    for placement in ('devices', 'host'):
        config = configured(source, data_placement=placement, color_noise=0.1, color_jitter=0.2)
        data = job.data(config)
        made.append(jax.jit(data.prepare)(data.device_arrays, data.batch(3), KEY))
    assert made[0]['images'].shape == (8, 8, 8, 3)
    jax.tree.map(np.testing.assert_array_equal, *made)


def run_steps(config, n):
    """The data, the task, and the states before and after each of n steps."""
    data = job.data(config)
    task = job.build(config, data.spec)
    prepare = jax.jit(data.prepare)
    step = jax.jit(lambda state, batch: task.step(state, batch, KEY, Reduce())[0])
    states = [jax.jit(task.init)(KEY, prepare(data.device_arrays, data.batch(0), KEY))]
    if task.start is not None:
        states[0] = task.start(states[0])
    for i in range(n):
        states.append(step(states[-1], prepare(data.device_arrays, data.batch(i), KEY)))
    return data, task, states


def test_the_polyak_average_of_the_second_half_is_tested(source):
    config = configured(source, steps=6, polyak_start=0.5, learning_rate=0.1)
    data, task, states = run_steps(config, 6)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *(s.params for s in states[4:]))
    average = train.variables(states[-1])['params']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), average, mean)
    other_params = states[-1]._replace(params=states[0].params)
    evaluate = jax.jit(task.evaluate)
    values = [float(evaluate(s, data.evaluation)['loss']) for s in (other_params, states[-1])]
    assert values[0] == values[1]


def test_filters_are_bounded_after_each_step(source):
    _, _, states = run_steps(configured(source, max_filter_rms=0.02, learning_rate=0.5), 2)
    kernel = states[-1].params['conv1']['kernel']
    assert np.sqrt(np.mean(kernel**2, (0, 1, 2))).max() <= 0.02 * (1 + 1e-5)


def test_predict_takes_stored_images(source):
    config = configured(source)
    data, _, (state,) = run_steps(config, 0)
    images = data.report_data.test_images
    probs = job.apply(config, data.spec)['predict'](state, images)
    assert probs.shape == (10, 4)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    expected = job.predict_test_set(config, state, data, 'center')
    np.testing.assert_allclose(probs, expected, rtol=1e-5)


def test_weights_of_a_file_start_all_layers_but_a_new_head(source, monkeypatch):
    given = Tiny(4).init(jax.random.key(5), jnp.zeros((1, 8, 8, 3)))
    given['params']['fc'] = {'kernel': None, 'bias': None}
    received = {}

    def load(network, path, *, new_head, image_shape):
        assert image_shape == (8, 8, 3)
        received.update(path=path, n=network.n_classes, new=new_head)
        return given

    monkeypatch.setattr(transfer, 'load', load)
    data, _, (state,) = run_steps(configured(source, init='w.pth', new_head=True), 0)
    assert received == {'path': 'w.pth', 'n': 4, 'new': True}
    mean = data.spec.constants['normalization'].mean
    np.testing.assert_allclose(mean.ravel(), [0.485, 0.456, 0.406], rtol=1e-6)
    conv1 = state.params['conv1']['kernel']
    np.testing.assert_array_equal(conv1, given['params']['conv1']['kernel'])
    assert state.params['fc']['kernel'].shape == (4, 4)
    assert abs(state.params['fc']['kernel']).min() > 0


@pytest.mark.slow
def test_test_crops_and_an_ensemble_of_runs(source, tmp_path, capsys):
    common = ['--network', 'tiny', '--source', source, '--crop_size', '8']
    common += ['--steps', '2', '--batch_size', '8', '--cache_dir', 'none', '--progress', 'none']

    def run(name, *options):
        argv = [*common, '--workdir', str(tmp_path / name), *options]
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
        return json.loads((tmp_path / name / 'results.json').read_text())['tables'][0]['records']

    first, other = run('a', '--test_crops', 'center', '--seed', '1'), str(tmp_path / 'a')
    records = run('b', '--test_crops', '10', 'center', 'dense', '--ensemble', other)
    accuracy = {(r['test_crops'], r['network']): r['accuracy'] for r in records}
    assert len(records) == 9 and accuracy['center', other] == first[0]['accuracy']
    assert {name for _, name in accuracy} == {'this network', other, 'ensemble'}
    assert (tmp_path / 'b/figures/mistakes.png').exists()
    assert 'on 10 test images of 4 classes' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('preset', ['alexnet', 'zfnet', 'vgg', 'googlenet', 'resnet'])
def test_the_recipes_of_the_papers_fit_together(preset, monkeypatch):
    """By shapes alone: the preset's image size, crops, network, step, evaluation and test crops."""
    size = job.PRESETS[preset]['image_size']
    images, labels = np.zeros((4, size, size, 3), np.uint8), np.arange(4, dtype=np.int32)
    names = tuple(map(str, range(4)))
    task = image_data.ImageTask(images, labels, images, labels, names)
    monkeypatch.setattr(image_data, 'load', lambda *_, **__: task)
    config = job.Config(**{**job.PRESETS[preset], 'batch_size': 2})
    data = job.data(config)
    made = job.build(config, data.spec)
    batch = jax.eval_shape(data.prepare, data.device_arrays, data.batch(0), KEY)
    state = jax.eval_shape(made.init, KEY, batch)
    new, metrics = jax.eval_shape(lambda *args: made.step(*args, Reduce()), state, batch, KEY)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {'loss', 'accuracy'}
    assert set(jax.eval_shape(made.evaluate, state, data.evaluation)) == {'loss', 'accuracy'}
    for kind in config.test_crops:
        scales = multi_crop.scales_for(kind, config.eval_resize, config.scales)
        plan = multi_crop.plan_for(kind, (size, size), data.spec.shape[0], scales)
        assert plan is None or plan.n_crops == (1 if kind == 'center' else int(kind))

    def dense(variables, images):
        network = job.network_of(config, 4)
        wide = network.clone(dense=True) if hasattr(network, 'dense') else network
        return multi_crop.dense_probs(lambda x: wide.apply(variables, x)[0], images, config.scales)

    if 'dense' in config.test_crops:
        x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        assert jax.eval_shape(dense, train.variables(state), x).shape == (1, 4)


def write_folder(path):
    for split in ('train', 'test'):
        for name in 'ab':
            (path / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(3):
                pixels = RNG.integers(0, 256, (10, 12, 3), np.uint8)
                Image.fromarray(pixels).save(path / split / name / f'{i}.png')


def test_unreadable_images_are_named_or_skipped(tmp_path):
    write_folder(tmp_path)
    bad = tmp_path / 'train/a/1.png'
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(ValueError, match=r'train/a/1\.png cannot be read'):
        job.data(configured(f'dir:{tmp_path}', image_size=8))
    data = job.data(configured(f'dir:{tmp_path}', image_size=8, unreadable='skip'))
    assert len(data.report_data.train_images) == 5


@pytest.mark.usefixtures('no_drawing')
def test_images_on_disk_make_the_same_run(tmp_path):
    write_folder(tmp_path / 'set')
    common = ['--network', 'tiny', '--source', f'dir:{tmp_path}/set', '--image_size', '9']
    common += ['--crop_size', '8', '--steps', '3', '--batch_size', '4', '--eval_resize', '8']
    common += ['--test_crops', 'center', 'dense']
    common += ['--cache_dir', 'none', '--progress', 'none']
    rows = []
    for placement in ('devices', 'disk'):
        argv = [*common, '--data_placement', placement, '--workdir', str(tmp_path / placement)]
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
        lines = (tmp_path / placement / 'metrics.jsonl').read_text().splitlines()
        rows.append([{k: v for k, v in json.loads(r).items() if k != 'seconds'} for r in lines])
    assert rows[0] == rows[1] and len(rows[0]) > 1


def arrays_of(shape, labels=(0, 1), dtype=np.uint8):
    images = np.zeros((2, *shape), dtype)
    return {'x_train': images, 'y_train': np.array(labels), 'x_test': images, 'y_test': [0, 1]}


@pytest.mark.parametrize(
    'arrays, argv, message',
    [
        (arrays_of((12, 12, 4)), [], r'1 or 3 channels, got \(12, 12, 4\)'),
        (arrays_of((3, 12, 12)), [], 'channels first; store the channels last'),
        (arrays_of((12, 10, 3)), [], 'images of 12 x 10 are not square; .*--image_size'),
        (arrays_of((12, 12, 3), (0, -1)), [], 'labels from 0 to 0, got -1 to 0'),
        (arrays_of((12, 12, 3), (0, 0.5)), [], 'one integer label per image, got .* dtype float64'),
        (arrays_of((12, 12, 3), (0, 0)), [], 'test has classes that training does not have: 1'),
        (arrays_of((12, 12, 3)), ['--crop_size', '13'], 'images of 12 x 12 are smaller than the crop of 13 x 13'),
        (arrays_of((12, 12, 3)), ['--crop_size', '2'], 'Tiny: images of 2 x 2 are too small; use 3 x 3'),
        (arrays_of((12, 12, 3)), ['--network', 'alexnet'], 'AlexNet: images of 8 x 8 .* use 227'),
        (arrays_of((12, 12, 3)), ['--network', 'vgg_d', '--test_crops', 'center'], 'VGG: .* too small; use 32'),
        (arrays_of((12, 12, 3)), ['--augmentation', 'jitter', '--jitter', '6', '9'], 'crop_size <= low <= high, got'),
        (arrays_of((12, 12, 3)), ['--test_crops', '150', '--scales', '7'], 'images of 7 x 7 are smaller than the crop'),
        (arrays_of((12, 12, 3)), ['--ensemble', 'nowhere'], 'nowhere does not exist; expected the dir'),
        (arrays_of((12, 12, 3)), ['--network', 'vgg_f'], 'unknown network vgg_f; did you mean vgg_'),
        (arrays_of((12, 12, 3)), ['--momentum', '1'], '--momentum is 1.0; .* at least 0 and below 1'),
        (arrays_of((12, 12, 3)), ['--data_placement', 'disk'], 'only stored pixels of dir:PATH'),
        (arrays_of((12, 12, 3)), ['--eval_resize', '6'], 'images of 6 x 6 are smaller than the crop of 8 x 8'),
        (arrays_of((12, 12, 3)), ['--test_split', 'val'], "no split 'val'; it has train, test"),
    ],
)  # fmt: skip
def test_errors_are_one_line(arrays, argv, message, tmp_path):
    np.savez(tmp_path / 'set.npz', **arrays)
    argv = ['--source', f'npz:{tmp_path}/set.npz', '--crop_size', '8', *argv]
    argv = ['--network', 'tiny', '--batch_size', '2', '--stage', 'data', *argv]
    with pytest.raises(UsageError, match=message) as caught:
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    assert '\n' not in str(caught.value)


class Attack:
    def __reduce__(self):
        return print, ('run',)


@pytest.mark.parametrize(
    'content, message',
    [
        (pickle.dumps(Attack()), r'names builtins\.print, .*; it was not run'),
        (b'none', 'is not a complete weights file'),
        (None, 'is not a file; download the weights'),
    ],
    ids=['attack', 'damaged', 'missing'],
)
def test_invalid_weight_files_are_one_line(content, message, source, tmp_path, capsys):
    if content:
        (tmp_path / 'w.pth').write_bytes(content)
    argv = ['--source', source, '--image_size', '32', '--crop_size', '32', '--stage', 'data']
    argv += ['--network', 'resnet_18', '--init', str(tmp_path / 'w.pth')]
    with pytest.raises(UsageError, match=message):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    assert 'run' not in capsys.readouterr().out
