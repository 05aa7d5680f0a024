"""Semantic hashing: codes of documents and words (Hinton & Salakhutdinov, 2006; Salakhutdinov & Hinton, 2009).

Three autoencoders of bags of words are trained in parallel, without labels: with two latent variables for a
map, with some for retrieval, and with bits, whose units get noise. Each test document is a query for the nearest
training documents; labels only measure how many of those are of its class, compared with the words themselves
(tf-idf) and latent semantic analysis. Words get vectors too: the autoencoder's weights, and those of a linear
autoencoder of the words' co-occurrences, which is LSA again.

Run:      python -m experiments.autoencoders.semantic
          python -m experiments.autoencoders.semantic --preset trec --manual_dir PATH
Hardware: about 40 CPU-seconds; subj and mr 50 each
Results:  documents of the query's class among the nearest 10 (100), in %

          | representation  | docstrings  | trec        | subj        | mr          |
          |-----------------|-------------|-------------|-------------|-------------|
          | autoencoder, 32 | 72.1 (52.1) | 62.6 (47.3) | 84.0 (82.1) | 57.6 (56.4) |
          | LSA, 32         | 68.1 (45.9) | 67.5 (53.1) | 74.3 (71.7) | 54.0 (52.7) |
          | tf-idf          | 73.2 (44.4) | 65.8 (50.8) | 74.8 (69.9) | 59.8 (55.8) |
          | 64 bits         | 66.2 (48.7) |             | 84.2 (83.4) | 55.4 (55.0) |
          | chance          | 16.9        |             | 50          | 50          |

          Two latent variables: docstrings 45.2 (LSA 26.6), subj 83.2 (73.7), mr 53.1 (50.9). Nearest 5 words
          of the same class, autoencoder (co-occurrences): docstrings 47.3 % (51.7, random vectors 10.7), subj
          78.2 (81.5), mr 60.3 (64.3). Bags of words know the topic of a review, hardly its opinion.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, linear, network, semantic_hashing
from lecture4.data.text import documents

ACTIVATIONS = {'code': network.identity, 'map': network.identity, 'bits': jax.nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 1000
    batch_size: train.AtLeast1 = 100
    steps_per_call: train.AtLeast1 = 20
    # Source of labeled sentences: docstrings, mr, subj, trec, sst1, sst2, sms_spam, tsv:PATH.
    source: str = 'docstrings'
    # Fraction of the documents held out as queries, where the source has no test split.
    held_out: train.InsideUnit = 0.1
    # Number of most frequent words to count.
    num_words: train.AtLeast1 = 2000
    # Smallest number of occurrences of a word.
    min_count: train.AtLeast1 = 2
    # Weights of words: tf-idf, so that words in all documents weigh little, or counts.
    weighting: Literal['tfidf', 'counts'] = 'tfidf'
    # Sizes of the hidden layers, before the code.
    hidden_dims: train.Ints = (128,)
    # Latent dimension for retrieval.
    latent_dim: train.AtLeast1 = 32
    # Number of bits of the hashing code.
    num_bits: train.AtLeast1 = 64
    # Standard deviation of the noise on the input of the bits.
    noise_std: train.NonNegative = 2.0
    # Fraction of words that the encoders do not see in training.
    mask_rate: train.FractionBelow1 = 0.5
    # Peak learning rate; it falls to 0 along a half cosine.
    learning_rate: train.Positive = 3e-3
    # Number of nearest documents whose classes are compared with the query's.
    num_retrieved: train.AtLeast1 = 10
    # Number of words to show with their neighbors.
    num_shown: train.AtLeast1 = 9
    # Number of neighbors to show of each word.
    num_neighbors: train.AtLeast1 = 6


METRICS = (
    train.Metric('code_precision', 'fraction', 'higher', 'precision of the code', primary=True),
    train.Metric('precision', 'fraction', 'higher', 'precision'),
    train.Metric('word_precision', 'fraction', 'higher', 'words of the same class'),
    train.Metric('undecided', 'fraction', 'lower', 'bit units between .1 and .9'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 20, 'num_words': 300, 'hidden_dims': (16,), 'latent_dim': 8, 'num_bits': 8},
    'trec': {'source': 'trec', 'steps': 1500, 'mask_rate': 0.0},
}
SWEEPS = {
    'noise_std': train.grid(noise_std=(0.0, 1.0, 2.0, 4.0)),
    'latent_dim': train.grid(latent_dim=(2, 8, 32, 128)),
    'mask_rate': train.grid(mask_rate=(0.0, 0.25, 0.5, 0.75)),
}


def data(config):
    corpus = documents.load(
        config.source,
        held_out=config.held_out,
        num_words=config.num_words,
        min_count=config.min_count,
        seed=config.seed,
        **config.data_kwargs(),
    )
    bags = corpus.tfidf if config.weighting == 'tfidf' else corpus.counts
    rows = corpus.train_rows[bags[corpus.train_rows].any(1)]
    return train.in_memory(
        bags[rows],
        config.batch_size,
        seed=config.seed,
        evaluation=bags[corpus.test_rows],
        spec=train.Spec(bags.shape[1:], corpus.class_names, {'words': corpus.words}),
        report_data=corpus._replace(train_rows=rows),
    )


def build(config, spec):
    dims = {'code': config.latent_dim, 'map': 2, 'bits': config.num_bits}

    def init(key, x):
        del x
        keys = dict(zip(ACTIVATIONS, jax.random.split(key, len(ACTIVATIONS)), strict=True))
        return {
            name: semantic_hashing.init(
                keys[name], spec.shape[0], (*config.hidden_dims, dims[name])
            )
            for name in ACTIVATIONS
        }

    def loss(params, x, key):
        mask_key, noise_key = jax.random.split(key)
        masked = denoising.masking(mask_key, x, mask_rate=config.mask_rate)
        each = {
            f'loss/{name}': jnp.mean(
                semantic_hashing.loss(
                    own,
                    x,
                    noise_key,
                    latent_activation=ACTIVATIONS[name],
                    noise_std=config.noise_std if name == 'bits' else 0.0,
                    encoder_counts=masked,
                )
            )
            for name, own in params.items()
        }
        return sum(each.values(), jnp.zeros(())), each

    def evaluate(params, x):
        return {
            f'loss/{name}': jnp.mean(
                semantic_hashing.loss(own, x, latent_activation=ACTIVATIONS[name])
            )
            for name, own in params.items()
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    def encode(state, bags):
        return {
            name: semantic_hashing.encode(
                own, jnp.asarray(bags), latent_activation=ACTIVATIONS[name]
            )
            for name, own in state.params.items()
        }

    return {'encode': encode}


def rankings(config, codes, corpus):
    """({representation: training rows for every query, nearest first}, {representation: points})."""
    from sklearn.decomposition import TruncatedSVD

    queries, rows = corpus.test_rows, corpus.train_rows
    spaces = {'words, tf-idf': corpus.tfidf, 'words, counts': corpus.counts}
    for dim in sorted({2, config.latent_dim}):
        lsa = TruncatedSVD(dim, random_state=config.seed).fit(corpus.tfidf[rows])
        spaces[f'LSA, {dim}'] = lsa.transform(corpus.tfidf)
    spaces['autoencoder, 2'] = codes['map']
    spaces[f'autoencoder, {config.latent_dim}'] = codes['code']
    order = {}
    for name, points in spaces.items():
        if name.endswith(', 2'):  # a map is read by distances
            distances = ((points[queries][:, None] - points[rows][None]) ** 2).sum(2)
            order[name] = np.argsort(distances, axis=1, kind='stable')
        else:
            order[name], _ = semantic_hashing.nearest_by_cosine(
                points[rows], points[queries], len(rows)
            )
    bits = semantic_hashing.to_bits(codes['bits'])
    distances = semantic_hashing.hamming_distance(
        jnp.asarray(bits[queries]), jnp.asarray(bits[rows])
    )
    order[f'autoencoder, {config.num_bits} bits'] = np.argsort(
        np.asarray(distances), axis=1, kind='stable'
    )
    return {name: rows[each] for name, each in order.items()}, spaces


def word_spaces(config, params, corpus):
    """{method: a vector for every word}; the last are random, for comparison."""
    present = corpus.counts[corpus.train_rows] > 0
    strength = semantic_hashing.ppmi(semantic_hashing.cooccurrences(present))
    moment = jnp.asarray(strength.T @ strength / len(strength), jnp.float32)
    model = linear.init(jax.random.key(config.seed), len(strength), config.latent_dim)
    zero = jnp.zeros(len(strength), jnp.float32)
    step = jax.jit(linear.alternating_least_squares)
    for _ in range(60):
        model = step(model, zero, moment)
    basis = np.linalg.qr(np.asarray(linear.decoder_matrix(model)))[0]
    random = np.random.default_rng(config.seed).normal(size=(len(strength), config.latent_dim))
    return {
        'autoencoder': np.asarray(semantic_hashing.word_vectors(params['code'])),
        'co-occurrence': strength @ basis,
        'random': random,
    }


def report(config, state, data):
    from lecture4.figures import embeddings, lines
    from lecture4.figures import text as drawn

    corpus, labels = data.report_data, data.report_data.labels
    queries, rows, words = corpus.test_rows, corpus.train_rows, corpus.words
    bags = corpus.tfidf if config.weighting == 'tfidf' else corpus.counts
    codes = apply(config, data.spec)['encode'](state, bags)
    codes = {name: np.asarray(code) for name, code in codes.items()}
    ranked, spaces = rankings(config, codes, corpus)
    correct = {name: labels[r] == labels[queries][:, None] for name, r in ranked.items()}
    ranks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n <= len(rows)]
    curves = {
        name: (np.array(ranks), np.array([hits[:, :n].mean() for n in ranks]))
        for name, hits in correct.items()
    }
    columns = sorted({1, config.num_retrieved, min(100, ranks[-1])})
    chance = float((labels[rows] == labels[queries][:, None]).mean())
    records = [
        {'representation': name, 'retrieved': n, 'precision': float(hits[:, :n].mean())}
        for name, hits in correct.items()
        for n in columns
    ]
    records += [{'representation': 'chance', 'retrieved': n, 'precision': chance} for n in columns]
    vectors = word_spaces(config, state.params, corpus)
    word_class, common, indicative = documents.word_classes(corpus)
    word_records = []
    for name, table in vectors.items():
        nearest, _ = semantic_hashing.nearest_by_cosine(table[common], np.arange(len(common)), 5)
        same = word_class[common][nearest] == word_class[common][:, None]
        word_records.append({'word vectors': name, 'word_precision': float(same.mean())})
    shown = indicative[: config.num_shown]
    groups = {}
    for name in ('autoencoder', 'co-occurrence'):
        nearest, cosine = semantic_hashing.nearest_by_cosine(
            vectors[name], np.array(shown), config.num_neighbors
        )
        groups[name] = [
            (words[w], [(words[j], c) for j, c in zip(near, cosines, strict=True)])
            for w, near, cosines in zip(shown, nearest, cosine, strict=True)
        ]
    best = f'autoencoder, {config.latent_dim}'

    def excerpt(row):
        return ' '.join(corpus.texts[row])[:60]

    examples = [
        {
            'query': excerpt(queries[i]),
            'nearest by code': excerpt(ranked[best][i, 0]),
            'nearest by tf-idf': excerpt(ranked['words, tf-idf'][i, 0]),
        }
        for i in (np.flatnonzero(labels[queries] == c)[0] for c in np.unique(labels[queries])[:4])
    ]
    precision = {
        name: float(hits[:, : config.num_retrieved].mean()) for name, hits in correct.items()
    }
    undecided = float(semantic_hashing.undecided_fraction(codes['bits']))
    plane = ('autoencoder, 2', 'LSA, 2')
    panel = {'curves': curves, 'lines': {'chance': chance}, 'xscale': 'log'}
    panel |= {'xlabel': 'documents retrieved', 'ylabel': 'fraction of the same class'}
    caption = (
        f'{len(queries)} held-out documents of {config.source} are queries for {len(rows)} others, '
        f'{len(words)} words. By cosine; in two dimensions by Euclidean distance; bits by Hamming '
        f'distance. {undecided:.1%} of the bit units are between .1 and .9.'
    )
    word_caption = (
        f'{len(common)} words that are in 10 documents or more; the class of a word is the one in which '
        'it is most over-represented.'
    )
    return train.Report(
        metrics={'code_precision': precision[best], 'undecided': undecided},
        tables=(
            train.Table(
                'Documents of the same class among the nearest', records, ('representation',),
                caption=caption, pivot='retrieved',
            ),
            train.Table(
                'Words of the same class among the nearest 5', word_records, ('word vectors',),
                caption=word_caption,
            ),
            train.Table('Nearest documents', examples, ('query',)),
        ),
        figures={
            'retrieval': train.Figure(
                lines.panels({'Precision of retrieval': panel}, size=(8.2, 4.2)),
                'Held-out documents are queries for the nearest others.',
            ),
            'words': train.Figure(
                drawn.top_ngrams(groups, columns=3),
                'Words that indicate classes, and the words nearest to them by cosine: above by the '
                "autoencoder's weights, below by a linear autoencoder of co-occurrences.",
            ),
            'map': train.Figure(
                embeddings.scatter(
                    {name: spaces[name][queries] for name in plane}, labels[queries],
                    data.spec.class_names, notes={n: f'{precision[n]:.0%}' for n in plane}, size=4.2,
                ),
                'Held-out documents in two latent variables; after the names, precision of retrieval.',
            ),
        },
        summary=f'Of the {config.num_retrieved} nearest documents, {precision[best]:.1%} are of the '
        f'class of the query with a code of {config.latent_dim}, with LSA of the same dimension '
        f'{precision[f"LSA, {config.latent_dim}"]:.1%}, with all words '
        f'{precision["words, tf-idf"]:.1%}, chance {chance:.1%}.',
    )  # fmt: skip


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
