"""Semantic hashing: codes of documents and words (Hinton & Salakhutdinov, 2006; Salakhutdinov & Hinton, 2009).

Three autoencoders of bags of words are trained in parallel, without labels: with two latent variables for a map, with
more for retrieval, and with binary codes, whose units get noise. Test documents are queries for training documents of
the same class. Word vectors are the autoencoder's weights, and those of a linear autoencoder of co-occurrences.

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
          of the same class, autoencoder (co-occurrences): docstrings 47.3 % (51.7, random 10.7), subj 78.2
          (81.5), mr 60.3 (64.3). Bags of words indicate the topic of a review, but hardly its opinion.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, network, semantic_hashing
from lecture4.autoencoder import document_retrieval as retrieval
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
    # Weights of words: tf-idf, which gives words that occur in all documents little weight, or counts.
    weighting: Literal['tfidf', 'counts'] = 'tfidf'
    # Sizes of the hidden layers, before the code.
    hidden_dims: train.Ints = (128,)
    # Latent dimension for retrieval.
    latent_dim: train.AtLeast1 = 32
    # Number of bits of the hashing code.
    num_bits: train.AtLeast1 = 64
    # Standard deviation of the noise on the input of the bits.
    noise_std: train.NonNegative = 2.0
    # Fraction of words masked in the encoders' input during training.
    mask_rate: train.FractionBelow1 = 0.5
    # Peak learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 3e-3
    # Number of nearest documents whose classes are compared with the query's.
    num_retrieved: train.AtLeast1 = 10
    # Number of words shown with their neighbors.
    num_shown: train.AtLeast1 = 9
    # Number of neighbors shown for each word.
    num_neighbors: train.AtLeast1 = 6


METRICS = (
    train.Metric('code_precision', 'fraction', 'higher', 'precision of the code', primary=True),
    train.Metric('precision', 'fraction', 'higher', 'precision'),
    train.Metric('word_precision', 'fraction', 'higher', 'words of the same class'),
    train.Metric('undecided', 'fraction', 'lower', 'bit units between 0.1 and 0.9'),
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
    options = {
        name: getattr(config, name) for name in ('held_out', 'num_words', 'min_count', 'seed')
    }
    corpus = documents.load(config.source, **options, **config.data_kwargs())
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
        layers = {name: (*spec.shape, *config.hidden_dims, dim) for name, dim in dims.items()}
        return network.init_each(key, layers, scale='glorot')

    def losses(params, x, key=None, masked=None):
        each = {}
        for name, own in params.items():
            options: dict = {'noise_std': config.noise_std if name == 'bits' else 0.0}
            options |= {'latent_activation': ACTIVATIONS[name], 'encoder_counts': masked}
            each[f'loss/{name}'] = jnp.mean(semantic_hashing.loss(own, x, key, **options))
        return each

    def loss(params, x, key):
        mask_key, noise_key = jax.random.split(key)
        masked = denoising.masking(mask_key, x, mask_rate=config.mask_rate)
        each = losses(params, x, noise_key, masked)
        return sum(each.values(), jnp.zeros(())), each

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), losses)


def apply(config, spec):
    def encode(state, bags):
        return {
            name: semantic_hashing.encode(own, bags, latent_activation=ACTIVATIONS[name])
            for name, own in state.params.items()
        }

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import embeddings, lines, text

    corpus, dim = data.report_data, config.latent_dim
    queries, rows, labels = corpus.test_rows, corpus.train_rows, corpus.labels
    bags = corpus.tfidf if config.weighting == 'tfidf' else corpus.counts
    codes = apply(config, data.spec)['encode'](state, bags)
    codes = {name: np.asarray(code) for name, code in codes.items()}
    spaces = retrieval.spaces(corpus.tfidf, corpus.counts, codes, rows, seed=config.seed)
    ranked, hits = retrieval.search(spaces, labels, queries, rows)
    precision = {k: float(own[:, : config.num_retrieved].mean()) for k, own in hits.items()}
    counts = sorted({1, config.num_retrieved, min(100, len(rows))})
    records = retrieval.precision_records(hits, counts)
    chance = records[-1]['precision']
    code, counted = state.params['code'], corpus.counts[rows]
    vectors = retrieval.word_spaces(code, counted, dim=dim, seed=config.seed)
    classes, common, indicative = documents.word_classes(corpus)
    word_records = retrieval.word_records(vectors, classes, common)
    shown, n = indicative[: config.num_shown], config.num_neighbors
    groups = retrieval.named_neighbors(vectors, corpus.words, shown, n)
    del groups['random']
    names = (f'autoencoder, {dim}', f'LSA, {dim}', 'words, tf-idf')
    ours, lsa, tfidf = (precision[name] for name in names)
    nearest = {'nearest by code': ranked[names[0]], 'nearest by tf-idf': ranked[names[2]]}
    index, title = ('representation',), 'Documents of the same class among the nearest'
    tables = (
        train.Table(title, records, index, caption=retrieval.DOCUMENTS, pivot='retrieved'),
        train.Table('Nearest words', word_records, ('word vectors',), caption=retrieval.WORDS),
        train.Table('Nearest documents', documents.nearest_examples(corpus, nearest), ('query',)),
    )
    curves, axes = retrieval.precision_curves(hits), {'xscale': 'log', 'lines': {'chance': chance}}
    planes = {name: spaces[name].points[queries] for name in ('autoencoder, 2', 'LSA, 2')}
    notes = {name: f'{precision[name]:.0%} of neighbors in class' for name in planes}
    figures = {
        'retrieval': train.Figure(
            lines.single('Precision', curves, xlabel='retrieved', size=(8.2, 4.2), **axes),
            'Held-out documents are queries for the nearest training documents.',
        ),
        'words': train.Figure(
            text.top_ngrams(groups, columns=3),
            'Words that indicate classes, and the words nearest to them by cosine.',
        ),
        'map': train.Figure(
            embeddings.scatter(planes, labels[queries], corpus.class_names, notes=notes, size=4.2),
            'Held-out documents in two latent variables, and precision of retrieval in them.',
        ),
    }
    summary = f'Precision {ours:.1%}; of LSA {lsa:.1%}, of tf-idf {tfidf:.1%}, chance {chance:.1%}.'
    undecided = semantic_hashing.undecided_fraction(codes['bits'])
    return train.Report({'code_precision': ours, 'undecided': undecided}, tables, figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
