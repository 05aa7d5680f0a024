"""Weights of torchvision and timm: converted, exported, refused where they do not fit, and equal logits."""

import os
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision.models import alexnet, googlenet, registry, resnet, vgg
from lecture4.vision.weights import pretrained, tensor_specs, torch_format
from lecture4.vision.weights.torch_format import WeightsError

RNG = np.random.default_rng(0)
NETWORKS = {
    'alexnet': alexnet.AlexNetV2(),
    'vgg11': vgg.VGG('a'),
    'vgg11_bn': vgg.VGG('a', batch_norm=True),
    'resnet18': resnet.imagenet(18),
    'resnet50': resnet.imagenet(50, version='v1.5'),
    'googlenet': googlenet.GoogLeNet(version='torchvision', auxiliary=True),
}


@pytest.fixture(scope='module')
def resnet18():
    """(network, random variables, state dict)."""
    network = resnet.imagenet(18, n_classes=10)
    shapes = pretrained.abstract_variables(network)
    variables = jax.tree.map(lambda leaf: RNG.random(leaf.shape, np.float32), shapes)
    return network, variables, pretrained.to_torch(network, variables)


def test_every_tensor_survives_export_and_import(resnet18):
    network, variables, state = resnet18
    assert state['conv1.weight'].shape == (64, 3, 7, 7) and state['fc.weight'].shape == (10, 512)
    counted = {**state, 'bn1.num_batches_tracked': np.array(5)}
    back = pretrained.from_torch(network, counted)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    # Everything that is learned or counted has a name there.
    assert len(state) == len(jax.tree.leaves(variables))


def test_state_dicts_that_do_not_fit_are_refused(resnet18):
    network, _, state = resnet18
    with pytest.raises(WeightsError, match=r'lacks conv1\.weight; these are weights of another'):
        pretrained.from_torch(network, {k: v for k, v in state.items() if k != 'conv1.weight'})
    with pytest.raises(WeightsError, match='has, unlike this network, extra'):
        pretrained.from_torch(network, {**state, 'extra': np.zeros(3)})
    with pytest.raises(WeightsError, match=r'fc.weight has shape \(10, 512\), expected \(1000'):
        pretrained.from_torch(resnet.imagenet(18), state)
    with pytest.raises(WeightsError, match='torchvision has no weights for ResNet as configured'):
        pretrained.from_torch(resnet.imagenet(18, 'A'), state)


def test_shapes_are_checked_before_tensors_are_copied(resnet18):
    network, _, state = resnet18
    huge = np.broadcast_to(np.float32(1), (10**13,))
    with pytest.raises(WeightsError, match=r'bn1.weight has shape \(10000000000000,\), expected'):
        pretrained.from_torch(network, {**state, 'bn1.weight': huge})


WRITERS = {
    'safetensors': ('safetensors.numpy', lambda module, state, path: module.save_file(state, path)),
    'npz': ('numpy', lambda module, state, path: module.savez(path, **state)),
    'torch': (
        'torch',
        lambda module, state, path: module.save(
            {name: module.from_numpy(value) for name, value in state.items()}, path
        ),
    ),
}


@pytest.mark.parametrize('writer', WRITERS)
def test_exported_tensors_come_back_from_every_writer(tmp_path, writer, resnet18):
    module, save = WRITERS[writer]
    module = pytest.importorskip(module)
    network, variables, state = resnet18
    suffix = {'torch': 'pth'}.get(writer, writer)
    path = tmp_path / f'w.{suffix}'
    save(module, state, path)
    if writer == 'npz':
        with np.load(path) as file:
            back = pretrained.from_torch(network, dict(file))
    else:
        back = pretrained.load(network, path)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_exported_tensors_are_contiguous_and_writable(resnet18):
    """Some writers take the memory of an array, whatever its strides say."""
    _, variables, state = resnet18
    for name, value in state.items():
        assert value.flags.c_contiguous and value.flags.writeable, name
        assert not any(np.shares_memory(value, leaf) for leaf in jax.tree.leaves(variables)), name


EQUAL_NAMES = {
    'resnet_50': r"stride on the 3 x 3 .*'v1.5'.* use version='v1.5' \(resnet_50_v1_5",
    'resnet_101': r"use version='v1.5' \(resnet_50_v1_5, resnet_101_v1_5",
    'resnet_152': "use version='v1.5'",
    'alexnet': r'no weights for AlexNet as configured; its alexnet is AlexNetV2 \(alexnet_v2\)',
    'googlenet': r"its googlenet is version 'torchvision' \(googlenet_torchvision\)",
    'googlenet_auxiliary': "its googlenet is version 'torchvision'",
    'vgg_a_lrn': 'no weights for VGG as configured',
    'vgg_c': 'no weights for VGG as configured',
    'zfnet': 'no weights for ZFNet as configured',
    'resnet_18_a': 'no weights for ResNet as configured',
    'resnet_50_c': 'no weights for ResNet as configured',
    'plain_18': 'no weights for ResNet as configured',
    'cifar_resnet_8': 'no weights for ResNet as configured',
}


@pytest.mark.parametrize('library', ['torchvision', 'timm'])
@pytest.mark.parametrize('name', EQUAL_NAMES)
def test_networks_with_other_arithmetic_are_refused(name, library):
    """Also where names and shapes are equal: both to load such weights and to export them."""
    network = registry.create(name, 10)
    with pytest.raises(WeightsError, match=EQUAL_NAMES[name]):
        pretrained.from_torch(network, {'conv1.weight': np.zeros(3)})
    with pytest.raises(WeightsError, match=EQUAL_NAMES[name].replace('torchvision', '.*')):
        pretrained.to_torch(network, {}, library)


def test_bottlenecks_v1_and_v1_5_have_equal_names():
    """Which is why the version has to be checked."""
    v1, v15 = (
        jax.tree.map(jnp.shape, pretrained.abstract_variables(resnet.imagenet(50, version=version)))
        for version in ('v1', 'v1.5')
    )
    assert v1 == v15


@pytest.mark.parametrize('name', ['alexnet', 'vgg11_bn', 'googlenet', 'resnet50'])
def test_every_variable_has_one_name(name):
    network = NETWORKS[name]
    shapes = pretrained.abstract_variables(network)
    paths = {
        tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    specs = tensor_specs.tensor_specs(network)
    assert {spec.path for spec in specs} == paths
    assert len({spec.name for spec in specs}) == len(specs) == len(paths)


PREFIXES = ['', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'a.backbone.']


@pytest.mark.parametrize('prefix', PREFIXES)
def test_words_before_all_names_are_removed(prefix, resnet18):
    network, variables, state = resnet18
    prefixed = {prefix + name: value for name, value in state.items()}
    back = pretrained.from_torch(network, prefixed)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert pretrained.n_classes(network, prefixed) == 10
    prefixed['queue'] = np.zeros(3)
    with pytest.raises(WeightsError, match='has, unlike this network, queue'):
        pretrained.from_torch(network, prefixed)


@pytest.mark.parametrize('batch_norm', [True, False])
def test_vgg_has_the_names_of_timm(batch_norm):
    network = vgg.VGG('a', n_classes=10, batch_norm=batch_norm)
    shapes = pretrained.abstract_variables(network)
    specs = tensor_specs.tensor_specs(network, 'timm')
    other = tensor_specs.tensor_specs(network)
    assert [spec.path for spec in specs] == [spec.path for spec in other]
    assert [spec.name for spec in specs[:-6]] == [spec.name for spec in other[:-6]]
    heads = {
        name: i for i in (1, 2) for name in (f'pre_logits.fc{i}.weight', f'pre_logits.fc{i}.bias')
    }
    assert [spec.name for spec in specs[-6:]] == [*heads, 'head.fc.weight', 'head.fc.bias']
    # Shapes alone of all but the classifier: the kernels take half a gigabyte.
    kernel = RNG.standard_normal((1, 1, 4096, 10)).astype(np.float32)
    by_name = {spec.name: spec for spec in specs}
    for i, expected in ((1, (4096, 512, 7, 7)), (2, (4096, 4096, 1, 1))):
        spec = by_name[f'pre_logits.fc{i}.weight']
        assert spec.torch_shape(pretrained._get(shapes, spec.path).shape) == expected
    np.testing.assert_array_equal(by_name['head.fc.weight'].to_torch(kernel), kernel[0, 0].T)
    state = {name: np.zeros(()) for name in by_name}
    assert pretrained.match_names(network, state)[0] == 'timm'
    with pytest.raises(WeightsError, match='timm has no weights for AlexNetV2'):
        tensor_specs.tensor_specs(alexnet.AlexNetV2(), 'timm')
    del state['pre_logits.fc2.bias']
    with pytest.raises(WeightsError, match=r'lacks pre_logits\.fc2\.bias'):
        pretrained.from_torch(network, state)


def test_half_precision_weights_become_float32(resnet18):
    network, variables, state = resnet18
    for dtype in (jnp.bfloat16, jnp.float8_e4m3fn, np.float16, np.float64):
        back = pretrained.from_torch(network, {k: v.astype(dtype) for k, v in state.items()})
        kernel = back['params']['fc']['kernel']
        assert kernel.dtype == jnp.float32
        np.testing.assert_allclose(kernel, variables['params']['fc']['kernel'], atol=0.07)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """Outputs of torchvision in a folder; or a skip with the reason."""
    python = os.environ.get('LECTURE4_TORCH_PYTHON', '').split()
    if not python:
        pytest.skip('LECTURE4_TORCH_PYTHON names no Python with torch and torchvision')
    folder = tmp_path_factory.mktemp('torchvision')
    script = pathlib.Path(__file__).with_name('torchvision_reference.py')
    subprocess.run([*python, str(script), str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_logits_are_those_of_torchvision(reference):
    x = jnp.asarray(np.load(reference / 'x.npy').transpose(0, 2, 3, 1))
    for name, network in NETWORKS.items():
        variables = pretrained.load(network, reference / f'{name}.pth')
        logits, _ = jax.jit(network.apply)(variables, x)
        expected = np.load(reference / f'{name}.npy')
        assert np.abs(logits - expected).max() < 1e-4 * expected.std(), name
    timm = reference / 'timm_vgg11.pth'
    if timm.exists():  # that Python has timm
        variables = pretrained.load(NETWORKS['vgg11'], timm)
        logits, _ = jax.jit(NETWORKS['vgg11'].apply)(variables, x)
        expected = np.load(reference / 'timm_vgg11.npy')
        assert np.abs(logits - expected).max() < 1e-4 * expected.std()
        back = pretrained.to_torch(NETWORKS['vgg11'], variables, 'timm')
        for name, value in torch_format.read(timm).items():
            np.testing.assert_array_equal(back[name], value)
    legacy = torch_format.read(reference / 'legacy.pth')
    np.testing.assert_array_equal(legacy['features.0.weight'], np.load(reference / 'legacy.npy'))


@pytest.mark.slow
def test_training_checkpoints_of_torch_are_read(reference):
    """As torch.save writes them: with options, scalars, paths, whole modules, wrappers and prefixes."""
    expected = torch_format.read(reference / 'resnet18.pth')
    paths = sorted((reference / 'checkpoints').glob('*.pth'))
    assert len(paths) >= 8
    network = NETWORKS['resnet18']
    for path in paths:
        library, state = pretrained.match_names(network, torch_format.read(path))
        assert library == 'torchvision'
        assert {k for k in expected if not k.startswith('fc.')} <= set(state), path.name
        for name, value in state.items():
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ('kind', 'name', 'ours', 'theirs'),
    [
        ('params', 'bn1', 'scale', 'weight'),
        ('params', 'bn1', 'bias', 'bias'),
        ('batch_stats', 'bn1', 'mean', 'running_mean'),
        ('batch_stats', 'bn1', 'var', 'running_var'),
    ],
)
def test_batch_norms_tensors_have_their_names(resnet18, kind, name, ours, theirs):
    """Mean and variance have one shape: exchanged on the way out and back they would survive."""
    _, variables, state = resnet18
    (first,) = [part for part in variables[kind]['conv1'].values() if ours in part]
    np.testing.assert_array_equal(state[f'{name}.{theirs}'], first[ours])


def test_images_are_prepared_as_the_weights_expect():
    assert pretrained.preprocessing(NETWORKS['googlenet']).mean == (0.5, 0.5, 0.5)
    assert pretrained.normalization(NETWORKS['googlenet']) == 'inception'
    for name in ('resnet18', 'vgg11', 'alexnet'):
        prepared = pretrained.preprocessing(NETWORKS[name])
        assert prepared.mean == (0.485, 0.456, 0.406) and prepared.std == (0.229, 0.224, 0.225)
        assert pretrained.normalization(NETWORKS[name]) == 'torchvision'
