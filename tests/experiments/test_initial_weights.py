"""Runs start from the networks of other runs; networks leave for torchvision and come back."""

import json
import pathlib

import jax
import numpy as np
import pytest

from experiments.convnets import feature_visualization, image_classification
from experiments.detection import faster_rcnn
from lecture4 import train
from lecture4.train import cli, detection_data, export, initial_weights, saved_model
from lecture4.train.checkpoint import CheckpointError
from lecture4.train.config import UsageError
from lecture4.train.experiment import from_module
from lecture4.vision.models import registry, resnet
from lecture4.vision.weights import convolutions, torch_format
from lecture4.vision.weights.state_dict import WeightsError
from tests.train import toy

pytestmark = pytest.mark.usefixtures('no_figures')
JOB = from_module(image_classification)
OPTIONS = ['--network', 'tiny', '--crop_size', '32', '--batch_size', '4', '--cache_dir', 'none']
OPTIONS += ['--progress', 'none', '--devices', '1', '--num_eval', '4', '--padding', '0']


def tiny(n_classes=4, **options):
    """ResNet-18's first block: torchvision's names, 40,000 parameters."""
    fields = {'blocks': (1,), 'features': (64,), 'bottleneck': False}
    return resnet.imagenet(18, n_classes=n_classes, **options).clone(**fields)


@pytest.fixture(scope='module', autouse=True)
def with_tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, 'tiny', tiny)
        with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
            yield


def source_of(directory, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(12) % num_classes
    images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    path = directory / f'{num_classes}.npz'
    names = [f'kind {i}' for i in range(num_classes)]
    arrays = {'x_train': images, 'y_train': labels, 'x_test': images, 'y_test': labels}
    np.savez(path, class_names=names, **arrays)
    return f'npz:{path}'


def run(directory, source, *options):
    argv = [*OPTIONS, '--steps', '2', '--workdir', str(directory), '--source', source, *options]
    config = cli.parse(JOB, argv)
    cli.run(JOB, config)
    return config


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp('sources')
    return {n: source_of(directory, n) for n in (3, 4)}


@pytest.fixture(scope='module')
def finished(sources, tmp_path_factory):
    directory = tmp_path_factory.mktemp('run')
    run(directory, sources[4], '--normalization', 'mean_color')
    return directory


def data_of(source, *options):
    config = cli.parse(JOB, [*OPTIONS, '--source', source, *options])
    return config, image_classification.data(config)


def initial_state(config, data):
    task = image_classification.build(config, data.spec)
    batch = data.prepare(data.device_arrays, data.batch(0), jax.random.key(0))
    return task.start(task.init(jax.random.key(0), batch))


@pytest.mark.cases(2)
@pytest.mark.parametrize('place', ['', 'model.safetensors', 'checkpoints/2', 'checkpoints/best/2'])
def test_a_run_starts_from_another_run(finished, sources, place):
    if 'best' in place:  # of step 0 or 2
        place = str(next((finished / 'checkpoints/best').glob('[0-9]')).relative_to(finished))
    config, data = data_of(sources[4], '--init', str(finished / place))
    expected = train.variables(train.load(finished).state)
    state = initial_state(config, data)
    if 'best' not in place:
        jax.tree.map(np.testing.assert_array_equal, train.variables(state), expected)
    own = data.spec.constants['normalization']
    np.testing.assert_array_equal(own.std.ravel(), np.float32([1 / 255] * 3))  # as in that run


def test_other_numbers_of_classes_need_a_new_head(finished, sources):
    with pytest.raises(WeightsError, match='has 4 classes, this task has 3; use --new_head'):
        data_of(sources[3], '--init', str(finished))
    config, data = data_of(sources[3], '--init', str(finished), '--new_head')
    variables = train.variables(initial_state(config, data))
    expected = train.load(finished).params
    assert variables['params']['fc']['kernel'].shape == (64, 3)
    np.testing.assert_array_equal(
        variables['params']['conv1']['conv']['kernel'], expected['conv1']['conv']['kernel']
    )


def test_what_is_no_network_of_a_run_is_refused(finished, sources, tmp_path):
    def message(path, *options):
        with pytest.raises((UsageError, WeightsError, CheckpointError)) as caught:
            data_of(sources[4], '--init', str(path), *options)
        return str(caught.value)

    assert 'expected the directory of a run' in message(tmp_path)
    (tmp_path / 'checkpoints/400').mkdir(parents=True)
    unfinished = message(tmp_path)
    assert 'the run is not finished' in unfinished and '/checkpoints/400' in unfinished
    assert 'is not a checkpoint; expected RUN/checkpoints/STEP' in message(
        tmp_path / 'checkpoints/400'
    )
    assert 'unlike this network; give the same --network' in message(
        finished, '--network', 'cifar_resnet_8'
    )
    content = (finished / 'model.safetensors').read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(content[:-9])
    assert 'is damaged or incomplete' in message(tmp_path / 'cut.safetensors')
    state = train.State(np.int32(2), {'D': np.ones(3)})
    saved_model.save(tmp_path / 'model.safetensors', '', train.Config(), state, train.Spec((3,)))
    assert 'trains no network of lecture4.vision' in message(tmp_path)


def test_a_mean_image_of_another_size_is_refused(finished):
    init = initial_weights.read_init(str(finished))
    mean = np.zeros((9, 9, 3), np.float32)
    own = init.constants['normalization']._replace(mean=mean)
    init = init._replace(constants={'normalization': own})
    x = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(
        UsageError, match='mean image of 9 x 9, the images are 16 x 16; give --image_size 9'
    ):
        train.init_normalization('auto', init, 'torchvision', x, 0)


def test_exported_weights_give_equal_outputs(finished, sources, tmp_path):
    config = cli.parse(JOB, [*OPTIONS, '--workdir', str(finished), '--stage', 'export'])
    path = cli.run(JOB, config)
    assert path == finished / 'torchvision.safetensors'
    assert {'conv1.weight', 'layer1.0.bn2.running_var', 'fc.bias'} < set(torch_format.read(path))
    import safetensors

    with safetensors.safe_open(path, 'numpy') as file:
        header = file.metadata()
    assert json.loads(header['class_names']) == [f'kind {i}' for i in range(4)]
    assert json.loads(header['normalization'])['channel_order'] == [0, 1, 2]
    options = ('--init', str(path), '--normalization', 'mean_color')
    config, data = data_of(sources[4], *options)
    model, images = train.load(finished), data.report_data.test_images
    predict = image_classification.apply(config, data.spec)['predict']
    again = predict(initial_state(config, data), images)
    np.testing.assert_allclose(again, model.predict(images), rtol=1e-5, atol=1e-6)


def test_the_experiments_that_export_are_named():
    with_export = [
        '.'.join(path.with_suffix('').parts[-2:])
        for path in sorted(
            (pathlib.Path(__file__).parents[2] / 'experiments').rglob('*.py'), reverse=True
        )
        if "'state_dict'" in path.read_text()
    ]
    assert sorted(with_export) == sorted(export.EXPORTING)


def test_networks_that_torchvision_lacks_are_refused(tmp_path):
    config = image_classification.Config(stage='export', workdir=str(tmp_path))
    state, spec = (
        train.State(np.int32(2), {}, (), {'network': {}}),
        train.Spec((8, 8, 3), ('a', 'b')),
    )
    saved_model.save(tmp_path / 'model.safetensors', '', config, state, spec)
    with pytest.raises(UsageError, match='torchvision has no weights for ResNet as configured'):
        cli.run(JOB, config)
    toy_config = toy.Config(stage='export', workdir=str(tmp_path / 'toy'))
    (tmp_path / 'toy').mkdir()
    saved_model.save(tmp_path / 'toy/model.safetensors', '', toy_config, state, spec)
    with pytest.raises(UsageError, match=r'experiments that can export are convnets\.image_class'):
        cli.run(from_module(toy), toy_config)


def test_visualized_networks_are_those_of_runs(finished, tmp_path):
    this = from_module(feature_visualization)
    argv = ['--network', 'tiny', '--init', str(finished), '--steps', '1', '--image_size', '48']
    data = feature_visualization.data(cli.parse(this, argv))
    assert data.spec.class_names == tuple(f'kind {i}' for i in range(4))
    expected = train.variables(train.load(finished).state)
    jax.tree.map(np.testing.assert_array_equal, data.spec.constants['weights'], expected)


def test_detectors_start_from_convolutions_of_runs(finished):
    config = faster_rcnn.Config(init=str(finished))
    with pytest.raises(UsageError, match='--normalization torchvision, which the detectors use'):
        detection_data.init_source(config)
    variables = train.read_init(str(finished)).source
    loaded = convolutions.load(tiny().clone(features_only=True), variables)
    jax.tree.map(
        np.testing.assert_array_equal, loaded['params']['conv1'], variables['params']['conv1']
    )
    assert 'fc' not in loaded['params']
    with pytest.raises(WeightsError, match='the run of --init lacks it'):
        convolutions.load(
            tiny().clone(features_only=True, blocks=(1, 1), features=(64, 8)), variables
        )
