"""How a learner computes the gradient of a batch: at once, or in less memory, in parts or by rematerialization."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lecture4.train.config import UsageError

MISSING = {
    'accumulate': 'this experiment has a training step of its own, which takes whole batches',
    'remat': 'only image classifiers, a ResNet, VGG or GoogLeNet, compute their blocks again',
}


@dataclasses.dataclass
class Options:
    """How gradients are computed within `computed`.

    Attributes:
      accumulate: Number of parts of a batch whose gradients are averaged, one part in memory at a time.
      remat: The backward pass computes the layers of a network's blocks again in place of storing their activations.
      applied: Those of the two that a step made use of.
    """

    accumulate: int = 1
    remat: bool = False
    applied: set[str] = dataclasses.field(default_factory=set)


_current: contextvars.ContextVar[Options | None]
_current = contextvars.ContextVar('options of gradients', default=None)


@contextlib.contextmanager
def computed(accumulate: int = 1, remat: bool = False) -> Iterator[None]:
    """Context in which the steps of `optimize` and `supervised` that are traced compute gradients in less memory.

    Parts of a batch are interleaved, so that each lies on all devices. The loss is the mean of those of the parts; each
    part has its own noise and, where a network has batch norm, its own batch statistics, which update the running
    averages. So the loss has to be a mean over examples.

    Args:
      accumulate: See `Options`.
      remat: See `Options`; for networks with an attribute of that name.

    Raises:
      UsageError: No step made use of an option.
    """
    options = Options(accumulate, remat)
    token = _current.set(options)
    try:
        yield
    finally:
        _current.reset(token)
    for name, is_wanted in (('accumulate', accumulate > 1), ('remat', remat)):
        if is_wanted and name not in options.applied:
            raise UsageError(f'--{name}: {MISSING[name]}; omit it')


def rematerialized(network: Any) -> Any:
    """The network, with `remat` set where the context says so."""
    options = _current.get() or Options()
    if not options.remat or not hasattr(network, 'remat'):
        return network
    options.applied.add('remat')
    return network.clone(remat=True)


def value_and_grad(value_of: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient of a mean over a batch with respect to parameters, in as many parts as the context says.

    Args:
      value_of: (params, model_state, batch, key, reduce) -> (value, (metrics, model_state)).

    Returns:
      The same arguments -> (metrics with the value as 'loss', model_state, gradient).
    """
    gradient = jax.value_and_grad(value_of, has_aux=True)

    def run(params, model_state, batch, key, reduce):
        options = _current.get() or Options()
        options.applied.add('accumulate')
        n = options.accumulate
        if n == 1:
            (value, (metrics, model_state)), grads = gradient(
                params, model_state, batch, key, reduce
            )
            return {'loss': value, **metrics}, model_state, grads

        def parts(leaf):
            rows = leaf.shape[0]
            if rows % n:
                raise UsageError(
                    f'--accumulate {n}: expected a divisor of the {rows} examples of a device'
                )
            return leaf.reshape(rows // n, n, *leaf.shape[1:]).swapaxes(0, 1)

        def body(carry, inputs):
            model_state, total = carry
            part, i = inputs
            (value, (metrics, model_state)), grads = gradient(
                params, model_state, part, jax.random.fold_in(key, i), reduce
            )
            return (model_state, optax.tree.add(total, grads)), {'loss': value, **metrics}

        start = model_state, jax.tree.map(jnp.zeros_like, params)
        inputs = jax.tree.map(parts, batch), jnp.arange(n)
        (model_state, total), metrics = jax.lax.scan(body, start, inputs)
        mean = jax.tree.map(lambda leaf: leaf / n, total)
        return jax.tree.map(lambda leaf: leaf.mean(0), metrics), model_state, mean

    return run
