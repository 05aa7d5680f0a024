"""Inert stand-ins for the classes that a pickle names: nothing is imported, and nothing is run.

Training checkpoints hold options, paths and scalars next to their tensors. A name that the reader of tensors
does not know becomes a class of this module, whose instances only store their state. Names that no checkpoint needs
are refused, although they would not be run: functions, and the standard library except for a few containers and value
types.
"""

import sys
from typing import Any

BUILTINS = {
    'bool',
    'bytearray',
    'bytes',
    'complex',
    'dict',
    'float',
    'frozenset',
    'int',
    'list',
    'long',
    'object',
    'range',
    'set',
    'slice',
    'str',
    'tuple',
    'unicode',
    'xrange',
}
PATHS = {'Path', 'PosixPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath', 'WindowsPath'}
STANDARD_LIBRARY = {
    '__builtin__': BUILTINS,
    '_codecs': {'encode'},  # functions that rebuild NumPy's scalars
    'argparse': {'Namespace'},
    'builtins': BUILTINS,
    'collections': {'Counter', 'OrderedDict', 'UserDict', 'defaultdict', 'deque'},
    'copy_reg': {'_reconstructor'},
    'copyreg': {'_reconstructor'},
    'datetime': {'date', 'datetime', 'time', 'timedelta', 'timezone'},
    'decimal': {'Decimal'},
    'fractions': {'Fraction'},
    'functools': {'partial'},
    'pathlib': PATHS,
    'pathlib._local': PATHS,
    'random': {'Random'},
    'types': {'SimpleNamespace'},
    'uuid': {'SafeUUID', 'UUID'},
}
FUNCTIONS = {
    'numpy.dtype',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy.core.numeric._frombuffer',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy._core.numeric._frombuffer',
    'numpy.random._pickle.__bit_generator_ctor',
    'numpy.random._pickle.__generator_ctor',
    'numpy.random._pickle.__randomstate_ctor',
    'torch.device',
    'torch.serialization._get_layout',
}


class RefusedError(Exception):
    """A name that no checkpoint needs."""


class _Called(type):
    """Allow calls of a stand-in only if its name is that of a class or of a known function."""

    full_name = ''
    may_be_called = True

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An empty instance, or RefusedError."""
        if not cls.may_be_called:
            raise RefusedError(cls.full_name)
        return cls.__new__(cls)  # pyright: ignore[reportCallIssue]


class StandIn(dict, metaclass=_Called):
    """An instance of an unknown class: accepts any arguments, and stores the state and the items.

    Attributes:
      full_name: The name in the pickle, with its module.
      may_be_called: Whether a pickle may call it.
      state: The attributes of the instance, or the state that its class saved.
    """

    full_name = ''
    may_be_called = True
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> 'StandIn':
        """An empty instance, whatever the arguments."""
        del args, kwargs
        return dict.__new__(cls)

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """By identity: enumerations and devices are keys of dicts."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """By identity."""
        return self is other

    def __setstate__(self, state: Any) -> None:
        """Store the state unchanged."""
        self.state = state

    def append(self, item: Any) -> None:
        """Ignore an item of a list."""

    def extend(self, items: Any) -> None:
        """Ignore items of a list."""

    def add(self, item: Any) -> None:
        """Ignore an item of a set."""


def stand_in(module: str, name: str) -> type[StandIn]:
    """A stand-in class with a name, without any import.

    Raises:
      RefusedError: The name belongs to the standard library and is not listed here. Calling an unlisted function also
        raises it; a class is recognized by its capital letter.
    """
    full_name = f'{module}.{name}'
    package = module.partition('.')[0]
    is_known = name in STANDARD_LIBRARY.get(module, ())
    if package in (*sys.stdlib_module_names, '__builtin__', 'copy_reg') and not is_known:
        raise RefusedError(full_name)
    is_class = name.rpartition('.')[2].lstrip('_')[:1].isupper()
    may_be_called = is_known or is_class or full_name in FUNCTIONS
    may_be_called |= module == 'torch._utils' and name.startswith('_rebuild_')
    attributes = {'full_name': full_name, 'may_be_called': may_be_called}
    return _Called('StandIn', (StandIn,), attributes)
