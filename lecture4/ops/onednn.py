"""Convolutions by oneDNN in programs for one CPU, where the optional packages are installed: `lecture4[onednn]`.

`accelerated` marks a plain JAX form of a convolution or of one of its gradients. Without the packages, its calls are
calls of the plain form. With them, a float32 call becomes a primitive. oneDNN computes it in programs for a CPU that
need no partitioning, see `ops.machine_code`. It is the plain form everywhere else, in derivatives of higher order, for
shapes that oneDNN has no optimized primitive for, and where the plain form is faster (`_pays`).

oneDNN uses as many OpenMP threads as XLA's pool has. It adds in another order than XLA: relative differences of 1e-6.
The first program with a convolution compiles the handler, for 10 to 40 s; later processes read it from numba's cache.
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lecture4.ops import machine_code

TARGET = 'lecture4_onednn_convolution'
PACKAGE = 'onednn-cpu-gomp'
KINDS = ('forward', 'input_gradient', 'kernel_gradient')
# With fewer channels than a vector has numbers, oneDNN 2023.2 has corrupted memory on a Zen 5: a ResNet of 4 and 8
# channels crashed. Images have three.
MIN_CHANNELS, IMAGE_CHANNELS = 16, 3
MANY_CHANNELS = 64
FEW_POSITIONS = 64  # of an output
MAX_BYTES = 2**31  # of an array; beyond it oneDNN's kernels could overflow an int


@functools.cache
def installed() -> bool:
    """Whether oneDNN and numba are installed, on a system that they are written for; loads neither."""
    return machine_code.supported() and _library() is not None


def _library():
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [pathlib.Path(str(f.locate())) for f in files if f.name == 'libdnnl.so.3']
    return next((path.resolve() for path in paths if path.exists()), None)


@functools.cache
def _load():
    """Register the handler with XLA; `supports` of `_onednn_handler`, or None if it cannot be used."""
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

    supports = _onednn_handler.compile_supports(library)
    machine_code.register(TARGET, _onednn_handler.make_handler)
    return supports


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
    static = ('strides', 'padding', 'precision') + (() if kind == 'forward' else ('size',))
    attributes = functools.partial(_attributes, kind)
    primitive = machine_code.define(f'onednn_{kind}', plain, static, TARGET, attributes)

    @functools.wraps(plain)
    def call(a: Float[Array, '...'], b: Float[Array, '...'], **options: Any) -> Float[Array, '...']:
        if not _may_replace(a, b, options['precision']):
            return plain(a, b, **options)
        return primitive.bind(a, b, **options)[0]

    return call


def _may_replace(a, b, precision):
    both = precision if isinstance(precision, tuple) else (precision,)
    is_float32 = a.dtype == b.dtype == np.float32
    is_full = all(p is None or isinstance(p, lax.Precision) for p in both)
    sizes = (*a.shape, *b.shape)
    return installed() and is_float32 and is_full and all(type(n) is int and n > 0 for n in sizes)


def _attributes(kind, ctx, strides, padding, precision, size=None):
    """The attributes of a call of oneDNN in the program being lowered, or None where the plain form must be used."""
    shapes = [aval.shape for aval in (*ctx.avals_in, *ctx.avals_out)]
    x, kernel, y = {
        'forward': shapes,
        'input_gradient': (shapes[2], shapes[1], shapes[0]),
        'kernel_gradient': (shapes[0], shapes[2], shapes[1]),
    }[kind]
    within = all(4 * int(np.prod(shape)) < MAX_BYTES for shape in shapes)
    nonempty = all(n > 0 for shape in shapes for n in shape)
    padded = all(0 <= p < k for k, pads in zip(kernel, padding, strict=False) for p in pads)
    if not (within and nonempty and padded and _pays(kind, kernel, padding, y)):
        return None
    (top, bottom), (left, right) = padding
    window = np.array([KINDS.index(kind), *strides, top, left, bottom, right], np.int64)
    with machine_code.LOCK:
        supports = _load()
    arrays = (np.array(shape, np.int64) for shape in (x, kernel, y))
    return {'window': window} if supports and supports(*arrays, window) else None


def _pays(kind, kernel, padding, y):
    """Whether oneDNN is faster than the plain form: measured in tests/benchmarks/vision_speed.py."""
    if kernel[3] < MIN_CHANNELS or (kernel[2] < MIN_CHANNELS and kernel[2] != IMAGE_CHANNELS):
        return False
    is_product = tuple(kernel[:2]) == (1, 1) and not any(map(any, padding))
    if kind == 'kernel_gradient':
        is_flat = kernel[2] >= MANY_CHANNELS and y[1] * y[2] <= FEW_POSITIONS
        return is_product or not is_flat
    return not is_product
