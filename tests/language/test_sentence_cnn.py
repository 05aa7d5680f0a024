"""The network is a convolution, a maximum over time and a softmax, whatever way it computes them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.language import sentence_cnn
from lecture4.language.sentence_cnn import SentenceCNN
from tests.gradients import check_grads

RNG = np.random.default_rng(0)
WORDS = np.zeros((5, 9), np.int32)
for row, n in zip(WORDS, (9, 4, 1, 0, 6), strict=True):
    row[:n] = RNG.integers(1, 12, n)
VECTORS = RNG.normal(size=(12, 3))
VECTORS[0] = 0


def model(**fields):
    return SentenceCNN(n_classes=3, num_filters=4, **fields)


def params_of(net, dtype=np.float64, scale=0.5):
    shapes = jax.eval_shape(net.init, jax.random.key(0), VECTORS, WORDS)['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: (scale * rng.normal(size=s.shape)).astype(dtype), shapes)


def run(net, params, vectors, words):
    """Compiled as one: operation by operation, each would be compiled alone."""
    return jax.jit(net.apply)({'params': params}, vectors, words)


def windows(sentence, left, right, width):
    """Every window of a sentence's vectors [t, d] between so many zeros, and its first word's position."""
    d = sentence.shape[1]
    padded = np.concatenate([np.zeros((left, d)), sentence, np.zeros((right, d))])
    return [(i - left, padded[i : i + width]) for i in range(len(padded) - width + 1)]


def by_hand(params, net, left, right, words=WORDS, vectors=VECTORS):
    """Features and starts of each sentence, from the definition."""
    params = jax.tree.map(np.asarray, params)
    features, starts = [], []
    for row in words:
        sentence = vectors[row[row != 0]]
        feature, start = [], {}
        for i, h in enumerate(net.kernel_sizes):
            found = windows(sentence, left, right, h) or [(None, np.zeros((h, 3)))]
            response = np.stack(
                [np.einsum('hd,hdf->f', x, params[f'filters_{h}']) for _, x in found]
            )
            best = response.argmax(0)
            bias = params['bias'][i * net.num_filters : (i + 1) * net.num_filters]
            feature.append(np.maximum(response.max(0) + bias, 0))
            start[h] = [found[b][0] for b in best]
        features.append(np.concatenate(feature))
        starts.append(start)
    return np.stack(features), starts


def test_equals_the_definition(x64):
    net = model()
    params = params_of(net)
    logits, activations = run(net, params, VECTORS, WORDS)
    features, starts = by_hand(params, net, 5, 5)
    np.testing.assert_allclose(activations['features'], features, atol=1e-12)
    softmax = jax.tree.map(np.asarray, params['softmax'])
    np.testing.assert_allclose(
        logits, 0.5 * features @ softmax['kernel'] + softmax['bias'], atol=1e-12
    )
    some_inside = 0
    for i, start in enumerate(starts):
        for h in net.kernel_sizes:
            for f in range(net.num_filters):
                found = int(activations[f'start_{h}'][i, f])
                if -h < start[h][f] < (WORDS[i] != 0).sum():  # else: some window of zeros
                    assert found == start[h][f]
                    some_inside += 1
    assert some_inside > 30


@pytest.mark.parametrize('padding', [0, 1, 4])
def test_less_padding_leaves_windows_out(padding, x64):
    """A sentence too short for a width has the window of zeros (by_hand's fallback)."""
    net = model(padding=padding, kernel_sizes=(2, 5))
    params = params_of(net)
    params['bias'] += 1.5  # so that negative responses show
    _, activations = run(net, params, VECTORS, WORDS)
    features, _ = by_hand(params, net, padding, padding)
    np.testing.assert_allclose(activations['features'], features, atol=1e-12)
    wide = by_hand(params, net, 5, 5)[0]
    assert np.abs(features - wide).max() > 0.1 or padding == 4


def test_kims_padding_differs_for_the_longest_sentence_only(x64):
    """He puts 4 zeros before a sentence and zeros behind it up to max_l + 8."""
    net = model()
    params = params_of(net)
    params['bias'] += 1.5
    params['filters_5'] = -abs(params['filters_5'])  # so that a window of zeros is the strongest
    vectors = abs(VECTORS)
    _, activations = run(net, params, vectors, WORDS)
    differ = []
    for i, row in enumerate(WORDS):
        n = (row != 0).sum()
        kim, _ = by_hand(params, net, 4, 9 + 4 - n, WORDS[i : i + 1], vectors)
        differ.append(np.abs(kim[0] - np.asarray(activations['features'][i])))
    differ = np.stack(differ)
    assert (differ[1:] < 1e-12).all()
    assert (differ[0, :8] < 1e-12).all()  # widths 3 and 4 have windows of zeros there too
    assert differ[0, 8:].max() > 0.01


def test_logits_depend_on_a_sentences_words_only():
    net = model()
    params = params_of(net, np.float32)
    vectors = VECTORS.astype(np.float32)
    logits, _ = run(net, params, vectors, WORDS)
    longer, activations = run(net, params, vectors, np.pad(WORDS, ((0, 0), (0, 7))))
    np.testing.assert_allclose(longer, logits, rtol=1e-6)
    alone, _ = run(net, params, vectors, WORDS[1:2, :4])
    np.testing.assert_allclose(alone, logits[1:2], rtol=1e-6)
    no_word = activations['features'][3]
    np.testing.assert_allclose(no_word, np.maximum(params['bias'], 0), rtol=1e-6)


def test_a_feature_depends_on_its_window_only(x64):
    """By gradient: the feature of filter f moves with the words at start .. start + h - 1, weighted by the filter."""
    net = model()
    params = params_of(net)
    sentence = np.arange(1, 8, dtype=np.int32)[None]  # seven different words

    def feature(vectors, f):
        return net.apply({'params': params}, vectors, sentence)[1]['features'][0, f]

    gradients = jax.jit(jax.vmap(jax.grad(feature), (None, 0)))(VECTORS, jnp.arange(12))
    activations = run(net, params, VECTORS, sentence)[1]
    fired = 0
    for f in range(12):
        h, unit = net.kernel_sizes[f // 4], f % 4
        expected = np.zeros_like(VECTORS)
        if activations['features'][0, f] > 0:
            fired += 1
            start = int(activations[f'start_{h}'][0, unit])
            for j in range(h):
                if 0 <= start + j < 7:
                    expected[sentence[0, start + j]] += params[f'filters_{h}'][j, :, unit]
        np.testing.assert_allclose(gradients[f], expected, atol=1e-12)
    assert fired > 6


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(x64):
    net = model()
    params = params_of(net)
    words = np.array([[1, 2, 3, 4, 2, 0], [5, 6, 0, 0, 0, 0]], np.int32)

    def loss(params, vectors):
        logits, _ = net.apply({'params': params}, vectors, words)
        return sentence_cnn.loss(logits, jnp.array([2, 0]))[0]

    check_grads(loss, (params, VECTORS), 1, modes=('rev',), atol=1e-6, rtol=1e-6)
    _, table = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(VECTORS))
    assert (table[0] == 0).all() and (table[7:] == 0).all() and (table[1:7] != 0).any(1).all()


def test_channels_share_the_filters():
    net = model()
    params = params_of(net, np.float32)
    a, b = VECTORS.astype(np.float32), RNG.normal(size=(12, 3)).astype(np.float32)
    both, _ = run(net, params, (a, b), WORDS)
    added, _ = run(net, params, a + b, WORDS)  # b's row 0 is not zero: it counts as
    np.testing.assert_allclose(both, added, atol=1e-5)
    shapes = jax.eval_shape(net.init, jax.random.key(0), (a, b), WORDS)['params']
    assert sentence_cnn.num_params(shapes) == sentence_cnn.num_params(params)


def test_parameters_are_as_many_as_the_paper_s():
    net = SentenceCNN(n_classes=2)
    shapes = jax.eval_shape(
        net.init, jax.random.key(0), jnp.zeros((1, 300)), jnp.zeros((1, 1), int)
    )
    params = shapes['params']
    assert sentence_cnn.num_params(params['softmax']) == 602
    assert sentence_cnn.num_params(params) == 360_300 + 602


def test_initial_values_are_kim_s():
    init = jax.jit(lambda key: model().init(key, jnp.zeros((1, 300)), jnp.zeros((1, 1), int)))
    params = jax.tree.map(np.asarray, init(jax.random.key(0))['params'])
    assert all((leaf == 0).all() for leaf in (params['bias'], *params['softmax'].values()))
    values = params['filters_5']
    assert (
        0.009 < values.max() <= 0.01
        and -0.01 <= values.min() < -0.009
        and abs(values.mean()) < 5e-4
    )


def test_dropout_drops_features_and_evaluation_scales_them():
    net = model(dropout=0.25)
    params = params_of(net, np.float32)
    params['bias'] += 2  # all features fire
    vectors = VECTORS.astype(np.float32)
    softmax = {'kernel': np.eye(12, 3, dtype=np.float32), 'bias': np.zeros(3, np.float32)}
    one_each = params | {'softmax': softmax}
    still, activations = run(net, one_each, vectors, WORDS)
    np.testing.assert_allclose(still, 0.75 * activations['features'][:, :3], rtol=1e-5)

    @jax.jit
    @jax.vmap
    def draw(key):
        rngs = {'dropout': key}
        return net.apply({'params': one_each}, vectors, WORDS, train=True, rngs=rngs)[0]

    drawn = draw(jax.random.split(jax.random.key(0), 500))
    whole = np.asarray(activations['features'][:, :3])
    drawn = np.asarray(drawn)
    assert (np.isclose(drawn, whole[None], rtol=1e-5) | (drawn == 0)).all()
    np.testing.assert_allclose(np.mean(drawn != 0), 0.75, atol=0.02)


def test_column_norms_are_bounded_after_the_step():
    params = {'W': jnp.array([[3.0, 0.1], [4.0, 0.2]])}
    steps = {'W': jnp.array([[3.0, 0.0], [4.0, 0.1]])}
    bound = sentence_cnn.clip_column_norms(3.0)
    updates, _ = bound.update(steps, bound.init(params), params)
    moved = optax.apply_updates(params, updates)['W']
    np.testing.assert_allclose(moved, [[1.8, 0.1], [2.4, 0.3]], rtol=1e-6)  # (6, 8) has norm 10
    with pytest.raises(ValueError, match='clip_column_norms needs the parameters'):
        bound.update(steps, bound.init(params))


def adadelta(param, gradients, decay=0.0):
    """Zeiler's rule, written out."""
    g2, x2 = 0.0, 0.0
    for gradient in gradients:
        g = gradient + decay * param
        g2 = 0.95 * g2 + 0.05 * g * g
        x = -np.sqrt(x2 + 1e-6) / np.sqrt(g2 + 1e-6) * g
        x2 = 0.95 * x2 + 0.05 * x * x
        param = param + x
    return param


def test_the_optimizer_is_adadelta_with_bounded_softmax(x64):
    net = model()
    params = params_of(net, scale=2.0)
    rng = np.random.default_rng(5)
    gradients = [jax.tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(3)]
    optimizer = sentence_cnn.optimizer(max_norm=3.0, weight_decay=0.1)

    @jax.jit
    def train(params):
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    moved = train(params)
    for name, decay in (('filters_4', 0.1), ('bias', 0.0)):
        expected = adadelta(np.asarray(params[name]), [g[name] for g in gradients], decay)
        np.testing.assert_allclose(moved[name], expected, atol=1e-12)
    norms = np.linalg.norm(moved['softmax']['kernel'], axis=0)
    assert (norms <= 3 + 1e-12).all() and norms.max() > 2.9
    assert np.linalg.norm(moved['filters_4'], axis=0).max() > 3


def test_loss_and_accuracy():
    logits = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    loss, metrics = sentence_cnn.loss(logits, jnp.array([0, 0]))
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(3))) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics['accuracy'] == 0.5
    for outside in (-1, 2):
        assert np.isnan(sentence_cnn.loss(logits, jnp.array([0, outside]))[0])


@pytest.mark.parametrize(
    ('vectors', 'words', 'fields', 'error', 'match'),
    [
        (VECTORS, WORDS.astype(float), {}, TypeError, 'expected words as integer .* got float'),
        (VECTORS, WORDS[0], {}, ValueError, r'expected words \[n, t\] .* got words \(9,\)'),
        ((VECTORS, VECTORS[:5]), WORDS, {}, ValueError, r'channels of one shape'),
        (VECTORS, WORDS, {'kernel_sizes': (0, 3)}, ValueError, 'kernel_sizes of at least 1'),
        (VECTORS, WORDS, {'padding': -1}, ValueError, 'padding to be None or at least 0'),
    ],
)
def test_bad_input(vectors, words, fields, error, match):
    with pytest.raises(error, match=match):
        jax.eval_shape(model(**fields).init, jax.random.key(0), vectors, words)
