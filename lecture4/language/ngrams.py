"""N-grams that activate the filters of a sentence network: the words under the windows of their features."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from lecture4.language import sentence_cnn, train_step

OUTSIDE = '·'  # symbol for the padding

Ngram = tuple[str, ...]


def ngram_at(text: Sequence[str], start: int, size: int) -> Ngram:
    """The words at start .. start + size - 1; positions outside the text are OUTSIDE."""
    return tuple(text[i] if 0 <= i < len(text) else OUTSIDE for i in range(start, start + size))


def top_ngrams(
    features: Float[Array | np.ndarray, ' n'],
    starts: Int[Array | np.ndarray, ' n'],
    texts: Sequence[Sequence[str]],
    size: int,
    k: int = 5,
) -> list[tuple[Ngram, float]]:
    """The k distinct n-grams with the largest features of one filter, descending.

    Args:
      features: The filter's feature in every text.
      starts: Position of the first word of the feature's window.
      texts: n sequences of words.
      size: Number of words under the filter.
      k: Number of n-grams; fewer are returned if fewer have a positive feature.

    Returns:
      Pairs of n-gram and feature.
    """
    top: dict[Ngram, float] = {}
    for i in np.argsort(-np.asarray(features), kind='stable'):
        if len(top) == k or features[i] <= 0:
            break
        top.setdefault(ngram_at(texts[int(i)], int(starts[i]), size), float(features[i]))
    return list(top.items())


def indicative_filters(
    features: Float[Array | np.ndarray, 'n m'],
    kernel: Float[Array | np.ndarray, 'm c'],
    per_class: int,
) -> dict[int, Int[np.ndarray, ' per_class']]:
    """The filters that contribute most to each class's logit, the strongest first.

    A filter's contribution is its softmax weight for the class, minus the mean over classes, times its mean feature.

    Args:
      features: Features of n texts.
      kernel: Softmax weights.
      per_class: Number of filters per class.

    Returns:
      {class: indices of its filters}.
    """
    centered = kernel - kernel.mean(1, keepdims=True)
    contribution = np.asarray(centered * np.asarray(features).mean(0)[:, None])
    return {
        c: np.argsort(-contribution[:, c], kind='stable')[:per_class]
        for c in range(kernel.shape[1])
    }


def ngrams_by_class(
    features: Float[Array | np.ndarray, 'n m'],
    starts: Int[Array | np.ndarray, 'n m'],
    texts: Sequence[Sequence[str]],
    kernel: Float[Array | np.ndarray, 'm c'],
    class_names: Sequence[str],
    *,
    kernel_sizes: Sequence[int] | Int[np.ndarray, ' m'],
    per_class: int,
    k: int = 5,
) -> dict[str, list[tuple[str, list[tuple[str, float]]]]]:
    """For each class its most indicative filters, and their top n-grams.

    Args:
      features: Features of n texts.
      starts: Positions of the features' windows.
      texts: n sequences of words.
      kernel: Softmax weights.
      class_names: Names of the c classes.
      kernel_sizes: Number of words under each of the m filters.
      per_class: Number of filters per class.
      k: Number of n-grams per filter.

    Returns:
      {name: [('3 words, filter 7', [('an n-gram', feature), ...]), ...]}.
    """

    def describe(f):
        size = int(kernel_sizes[f])
        top = top_ngrams(features[:, f], starts[:, f], texts, size, k)
        return f'{size} words, filter {f}', [(' '.join(ngram), value) for ngram, value in top]

    indicative = indicative_filters(features, kernel, per_class)
    return {class_names[c]: [describe(f) for f in filters] for c, filters in indicative.items()}


def ngrams_of_network(
    model: sentence_cnn.SentenceCNN,
    state: train_step.State,
    groups: Iterable[tuple[Int[np.ndarray, ' _n'], Int[np.ndarray, '_n _t']]],
    texts: Sequence[Sequence[str]],
    class_names: Sequence[str],
) -> dict[str, list[tuple[str, list[tuple[str, float]]]]]:
    """For each class the filters that contribute most to its logit, and the n-grams that activate them most.

    Args:
      model: The network.
      state: State of training of the network.
      groups: Sentences by length: (rows in `texts`, words [n, t] as inputs of the network).
      texts: Sequences of words.
      class_names: Names of the classes; 4 filters each are returned for up to three classes, otherwise 2.

    Returns:
      As in `ngrams_by_class`.
    """
    run = jax.jit(lambda state, words: train_step.apply(model, state, words)[1])
    groups = list(groups)
    activations = [run(state, words) for _, words in groups]
    starts = [np.concatenate([a[f'start_{h}'] for h in model.kernel_sizes], 1) for a in activations]
    return ngrams_by_class(
        np.concatenate([a['features'] for a in activations]),
        np.concatenate(starts),
        [texts[int(row)] for rows, _ in groups for row in rows],
        np.asarray(state.params['softmax']['kernel']),
        class_names,
        kernel_sizes=np.repeat(model.kernel_sizes, model.num_filters),
        per_class=4 if len(class_names) <= 3 else 2,
    )
