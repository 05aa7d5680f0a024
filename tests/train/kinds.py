"""Five learners whose sweeps have to agree however they are run; the experiment of test_equality."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.sparse.dictionary import online

KINDS = ('sgd', 'adam', 'dictionary', 'dropout', 'batch_norm')


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: int = 10
    batch_size: int = 16
    log_every: int = 1
    evaluate_every: int = 10
    save_every: int = 10
    # Learner to train.
    kind: Literal['sgd', 'adam', 'dictionary', 'dropout', 'batch_norm'] = 'sgd'
    # Learning rate; the L1 penalty of dictionary learning.
    rate: float = 0.05


METRICS = (
    train.Metric('size', better='lower', primary=True),
    train.Metric('sum'),
    train.Metric('loss', better='lower'),
    train.Metric('error', better='lower'),
)


class Network(nn.Module):
    """A hidden layer, with one of the two layers that sweeps have to treat with care."""

    kind: str

    @nn.compact
    def __call__(self, x, train: bool = False):
        # a bias before batch norm has gradient zero, of which Adam makes steps of rounding noise
        x = nn.Dense(12, use_bias=self.kind != 'batch_norm')(x)
        if self.kind == 'batch_norm':
            x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.relu(x)
        if self.kind == 'dropout':
            x = nn.Dropout(0.4, deterministic=not train)(x)
        return nn.Dense(8)(x)


def data(config):
    x = np.random.default_rng(config.seed).normal(size=(64, 8)).astype(np.float32)
    return train.in_memory({'x': x}, config.batch_size, seed=config.seed, evaluation=x)


def build(config, spec):
    if config.kind == 'dictionary':
        return learner(config)
    rule = optax.sgd if config.kind == 'sgd' else optax.adam
    network = Network(config.kind)

    def loss(outputs, batch):
        return jnp.square(outputs - batch['x']).sum(1).mean(), {}

    def evaluate(variables, x):
        return {'error': jnp.square(network.apply(variables, x) - x).sum(1).mean()}

    return train.supervised(network, rule(config.rate), loss, evaluate, inputs='x')


def learner(config):
    def init(key, batch):
        return online.init(key, batch['x'], 12)

    def step(state, batch, key, *, reduce):
        new, metrics = online.step(
            state, batch['x'], key, penalty_weight=config.rate, reduce=reduce
        )
        return new, {'loss': metrics['objective']}

    def evaluate(state, x):
        return {'error': jnp.square(x - x @ state.atoms @ state.atoms.T).sum(1).mean()}

    return train.from_learner(init, step, evaluate)


def apply(config, spec):
    return {}


def report(config, state, data):
    # every number of the state, weighted: two states that differ anywhere differ here
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(state)]
    numbers = np.concatenate(leaves)
    weights = np.random.default_rng(0).normal(size=numbers.shape)
    return train.Report(
        metrics={'size': float(np.abs(numbers).sum()), 'sum': float(weights @ numbers)}
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS)
