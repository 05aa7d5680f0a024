"""Gradients against finite differences, of a compiled function: far fewer programs than of an eager one."""

import jax
from jax import test_util


def check_grads(fn, args, order, **options):
    test_util.check_grads(jax.jit(fn), args, order, **options)
