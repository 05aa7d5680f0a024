"""Read state dicts of PyTorch without PyTorch: .safetensors, and .pth without running code in it.

A .pth file is a pickle, which can name any function to be called while it is read. This reader imports and calls
nothing that a file names: tensors and containers are rebuilt by the code here, other classes (options, paths and
scalars of training checkpoints) become inert stand-ins, and names that no checkpoint needs are refused.
"""

import collections
import io
import json
import mmap
import pathlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lecture4.vision.weights import inert
from lecture4.vision.weights.lazy_tensor import LazyTensor, Storage
from lecture4.vision.weights.state_dict import StateDict, WeightsError, find_state_dict

MAGIC = 0x1950A86A20F9469CFC6C  # magic number of files older than PyTorch 1.6
STORAGE_DTYPES = {
    'FloatStorage': np.float32,
    'DoubleStorage': np.float64,
    'HalfStorage': np.float16,
    'BFloat16Storage': jnp.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
    'UntypedStorage': np.uint8,
}
# Dtypes of tensors that PyTorch stores untyped; they are named in the module torch.
TORCH_DTYPES = {
    'uint16': np.uint16,
    'uint32': np.uint32,
    'uint64': np.uint64,
    'float8_e4m3fn': jnp.float8_e4m3fn,
    'float8_e4m3fnuz': jnp.float8_e4m3fnuz,
    'float8_e5m2': jnp.float8_e5m2,
    'float8_e5m2fnuz': jnp.float8_e5m2fnuz,
}
SAFETENSORS_DTYPES = {
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': jnp.bfloat16,
    'F8_E4M3': jnp.float8_e4m3fn,
    'F8_E5M2': jnp.float8_e5m2,
    'I64': np.int64,
    'I32': np.int32,
    'I16': np.int16,
    'I8': np.int8,
    'U64': np.uint64,
    'U32': np.uint32,
    'U16': np.uint16,
    'U8': np.uint8,
    'BOOL': np.bool_,
}

# Exceptions of the standard library and NumPy on truncated, altered and malicious files.
UNREADABLE = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)


def read(path: str | pathlib.Path) -> StateDict:
    """The tensors of a state dict by name, also if it is nested in a training checkpoint.

    The arrays are read-only views of the file's contents: a tensor of stride 0 takes no memory until it is
    copied.

    Args:
      path: .safetensors, .pth or .pt.

    Raises:
      WeightsError: The file is missing, truncated, altered, or of another kind; it contains names that no checkpoint
        needs; it has no tensors, or several state dicts and none of them with a key of the model.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(f'{path} is not a file; download the weights first')
    try:
        if path.suffix == '.safetensors':
            return find_state_dict(_safetensors(path), path)
        root = _zipped(path) if zipfile.is_zipfile(path) else _legacy(path)
        return find_state_dict(root, path)
    except WeightsError:
        raise
    except inert.RefusedError as error:
        raise WeightsError(
            f'{path} names {error}, which no checkpoint needs; it was not run. Take weights from a '
            'source you trust, as .safetensors'
        ) from None
    except UNREADABLE as error:
        raise WeightsError(
            f'{path} is not a complete weights file ({error}); download it again'
        ) from error


def _safetensors(path):
    import safetensors

    try:  # checks the header and the offsets
        with safetensors.safe_open(path, 'numpy') as file:
            names = list(file.keys())
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
    if not names:
        return {}
    with path.open('rb') as file:  # not all of the types that safetensors reads exist in NumPy
        (n,) = struct.unpack('<Q', file.read(8))
        header = json.loads(file.read(n))
    data = np.memmap(path, np.uint8, 'r', 8 + n)
    state = {}
    for name in names:
        dtype = header[name]['dtype']
        if dtype not in SAFETENSORS_DTYPES:
            raise WeightsError(
                f'{path}: tensor {name} has dtype {dtype}; convert it to float32 (expected one of '
                f'{", ".join(SAFETENSORS_DTYPES)})'
            )
        start, stop = header[name]['data_offsets']
        values = data[start:stop].view(np.dtype(SAFETENSORS_DTYPES[dtype]))
        state[name] = values.reshape(header[name]['shape'])
    return state


class _StorageType(NamedTuple):
    """A class of storages for one type of values."""

    dtype: Any


def _tensor(storage, offset, size, stride, *_):
    return LazyTensor(storage, offset, tuple(size), tuple(stride))


def _untyped_tensor(storage, offset, size, stride, requires_grad, hooks, dtype, *_):
    return LazyTensor(storage, offset, tuple(size), tuple(stride), dtype.dtype)


def _parameter(tensor, *_):
    return tensor


def _subclass(function, kind, args, *_):
    """A tensor of a subclass, or with extra attributes, as a tensor only."""
    return function(*args)


KNOWN_NAMES: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('builtins', 'set'): set,
    ('__builtin__', 'set'): set,
    ('torch._utils', '_rebuild_tensor'): _tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _tensor,
    ('torch._utils', '_rebuild_tensor_v3'): _untyped_tensor,
    ('torch._utils', '_rebuild_parameter'): _parameter,
    ('torch._utils', '_rebuild_parameter_with_state'): _parameter,
    ('torch._tensor', '_rebuild_from_type_v2'): _subclass,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler of tensors that runs no code of the pickle."""

    def __init__(self, file, storage: Callable[[Any, str, int], Storage]):
        super().__init__(file, encoding='latin1')
        self.storage = storage

    def find_class(self, module, name):
        if (module, name) in KNOWN_NAMES:
            return KNOWN_NAMES[module, name]
        if module in ('torch', 'torch.storage') and name in STORAGE_DTYPES:
            return _StorageType(STORAGE_DTYPES[name])
        if module == 'torch' and name in TORCH_DTYPES:
            return _StorageType(TORCH_DTYPES[name])
        return inert.stand_in(module, name)

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and pid[0] == 'storage'):
            raise ValueError(f'it has an unknown reference {pid!r}')
        return self.storage(pid[1].dtype, str(pid[2]), int(pid[4]))


def _load(file, storage):
    """The next pickle of a file, if its memo is not larger than itself (pickle allocates what it claims)."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and argument > position - start:
            raise ValueError('its pickle has a memo that is larger than itself')
    file.seek(start)
    return _Unpickler(file, storage).load()


def _zipped(path):
    """The format since PyTorch 1.6: a zip of data.pkl and one file for each storage."""
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(pickled) != 1:
            raise WeightsError(f'{path} is a zip without one data.pkl; expected a state dict')
        folder = pickled[0].removesuffix('data.pkl')
        storages = {}

        def storage(dtype, key, n):
            if key not in storages:
                values = np.frombuffer(archive.read(f'{folder}data/{key}'), dtype)
                if len(values) != n:
                    raise ValueError(f'storage {key} has {len(values)} values, expected {n}')
                storages[key] = Storage(dtype, values)
            return storages[key]

        return _load(io.BytesIO(archive.read(pickled[0])), storage)


def _legacy(path):
    """The older format: four pickles, then the storages one after another."""
    storages = {}

    def storage(dtype, key, n):
        return storages.setdefault(key, Storage(dtype))

    with path.open('rb') as opened:
        # Reads stop at the end of the file, whatever length a pickle claims.
        file = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def load():
        return _load(file, storage)

    if load() != MAGIC:
        raise WeightsError(f'{path} is not a file of PyTorch; expected .pth or .safetensors')
    for _ in ('version of the protocol', 'machine that wrote it'):
        load()
    root = load()
    for key in load():
        (n,) = struct.unpack('<q', file.read(8))
        entry = storages[str(key)]
        stop = file.tell() + n * entry.dtype.itemsize
        if n < 0 or stop > len(file):
            raise ValueError(f'storage {key} is truncated')
        entry.values = np.frombuffer(file, entry.dtype, n, file.tell())
        file.seek(stop)
    return root
