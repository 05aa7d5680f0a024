"""What depth saves: functions that need many units in one layer, and networks of rectifiers that compute them.

A network of one hidden layer of m rectifiers on a line has at most m + 1 linear pieces. The tent map composed n
times has 2^n, and n layers of two rectifiers compute it exactly: depth saves exponentially. Parity is the classic
function of this kind for circuits of AND and OR (Hastad 1986), but not for rectifiers: it depends on the sum of its
bits alone, and one layer of as many rectifiers as bits computes it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Shaped

# Weights and biases of layers; rectifiers between them, none after the last.
Layers = tuple[tuple[Array | np.ndarray, Array | np.ndarray], ...]


class Target(NamedTuple):
    """A function to be learned, whose values have a mean of about 0 and a variance of about 1.

    Attributes:
      dim: Number of inputs.
      sample: (key, n) -> inputs [n, dim].
      function: From inputs [n, dim] to values [n].
    """

    dim: int
    sample: Callable[[PRNGKeyArray, int], Float[Array, 'n d']]
    function: Callable[[Float[Array, 'n d']], Float[Array, ' n']]


def tent(x: Shaped[ArrayLike, '*shape'], n: int = 1) -> Float[Array, '*shape']:
    """The tent map 1 - |2 x - 1| of [0, 1], composed n times: 2^n linear pieces."""
    x = jnp.asarray(x)
    for _ in range(n):
        x = 1 - jnp.abs(2 * x - 1)
    return x


def sawtooth(n: int) -> Target:
    """The tent map composed n times, on [0, 1].

    References:
      Telgarsky 2016; Montufar et al. 2014.
    """

    def function(x):
        return (tent(x[:, 0], n) - 0.5) * 12**0.5

    return Target(1, lambda key, m: jax.random.uniform(key, (m, 1)), function)


def parity(n: int) -> Target:
    """Whether an odd number of n bits is set, as -1 or 1."""

    def sample(key, m):
        return jax.random.bernoulli(key, 0.5, (m, n)).astype(jnp.float32)

    return Target(n, sample, lambda x: 1 - 2 * jnp.mod(x.sum(1), 2))


def radial(dim: int, n_waves: float = 2.0) -> Target:
    """Sqrt 2 cos(2 pi n_waves ||x||) in the unit ball, ||x|| uniform: a function of the radius.

    References:
      Eldan & Shamir 2016: some radial functions need exponentially many units in one hidden layer, few in two.
    """

    def sample(key, m):
        direction, radius = jax.random.split(key)
        x = jax.random.normal(direction, (m, dim))
        x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        return x * jax.random.uniform(radius, (m, 1))

    def function(x):
        return 2**0.5 * jnp.cos(2 * jnp.pi * n_waves * jnp.linalg.norm(x, axis=1))

    return Target(dim, sample, function)


def evaluate(layers: Layers, x: Shaped[ArrayLike, 'n d']) -> Float[Array, ' n']:
    """The single output of a network of rectifiers."""
    x = jnp.asarray(x)
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + jnp.asarray(bias)[None])
    weight, bias = layers[-1]
    return (x @ weight + jnp.asarray(bias)[None])[:, 0]


def n_units(layers: Layers) -> int:
    """Number of rectifiers."""
    return sum(len(bias) for _, bias in layers[:-1])


def sawtooth_network(n: int) -> Layers:
    """N layers of two rectifiers whose output is `tent(x, n)` on [0, 1], exactly."""
    first = (np.ones((1, 2), np.float32), np.array([0, -0.5], np.float32))
    # The sum 2 h_1 - 4 h_2 is the tent map, and the input of both units of the next layer.
    inner = (np.array([[2, 2], [-4, -4]], np.float32), np.array([0, -0.5], np.float32))
    last = (np.array([[2], [-4]], np.float32), np.zeros(1, np.float32))
    return (first, *[inner] * (n - 1), last)


def parity_network(n: int, deep: bool) -> Layers:
    """A network whose output is the parity, 0 or 1, of n bits, exactly.

    Args:
      n: Number of bits; a power of 2 if `deep`.
      deep: Use log2 n layers of pairwise XORs, xor(a, b) = relu(a + b) - 2 relu(a + b - 1), 2 (n - 1) rectifiers;
        otherwise one layer of n rectifiers of the sum of all bits.

    Raises:
      ValueError: `deep` is set and n is not a power of 2.
    """
    if not deep:
        slopes = np.array([1, *([-2, 2] * n)[: n - 1]], np.float32)
        shift = -np.arange(n, dtype=np.float32)
        return (np.ones((n, n), np.float32), shift), (slopes[:, None], np.zeros(1, np.float32))
    if n < 2 or n & (n - 1):
        raise ValueError(f'got {n} bits for pairwise XORs; expected a power of 2, such as 8 or 16')
    pairs = np.array([1, -2], np.float32)
    layers, n_inputs, read = [], n, np.eye(n, dtype=np.float32)
    while n_inputs > 1:
        n_pairs = n_inputs // 2
        add = np.kron(np.eye(n_pairs, dtype=np.float32), np.ones((2, 2), np.float32))
        layers.append((read @ add, np.tile(np.array([0, -1], np.float32), n_pairs)))
        read, n_inputs = np.kron(np.eye(n_pairs, dtype=np.float32), pairs[:, None]), n_pairs
    return (*layers, (read, np.zeros(1, np.float32)))


def interpolation_network(function: Callable[[np.ndarray], np.ndarray], m: int) -> Layers:
    """One hidden layer of m rectifiers that interpolates a function of [0, 1] at m + 1 equidistant points.

    Its largest error is at most max |f''| / (8 m^2), and twice that many units have a quarter of it: the universal
    approximation theorem for one input, with a rate.

    Args:
      function: From points [k] to values [k].
      m: Number of rectifiers, at least 1.
    """
    knots = np.linspace(0, 1, m + 1)
    values = np.asarray(function(knots), np.float64)
    slopes = np.diff(values) * m
    weight = np.diff(slopes, prepend=0.0).astype(np.float32)
    hidden = (np.ones((1, m), np.float32), -knots[:-1].astype(np.float32))
    return hidden, (weight[:, None], values[:1].astype(np.float32))


class Stack(NamedTuple):
    """Networks of one depth and several widths, padded to the widest: parameters [cases, ...] for one vmap.

    Attributes:
      layers: (weight [cases, d_in, d_out], bias [cases, d_out]) of each layer.
      mask: [cases, width], 1 where a unit exists.
    """

    layers: tuple[tuple[Array, Array], ...]
    mask: Float[Array, 'cases width']


def init_stack(key: PRNGKeyArray, depth: int, widths: Sequence[int], dims: Sequence[int]) -> Stack:
    """Random networks: He's normal weights, biases uniform in +- 1 / sqrt(fan-in).

    Args:
      key: A random key.
      depth: Number of hidden layers.
      widths: Units of every hidden layer, of each network.
      dims: Number of inputs that each network uses; the others are 0 in its examples.
    """
    width = max(widths)
    mask = (np.arange(width)[None] < np.array(widths)[:, None]).astype(np.float32)
    sizes = (max(dims), *[width] * depth, 1)
    layers = []
    for i, layer_key in enumerate(jax.random.split(key, depth + 1)):
        fan_in = jnp.asarray(dims if i == 0 else widths, jnp.float32)[:, None, None]
        of_weight, of_bias = jax.random.split(layer_key)
        shape = (len(widths), sizes[i], sizes[i + 1])
        weight = jax.random.normal(of_weight, shape) * jnp.sqrt(2 / fan_in)
        bias = jax.random.uniform(of_bias, (shape[0], shape[2]), minval=-1.0, maxval=1.0)
        layers.append((weight, bias / jnp.sqrt(fan_in[:, 0])))
    return Stack(tuple(layers), jnp.asarray(mask))


def apply_stack(stack: Stack, x: Float[Array, 'cases n d']) -> Float[Array, 'cases n']:
    """The outputs of all networks, each on its own inputs."""
    mask = jax.lax.stop_gradient(stack.mask)[:, None]
    for weight, bias in stack.layers[:-1]:
        x = mask * jax.nn.relu(jnp.matmul(x, weight) + bias[:, None])
    weight, bias = stack.layers[-1]
    return (jnp.matmul(x, weight) + bias[:, None])[..., 0]


def sample_targets(
    targets: Mapping[str, Target], n: int, seed: int
) -> dict[str, Float[np.ndarray, 'n targets ...']]:
    """Examples of several functions, stacked on the second axis.

    Args:
      targets: Functions by name.
      n: Number of examples.
      seed: Seed of the examples.

    Returns:
      `x` [n, targets, d], padded with zeros to the largest number of inputs; `y` [n, targets].
    """
    dim = max(target.dim for target in targets.values())
    inputs, values = [], []
    for i, target in enumerate(targets.values()):
        x = target.sample(jax.random.fold_in(jax.random.key(seed), i), n)
        inputs.append(np.pad(np.asarray(x), ((0, 0), (0, dim - target.dim))))
        values.append(np.asarray(target.function(x)))
    return {'x': np.stack(inputs, 1), 'y': np.stack(values, 1)}


def units_that_suffice(compositions: int, bits: int) -> list[dict[str, Any]]:
    """Records of the networks written by hand: `target`, `hidden layers`, `units_needed`.

    Args:
      compositions: Number of compositions of the tent map.
      bits: Number of bits of the parity, a power of 2.
    """
    pairwise, flat = (n_units(parity_network(bits, deep)) for deep in (True, False))
    rows = (
        ('sawtooth', compositions, n_units(sawtooth_network(compositions))),
        ('sawtooth', 1, 2**compositions),
        ('parity', bits.bit_length() - 1, pairwise),
        ('parity', 1, flat),
    )
    return [{'target': name, 'hidden layers': k, 'units_needed': m} for name, k, m in rows]


def interpolation_errors(
    function: Callable[[np.ndarray], np.ndarray], widths: Sequence[int], n_points: int = 4001
) -> Float[np.ndarray, ' widths']:
    """Largest error on [0, 1] of `interpolation_network` with each number of units."""
    x = np.linspace(0, 1, n_points, dtype=np.float32)
    values = function(x)
    networks = [interpolation_network(function, m) for m in widths]
    return np.array([np.abs(evaluate(network, x[:, None]) - values).max() for network in networks])


class Case(NamedTuple):
    """A network to be trained together with the others of its depth.

    Attributes:
      target: Name of the function.
      units: Hidden units over all layers.
      n_train: Number of training examples.
    """

    target: str
    units: int
    n_train: int


def cases(
    names: Sequence[str], units: Sequence[int], n_train: Sequence[int], n_starts: int
) -> list[Case]:
    """Networks with each number of units on all examples, and with the most units on fewer; once for each random start.

    Args:
      names: Names of the functions.
      units: Numbers of hidden units.
      n_train: Numbers of training examples.
      n_starts: Number of random starts of each network.
    """
    most, fewer = max(n_train), sorted(set(n_train) - {max(n_train)})
    each = [Case(name, m, most) for name in names for m in units]
    each += [Case(name, max(units), n) for name in names for n in fewer]
    return [case for case in each for _ in range(n_starts)]


def records(
    stacks: Mapping[str, Stack],
    cases: Sequence[Case],
    names: Sequence[str],
    training: Mapping[str, Float[np.ndarray, 'n targets ...']],
    test: Mapping[str, Float[np.ndarray, 'm targets ...']],
    n_starts: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Test error of every case by depth, of the start with the lowest training error.

    Args:
      stacks: Networks of `cases`, by depth.
      cases: Result of `cases`.
      names: Names of the functions, in the order of the examples.
      training: Training examples, from `sample_targets`.
      test: Test examples.
      n_starts: Number of random starts of each case.

    Returns:
      (by units, by examples): records {'target', 'units', 'depth', 'error'} of the networks trained on all examples,
        and {'target', 'examples', 'depth', 'few_error'} of those with the most units. Errors are mean squared errors,
        limited to 1, the error of a constant.
    """
    which = np.array([list(names).index(case.target) for case in cases])
    most_units, all_examples = (max(case[i] for case in cases) for i in (1, 2))

    def errors(stack, examples):
        x, y = (jnp.asarray(np.moveaxis(examples[k], 1, 0)[which]) for k in ('x', 'y'))
        return np.asarray(jnp.mean((jax.jit(apply_stack)(stack, x) - y) ** 2, axis=1))

    by_units, by_examples = [], []
    for n, stack in stacks.items():
        of_training, of_test = errors(stack, training), errors(stack, test)
        for i in range(0, len(cases), n_starts):
            best = i + int(of_training[i : i + n_starts].argmin())
            (target, units, n_train), error = cases[best], min(float(of_test[best]), 1.0)
            record = {'target': target, 'depth': int(n)}
            if n_train == all_examples:
                by_units.append({**record, 'units': units, 'error': error})
            if units == most_units:
                by_examples.append({**record, 'examples': n_train, 'few_error': error})
    return by_units, by_examples
