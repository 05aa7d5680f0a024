"""Primitives that machine code computes in programs for one CPU, by XLA's foreign-function interface.

numba compiles the handler, where it is installed. It runs in programs for a CPU that need no partitioning (one device,
shard_map, pmap), a plain JAX form everywhere else: on other devices, in jit over several devices, under vmap, in
derivatives, and in programs of `jax.export`. The choice is made while a program is lowered.
"""

import functools
import importlib.metadata
import pathlib
import platform
import re
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

NUMBA = 0, 62  # the first whose pointers in LLVM have no type
LOCK = threading.RLock()
plain_forms: dict[Primitive, Callable[..., Any]] = {}  # those of `define`
_handlers: dict[str, Any] = {}  # of targets; their machine code lives as long as they


@functools.cache
def supported() -> bool:
    """Whether a new enough numba is installed, on a system and for an interface that handlers fit; does not load it."""
    linux = platform.system() == 'Linux' and platform.machine() == 'x86_64'
    try:
        major, minor = map(int, importlib.metadata.version('numba').split('.')[:2])
    except importlib.metadata.PackageNotFoundError:
        return False
    return linux and ffi_version() > 0 and (major, minor) >= NUMBA


def ffi_version() -> int:
    """Version of XLA's interface, major + minor * 2**32, or 0 if the layout of its call frame may differ."""
    header = pathlib.Path(jax.ffi.include_dir(), 'xla', 'ffi', 'api', 'c_api.h').read_text()
    version = re.search(r'XLA_FFI_API_MAJOR 0\b.*XLA_FFI_API_MINOR (\d+)', header, re.DOTALL)
    return int(version[1]) << 32 if version else 0


def compile_cached(compiler: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """The function compiled by numba, or read from its cache.

    Args:
      compiler: (cache=...) -> decorator, such as numba.njit.
      function: What it compiles.
    """
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # no directory for the cache can be written
        return compiler()(function)


def register(target: str, make: Callable[[int], Callable[..., int]]) -> None:
    """Compile a handler and register it for CPUs, once.

    Args:
      target: Name of the target in custom calls.
      make: Version of XLA's interface -> the handler, a function of the address of a call frame that returns 0 or the
        address of an error.
    """
    from numba import cfunc, types  # pyright: ignore[reportMissingImports]

    with LOCK:
        if target not in _handlers:
            compiler = functools.partial(cfunc, types.int64(types.int64))
            _handlers[target] = handler = compile_cached(compiler, make(ffi_version()))
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler.ctypes), platform='cpu')


def define(
    name: str,
    plain: Callable[..., Any],
    static: tuple[str, ...],
    target: str,
    attributes: Callable[..., dict[str, Any] | None],
) -> Primitive:
    """Define a primitive with a plain form in JAX and a handler.

    Args:
      name: Name of the primitive.
      plain: The plain form, (*arrays, **options) -> array or arrays.
      static: Names of the options, whose values are hashable.
      target: Target of the handler, see `register`.
      attributes: (context of the lowering, **options) -> attributes of the handler's call by name, or None for the
        plain form; called for CPUs only.

    Returns:
      The primitive; bind returns a list of arrays.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    plain_forms[primitive] = plain
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=static))

    def form(*args, **options):
        return jax.tree.leaves(plain(*args, **options))

    @primitive.def_abstract_eval
    def shape(*args, **options):
        return jax.make_jaxpr(functools.partial(form, **options))(*args).out_avals

    def jvp(primals, tangents, **options):
        return jax.jvp(
            functools.partial(form, **options), primals, (*map(ad.instantiate_zeros, tangents),)
        )

    def batch(args, axes, **options):
        results = jax.vmap(functools.partial(form, **options), axes)(*args)
        return results, (0,) * len(results)

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    lower_plain = mlir.lower_fun(form, multiple_results=True)

    def lower(context, *args, **options):
        one_device = on_one_device(context.module_context)
        values = attributes(context, **options) if one_device else None
        if values is None:
            return lower_plain(context, *args, **options)
        return jax.ffi.ffi_lowering(target)(context, *args, **values)

    mlir.register_lowering(primitive, lower_plain)
    mlir.register_lowering(primitive, lower, platform='cpu')
    return primitive


def on_one_device(context: Any) -> bool:
    """Whether the program, or the part in a shard_map, runs on whole arrays, and in this process's XLA."""
    if context.lowering_parameters.for_export:
        return False
    axes = context.axis_context
    if hasattr(axes, 'num_devices'):
        return axes.num_devices == 1
    manual = getattr(axes, 'manual_axes', None)
    return manual is not None and all(
        name in manual or size == 1 for name, size in axes.mesh.shape.items()
    )
