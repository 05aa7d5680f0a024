"""A tied linear autoencoder on random data: the smallest experiment, for the tests of the loop."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    steps: int = 30
    batch_size: int = 16
    log_every: int = 1
    save_every: int = 10
    evaluate_every: int = 10
    hidden: int = 3  # width of the code
    weight: float = 0.01  # weight of the squared code
    noise: float = 0.0  # standard deviation of the noise on the input
    learning_rate: float = 0.05  # of Adam
    delay: float = 0.0  # seconds that a batch takes to come
    bad_at: int = -1  # step whose batch holds a NaN
    examples: int = 64  # examples in the set

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'weight', self.weight >= 0, 'at least 0')


PRESETS = {'smoke': {'steps': 4}, 'wide': {'hidden': 5}}
SWEEPS = {
    'weight': train.grid(weight=(0.0, 0.01, 0.1), seed=(0, 1)),
    'hidden': train.grid(hidden=(2, 3), weight=(0.0, 0.1)),
    'data': train.grid(delay=(0.0, 0.001)),
    'unknown': train.grid(widht=(2, 3)),
}


def data(config):
    if config.examples < 1:
        raise ValueError(f'--examples {config.examples}: a set needs at least 1')
    x = np.random.default_rng(config.seed).normal(size=(config.examples, 8)).astype(np.float32)
    found = train.in_memory(x, config.batch_size, seed=config.seed, evaluation=x)
    delay, bad_at = config.delay, config.bad_at

    def batch(n):
        time.sleep(delay)
        rows = found.batch(n)
        return {'rows': rows, 'bad': np.full(rows.shape, n == bad_at)}

    def prepare(resident, batch, key):
        return jnp.where(
            batch['bad'][:, None], jnp.nan, found.prepare(resident, batch['rows'], key)
        )

    return dataclasses.replace(found, batch=batch, prepare=prepare)


def build(config):
    def init(key, batch):
        return jax.random.normal(key, (batch.shape[1], config.hidden)) * 0.3

    def loss(params, batch, key):
        noisy = batch + config.noise * jax.random.normal(key, batch.shape)
        h = noisy @ params
        error = jnp.square(h @ params.T - batch).sum(1).mean()
        size = jnp.square(h).sum(1).mean()
        return error + config.weight * size, {'error': error}

    def evaluate(params, x):
        return {'error': jnp.square(x @ params @ params.T - x).sum(1).mean()}

    def encode(state, rows):
        return {'codes': rows @ state.params}

    task = train.optimise(init, loss, optax.adam(config.learning_rate), evaluate)
    return task._replace(encode=encode)


def report(config, state, data):
    error = float(build(config).evaluate(state, data.evaluation)['error'])
    return train.Report(
        metrics={'final_error': error},
        tables=(train.Table('Error', ('width', 'error'), ((config.hidden, error),)),),
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
