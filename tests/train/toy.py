"""A tied linear autoencoder on random data: the smallest experiment, for the tests of the loop.

Faults are asked for by environment: TOY_DIES and TOY_HANGS, RANK:STEP, what a rank does when batch
STEP is made; TOY_ONCE names a file whose existence prevents it; TOY_CHDIR a folder with one folder
for each rank to work in; TOY_SLOW_SAVE the seconds that a checkpoint takes to be written.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: int = 30
    batch_size: int = 16
    log_every: int = 1
    save_every: int = 10
    evaluate_every: int = 10
    # Number of latent units.
    hidden: train.AtLeast1 = 3
    # Weight of the squared code in the loss.
    weight: train.NonNegative = 0.01
    # Standard deviation of the noise on the input.
    noise: float = 0.0
    # Learning rate of Adam.
    learning_rate: float = 0.05
    # Seconds that a batch takes to make.
    delay: float = 0.0
    # Step whose batch holds a NaN; -1 for none.
    bad_at: int = -1
    # Factor of the error that is reported.
    scale: train.Evaluation[float] = 1.0
    # Number of examples in the data set.
    examples: int = 64


METRICS = (
    train.Metric('final_error', better='lower', label='error', primary=True),
    train.Metric('error', better='lower', label='error'),
    train.Metric('loss', better='lower', label='loss'),
)


PRESETS = {'smoke': {'steps': 4}, 'wide': {'hidden': 5}}
SWEEPS = {
    'weight': train.grid(weight=(0.0, 0.1), seed=(0, 1)),
    'hidden': train.grid(hidden=(2, 3), weight=(0.0, 0.1)),
    'data': train.grid(delay=(0.0, 0.001)),
    'uneven': ({'weight': 0.1}, {'learning_rate': 0.2}, {'hidden': 2, 'learning_rate': 0.2}),
    'unknown': train.grid(widht=(2, 3)),
}


def data(config):
    if config.examples < 1:
        raise ValueError(f'--examples {config.examples}: a set needs at least 1')
    x = np.random.default_rng(config.seed).normal(size=(config.examples, 8)).astype(np.float32)
    found = train.in_memory(x, config.batch_size, seed=config.seed, evaluation=x)
    delay, bad_at = config.delay, config.bad_at

    def batch(n):
        misbehave(n)
        time.sleep(delay)
        rows = found.batch(n)
        return {'rows': rows, 'bad': np.full(rows.shape, n == bad_at)}

    def prepare(device_arrays, batch, key):
        return jnp.where(
            batch['bad'][:, None], jnp.nan, found.prepare(device_arrays, batch['rows'], key)
        )

    return dataclasses.replace(found, batch=batch, prepare=prepare)


def misbehave(n):
    once = os.environ.get('TOY_ONCE')
    for what in ('TOY_DIES', 'TOY_HANGS'):
        rank, _, step = os.environ.get(what, '').partition(':')
        here = bool(rank) and (jax.process_index(), n) == (int(rank), int(step))
        if not here or (once and pathlib.Path(once).exists()):
            continue
        if once:
            pathlib.Path(once).touch()
        if what == 'TOY_DIES':
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)


def build(config, spec):
    def init(key, batch):
        return jax.random.normal(key, (*spec.shape, config.hidden)) * 0.3

    def loss(params, batch, key):
        noisy = batch + config.noise * jax.random.normal(key, batch.shape)
        h = noisy @ params
        error = jnp.square(h @ params.T - batch).sum(1).mean()
        size = jnp.square(h).sum(1).mean()
        return error + config.weight * size, {'error': error}

    def evaluate(params, x):
        return {'error': jnp.square(x @ params @ params.T - x).sum(1).mean()}

    return train.optimize(init, loss, optax.adam(config.learning_rate), evaluate)


def apply(config, spec):
    def encode(state, rows):
        return {'codes': rows @ state.params}

    return {'encode': encode}


def report(config, state, data):
    error = train.evaluate(build(config, data.spec), state, data.evaluation)['error']
    return train.Report(
        metrics={'final_error': config.scale * error},
        tables=(train.Table('Error', ({'hidden': config.hidden, 'error': error},), ('hidden',)),),
    )


def slow_saves(seconds):
    """Half of the time while the arrays are written, half between that and the renaming."""
    from orbax.checkpoint._src.handlers import base_pytree_checkpoint_handler as handler
    from orbax.checkpoint._src.path import atomicity

    write = handler.BasePyTreeCheckpointHandler.finalize
    rename = atomicity.AtomicRenameTemporaryPath.finalize

    def slow_write(self, *args, **options):
        time.sleep(seconds / 2)
        return write(self, *args, **options)

    async def slow_rename(self, *args, **options):
        time.sleep(seconds / 2)
        return await rename(self, *args, **options)

    handler.BasePyTreeCheckpointHandler.finalize = slow_write
    atomicity.AtomicRenameTemporaryPath.finalize = slow_rename


def prepare_faults():
    folder = os.environ.get('TOY_CHDIR')
    if folder and '--process_id' in sys.argv:  # not in the check before the processes start
        os.chdir(pathlib.Path(folder) / sys.argv[sys.argv.index('--process_id') + 1])
    if seconds := os.environ.get('TOY_SLOW_SAVE'):
        slow_saves(float(seconds))


def draw_no_figures():
    """Importing matplotlib and drawing would take longer than the rest of such a run."""
    from lecture4.train import report

    report._draw = lambda *given: ({}, [])


if __name__ == '__main__':
    prepare_faults()
    draw_no_figures()
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
