"""Choosing C by cross-validation, and accuracy against the number of labels, over many draws.

Everything works on inner products of the pool's samples, which are formed once: a training set of n
labels is an [n, n] block, and all its folds and penalties are solved in one vmapped program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.classifiers import linear, svm

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
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


def choose_penalty(gram, labels, held_out, *, n_classes, penalties, **options):
    """The C of the highest accuracy over held-out folds; among equals the one nearest to 1.

    Shapes  gram [n, n], labels [n], held_out bool [n_folds, n]. Returns a scalar. Traceable.
    """
    ordered = jnp.asarray(sorted(penalties, key=lambda c: abs(np.log(c))), gram.dtype)

    def n_right(penalty, out):
        weight = jnp.where(out, 0, 1).astype(gram.dtype)
        fit = svm.fit_gram(
            gram, labels, n_classes=n_classes, penalty=penalty, sample_weight=weight, **options
        )
        return jnp.sum((linear.predict(fit, gram) == labels) & out)

    over_folds = jax.vmap(n_right, (None, 0))
    right = jnp.sum(jax.vmap(over_folds, (0, None))(ordered, held_out), axis=1)
    return ordered[jnp.argmax(right)]


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
    loss: str = 'squared_hinge',
) -> np.ndarray:
    """Test accuracy of linear SVMs trained on few labels: [len(labels_per_class), n_draws].

    Each draw takes so many samples of every class from the training pool, centres and scales by
    their mean and mean squared norm, and chooses C by stratified cross-validation on them alone;
    with one label a class C is 1. The draws depend on the seed and the labels, not on the features:
    two kinds of features are compared on the same training sets.

    Shapes  features [n, d] and [m, d] float, labels [n] and [m] in 0 .. c - 1.
    Cost    each draw len(penalties) * n_folds fits of [n, n] systems, n the number of labels.
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
                loss=loss,
            )
        )
    return np.stack([np.asarray(accuracy) for accuracy in curve])


@functools.partial(jax.jit, static_argnames=('n_classes', 'n_folds', 'penalties', 'loss'))
def _accuracies(
    gram, cross, train_labels, test_labels, rows, *, n_classes, n_folds, penalties, loss
):
    """Test accuracy for each of the training sets `rows` [n_draws, n]."""

    def accuracy(chosen):
        labels = train_labels[chosen]
        inner, outer = centre(gram[chosen][:, chosen], cross[:, chosen])
        penalty = jnp.asarray(DEFAULT, inner.dtype)
        if n_folds > 1:
            held_out = jnp.asarray(folds(rows.shape[1] // n_classes, n_classes, n_folds))
            penalty = choose_penalty(
                inner, labels, held_out, n_classes=n_classes, penalties=penalties, loss=loss
            )
        fit = svm.fit_gram(inner, labels, n_classes=n_classes, penalty=penalty, loss=loss)
        right = linear.predict(fit, outer) == test_labels
        return jnp.mean(right, dtype=inner.dtype)

    return jax.lax.map(accuracy, rows)
