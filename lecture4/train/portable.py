"""Functions of a trained model as portable programs (`jax.export`), for serving without lecture4.

    model = train.load('runs/variational')
    portable.save('encode.bin', model, 'encode', images[:1])
    encode = portable.load('encode.bin')          # any later process; needs JAX only
    codes = encode(images)                        # any number of images

A program holds the parameters as constants, is compiled when it is first called, and runs on each of the platforms
that it was lowered for. It is StableHLO with JAX's guarantees of compatibility; reading it executes no Python code.
Needs flatbuffers (extra `serving`).
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from lecture4.train.config import UsageError
from lecture4.train.saved_model import Model

PLATFORMS = ('cpu', 'cuda', 'tpu')


def save(
    path: str | os.PathLike[str],
    model: Model,
    name: str,
    *arguments: Any,
    platforms: Sequence[str] = PLATFORMS,
    any_batch: bool = True,
) -> None:
    """Write one function of a model as a program.

    Args:
      path: The file, which is replaced.
      model: A trained model, as `train.load` returns it.
      name: One of its functions, such as 'predict'.
      *arguments: Example arrays of that function; only shapes and types matter.
      platforms: Platforms to lower the program for.
      any_batch: Whether the first axis of every argument may have any length, the same for all of them.

    Raises:
      AttributeError: The model has no such function.
      UsageError: The function does something else for other numbers of examples, which `any_batch` rules out.
    """
    function = jax.jit(getattr(model, name))
    arrays = [np.asarray(argument) for argument in arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)) for a in arrays]
    if any_batch:
        scope = export.SymbolicScope()
        dims = [','.join(['b', *map(str, s.shape[1:])]) for s in shapes]
        symbolic = [export.symbolic_shape(text, scope=scope) for text in dims]
        shapes = [
            jax.ShapeDtypeStruct(shape, s.dtype) for shape, s in zip(symbolic, shapes, strict=True)
        ]
    try:
        program = export.export(function, platforms=platforms)(*shapes)
    except (TypeError, ValueError, NotImplementedError) as error:
        if not any_batch:
            raise
        raise UsageError(
            f'{name} cannot be saved for any number of examples ({str(error).splitlines()[0]}); save it '
            'with any_batch=False'
        ) from None
    pathlib.Path(path).write_bytes(program.serialize())


def load(path: str | os.PathLike[str]) -> Callable[..., Any]:
    """The function of a program that `save` wrote: arrays to arrays, compiled for the shapes of each call.

    Args:
      path: The file.

    Raises:
      UsageError: The file does not exist, is damaged, or was written by an incompatible version of JAX.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f'{path} does not exist; expected a file of portable.save')
    try:
        program = export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # flatbuffers and XLA raise errors of their own
        raise UsageError(f'{path} is not a program of JAX or is damaged ({error})') from None
    return jax.jit(program.call)
