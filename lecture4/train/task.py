"""What an experiment hands to the loop: a Task (pure functions) and its Data (pure batches)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from lecture4.data import batches

PyTree = Any
Metrics = dict[str, jax.Array]


class Task(NamedTuple):
    """The arithmetic of an experiment; everything that iterates has this shape.

    init      (key, batch) -> state, a pytree of arrays.
    step      (state, batch, key, *, axis_name=None) -> (state, metrics), metrics a dict of scalars.
              `axis_name` is None under jit, where a mean over the batch is a mean over all
              devices. Under pmap it names the device axis, and gradients or statistics have to be
              averaged over it (`jax.lax.pmean`): of the gradients, never of the loss inside the
              gradient, which would leave each device its own gradient.
    evaluate  (state, evaluation) -> metrics, or None.
    encode    (state, rows) -> {name: array [n, ...]}, each row by itself, or None: what
              `--stage encode` spreads over devices and processes.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    step: Callable[..., tuple[PyTree, Metrics]]
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None
    encode: Callable[[PyTree, PyTree], Metrics] | None = None


def evaluated(task: Task, state: PyTree, evaluation: PyTree) -> dict[str, float]:
    """What the task measures of a state, as plain numbers; none where it measures nothing."""
    if task.evaluate is None:
        return {}
    return {name: float(v) for name, v in jax.jit(task.evaluate)(state, evaluation).items()}


def use_batch(resident, batch, key):
    """The batch as it came: the `prepare` of data that needs no preparation."""
    del resident, key
    return batch


@dataclasses.dataclass(frozen=True)
class Data:
    """The batches of an experiment; batch n is a pure function of (seed, n).

    batch       n -> pytree of numpy arrays with a leading batch axis, made on the host.
    resident    pytree of arrays that every device keeps for the whole run.
    prepare     (resident, batch, key) -> what `Task.step` sees, inside the compiled step: a
                gather from the resident arrays, an augmentation.
    evaluation  pytree that `Task.evaluate` sees.
    extra       whatever the experiment's report needs besides: labelled sets, a fitted whitening.
    part        (n, start, stop) -> rows start .. stop - 1 of batch n, for batches that are dear to
                make: of several processes each then makes no rows but its own. None cuts them out.
    rows        pytree of arrays [n, ...] on the host, which `--stage encode` encodes; None takes
                the resident arrays.
    """

    batch: Callable[[int], PyTree]
    resident: PyTree = ()
    prepare: Callable[[PyTree, PyTree, jax.Array], PyTree] = use_batch
    evaluation: PyTree = None
    extra: Any = None
    part: Callable[[int, int, int], PyTree] | None = None
    rows: PyTree = None


def gather(resident, rows, key):
    """Rows of every resident array: the `prepare` of sets that fit on the device."""
    del key
    return jax.tree.map(lambda array: array[rows], resident)


def in_memory(arrays, batch_size, *, seed, evaluation=None, extra=None):
    """Data whose arrays lie on the device; what travels at each step are row numbers.

    Shapes  every array of `arrays` [n, ...], with the same n.
    Errors  ValueError where the lengths differ.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(f'arrays of one set have different lengths {sorted(lengths)}')
    (n_examples,) = lengths
    return Data(
        batch=lambda n: batches.indices(seed, n, n_examples, batch_size),
        resident=jax.tree.map(np.asarray, arrays),
        prepare=gather,
        evaluation=evaluation,
        extra=extra,
    )


class Trained(NamedTuple):
    """State of an optax loop."""

    params: PyTree
    opt_state: PyTree


def optimise(init_fn, loss_fn, optimizer: optax.GradientTransformation, evaluate=None) -> Task:
    """The optax loop as a Task.

    init_fn    (key, batch) -> params.
    loss_fn    (params, batch, key) -> (loss, metrics): loss the mean over the batch, metrics a
               dict of scalars that are means over the batch too.
    evaluate   (params, evaluation) -> metrics.

    Under pmap each device draws its own randomness: its key is folded with the device's index.
    """

    def init(key, batch):
        params = init_fn(key, batch)
        return Trained(params, optimizer.init(params))

    def step(state, batch, key, *, axis_name=None):
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = grad_fn(state.params, batch, key)
        metrics = {'loss': loss, **metrics}
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        with jax.numpy_dtype_promotion('standard'):  # optax's adam mixes integers and floats
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return Trained(optax.apply_updates(state.params, updates), opt_state), metrics

    evaluate_state = None
    if evaluate is not None:
        evaluate_state = lambda state, evaluation: evaluate(state.params, evaluation)  # noqa: E731
    return Task(init, step, evaluate_state)
