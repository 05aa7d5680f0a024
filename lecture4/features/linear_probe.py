"""Linear probe: the accuracy of a linear classifier on features, C chosen on validation examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Int, Num, Shaped

MIN_STD = (
    1e-3  # least standard deviation: features that hardly vary are not scaled up to variance 1
)
CS = (1e-3, 1e-2, 1e-1)


def standardizer(features: Num[ArrayLike, 'n d']) -> Callable[[Num[ArrayLike, 'm d']], np.ndarray]:
    """The map to mean 0 and variance 1 of every feature of a training set."""
    features = np.asarray(features)
    mean, std = features.mean(0, keepdims=True), features.std(0, keepdims=True)
    return lambda other: (np.asarray(other) - mean) / np.maximum(std, MIN_STD)


def fit(
    features: Num[ArrayLike, 'n d'],
    labels: Int[ArrayLike, ' n'],
    valid: Num[ArrayLike, 'm d'],
    valid_labels: Int[ArrayLike, ' m'],
    Cs: Sequence[float] = CS,
) -> Callable[[Num[ArrayLike, 'm d']], Shaped[np.ndarray, ' m']]:
    """Logistic regression with the C of the lowest validation error.

    Args:
      features: Features of the training examples, standardized.
      labels: Their classes.
      valid: Features of the validation examples.
      valid_labels: Their classes.
      Cs: scikit-learn's C: weights of the sum of losses against half the squared norm. In a tie the first is taken:
      give the smallest C, the strongest regularization, first.

    Returns:
      features [m, d] -> predicted classes [m].

    Raises:
      ValueError: `Cs` is empty.
    """
    from sklearn.linear_model import LogisticRegression

    if not Cs:
        raise ValueError('Cs is empty; give one value of C or more')
    # To convergence: a tolerance of 1e-2 stops after six steps, before the values of C differ.
    fits = [LogisticRegression(C=C, max_iter=1000).fit(features, labels) for C in Cs]
    accuracy = [np.mean(one.predict(valid) == np.asarray(valid_labels)) for one in fits]
    return fits[int(np.argmax(accuracy))].predict


def error(
    features: Mapping[str, Num[ArrayLike, '_ d']],
    labels: Mapping[str, Int[ArrayLike, '_']],
    Cs: Sequence[float] = CS,
) -> float:
    """Test error of the linear probe, a fraction in [0, 1].

    Args:
      features: 'train', 'valid' and 'test' -> [n, d]; standardized here, by the training set.
      labels: The same names -> [n].
      Cs: As in `fit`.

    Raises:
      ValueError: As in `fit`.
    """
    scale = standardizer(features['train'])
    predict = fit(
        scale(features['train']), labels['train'], scale(features['valid']), labels['valid'], Cs
    )
    return float(np.mean(predict(scale(features['test'])) != np.asarray(labels['test'])))


def label_records(
    name: str,
    encode: Callable[[Any], Num[ArrayLike, '_ d']],
    train: tuple[Num[ArrayLike, 'n p'], Int[ArrayLike, ' n']],
    valid: tuple[Num[ArrayLike, 'm p'], Int[ArrayLike, ' m']],
    tests: Mapping[str, Num[ArrayLike, '_ p']],
    test_labels: Int[ArrayLike, '_'],
    *,
    num_labels: Sequence[int],
    num_trials: int,
    Cs: Sequence[float],
    seed: int,
) -> list[dict[str, Any]]:
    """Accuracy of the linear probe by the number of labels.

    Args:
      name: Name of the features.
      encode: Examples -> features.
      train: Examples and labels.
      valid: Examples and labels on which C is chosen.
      tests: Metric -> test examples: 'accuracy', and others (such as noisy examples) for the classifier with the most
        labels only.
      test_labels: Labels of the test examples.
      num_labels: Numbers of labels; a number above the size of the training set means all of it.
      num_trials: Number of labeled sets for every number except the whole set.
      Cs: As in `fit`.
      seed: Seed of the labeled sets.

    Returns:
      A record per number of labels: `features`, `num_labels`, and samples of each metric.

    Raises:
      ValueError: As in `fit`.
    """
    codes, labels = encode(train[0]), np.asarray(train[1])
    scale = standardizer(codes)
    z, valid_z = scale(codes), scale(encode(valid[0]))
    encoded = {metric: scale(encode(test)) for metric, test in tests.items()}
    sizes, records = sorted({min(n, len(labels)) for n in num_labels}), []
    for n in sizes:
        trials = {metric: [] for metric in encoded}
        for trial in range(1 if n == len(labels) else num_trials):
            rows = np.random.default_rng((seed, trial)).permutation(len(labels))[:n]
            predict = fit(z[rows], labels[rows], valid_z, valid[1], Cs)
            for metric, test in encoded.items():
                trials[metric].append(np.mean(predict(test) == np.asarray(test_labels)))
        record = {'features': name, 'num_labels': n, 'accuracy': np.array(trials['accuracy'])}
        if n == sizes[-1]:
            record |= {metric: np.array(values) for metric, values in trials.items()}
        records.append(record)
    return records
