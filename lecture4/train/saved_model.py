"""Trained models as files, and their functions: `model.safetensors` of a run directory, and `load`.

A file holds the final state without the optimizer's, the data's constants (whitening, means, class names,
vocabulary) and the config: everything that the functions of an experiment's `apply` need, as tensors and JSON.
Reading it executes nothing in it.
"""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import lecture4
from lecture4.train import workdir
from lecture4.train.config import Config, RunOptions, UsageError
from lecture4.train.task import PyTree, Spec

FILE = 'model.safetensors'
FORMAT = 'lecture4 model 1'
MAX_HEADER = 100_000_000  # bytes; the bound of safetensors
PACKAGES = ('lecture4', 'optax')  # packages whose tuple and data classes a file may name


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model: `model.predict(images)`, `model.encode(x)`, ..., as its experiment's `apply` names them.

    Attributes:
      config: The config of the run.
      state: The final state without the state of the optimizer.
      spec: Properties of the data: shape, class names, constants.
      functions: Name -> (state, raw inputs) -> outputs, pure: for `jax.jit`, `jax.vmap` and `jax.grad`.
    """

    config: Config
    state: PyTree
    spec: Spec
    functions: Mapping[str, Callable[..., Any]]

    @property
    def params(self) -> PyTree:
        """The parameters of a `train.State`; for other states, the whole state."""
        return getattr(self.state, 'params', self.state)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__') or name not in self.functions:
            raise AttributeError(f'this model has no {name}; it has {", ".join(self.functions)}')
        return functools.partial(self.functions[name], self.state)


def save(
    path: pathlib.Path, experiment_module: str, config: Config, state: PyTree, spec: Spec
) -> None:
    """Write a model file, atomically.

    Args:
      path: The file.
      experiment_module: Name of the experiment's module; '' for a file run by its path.
      config: The run's config.
      state: Final state; a field `opt_state` of any tuple in it is left out.
      spec: The spec of the run's data; its constant `weights`, parameters to start from, is left out.

    Raises:
      TypeError: The state or the constants hold something other than arrays, numbers, text, and tuples, lists, dicts
        or dataclasses of them.
      OSError: The file cannot be written.
    """
    import safetensors.numpy

    tensors: dict[str, np.ndarray] = {}
    constants = {name: value for name, value in spec.constants.items() if name != 'weights'}
    header = {
        'version': lecture4.__version__,
        'experiment': experiment_module,
        'config': workdir.config_fingerprint(config),
        'state': _describe(state, 'state', tensors),
        'spec': [spec.shape, spec.class_names, _describe(constants, 'constants', tensors)],
    }
    temporary = path.with_name(path.name + '.tmp')
    metadata = {'format': FORMAT, 'model': json.dumps(header)}
    safetensors.numpy.save_file(tensors, temporary, metadata)
    os.replace(temporary, path)


def load(path: str | os.PathLike[str], module: types.ModuleType | None = None) -> Model:
    """Load a trained model.

    Args:
      path: A run directory, or the model file of one.
      module: The experiment's module. By default the module of the run, if it belongs to `experiments`; your own
        module has to be passed, since a file may not choose what is imported.

    Returns:
      The model, with NumPy arrays.

    Raises:
      UsageError: There is no model; the file is damaged, of another version or of another format; or the experiment's
        module has to be passed.
    """
    path = _file(path)
    header, tensors = _read(path)
    module = module or _module(path, str(header['experiment']))
    state, spec = _state(path, header, tensors, module)
    try:
        config = module.Config(**workdir.add_defaults(module.Config, dict(header['config']), path))
    except (TypeError, ValueError) as error:
        raise _does_not_fit(path, error) from None
    return Model(config, state, spec, module.apply(config, spec))


def load_runs(paths: Sequence[str], reader: Config) -> dict[str, Model]:
    """Load the models of other runs of the same experiment, for instance for an ensemble.

    Args:
      paths: As in `load`.
      reader: A config of the experiment, whose options of `RunOptions` (data directories, devices, ...)
        take the place of the other runs'.

    Returns:
      Path -> model.

    Raises:
      UsageError: As `load`.
    """
    names = [field.name for field in dataclasses.fields(RunOptions)]
    options = {name: getattr(reader, name) for name in names}
    models = {path: load(path, sys.modules[type(reader).__module__]) for path in paths}
    return {
        path: dataclasses.replace(model, config=dataclasses.replace(model.config, **options))
        for path, model in models.items()
    }


def load_state(path: str | os.PathLike[str]) -> tuple[PyTree, Spec]:
    """The final state and the spec of a model, without its experiment.

    Raises:
      UsageError: As in `load`; or the state contains classes of the experiment itself.
    """
    path = _file(path)
    header, tensors = _read(path)
    return _state(path, header, tensors, None)


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file claims to be a model of this library, of any version; it may be damaged."""
    with open(path, 'rb') as file:
        n = int.from_bytes(file.read(8), 'little')
        return FORMAT.rpartition(' ')[0].encode() in file.read(min(n, MAX_HEADER))


def _file(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path).expanduser()
    return path / FILE if path.is_dir() else path


def _state(path, header, tensors, module) -> tuple[PyTree, Spec]:
    try:
        shape, class_names, constants = header['spec']
        spec = Spec(tuple(shape), tuple(class_names), _restore(constants, tensors, module))
        return _restore(header['state'], tensors, module), spec
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise _does_not_fit(path, error) from None


def _does_not_fit(path: pathlib.Path, error: Exception) -> UsageError:
    return UsageError(
        f'{path} does not fit lecture4 {lecture4.__version__} ({type(error).__name__}: {error}); '
        'run the experiment again'
    )


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    import safetensors

    if not path.exists():
        raise UsageError(
            f'{path} does not exist; expected the directory of a finished run, or its {FILE}'
        )
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f'{path} is damaged or incomplete ({error}); copy it again') from None
    if metadata.get('format') != FORMAT:
        raise UsageError(
            f'{path} is not a model of lecture4 (format {metadata.get("format")!r}, expected {FORMAT!r}); '
            'weights of other libraries are read by --init'
        )
    try:
        header = json.loads(metadata['model'])
        version = header['version']
        _ = header['experiment'], header['config'], header['state'], header['spec']
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f'{path} has a damaged header ({error}); copy it again') from None
    if _minor(version) != _minor(lecture4.__version__):
        raise UsageError(
            f'{path} was written by lecture4 {version}, but this is {lecture4.__version__}; install that '
            'version or run the experiment again'
        )
    return header, tensors


def _minor(version: Any) -> list[str]:
    return str(version).split('.')[:2]


def _module(path: pathlib.Path, name: str) -> types.ModuleType:
    if not name.startswith('experiments.'):
        raise UsageError(
            f'{path} is a model of the experiment {name or "file"!r}; import its module and pass it: '
            'train.load(path, module)'
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f'{path} is a model of {name}, which cannot be imported ({error}); run from the root of the '
            'repository, or pass the module: train.load(path, module)'
        ) from None


def _fields(node: Any) -> tuple[str, ...]:
    """The field names of a named tuple or dataclass instance; () for anything else."""
    if dataclasses.is_dataclass(node):
        return tuple(field.name for field in dataclasses.fields(node))
    return getattr(node, '_fields', ())


def _describe(tree: Any, name: str, tensors: dict[str, np.ndarray]) -> list[Any]:
    """The structure of a tree as JSON; its arrays go to `tensors`.

    Returns:
      [kind, content]: 'value' with a number, text or None; 'array' and 'key' (of random numbers) with
      the name of a tensor, 'bfloat16' too; 'tuple', 'list' and 'dict' with descriptions; 'class' with
      the name of a tuple or data class and the descriptions of its fields.
    """
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return ['value', tree]
    if isinstance(tree, dict):
        items = [[key, _describe(v, f'{name}/{key}', tensors)] for key, v in tree.items()]
        return ['dict', items]
    if fields := _fields(tree):
        values = {f: () if f == 'opt_state' else getattr(tree, f) for f in fields}
        items = [[f, _describe(v, f'{name}/{f}', tensors)] for f, v in values.items()]
        return ['class', [f'{type(tree).__module__}:{type(tree).__qualname__}', items]]
    if isinstance(tree, tuple | list):
        items = [_describe(v, f'{name}/{i}', tensors) for i, v in enumerate(tree)]
        return ['tuple' if isinstance(tree, tuple) else 'list', items]
    if isinstance(tree, jax.Array) and jax.numpy.issubdtype(tree.dtype, jax.dtypes.prng_key):
        tensors[name] = np.asarray(jax.random.key_data(tree))
        return ['key', name]
    if not isinstance(tree, np.ndarray | np.generic | jax.Array):
        raise TypeError(f'{name} is a {type(tree).__name__}; expected arrays, numbers or text')
    array = np.asarray(tree)
    if array.dtype.kind in 'UO':
        return _describe(array.tolist(), name, tensors)
    kind = 'array'
    if array.dtype == jax.numpy.bfloat16:
        kind, array = 'bfloat16', array.view(np.uint16)
    tensors[name] = np.ascontiguousarray(array).reshape(array.shape)
    return [kind, name]


def _restore(description: list[Any], tensors: dict[str, np.ndarray], module: Any) -> Any:
    """The tree of a description."""
    kind, content = description
    match kind:
        case 'value':
            return content
        case 'array':
            return tensors[content]
        case 'bfloat16':
            return tensors[content].view(jax.numpy.bfloat16)
        case 'key':
            return jax.random.wrap_key_data(jax.numpy.asarray(tensors[content]))
        case 'dict':
            return {key: _restore(item, tensors, module) for key, item in content}
        case 'tuple' | 'list':
            items = [_restore(item, tensors, module) for item in content]
            return tuple(items) if kind == 'tuple' else items
        case 'class':
            name, items = content
            return _class(name, module)(**{f: _restore(v, tensors, module) for f, v in items})
    raise ValueError(f'unknown kind {kind!r}')


def _class(name: str, module: Any) -> type:
    """A tuple or data class of ours, of optax or of the experiment; nothing else is imported or called."""
    place, _, qualname = name.partition(':')
    if module is not None and place in (module.__name__, '__main__'):
        value: Any = module
    elif place.partition('.')[0] in PACKAGES:
        value = importlib.import_module(place)
    else:
        raise ValueError(f'{name} is not a class of {" or ".join(PACKAGES)}')
    for part in qualname.split('.'):
        value = getattr(value, part)
    is_tuple = isinstance(value, type) and issubclass(value, tuple) and hasattr(value, '_fields')
    if not is_tuple and not (isinstance(value, type) and dataclasses.is_dataclass(value)):
        raise ValueError(f'{name} is not a tuple or data class')
    return value
