"""Tasks made of a loss and an optax optimizer, of a flax network, of a learner, or of phases."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients
from lecture4.train import gradients
from lecture4.train.task import Metrics, PyTree, Task


class State(NamedTuple):
    """The state of every training run.

    Attributes:
      step: Number of steps taken, int32.
      params: Pytree of parameters.
      opt_state: State of the optimizer.
      model_state: Further state of the model: batch statistics, averages of parameters, counters.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree = ()
    model_state: PyTree = ()


def optimize(
    init: Callable[[jax.Array, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
) -> Task:
    """Minimize a loss of parameters with optax.

    Args:
      init: (key, batch) -> params.
      loss: (params, batch, key) -> (loss, metrics): means over the batch.
      optimizer: Any optax transformation.
      evaluate: (params, evaluation) -> metrics.

    Returns:
      A Task over `State`. Under pmap each device uses its own random key.
    """

    def value_of(params, model_state, batch, key, reduce):
        del model_state, reduce
        value, metrics = _loss_and_metrics(loss(params, batch, key))
        return value, (metrics, ())

    def init_state(key, batch):
        params = init(key, batch)
        return State(jnp.int32(0), params, optimizer.init(params))

    step = _gradient_step(value_of, optimizer)
    return Task(init_state, step, _evaluate(evaluate, _params))


def lbfgs(
    init: Callable[[jax.Array, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], jax.Array],
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
    *,
    memory_size: int = 20,
) -> Task:
    """Minimize a loss of the whole data set by L-BFGS with a line search; one step is one iteration.

    Args:
      init: (key, batch) -> params.
      loss: (params, batch) -> loss; the batch is the whole set, see `full_batch`.
      evaluate: (params, evaluation) -> metrics.
      memory_size: Past steps that approximate the inverse Hessian.

    Returns:
      A Task over `State`; under pmap its step raises ValueError.
    """
    optimizer = optax.lbfgs(memory_size=memory_size)

    def init_state(key, batch):
        params = init(key, batch)
        return State(jnp.int32(0), params, optimizer.init(params))

    def step(state: State, batch: PyTree, key: jax.Array, reduce: Reduce) -> tuple[State, Metrics]:
        del key
        if reduce.axis_name is not None:
            raise ValueError(
                'a line search needs the whole data set on every device; use --parallel jit'
            )

        def value_fn(params):
            return loss(params, batch)

        with jax.numpy_dtype_promotion('standard'):
            value, grad = optax.value_and_grad_from_state(value_fn)(
                state.params, state=state.opt_state
            )
        search = {'value': value, 'grad': grad, 'value_fn': value_fn}
        params, opt_state = apply_gradients(
            optimizer, grad, state.opt_state, state.params, **search
        )
        return State(state.step + 1, params, opt_state), {'loss': jnp.asarray(value)}

    return Task(init_state, step, _evaluate(evaluate, _params))


def supervised(
    network: Any,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Any, PyTree], tuple[jax.Array, Metrics]],
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
    *,
    inputs: str = 'images',
    initial: PyTree = None,
    polyak_start: int | None = None,
    project: Callable[[PyTree], PyTree] | None = None,
) -> Task:
    """Train a flax network on labeled examples.

    Batch statistics are kept in `State.model_state` and averaged over all devices; dropout uses the step's key.

    Args:
      network: A flax module, applied as `network.apply(variables, batch[inputs], train=True)`; an
        `axis_name` attribute, where it has one, is set under pmap, and `model_axes` becomes that of the Task.
      optimizer: Any optax transformation.
      loss: (outputs, batch) -> (loss, metrics): means over the batch.
      evaluate: (variables, evaluation) -> metrics; see `variables`.
      inputs: Entry of the batch that the network takes as input.
      initial: Variables to start from in place of the network's initial ones; entries that are None keep the latter.
      polyak_start: Step from which on parameters and statistics are averaged (Polyak & Juditsky
        1992); the averages are what `variables` returns. None keeps no average.
      project: Constraint on the parameters, applied after each update.

    Returns:
      A Task over `State`.
    """

    def value_of(params, model_state, batch, key, reduce):
        net = gradients.rematerialized(network)
        if reduce.axis_name is not None and hasattr(network, 'axis_name'):
            net = net.clone(axis_name=reduce.axis_name)
        outputs, new = net.apply(
            {'params': params, **model_state['network']},
            batch[inputs],
            train=True,
            rngs={'dropout': key},
            mutable=list(model_state['network']) or ['batch_stats'],
        )
        value, metrics = _loss_and_metrics(loss(outputs, batch))
        return value, (metrics, {**model_state, 'network': dict(new)})

    def init_state(key, batch):
        found = dict(network.init(key, batch[inputs]))
        params = found.pop('params')
        model_state = {'network': found}
        if polyak_start is not None:
            model_state['polyak'] = {'params': params, **found}
        return State(jnp.int32(0), params, optimizer.init(params), model_state)

    gradient_step = _gradient_step(value_of, optimizer)

    def step(state: State, batch: PyTree, key: jax.Array, reduce: Reduce) -> tuple[State, Metrics]:
        n = state.step
        state, metrics = gradient_step(state, batch, key, reduce)
        if project is not None:
            state = state._replace(params=project(state.params))
        if polyak_start is not None:
            new = {'params': state.params, **state.model_state['network']}
            weight = 1 / (jnp.maximum(n - polyak_start, 0) + 1).astype(jnp.float32)
            mean = optax.incremental_update(new, state.model_state['polyak'], weight)
            state = state._replace(model_state={**state.model_state, 'polyak': mean})
        return state, metrics

    def start(state: State) -> State:
        current = {'params': state.params, **state.model_state['network']}
        given = jax.tree.map(lambda v, w: w if v is None else v, initial, current, is_leaf=_is_none)
        params, rest = given['params'], {name: given[name] for name in given if name != 'params'}
        model_state = {**state.model_state, 'network': rest}
        if polyak_start is not None:
            model_state['polyak'] = {'params': params, **rest}
        return State(state.step, params, optimizer.init(params), model_state)

    return Task(
        init_state,
        step,
        _evaluate(evaluate, variables),
        None if initial is None else start,
        getattr(network, 'model_axes', {}),
    )


def variables(state: State) -> PyTree:
    """The variables of a trained flax network: averaged ones where an average was kept."""
    if 'polyak' in state.model_state:
        return state.model_state['polyak']
    return {'params': state.params, **state.model_state['network']}


def on_variables(function: Callable[[Any], Any]) -> Callable[[State], Any]:
    """A function of a network's variables as one of the state, for `apply`."""

    def of_state(state: State) -> Any:
        return function(variables(state))

    return of_state


def from_learner(
    init: Callable[[jax.Array, PyTree], PyTree],
    step: Callable[..., tuple[PyTree, Metrics]],
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
    *,
    model_axes: Mapping[str, int] | None = None,
) -> Task:
    """A learner with its own kind of state (a dictionary, a solver) as a Task.

    Args:
      init: (key, batch) -> the learner's state.
      step: (learner's state, batch, key, *, reduce) -> (learner's state, metrics).
      evaluate: (learner's state, evaluation) -> metrics.
      model_axes: See `Task`.

    Returns:
      A Task over `State`, whose `params` is the learner's state.
    """

    def init_state(key, batch):
        return State(jnp.int32(0), init(key, batch))

    def step_state(state: State, batch: PyTree, key: jax.Array, reduce: Reduce):
        params, metrics = step(state.params, batch, key, reduce=reduce)
        return State(state.step + 1, params), metrics

    return Task(
        init_state, step_state, _evaluate(evaluate, _params), model_axes=dict(model_axes or {})
    )


def phases(
    init: Callable[[jax.Array, PyTree], PyTree],
    losses: Sequence[Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, Metrics]]],
    optimizer: optax.GradientTransformation | Sequence[optax.GradientTransformation],
    boundaries: Sequence[int],
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
) -> Task:
    """Phases that follow one another over the same parameters, such as layer-by-layer pretraining.

    Args:
      init: (key, batch) -> params.
      losses: One (params, batch, key) -> (loss, metrics) per phase, all with the same metrics.
      optimizer: One for all phases, or one per phase; its state is new at the start of each phase,
        and has one structure for all.
      boundaries: Steps at which the next phase starts, one fewer than there are losses, increasing.
      evaluate: (params, evaluation) -> metrics.

    Returns:
      A Task over `State`.

    Raises:
      ValueError: The numbers of losses, optimizers and boundaries do not agree.
    """
    optimizers: list[optax.GradientTransformation]
    if isinstance(optimizer, optax.GradientTransformation):
        optimizers = [optimizer] * len(losses)
    else:
        optimizers = list(optimizer)
    if len(boundaries) != len(losses) - 1 or len(optimizers) != len(losses):
        raise ValueError(
            f'{len(losses)} losses, {len(optimizers)} optimizers and {len(boundaries)} boundaries; '
            'expected as many optimizers as losses and one boundary fewer'
        )
    steps = [optimize(init, loss, own).step for loss, own in zip(losses, optimizers, strict=True)]
    limits = jnp.asarray(boundaries, jnp.int32)

    def init_state(key, batch):
        params = init(key, batch)
        return State(jnp.int32(0), params, optimizers[0].init(params))

    def step(state: State, batch: PyTree, key: jax.Array, reduce: Reduce) -> tuple[State, Metrics]:
        phase = jnp.searchsorted(limits, state.step, side='right')
        is_first = jnp.any(limits == state.step)

        def branch(i):
            def run(state):
                fresh = optimizers[i].init(state.params)
                opt_state = jax.tree.map(
                    lambda new, old: jnp.where(is_first, new, old), fresh, state.opt_state
                )
                return steps[i](state._replace(opt_state=opt_state), batch, key, reduce)

            return run

        return jax.lax.switch(phase, [branch(i) for i in range(len(steps))], state)

    return Task(init_state, step, _evaluate(evaluate, _params))


def _loss_and_metrics(returned: Any) -> tuple[jax.Array, Metrics]:
    """The result of a loss, checked to be a pair of a scalar and a dict."""
    pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not pair or not isinstance(returned[1], Mapping) or jnp.ndim(returned[0]):
        what = type(returned).__name__
        if isinstance(returned, jax.Array):
            what = f'an array of shape {returned.shape}'
        elif pair:
            what = f'a loss of shape {jnp.shape(returned[0])} and a {type(returned[1]).__name__}'
        raise TypeError(f'the loss returned {what}; expected (loss, metrics): a scalar and a dict')
    return returned[0], dict(returned[1])


def _params(state: State) -> PyTree:
    return state.params


def _is_none(leaf):
    return leaf is None


def _evaluate(evaluate: Callable | None, view: Callable[[State], PyTree]):
    """`evaluate` of what `view` takes out of a state, or None."""
    if evaluate is None:
        return None

    def run(state: State, evaluation: PyTree) -> Metrics:
        return evaluate(view(state), evaluation)

    return run


def _gradient_step(value_of, optimizer):
    """A step over `State` for the function that `gradients.value_and_grad` takes."""
    gradient = gradients.value_and_grad(value_of)

    def step(state: State, batch: PyTree, key: jax.Array, reduce: Reduce) -> tuple[State, Metrics]:
        metrics, model_state, grads = gradient(
            state.params, state.model_state, batch, reduce.fold_in(key), reduce
        )
        grads, metrics = reduce.mean((grads, metrics))
        params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
        return State(state.step + 1, params, opt_state, model_state), metrics

    return step
