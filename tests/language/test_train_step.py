"""A step on the batch's rows is a step on the whole table; an evaluation is what NumPy computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from lecture4.data.text import cross_validation, vocabulary
from lecture4.language import sentence_cnn, train_step
from lecture4.train.step import bind, compile_task
from lecture4.train.task import Data, Task

V, D, C = 40, 6, 3
RNG = np.random.default_rng(0)
WORDS = RNG.integers(2, 20, (8, 7)).astype(np.int32)
for row, n in zip(WORDS, (7, 3, 5, 1, 7, 2, 4, 6), strict=True):
    row[n:] = 0
LABELS = RNG.integers(0, C, 8).astype(np.int32)
MODEL = sentence_cnn.SentenceCNN(C, kernel_sizes=(2, 3), num_filters=5, dropout=0.0)
OPTIMIZER = sentence_cnn.optimizer()


def table(dtype=jnp.float32):
    drawn = np.random.default_rng(3).uniform(-0.25, 0.25, (V, D)).astype(np.float32)
    drawn[:2] = 0
    return jnp.asarray(drawn.astype(dtype))


def batch_of(words, labels):
    rows, local = vocabulary.distinct(words)
    return {'rows': rows, 'words': local, 'labels': labels}


def dense(words, labels, steps, *, tune, fixed):
    """The same learning with the whole table in optax's hands."""
    init = jax.jit(lambda key: MODEL.init(key, table()[:1], jnp.zeros((1, 1), jnp.int32)))
    params = jax.tree.map(lambda p: np.asarray(p, float), init(jax.random.key(7))['params'])
    whole, vectors = table(jnp.float64), optax.adadelta(1.0, rho=0.95, eps=1e-6)
    states = jax.jit(lambda: (OPTIMIZER.init(params), vectors.init(whole)))()

    @jax.jit
    def step(params, learned, states):
        def loss_fn(params, learned):
            channels = ((whole,) if fixed else ()) + ((learned,) if tune else ())
            logits, _ = MODEL.apply({'params': params}, channels, words)
            return sentence_cnn.loss(logits, labels)[0]

        loss, (grads, table_grads) = jax.value_and_grad(loss_fn, (0, 1))(params, learned)
        with jax.numpy_dtype_promotion('standard'):
            updates, first = OPTIMIZER.update(grads, states[0], params)
            moves, second = vectors.update(table_grads, states[1], learned)
        return (
            optax.apply_updates(params, updates),
            optax.apply_updates(learned, moves),
            (first, second),
            loss,
        )

    losses, learned = [], whole
    for _ in range(steps):
        params, learned, states, loss = step(params, learned, states)
        losses.append(float(loss))
    return params, learned, losses


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ('variant', 'tune', 'fixed'),
    [('rand', True, False), ('static', False, True), ('multichannel', True, True)],
)
def test_equals_learning_with_the_whole_table(variant, tune, fixed, x64):
    init = jax.jit(lambda key: train_step.init(key, MODEL, OPTIMIZER, table(), variant))
    state = jax.tree.map(np.asarray, init(jax.random.key(7)))
    state = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, state)
    step = jax.jit(lambda s, b, k: train_step.step(s, b, k, model=MODEL, optimizer=OPTIMIZER))
    losses = []
    for n in range(6):
        state, metrics = step(state, batch_of(WORDS, LABELS), jax.random.key(n))
        losses.append(float(metrics['loss']))
    params, learned, expected = dense(WORDS, LABELS, 6, tune=tune, fixed=fixed)
    np.testing.assert_allclose(losses, expected, atol=1e-10)
    assert losses[-1] < losses[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), state.params, params)
    assert (state.trained is not None) == tune and (state.frozen is not None) == fixed
    if tune:
        np.testing.assert_allclose(state.trained.table, learned, atol=1e-9)
        assert np.abs(state.trained.table - table(jnp.float64)).max() > 1e-5
        unused = np.setdiff1d(np.arange(V), WORDS)
        np.testing.assert_array_equal(state.trained.table[unused], table(jnp.float64)[unused])
    if fixed:
        np.testing.assert_array_equal(state.frozen, table(jnp.float64))


def as_task():
    def init(key, batch):
        return train_step.init(key, MODEL, OPTIMIZER, table())

    def step(state, batch, key, reduce):
        return train_step.step(state, batch, key, model=MODEL, optimizer=OPTIMIZER, reduce=reduce)

    return Task(init, step)


def test_devices_change_nothing():
    """Words are numbered among all devices' rows, under jit and under pmap."""
    ends = {}
    for devices, parallel in ((1, 'jit'), (2, 'jit'), (2, 'pmap')):
        mesh = Mesh(np.array(jax.devices()[:devices]), ('data',))
        data = Data(batch=lambda n: batch_of(np.roll(WORDS, n, 0), np.roll(LABELS, n)))
        compiled = compile_task(bind(as_task(), data, 0), mesh, parallel)
        state = compiled.init()
        for n in range(4):
            state, metrics = compiled.run_steps(state, n, 1)
        ends[devices, parallel] = state.params, state.trained.table, float(metrics['loss'][0])
    for key in ((2, 'jit'), (2, 'pmap')):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            ends[key],
            ends[1, 'jit'],
        )


def texts(n=60):
    rng = np.random.default_rng(4)
    encoded = [rng.integers(2, V, rng.integers(1, 20)).astype(np.int32) for _ in range(n)]
    labels = np.array([int(row.max()) % C for row in encoded], np.int32)
    chosen = []
    for kept, dev, test in cross_validation.split({'all': np.arange(n)}, 3, 0.2, seed=0):
        chosen.append(cross_validation.Fold(kept, dev, test, np.ones(V, bool)))
    return (
        encoded,
        labels,
        chosen,
        cross_validation.create(encoded, labels, chosen, epochs=3, batch_size=8, seed=1),
    )


@pytest.mark.slow
def test_cross_validation_is_one_run_of_few_programs():
    """Fold after fold from new values, early stopping by development accuracy, and every shape compiled once."""
    encoded, labels, chosen, made = texts()
    traces = {'step': 0, 'evaluate': 0}

    @jax.jit
    def step(state, results, batch, key):
        traces['step'] += 1
        state, metrics = train_step.step(state, batch, key, model=MODEL, optimizer=OPTIMIZER)
        return state, *train_step.add_batch(results, metrics)

    @jax.jit
    def evaluate(state, results, batch, key):
        traces['evaluate'] += 1
        return train_step.evaluate(MODEL, state, results, batch, lambda: fresh(key))

    fresh = jax.jit(lambda key: train_step.init(key, MODEL, OPTIMIZER, table()))
    predict = jax.jit(lambda state, words: train_step.apply(MODEL, state, words)[0])
    state, results = fresh(jax.random.key(0)), train_step.init_results(3, C)
    expected, shapes, sums = [[] for _ in chosen], set(), []
    for n in range(made.num_steps):
        batch = made.batch(n)
        fold = n * 3 // made.num_steps
        if 'restart' not in batch:
            state, results, metrics = step(state, results, batch, jax.random.key(n))
            shapes.add((batch['rows'].shape, batch['words'].shape))
            sums.append([float(metrics['loss']), float(metrics['accuracy'])])
            continue
        counts = {}
        for role in ('dev', 'test'):
            counts[role] = np.zeros((C, C))
            held = getattr(chosen[fold], role)
            words = vocabulary.pad([encoded[row] for row in held], 32)
            predicted = np.asarray(predict(state, words)).argmax(1)
            np.add.at(counts[role], (labels[held], predicted), 1)
        expected[fold].append(counts)
        count = int(state.step)
        state, results, metrics = evaluate(state, results, batch, jax.random.key(100 + n))
        np.testing.assert_allclose(
            [metrics['loss'], metrics['accuracy']], np.mean(sums, 0), rtol=1e-5
        )
        sums = []
        for role in ('dev', 'test'):
            accuracy = np.trace(counts[role]) / counts[role].sum()
            np.testing.assert_allclose(metrics[f'{role}_accuracy'], accuracy, rtol=1e-6)
        last = len(expected[fold]) == 3 and fold < 2
        assert int(state.step) == (0 if last else count)
        if last:  # a new fold starts as any does: other filters, new state of the optimizer
            assert (np.asarray(state.trained.means) == 0).all()
            assert (np.asarray(state.params['softmax']['kernel']) == 0).all()
    for fold, evaluations in enumerate(expected):
        dev = [np.trace(counts['dev']) / counts['dev'].sum() for counts in evaluations]
        best = int(np.argmax(dev))  # the first of equals
        assert int(results.best_epoch[fold]) == best + 1
        np.testing.assert_allclose(results.dev_accuracy[fold], dev[best], rtol=1e-6)
        np.testing.assert_array_equal(results.confusion[fold], evaluations[best]['test'])
        np.testing.assert_allclose(
            results.test_accuracy[fold], np.trace(evaluations[best]['test']) / 20, rtol=1e-6
        )
    assert traces == {'step': len(shapes), 'evaluate': 1}
    assert len(shapes) <= 6


def test_of_equal_epochs_the_first_is_the_best():
    state = jax.jit(lambda key: train_step.init(key, MODEL, OPTIMIZER, table()))(jax.random.key(0))
    batch = {'restart': np.zeros(8, bool)}
    for role in ('dev', 'test'):
        batch |= {f'words_{role}_7': WORDS, f'labels_{role}_7': LABELS}

    @jax.jit
    def evaluate(results):
        return train_step.evaluate(MODEL, state, results, batch, lambda: state)[1]

    results = evaluate(evaluate(jax.jit(lambda: train_step.init_results(1, C))()))
    assert results.epoch == 2 and results.best_epoch.tolist() == [1]
