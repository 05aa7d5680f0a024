"""Whether decoded codes are like the data: distances to the nearest example, in pixels and in features.

A decoder maps every code to something. Where the codes of the data leave a hole, the decoded image of a code inside
it does not look like an example. Distances are Euclidean, to the nearest training example; the distances of test
examples are the reference.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Num, Shaped

QUANTILE = 0.95  # of the distances of test examples: what lies farther away is unlike the data


def nearest_distances(
    points: Num[ArrayLike, 'm d'], examples: Num[ArrayLike, 'n d']
) -> Float[np.ndarray, ' m']:
    """Distance of every point to the nearest example, in float64 on the host."""
    from sklearn.neighbors import NearestNeighbors

    points, examples = (np.asarray(part, np.float64) for part in (points, examples))
    return NearestNeighbors(n_neighbors=1).fit(examples).kneighbors(points)[0][:, 0]


def classifier_features(
    x: Num[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    *,
    hidden_dim: int = 100,
    seed: int = 0,
) -> Callable[[Num[ArrayLike, 'm d']], Float[np.ndarray, 'm k']]:
    """The hidden layer of a classifier of one hidden layer of ReLUs, trained on the host.

    Args:
      x: Training examples.
      labels: Classes of the training examples.
      hidden_dim: Number of hidden units.
      seed: Seed of the initial weights and the order of the examples.
    """
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((hidden_dim,), early_stopping=True, random_state=seed)
    network.fit(np.asarray(x), np.asarray(labels))
    weight, bias = network.coefs_[0], network.intercepts_[0]
    return lambda other: np.maximum(np.asarray(other) @ weight + bias, 0)


class Gaussian(NamedTuple):
    """A Gaussian fitted to codes.

    Attributes:
      mean: Mean.
      root: Matrix [k, k] with root root' = covariance.
    """

    mean: Float[np.ndarray, ' k']
    root: Float[np.ndarray, 'k k']

    def sample(self, n: int, seed: int) -> Float[np.ndarray, 'n k']:
        """N random codes."""
        noise = np.random.default_rng(seed).normal(size=(n, len(self.mean)))
        return (self.mean + noise @ self.root.T).astype(np.float32)


def fit_gaussian(codes: Num[ArrayLike, 'n k']) -> Gaussian:
    """The Gaussian of the codes' mean and covariance: codes of any autoencoder, sampled by the same rule."""
    codes = np.asarray(codes, np.float64)
    values, vectors = np.linalg.eigh(np.cov(codes.T).reshape(codes.shape[1], -1))
    return Gaussian(codes.mean(0), vectors * np.sqrt(np.maximum(values, 0)))


class Spaces(NamedTuple):
    """Where distances are measured.

    Attributes:
      maps: Functions from pixels to each space, by its name.
      examples: Training examples in each space, by its name.
      limits: The QUANTILE of the distances of test examples in each space.
      typical: The mean of the distances of test examples in each space.
    """

    maps: Mapping[str, Callable[[Num[ArrayLike, 'm d']], np.ndarray]]
    examples: Mapping[str, np.ndarray]
    limits: Mapping[str, float]
    typical: Mapping[str, float]

    def distances(self, points: Num[ArrayLike, 'm d'], space: str) -> Float[np.ndarray, ' m']:
        """Distances of points to the nearest training example in a space."""
        return nearest_distances(self.maps[space](np.asarray(points)), self.examples[space])

    def record(self, points: Num[ArrayLike, 'm d']) -> dict[str, float]:
        """Measurements of decoded points.

        Returns:
          `distance_NAME`, the mean distance over that of test examples, and `unlike_NAME`, the fraction of points
          that are farther away than 95 % of test examples, for every space NAME.
        """
        result = {}
        for name in self.maps:
            distances = self.distances(points, name)
            result[f'distance_{name}'] = float(distances.mean() / self.typical[name])
            result[f'unlike_{name}'] = float(np.mean(distances > self.limits[name]))
        return result


def spaces(
    x: Num[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    test: Num[ArrayLike, 'm d'],
    seed: int = 0,
) -> Spaces:
    """Pixels, and the features of a classifier, with the distances of test examples.

    Args:
      x: Training examples.
      labels: Classes of the training examples.
      test: Test examples.
      seed: Seed of the classifier.
    """
    maps = {'pixels': np.asarray, 'features': classifier_features(x, labels, seed=seed)}
    examples = {name: function(x) for name, function in maps.items()}
    distances = {
        name: nearest_distances(function(test), examples[name]) for name, function in maps.items()
    }
    limits = {name: float(np.quantile(each, QUANTILE)) for name, each in distances.items()}
    return Spaces(
        maps, examples, limits, {name: float(each.mean()) for name, each in distances.items()}
    )


def different_pairs(
    labels: Shaped[ArrayLike, ' n'], n_pairs: int, seed: int = 0
) -> tuple[Int[np.ndarray, ' p'], Int[np.ndarray, ' p']]:
    """Random pairs of examples of different classes.

    Args:
      labels: Classes, at least two.
      n_pairs: Number of pairs.
      seed: Seed of the random choice.

    Returns:
      (first, second): row numbers, `n_pairs` of each.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    first = rng.integers(len(labels), size=n_pairs)
    second = np.array([rng.choice(np.flatnonzero(labels != labels[i])) for i in first])
    return first, second


def survey(
    spaces: Spaces,
    encode: Callable[[Num[ArrayLike, 'n d']], Num[ArrayLike, 'n k']],
    decode: Callable[[Num[ArrayLike, 'm k']], Num[ArrayLike, 'm d']],
    x: Num[ArrayLike, 'n d'],
    test: Num[ArrayLike, 'm d'],
    pairs: tuple[Int[np.ndarray, ' p'], Int[np.ndarray, ' p']],
    *,
    has_prior: bool = False,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Decode test images, random codes and midpoints of one autoencoder, and measure them.

    Args:
      spaces: Where distances are measured.
      encode: Pixels to codes.
      decode: Codes to pixels.
      x: Training examples, whose codes fix the Gaussian of random codes.
      test: Test examples.
      pairs: Rows of test examples whose codes' midpoints are decoded.
      has_prior: Whether codes from N(0, I) are decoded too.
      seed: Seed of the random codes.

    Returns:
      Records {'codes': name, ...} as `Spaces.record`, and name -> decoded pixels; as many of each as there are pairs.
    """
    first, second = pairs
    z, n = np.asarray(encode(test)), len(first)
    codes = {
        'test images': z[:n],
        'random': fit_gaussian(encode(x)).sample(n, seed),
        'midpoints': 0.5 * (z[first] + z[second]),
    }
    if has_prior:
        noise = np.random.default_rng(seed).normal(size=(n, z.shape[1]))
        codes['prior'] = noise.astype(np.float32)
    decoded = {name: np.asarray(decode(values)) for name, values in codes.items()}
    return [{'codes': name, **spaces.record(values)} for name, values in decoded.items()], decoded


def plane(
    spaces: Spaces,
    decode: Callable[[Num[ArrayLike, 'm 2']], Num[ArrayLike, 'm d']],
    codes: Num[ArrayLike, 'n 2'],
    grid_size: int,
) -> dict[str, np.ndarray]:
    """Distances in features of the images decoded over the plane of codes.

    Args:
      spaces: Where distances are measured.
      decode: Codes to pixels.
      codes: Codes of examples, which determine the extent of the plane.
      grid_size: Points along each axis.

    Returns:
      `codes`; `x` [grid_size] and `y` [grid_size]; `distances` [grid_size, grid_size] over the limit of test
      examples, rows along y.
    """
    codes = np.asarray(codes)
    low, high = codes.min(0), codes.max(0)
    ends = zip(low - 0.08 * (high - low), high + 0.08 * (high - low), strict=True)
    x, y = (np.linspace(*each, grid_size) for each in ends)
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
    distances = spaces.distances(decode(points), 'features') / spaces.limits['features']
    return {'codes': codes, 'x': x, 'y': y, 'distances': distances.reshape(grid_size, -1)}


class Decoded(NamedTuple):
    """Results of `compare` for several autoencoders.

    Attributes:
      records: {'autoencoder': name, 'codes': name, ...} as `Spaces.record`.
      random: Decoded random codes for figures, by autoencoder.
      paths: The decoded line between the codes of one pair of test examples, by autoencoder; under 'pixels', the line
        between the examples.
      planes: Result of `plane` and a `note`, by autoencoder with two latent variables.
    """

    records: list[dict[str, Any]]
    random: dict[str, np.ndarray]
    paths: dict[str, np.ndarray]
    planes: dict[str, dict[str, Any]]


def compare(
    spaces: Spaces,
    autoencoders: Mapping[str, tuple[Callable, Callable, bool]],
    x: Num[ArrayLike, 'n d'],
    test: Num[ArrayLike, 'm d'],
    test_labels: Int[ArrayLike, ' m'],
    *,
    n_points: int = 500,
    grid_size: int = 60,
    seed: int = 0,
) -> Decoded:
    """`survey` and `plane` of several autoencoders, next to test examples and midpoints between their pixels.

    Args:
      spaces: Where distances are measured.
      autoencoders: (encode, decode, whether codes have the prior N(0, I)), by name.
      x: Training examples.
      test: Test examples.
      test_labels: Classes of the test examples; the examples of a pair have different ones.
      n_points: Number of random codes, and of pairs.
      grid_size: Points along each axis of a plane.
      seed: Seed of random codes and pairs.
    """
    x, test = np.asarray(x), np.asarray(test)
    pairs = different_pairs(test_labels, n_points, seed)
    a, b = (test[rows] for rows in pairs)
    records = [
        {'autoencoder': 'none', 'codes': 'test images', **spaces.record(test)},
        {'autoencoder': 'none', 'codes': 'midpoints', **spaces.record((a + b) / 2)},
    ]
    t, planes, random = np.linspace(0, 1, 16)[:, None], {}, {}
    paths = {'pixels': (1 - t) * a[:1] + t * b[:1]}
    for name, (encode, decode, has_prior) in autoencoders.items():
        of_autoencoder, decoded = survey(
            spaces, encode, decode, x, test, pairs, has_prior=has_prior, seed=seed
        )
        records += [{'autoencoder': name, **record} for record in of_autoencoder]
        random[name] = decoded['random'][:16]
        first, second = (np.asarray(encode(end[:1])) for end in (a, b))
        line = ((1 - t) * first + t * second).astype(first.dtype)
        paths[name] = np.asarray(decode(line))
        if first.shape[1] == 2:
            planes[name] = plane(spaces, decode, encode(test), grid_size)
            holes = of_autoencoder[1]['unlike_features']
            planes[name]['note'] = f'{holes:.1%} of random codes in holes'
    return Decoded(records, random, paths, planes)
