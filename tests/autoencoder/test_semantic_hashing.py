import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.autoencoder import linear, semantic_hashing

COUNTS = np.array([[2, 0, 1, 0], [0, 0, 0, 3], [1, 1, 1, 1]], np.float32)


def test_bags_count_words():
    encoded = [np.array([2, 0, 0]), np.array([3, 3, 3]), np.array([0, 1, 2, 3])]
    np.testing.assert_array_equal(semantic_hashing.bag_of_words(encoded, 4), COUNTS)
    assert not semantic_hashing.bag_of_words([np.array([], int)], 4).any()
    with pytest.raises(ValueError, match=r'document 1: .*got 1 to 4'):
        semantic_hashing.bag_of_words([np.array([0]), np.array([1, 4])], 4)


def test_loss_is_that_of_drawing_every_word(x64):
    """Word by word, by the decoder's probabilities; a document twice as long costs twice as much."""
    params = semantic_hashing.init(jax.random.key(0), 4, (5, 2), dtype=jnp.float64)
    counts = jnp.asarray(COUNTS, jnp.float64)
    loss = jax.jit(semantic_hashing.loss)
    p = np.exp(semantic_hashing.log_word_probs(params, semantic_hashing.encode(params, counts)))
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    expected = [-2 * np.log(p[0, 0]) - np.log(p[0, 2]), -3 * np.log(p[1, 3]), -np.log(p[2]).sum()]
    np.testing.assert_allclose(loss(params, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(loss(params, 2 * counts), 2 * np.array(expected), rtol=1e-12)


def test_length_of_a_document_does_not_change_its_code():
    params = semantic_hashing.init(jax.random.key(0), 4, (5, 2))
    one, two = (semantic_hashing.encode(params, s * jnp.asarray(COUNTS)) for s in (1.0, 7.0))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert np.isfinite(semantic_hashing.encode(params, jnp.zeros((1, 4)))).all()


def topics(n=600, n_words=40, n_topics=4, length=10):
    """Documents of one topic each, whose words only partly overlap: a model with known topics."""
    rng = np.random.default_rng(0)
    spread = 0.2 * np.ones((n_topics, n_words))
    for t in range(n_topics):
        spread[t, t * 10 : t * 10 + 10] = 1
    spread /= spread.sum(1, keepdims=True)
    kind = rng.integers(n_topics, size=n)
    return np.stack([rng.multinomial(length, spread[t]) for t in kind]).astype(np.float32), kind


@functools.cache
def trained(noise):
    """Codes of 6 bits learned with that noise, and their documents' topics."""
    counts, kind = topics()
    x = jnp.asarray(counts)
    params = semantic_hashing.init(jax.random.key(0), x.shape[1], (16, 6))
    optimizer = optax.adam(1e-2)

    def step(carry, key):
        params, state = carry

        def value(p):
            return semantic_hashing.loss(
                p, x, key, latent_activation=jax.nn.sigmoid, noise_std=noise
            ).mean()

        loss, grads = jax.value_and_grad(value)(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), loss

    with jax.numpy_dtype_promotion('standard'):
        first = (params, optimizer.init(params))
        keys = jax.random.split(jax.random.key(1), 400)
        (params, _), losses = jax.jit(functools.partial(jax.lax.scan, step))(first, keys)
    return (
        semantic_hashing.encode(params, x, latent_activation=jax.nn.sigmoid),
        counts,
        kind,
        params,
        np.asarray(losses),
    )


@pytest.mark.slow
def test_noise_drives_latent_units_to_0_or_1():
    """The claim that makes bits of codes: only values far from 1/2 survive the noise."""
    undecided = [
        float(semantic_hashing.undecided_fraction(trained(noise)[0])) for noise in (0.0, 4.0)
    ]
    assert undecided[1] < 0.6 * undecided[0]
    assert undecided[1] < 0.25


def test_bits_retrieve_topics_better_than_word_counts():
    codes, counts, kind, _, losses = trained(4.0)
    assert losses[-1] < 0.95 * losses[0]
    bits = semantic_hashing.to_bits(codes)
    by_bits = np.argsort(
        semantic_hashing.hamming_distance(bits, bits) + 99 * np.eye(len(bits), dtype=int),
        1,
        'stable',
    )
    by_words, _ = semantic_hashing.nearest_by_cosine(counts, np.arange(len(counts)), 50)
    right = [(kind[order[:, :50]] == kind[:, None]).mean() for order in (by_bits, by_words)]
    assert right[0] > 0.75, right
    assert right[0] > right[1] + 0.03


def test_words_of_a_topic_have_similar_vectors():
    vectors = np.asarray(semantic_hashing.word_vectors(trained(4.0)[3]))
    order, cosine = semantic_hashing.nearest_by_cosine(vectors, np.arange(40), 3)
    assert (order // 10 == np.arange(40)[:, None] // 10).mean() > 0.85
    assert (np.diff(cosine, axis=1) <= 0).all()


def test_hamming_counts_differing_bits():
    a, b = (jax.random.bernoulli(jax.random.key(i), 0.5, (n, 13)) for i, n in ((0, 5), (1, 7)))
    expected = (np.asarray(a)[:, None] != np.asarray(b)[None]).sum(2)
    np.testing.assert_array_equal(semantic_hashing.hamming_distance(a, b), expected)
    with pytest.raises(ValueError, match='got 13 and 5 bits'):
        semantic_hashing.hamming_distance(a, b[:, :5])


def test_cooccurrences_and_ppmi_by_the_definition():
    pairs = semantic_hashing.cooccurrences(COUNTS)
    assert pairs[0, 2] == 2 * 1 + 1 * 1 and pairs[0, 0] == 2 * 1 and pairs[3, 3] == 3 * 2
    np.testing.assert_array_equal(pairs, pairs.T)
    p = pairs / pairs.sum()
    for i, j in np.ndindex(4, 4):
        together = p[i, j] / (p[i].sum() * p[:, j].sum())
        assert semantic_hashing.ppmi(pairs)[i, j] == pytest.approx(
            max(0, np.log(max(together, 1e-300)))
        )
    assert not semantic_hashing.ppmi(np.zeros((3, 3))).any()


def test_linear_autoencoder_of_ppmi_is_latent_semantic_analysis(x64):
    """Eckart and Young: the best linear code of width k spans the leading singular vectors."""
    counts, _ = topics()
    strength = semantic_hashing.ppmi(semantic_hashing.cooccurrences(counts > 0))
    k, d = 4, len(strength)
    model = linear.init(jax.random.key(0), d, k, dtype=jnp.float64)
    second_moments = jnp.asarray(strength.T @ strength / d)

    def step(_, model):
        return linear.alternating_least_squares(model, jnp.zeros(d), second_moments)

    model = jax.jit(lambda model: jax.lax.fori_loop(0, 300, step, model))(model)
    _, values, V = np.linalg.svd(strength)
    angles = linear.principal_angles(linear.decoder_matrix(model), jnp.asarray(V[:k].T))
    assert float(angles.max()) < 1e-3
    error = float(linear.loss(model, jnp.asarray(strength)).sum())
    assert error == pytest.approx((values[k:] ** 2).sum(), rel=1e-6)


def test_nearest_by_cosine_is_brute_force():
    table = np.random.default_rng(0).normal(size=(9, 3))
    order, cosine = semantic_hashing.nearest_by_cosine(table, np.array([4]), 2)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    expected = sorted((i for i in range(9) if i != 4), key=lambda i: -unit[i] @ unit[4])[:2]
    assert order[0].tolist() == expected
    assert cosine[0, 0] == pytest.approx(unit[expected[0]] @ unit[4])
    order, _ = semantic_hashing.nearest_by_cosine(table, table[[2]], 1)
    assert order[0, 0] == 2


def test_integers_are_refused():
    with pytest.raises(TypeError, match='floating'):
        semantic_hashing.loss(
            semantic_hashing.init(jax.random.key(0), 4, (2,)), jnp.ones((1, 4), jnp.int32)
        )
