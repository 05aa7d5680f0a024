"""Writes files as torch.save does, without PyTorch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # of PyTorch's old files


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


class UntypedTensor(Tensor):
    """A tensor of a type for which PyTorch has no storage of its own."""

    def __init__(self, values, key, size, stride, dtype):
        super().__init__(values, key, size, stride)
        self.dtype = dtype

    def __reduce__(self):
        torch, utils = sys.modules['torch'], sys.modules['torch._utils']
        kind = sys.modules['torch.storage'].UntypedStorage
        reference = Reference(('storage', kind, self.key, 'cpu', self.values.nbytes))
        dtype = getattr(torch, self.dtype)
        hooks = collections.OrderedDict()
        arguments = (reference, 0, self.size, self.stride, False, hooks, dtype)
        return utils._rebuild_tensor_v3, arguments


class Reference:
    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle._Pickler):  # in Python, whose recursion limit can be set
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Reference) else None


class Name:
    """Pickles as a name in a module, as dtypes do."""

    def __init__(self, module, name):
        self.__module__, self.name = module, name

    def __reduce__(self):
        return self.name


def named(module, name, kind):
    """A class or function that pickles by a name of PyTorch's."""
    parent = sys.modules.setdefault(module, types.ModuleType(module))
    kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
    setattr(parent, name, kind)
    return kind


def install_names(monkeypatch):
    """Modules with the names that PyTorch's pickles contain."""
    for module in ('torch', 'torch._utils', 'torch.nn', 'torch.storage', 'mylib', 'mylib.options'):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))

    def never(*_):
        raise AssertionError('only its name is pickled')

    named('torch', 'FloatStorage', type('FloatStorage', (), {}))
    named('torch.storage', 'UntypedStorage', type('UntypedStorage', (), {}))
    for name in ('_rebuild_tensor_v2', '_rebuild_tensor_v3'):
        named('torch._utils', name, types.FunctionType(never.__code__, {}))
    for name in ('float8_e4m3fn', 'float8_e5m2', 'uint16'):
        setattr(sys.modules['torch'], name, Name('torch', name))


def dump(obj):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


def state_dict(arrays):
    """An ordered dict with an attribute, as modules make it."""
    tensors = ((name, Tensor(array, str(i))) for i, (name, array) in enumerate(arrays.items()))
    state = collections.OrderedDict(tensors)
    state._metadata = collections.OrderedDict({'': {'version': 1}})
    return state


def write_zip(path, arrays, wrap=lambda state: state):
    """A .pth of the arrays by name, after `wrap` put them where a training run would."""
    state = state_dict(arrays)
    write(path, wrap(state), arrays.values())


def write_legacy(path, arrays, wrap=lambda state: state):
    """The same as before PyTorch 1.6: pickles one after another, then the storages."""
    state = state_dict(arrays)
    keys = [str(i) for i in range(len(arrays))]
    with open(path, 'wb') as file:
        for obj in (MAGIC, 1001, {'little_endian': True}, wrap(state), keys):
            file.write(dump(obj))
        for array in arrays.values():
            data = np.ascontiguousarray(array.ravel('K')).tobytes()
            file.write(struct.pack('<q', array.size) + data)


def write(path, obj, storages=()):
    """A .pth of any object, and the values of the storages 0, 1, ..."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', dump(obj))
        for i, array in enumerate(storages):
            data = np.ascontiguousarray(array.ravel('K')).tobytes()
            archive.writestr(f'archive/data/{i}', data)
