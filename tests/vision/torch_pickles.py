"""Writes files as torch.save does, without PyTorch."""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np


class Tensor:
    """Pickles as PyTorch's tensors do: a call of a name in torch._utils with a reference to a storage."""

    def __init__(self, values, key, size=None, stride=None):
        self.values, self.key = values, key
        self.size = values.shape if size is None else size
        strides = tuple(s // values.itemsize for s in values.strides)
        self.stride = strides if stride is None else stride

    def __reduce__(self):
        torch, utils = sys.modules['torch'], sys.modules['torch._utils']
        reference = Reference(('storage', torch.FloatStorage, self.key, 'cpu', self.values.size))
        hooks = collections.OrderedDict()
        return utils._rebuild_tensor_v2, (reference, 0, self.size, self.stride, False, hooks)


class Reference:
    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Reference) else None


def named(module, name, kind):
    """A class or function that pickles by a name of PyTorch's."""
    parent = sys.modules.setdefault(module, types.ModuleType(module))
    kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
    setattr(parent, name, kind)
    return kind


def install_names(monkeypatch):
    """Modules with the names that PyTorch's pickles contain."""
    for module in ('torch', 'torch._utils', 'torch.nn', 'mylib', 'mylib.options'):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))

    def _rebuild_tensor_v2(*_):
        raise AssertionError('only its name is pickled')

    named('torch', 'FloatStorage', type('FloatStorage', (), {}))
    named('torch._utils', '_rebuild_tensor_v2', _rebuild_tensor_v2)


def dump(obj):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


def write_zip(path, arrays, wrap=lambda state: state):
    """A .pth of the arrays by name, after `wrap` put them where a training run would."""
    state = collections.OrderedDict(
        (name, Tensor(array, str(i))) for i, (name, array) in enumerate(arrays.items())
    )
    write(path, wrap(state), arrays.values())


def write(path, obj, storages=()):
    """A .pth of any object, and the values of the storages 0, 1, ..."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', dump(obj))
        for i, array in enumerate(storages):
            data = np.ascontiguousarray(array.ravel('K')).tobytes()
            archive.writestr(f'archive/data/{i}', data)
