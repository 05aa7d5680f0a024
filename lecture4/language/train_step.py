"""A sentence network and its word vectors, learned together: init, step, and a look at held-out sentences.

The step sees the word vectors of the batch's words only (`vocabulary.distinct`), so that neither the network nor the
update of the vectors looks at the rest of the table.
A look keeps what it found at the best epoch so far, which is early stopping without going back.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lecture4.language import sentence_cnn, sparse_adadelta

Variant = Literal['rand', 'static', 'non-static', 'multichannel']


class State(NamedTuple):
    """What is learned, and what the learning needs.

    fixed   a channel of word vectors that stays, [v, d], or None.
    tuned   a channel that learns, or None.
    taken   steps so far.
    """

    params: Any
    opt_state: optax.OptState
    fixed: jax.Array | None
    tuned: sparse_adadelta.Rows | None
    taken: jax.Array


def init(
    key, model: sentence_cnn.SentenceCNN, optimizer, table, variant: Variant = 'rand'
) -> State:
    """A network with Kim's initial values over a table of word vectors.

    variant  'rand' and 'non-static' learn the vectors, 'static' keeps them, 'multichannel' has a channel of either
             kind, both beginning as the table.
    Shapes   table [v, d] float.
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


def step(state: State, batch, key, *, model, optimizer, learning_rate=1.0, axis_name=None):
    """One step on a batch; returns (state, {'loss', 'accuracy'}).

    batch   rows int [n, r] and words int [n, t] as `vocabulary.distinct` gives them, labels int [n].
    axis_name  of the devices that each hold a share of the batch; None where the batch is whole.
    """
    rows, words, labels = batch['rows'], batch['words'], batch['labels']
    if axis_name is not None:  # words are numbered among all devices' rows
        rows = jax.lax.all_gather(rows, axis_name, tiled=True)
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    rows = rows.reshape(rows.size)
    fixed = () if state.fixed is None else (state.fixed[rows],)

    def loss_fn(params, tuned):
        logits, _ = model.apply(
            {'params': params}, (*fixed, *tuned), words, train=True, rngs={'dropout': key}
        )
        return sentence_cnn.loss(logits, labels)

    tuned = () if state.tuned is None else (state.tuned.table[rows],)
    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (loss, metrics), (grads, row_grads) = grad_fn(state.params, tuned)
    metrics = {'loss': loss, **metrics}
    if axis_name is not None:
        grads, row_grads, metrics = jax.lax.pmean((grads, row_grads, metrics), axis_name)
    with jax.numpy_dtype_promotion('standard'):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    taken = state.taken + 1
    learned = state.tuned
    if learned is not None:
        (row_grad,) = row_grads
        learned = sparse_adadelta.update(
            learned, rows, row_grad, taken, learning_rate=learning_rate
        )
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state, state.fixed, learned, taken), metrics


def apply(model, state: State, words):
    """Logits and activations of sentences given by rows of the whole table, without dropout.

    The whole table is multiplied by the filters once, so this is for many sentences at a time.
    Shapes  words int [n, t]. Returns as the model.
    """
    channels = (state.fixed, None if state.tuned is None else state.tuned.table)
    present = tuple(channel for channel in channels if channel is not None)
    return model.apply({'params': state.params}, present, words)


class Results(NamedTuple):
    """What the looks of a cross-validation found; a fold's entries are of its best epoch by development accuracy.

    sums       [3] of loss and accuracy over the batches since the last look, and their number.
    fold       the fold that is being learned.
    epoch      looks of that fold so far.
    best       int [folds], the epoch, 0 while there was no look.
    dev, test  accuracies [folds].
    now        [2], both accuracies at the last look.
    confusion  [folds, c, c], test sentences by true and given class.
    """

    sums: jax.Array
    fold: jax.Array
    epoch: jax.Array
    best: jax.Array
    dev: jax.Array
    test: jax.Array
    now: jax.Array
    confusion: jax.Array


def no_results(confusion) -> Results:
    """Before the first step.  Shapes: confusion zeros [folds, c, c]."""
    n_folds = len(confusion)
    zero, none = jnp.zeros(n_folds), jnp.int32(0)
    best = jnp.zeros(n_folds, jnp.int32)
    return Results(jnp.zeros(3), none, none, best, zero, zero, jnp.zeros(2), confusion)


def tally(results: Results, metrics) -> tuple[Results, dict[str, jax.Array]]:
    """Add a batch's loss and accuracy to the sums; metrics with the accuracies of the last look."""
    new = jnp.stack([metrics['loss'], metrics['accuracy'], jnp.ones_like(metrics['loss'])])
    results = results._replace(sums=results.sums + new)
    return results, metrics | _last(results)


def look(model, state: State, results: Results, batch, fresh_fn, *, axis_name=None):
    """Classify the held-out sentences; returns (state, results, metrics), loss and accuracy over the epoch's batches.

    batch     {words_dev_T, labels_dev_T, words_test_T, labels_test_T}: words int [n, T], labels int [n], -1 where a
              row only fills up; and again bool [b], whether a new fold begins after this look.
    fresh_fn  () -> the state that the new fold begins with.
    """
    c = model.n_classes
    counts = {'dev': jnp.zeros((c, c)), 'test': jnp.zeros((c, c))}
    for name, words in batch.items():
        if name.startswith('words_'):
            logits, _ = apply(model, state, words)
            truth = jax.nn.one_hot(batch[name.replace('words', 'labels')], c)  # -1: a row of zeros
            given = jax.nn.one_hot(jnp.argmax(logits, axis=1), c)
            counts[name.split('_')[1]] += truth.T @ given
    if axis_name is not None:
        counts = jax.lax.psum(counts, axis_name)
    now = jnp.stack([jnp.trace(n) / jnp.maximum(n.sum(), 1) for n in counts.values()])
    epoch = results.epoch + 1
    better = (results.best[results.fold] == 0) | (now[0] > results.dev[results.fold])

    def keep(old, new):
        return old.at[results.fold].set(jnp.where(better, new, old[results.fold]))

    n = jnp.maximum(results.sums[2], 1)
    metrics = {'loss': results.sums[0] / n, 'accuracy': results.sums[1] / n}
    again = batch['restart'].any()
    results = results._replace(
        sums=jnp.zeros(3),
        fold=results.fold + again.astype(jnp.int32),
        epoch=jnp.where(again, 0, epoch),
        best=keep(results.best, epoch),
        dev=keep(results.dev, now[0]),
        test=keep(results.test, now[1]),
        now=now,
        confusion=keep(results.confusion, counts['test']),
    )
    state = jax.lax.cond(again, fresh_fn, lambda: state)
    return state, results, metrics | _last(results)


def _last(results: Results):
    return {'dev_accuracy': results.now[0], 'test_accuracy': results.now[1]}
