"""Overcomplete codes are not unique, a penalty chooses one, and a norm bound makes it a choice (Chen et al. 1998).

More atoms than dimensions reconstruct a patch exactly in infinitely many ways: all of them, the one of smallest L2
norm and the sparse one of smallest L1 norm. A dictionary is learned from whitened photographs twice, with the bound
||d_j|| <= 1 of the lecture's constraint C and without: codes shrink, atoms grow and the objective falls, since atoms
c D with codes a / c reconstruct the same and cost less. ISTA ends in the same codes from any start, unless an atom is
repeated.

Run:      python -m experiments.sparse_coding.uniqueness
Hardware: one core (AMD EPYC), 1 minute
Results:  photographs, 8 x 8 patches, 128 atoms, l1_penalty 1

          | codes of 50 patches     | relative residual | L1 norm | L2 norm | coefficients not 0 |
          |-------------------------|-------------------|---------|---------|--------------------|
          | exact, smallest L2 norm | 0                 | 55.7    | 6.3     | 128                |
          | exact, random           | 0                 | 88.3    | 9.9     | 128                |
          | exact, smallest L1 norm | 0                 | 45.8    | 7.8     | 64 (d, derived)    |
          | L1 penalty 1            | 0.69              | 6.1     | 2.2     | 7                  |

          | atoms     | mean norm | L1 norm of codes | not 0 | explained | objective |
          |-----------|-----------|------------------|-------|-----------|-----------|
          | bounded   | 1         | 6.8              | 6.9   | 88.3 %    | 10.0      |
          | unbounded | 17.8      | 0.77             | 33.5  | 99.8 %    | 0.8       |

          ISTA from other starts: within 8e-5 after 10,000 iterations; 0.2 apart for good with an atom repeated.
          The lecture says that the bound keeps codes from shrinking. It does, and without it the codes get denser
          as well: codes of atoms c D at penalty w are 1 / c times those of D at w / c.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data.images import crops, load_images, whiten
from lecture4.ops.prox import project_ball
from lecture4.sparse import solvers, uniqueness
from lecture4.sparse.dictionary import init as initialization

MARGIN = 4  # whitening treats images as periodic
NAMES = ('bounded', 'unbounded')


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    steps: train.AtLeast1 = 1500
    batch_size: train.AtLeast1 = 256
    steps_per_call: train.AtLeast1 = 50
    # Source of images: photos, olshausen, textures, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    # Size of the patches, in pixels.
    patch_size: train.AtLeast4 = 8
    # Number of atoms; more than pixels of a patch.
    num_atoms: train.AtLeast1 = 128
    # Weight of the L1 norm of the codes; whitened pixels have variance 1.
    l1_penalty: train.Positive = 1.0
    # Learning rate of Adam for the atoms.
    learning_rate: train.Positive = 0.02
    # Iterations of the solver per step.
    num_iterations: train.AtLeast1 = 10
    # Number of patches; a tenth of them is held out for evaluation.
    num_patches: train.AtLeast2 = 30_000
    # Held-out patches whose exact codes are computed.
    num_exact: train.AtLeast1 = 50
    # Iterations of ISTA after which codes from different starts are compared.
    ista_iterations: train.Ints = (1, 10, 100, 1000, 10_000)

    def __post_init__(self):
        super().__post_init__()
        is_overcomplete = self.num_atoms > self.patch_size**2
        train.require(self, 'num_atoms', is_overcomplete, 'more than the pixels of a patch')


METRICS = (
    train.Metric(
        'disagreement', '', 'lower', 'relative distance of codes from other starts', primary=True
    ),
    train.Metric('objective', '', 'lower', 'objective per patch'),
    train.Metric('loss', '', 'lower', 'sum of the objectives'),
    train.Metric('explained', 'fraction', 'higher', 'explained variance'),
    train.Metric('nonzeros', 'count', '', 'coefficients that are not 0'),
    train.Metric('atom_norm', '', '', 'mean norm of the atoms'),
    train.Metric('l1_norm', '', '', 'L1 norm of the codes'),
    train.Metric('l2_norm', '', '', 'L2 norm of the codes'),
    train.Metric('residual', '', 'lower', 'relative residual'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 2, 'num_patches': 400, 'batch_size': 32}
    | {'patch_size': 4, 'num_atoms': 32, 'num_exact': 3, 'ista_iterations': (1, 10, 100)},
}
SWEEPS = {'l1_penalty': train.grid(l1_penalty=(0.3, 1.0, 3.0))}


def data(config):
    images = load_images(config.source, **config.data_kwargs()).images
    inner = [image[MARGIN:-MARGIN, MARGIN:-MARGIN] for image in whiten.whiten(images)]
    signals = crops.sample_patches(inner, config.num_patches, config.patch_size, config.seed)
    num_held_out = min(len(signals) // 10, 1000)
    held_out = signals[:num_held_out]
    return train.in_memory(
        signals[num_held_out:], config.batch_size, seed=config.seed, evaluation=held_out
    )


def dictionary(params, name):
    """Atoms in columns: inside the unit ball, or as they are."""
    return project_ball(params[name], 1.0) if name == NAMES[0] else params[name]


def build(config, spec):
    def init(key, signals):
        atoms = initialization.from_signals(key, signals, config.num_atoms, 1.0)
        return dict.fromkeys(NAMES, atoms)

    def measure(params, x, encode):
        each = {}
        for name in NAMES:
            D = dictionary(params, name)
            codes = jax.lax.stop_gradient(encode(x, jax.lax.stop_gradient(D)))
            error = jnp.sum((x - codes @ D.T) ** 2, axis=1)
            l1_norm = jnp.mean(jnp.sum(jnp.abs(codes), axis=1))
            each |= {
                f'objective/{name}': 0.5 * jnp.mean(error) + config.l1_penalty * l1_norm,
                f'l1_norm/{name}': l1_norm,
                f'atom_norm/{name}': jnp.mean(jnp.linalg.norm(D, axis=0)),
                f'nonzeros/{name}': jnp.mean(jnp.sum(jnp.abs(codes) > 1e-3, 1).astype(x.dtype)),
                f'explained/{name}': 1 - jnp.sum(error) / jnp.sum(x * x),
            }
        return each

    def approximate(x, D):
        return solvers.approximate(x, D, config.l1_penalty, n_iterations=config.num_iterations)

    def loss(params, x, key):
        # The codes are held fixed: at their minimum the objective has no slope in them.
        each = measure(params, x, approximate)
        return sum((each[f'objective/{name}'] for name in NAMES), jnp.zeros(())), each

    def evaluate(params, x):
        return measure(params, x, lambda x, D: solvers.fista(x, D, config.l1_penalty).codes)

    return train.optimize(init, loss, optax.adam(config.learning_rate), evaluate)


def apply(config, spec):
    def encode(params, x):
        return solvers.fista(x, dictionary(params, NAMES[0]), config.l1_penalty).codes

    return train.on_params({'encode': encode})


def report(config, state, data):
    from lecture4.figures import exact_codes, lines

    x, (bounded, unbounded) = jnp.asarray(data.evaluation[: config.num_exact]), NAMES
    D, key = dictionary(state.params, bounded), jax.random.key(config.seed)
    exact = uniqueness.exact_records(key, x, D)
    penalized = uniqueness.describe(solvers.fista(x, D, config.l1_penalty).codes, x, D)
    exact.append({'codes': f'L1 penalty {config.l1_penalty:g}', **penalized})
    at_end = train.evaluate(build(config, data.spec), state, jnp.asarray(data.evaluation))
    columns = ('atom_norm', 'l1_norm', 'nonzeros', 'explained', 'objective')
    bounds = [{'atoms': n, **{c: at_end[f'{c}/{n}'] for c in columns}} for n in NAMES]
    counts = config.ista_iterations
    apart = uniqueness.agreement(key, x, D, config.l1_penalty, counts)
    curves = {name: (np.array(counts), np.maximum(v, 1e-9)) for name, v in apart.items()}
    plane, point = np.array([[1.0, 0.6, -0.2], [0.1, 0.8, 1.0]]), np.array([[0.8, 0.9]])
    toy = uniqueness.smallest_l2(point, plane)[0], uniqueness.null_space(plane)[:, 0]
    axes = {'xlabel': 'iterations', 'ylabel': 'relative distance', 'xscale': 'log', 'yscale': 'log'}
    largest = max(apart['smallest L2 norm'][-1], apart['random'][-1])
    return train.Report(
        metrics={'disagreement': largest, **at_end},
        tables=(
            train.Table('Codes of the same patches', exact, ('codes',)),
            train.Table('Learning with and without a bound on the atoms', bounds, ('atoms',)),
        ),
        figures={
            'solutions': train.Figure(
                exact_codes.solution_line(plane, point[0], *toy),
                'Every point of the line reconstructs x exactly. L2 spreads over all atoms, L1 chooses two.',
            ),
            'starts': train.Figure(
                lines.panels({'ISTA from other starts, against zeros': {'curves': curves, **axes}}),
                'Codes agree from any start. With an atom repeated only the sum of its two coefficients does.',
            ),
        },
        summary=f'Without a bound the mean atom has norm {at_end[f"atom_norm/{unbounded}"]:.1f}, and '
        f'{at_end[f"nonzeros/{unbounded}"]:.0f} coefficients are used, not {penalized["nonzeros"]:.0f}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
