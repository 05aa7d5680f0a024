"""Reconstruction independent component analysis of natural patches: one layer, before it is stacked.

Le, Karpenko, Ngiam & Ng, NIPS 2011. A tied linear autoencoder of whitened patches whose codes are to
be sparse: its reconstruction error stands for the constraint W W' = I of independent component
analysis, and goes on where there are more units than dimensions. The whole set in every step; one
step is one iteration of L-BFGS. Beside it: random directions, principal components, and FastICA of
scikit-learn, which keeps the constraint and cannot be overcomplete.

Run     python -m experiments.autoencoders.ica
        python -m experiments.autoencoders.ica --preset olshausen       (wants olshausen's pictures)
        python -m experiments.autoencoders.ica --preset overcomplete
Cost    25 seconds of one core (AMD EPYC).
Ours    olshausen, 63 units, 200 iterations, which is not yet the end: median kurtosis 8.58 (random directions
        6.06, principal components 6.69, FastICA 9.84), share of a filter's spectral energy in a wedge of 45
        degrees 0.62 (0.36, 0.52, 0.71). Reconstruction error 0.0637, and by the weights alone,
        ||W W' - I||^2 + d - k, 0.0636. Photographs (no option given): kurtosis 37.8 (15.0, 20.0, 45.8), 0.74
        in a wedge (0.35, 0.54, 0.79).
"""

import dataclasses
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import linear, rica
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.data.images import whiten as whitening
from lecture4.features.orientation import oriented_share


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Iterations of L-BFGS.
    steps: int = 200
    # Steps compiled into one call (a scan).
    steps_per_call: int = 20
    log_every: int = 20
    evaluate_every: int = 200
    save_every: int = 200
    # Where pictures come from: photos (whitened here), olshausen (whitened by their authors), ...
    source: str = 'photos'
    # Whether whole pictures are whitened first, as Olshausen & Field did.
    whiten: bool = True
    # Side of the patches, which are whitened exactly.
    patch: int = 8
    # Patches, all of them in every step.
    batch_size: int = 10_000
    # Units; patches less their mean have patch * patch - 1 dimensions.
    width: int = 63
    # Weight of sum sqrt(epsilon + h^2) beside the squared error.
    weight: float = 0.2
    # What rounds the tip of |h|.
    epsilon: float = 1e-2
    # Past steps that L-BFGS remembers.
    memory: int = 20

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'width', self.width >= 1, 'at least 1')
        train.require(self, 'patch', self.patch >= 2, 'at least 2')
        train.require(self, 'weight', self.weight >= 0, 'at least 0')
        train.require(self, 'epsilon', self.epsilon > 0, 'above 0')


PRESETS = {
    'smoke': {'steps': 20, 'evaluate_every': 20, 'save_every': 20, 'batch_size': 600},
    'olshausen': {'source': 'olshausen', 'whiten': False},
    'overcomplete': {'width': 126},
}
SWEEPS = {
    'width': train.grid(width=(32, 63, 126), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    images, _, _ = image_data.load_images(config.source, **config.data_kwargs())
    if config.whiten:
        images = whitening.whiten(images)
    x = crops.sample_patches(images, config.batch_size, config.patch, config.seed)
    x = np.asarray(x, np.float64)
    x = x - x.mean(1, keepdims=True)
    principal = linear.principal(x)
    rank = int((principal.variances > 1e-6 * principal.variances[0]).sum())
    axes = principal.components[:, :rank]
    # Coordinates along the components, of variance 1 each; then turned back into patches.
    white = principal.code(x, rank) / np.sqrt(principal.variances[:rank])
    side = (config.patch, config.patch, 1)
    resident = (white @ axes.T).reshape(-1, *side).astype(np.float32)
    rows = np.arange(len(x), dtype=np.int32)
    return train.Data(
        batch=lambda n: rows,
        resident=resident,
        prepare=lambda resident, rows, key: resident[rows],
        extra={'white': white, 'axes': axes},
    )


def stage(config):
    """One receptive field, the whole patch; pools of one unit."""
    return rica.Stage(size=config.patch, maps=config.width, pool=1)


class State(NamedTuple):
    weights: jax.Array  # [1, 1, patch * patch, width], of the only receptive field
    opt_state: optax.OptState


def loss(config, weights, x):
    """Of every patch, and its parts."""
    layer = rica.Layer(weights, None)
    return rica.loss(layer, x, stage(config), weight=config.weight, epsilon=config.epsilon)


def build(config):
    optimizer = optax.lbfgs(memory_size=config.memory)

    def init(key, x):
        W = jax.random.normal(key, (1, 1, config.patch**2, config.width))
        W = W / jnp.linalg.norm(W, axis=2, keepdims=True)
        return State(W, optimizer.init(W))

    def step(state: State, x, key, *, axis_name=None):
        if axis_name is not None:
            raise ValueError('a line search is of the whole set; use --parallel jit')

        def value(weights):
            return jnp.mean(loss(config, weights, x)[0])

        W = state.weights
        with jax.numpy_dtype_promotion('standard'):
            cost, grads = optax.value_and_grad_from_state(value)(W, state=state.opt_state)
            updates, opt_state = optimizer.update(
                grads, state.opt_state, W, value=cost, grad=grads, value_fn=value
            )
        return State(W + updates, opt_state), {'cost': jnp.asarray(cost)}  # pyright: ignore

    return train.Task(init, step)


def kurtosis(codes):
    """E h^4 / (E h^2)^2 of every unit, 3 for Gaussian ones; codes [n, k], of mean 0."""
    return (codes**4).mean(0) / np.maximum((codes**2).mean(0) ** 2, np.finfo(float).tiny)


def others(config, white):
    """{method: directions [k, r] in the whitened space}: what the units are compared with."""
    from sklearn.decomposition import FastICA

    rank = white.shape[1]
    turn = np.linalg.qr(np.random.default_rng(config.seed).normal(size=(rank, rank)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of convergence, which the table shows as it is
        fast = FastICA(whiten=False, max_iter=300, random_state=config.seed)  # pyright: ignore
        fast.fit(white)
    return {'random directions': turn, 'PCA': np.eye(rank), 'FastICA': fast.components_}


def report(config, state, data):
    from lecture4.figures import dictionary, lines

    white, axes = data.extra['white'], data.extra['axes']
    side, rank = (config.patch, config.patch), axes.shape[1]
    W = np.asarray(state.weights[0, 0], float).T
    own = W @ axes  # what the units see of the whitened coordinates
    x = jnp.asarray(data.resident)
    cost, parts = loss(config, state.weights, x)
    spread = np.cov(white.T, bias=True) - np.eye(rank)
    identity = ((own @ own.T - np.eye(len(own))) ** 2).sum() + rank - len(own)
    directions = others(config, white) | {f'reconstruction ICA, {config.width}': own}
    found = {
        name: (
            float(np.median(kurtosis(white @ v.T))),
            float(np.median(oriented_share((v @ axes.T).reshape(-1, *side)))),
        )
        for name, v in directions.items()
    }
    (mine, oriented), unmixed = found[f'reconstruction ICA, {config.width}'], found['FastICA']
    metrics = {
        'cost': float(jnp.mean(cost)),
        'reconstruction': float(parts['reconstruction']),
        'orthonormality': float(identity),
        'whiteness': float(abs(spread).max()),
        'kurtosis': mine,
        'oriented': oriented,
        'kurtosis_fastica': unmixed[0],
        'oriented_fastica': unmixed[1],
    }
    ranked = {name: np.sort(kurtosis(white @ v.T))[::-1] for name, v in directions.items()}
    panel = {
        'curves': {name: (np.arange(1, len(v) + 1), v) for name, v in ranked.items()},
        'xlabel': 'unit', 'ylabel': 'kurtosis', 'yscale': 'log',
    }  # fmt: skip
    caption = (
        f'{len(white)} patches of {config.patch} x {config.patch}, {rank} dimensions of variance 1. '
        'Kurtosis of the outputs (3: Gaussian), and the largest share of the spectral energy of a '
        'filter in a wedge of 45 degrees (0.25: no orientation); medians over units. Reconstruction '
        f"error {metrics['reconstruction']:.4f}; by W alone, ||W W' - 1||^2 + d - k, {identity:.4f}."
    )
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                'Directions of whitened patches',
                ('', 'kurtosis', 'oriented'),
                tuple((name, *values) for name, values in found.items()),
                caption,
            ),
        ),
        pictures={
            'filters': train.Picture(
                dictionary.atoms(W.T, side, columns=9), 'Filters, on whitened patches.'
            ),
            'kurtosis': train.Picture(
                lines.panels({'Kurtosis of outputs': panel}, columns=1, size=(6, 3.2)),
                'Of every unit, most peaked first.',
            ),
        },
        summary=f'Kurtosis {mine:.2f} (FastICA {unmixed[0]:.2f}, PCA {found["PCA"][0]:.2f}, random '
        f'{found["random directions"][0]:.2f}), {oriented:.2f} of the energy in one wedge of 45 '
        'degrees.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
