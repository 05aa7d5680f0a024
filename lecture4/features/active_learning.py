"""Active learning: which examples of a pool an oracle is asked to label, and what few labels give.

All in inner products of the pool, as in `validation`: a strategy returns an order of queries, of
which every beginning is the training set of that many labels. Only the labels of examples that were
asked for are ever looked at.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.classifiers import linear, newton
from lecture4.features import label_curve


def least_certain(gram, labels, start, n_queries, *, n_classes, per_round, penalty=1.0):
    """Queries where a linear SVM on the labels so far is least certain, per_round at a time.

    Certainty is the margin between the two largest scores. The pool is centred and scaled by its
    own mean and mean squared norm, which needs no label.

    Shapes  gram [n, n] of the pool; labels [n], of which those of start and of queried rows are
            read; start [s] rows that are labelled already. Returns [s + n_queries] rows, start
            first. Traceable; vmaps or lax.maps over start.
    Domain  n_queries a multiple of per_round, s + n_queries <= n.
    Errors  ValueError outside the domain.
    Source  Lewis & Gale 1994 (uncertainty); Tong & Koller 2001, Scheffer et al. 2001 (margin).
    """
    total, first = start.shape[0] + n_queries, start.shape[0]
    if n_queries % per_round or total > gram.shape[0]:
        raise ValueError(
            f'{n_queries} queries in rounds of {per_round} from a pool of {gram.shape[0]}, of which '
            f'{first} are labelled; use a multiple of {per_round}, at most {gram.shape[0] - first}'
        )
    gram, _ = label_curve.centre(gram, gram[:1])

    def one_round(i, state):
        chosen, taken = state
        n = first + i * per_round
        # Places that are not filled yet repeat a labelled row, with no weight.
        weight = jnp.where(jnp.arange(total) < n, 1, 0).astype(gram.dtype)
        columns = gram[:, chosen]
        fit = newton.fit_gram(
            columns[chosen],
            labels[chosen],
            n_classes=n_classes,
            C=penalty,
            sample_weight=weight,
        )
        best = lax.top_k(linear.scores(fit, columns), 2)[0]
        margin = jnp.where(taken, jnp.inf, best[:, 0] - best[:, 1])
        asked = lax.top_k(-margin, per_round)[1].astype(chosen.dtype)
        return lax.dynamic_update_slice(chosen, asked, (n,)), taken.at[asked].set(True)

    chosen = jnp.concatenate([start, jnp.broadcast_to(start[:1], (n_queries,))])
    taken = jnp.zeros(gram.shape[0], bool).at[start].set(True)
    return lax.fori_loop(0, n_queries // per_round, one_round, (chosen, taken))[0]


def most_diverse(gram, start, n_queries):
    """Queries that together stand for the pool: each lowers most the distance to the nearest one.

    The sum over the pool of the squared distance to the nearest chosen example is what k-medoids
    minimises; here it is lowered greedily, so it needs no label and no number of clusters. (The
    farthest example, a common choice, would be an outlier.)

    Shapes  gram [n, n]; start [s] rows chosen already. Returns [s + n_queries] rows, start first.
            Traceable; vmaps or lax.maps over start.
    Domain  s + n_queries <= n.
    Cost    n_queries passes over n^2 distances.
    Source  Kaufman & Rousseeuw 1990 (its BUILD phase); Nemhauser, Wolsey & Fisher 1978 (greedy).
    """
    if start.shape[0] + n_queries > gram.shape[0]:
        raise ValueError(
            f'{n_queries} queries from a pool of {gram.shape[0]}, of which {start.shape[0]} are '
            f'labelled; use at most {gram.shape[0] - start.shape[0]}'
        )
    size = jnp.diagonal(gram)
    distance = jnp.maximum(size[:, None] + size[None, :] - 2 * gram, 0)

    def ask(state, _):
        nearest, taken = state
        left = jnp.sum(jnp.minimum(nearest[:, None], distance), axis=0)
        asked = jnp.argmin(jnp.where(taken, jnp.inf, left)).astype(start.dtype)
        return (jnp.minimum(nearest, distance[asked]), taken.at[asked].set(True)), asked

    taken = jnp.zeros(gram.shape[0], bool).at[start].set(True)
    state = jnp.min(distance[start], axis=0), taken
    return jnp.concatenate([start, lax.scan(ask, state, length=n_queries)[1]])


def inner_products(pool, test):
    """Inner products of a pool [n, d], and of a test set [m, d] with it, about the pool's mean.

    In the unit of the pool's mean squared norm: what penalties mean then depends on no scale.
    Shapes  Returns (gram [n, n], cross [m, n]).
    """
    origin = jnp.mean(pool, axis=0, keepdims=True)
    pool, test = pool - origin, test - origin
    scale = jnp.mean(jnp.sum(pool * pool, axis=1))
    pool = pool / jnp.sqrt(jnp.where(scale > 0, scale, 1))
    test = test / jnp.sqrt(jnp.where(scale > 0, scale, 1))
    return (
        jnp.matmul(pool, pool.T, precision='highest'),
        jnp.matmul(test, pool.T, precision='highest'),
    )


def accuracies(gram, cross, labels, test_labels, rows, *, n_classes, n_folds=5):
    """Test accuracy of linear SVMs trained on any sets of labelled rows.

    The classifier of `validation.label_curve`, also for sets in which classes have unequal numbers
    of examples, or none: C by stratified cross-validation on the set, 1 where it is smaller than
    two examples a class.

    Shapes  gram [n, n]; cross [m, n] of the test examples with the pool; labels [n], test_labels
            [m]; rows [draws, size]. Returns [draws].
    """
    labels, rows = np.asarray(labels), np.asarray(rows)
    n_folds = min(n_folds, rows.shape[1] // n_classes)
    held_out = np.stack([stratified(labels[row], max(n_folds, 1)) for row in rows])
    return np.asarray(
        _accuracies(
            gram,
            cross,
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(test_labels, jnp.int32),
            jnp.asarray(rows),
            jnp.asarray(held_out),
            n_classes=n_classes,
            n_folds=n_folds,
        )
    )


def stratified(labels, n_folds: int) -> np.ndarray:
    """Folds in which each class is spread as evenly as can be: bool [n_folds, n], True held out."""
    fold = np.empty(len(labels), int)
    offset = 0
    for name in np.unique(labels):  # the next class goes on where the last one has stopped
        rows = np.flatnonzero(labels == name)
        fold[rows] = (offset + np.arange(len(rows))) % n_folds
        offset += len(rows)
    return fold[None, :] == np.arange(n_folds)[:, None]


@functools.partial(jax.jit, static_argnames=('n_classes', 'n_folds'))
def _accuracies(gram, cross, labels, test_labels, rows, held_out, *, n_classes, n_folds):
    def accuracy(given):
        chosen, out = given
        inner, outer = label_curve.centre(gram[chosen][:, chosen], cross[:, chosen])
        own = labels[chosen]
        penalty: Any = jnp.asarray(label_curve.DEFAULT, inner.dtype)
        if n_folds > 1:
            penalty = label_curve.choose_penalty(
                inner, own, out, n_classes=n_classes, penalties=label_curve.PENALTIES
            )
        fit = newton.fit_gram(inner, own, n_classes=n_classes, C=penalty)
        return jnp.mean(linear.predict(fit, outer) == test_labels, dtype=inner.dtype)

    return lax.map(accuracy, (rows, held_out))
