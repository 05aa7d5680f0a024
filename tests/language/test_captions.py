"""The caption network by its equations, step by step and at once; padding, likelihood, optimizer, compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.language import caption_evaluation, captions, decoding

V, N, R, D = 9, 3, 2, 5
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, R, D)).astype(np.float32)
TOKENS = np.array([[2, 3, 4, 5], [6, 7, 0, 0], [8, 0, 0, 0]], np.int32)
KINDS = [
    {'cell': 'relu', 'image_at': 'first'},
    {'cell': 'relu', 'image_at': 'every'},
    {'cell': 'lstm', 'image_at': 'first'},
    {'cell': 'lstm', 'image_at': 'first', 'attention': True},
]


@pytest.fixture(scope='module', params=KINDS, ids=str)
def model(request):
    network = captions.CaptionNetwork(V, embed_dim=4, hidden_dim=6, **request.param)

    @jax.jit
    def init(key):
        variables = network.init(key, FEATURES, TOKENS)
        return jax.tree.map(lambda leaf: leaf * 3, variables)  # sharper than initial values

    variables = init(jax.random.key(1))
    return network, variables, jax.jit(network.apply)


@pytest.mark.cases(1)
def test_words_decoded_one_by_one_have_the_logits_of_all(model):
    network, variables, apply = model
    logits, _ = apply(variables, FEATURES, TOKENS)
    state = network.apply(variables, FEATURES, method='start')
    advance = jax.jit(lambda state, t: network.apply(variables, state, t, method='next_word'))
    log_softmax = jax.jit(lambda x: jax.nn.log_softmax(x.at[:, :, 1].set(-jnp.inf)))(logits)
    inputs = np.pad(TOKENS, ((0, 0), (1, 0)))
    for position in range(TOKENS.shape[1] + 1):
        state, log_probs = advance(state, jnp.asarray(inputs[:, position]))
        np.testing.assert_allclose(log_probs, log_softmax[:, position], rtol=1e-3, atol=1e-4)


def test_padding_changes_no_likelihood(model):
    _, variables, apply = model
    padded = np.pad(TOKENS, ((0, 0), (0, 3)))
    likelihood = jax.jit(captions.token_log_likelihood)
    first, second = (
        likelihood(apply(variables, FEATURES, tokens)[0], tokens) for tokens in (TOKENS, padded)
    )
    np.testing.assert_allclose(first[0], second[0], rtol=1e-4)
    assert first[1].tolist() == second[1].tolist() == [5, 3, 2]


def test_words_depend_on_earlier_ones_only(model):
    _, variables, apply = model
    base = apply(variables, FEATURES, TOKENS)[0]
    changed = TOKENS.copy()
    changed[0, 2] = 7
    moved = np.abs(np.asarray(apply(variables, FEATURES, changed)[0] - base)).max(2)[0]
    assert not moved[:3].any() and (moved[3:] > 0).all()


@pytest.mark.cases(1)
def test_the_unknown_word_is_never_generated(model):
    network, variables, _ = model

    def step(state, tokens):
        return network.apply(variables, state, tokens, method='next_word')

    state = network.apply(variables, FEATURES, method='start')
    sampled = decoding.sample(jax.random.key(0), step, state, max_length=8, temperature=5.0)
    assert not (np.asarray(sampled.tokens) == captions.UNKNOWN).any()
    beam = decoding.beam_search(step, state, width=3, max_length=8)
    assert not (np.asarray(beam.tokens) == captions.UNKNOWN).any()


def test_published_recurrence_is_the_papers():
    network = captions.CaptionNetwork(V, embed_dim=6, hidden_dim=6, cell='relu')
    variables = network.init(jax.random.key(0), FEATURES, TOKENS)
    p = jax.tree.map(np.asarray, variables['params'])
    image = FEATURES[0, 0] @ p['image']['kernel'] + p['image']['bias']
    h = np.zeros(6)
    for t, token in enumerate([0, *TOKENS[0]]):
        x = p['words'][token] + (image if t == 0 else 0)
        h = np.maximum(x @ p['inputs']['kernel'] + p['inputs']['bias'] + h @ p['kernel'], 0)
        expected = h @ p['logits']['kernel'] + p['logits']['bias']
        found = network.apply(variables, FEATURES, TOKENS)[0][0, t]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_likelihood_sums_words_and_end():
    logits = RNG.normal(size=(N, 5, V)).astype(np.float32)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    expected = [
        sum(log_probs[i, t, token] for t, token in enumerate([*words, 0]))
        for i, words in enumerate(([2, 3, 4, 5], [6, 7], [8]))
    ]
    found, count = captions.token_log_likelihood(jnp.asarray(logits), TOKENS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    loss = captions.loss(jnp.asarray(logits), TOKENS)
    assert float(loss) == pytest.approx(-sum(expected) / int(count.sum()), rel=1e-5)


def test_attention_weights_are_a_distribution():
    network = captions.CaptionNetwork(V, embed_dim=4, hidden_dim=6, attention=True)
    variables = network.init(jax.random.key(1), FEATURES, TOKENS)
    _, weights = network.apply(variables, FEATURES, TOKENS)
    assert weights.shape == (N, 5, R)
    np.testing.assert_allclose(weights.sum(2), 1, rtol=1e-5)


def test_rmsprop_is_neuraltalks():
    rule, params = captions.optimizer(0.01), jnp.array([1.0])
    state, cache, expected = rule.init(params), 0.0, 1.0
    for gradient in (0.5, -20.0, 0.1):
        updates, state = rule.update(jnp.array([gradient]), state, params)
        params = optax.apply_updates(params, updates)
        clipped = max(min(gradient, 5), -5)
        cache = 0.999 * cache + 0.001 * clipped**2
        expected -= 0.01 * clipped / np.sqrt(cache + 1e-8)
        assert float(params[0]) == pytest.approx(expected, rel=1e-4)


def test_one_program_per_padded_length():
    network = captions.CaptionNetwork(V, embed_dim=4, hidden_dim=6)
    variables = network.init(jax.random.key(1), FEATURES, TOKENS)
    traces = []

    @jax.jit
    def loss(tokens):
        traces.append(tokens.shape)
        return captions.loss(network.apply(variables, FEATURES, tokens)[0], tokens)

    for length in (4, 2, 3, 1, 4):  # ragged sentences, all padded to four words
        loss(np.where(np.arange(4)[None] < length, TOKENS, 0))
    assert len(traces) == 1


def test_describing_other_images_compiles_nothing():
    network = captions.CaptionNetwork(V, embed_dim=4, hidden_dim=6)
    params = network.init(jax.random.key(1), FEATURES, TOKENS)['params']
    words = tuple('abcdefghi')
    before = captions.describe._cache_size()
    for count in (3, 1, 2):  # the last images of a set are padded to as many as the others
        part = RNG.normal(size=(count, R, D)).astype(np.float32)
        found = caption_evaluation.describe_all(
            network, params, part, words, width=2, max_length=3, size=3
        )
        assert len(found) == count
    assert captions.describe._cache_size() == before + 1
