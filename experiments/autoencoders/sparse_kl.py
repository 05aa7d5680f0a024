"""The sparse autoencoder of the UFLDL exercise: a KL penalty on mean activations, by L-BFGS.

Ng, CS294A lecture notes, 2011. 64-25-64 logistic units on 10,000 patches of whitened pictures,
clipped at 3 standard deviations and mapped to [.1, .9]; the whole set in every step, because the
penalty is of the mean over the data. One step is one iteration of L-BFGS.

Run     python -m experiments.autoencoders.sparse_kl
        python -m experiments.autoencoders.sparse_kl --preset ufldl   (wants olshausen's pictures)
Cost    10 seconds of one core (AMD EPYC).
Others  SciPy's L-BFGS-B on UFLDL's pictures, three seeds: cost 0.4520 to 0.4538, mean activations 0.0110
        to 0.0116, 0.52 to 0.58 in a wedge.
Ours    UFLDL's pictures: cost 0.4466 after 400 iterations, mean activations 0.0109 to 0.0113 for a
        target of 0.01; 0.65 of a filter's spectral energy in a wedge of 45 degrees (0.25 without
        orientation). Photographs of scikit-image and scikit-learn: 0.3431, 0.0100 to 0.0111, 0.70.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import network, sparse
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.data.images import whiten as whitening
from lecture4.features.orientation import oriented_share


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Iterations of L-BFGS.
    steps: int = 400
    # Steps compiled into one call (a scan).
    steps_per_call: int = 20
    log_every: int = 20
    evaluate_every: int = 400
    save_every: int = 400
    # Where pictures come from: photos (whitened here), olshausen (whitened by their authors), ...
    source: str = 'photos'
    # Whether whole pictures are whitened first, as Olshausen & Field did.
    whiten: bool = True
    # Side of the patches.
    patch: int = 8
    # Patches, all of them in every step.
    batch_size: int = 10_000
    # Units of the code.
    width: int = 25
    # Wanted mean activation of every unit.
    target: float = 0.01
    # Weight of the divergence from it.
    weight: float = 3.0
    # Weight decay.
    decay: float = 1e-4
    # Past steps that L-BFGS remembers.
    memory: int = 20

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'width', self.width >= 1, 'at least 1')
        train.require(self, 'target', 0 < self.target < 1, 'between 0 and 1, both excluded')


PRESETS = {
    'smoke': {'steps': 20, 'evaluate_every': 20, 'save_every': 20, 'batch_size': 400},
    'ufldl': {'source': 'olshausen', 'whiten': False},
}
SWEEPS = {
    'target': train.grid(target=(0.01, 0.05, 0.2), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    images, _, _ = image_data.load_images(config.source, **config.data_kwargs())
    if config.whiten:
        images = whitening.whiten(images)
    x = crops.sample_patches(images, config.batch_size, config.patch, config.seed)
    x = x - x.mean(1, keepdims=True)
    bound = 3 * x.std()
    x = (np.clip(x, -bound, bound) / bound + 1) * 0.4 + 0.1
    rows = np.arange(len(x), dtype=np.int32)
    return train.Data(batch=lambda n: rows, resident=x, prepare=lambda x, rows, key: x[rows])


class State(NamedTuple):
    params: network.Autoencoder
    opt_state: optax.OptState


def build(config):
    optimizer = optax.lbfgs(memory_size=config.memory)

    def loss(params, x):
        return sparse.kl_loss(
            params, x, target=config.target, weight=config.weight, decay=config.decay
        )

    def init(key, x):
        d, k = x.shape[1], config.width
        params = network.init_autoencoder(key, (d, k))
        # The exercise's half-width, sqrt(6 / (d + k + 1)), is Glorot's but for the 1.
        params = jax.tree.map(lambda w: w * ((d + k) / (d + k + 1)) ** 0.5, params)
        return State(params, optimizer.init(params))

    def step(state: State, x, key, *, axis_name=None):
        def value(params):
            own, _ = loss(params, x)
            if axis_name is not None:
                raise ValueError('the penalty is of the whole set; use --parallel jit')
            return own

        with jax.numpy_dtype_promotion('standard'):
            cost, grads = optax.value_and_grad_from_state(value)(
                state.params, state=state.opt_state
            )
            updates, opt_state = optimizer.update(
                grads, state.opt_state, state.params, value=cost, grad=grads, value_fn=value
            )
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(params, opt_state), {'cost': cost}

    return train.Task(init, step)


def report(config, state, data):
    from lecture4.figures import curves, dictionary

    x, side = jnp.asarray(data.resident), (config.patch, config.patch)
    cost, parts = sparse.kl_loss(
        state.params, x, target=config.target, weight=config.weight, decay=config.decay
    )
    mean = np.asarray(sparse.kl_encode(state.params, x).mean(0))
    weight = np.asarray(state.params.encoder[0].weight)
    metrics = {
        'cost': cost,
        'reconstruction': parts['reconstruction'],
        'half_variance': 0.5 * ((x - x.mean(0, keepdims=True)) ** 2).sum(1).mean(),
        'least_activation': mean.min(),
        'greatest_activation': mean.max(),
        'oriented': np.median(oriented_share(weight.T.reshape(-1, *side))),
    }
    metrics = {name: float(value) for name, value in metrics.items()}
    explained = 1 - metrics['reconstruction'] / metrics['half_variance']
    rows = tuple((name.replace('_', ' '), value) for name, value in metrics.items())
    caption = (
        "oriented: the largest share of a filter's spectral energy in a wedge of 45 degrees, median "
        'over filters; 0.25 without orientation.'
    )
    return train.Report(
        metrics=metrics,
        tables=(train.Table('After training', ('', 'value'), rows, caption),),
        pictures={
            'filters': train.Picture(
                dictionary.atoms(weight, side, columns=5, width=3.5),
                'What each unit answers to most: its weights, the input of norm 1 that excites it.',
            ),
            'activations': train.Picture(
                curves.usage(mean), f'Mean activations; the target is {config.target}.'
            ),
        },
        summary=f'Cost {metrics["cost"]:.4f} after {config.steps} iterations, {explained:.0%} of the '
        f'variance explained; mean activations {mean.min():.4f} to {mean.max():.4f} for a target of '
        f'{config.target}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
