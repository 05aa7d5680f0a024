"""Bilinear sampling of few channels by machine code in programs for one CPU, where numba is installed.

`accelerated` marks the plain JAX form of the sampler. Without numba (`lecture4[onednn]` brings it), its calls are calls
of the plain form. With it, calls in float32 become primitives, computed by a handler that numba compiles
(ops/_bilinear_handler) in programs for a CPU that need no partitioning: one device, shard_map, pmap. They are the plain
form everywhere else: on other devices, in jit over several devices, under vmap, in derivatives of second order, in
programs of `jax.export`. The choice is made while a program is lowered.

XLA's CPU backend takes a loop over scalars for a gather, and another one, on one core, for each scatter: four of both.
The handler takes one loop over the points, on all cores. Its numbers differ from the plain form's by rounding.
The first program compiles the handler, for about 30 s; later processes read it from numba's cache.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from lecture4.ops import ffi
from lecture4.ops.varying import vary_together

TARGET = 'lecture4_bilinear'
FEW_CHANNELS = 4  # of more, the plain form copies whole rows
MAX_PIXELS = 2**31 - 2  # of an image: positions are uint32 with two marks

_LOCK = threading.Lock()


@functools.cache
def installed() -> bool:
    """Whether numba is installed, on a system that the handler is written for; does not load it."""
    return ffi.numba_installed()


@functools.cache
def _load():
    """Register the handler with XLA; the compiled functions, or None if it cannot be used."""
    version = ffi.api_version()
    if version is None:
        return None
    from lecture4.ops import _bilinear_handler  # compiles: for seconds without numba's cache

    functions = _bilinear_handler.compile_handler(version)
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(functions[0].ctypes), platform='cpu')
    return functions  # whose machine code lives as long as they do


def accelerated(plain: Callable[..., Array]) -> Callable[..., Array]:
    """Decorator: compute a plain form of bilinear sampling by machine code where that is possible.

    Args:
      plain: (images [n, h, w, c], y [n, p], x [n, p], **options) -> values [n, p, c] at positions in pixels, zero
        outside, NaN at NaN; options hashable. Where its values are not zero outside, no position may be outside, and
        gradients by positions at the last pixel have to be ignored by the caller.
    """

    def transposed(images, y, x, g, **options):
        return jax.vjp(functools.partial(plain, **options), images, y, x)[1](g)

    static = [
        p.name for p in inspect.signature(plain).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    values = _primitive('bilinear', lambda *args, **options: (plain(*args, **options),), static)
    gradients = _primitive('bilinear_gradients', transposed, static)

    @functools.wraps(plain)
    def sample(
        images: Float[Array, 'n h w c'],
        y: Float[Array, 'n p'],
        x: Float[Array, 'n p'],
        **options: Any,
    ) -> Float[Array, 'n p c']:
        if not _may_replace(images, y, x):
            return plain(images, y, x, **options)

        @jax.custom_vjp
        def call(*args):
            return values.bind(*args, **options)[0]

        def backward(saved, g):
            return tuple(gradients.bind(*saved, g, **options))

        call.defvjp(lambda *args: (call(*args), args), backward)
        return call(*vary_together(images, y, x))

    return sample


def _may_replace(images, y, x):
    is_float32 = images.dtype == y.dtype == x.dtype == np.float32
    sizes = (*images.shape, *x.shape)
    is_static = all(type(n) is int and n > 0 for n in sizes)
    return (
        installed()
        and is_float32
        and is_static
        and sizes[3] <= FEW_CHANNELS
        and sizes[1] * sizes[2] <= MAX_PIXELS
    )


def _primitive(name, plain, static):
    """A primitive for a function with a tuple of results, the handler where it can be used and `plain` elsewhere."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=static))

    @primitive.def_abstract_eval
    def shapes(*args, **options):
        return jax.make_jaxpr(functools.partial(plain, **options))(*args).out_avals

    def jvp(primals, tangents, **options):
        tangents = tuple(map(ad.instantiate_zeros, tangents))
        return jax.jvp(functools.partial(plain, **options), primals, tangents)

    def batch(args, axes, **options):
        results = jax.vmap(functools.partial(plain, **options), axes)(*args)
        return results, (0,) * len(results)

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    lower_plain = mlir.lower_fun(plain, multiple_results=True)

    def lower(ctx, *args, **options):
        if ffi.on_one_device(ctx.module_context):
            with _LOCK:  # XLA refuses a second registration
                loaded = _load()
            if loaded is not None:
                return jax.ffi.ffi_lowering(TARGET)(ctx, *args)
        return lower_plain(ctx, *args, **options)

    mlir.register_lowering(primitive, lower_plain)
    mlir.register_lowering(primitive, lower, platform='cpu')
    return primitive
