"""Reads state dicts of PyTorch without PyTorch: .safetensors, and .pth without running what is inside.

A .pth is a pickle, which can name any function to be called while it is read. This reader knows three
names, for tensors, parameters and ordered dicts, and refuses all others.
"""

import collections
import io
import pathlib
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # of files older than PyTorch 1.6
TYPES = {
    'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16,
    'BFloat16Storage': jnp.dtype('bfloat16'),
    'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16,
    'CharStorage': np.int8, 'ByteStorage': np.uint8, 'BoolStorage': np.bool_,
}  # fmt: skip


class WeightsError(ValueError):
    """A file of weights that cannot be read or does not fit; the message names the mend."""


def read(path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name.

    path    .safetensors (with the extra lecture4[weights] installed), .pth or .pt.
    Errors  WeightsError for a missing, truncated or altered file, another kind of file, or a pickle
            that asks for anything but tensors.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(f'{path} is not a file; download the weights there first')
    if path.suffix == '.safetensors':
        return _safetensors(path)
    try:
        if zipfile.is_zipfile(path):
            return _named(_zipped(path), path)
        return _named(_legacy(path), path)
    except WeightsError:
        raise
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, struct.error,
            AttributeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        raise WeightsError(
            f'{path} is not a whole file of weights ({error}); download it again'
        ) from error


def _safetensors(path):
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise WeightsError(
            f'{path} needs safetensors; install it: pip install lecture4[weights]'
        ) from None
    try:
        return _named(load_file(path), path)
    except (SafetensorError, OSError, KeyError) as error:
        raise WeightsError(
            f'{path} is not a whole file of weights ({error}); download it again'
        ) from error


def _named(found, path):
    """A dict of tensors, also where a checkpoint holds it under 'state_dict' or 'model'."""
    for key in ('state_dict', 'model'):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise WeightsError(f'{path} holds a {type(found).__name__}; a state dict is wanted')
    tensors = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    if not tensors:
        raise WeightsError(f'{path} holds no tensors; a state dict is wanted')
    return tensors


class _Storage:
    """Values of one type, known by reference until they are read."""

    def __init__(self, dtype, values=None):
        self.dtype, self.values = dtype, values


class _Tensors(pickle.Unpickler):
    """An unpickler of tensors, and of nothing that runs."""

    def __init__(self, file, storage):
        super().__init__(file, encoding='latin1')
        self.storage = storage

    def find_class(self, module, name):
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if module == 'torch._utils' and name in ('_rebuild_tensor_v2', '_rebuild_tensor'):
            return _View
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return lambda data, *_: data
        if module == 'torch' and name in TYPES:
            return TYPES[name]
        raise WeightsError(
            f'the file asks for {module}.{name}, which is no tensor; it was not run. Take weights '
            'from a source you trust, as .safetensors'
        )

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and pid[0] == 'storage'):
            raise WeightsError(f'an unknown reference {pid!r}; a state dict is wanted')
        return self.storage(pid[1], str(pid[2]), int(pid[4]))


class _View:
    """A tensor as a view of a storage; `array` is called when the storage has its values."""

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self):
        """A copy of the values, [*size]."""
        values = self.storage.values
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if any(n < 0 for n in self.size) or min((*self.stride, self.offset), default=0) < 0:
            raise ValueError('a tensor of negative size')
        if 0 not in self.size and last >= len(values):
            raise ValueError(f'a tensor that needs {last + 1} of {len(values)} values')
        strides = [s * values.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        return view.copy()


def _resolved(found):
    if isinstance(found, _View):
        return found.array()
    if isinstance(found, dict):
        return {name: _resolved(value) for name, value in found.items()}
    return found


def _zipped(path):
    """The format since PyTorch 1.6: a zip of data.pkl and one file for each storage."""
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(pickled) != 1:
            raise WeightsError(f'{path} is a zip without one data.pkl; a state dict is wanted')
        folder = pickled[0].removesuffix('data.pkl')
        storages = {}

        def storage(dtype, key, n):
            if key not in storages:
                values = np.frombuffer(archive.read(f'{folder}data/{key}'), dtype)
                if len(values) != n:
                    raise ValueError(f'storage {key} has {len(values)} values, not {n}')
                storages[key] = _Storage(dtype, values)
            return storages[key]

        return _resolved(_Tensors(io.BytesIO(archive.read(pickled[0])), storage).load())


def _legacy(path):
    """The older format: four pickles, then the storages one after another."""
    storages = {}

    def storage(dtype, key, n):
        return storages.setdefault(key, _Storage(dtype))

    with path.open('rb') as file:

        def load():
            return _Tensors(file, storage).load()

        if load() != MAGIC:
            raise WeightsError(f'{path} is not a file of PyTorch; .pth or .safetensors is wanted')
        load(), load()  # the protocol's version, and the writer's machine
        found = load()
        for key in load():
            (n,) = struct.unpack('<q', file.read(8))
            held = storages[str(key)]
            size = n * np.dtype(held.dtype).itemsize
            data = file.read(size)
            if n < 0 or len(data) != size:
                raise ValueError(f'storage {key} is cut short')
            held.values = np.frombuffer(data, held.dtype)
    return _resolved(found)
