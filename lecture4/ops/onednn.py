"""Convolutions by oneDNN in programs for one CPU, where the optional packages are installed: `lecture4[onednn]`.

`accelerated` marks a plain JAX form of a convolution or of one of its gradients. Without the packages, its calls are
calls of the plain form. With them, a float32 call becomes a primitive. oneDNN computes it in programs for a CPU that
need no partitioning (one device, shard_map, pmap). It is the plain form everywhere else: on other devices, in jit over
several devices, under vmap, in derivatives of higher order, in programs of `jax.export`, for shapes that oneDNN has no
optimized primitive for, and where the plain form is faster (`_pays`). The choice is made while a program is lowered.

oneDNN uses as many OpenMP threads as XLA's pool has. It adds in another order than XLA: relative differences of 1e-6.
The first program with a convolution compiles the handler, for 10 to 40 s; later processes read it from numba's cache.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

TARGET = 'lecture4_onednn_convolution'
PACKAGE = 'onednn-cpu-gomp'
KINDS = ('forward', 'input_gradient', 'kernel_gradient')
MANY_CHANNELS = 64
MAX_BYTES = 2**31  # of an array; beyond it oneDNN's kernels could overflow an int

_LOCK = threading.Lock()


@functools.cache
def installed() -> bool:
    """Whether oneDNN and numba are installed, on a system that they are written for; loads neither."""
    linux = platform.system() == 'Linux' and platform.machine() == 'x86_64'
    return linux and importlib.util.find_spec('numba') is not None and _library() is not None


def _library():
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [pathlib.Path(str(f.locate())) for f in files if f.name == 'libdnnl.so.3']
    return next((path.resolve() for path in paths if path.exists()), None)


@functools.cache
def _load():
    """Register the handler with XLA; (supports, handler) of `compile_handler`, or None if it cannot be used."""
    header = pathlib.Path(jax.ffi.include_dir(), 'xla', 'ffi', 'api', 'c_api.h').read_text()
    version = [re.search(rf'XLA_FFI_API_{part} (\d+)', header) for part in ('MAJOR', 'MINOR')]
    major, minor = (int(match[1]) if match else -1 for match in version)
    if major != 0 or minor < 1:
        return None  # the layout of a call frame may differ
    # OpenMP reads it while it is loaded. By default its threads spin after their work, on cores that XLA needs then.
    undecided = 'OMP_WAIT_POLICY' not in os.environ
    if undecided:
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
    try:
        library = ctypes.CDLL(str(_library()))
    except OSError:  # no OpenMP runtime (libgomp), for example
        return None
    finally:
        if undecided:
            del os.environ['OMP_WAIT_POLICY']
    from lecture4.ops import _onednn_handler  # compiles: for seconds without numba's cache

    handler, supports = _onednn_handler.compile_handler(library, major + (minor << 32))
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler.ctypes), platform='cpu')
    return supports, handler  # whose machine code lives as long as it


def accelerated(kind: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Decorator: compute a plain form of a convolution by oneDNN where that is possible.

    Args:
      kind: 'forward', of (x, kernel) -> y; 'input_gradient', of (g, kernel) -> dx; 'kernel_gradient', of (x, g) -> dk;
        arrays as in `ops.conv_cpu`. Each takes `strides`, `padding` as pairs (low, high), and `precision` by keyword,
        and the gradients also `size`, that of the image or the kernel; all of them hashable.

    Raises:
      ValueError: `kind` is none of these.
    """
    if kind not in KINDS:
        raise ValueError(f'kind {kind!r} is unknown; expected one of {", ".join(KINDS)}')
    return functools.partial(_accelerate, kind)


def _accelerate(kind, plain):
    primitive = Primitive(f'onednn_{kind}')
    static = ('strides', 'padding', 'precision') + (() if kind == 'forward' else ('size',))
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=static))

    def form(options):
        return functools.partial(plain, **options)

    @primitive.def_abstract_eval
    def shape(a, b, **options):
        return jax.make_jaxpr(form(options))(a, b).out_avals[0]

    def jvp(primals, tangents, **options):
        return jax.jvp(form(options), primals, (*map(ad.instantiate_zeros, tangents),))

    def batch(args, axes, **options):
        return jax.vmap(form(options), axes)(*args), 0

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    lower_plain = mlir.lower_fun(plain, multiple_results=False)

    def lower(ctx, a, b, **options):
        window = _window(kind, ctx, **options)
        if window is None:
            return lower_plain(ctx, a, b, **options)
        return jax.ffi.ffi_lowering(TARGET)(ctx, a, b, window=window)

    mlir.register_lowering(primitive, lower_plain)
    mlir.register_lowering(primitive, lower, platform='cpu')

    @functools.wraps(plain)
    def call(a: Float[Array, '...'], b: Float[Array, '...'], **options: Any) -> Float[Array, '...']:
        if not _may_replace(a, b, options['precision']):
            return plain(a, b, **options)
        return primitive.bind(a, b, **options)

    return call


def _may_replace(a, b, precision):
    both = precision if isinstance(precision, tuple) else (precision,)
    is_float32 = a.dtype == b.dtype == np.float32
    is_full = all(p is None or isinstance(p, lax.Precision) for p in both)
    sizes = (*a.shape, *b.shape)
    return installed() and is_float32 and is_full and all(type(n) is int and n > 0 for n in sizes)


def _window(kind, ctx, strides, padding, precision, size=None):
    """The attribute of a call of oneDNN in the program being lowered, or None where the plain form must be used."""
    shapes = [aval.shape for aval in (*ctx.avals_in, *ctx.avals_out)]
    x, kernel, y = {
        'forward': shapes,
        'input_gradient': (shapes[2], shapes[1], shapes[0]),
        'kernel_gradient': (shapes[0], shapes[2], shapes[1]),
    }[kind]
    within = all(4 * int(np.prod(shape)) < MAX_BYTES for shape in shapes)
    nonempty = all(n > 0 for shape in shapes for n in shape)
    padded = all(0 <= p < k for k, pads in zip(kernel, padding, strict=False) for p in pads)
    possible = within and nonempty and padded and _on_one_device(ctx.module_context)
    if not (possible and _pays(kind, kernel, padding)):
        return None
    (top, bottom), (left, right) = padding
    window = np.array([KINDS.index(kind), *strides, top, left, bottom, right], np.int64)
    with _LOCK:  # XLA refuses a second registration
        loaded = _load()
    if loaded is None:
        return None
    supports, _ = loaded
    arrays = (np.array(shape, np.int64) for shape in (x, kernel, y))
    return window if supports(*arrays, window) else None


def _pays(kind, kernel, padding):
    """Whether oneDNN is faster than the plain form: measured on AVX2 in tests/benchmarks/vision_speed.py."""
    is_product = tuple(kernel[:2]) == (1, 1) and not any(map(any, padding))
    if kind == 'kernel_gradient':
        return is_product or kernel[2] < MANY_CHANNELS
    return not is_product


def _on_one_device(context):
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
