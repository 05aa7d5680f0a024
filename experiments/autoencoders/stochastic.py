"""Stochastic encoders and decoders: h ~ p_encoder(h | x), x ~ p_decoder(x | h), discrete or not.

An autoencoder of binary digits whose code is drawn: Bernoulli, Gaussian or categorical. The bound
E log p_decoder(x | h) - KL(p_encoder || prior) is climbed through the sample where it is
differentiable (Kingma & Welling 2014), else by the score function (Williams 1992), with or without
the mean of the other samples as a baseline (Kool et al. 2019). The report measures at the trained
parameters that all estimators agree with the exact gradient (by enumeration of all codes, or, for
Gaussian codes, with each other), and how noisy each is.

Run     python -m experiments.autoencoders.stochastic
        python -m experiments.autoencoders.stochastic --code categorical --width 3
"""

import dataclasses
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from lecture4 import train
from lecture4.autoencoder import stochastic, variational
from lecture4.data import pictures

MOST_STATES = 4096  # codes that are enumerated for the exact gradient


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    # Steps of training.
    steps: int = 4000
    # Pictures in a step, over all devices.
    batch_size: int = 100
    steps_per_call: int = 100
    log_every: int = 100
    evaluate_every: int = 1000
    save_every: int = 2000
    # Where pictures come from; every visit draws pixels of 0 or 1 with their level as the chance.
    source: str = 'digits'
    # Distribution of the code.
    code: Literal['bernoulli', 'gaussian', 'categorical'] = 'bernoulli'
    # Variables of the code, and states of each that is categorical.
    width: int = 10
    classes: int = 10
    # Widths of the encoder's hidden layers; the decoder is the mirror image.
    hidden: tuple[int, ...] = (100,)
    # How gradients get through the sample; auto takes the least noisy that the code allows.
    estimator: Literal['auto', 'pathwise', 'score', 'leave-one-out'] = 'auto'
    # Codes drawn for every picture of a step.
    samples: int = 4
    # Learning rate of Adam.
    learning_rate: float = 1e-3
    # Gradients drawn to measure an estimator's mean and noise.
    draws: int = 400

    def __post_init__(self):
        super().__post_init__()
        for name in ('width', 'samples'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('classes', 'draws'):
            train.require(self, name, getattr(self, name) >= 2, 'at least 2')
        if self.estimator == 'pathwise':
            train.require(
                self, 'code', self.code == 'gaussian', 'gaussian with --estimator pathwise'
            )
        if self.estimator == 'leave-one-out':
            train.require(self, 'samples', self.samples > 1, '2 or more for leave-one-out')


PRESETS = {'smoke': {'steps': 100, 'hidden': (16,), 'width': 4, 'draws': 20}}
SWEEPS = {
    'estimator': train.grid(estimator=('score', 'leave-one-out'), seed=(0, 1, 2)),
    'code': train.grid(code=('bernoulli', 'gaussian')),
}


def data(config):
    (pixels, *_), (test, *_) = (
        pictures.grey(config.source, split, **config.places()) for split in ('train', 'test')
    )
    shape = test.shape[1:3]
    pixels, test = (found.reshape(len(found), -1) for found in (pixels, test))
    found = train.in_memory(
        pixels,
        config.batch_size,
        seed=config.seed,
        evaluation=np.asarray(variational.binarise(jax.random.key(2**31 - 1), jnp.asarray(test))),
        extra={'shape': shape},
    )
    prepare = lambda *batch: variational.binarise(batch[2], found.prepare(*batch))  # noqa: E731
    return dataclasses.replace(found, prepare=prepare)


def model(config, n_pixels) -> variational.Model:
    code = {
        'bernoulli': stochastic.BERNOULLI,
        'gaussian': stochastic.GAUSSIAN,
        'categorical': stochastic.categorical(config.classes),
    }[config.code]
    return variational.mlp(n_pixels, config.hidden, config.width, code=code, activation=jnp.tanh)


def build(config):
    estimator = None if config.estimator == 'auto' else config.estimator

    def loss(params, x, key):
        parts = variational.bound(
            model(config, x.shape[1]), params, x, key, n_samples=config.samples, estimator=estimator
        )
        return variational.loss(parts), {'kl': parts.kl.sum(1).mean()}

    def evaluate(params, x):
        vae, key = model(config, x.shape[1]), jax.random.key(0)
        return {
            'elbo': variational.bound(vae, params, x, key).elbo.mean(),
            'importance_50': variational.importance_bound(
                vae, params, x, key, n_samples=50, chunk=10
            ).mean(),
        }

    return train.optimise(
        lambda key, x: model(config, x.shape[1]).init(key),
        loss,
        optax.adam(config.learning_rate),
        evaluate,
    )


def every_code(config):
    """All states of a discrete code [m, v], or None where they are too many or not countable."""
    n_states = {'bernoulli': 2, 'categorical': config.classes}.get(config.code, np.inf)
    if config.width * np.log(n_states) > np.log(MOST_STATES):
        return None
    states = np.array([[0.0], [1.0]]) if config.code == 'bernoulli' else np.eye(config.classes)
    rows = itertools.product(range(int(n_states)), repeat=config.width)
    return jnp.asarray([states[list(row)].ravel() for row in rows], jnp.float32)


def exact_gradient(config, params, x):
    """Gradient of the mean bound by summation over all codes."""
    vae, codes = model(config, x.shape[1]), every_code(config)

    def bound(params):
        outputs = vae.encode(params, x)
        decoded = vae.decode(params, codes)

        def one(outputs, x):
            log_q = vae.code.log_prob(jnp.broadcast_to(outputs, (len(codes), len(outputs))), codes)
            log_p = vae.pixels.log_prob(decoded, jnp.broadcast_to(x, decoded.shape))
            return jnp.sum(jnp.exp(log_q) * log_p)

        kl = vae.code.kl(outputs, jnp.zeros_like(outputs)).sum(1)
        return jax.vmap(one)(outputs, x).mean() - kl.mean()

    return ravel_pytree(jax.grad(bound)(params))[0]


def gradients(config, params, x, estimator, n_samples):
    """Of config.draws independent gradients of the mean bound: mean [n_params], total variance."""
    vae = model(config, x.shape[1])

    def one(key):
        def bound(params):
            parts = variational.bound(vae, params, x, key, n_samples=n_samples, estimator=estimator)
            return parts.elbo.mean()

        return ravel_pytree(jax.grad(bound)(params))[0]

    draws = jax.lax.map(one, jax.random.split(jax.random.key(n_samples), config.draws))
    return draws.mean(0), draws.var(0, ddof=1).sum()


def report(config, state, data):
    from lecture4.figures import latent

    x, shape = jnp.asarray(data.evaluation), data.extra['shape']
    vae, params = model(config, x.shape[1]), state.params
    found = {k: float(v) for k, v in jax.jit(build(config).evaluate)(state, x).items()}
    names = ['score', 'leave-one-out'] + ['pathwise'] * vae.code.pathwise
    measured = {}
    for name, n in itertools.product(names, (2, 4, 16)):
        measure = jax.jit(gradients, static_argnums=(0, 3, 4))
        measured[name, n] = measure(config, params, x[:50], name, n)
    if every_code(config) is None:  # the least noisy of the estimators stands for the exact one
        truth, variance = measured.pop((names[-1], 16))
        doubt = variance / config.draws
        against = f'the mean draw of {names[-1]} with 16 samples'
    else:
        truth, doubt = jax.jit(exact_gradient, static_argnums=0)(config, params, x[:50]), 0.0
        against = 'the sum over all codes'
    rows = []
    for (name, n), (mean, variance) in measured.items():
        noise = float(jnp.sqrt(variance / jnp.sum(truth**2)))
        off = float(jnp.sum((mean - truth) ** 2) / (variance / config.draws + doubt))
        rows.append((name, n, noise, off))
        found |= {f'noise_{name}_{n}': noise, f'deviation_{name}_{n}': off}
    caption = (
        f'Of the gradient in all parameters, {config.draws} draws at the trained parameters, 50 '
        'pictures. Noise: root of the total variance over the norm of the gradient. Deviation: '
        f'squared distance of the mean draw from {against}, over what its variance predicts; near 1 '
        'where the estimator is unbiased.'
    )
    columns = ('estimator', 'samples', 'noise', 'deviation')
    rows_of_codes = drawn_again(vae, params, x[:12])
    words = ('picture', *['mean of p(x | h)'] * 3, 'draw of p(x | h)')
    tiles = np.asarray(rows_of_codes).reshape(-1, *shape)
    return train.Report(
        metrics=found,
        tables=(train.Table('Gradients through a sampled code', columns, tuple(rows), caption),),
        pictures={
            'codes': train.Picture(
                latent.grid(tiles, 12, rows=words),
                'Three codes drawn from p_encoder(h | x) for every test picture, what p_decoder '
                'makes of them, and a draw from the last.',
            )
        },
        summary=f'Bound {found["elbo"]:.2f}, importance-weighted (k = 50) {found["importance_50"]:.2f} '
        f'nats a test picture, {config.code} code of {config.width}.',
    )


def drawn_again(vae, params, x):
    """Pictures, three decoded draws of their codes, and a draw of pixels from the last: [5, n, d]."""
    outputs = vae.encode(params, x)
    keys = jax.random.split(jax.random.key(5), 4)
    decoded = [vae.decode(params, vae.code.sample(key, outputs)) for key in keys[:3]]
    return [x, *map(vae.pixels.mean, decoded), vae.pixels.sample(keys[3], decoded[-1])]


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
