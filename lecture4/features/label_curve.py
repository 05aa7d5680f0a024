"""Choosing C by cross-validation, and accuracy against the number of labels, over many draws.

Everything works on inner products of the pool's samples, which are formed once: a training set of n
labels is an [n, n] block, and the machines of all its folds and classes are solved side by side.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.classifiers import linear, newton

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
TOLERANCE = 1e-3  # relative duality gap of the machines: far below what changes a prediction
DEFAULT = 1.0  # C where there is nothing to choose it by: one label a class


def draw(seed: int, labels, n_per_class: int, n_draws: int) -> np.ndarray:
    """Rows of training sets with n_per_class samples of every class, without replacement.

    Shapes  labels [n] -> int32 [n_draws, n_classes * n_per_class], sorted by class.
    Errors  ValueError where a class has fewer samples.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < n_per_class:
        raise ValueError(
            f'{n_per_class} labels a class are wanted, class {classes[counts.argmin()]} has '
            f'{counts.min()} samples; use at most that many'
        )
    rows = np.empty((n_draws, len(classes), n_per_class), np.int32)
    for i in range(n_draws):
        rng = np.random.default_rng((seed, n_per_class, i))
        for j, name in enumerate(classes):
            rows[i, j] = rng.permutation(np.flatnonzero(labels == name))[:n_per_class]
    return rows.reshape(n_draws, -1)


def folds(n_per_class: int, n_classes: int, n_folds: int) -> np.ndarray:
    """Stratified folds of samples sorted by class: bool [n_folds, n], True where held out."""
    fold = np.tile(np.arange(n_per_class) % n_folds, n_classes)
    return fold[None, :] == np.arange(n_folds)[:, None]


def centre(gram, cross):
    """Inner products as if the training mean were the origin and the mean squared norm 1.

    Shapes  gram [n, n] of the training samples, cross [m, n] of others with them.
    """
    row, other = jnp.mean(gram, axis=0), jnp.mean(cross, axis=1)
    mean = jnp.mean(row)
    centred = gram - row[None, :] - row[:, None] + mean
    scale = jnp.trace(centred) / gram.shape[0]
    scale = jnp.where(scale > 0, scale, 1)
    return centred / scale, (cross - other[:, None] - row[None, :] + mean) / scale


def choose_penalty(gram, labels, held_out, *, n_classes, penalties):
    """The C of the highest accuracy over held-out folds; among equals the one nearest to 1.

    Shapes  gram [n, n], labels [n], held_out bool [n_folds, n]. Returns a scalar. Traceable.
    """
    signs = newton.one_vs_rest(labels, n_classes, gram.dtype)
    n, n_folds = len(labels), len(held_out)
    columns = jnp.tile(signs[:, None, :], (1, n_folds, 1)).reshape(n, -1)
    kept = jnp.repeat(~held_out.T, n_classes, axis=1).astype(gram.dtype)
    form = newton.sample_form(gram + 1)

    def n_right(start, penalty):
        p = newton.minimize(form, columns, penalty * kept, start, tolerance=TOLERANCE).p
        scores = form.margins(p).reshape(n, n_folds, n_classes)
        right = jnp.argmax(scores, axis=2) == labels[:, None]
        return p, jnp.sum(right & held_out.T)

    rising = jnp.asarray(sorted(penalties), gram.dtype)  # each starts where the smaller one ended
    _, right = lax.scan(n_right, jnp.zeros_like(kept), rising)
    nearness = jnp.abs(jnp.log(rising))
    return rising[jnp.argmin(jnp.where(right == jnp.max(right), nearness, jnp.inf))]


def label_curve(
    seed: int,
    train_features,
    train_labels,
    test_features,
    test_labels,
    *,
    labels_per_class=(1, 2, 5, 20),
    n_draws: int = 20,
    penalties=PENALTIES,
    n_folds: int = 5,
) -> np.ndarray:
    """Test accuracy of linear SVMs trained on few labels: [len(labels_per_class), n_draws].

    Each draw takes so many samples of every class from the training pool, centres and scales by
    their mean and mean squared norm, and chooses C by stratified cross-validation on them alone;
    with one label a class C is 1. The draws depend on the seed and the labels, not on the features:
    two kinds of features are compared on the same training sets.

    Shapes  features [n, d] and [m, d] float, labels [n] and [m] in 0 .. c - 1.
    Cost    each draw some 100 products of [n, n] with [n, n_folds * n_classes], n the number of labels.
    Errors  ValueError for labels of another length or out of range, or a class with too few samples.
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    for features, labels in ((train_features, train_labels), (test_features, test_labels)):
        if labels.shape != (len(features),):
            raise ValueError(
                f'labels have shape {labels.shape} for {len(features)} samples; one for each is wanted'
            )
    n_classes = int(train_labels.max()) + 1
    linear.check_labels(train_labels, n_classes)
    if test_labels.min() < 0 or test_labels.max() >= n_classes:
        raise ValueError(
            f'test labels run from {test_labels.min()} to {test_labels.max()}, the training labels '
            f'to {n_classes - 1}'
        )
    train, test = (
        jnp.asarray(features, jnp.float32) for features in (train_features, test_features)
    )
    origin = jnp.mean(train, axis=0)[None, :]  # near the data, so that float32 keeps its digits
    train, test = train - origin, test - origin
    gram = jnp.matmul(train, train.T, precision='highest')
    cross = jnp.matmul(test, train.T, precision='highest')
    curve = []
    for n in labels_per_class:
        rows = draw(seed, train_labels, n, n_draws)
        curve.append(
            _accuracies(
                gram,
                cross,
                jnp.asarray(train_labels, jnp.int32),
                jnp.asarray(test_labels, jnp.int32),
                jnp.asarray(rows),
                n_classes=n_classes,
                n_folds=min(n, n_folds),
                penalties=tuple(penalties),
            )
        )
    return np.stack([np.asarray(accuracy) for accuracy in curve])


@functools.partial(jax.jit, static_argnames=('n_classes', 'n_folds', 'penalties'))
def _accuracies(gram, cross, train_labels, test_labels, rows, *, n_classes, n_folds, penalties):
    """Test accuracy for each of the training sets `rows` [n_draws, n]."""

    def accuracy(chosen):
        labels = train_labels[chosen]
        inner, outer = centre(gram[chosen][:, chosen], cross[:, chosen])
        penalty: Any = jnp.asarray(DEFAULT, inner.dtype)
        if n_folds > 1:
            held_out = jnp.asarray(folds(rows.shape[1] // n_classes, n_classes, n_folds))
            penalty = choose_penalty(
                inner, labels, held_out, n_classes=n_classes, penalties=penalties
            )
        fit = newton.fit_gram(inner, labels, n_classes=n_classes, C=penalty, tolerance=TOLERANCE)
        right = linear.predict(fit, outer) == test_labels
        return jnp.mean(right, dtype=inner.dtype)

    return lax.map(accuracy, rows)
