"""Active learning: selection of the examples of a pool that an oracle labels, and accuracy with few such labels.

Everything is computed from inner products of the pool, as in `label_efficiency`: a strategy returns an order of
queries, and every prefix of it is the training set for that number of labels. Only labels of queried examples are read.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Num, Real

from lecture4.classifiers import linear, newton
from lecture4.features import label_efficiency
from lecture4.ops.varying import vary_like

STRATEGIES = ('least certain', 'most diverse')


def least_certain(
    gram: Float[Array, 'n n'],
    labels: Int[Array, ' n'],
    initial: Int[Array, ' s'],
    n_queries: int,
    *,
    n_classes: int,
    queries_per_round: int,
    C: Real[ArrayLike, ''] = 1.0,
) -> Int[Array, ' s+{n_queries}']:
    """Queries for which a linear SVM, trained on the labels so far, is least certain; several per round.

    Certainty is the margin between the two largest scores. The pool is centered and scaled by its
    own mean and mean squared norm, which needs no label.

    Args:
      gram: Inner products of the pool, about any origin.
      labels: Labels of the pool; only those of `initial` and of queried rows are read.
      initial: Rows that are labeled at the start.
      n_queries: A multiple of `queries_per_round`, at most n - s.
      n_classes: Number of classes.
      queries_per_round: Queries between two fits of the SVM.
      C: Penalty parameter C of the SVM.

    Returns:
      Rows [s + n_queries], the initial ones first. Compiled once; vmaps or lax.maps over `initial`.

    Raises:
      ValueError: `n_queries` out of its domain.

    References:
      Lewis & Gale 1994 (uncertainty); Tong & Koller 2001, Scheffer et al. 2001 (margin).
    """
    n_unlabeled = gram.shape[0] - initial.shape[0]
    if n_queries % queries_per_round or n_queries > n_unlabeled:
        raise ValueError(
            f'{n_queries} queries in rounds of {queries_per_round} from a pool of {gram.shape[0]}, '
            f'of which {initial.shape[0]} are labeled; use a multiple of {queries_per_round}, at '
            f'most {n_unlabeled}'
        )
    return _least_certain(
        gram,
        labels,
        initial,
        C,
        n_queries=n_queries,
        n_classes=n_classes,
        queries_per_round=queries_per_round,
    )


@functools.partial(jax.jit, static_argnames=('n_queries', 'n_classes', 'queries_per_round'))
def _least_certain(gram, labels, initial, C, *, n_queries, n_classes, queries_per_round):
    n_initial, total = initial.shape[0], initial.shape[0] + n_queries
    gram, _ = label_efficiency.center(gram, gram[:1])

    def one_round(i, state):
        rows, labeled = state
        n = n_initial + i * queries_per_round
        # Entries that are not filled yet repeat a labeled row, with weight 0.
        weight = jnp.where(jnp.arange(total) < n, 1, 0).astype(gram.dtype)
        columns = gram[:, rows]
        fit = newton.fit_gram(
            columns[rows], labels[rows], n_classes=n_classes, C=C, sample_weight=weight
        )
        best = lax.top_k(linear.scores(fit, columns), 2)[0]
        margin = jnp.where(labeled, jnp.inf, best[:, 0] - best[:, 1])
        queried = lax.top_k(-margin, queries_per_round)[1].astype(rows.dtype)
        return lax.dynamic_update_slice(rows, queried, (n,)), labeled.at[queried].set(True)

    rows = jnp.concatenate([initial, jnp.broadcast_to(initial[:1], (n_queries,))])
    labeled = jnp.zeros(gram.shape[0], bool).at[initial].set(True)
    start = vary_like((rows, labeled), (gram, labels, initial))
    return lax.fori_loop(0, n_queries // queries_per_round, one_round, start)[0]


def most_diverse(
    gram: Float[Array, 'n n'], initial: Int[Array, ' s'], n_queries: int
) -> Int[Array, ' s+{n_queries}']:
    """Queries that together represent the pool: each reduces the distances to the nearest query the most.

    The sum over the pool of the squared distance to the nearest queried example is what k-medoids
    minimizes; here it is minimized greedily, which needs neither labels nor a number of clusters. (The
    farthest example, a common choice, would be an outlier.) Costs n_queries passes over n^2 distances.

    Args:
      gram: Inner products of the pool, about any origin.
      initial: Rows that are labeled at the start.
      n_queries: At most n - s.

    Returns:
      Rows [s + n_queries], the initial ones first. Compiled once; vmaps or lax.maps over `initial`.

    Raises:
      ValueError: More queries than unlabeled examples.

    References:
      Kaufman & Rousseeuw 1990 (its BUILD phase); Nemhauser, Wolsey & Fisher 1978 (greedy).
    """
    n_unlabeled = gram.shape[0] - initial.shape[0]
    if n_queries > n_unlabeled:
        raise ValueError(
            f'{n_queries} queries from a pool of {gram.shape[0]}, of which {initial.shape[0]} are '
            f'labeled; use at most {n_unlabeled}'
        )
    return _most_diverse(gram, initial, n_queries=n_queries)


@functools.partial(jax.jit, static_argnames='n_queries')
def _most_diverse(gram, initial, *, n_queries):
    energy = jnp.diagonal(gram)
    distance = jnp.maximum(energy[:, None] + energy[None, :] - 2 * gram, 0)

    def query(state, _):
        nearest, labeled = state
        remaining = jnp.sum(jnp.minimum(nearest[:, None], distance), axis=0)
        row = jnp.argmin(jnp.where(labeled, jnp.inf, remaining)).astype(initial.dtype)
        return (jnp.minimum(nearest, distance[row]), labeled.at[row].set(True)), row

    labeled = jnp.zeros(gram.shape[0], bool).at[initial].set(True)
    state = vary_like((jnp.min(distance[initial], axis=0), labeled), gram)
    return jnp.concatenate([initial, lax.scan(query, state, length=n_queries)[1]])


def label_curves(
    seed: int,
    train_features: Num[Array | np.ndarray, 'n d'],
    train_labels: Int[Array | np.ndarray, '_'],
    test_features: Num[Array | np.ndarray, 'm d'],
    test_labels: Int[Array | np.ndarray, '_'],
    *,
    labels_per_class: tuple[int, ...] = (1, 2, 5, 20),
    num_trials: int = 20,
) -> dict[str, Float[np.ndarray, 'n_sizes num_trials']]:
    """Test accuracy as in `label_efficiency.label_curve`, where the learner chooses the examples.

    Every trial starts from the one label per class that `label_curve` samples for that trial, and makes as many
    queries per round as there are classes; `labels_per_class` are then averages over classes.

    Args:
      seed: Seed of the initial labels.
      train_features: The pool.
      train_labels: Its classes, 0 to c - 1.
      test_features: Features of the test samples.
      test_labels: Their classes, 0 to c - 1.
      labels_per_class: Training set sizes, on average over classes.
      num_trials: Number of initial sets.

    Returns:
      {strategy: fractions [len(labels_per_class), num_trials]} for STRATEGIES.

    Raises:
      ValueError: Labels of another length or out of range, or a pool with too few samples.
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    n_classes = label_efficiency.check_labels(
        train_features, train_labels, test_features, test_labels
    )
    gram, cross = label_efficiency.inner_products(
        jnp.asarray(train_features, jnp.float32), jnp.asarray(test_features, jnp.float32)
    )
    initial = label_efficiency.sample_training_sets(seed, train_labels, 1, num_trials)
    queries = _query_all(
        gram,
        jnp.asarray(train_labels),
        jnp.asarray(initial),
        n_queries=n_classes * (max(labels_per_class) - 1),
        n_classes=n_classes,
    )
    curves = {}
    for strategy, rows in zip(STRATEGIES, map(np.asarray, queries), strict=True):
        curves[strategy] = np.stack(
            [
                label_efficiency.accuracies(
                    gram,
                    cross,
                    train_labels,
                    test_labels,
                    rows[:, : n * n_classes],
                    n_classes=n_classes,
                )
                for n in labels_per_class
            ]
        )
    return curves


@functools.partial(jax.jit, static_argnames=('n_queries', 'n_classes'))
def _query_all(gram, labels, initial, *, n_queries, n_classes):
    def uncertain(rows):
        return least_certain(
            gram, labels, rows, n_queries, n_classes=n_classes, queries_per_round=n_classes
        )

    def diverse(rows):
        return most_diverse(gram, rows, n_queries)

    return lax.map(uncertain, initial), lax.map(diverse, initial)
