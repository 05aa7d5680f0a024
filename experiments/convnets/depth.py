"""Many hidden layers against one (Telgarsky, COLT 2016; Eldan & Shamir, COLT 2016; Cybenko 1989).

"Many hidden layers are better even though one is theoretically sufficient." Networks of rectifiers of 1, 2, 4 and 8
hidden layers with equal numbers of units learn a sawtooth, parity and a radial function, from many and from few
examples; each is the better of several random starts. Networks written by hand say how many units suffice, and one
growing layer that interpolates a sine shows the universal approximation theorem as a curve.

Run:      python -m experiments.convnets.depth
Hardware: one core (AMD EPYC), 2 minutes
Results:  test error (%) over the variance, 128 units, 8192 examples, by number of hidden layers; units by hand

          | function          | 1    | 2    | 4    | 8    | units that suffice        |
          |-------------------|------|------|------|------|---------------------------|
          | sawtooth          | 90.9 | 77.9 | 52.6 | 31.1 | 8 in 4 layers, 16 in one  |
          | radial            | 90.4 | 2.2  | 1.3  | 3.0  |                           |
          | parity            | 1.7  | 0.0  | 0.0  | 0.0  | 14 in 3 layers, 8 in one  |
          | radial, 512 ex.   | 100  | 75.6 | 84.8 | 25.0 |                           |

          Depth saves units and examples where the theory says so. The statement is loose for parity, whose exponential
          bounds are of AND-OR circuits; and with 32 units 8 layers of 4 train worse than one. 16 units in one layer
          suffice for the sawtooth, yet 128 trained by Adam do not find it: sufficient is not learnable.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.features import depth

NUM_TEST = 4096
WIDTHS = (2, 4, 8, 16, 32, 64, 128)  # of the layer that interpolates


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 2000
    batch_size: train.AtLeast1 = 128
    steps_per_call: train.AtLeast1 = 100
    # Numbers of hidden layers.
    depths: train.Ints = (1, 2, 4, 8)
    # Numbers of hidden units of a network, over all its layers.
    num_units: train.Ints = (8, 32, 128)
    # Numbers of training examples; networks with fewer units use the largest number.
    num_train: train.Ints = (128, 512, 8192)
    # Number of compositions of the tent map.
    compositions: train.AtLeast1 = 4
    # Bits of the parity; a power of 2.
    bits: train.AtLeast2 = 8
    # Dimension of the radial function.
    dim: train.AtLeast1 = 4
    # Number of random starts of each network; the one with the lowest training error counts.
    num_starts: train.AtLeast1 = 2
    # Peak learning rate of Adam, with cosine decay to 0.
    learning_rate: train.Positive = 5e-3

    def __post_init__(self):
        super().__post_init__()
        enough = min(self.num_units) >= max(self.depths)
        train.require(self, 'num_units', enough, 'at least one unit per layer')
        train.require(self, 'bits', not self.bits & (self.bits - 1), 'a power of 2')


METRICS = (
    train.Metric('deep_error', 'fraction', 'lower', 'sawtooth error of deep nets', primary=True),
    train.Metric('error', 'fraction', 'lower', 'test error, fraction of the variance'),
    train.Metric('few_error', 'fraction', 'lower', 'test error by examples'),
    train.Metric('loss', '', 'lower', 'training error'),
    train.Metric('units_needed', 'count', 'lower', 'units that suffice'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'depths': (1, 2), 'num_units': (4,)}
    | {'num_train': (32, 64), 'num_starts': 1},
}
SWEEPS = {'compositions': train.grid(compositions=(2, 3, 4, 5, 6))}


def targets(config):
    return {
        'sawtooth': depth.sawtooth(config.compositions),
        'parity': depth.parity(config.bits),
        'radial': depth.radial(config.dim),
    }


def cases(config):
    names = list(targets(config))
    return depth.cases(names, config.num_units, config.num_train, config.num_starts)


def data(config):
    chosen, seed = targets(config), 2 * config.seed
    training = depth.sample_targets(chosen, max(config.num_train), seed)
    # The batches are row numbers: a network with fewer examples takes them modulo their number.
    return train.in_memory(
        np.arange(max(config.num_train), dtype=np.int32),
        config.batch_size,
        seed=config.seed,
        evaluation=depth.sample_targets(chosen, NUM_TEST, seed + 1),
        spec=train.Spec(training['x'].shape[2:], (), {'train': training}),
    )


def build(config, spec):
    chosen, names = cases(config), list(targets(config))
    dims = [targets(config)[name].dim for name, *_ in chosen]
    which = np.array([names.index(name) for name, *_ in chosen])
    sizes = np.array([n for *_, n in chosen], np.int32)
    examples = {k: jnp.asarray(v) for k, v in spec.constants['train'].items()}

    def init(key, rows):
        keys = jax.random.split(key, len(config.depths))
        return {
            f'{n}': depth.init_stack(own, n, [units // n for _, units, _ in chosen], dims)
            for own, n in zip(keys, config.depths, strict=True)
        }

    def errors(params, x, y):
        return {n: jnp.mean((depth.apply_stack(own, x) - y) ** 2, 1) for n, own in params.items()}

    def loss(params, rows, key):
        own = rows[None] % sizes[:, None]
        each = errors(
            params, examples['x'][own, which[:, None]], examples['y'][own, which[:, None]]
        )
        total = sum(map(jnp.sum, each.values()), jnp.zeros(()))
        return total, {f'loss/{n}': jnp.mean(error) for n, error in each.items()}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(schedule))
    return train.optimize(init, loss, optimizer)


def apply(config, spec):
    def predict(params, x):
        """Outputs [cases, n] of the networks of the first depth."""
        stack = params[f'{config.depths[0]}']
        return depth.apply_stack(stack, jnp.broadcast_to(x, (len(stack.mask), *x.shape)))

    return train.on_params({'predict': predict})


def curves(records, names, key, error):
    """Panels of the error against an entry of the records, a curve for each depth."""
    panels = {}
    for name in names:
        each = {}
        for r in sorted((r for r in records if r['target'] == name), key=lambda r: r[key]):
            each.setdefault(f'depth {r["depth"]}', []).append((r[key], r[error]))
        each = {label: tuple(np.array(points).T) for label, points in sorted(each.items())}
        panels[f'{name}, {key}'] = {'curves': each, 'xlabel': key, 'xscale': 'log', 'yscale': 'log'}
    return panels


def report(config, state, data):
    from lecture4.figures import lines

    names, training = list(targets(config)), data.spec.constants['train']
    sets, n = (training, data.evaluation), config.num_starts
    records, few = depth.records(state.params, cases(config), names, *sets, n)
    widths = np.array(WIDTHS)
    largest = depth.interpolation_errors(lambda x: np.sin(2 * np.pi * x), WIDTHS)
    theorem = {'error': (widths, largest), 'pi^2 / (2 m^2)': (widths, np.pi**2 / 2 / widths**2.0)}
    of_sawtooth = [(r['error'], r['depth']) for r in records if r['target'] == 'sawtooth']
    one = min(error for error, n in of_sawtooth if n == 1)
    deep, best_depth = min((error, n) for error, n in of_sawtooth if n > 1)
    by_hand = depth.units_that_suffice(config.compositions, config.bits)
    axis = {'xlabel': 'units', 'ylabel': 'largest error', 'xscale': 'log', 'yscale': 'log'}
    panels = curves(records, names, 'units', 'error') | curves(few, names, 'examples', 'few_error')
    return train.Report(
        metrics={'deep_error': deep},
        tables=(
            train.Table('Error by hidden layers', records, ('target', 'units'), pivot='depth'),
            train.Table('Error by examples', few, ('target', 'examples'), pivot='depth'),
            train.Table('Units that suffice, by hand', by_hand, ('target', 'hidden layers')),
        ),
        figures={
            'depth': train.Figure(
                lines.panels(panels, columns=3),
                'Test error over the variance of the function; 1 is the error of a constant.',
            ),
            'theorem': train.Figure(
                lines.panels({'one layer of m units, a sine': {'curves': theorem, **axis}}),
                'The universal approximation theorem: the error of one layer falls as 1 / m^2.',
            ),
        },
        summary=f'Sawtooth: error {one:.3f} at best in one layer, {deep:.3f} in {best_depth}; by hand '
        f'{2 * config.compositions} units suffice in {config.compositions} layers, '
        f'{2**config.compositions} in one.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
