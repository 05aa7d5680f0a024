"""Five learners whose sweeps have to agree however they are run; the experiment of test_equality."""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.sparse.dictionary import online

KINDS = ('sgd', 'adam', 'dictionary', 'dropout', 'batch_norm')


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    steps: int = 10
    batch_size: int = 16
    log_every: int = 1
    evaluate_every: int = 10
    save_every: int = 10
    kind: Literal['sgd', 'adam', 'dictionary', 'dropout', 'batch_norm'] = 'sgd'
    rate: float = 0.05  # learning rate; of dictionary learning the weight of the penalty


class Network(nn.Module):
    """A hidden layer, with one of the two layers that sweeps have to treat with care."""

    kind: str

    @nn.compact
    def __call__(self, x, learning: bool):
        # a bias before batch norm has gradient zero, of which Adam makes steps of rounding noise
        x = nn.Dense(12, use_bias=self.kind != 'batch_norm')(x)
        if self.kind == 'batch_norm':
            x = nn.BatchNorm(use_running_average=not learning, momentum=0.8)(x)
        x = nn.relu(x)
        if self.kind == 'dropout':
            x = nn.Dropout(0.4, deterministic=not learning)(x)
        return nn.Dense(8)(x)


class Normalised(NamedTuple):
    params: Any
    statistics: Any
    opt_state: Any


def data(config):
    x = np.random.default_rng(config.seed).normal(size=(64, 8)).astype(np.float32)
    return train.in_memory(x, config.batch_size, seed=config.seed, evaluation=x)


def build(config):
    if config.kind == 'dictionary':
        return learner(config)
    if config.kind == 'batch_norm':
        return normalised(config)
    rule = optax.sgd if config.kind == 'sgd' else optax.adam
    network = Network(config.kind)

    def init(key, batch):
        return network.init(key, batch, False)

    def loss(params, batch, key):
        found = network.apply(params, batch, True, rngs={'dropout': key})
        return jnp.square(found - batch).sum(1).mean(), {}

    def evaluate(params, x):
        return {'error': jnp.square(network.apply(params, x, False) - x).sum(1).mean()}

    return train.optimise(init, loss, rule(config.rate), evaluate)


def normalised(config):
    network, rule = Network('batch_norm'), optax.adam(config.rate)

    def init(key, batch):
        made = network.init(key, batch, False)
        return Normalised(made['params'], made['batch_stats'], rule.init(made['params']))

    def step(state, batch, key, *, axis_name=None):
        def loss_fn(params):
            given = {'params': params, 'batch_stats': state.statistics}
            found, new = network.apply(given, batch, True, mutable=['batch_stats'])
            return jnp.square(found - batch).sum(1).mean(), new['batch_stats']

        (loss, statistics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        with jax.numpy_dtype_promotion('standard'):
            updates, opt_state = rule.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return Normalised(params, statistics, opt_state), {'loss': loss}

    def evaluate(state, x):
        given = {'params': state.params, 'batch_stats': state.statistics}
        return {'error': jnp.square(network.apply(given, x, False) - x).sum(1).mean()}

    return train.Task(init, step, evaluate)


def learner(config):
    def init(key, batch):
        return online.init(key, batch, 12)

    def step(state, batch, key, *, axis_name=None):
        new, metrics = online.step(state, batch, key, weight=config.rate, axis_name=axis_name)
        return new, {'loss': metrics['objective']}

    def evaluate(state, x):
        return {'error': jnp.square(x - x @ state.atoms @ state.atoms.T).sum(1).mean()}

    return train.Task(init, step, evaluate)


def report(config, state, data):
    # every number of the state, weighted: two states that differ anywhere differ here
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(state)]
    numbers = np.concatenate(leaves)
    weights = np.random.default_rng(0).normal(size=numbers.shape)
    return train.Report(
        metrics={'size': float(np.abs(numbers).sum()), 'sum': float(weights @ numbers)}
    )


if __name__ == '__main__':
    train.main(Config, data, build, report)
