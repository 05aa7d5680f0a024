"""Learning settings compared by one classifier: chance chooses the labelled examples, or an oracle is asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.features import active_learning, label_curve

RULES = ('least certain', 'most diverse')


def passive(pool, test, labels, test_labels, *, n_classes, labels_per_class, n_draws, seed):
    """Test accuracy [len(labels_per_class), n_draws] of linear SVMs on labels drawn by chance.

    Shapes  features pool [n, p] and test [m, p]; labels [n], test_labels [m] in 0 .. n_classes - 1.
            The draws are the same for all features; C is chosen as in queries.accuracies.
    """
    chosen = [label_curve.draw(seed, labels, n, n_draws) for n in labels_per_class]
    return _accuracy(
        *active_learning.inner_products(pool, test), labels, test_labels, chosen, n_classes
    )


def active(pool, test, labels, test_labels, *, n_classes, labels_per_class, n_draws, seed):
    """{rule: accuracy as passive} where the learner chooses which examples of the pool are labelled.

    Every draw starts from one label a class, drawn by chance, and asks for as many as there are
    classes at a time; labels_per_class then count labels on average.
    """
    gram, cross = active_learning.inner_products(pool, test)
    start = jnp.asarray(label_curve.draw(seed, labels, 1, n_draws))
    n_queries = n_classes * (max(labels_per_class) - 1)

    @jax.jit
    def least_certain(gram, labels, start):
        rule = functools.partial(
            active_learning.least_certain, gram, labels, n_queries=n_queries, n_classes=n_classes,
            per_round=n_classes,
        )  # fmt: skip
        return jax.lax.map(rule, start)

    @jax.jit
    def most_diverse(gram, start):
        return jax.lax.map(lambda rows: active_learning.most_diverse(gram, rows, n_queries), start)

    asked = [least_certain(gram, jnp.asarray(labels), start), most_diverse(gram, start)]
    found = {}
    for rule, rows in zip(RULES, map(np.asarray, asked), strict=True):
        chosen = [rows[:, : n * n_classes] for n in labels_per_class]
        found[rule] = _accuracy(gram, cross, labels, test_labels, chosen, n_classes)
    return found


def _accuracy(gram, cross, labels, test_labels, chosen, n_classes):
    return np.stack(
        [
            active_learning.accuracies(gram, cross, labels, test_labels, rows, n_classes=n_classes)
            for rows in chosen
        ]
    )
