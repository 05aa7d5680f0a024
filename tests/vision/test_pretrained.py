"""Weights of PyTorch: read without it, refused where they do not fit, and equal logits where it is there."""

import collections
import io
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision.models import alexnet, googlenet, resnet, vgg
from lecture4.vision.weights import pretrained, torch_format
from lecture4.vision.weights.torch_format import WeightsError

RNG = np.random.default_rng(0)


class Tensor:
    """Pickles as PyTorch's tensors do: a call of a name in torch._utils with a reference to a storage."""

    def __init__(self, values, key):
        self.values, self.key = values, key

    def __reduce__(self):
        size = self.values.shape
        stride = tuple(s // self.values.itemsize for s in self.values.strides)
        utils = sys.modules['torch._utils']
        reference = Reference(
            ('storage', sys.modules['torch'].FloatStorage, self.key, 'cpu', self.values.size)
        )
        return utils._rebuild_tensor_v2, (
            reference,
            0,
            size,
            stride,
            False,
            collections.OrderedDict(),
        )


class Reference:
    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle.Pickler):
    def persistent_id(self, found):
        return found.pid if isinstance(found, Reference) else None


@pytest.fixture
def torch_names(monkeypatch):
    """Modules with the names that PyTorch's pickles mention."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    torch.FloatStorage = type('FloatStorage', (), {'__module__': 'torch'})

    def _rebuild_tensor_v2(*_):
        raise AssertionError('is only named')

    _rebuild_tensor_v2.__module__ = 'torch._utils'
    _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, 'torch', torch)
    monkeypatch.setitem(sys.modules, 'torch._utils', utils)


def pickled(found):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(found)
    return buffer.getvalue()


def write_zip(path, arrays, wrap=lambda state: state):
    state = collections.OrderedDict(
        (name, Tensor(array, str(i))) for i, (name, array) in enumerate(arrays.items())
    )
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled(wrap(state)))
        for i, array in enumerate(arrays.values()):
            archive.writestr(f'archive/data/{i}', np.ascontiguousarray(array.ravel('K')).tobytes())


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'epoch': 3, 'state_dict': s}])
def test_a_zipped_state_dict(tmp_path, torch_names, wrap):
    arrays = {
        'a.weight': RNG.standard_normal((3, 4)).astype(np.float32),
        'b': np.asfortranarray(RNG.standard_normal((2, 5)).astype(np.float32)),  # other strides
        'scalar': np.float32(7).reshape(()),
    }
    write_zip(tmp_path / 'w.pth', arrays, wrap)
    found = torch_format.read(tmp_path / 'w.pth')
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_first_word_that_all_names_share_is_left_out(tmp_path, torch_names):
    arrays = {'module.a': np.ones(3, np.float32), 'module.b': np.zeros(2, np.float32)}
    write_zip(tmp_path / 'w.pth', arrays, lambda s: {'state_dict': s})
    assert list(pretrained.read(tmp_path / 'w.pth')) == ['a', 'b']
    write_zip(tmp_path / 'w.pth', {**arrays, 'c': np.zeros(2, np.float32)})
    assert list(pretrained.read(tmp_path / 'w.pth')) == ['module.a', 'module.b', 'c']


def test_a_truncated_file_is_refused(tmp_path, torch_names):
    write_zip(tmp_path / 'w.pth', {'a': np.ones((30, 30), np.float32)})
    data = (tmp_path / 'w.pth').read_bytes()
    (tmp_path / 'short.pth').write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r'short\.pth is not a whole file of weights'):
        torch_format.read(tmp_path / 'short.pth')
    with (
        zipfile.ZipFile(tmp_path / 'w.pth') as whole,
        zipfile.ZipFile(tmp_path / 'c.pth', 'w') as cut,
    ):
        for name in whole.namelist():
            cut.writestr(name, whole.read(name)[: -8 if name.endswith('data/0') else None])
    with pytest.raises(WeightsError, match='storage 0 has 898 values, not 900'):
        torch_format.read(tmp_path / 'c.pth')
    with pytest.raises(WeightsError, match='is not a file; download the weights'):
        torch_format.read(tmp_path / 'none.pth')


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, zipped):
    path, made = tmp_path / 'w.pth', tmp_path / 'made'
    data = pickle.dumps({'a': Attack(str(made))})
    if zipped:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', data)
    else:
        path.write_bytes(data)
    with pytest.raises(WeightsError, match=r'asks for (posix|nt)\.mkdir, which is no tensor'):
        torch_format.read(path)
    assert not made.exists()


def test_safetensors_whole_and_cut(tmp_path):
    numpy = pytest.importorskip('safetensors.numpy', reason='needs the extra lecture4[weights]')
    arrays = {'a': RNG.standard_normal((3, 4)).astype(np.float32)}
    numpy.save_file(arrays, tmp_path / 'w.safetensors')
    np.testing.assert_array_equal(torch_format.read(tmp_path / 'w.safetensors')['a'], arrays['a'])
    half = {'a': arrays['a'].astype(jnp.bfloat16)}
    numpy.save_file(half, tmp_path / 'half.safetensors')
    np.testing.assert_array_equal(torch_format.read(tmp_path / 'half.safetensors')['a'], half['a'])
    data = (tmp_path / 'w.safetensors').read_bytes()
    (tmp_path / 'short.safetensors').write_bytes(data[:-8])
    with pytest.raises(WeightsError, match='is not a whole file of weights'):
        torch_format.read(tmp_path / 'short.safetensors')


NETWORKS = {
    'alexnet': alexnet.OneTower(),
    'vgg11': vgg.VGG('a'),
    'vgg11_bn': vgg.VGG('a', batch_norm=True),
    'resnet18': resnet.imagenet(18),
    'resnet50': resnet.imagenet(50, version='v1.5'),
    'googlenet': googlenet.GoogLeNet(version='torchvision', auxiliary=True),
}


def test_there_and_back_every_tensor_of_a_network():
    network = resnet.imagenet(18, n_classes=10)
    like = pretrained.shapes(network)
    variables = jax.tree.map(lambda leaf: RNG.random(leaf.shape, np.float32), like)
    state = pretrained.to_torch(network, variables)
    assert state['conv1.weight'].shape == (64, 3, 7, 7) and state['fc.weight'].shape == (10, 512)
    state['bn1.num_batches_tracked'] = np.int64(5)
    back = pretrained.from_torch(network, state)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    # All that is learned or counted has a name there.
    assert len(state) - 1 == len(jax.tree.leaves(variables))
    with pytest.raises(WeightsError, match=r'lacks conv1\.weight; these are weights of another'):
        pretrained.from_torch(network, {k: v for k, v in state.items() if k != 'conv1.weight'})
    with pytest.raises(WeightsError, match='has, which this network has not, extra'):
        pretrained.from_torch(network, {**state, 'extra': np.zeros(3)})
    with pytest.raises(
        WeightsError, match=r'fc.weight has shape \(10, 512\), this network wants \(1000'
    ):
        pretrained.from_torch(resnet.imagenet(18), state)
    with pytest.raises(WeightsError, match='torchvision has no weights for ResNet as configured'):
        pretrained.from_torch(resnet.imagenet(18, 'A'), state)


@pytest.mark.parametrize('name', ['alexnet', 'vgg11_bn', 'googlenet'])
def test_every_leaf_has_one_name(name):
    network = NETWORKS[name]
    shapes = pretrained.shapes(network)
    paths = {
        tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    listed = list(pretrained.tensors(network))
    assert {tensor.ours for tensor in listed} == paths
    assert len({tensor.theirs for tensor in listed}) == len(listed) == len(paths)


@pytest.mark.parametrize('batch_norm', [True, False])
def test_timm_s_names_of_vgg(batch_norm):
    network = vgg.VGG('a', n_classes=10, batch_norm=batch_norm)
    shapes = pretrained.shapes(network)
    listed = list(pretrained.tensors(network, 'timm'))
    other = list(pretrained.tensors(network))
    assert [tensor.ours for tensor in listed] == [tensor.ours for tensor in other]
    assert [t.theirs for t in listed[:-6]] == [t.theirs for t in other[:-6]]
    heads = {
        name: i for i in (1, 2) for name in (f'pre_logits.fc{i}.weight', f'pre_logits.fc{i}.bias')
    }
    assert [t.theirs for t in listed[-6:]] == [*heads, 'head.fc.weight', 'head.fc.bias']
    # One tensor of each kind, by the number of its place in timm's layout; the rest is zeros, not held.
    leaves = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    kernel = RNG.standard_normal((1, 1, 4096, 10)).astype(np.float32)
    leaves['params']['head']['fc8']['kernel'] = kernel
    state = pretrained.to_torch(network, leaves, 'timm')
    assert state['pre_logits.fc1.weight'].shape == (4096, 512, 7, 7)
    assert state['pre_logits.fc2.weight'].shape == (4096, 4096, 1, 1)
    np.testing.assert_array_equal(state['head.fc.weight'], kernel[0, 0].T)
    assert pretrained.library(state) == 'timm'
    with pytest.raises(WeightsError, match='timm has no weights for OneTower'):
        list(pretrained.tensors(alexnet.OneTower(), 'timm'))
    del state['pre_logits.fc2.bias']
    with pytest.raises(WeightsError, match=r'lacks pre_logits\.fc2\.bias'):
        pretrained.from_torch(network, state)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """What torchvision computes, in a folder; or a skip with the reason."""
    python = os.environ.get('LECTURE4_TORCH_PYTHON', '').split()
    if not python:
        pytest.skip('LECTURE4_TORCH_PYTHON names no Python with torch and torchvision')
    folder = tmp_path_factory.mktemp('torchvision')
    script = pathlib.Path(__file__).with_name('torchvision_reference.py')
    subprocess.run([*python, str(script), str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_logits_are_torchvision_s(reference):
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
