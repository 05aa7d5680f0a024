"""Test accuracy against the number of labels: linear SVMs on training sets sampled many times.

Everything works on inner products of the training pool, which are formed once: a training set of n
labels is an [n, n] block, and the SVMs of all its folds and classes are solved together.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from lecture4.classifiers import linear, newton
from lecture4.ops import cores
from lecture4.ops.varying import vary_like

CS = (0.01, 0.1, 1.0, 10.0, 100.0)
DEFAULT_C = 1.0  # C for one label per class, too few for cross-validation
TOLERANCE = 1e-3  # relative duality gap of the SVMs: far too small to change a prediction


def sample_training_sets(
    seed: int, labels: Int[Array | np.ndarray, ' n'], labels_per_class: int, num_trials: int
) -> Int[np.ndarray, 'num_trials m']:
    """Rows of training sets with `labels_per_class` samples of every class, without replacement.

    The sets depend only on the seed and the labels, so that kinds of features are compared on the same sets.

    Args:
      seed: Seed of the sampling.
      labels: Classes of the pool.
      labels_per_class: Number of samples of each class in one set.
      num_trials: Number of sets.

    Returns:
      int32 [num_trials, n_classes * labels_per_class], each sorted by class.

    Raises:
      ValueError: A class has fewer samples.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < labels_per_class:
        raise ValueError(
            f'labels_per_class={labels_per_class}, but class {classes[counts.argmin()]} has '
            f'{counts.min()} samples; use at most {counts.min()}'
        )
    rows = np.empty((num_trials, len(classes), labels_per_class), np.int32)
    for i in range(num_trials):
        rng = np.random.default_rng((seed, labels_per_class, i))
        for j, name in enumerate(classes):
            rows[i, j] = rng.permutation(np.flatnonzero(labels == name))[:labels_per_class]
    return rows.reshape(num_trials, -1)


def first_per_class(labels: Int[Array | np.ndarray, ' n'], n: int) -> Int[np.ndarray, ' m']:
    """Rows of the first n examples of every class (or all, if it has fewer), class by class."""
    labels = np.asarray(labels)
    return np.concatenate([np.flatnonzero(labels == c)[:n] for c in np.unique(labels)])


def stratified_folds(
    labels: Int[Array | np.ndarray, ' n'], n_folds: int
) -> Bool[np.ndarray, 'n_folds n']:
    """Folds of equal size (to one sample), and of equal numbers of each class (to one).

    scikit-learn's StratifiedKFold refuses classes with fewer samples than folds; sets of queried labels have such
    classes.

    Args:
      labels: Classes of the training set, in any order.
      n_folds: At least 1.

    Returns:
      True where a fold holds a sample out; every sample is held out once.
    """
    labels = np.asarray(labels)
    fold = np.empty(len(labels), int)
    offset = 0
    for name in np.unique(labels):  # each class continues where the previous one stopped
        rows = np.flatnonzero(labels == name)
        fold[rows] = (offset + np.arange(len(rows))) % n_folds
        offset += len(rows)
    return fold[None, :] == np.arange(n_folds)[:, None]


def inner_products(
    pool: Float[Array, 'n d'], test: Float[Array, 'm d']
) -> tuple[Float[Array, 'n n'], Float[Array, 'm n']]:
    """Inner products of the pool with itself and of a test set with the pool, about the pool's mean.

    Subtracting the mean preserves float32 precision.

    Returns:
      (gram [n, n], cross [m, n]).
    """
    origin = jnp.mean(pool, axis=0)[None, :]
    pool, test = pool - origin, test - origin
    return (
        jnp.matmul(pool, pool.T, precision='highest'),
        jnp.matmul(test, pool.T, precision='highest'),
    )


def center(
    gram: Float[Array, 'n n'], cross: Float[Array, 'm n']
) -> tuple[Float[Array, 'n n'], Float[Array, 'm n']]:
    """Inner products as if the training mean were the origin and the mean squared norm 1.

    Args:
      gram: Gram matrix of the training samples.
      cross: Inner products of other samples with them.

    Returns:
      (gram, cross), centered and scaled; zeros where all training samples are equal.
    """
    row, other = jnp.mean(gram, axis=0), jnp.mean(cross, axis=1)
    mean = jnp.mean(row)
    centered = gram - row[None, :] - row[:, None] + mean
    scale = jnp.trace(centered) / gram.shape[0]
    scale = jnp.where(scale > 0, scale, 1)
    return centered / scale, (cross - other[:, None] - row[None, :] + mean) / scale


def choose_C(
    gram: Float[Array, 'n n'],
    labels: Int[Array, ' n'],
    held_out: Bool[Array, 'n_folds n'],
    *,
    n_classes: int,
    Cs: tuple[float, ...] = CS,
) -> Float[Array, '']:
    """The C with the highest accuracy over held-out folds; in a tie, the one nearest to 1.

    Args:
      gram: Gram matrix of the training samples, as `center` returns it.
      labels: Labels of the training samples.
      held_out: The folds, as `stratified_folds` returns them.
      n_classes: Number of classes.
      Cs: Candidates, positive, in any order.

    Returns:
      A scalar of gram's dtype. Traceable.
    """
    signs = newton.one_vs_rest(labels, n_classes, gram.dtype)
    n, n_folds = len(labels), len(held_out)
    columns = jnp.tile(signs[:, None, :], (1, n_folds, 1)).reshape(n, -1)
    trained_on = jnp.repeat(~held_out.T, n_classes, axis=1).astype(gram.dtype)
    form = newton.sample_form(gram + 1)

    def n_correct(start, C):
        p = newton.minimize(form, columns, C * trained_on, start, tolerance=TOLERANCE).p
        scores = form.margins(p).reshape(n, n_folds, n_classes)
        correct = jnp.argmax(scores, axis=2) == labels[:, None]
        return p, jnp.sum(correct & held_out.T)

    ascending = jnp.asarray(sorted(Cs), gram.dtype)  # each starts where the smaller one ended
    start = vary_like(jnp.zeros_like(trained_on), (gram, columns, trained_on))
    _, correct = lax.scan(n_correct, start, ascending)
    distance = jnp.abs(jnp.log(ascending))
    return ascending[jnp.argmin(jnp.where(correct == jnp.max(correct), distance, jnp.inf))]


def accuracies(
    gram: Float[Array, 'n n'],
    cross: Float[Array, 'm n'],
    labels: Int[Array | np.ndarray, ' n'],
    test_labels: Int[Array | np.ndarray, ' m'],
    rows: Int[Array | np.ndarray, 'num_trials size'],
    *,
    n_classes: int,
    Cs: tuple[float, ...] = CS,
    n_folds: int = 5,
) -> Float[np.ndarray, ' num_trials']:
    """Test accuracy of linear SVMs trained on any sets of labeled rows of a pool.

    Each set is centered and scaled by its own mean and mean squared norm, and chooses C by
    stratified cross-validation on itself alone; a set smaller than two samples per class takes C = 1.
    Classes may have unequal numbers of samples in a set, or none.

    Args:
      gram: Gram matrix of the pool, about any origin.
      cross: Inner products of the test samples with the pool, about the same origin.
      labels: Labels of the pool.
      test_labels: Labels of the test samples.
      rows: The sets, as rows of the pool.
      n_classes: Number of classes.
      Cs: Candidates for C.
      n_folds: Number of folds of the cross-validation; fewer where a set has fewer samples per class.

    Returns:
      Fraction of correct predictions for each set.
    """
    labels, rows = np.asarray(labels), np.asarray(rows)
    n_folds = max(min(n_folds, rows.shape[1] // n_classes), 1)
    held_out = np.stack([stratified_folds(labels[row], n_folds) for row in rows])
    return np.asarray(
        _accuracies(
            gram,
            cross,
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(test_labels, jnp.int32),
            jnp.asarray(rows),
            jnp.asarray(held_out),
            n_classes=n_classes,
            Cs=tuple(Cs),
        )
    )


@functools.partial(jax.jit, static_argnames=('n_classes', 'Cs'))
def _accuracies(gram, cross, labels, test_labels, rows, held_out, *, n_classes, Cs):
    def accuracy(training_set):
        chosen, folds = training_set
        inner, outer = center(gram[chosen][:, chosen], cross[:, chosen])
        chosen_labels = labels[chosen]
        C: Any = jnp.asarray(DEFAULT_C, inner.dtype)
        if len(folds) > 1:
            C = choose_C(inner, chosen_labels, folds, n_classes=n_classes, Cs=Cs)
        fit = newton.fit_gram(inner, chosen_labels, n_classes=n_classes, C=C, tolerance=TOLERANCE)
        return jnp.mean(linear.predict(fit, outer) == test_labels, dtype=inner.dtype)

    return lax.map(accuracy, (rows, held_out))


def label_curve(
    seed: int,
    train_features: Num[Array | np.ndarray, 'n d'],
    train_labels: Int[Array | np.ndarray, '_'],
    test_features: Num[Array | np.ndarray, 'm d'],
    test_labels: Int[Array | np.ndarray, '_'],
    *,
    labels_per_class: tuple[int, ...] = (1, 2, 5, 20),
    num_trials: int = 20,
    Cs: tuple[float, ...] = CS,
    n_folds: int = 5,
) -> Float[np.ndarray, 'n_sizes num_trials']:
    """Test accuracy of linear SVMs trained on few randomly chosen labels.

    Each trial samples that many labels of every class from the training pool; see `accuracies` for
    the classifier and `sample_training_sets` for what the samples depend on. A trial costs some 100
    products of [n, n] with [n, n_folds * n_classes], n the number of labels.

    Args:
      seed: Seed of the sampling.
      train_features: The pool.
      train_labels: Its classes, 0 to c - 1.
      test_features: Features of the test samples.
      test_labels: Their classes, 0 to c - 1.
      labels_per_class: Training set sizes.
      num_trials: Number of training sets of every size.
      Cs: Candidates for C.
      n_folds: Number of folds of the cross-validation.

    Returns:
      Fractions [len(labels_per_class), num_trials].

    Raises:
      ValueError: Labels of another length or out of range, or a class with too few samples.
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    n_classes = check_labels(train_features, train_labels, test_features, test_labels)
    gram, cross = inner_products(
        jnp.asarray(train_features, jnp.float32), jnp.asarray(test_features, jnp.float32)
    )

    def curve(n):
        return accuracies(
            gram,
            cross,
            train_labels,
            test_labels,
            sample_training_sets(seed, train_labels, n, num_trials),
            n_classes=n_classes,
            Cs=Cs,
            n_folds=n_folds,
        )

    # Each size is a program of its own; the cores of a CPU compile and run them at the same time.
    if cores.cpu_is_only_device():
        return np.stack(cores.map_parts(curve, labels_per_class))
    return np.stack([curve(n) for n in labels_per_class])


def curve_records(
    curves: Mapping[str, Float[np.ndarray, 'n_sizes num_trials']],
    labels_per_class: Sequence[int],
    index: str = 'features',
) -> list[dict[str, Any]]:
    """The curves as records of a table: one for each curve and training set size.

    Args:
      curves: Name -> accuracy, as `label_curve` returns it.
      labels_per_class: Training set sizes.
      index: Entry of the records that holds the name.

    Returns:
      Records with the entries `index`, labels_per_class and accuracy [num_trials].
    """
    return [
        {index: name, 'labels_per_class': n, 'accuracy': accuracy}
        for name, rows in curves.items()
        for n, accuracy in zip(labels_per_class, rows, strict=True)
    ]


def paired_gain(
    draws: Float[np.ndarray, ' num_trials'], baseline: Float[np.ndarray, ' num_trials']
) -> str:
    """Mean difference of accuracies on the same training sets with its standard error, in percentage points.

    All features get the same training sets, so that the standard error is that of paired differences.

    Args:
      draws: Accuracies, fractions.
      baseline: Accuracies of other features on the same training sets.
    """
    gain = 100 * (np.asarray(draws) - np.asarray(baseline))
    error = f' ± {gain.std(ddof=1) / len(gain) ** 0.5:.1f}' if len(gain) > 1 else ''
    return f'{gain.mean():.1f}{error}'


def check_labels(
    train_features: Num[Array | np.ndarray, 'n d'],
    train_labels: Int[np.ndarray, '_'],
    test_features: Num[Array | np.ndarray, 'm d'],
    test_labels: Int[np.ndarray, '_'],
) -> int:
    """Check labels against their features; returns the number of classes.

    Raises:
      ValueError: Labels of another length or out of range, or a class without a training sample.
    """
    for features, labels in ((train_features, train_labels), (test_features, test_labels)):
        if labels.shape != (len(features),):
            raise ValueError(
                f'labels of shape {labels.shape} for {len(features)} samples; '
                f'expected ({len(features)},)'
            )
    n_classes = int(train_labels.max()) + 1
    linear.check_labels(train_labels, n_classes)
    if test_labels.min() < 0 or test_labels.max() >= n_classes:
        raise ValueError(
            f'test labels from {test_labels.min()} to {test_labels.max()}; the training labels go '
            f'from 0 to {n_classes - 1}'
        )
    return n_classes
