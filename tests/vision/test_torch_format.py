"""Weights files of PyTorch read without it: state dicts, training checkpoints, damaged and hostile files."""

import argparse
import collections
import datetime
import functools
import importlib.util
import json
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision.weights import torch_format
from lecture4.vision.weights.torch_format import WeightsError

RNG = np.random.default_rng(0)


def _load(name):
    path = pathlib.Path(__file__).with_name(f'{name}.py')
    spec = importlib.util.spec_from_file_location(f'tests_vision_{name}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that pickle finds its classes
    spec.loader.exec_module(module)
    return module


torch_pickles = _load('torch_pickles')
ARRAYS = {
    'a.weight': RNG.standard_normal((3, 4)).astype(np.float32),
    'b': np.asfortranarray(RNG.standard_normal((2, 5)).astype(np.float32)),  # other strides
    'scalar': np.float32(7).reshape(()),
}


@pytest.fixture
def torch_names(monkeypatch):
    torch_pickles.install_names(monkeypatch)


def check_read(path):
    state = torch_format.read(path)
    assert list(state) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(state[name], array)


def optimizer_state(state):
    """Of Adam: moments by the number of a parameter."""
    return {'state': {0: {'step': 3, 'exp_avg': state['a.weight']}}, 'param_groups': [{'lr': 0.1}]}


def options(state):
    """What training scripts save next to the tensors, as PyTorch, NumPy and Python pickle it."""
    named = torch_pickles.named
    size = named(
        'torch', 'Size', type('Size', (tuple,), {'__reduce__': lambda s: (type(s), (tuple(s),))})
    )

    def device(kind):
        raise AssertionError('is not run')

    named('torch', 'device', device)
    device_type = type('Device', (), {'__reduce__': lambda self: (device, ('cuda',))})
    config = named('mylib.options', 'Config', type('Config', (), {}))()
    config.lr, config.path = 0.1, pathlib.PurePosixPath('/data')
    attributes = named('mylib', 'AttrDict', type('AttrDict', (dict,), {}))(depth=18)
    return {
        'args': argparse.Namespace(lr=0.1, output=pathlib.PosixPath('/out')),
        'best_acc': np.float64(0.7),
        'dtype': np.dtype('float32'),
        'rng': np.random.RandomState(0),
        'history': np.arange(3.0),
        'shape': size((1, 2)),
        'device': device_type(),
        'counts': collections.Counter('aab'),
        'losses': collections.deque([1.0, 2.0], maxlen=5),
        'meters': collections.defaultdict(list, {'top1': [1.0]}),
        'when': datetime.datetime(2020, 1, 1),
        'config': config,
        'hyper_parameters': attributes,
        'milestones': {30, 60},
        'activation': functools.partial(named('mylib', 'gelu', lambda x: x)),
        'epoch': state['scalar'],
    }


WRAPS = {
    'alone': lambda s: s,
    'state_dict': lambda s: {'epoch': 3, 'state_dict': s},
    'model_state_dict': lambda s: {'model_state_dict': s, 'optimizer': optimizer_state(s)},
    'net': lambda s: {'net': s, 'acc': 1.0},
    'model_ema': lambda s: {'model_ema': s},
    'nested': lambda s: {'model': {'state_dict': s, 'n': 1}},
    'model before ema': lambda s: {'model_ema': {'x': s['b']}, 'model': s},
    'unknown key': lambda s: {'student': s, 'loss': s['scalar'], 'opt': optimizer_state(s)},
    'options': lambda s: {'model': s, **options(s)},
}


@pytest.mark.parametrize('wrap', WRAPS)
def test_tensors_of_training_checkpoints_are_read(tmp_path, torch_names, wrap):
    torch_pickles.write_zip(tmp_path / 'w.pth', ARRAYS, WRAPS[wrap])
    check_read(tmp_path / 'w.pth')


def test_a_module_saved_whole_gives_its_state_dict(tmp_path, torch_names):
    kind = torch_pickles.named('torch.nn', 'Module', type('Module', (), {}))

    def module(parameters=(), buffers=(), modules=(), transient=()):
        made = kind()
        made._parameters, made._buffers = dict(parameters), dict(buffers)
        made._modules, made._non_persistent_buffers_set = dict(modules), set(transient)
        return made

    def wrap(state):
        part = module([('weight', state['a.weight']), ('bias', None)])
        buffers = [('scalar', state['scalar']), ('cache', state['b'])]
        return module([('b', state['b'])], buffers, [('a', part)], ['cache'])

    torch_pickles.write_zip(tmp_path / 'w.pth', ARRAYS, wrap)
    state = torch_format.read(tmp_path / 'w.pth')
    assert list(state) == ['b', 'scalar', 'a.weight']
    np.testing.assert_array_equal(state['a.weight'], ARRAYS['a.weight'])


def test_several_state_dicts_are_refused_by_name(tmp_path, torch_names):
    torch_pickles.write_zip(
        tmp_path / 'w.pth', ARRAYS, lambda s: {'teacher': s, 'student': dict(s)}
    )
    with pytest.raises(WeightsError, match=r'several state dicts \(teacher, student\)'):
        torch_format.read(tmp_path / 'w.pth')
    torch_pickles.write(tmp_path / 'w.pth', {'epoch': 3, 'args': argparse.Namespace()})
    with pytest.raises(WeightsError, match='holds a dict without tensors; expected a state dict'):
        torch_format.read(tmp_path / 'w.pth')


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def unknown_function(path):
    os.mkdir(path)


HOSTILE = {
    'function': (lambda path: Call(os.mkdir, path), r'(posix|nt)\.mkdir'),
    'evaluation': (
        lambda path: Call(eval, f'__import__("os").mkdir({path!r})'),
        r'builtin.*\.eval',
    ),
    'class': (lambda path: Call(zipfile.ZipFile, path, 'w'), r'zipfile\.ZipFile'),
    'attribute': (lambda path: Call(getattr, Call(dict), 'keys'), r'builtin.*\.getattr'),
    'constructor': (lambda path: Call(bytes.fromhex, '00'), r'builtin.*\.getattr'),
    'other package': (lambda path: Call(unknown_function, path), r'\.unknown_function'),
    'in an object': (
        lambda path: argparse.Namespace(x=Call(os.mkdir, path)),
        r'(posix|nt)\.mkdir',
    ),
}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', HOSTILE)
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, name, zipped, torch_names):
    path, made = tmp_path / 'w.pth', tmp_path / 'made'
    make, message = HOSTILE[name]
    root = {'state_dict': {'a': np.ones(3)}, 'x': make(str(made))}
    if zipped:
        torch_pickles.write(path, root)
    else:
        path.write_bytes(pickle.dumps(root, protocol=2))
    with pytest.raises(WeightsError, match=rf'names \S*{message}, which no checkpoint needs'):
        torch_format.read(path)
    assert not made.exists()


def test_a_truncated_file_is_refused(tmp_path, torch_names):
    torch_pickles.write_zip(tmp_path / 'w.pth', {'a': np.ones((30, 30), np.float32)})
    data = (tmp_path / 'w.pth').read_bytes()
    (tmp_path / 'short.pth').write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r'short\.pth is not a complete weights file'):
        torch_format.read(tmp_path / 'short.pth')
    with (
        zipfile.ZipFile(tmp_path / 'w.pth') as whole,
        zipfile.ZipFile(tmp_path / 'c.pth', 'w') as truncated,
    ):
        for name in whole.namelist():
            truncated.writestr(name, whole.read(name)[: -8 if name.endswith('data/0') else None])
    with pytest.raises(WeightsError, match='storage 0 has 898 values, expected 900'):
        torch_format.read(tmp_path / 'c.pth')
    with pytest.raises(WeightsError, match='is not a file; download the weights'):
        torch_format.read(tmp_path / 'none.pth')


def inside_itself():
    root = {'epoch': 1}
    root['model'] = root
    return root


def nested(depth):
    root = {'epoch': 1}
    for _ in range(depth):
        root = {'model': root}
    return root


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_altered_files_are_read_or_refused(tmp_path, torch_names, kind):
    """Never another error: bytes replaced, removed and repeated at random."""
    path = tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pth')
    if kind == 'safetensors':
        pytest.importorskip('safetensors.numpy').save_file({'a': ARRAYS['a.weight']}, path)
    elif kind == 'zip':
        torch_pickles.write_zip(path, ARRAYS, lambda s: {'model': s, **options(s)})
    else:
        torch_pickles.write_legacy(path, ARRAYS, lambda s: {'model': s, **options(s)})
    torch_format.read(path)
    data, rng, n_refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        start = int(rng.integers(len(data)))
        stop = start + int(rng.integers(1, 9))
        middle = (rng.bytes(stop - start), b'', data[start:stop] * 2)[rng.integers(3)]
        path.write_bytes(data[:start] + middle + data[stop:])
        try:
            torch_format.read(path)
        except WeightsError:
            n_refused += 1
    assert n_refused > 20


@pytest.mark.parametrize('depth', [0, 2000])
def test_endless_and_deeply_nested_dicts_are_refused(tmp_path, depth):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)  # for writing the file only
    try:
        torch_pickles.write(tmp_path / 'w.pth', nested(depth) if depth else inside_itself())
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(WeightsError, match='without tensors'):
        torch_format.read(tmp_path / 'w.pth')


def test_tensors_of_untyped_storages_are_read(tmp_path, torch_names):
    """As torch.save writes float8 and unsigned integers."""
    for name in ('float8_e4m3fn', 'float8_e5m2', 'uint16'):
        values = np.array([[0.5, 2.0], [1.5, 16.0]]).astype(torch_format.TORCH_DTYPES[name])
        stored = np.frombuffer(values.tobytes(), np.uint8)
        tensor = torch_pickles.UntypedTensor(stored, '0', (2, 2), (2, 1), name)
        torch_pickles.write(tmp_path / 'w.pth', {'a': tensor}, [stored])
        a = torch_format.read(tmp_path / 'w.pth')['a']
        assert a.dtype == values.dtype
        np.testing.assert_array_equal(a.astype(np.float32), values.astype(np.float32))


def test_a_tensor_of_stride_0_takes_no_memory(tmp_path, torch_names):
    values = np.float32([3.0])
    for size in ((10**13,), (2, 3)):
        tensor = torch_pickles.Tensor(values, '0', size, (0,) * len(size))
        torch_pickles.write(tmp_path / 'w.pth', {'a': tensor}, [values])
        a = torch_format.read(tmp_path / 'w.pth')['a']
        assert a.shape == size and a[(-1,) * len(size)] == 3
    tensor = torch_pickles.Tensor(values, '0', (2**40, 2**40), (0, 0))
    torch_pickles.write(tmp_path / 'w.pth', {'a': tensor}, [values])
    with pytest.raises(WeightsError, match=r'is not a complete weights file .*size'):
        torch_format.read(tmp_path / 'w.pth')


def test_safetensors_are_read_in_all_their_types(tmp_path):
    numpy = pytest.importorskip('safetensors.numpy')
    path = tmp_path / 'w.safetensors'
    arrays = {'a': RNG.standard_normal((3, 4)).astype(np.float32), 'empty': np.zeros((0, 2))}
    arrays |= {
        'n': np.arange(5),
        'flag': np.array([True, False]),
        'scalar': np.array(2.5, np.float16),
    }
    numpy.save_file(arrays, path)
    state = torch_format.read(path)
    assert set(state) == set(arrays)
    for name, array in arrays.items():
        assert state[name].dtype == array.dtype and state[name].shape == array.shape
        np.testing.assert_array_equal(state[name], array)
    half = {'a': arrays['a'].astype(jnp.bfloat16)}
    numpy.save_file(half, path)
    np.testing.assert_array_equal(torch_format.read(path)['a'], half['a'])
    (tmp_path / 'short.safetensors').write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match='is not a complete weights file'):
        torch_format.read(tmp_path / 'short.safetensors')


@pytest.mark.parametrize(
    'name, dtype', [('F8_E4M3', jnp.float8_e4m3fn), ('F8_E5M2', jnp.float8_e5m2)]
)
def test_safetensors_of_float8_are_read(tmp_path, name, dtype):
    values = np.array([[0.5, -2.0], [1.5, 16.0]]).astype(dtype)
    entry = {'dtype': name, 'shape': [2, 2], 'data_offsets': [0, 4]}
    header = json.dumps({'a': entry}).encode()
    path = tmp_path / 'w.safetensors'
    path.write_bytes(struct.pack('<Q', len(header)) + header + values.tobytes())
    state = torch_format.read(path)
    assert state['a'].dtype == values.dtype
    np.testing.assert_array_equal(state['a'].astype(np.float32), values.astype(np.float32))
    entry = {'dtype': 'F8_E8M0', 'shape': [2, 2], 'data_offsets': [0, 4]}
    header = json.dumps({'a': entry}).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + values.tobytes())
    with pytest.raises(WeightsError, match='tensor a has dtype F8_E8M0; convert it to float32'):
        torch_format.read(path)
