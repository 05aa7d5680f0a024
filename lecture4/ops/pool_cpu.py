"""Max pooling of feature maps by machine code in programs for one CPU, where numba is installed.

XLA's CPU backend takes a pass over memory for each position of a window and axis, and for the gradient writes masks of
all of them. The machine code takes one pass, and a second one for the gradient, on XLA's threads;
tests/benchmarks/vision_speed.py has training steps with and without it. Values are equal, gradients up to the order of
sums. `ops.machine_code` says in which programs it runs. The first program compiles it, for about 10 s; numba's cache
keeps it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.interpreters import ad
from jaxtyping import Array, Float

from lecture4.ops import machine_code
from lecture4.ops.receptive_field import Windows

TARGET = 'lecture4_max_pool'
MIN_CHANNELS = 64


def applies(x: Float[Array, 'n *size c'], dilations: tuple[int, ...]) -> bool:
    """Whether the machine code is written for such an input."""
    if not machine_code.supported() or x.ndim != 4 or x.dtype != np.float32:
        return False
    is_static = all(type(n) is int and n > 0 for n in x.shape)
    return is_static and x.shape[-1] >= MIN_CHANNELS and set(dilations) == {1}


def accelerated(plain: Callable[[Array, Windows], Array]) -> Callable[[Array, Windows], Array]:
    """Max pooling, differentiable in both modes, for arguments that `applies` accepts.

    Args:
      plain: Its plain form, (x [n, h, w, c], windows) -> maxima [n, *out, c].
    """

    def tangents(x, dx, placed):
        return jax.jvp(lambda x: plain(x, placed), (x,), (dx,))[1]

    def gradients(x, g, placed):
        return jax.vjp(lambda x: plain(x, placed), x)[1](g)[0]

    define = functools.partial(machine_code.define, static=('placed',), target=TARGET)
    forward = define('max_pool', plain, attributes=functools.partial(_attributes, 0))
    tangent = define('max_pool_tangent', tangents, attributes=lambda *_, **__: None)
    gradient = define('max_pool_gradient', gradients, attributes=functools.partial(_attributes, 1))

    def differentiate(primals, tangents, placed):
        dy = tangent.bind(*primals, ad.instantiate_zeros(tangents[0]), placed=placed)
        return forward.bind(*primals, placed=placed), dy

    def transpose(g, x, dx, placed):
        return None, *gradient.bind(x, ad.instantiate_zeros(g[0]), placed=placed)

    ad.primitive_jvps[forward] = differentiate
    ad.primitive_transposes[tangent] = transpose
    return lambda x, placed: forward.bind(x, placed=placed)[0]


def _attributes(kind: int, context: Any, placed: Windows) -> dict[str, np.ndarray]:
    from lecture4.ops._pool_handler import make_handler  # loads numba

    machine_code.register(TARGET, make_handler)
    low = [low for low, _ in placed.padding]
    return {'options': np.array([kind, *placed.window, *placed.stride, *low], np.int64)}
