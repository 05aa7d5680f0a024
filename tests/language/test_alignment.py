"""Scores of images and sentences by their sums, the ranking loss by its loops, and padding that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.language import alignment, recurrent

K, R, T, H, D = 3, 4, 5, 6, 7
RNG = np.random.default_rng(0)
REGIONS = RNG.normal(size=(K, R, H)).astype(np.float32)
WORDS = RNG.normal(size=(K, T, H)).astype(np.float32)
LENGTHS = np.array([5, 2, 3])
MASK = np.arange(T)[None] < LENGTHS[:, None]


def slow_scores(form):
    scores = np.zeros((K, K))
    for k, l in np.ndindex(K, K):
        products = WORDS[l, : LENGTHS[l]] @ REGIONS[k].T
        best = products.max(1).sum()
        scores[k, l] = best if form == 'best_region' else np.maximum(products, 0).sum()
    return scores


@pytest.mark.parametrize('form', ['best_region', 'all_pairs'])
def test_scores_are_sums_over_words(form):
    found = alignment.image_sentence_scores(REGIONS, WORDS, MASK, form)
    np.testing.assert_allclose(found, slow_scores(form), rtol=1e-5)
    chunked = alignment.all_scores(*map(jnp.asarray, (REGIONS, WORDS, MASK)), form, chunk=2)
    np.testing.assert_allclose(chunked, slow_scores(form), rtol=1e-5)


def test_masked_regions_do_not_count():
    region_mask = np.array([[1, 1, 0, 0]] * K, bool)
    for form in ('best_region', 'all_pairs'):
        found = alignment.image_sentence_scores(REGIONS, WORDS, MASK, form, region_mask=region_mask)
        expected = alignment.image_sentence_scores(REGIONS[:, :2], WORDS, MASK, form)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_form_does_not_depend_on_length():
    twice = np.concatenate([WORDS[1:2, :2]] * 2, axis=1)
    short, long = (
        alignment.image_sentence_scores(REGIONS, w, np.ones(w.shape[:2], bool), mean=True)
        for w in (WORDS[1:2, :2], twice)
    )
    np.testing.assert_allclose(short, long, rtol=1e-5)


def test_ranking_loss_is_its_double_sum():
    scores = RNG.normal(size=(K, K)).astype(np.float32)
    total = hardest = 0.0
    for k in range(K):
        others = [l for l in range(K) if l != k]
        sentences = [max(0, scores[k, l] - scores[k, k] + 1) for l in others]
        images = [max(0, scores[l, k] - scores[k, k] + 1) for l in others]
        total += sum(sentences) + sum(images)
        hardest += max(sentences) + max(images)
    found = alignment.ranking_loss(jnp.asarray(scores))
    assert float(found) == pytest.approx(total / K, rel=1e-5)
    found = alignment.ranking_loss(jnp.asarray(scores), negatives='hardest')
    assert float(found) == pytest.approx(hardest / K, rel=1e-5)


def test_contrastive_loss_is_a_cross_entropy_both_ways():
    scores = RNG.normal(size=(K, K)).astype(np.float32)
    odds = np.exp(scores / 0.5)
    probs = np.diag(odds) / odds.sum(1), np.diag(odds) / odds.sum(0)
    expected = -np.log(probs).sum() / (2 * K)
    found = jax.jit(alignment.contrastive_loss)(scores, temperature=0.5)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    same = np.eye(K, dtype=bool)
    same[0, 1] = same[1, 0] = True
    gradient = jax.jit(jax.grad(lambda s: alignment.contrastive_loss(s, same)))(scores)
    assert not gradient[0, 1] and not gradient[1, 0] and np.isfinite(gradient).all()


def test_two_sentences_of_one_image_are_no_negatives():
    scores = jnp.asarray([[1.0, 5.0], [5.0, 1.0]])
    assert float(alignment.ranking_loss(scores)) == 10.0
    assert float(alignment.ranking_loss(scores, jnp.ones((2, 2), bool))) == 0


@pytest.fixture(scope='module', params=['relu', 'gru', 'lstm'])
def encoder(request):
    network = alignment.SentenceEncoder(H, cell=request.param)
    vectors = RNG.normal(size=(K, T, D)).astype(np.float32)
    variables = network.init(jax.random.key(0), vectors, MASK)
    apply = jax.jit(network.apply)
    return request.param, apply, variables, vectors


@pytest.mark.cases(1)
def test_padding_changes_no_embedding(encoder):
    _, apply, variables, vectors = encoder
    other = np.where(MASK[:, :, None], vectors, 9).astype(np.float32)
    other = np.concatenate([other, np.full_like(other[:, :3], 4)], axis=1)
    mask = np.concatenate([MASK, np.zeros((K, 3), bool)], axis=1)
    first, second = apply(variables, vectors, MASK), apply(variables, other, mask)
    np.testing.assert_allclose(first, second[:, :T], rtol=1e-5, atol=1e-6)
    assert not second[:, T:].any() and not np.asarray(first)[~MASK].any()


def test_a_sentence_alone_has_the_same_embedding(encoder):
    _, apply, variables, vectors = encoder
    alone = apply(variables, vectors[1:2, :2], np.ones((1, 2), bool))
    together = apply(variables, vectors, MASK)[1:2, :2]
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


def test_both_directions_reach_every_word(encoder):
    _, apply, variables, vectors = encoder
    base = np.asarray(apply(variables, vectors, MASK))
    for position in (0, 4):
        changed = vectors.copy()
        changed[0, position] += 3
        moved = np.abs(np.asarray(apply(variables, changed, MASK)) - base).max(2)[0]
        assert (moved > 0).all(), position


def test_published_recurrence_is_the_papers():
    network = alignment.SentenceEncoder(H)
    vectors = RNG.normal(size=(1, 3, D)).astype(np.float32)
    variables = network.init(jax.random.key(1), vectors, np.ones((1, 3), bool))
    p = jax.tree.map(np.asarray, variables['params'])

    def relu(x):
        return np.maximum(x, 0)

    e = relu(vectors[0] @ p['inputs']['kernel'] + p['inputs']['bias'])
    total = np.zeros((3, H))
    r = p['Recurrence_0']
    for name, order in (('forward', (0, 1, 2)), ('backward', (2, 1, 0))):
        h = np.zeros(H)
        for t in order:
            h = relu(e[t] + h @ r[f'{name}_kernel'] + r[f'{name}_bias'])
            total[t] += h
    expected = relu(total @ p['embedding']['kernel'] + p['embedding']['bias'])
    found = network.apply(variables, vectors, np.ones((1, 3), bool))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_lstm_and_gru_steps_are_their_equations():
    rng = np.random.default_rng(2)
    h, c = rng.normal(size=(2, 1, 3)).astype(np.float32)
    sigmoid = jax.nn.sigmoid
    x, kernel = (
        rng.normal(size=(1, 12)).astype(np.float32),
        rng.normal(size=(3, 12)).astype(np.float32),
    )
    i, f, o, g = np.split(np.asarray(x + h @ kernel), 4, axis=1)
    memory = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    found = recurrent.advance(
        'lstm', (jnp.asarray(h), jnp.asarray(c)), jnp.asarray(x), jnp.asarray(kernel)
    )
    np.testing.assert_allclose(found[0], sigmoid(o) * np.tanh(memory), rtol=1e-5)
    x, kernel = x[:, :9], kernel[:, :9]
    gates = h @ kernel
    reset, update = sigmoid(x[:, :3] + gates[:, :3]), sigmoid(x[:, 3:6] + gates[:, 3:6])
    new = np.tanh(x[:, 6:] + reset * gates[:, 6:])
    (found,) = recurrent.advance('gru', (jnp.asarray(h),), jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(found, update * h + (1 - update) * new, rtol=1e-5)


def test_unit_length_of_zero_is_zero():
    gradient = jax.grad(lambda v: alignment.unit_length(v).sum())(jnp.zeros(3))
    assert np.isfinite(gradient).all()
    found = alignment.RegionEncoder(H, normalize=True)
    variables = found.init(jax.random.key(0), jnp.ones((1, 2, D)))
    norms = np.linalg.norm(found.apply(variables, jnp.ones((1, 2, D))), axis=2)
    np.testing.assert_allclose(norms, 1, rtol=1e-4)
