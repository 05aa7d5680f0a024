"""Training of a sentence network together with its word vectors: init, step, and evaluation on held-out sentences.

The step uses only the word vectors of the batch's words (`vocabulary.distinct`), so that neither the network nor the
update of the vectors accesses the rest of the table. An evaluation stores the results of the best epoch so far, which
is early stopping without a copy of the parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree, ScalarLike, Shaped

from lecture4.language import sentence_cnn, sparse_adadelta, word_vectors
from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients

Variant = Literal['rand', 'static', 'non-static', 'multichannel']
Metrics = dict[str, Float[Array, '']]


class State(NamedTuple):
    """State of training.

    Attributes:
      params: Parameters of the network.
      opt_state: State of the optimizer of these parameters.
      frozen: A channel of word vectors that is not trained, or None.
      trained: A channel of word vectors that is trained, or None.
      step: Number of steps so far.
    """

    params: Any
    opt_state: PyTree
    frozen: Float[Array, 'v d'] | None
    trained: sparse_adadelta.LazyTable | None
    step: Int[Array, '']


def init(
    key: PRNGKeyArray,
    model: sentence_cnn.SentenceCNN,
    optimizer: optax.GradientTransformation,
    table: Float[Array, 'v d'],
    variant: Variant = 'rand',
) -> State:
    """Initialize a network with Kim's initial values over a table of word vectors.

    Args:
      key: A random key.
      model: The network.
      optimizer: Optimizer of the network's parameters.
      table: Word vectors.
      variant: 'rand' and 'non-static' train the vectors, 'static' freezes them, 'multichannel' has one channel of
        each kind, both initialized with the table.
    """
    vectors = jnp.zeros((1, table.shape[1]), table.dtype)
    params = model.init(key, vectors, jnp.zeros((1, 1), jnp.int32))['params']
    return State(
        params,
        optimizer.init(params),
        table if variant in ('static', 'multichannel') else None,
        None if variant == 'static' else sparse_adadelta.init(table),
        jnp.int32(0),
    )


def step(
    state: State,
    batch: Mapping[str, Shaped[ArrayLike, '...']],
    key: PRNGKeyArray,
    *,
    model: sentence_cnn.SentenceCNN,
    optimizer: optax.GradientTransformation,
    learning_rate: ScalarLike = 1.0,
    reduce: Reduce = Reduce(),
) -> tuple[State, Metrics]:
    """One step on a batch.

    Args:
      state: State from `init` or the previous step.
      batch: `rows` int [n, r] and `words` int [n, t] as `vocabulary.distinct` returns them, `labels` int [n]; on each
        device, its part.
      key: A random key for the dropout.
      model: The network.
      optimizer: Optimizer of the network's parameters.
      learning_rate: Factor on Adadelta's updates of the word vectors.
      reduce: Reduction over the devices that share the batch.

    Returns:
      (state, metrics): `loss` and `accuracy`, means over the batch.
    """
    words, labels = batch['words'], batch['labels']
    rows = reduce.all_gather(
        jnp.asarray(batch['rows'])
    )  # words are indices into the rows of all devices
    rows = rows.reshape(rows.size)
    key = reduce.fold_in(key)
    frozen = () if state.frozen is None else (state.frozen[rows],)

    def loss_fn(params, trained):
        logits, _ = model.apply(
            {'params': params}, (*frozen, *trained), words, train=True, rngs={'dropout': key}
        )
        return sentence_cnn.loss(logits, labels)

    trained = () if state.trained is None else (state.trained.table[rows],)
    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (loss, metrics), (grads, row_grads) = grad_fn(*reduce.vary((state.params, trained)))
    grads, row_grads, metrics = reduce.mean((grads, row_grads, {'loss': loss, **metrics}))
    params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
    count = state.step + 1
    table = state.trained
    if table is not None:
        (row_grad,) = row_grads
        table = sparse_adadelta.update(table, rows, row_grad, count, learning_rate=learning_rate)
    return State(params, opt_state, state.frozen, table, count), metrics


def apply(
    model: sentence_cnn.SentenceCNN, state: State, words: Int[ArrayLike, 'n t']
) -> tuple[Float[Array, 'n c'], dict[str, Shaped[Array, 'n ...']]]:
    """Logits and activations of sentences given by rows of the whole table, without dropout.

    The whole table is multiplied by the filters once, so this is meant for many sentences at a time.
    """
    channels = (state.frozen, None if state.trained is None else state.trained.table)
    present = tuple(channel for channel in channels if channel is not None)
    return model.apply({'params': state.params}, present, words)  # pyright: ignore


class Results(NamedTuple):
    """Results of a cross-validation so far; the entries of a fold are those of its best epoch by development accuracy.

    Attributes:
      sums: Loss and accuracy summed over the batches since the last evaluation, and the number of batches.
      fold: Fold in training.
      epoch: Number of evaluations of this fold so far.
      best_epoch: Best epoch of each fold, 0 before its first evaluation.
      dev_accuracy: Development accuracy of each fold, a fraction.
      test_accuracy: Test accuracy of each fold, a fraction.
      latest: Development and test accuracy at the latest evaluation.
      confusion: Counts of test sentences by true and predicted class, of each fold.
    """

    sums: Float[Array, '3']
    fold: Int[Array, '']
    epoch: Int[Array, '']
    best_epoch: Int[Array, ' folds']
    dev_accuracy: Float[Array, ' folds']
    test_accuracy: Float[Array, ' folds']
    latest: Float[Array, '2']
    confusion: Float[Array, 'folds c c']


def init_results(n_folds: int, n_classes: int) -> Results:
    """Results before the first step."""
    accuracy, zero = jnp.zeros(n_folds), jnp.int32(0)
    best_epoch = jnp.zeros(n_folds, jnp.int32)
    confusion = jnp.zeros((n_folds, n_classes, n_classes))
    return Results(
        jnp.zeros(3), zero, zero, best_epoch, accuracy, accuracy, jnp.zeros(2), confusion
    )


def add_batch(results: Results, metrics: Metrics) -> tuple[Results, Metrics]:
    """Add a batch's loss and accuracy to the sums; metrics with the accuracies of the latest evaluation."""
    new = jnp.stack([metrics['loss'], metrics['accuracy'], jnp.ones_like(metrics['loss'])])
    results = results._replace(sums=results.sums + new)
    return results, metrics | _latest(results)


def evaluate(
    model: sentence_cnn.SentenceCNN,
    state: State,
    results: Results,
    batch: Mapping[str, Shaped[ArrayLike, '...']],
    init_fn: Callable[[], State],
    *,
    reduce: Reduce = Reduce(),
) -> tuple[State, Results, Metrics]:
    """Classify the held-out sentences.

    Args:
      model: The network.
      state: State of training.
      results: Results so far.
      batch: `words_dev_T`, `labels_dev_T`, `words_test_T`, `labels_test_T` for lengths T: words int [n, T], labels
        int [n], -1 for padding rows; and `restart` bool [b], whether a new fold starts after this evaluation.
      init_fn: () -> the initial state of the new fold.
      reduce: Reduction over the devices that share the sentences.

    Returns:
      (state, results, metrics): `loss` and `accuracy` over the batches of the epoch, the current `dev_accuracy` and
        `test_accuracy`.
    """
    c = model.n_classes
    counts = {'dev': jnp.zeros((c, c)), 'test': jnp.zeros((c, c))}
    for name, words in batch.items():
        if name.startswith('words_'):
            logits, _ = apply(model, state, words)
            labels = jax.nn.one_hot(batch[name.replace('words', 'labels')], c)  # -1: a row of zeros
            predicted = jax.nn.one_hot(jnp.argmax(logits, axis=1), c)
            counts[name.split('_')[1]] += labels.T @ predicted
    counts = reduce.sum(counts)
    latest = jnp.stack([jnp.trace(n) / jnp.maximum(n.sum(), 1) for n in counts.values()])
    epoch = results.epoch + 1
    is_first = results.best_epoch[results.fold] == 0
    is_better = is_first | (latest[0] > results.dev_accuracy[results.fold])

    def keep_better(old, new):
        return old.at[results.fold].set(jnp.where(is_better, new, old[results.fold]))

    n = jnp.maximum(results.sums[2], 1)
    metrics = {'loss': results.sums[0] / n, 'accuracy': results.sums[1] / n}
    restart = jnp.any(jnp.asarray(batch['restart']))
    results = Results(
        sums=jnp.zeros(3),
        fold=results.fold + restart.astype(jnp.int32),
        epoch=jnp.where(restart, 0, epoch),
        best_epoch=keep_better(results.best_epoch, epoch),
        dev_accuracy=keep_better(results.dev_accuracy, latest[0]),
        test_accuracy=keep_better(results.test_accuracy, latest[1]),
        latest=latest,
        confusion=keep_better(results.confusion, counts['test']),
    )
    state = jax.lax.cond(restart, init_fn, lambda: state)
    return state, results, metrics | _latest(results)


def cross_validation(
    model: sentence_cnn.SentenceCNN,
    optimizer: optax.GradientTransformation,
    variant: Variant,
    num_folds: int,
    learning_rate: ScalarLike = 1.0,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Training of one fold after another, each from a new initialization.

    A batch is one of `data.text.cross_validation`, with 'table' [v, d] and 'given' bool [v], the pretrained word
    vectors and their mask; a batch with 'restart' is the evaluation that ends an epoch.

    Args:
      model: The network.
      optimizer: Optimizer of the network's parameters.
      variant: See `init`.
      num_folds: Number of folds.
      learning_rate: Factor on Adadelta's updates of the word vectors; may be traced.

    Returns:
      (init, step): init(key, batch) -> (State, Results); step(state, batch, key, reduce) -> (state, metrics).
    """

    def init_fold(key, batch):
        table_key, key = jax.random.split(key)
        table = word_vectors.initial_table(table_key, batch['table'], batch['given'])
        return init(key, model, optimizer, table, variant)

    def init_all(key: PRNGKeyArray, batch: Any) -> tuple[State, Results]:
        return init_fold(key, batch), init_results(num_folds, model.n_classes)

    def step_or_evaluate(
        state: Any, batch: Any, key: PRNGKeyArray, reduce: Reduce = Reduce()
    ) -> Any:
        learned, results = state
        if 'restart' in batch:
            learned, results, metrics = evaluate(
                model, learned, results, batch, lambda: init_fold(key, batch), reduce=reduce
            )
            return (learned, results), metrics
        learned, metrics = step(
            learned,
            batch,
            key,
            model=model,
            optimizer=optimizer,
            learning_rate=learning_rate,
            reduce=reduce,
        )
        results, metrics = add_batch(results, metrics)
        return (learned, results), metrics

    return init_all, step_or_evaluate


def fold_records(results: Results) -> list[dict[str, Any]]:
    """The evaluated folds as records: 'fold' (from 1), 'best_epoch', 'dev_accuracy', 'test_accuracy'."""
    return [
        {
            'fold': int(i) + 1,
            'best_epoch': int(results.best_epoch[i]),
            'dev_accuracy': float(results.dev_accuracy[i]),
            'test_accuracy': float(results.test_accuracy[i]),
        }
        for i in np.flatnonzero(results.best_epoch)
    ]


def _latest(results: Results) -> Metrics:
    return {'dev_accuracy': results.latest[0], 'test_accuracy': results.latest[1]}
