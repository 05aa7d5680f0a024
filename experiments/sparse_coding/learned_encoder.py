"""Learned encoders: codes predicted by a few layers, against the solvers that compute them (LISTA).

Gregor & LeCun, ICML 2010. Codes cost an optimisation at test time; an encoder of the form of a few
iterations, trained on pairs of patches and exact codes, predicts them in so many products. Encoders
of several depths learn side by side. What is measured: the error of the predicted codes on held-out
patches, and the time for a patch, beside FISTA and ADMM stopped after some iterations, on the same
device in the same run. The paper reports about a tenth of the computation at equal error.

Run     python -m experiments.sparse_coding.learned_encoder
Cost    85 s of one CPU core.
Found   beside FISTA stopped at the same error of the codes, on one core: 0 layers (a product and a threshold,
        error 0.19) 17 times as fast, 1 layer (0.098) 5.6 times, 3 layers (0.043) 4.9 times, 7 layers (0.022) 2.2
        times. ADMM is the harder peer: 7.4, 2.1, 2.0 and 0.9 times. So learned codes pay where a few percent
        of error do not matter; beyond, the solver is faster, and certified.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.ops import linalg, patches
from lecture4.sparse import lista, objective, recovery, solvers


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of learning the encoders.
    steps: int = 2000
    # Patches in a step, over all devices.
    batch_size: int = 256
    # Where the pictures come from: photos, bsd400, textures, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Side of the patches, in pixels.
    patch: int = 10
    # Atoms of the dictionary.
    atoms: int = 200
    # Weight of the L1 penalty on codes of whitened patches of variance near 1.
    weight: float = 1.0
    # Steps of learning the dictionary, before.
    dictionary_steps: int = 150
    # Patches with exact codes; a tenth of them is held out.
    patches: int = 20_000
    # Encoders: how often each applies its second matrix.
    layers: tuple[int, ...] = (0, 1, 3, 7)
    # One matrix for all layers, as in the paper, or one for each.
    tied: bool = True
    # Learning rate at the start; it falls to nothing by half a cosine.
    learning_rate: float = 1e-3
    # Iterations after which the solvers are stopped, for comparison.
    iterations: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

    def __post_init__(self):
        super().__post_init__()
        for name in ('patch', 'atoms', 'dictionary_steps'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('weight', 'learning_rate'):
            train.require(self, name, 0 < getattr(self, name) < np.inf, 'above 0, and finite')
        train.require(self, 'patches', self.patches >= 10, 'at least 10')
        train.require(self, 'layers', min(self.layers, default=-1) >= 0, 'one or more, each >= 0')
        least = min(self.iterations, default=0)
        train.require(self, 'iterations', least >= 1, 'one or more, each at least 1')


PRESETS = {
    'smoke': {
        'steps': 4,
        'patches': 400,
        'batch_size': 32,
        'patch': 6,
        'atoms': 24,
        'dictionary_steps': 3,
        'layers': (0, 1),
        'iterations': (1, 4),
    },
}
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(3e-4, 1e-3, 3e-3)),
    'tied': train.grid(tied=(True, False)),
}


def data(config):
    images, _, _ = image_data.load_images(config.source, **config.data_kwargs())
    found = crops.sample_patches(images, config.patches, config.patch, config.seed)
    found = patches.normalize_contrast(jnp.asarray(found), 0.04)
    signals = linalg.apply(linalg.zca(found, 0.1), found)

    @jax.jit
    def learn(signals):
        return recovery.learn(
            jax.random.key(config.seed), signals, config.atoms, weight=config.weight,
            n_steps=config.dictionary_steps, batch_size=1024,
        )  # fmt: skip

    D = learn(signals)
    exact = jax.jit(functools.partial(solvers.admm, tolerance=1e-5, tile=128))
    solved = exact(signals, D, config.weight)
    n_held_out = max(config.patches // 10, 1)
    pairs = {'x': np.asarray(signals), 'codes': np.asarray(solved.codes)}
    resident = {name: array[n_held_out:] for name, array in pairs.items()}

    def prepare(resident, rows, key):
        del key
        return {name: resident[name][rows] for name in pairs} | {'D': resident['D']}

    return train.Data(
        lambda n: batches.indices(config.seed, n, len(resident['x']), config.batch_size),
        resident | {'D': np.asarray(D)},
        prepare,
        evaluation={name: array[:n_held_out] for name, array in pairs.items()},
        extra={'D': D, 'worst_gap': float(solved.gap.max())},
    )


def build(config):
    def init(key, batch):
        del key
        return tuple(
            lista.init(batch['D'], config.weight, n, tied=config.tied) for n in config.layers
        )

    def loss(encoders, batch, key):
        del key
        # Encoders share no parameter: the gradient of the sum is each one's own.
        losses = {
            f'loss_{n}': lista.loss(encoder, batch['x'], batch['codes'], n)
            for n, encoder in zip(config.layers, encoders, strict=True)
        }
        return sum(losses.values()), losses

    def evaluate(encoders, pairs):
        return {
            f'error_{n}': lista.prediction_error(
                lista.encode(encoder, pairs['x'], n), pairs['codes']
            )
            for n, encoder in zip(config.layers, encoders, strict=True)
        }

    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimise(init, loss, optax.adam(rate), evaluate)


def contenders(config, encoders, D):
    """{(method, iterations or layers): x -> codes}, all for a whole set of signals at once."""
    runs = {}
    for n, encoder in zip(config.layers, encoders, strict=True):
        runs['learned', n] = functools.partial(lista.encode, encoder, n_layers=n)
    for n in config.iterations:
        options = {'max_iterations': n, 'check_every': n, 'tolerance': 0.0}
        runs['FISTA', n] = lambda x, options=options: (
            solvers.fista(x, D, config.weight, **options).codes
        )
        runs['ADMM', n] = functools.partial(
            solvers.approximate, D=D, weight=config.weight, n_iterations=n
        )
    return {name: jax.jit(run) for name, run in runs.items()}


def measure(runs, x, n_rounds=9):
    """Microseconds a signal of every contender, one after another in every round; the least."""
    taken = {name: [] for name in runs}
    for i in range(n_rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run(x).block_until_ready()
            if i:  # the first compiles
                taken[name].append(time.perf_counter() - began)
    return {name: 1e6 * min(seconds) / len(x) for name, seconds in taken.items()}


def report(config, state, data):
    from lecture4.figures import lines

    x, exact = (jnp.asarray(data.evaluation[name]) for name in ('x', 'codes'))
    D = data.extra['D']
    runs = contenders(config, state.params, D)
    optimum = float(objective.loss(x, D, exact, config.weight).mean())
    error, excess = {}, {}
    for name, run in runs.items():
        found = run(x)
        error[name] = float(lista.prediction_error(found, exact))
        excess[name] = float(objective.loss(x, D, found, config.weight).mean()) / optimum - 1
    taken = measure(runs, x)
    rows, metrics = [], {}
    for n in config.layers:
        ours = 'learned', n
        row = [str(n), f'{error[ours]:.4f}', f'{excess[ours]:.4f}', f'{taken[ours]:.2f}']
        metrics |= {f'error_{n}': error[ours], f'excess_{n}': excess[ours]}
        for method in ('FISTA', 'ADMM'):
            equal = [m for m in config.iterations if error[method, m] <= error[ours]]
            least = equal[0] if equal else None
            ratio = taken[method, least] / taken[ours] if least else np.nan
            metrics[f'speedup_{method}_{n}'] = ratio
            row += [str(least or f'> {config.iterations[-1]}'), f'{ratio:.1f}' if least else '']
        rows.append(tuple(row))
    caption = (
        f'{len(x)} held-out patches of {config.source}, d = {x.shape[1]}, k = {config.atoms}, '
        f'{100 * float(jnp.mean(exact != 0, dtype=x.dtype)):.1f} % of the codes not zero. Error: squared, relative to '
        'that of predicting zero. Excess: of the objective, relative to its minimum. Then what the '
        'solvers need for codes of that error, in iterations and as a multiple of the '
        f"encoder's time. The codes learned from have a gap of at most {data.extra['worst_gap']:.0e}."
    )
    columns = (
        'layers', 'error', 'excess', 'microseconds', 'FISTA iterations', 'time',
        'ADMM iterations', 'time',
    )  # fmt: skip

    def curves(values):
        methods = dict.fromkeys(method for method, _ in runs)
        names = {method: [name for name in runs if name[0] == method] for method in methods}
        return {
            method: ([taken[name] for name in chosen], [max(values[name], 1e-7) for name in chosen])
            for method, chosen in names.items()
        }

    axes = {'xlabel': 'microseconds a patch', 'xscale': 'log', 'yscale': 'log'}
    drawn = lines.panels(
        {
            'error of the codes': axes | {'curves': curves(error)},
            'objective above its minimum': axes | {'curves': curves(excess)},
        }
    )
    return train.Report(
        metrics,
        (train.Table('Learned encoders at equal error', columns, tuple(rows), caption),),
        {
            'speed': train.Picture(
                drawn, 'What accuracy costs: encoders of several depths, solvers.'
            )
        },
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
