"""Sparse overcomplete autoencoders with revival of dead units (Gao et al. 2024; Makhzani & Frey 2013).

Codes of natural patches or of digits are sparse by an L1 penalty (a Laplace prior), or by keeping the k
largest units of every example. Units that no example uses are counted, and revived by an auxiliary loss
on the residual or by pointing them at badly reconstructed examples.

Run:      python -m experiments.autoencoders.sparse
          python -m experiments.autoencoders.sparse --preset mnist
          python -m experiments.autoencoders.sparse --sweep remedies
Hardware: one core (AMD EPYC), 25 seconds; mnist 4 minutes
Results:  oriented: the largest fraction of a filter's spectral energy in a wedge of 45 degrees, median over
          active units (0.25 without orientation)

          | data, method                 | explained variance | active units | dead | oriented |
          |------------------------------|--------------------|--------------|------|----------|
          | photos, top-k, 196 units     | 61.0 %             | 12           | 0    | 0.75     |
          | photos, L1 penalty 0.5       | 94.6 %             | 51.4         | 0    | 0.42     |
          | mnist, top-k, 512 units      | 87.7 %             | 25           | 3    |          |

          --sweep remedies on photos, one seed of three: 61.0 % by 12 units with every remedy. No unit is
          ever dead there (nor with --remedy none), so no remedy ever acts. mnist: dead in 6000 test images
          are 3 units; 35 were early in training.
"""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import sparse, topk
from lecture4.data import images
from lecture4.features import orientation, self_taught
from lecture4.ops import linalg, patches
from lecture4.ops.losses import squared_error

CONTRAST_EPSILON = (
    0.04  # standard deviation, of pixels in [0, 1], below which a patch counts as flat
)


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 256
    # Source of images: photos, textures, digits, mnist, olshausen, omniglot, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Size of the patches, which are whitened; 0 takes whole images as they are.
    patch_size: train.AtLeast0 = 10
    # Number of examples; a tenth of them is held out for evaluation.
    num_examples: train.AtLeast2 = 50_000
    # Number of latent units.
    latent_dim: train.AtLeast1 = 196
    # What makes codes sparse: the k largest units, or an L1 penalty.
    method: Literal['topk', 'l1'] = 'topk'
    # Number of units that top-k keeps of each example.
    k: train.AtLeast1 = 12
    # Weight of the L1 penalty relative to the squared error.
    l1_penalty: train.NonNegative = 0.5
    # Remedy for dead units (top-k only).
    remedy: Literal['auxiliary', 'revival', 'none'] = 'auxiliary'
    # Number of examples without use after which a unit is dead.
    patience: train.Positive = 10_000.0
    # Peak learning rate; it falls to 0 along a half cosine.
    learning_rate: train.Positive = 3e-3
    # Fraction of the mean variance that is added to every variance before whitening.
    zca_epsilon: train.NonNegative = 0.05

    def __post_init__(self):
        super().__post_init__()
        fits = self.k <= self.latent_dim
        train.require(self, 'k', fits, f'at most --latent_dim {self.latent_dim}')


METRICS = (
    train.Metric('explained', '', 'higher', 'fraction of variance explained', primary=True),
    train.Metric('l0', '', '', 'active units per example'),
    train.Metric('dead', 'count', 'lower', 'dead units'),
    train.Metric('oriented', 'fraction', 'higher', 'spectral energy in one wedge'),
    train.Metric('loss', '', 'lower', 'training loss'),
    train.Metric('reconstruction', '', 'lower', 'squared error'),
    train.Metric('auxiliary', '', 'lower', 'auxiliary loss of dead units'),
    train.Metric('l1', '', '', 'L1 norm of codes'),
)
PRESETS = {
    'smoke': {'steps': 20, 'num_examples': 1000, 'latent_dim': 32, 'k': 4},
    'mnist': {'source': 'mnist', 'patch_size': 0, 'num_examples': 60_000, 'latent_dim': 512}
    | {'k': 25, 'patience': 60_000.0, 'learning_rate': 1e-3, 'steps': 4200, 'steps_per_call': 210},
}
SWEEPS = {
    'remedies': train.grid(remedy=('none', 'auxiliary', 'revival'), seed=(0, 1, 2)),
    'methods': train.grid(method=('topk', 'l1'), seed=(0, 1, 2)),
    'l1_penalty': train.grid(method=('l1',), l1_penalty=(0.1, 0.3, 1.0), seed=(0, 1)),
}


def data(config):
    size = config.patch_size
    if not size:
        task = images.load(config.source, candidates_per_class=1, **config.data_kwargs())
        size = task.train_images.shape[1]
    x = images.load_signals(
        config.source,
        config.num_examples,
        patch_size=config.patch_size,
        image_size=0 if config.patch_size else size,
        seed=config.seed,
        **config.data_kwargs(),
    )
    num_held_out, raw, constants = max(len(x) // 10, 1), x, {'image_shape': (size, size)}
    if config.patch_size:
        normalized = patches.normalize_contrast(jnp.asarray(x), CONTRAST_EPSILON)
        constants['whitening'] = linalg.zca(normalized[num_held_out:], config.zca_epsilon)
        x = np.asarray(linalg.apply(constants['whitening'], normalized))
    loaded = train.in_memory(
        x[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=x[:num_held_out],
        spec=train.Spec(x.shape[1:], constants=constants),
    )
    return dataclasses.replace(loaded, rows=raw[num_held_out:])


def encode(config, params, x):
    if config.method == 'topk':
        return topk.encode(params, x, config.k)
    return sparse.l1_encode(params, x)


def decode(config, params, code):
    if config.method == 'l1':
        params = sparse.normalize_decoder(params)
    return topk.decode(params, code)


def evaluate(config, params, x):
    code = encode(config, params, x)
    error = jnp.mean(squared_error(x, decode(config, params, code)))
    variance = jnp.mean(squared_error(x, jnp.broadcast_to(jnp.mean(x, axis=0), x.shape)))
    return {
        'explained': 1 - error / variance,
        'l0': jnp.mean(sparse.count_active(code)),
        'dead': jnp.sum(~jnp.any(code != 0, axis=0)).astype(x.dtype),
    }


def build(config, spec):
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    if config.method == 'l1':

        def init_params(key, x):
            return topk.init_params(key, x, config.latent_dim)

        def loss(params, x, key):
            return sparse.l1_loss(params, x, config.l1_penalty)

        return train.optimize(init_params, loss, optimizer, functools.partial(evaluate, config))

    def init(key, x):
        return topk.init(key, x, config.latent_dim, optimizer)

    step = functools.partial(
        topk.step,
        optimizer=optimizer,
        k=config.k,
        patience=config.patience,
        auxiliary_weight=topk.AUXILIARY_WEIGHT if config.remedy == 'auxiliary' else 0.0,
        revive_dead=config.remedy == 'revival',
    )
    return train.from_learner(init, step, lambda state, x: evaluate(config, state.params, x))


def network(config, state):
    """The autoencoder of a state of training."""
    return state.params if config.method == 'l1' else state.params.params


def apply(config, spec):
    """`encode` takes raw patches or images [n, d]; `decode` returns patches as they were encoded, whitened."""

    def encode_raw(state, x):
        if config.patch_size:
            x = self_taught.preprocess(x, CONTRAST_EPSILON, spec.constants['whitening'])
        return encode(config, network(config, state), x)

    return {
        'encode': encode_raw,
        'decode': lambda state, code: decode(config, network(config, state), code),
    }


def report(config, state, data):
    from lecture4.figures import curves, dictionary

    x, shape, params = data.evaluation, data.spec.constants['image_shape'], network(config, state)
    code = np.asarray(encode(config, params, x))
    usage = (code != 0).mean(0)
    record = {'method': config.method, **train.evaluate(build(config, data.spec), state, x)}
    back = np.eye(x.shape[1])
    if config.patch_size:
        back = np.asarray(linalg.pseudo_inverse(data.spec.constants['whitening']))
    decoder = sparse.normalize_decoder(params).decoder[0]
    weight, bias = np.asarray(decoder.weight), np.asarray(decoder.bias)
    filters = back.T @ weight.T
    some = np.linspace(0, len(x) - 1, 4).astype(int)
    caption = f'{config.latent_dim} units, {x.shape[1]} values; dead: used by none of {len(x)}.'
    active = weight[usage > 0]
    if 0 < config.patch_size <= orientation.FFT_SIZE and len(active):
        # Of whitened patches: unwhitened, nearly all energy lies at the lowest frequencies.
        fractions = orientation.oriented_fraction(active.reshape(-1, *shape))
        record['oriented'] = float(np.median(fractions))
        caption += ' Wedge of 45 degrees, median over active units; 25 % without orientation.'
    return train.Report(
        metrics={'explained': record['explained']},
        tables=(train.Table('Held-out examples', (record,), ('method',), caption=caption),),
        figures={
            'filters': train.Figure(
                dictionary.atoms(filters, shape, order=np.argsort(-usage, kind='stable'), n=400),
                f'Decoder weights of units on {config.source}, most used first.',
            ),
            'codes': train.Figure(
                dictionary.codes(
                    (x[some] - bias) @ back, code[some], filters, code[some] @ filters.T, shape
                ),
                'Held-out examples, minus the output bias, as sums of few units.',
            ),
            'usage': train.Figure(
                curves.atom_usage(usage), 'Fraction of examples that use each unit.'
            ),
        },
        summary=f'{record["l0"]:.1f} of {config.latent_dim} units explain {record["explained"]:.1%} of '
        f'the variance of held-out examples; {record["dead"]:.0f} units are dead.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
