"""Semantic codes of text: documents and words by an autoencoder of bags of words.

Hinton & Salakhutdinov 2006 (figure 4), Salakhutdinov & Hinton 2009. Three autoencoders are trained
side by side, without labels: with a code of two numbers for a map, one of a few for retrieval, one
of bits, for which its code units get noise. Each test document then asks for the training documents
nearest to it; the labels only say how many of those are of its class, beside the words
themselves (tf-idf) and latent semantic analysis. Words get vectors too: the autoencoder's weights,
and those of a linear autoencoder of the words' co-occurrences, which is LSA again.

Run     python -m experiments.autoencoders.semantic                      (SciPy's docstrings, no download)
        python -m experiments.autoencoders.semantic --preset trec --manual_dir PATH
Cost    About 40 CPU-seconds. Of the nearest 10 (100) documents, in % of the right class: code of 32
        numbers 72.1 (52.1), LSA of 32 68.1 (45.9), tf-idf of all words 73.2 (44.4), 64 bits 66.2 (48.7),
        chance 16.9. Two numbers: 45.2, LSA 26.6. Nearest 5 words of the same class: 47.3 %, those of
        co-occurrences 51.7, random vectors 10.7.
        trec (questions of some nine words, nothing masked): here LSA is better, 67.5 (53.1) against
        62.6 (47.3); tf-idf 65.8 (50.8).
        --source subj, chance 50: code of 32 numbers 84.0 (82.1), LSA of 32 74.3 (71.7), tf-idf 74.8 (69.9), 64
        bits 84.2 (83.4), two numbers 83.2, LSA 73.7. --source mr, chance 50: 57.6 (56.4), 54.0 (52.7), 59.8
        (55.8), 55.4 (55.0), 53.1 and 50.9: bags of words know the topic of a review, hardly its opinion.
        Nearest 5 words of the same class, autoencoder and co-occurrences: subj 78.2 and 81.5 %, mr 60.3 and
        64.3. 50 seconds of processor time each.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

from lecture4 import train
from lecture4.autoencoder import denoising, linear, network, semantic_hashing
from lecture4.data.text import sentences, vocabulary


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training.
    steps: int = 1000
    # Documents in a step, over all devices.
    batch_size: int = 100
    # Steps compiled into one call (a scan).
    steps_per_call: int = 20
    log_every: int = 20
    evaluate_every: int = 500
    save_every: int = 500
    # Labelled sentences: docstrings, mr, subj, trec, sst1, sst2, sms_spam, tsv:PATH.
    source: str = 'docstrings'
    # Of a set in one piece, the share that is held out to ask with.
    held_out: float = 0.1
    # The most frequent words, those that are counted.
    words: int = 2000
    # Times that a word has to occur.
    least: int = 2
    # What stands for a word's count: tf-idf, so that words in all documents weigh little, or itself.
    weighting: Literal['tfidf', 'counts'] = 'tfidf'
    # Widths of the hidden layers, before the code.
    hidden: tuple[int, ...] = (128,)
    # Numbers in the code for retrieval.
    code: int = 32
    # Bits of the hashing code.
    bits: int = 64
    # Standard deviation of the noise on the input of the bits.
    noise: float = 2.0
    # Share of words that the encoders do not see in training.
    masking: float = 0.5
    # Peak of the learning rate, which falls to 0 along a half cosine.
    learning_rate: float = 3e-3
    # Documents found for one asked with, whose classes are compared with its own.
    found: int = 10
    # Words shown with the nearest to them, and how many of those.
    shown: int = 9
    neighbours: int = 6

    def __post_init__(self):
        super().__post_init__()
        for name in ('code', 'bits', 'words', 'least', 'found', 'shown', 'neighbours'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        train.require(self, 'held_out', 0 < self.held_out < 1, 'between 0 and 1')
        train.require(self, 'masking', 0 <= self.masking < 1, 'at least 0 and below 1')
        train.require(self, 'noise', self.noise >= 0, 'at least 0')


PRESETS = {
    'smoke': {'steps': 20, 'words': 300, 'hidden': (16,), 'code': 8, 'bits': 8},
    'trec': {'source': 'trec', 'steps': 1500, 'masking': 0.0},
}
SWEEPS = {
    'noise': train.grid(noise=(0.0, 1.0, 2.0, 4.0)),
    'code': train.grid(code=(2, 8, 32, 128)),
    'masking': train.grid(masking=(0.0, 0.25, 0.5, 0.75)),
}


def data(config):
    from sklearn.feature_extraction.text import TfidfTransformer

    names = sentences.splits(config.source)
    parts = [sentences.load(config.source, name, **config.data_kwargs()) for name in names]
    texts = [words for part in parts for words in part.texts]
    labels = np.concatenate([part.labels for part in parts])
    if 'test' in names:
        start = sum(len(part.texts) for part in parts[: names.index('test')])
        asking = np.arange(start, start + len(parts[names.index('test')].texts))
    else:
        order = np.random.default_rng(config.seed).permutation(len(texts))
        asking = np.sort(order[: round(config.held_out * len(texts))])
    held = np.setdiff1d(np.arange(len(texts)), asking)
    words = vocabulary.build([texts[i] for i in held], config.least).words
    # Marks are no words: none without a letter.
    kept = [word for word in words[2:] if any(letter.isalpha() for letter in word)]
    words = (*words[:2], *kept[: config.words])
    known = vocabulary.Vocabulary(words, {word: i for i, word in enumerate(words) if i > 1})
    counts = semantic_hashing.bag_of_words(vocabulary.encode(known, texts), len(words))[
        :, 2:
    ]  # known words alone
    tfidf = TfidfTransformer(sublinear_tf=True).fit(counts[held]).transform(counts)
    tfidf = sparse.csr_array(tfidf).toarray().astype(np.float32)
    bags = tfidf if config.weighting == 'tfidf' else counts
    rows = held[bags[held].any(1)]
    return train.in_memory(
        bags[rows],
        config.batch_size,
        seed=config.seed,
        evaluation=bags[asking],
        extra={
            'words': words[2:],
            'texts': texts,
            'labels': labels,
            'names': parts[0].class_names,
            'asking': asking,
            'held': rows,
            'counts': counts,
            'tfidf': tfidf,
        },
    )


CODES = {'code': network.identity, 'map': network.identity, 'bits': jax.nn.sigmoid}


def build(config):
    widths = {'code': config.code, 'map': 2, 'bits': config.bits}

    def init(key, x):
        keys = dict(zip(CODES, jax.random.split(key, len(CODES)), strict=True))
        return {
            name: semantic_hashing.init(keys[name], x.shape[1], (*config.hidden, widths[name]))
            for name in CODES
        }

    def loss(params, x, key):
        masked, noise = jax.random.split(key)
        seen = denoising.masking(masked, x, mask_rate=config.masking)
        each = {
            name: semantic_hashing.loss(
                own,
                x,
                noise,
                latent_activation=CODES[name],
                noise_std=config.noise if name == 'bits' else 0.0,
                encoder_counts=seen,
            )
            for name, own in params.items()
        }
        each = {name: jnp.mean(value) for name, value in each.items()}
        return sum(each.values(), jnp.zeros(())), each

    def evaluate(params, x):
        return {
            name: jnp.mean(semantic_hashing.loss(own, x, latent_activation=CODES[name]))
            for name, own in params.items()
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def rankings(config, params, extra):
    """{representation: for every document that asks, the others' rows, nearest first}."""
    from sklearn.decomposition import TruncatedSVD

    asking, held = extra['asking'], extra['held']
    bags = extra['tfidf'] if config.weighting == 'tfidf' else extra['counts']
    codes = {
        name: np.asarray(
            semantic_hashing.encode(own, jnp.asarray(bags), latent_activation=CODES[name])
        )
        for name, own in params.items()
    }
    spaces = {'words, tf-idf': extra['tfidf'], 'words, counts': extra['counts']}
    for width in sorted({2, config.code}):
        lsa = TruncatedSVD(width, random_state=config.seed).fit(extra['tfidf'][held])
        spaces[f'LSA, {width}'] = lsa.transform(extra['tfidf'])
    spaces['autoencoder, 2'] = codes['map']
    spaces[f'autoencoder, {config.code}'] = codes['code']
    found = {}
    for name, points in spaces.items():
        if name.endswith(', 2'):  # a map is read by distances
            gaps = ((points[asking][:, None] - points[held][None]) ** 2).sum(2)
            found[name] = np.argsort(gaps, axis=1, kind='stable')
        else:
            found[name], _ = semantic_hashing.nearest_by_cosine(
                points[held], points[asking], len(held)
            )
    bits = semantic_hashing.to_bits(codes['bits'])
    gaps = np.asarray(
        semantic_hashing.hamming_distance(jnp.asarray(bits[asking]), jnp.asarray(bits[held]))
    )
    found[f'autoencoder, {config.bits} bits'] = np.argsort(gaps, axis=1, kind='stable')
    return {name: held[order] for name, order in found.items()}, spaces, codes


def word_spaces(config, params, extra):
    """{method: a vector for every word}; the last are random, for comparison."""
    strength = semantic_hashing.ppmi(
        semantic_hashing.cooccurrences(extra['counts'][extra['held']] > 0)
    )
    moment = jnp.asarray(strength.T @ strength / len(strength), jnp.float32)
    model = linear.init(jax.random.key(config.seed), len(strength), config.code)
    nothing = jnp.zeros(len(strength), jnp.float32)
    step = jax.jit(linear.alternating_least_squares)
    for _ in range(60):
        model = step(model, nothing, moment)
    basis = np.linalg.qr(np.asarray(linear.decoder_matrix(model)))[0]
    return {
        'autoencoder': np.asarray(semantic_hashing.word_vectors(params['code'])),
        'co-occurrence': strength @ basis,
        'random': np.random.default_rng(config.seed).normal(size=(len(strength), config.code)),
    }


def report(config, state, data):
    from lecture4.figures import embeddings, lines
    from lecture4.figures import text as drawn

    extra, params = data.extra, state.params
    labels, words, asking = extra['labels'], extra['words'], extra['asking']
    ranked, spaces, codes = rankings(config, params, extra)
    right = {name: labels[order] == labels[asking][:, None] for name, order in ranked.items()}
    reaches = [n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n <= len(extra['held'])]
    curves = {
        name: (np.array(reaches), np.array([hit[:, :n].mean() for n in reaches]))
        for name, hit in right.items()
    }
    columns = sorted({1, config.found, min(100, reaches[-1])})
    precision = {name: float(hit[:, : config.found].mean()) for name, hit in right.items()}
    chance = float((labels[extra['held']] == labels[asking][:, None]).mean())
    undecided = float(semantic_hashing.undecided_fraction(codes['bits']))
    # The class of a word: where it is most over-represented, by a pseudo-count of 1.
    present = extra['counts'][extra['held']] > 0
    own = labels[extra['held']]
    share = np.stack([present[own == c].sum(0) + 1 for c in range(len(extra['names']))])
    lift = share / share.sum(1, keepdims=True) * share.sum() / share.sum(0)
    kind = lift.argmax(0)
    common = np.flatnonzero(present.sum(0) >= 10)
    tables, agreement = word_spaces(config, params, extra), {}
    for name, table in tables.items():
        order, _ = semantic_hashing.nearest_by_cosine(table[common], np.arange(len(common)), 5)
        agreement[name] = float((kind[common][order] == kind[common][:, None]).mean())
    # In deviations of chance, so that words of all sentences with a slight bias do not come first.
    telling = np.argsort(-(np.sqrt(share) * np.log(lift)), axis=1)
    picked = list(dict.fromkeys(telling.T.ravel().tolist()))[: config.shown]
    groups = {}
    for name in ('autoencoder', 'co-occurrence'):
        order, cosine = semantic_hashing.nearest_by_cosine(
            tables[name], np.array(picked), config.neighbours
        )
        groups[name] = [
            (words[w], [(words[j], c) for j, c in zip(near, cosines, strict=True)])
            for w, near, cosines in zip(picked, order, cosine, strict=True)
        ]
    short = lambda i: ' '.join(extra['texts'][i])[:60]  # noqa: E731
    best = f'autoencoder, {config.code}'
    examples = [int(np.flatnonzero(labels[asking] == c)[0]) for c in np.unique(labels[asking])[:4]]
    rows = tuple(
        (short(asking[i]), short(ranked[best][i, 0]), short(ranked['words, tf-idf'][i, 0]))
        for i in examples
    )
    metrics = {
        'precision_' + name.replace(', ', '_').replace(' ', '_').replace('-', ''): value
        for name, value in precision.items()
    }
    metrics |= {f'words_{name.replace("-", "")}': value for name, value in agreement.items()}
    metrics['undecided'] = undecided
    lsa = f'LSA, {config.code}'
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                'Documents of the same class among the nearest, %',
                ('representation', *(f'{n}' for n in columns)),
                (
                    *(
                        (name, *(f'{100 * hit[:, :n].mean():.1f}' for n in columns))
                        for name, hit in right.items()
                    ),
                    ('chance', *(f'{100 * chance:.1f}' for n in columns)),
                ),
                f'{len(asking)} held-out documents of {config.source} ask for {len(extra["held"])} '
                f'others, {len(words)} words. By cosine; in two dimensions by distance; bits by how '
                f'many differ. {undecided:.1%} of the bit units are between .1 and .9.',
            ),
            train.Table(
                'Words of the same class among the nearest 5',
                ('word vectors', 'share'),
                tuple(agreement.items()),
                f'{len(common)} words that are in 10 documents or more; the class of a word is the '
                'one in which it is most over-represented.',
            ),
            train.Table(
                'What is found', ('asked for', 'nearest by code', 'nearest by tf-idf'), rows
            ),
        ),
        pictures={
            'retrieval': train.Picture(
                lines.panels(
                    {
                        'Precision of retrieval': {
                            'curves': curves, 'lines': {'chance': chance},
                            'xlabel': 'documents found', 'ylabel': 'share of the same class',
                            'xscale': 'log',
                        }
                    },
                    size=(8.2, 4.2),
                ),
                'Held-out documents ask for the nearest others.',
            ),
            'words': train.Picture(
                drawn.top_ngrams(groups, columns=3),
                'Words that tell classes, and the words nearest to them by cosine: above by the '
                "autoencoder's weights, below by a linear autoencoder of co-occurrences.",
            ),
            'map': train.Picture(
                embeddings.scatter(
                    {name: spaces[name][asking] for name in ('autoencoder, 2', 'LSA, 2')},
                    labels[asking],
                    extra['names'],
                    notes={n: f'{precision[n]:.0%}' for n in ('autoencoder, 2', 'LSA, 2')},
                    size=4.2,
                ),
                'Held-out documents in two numbers; beside the names, precision of retrieval.',
            ),
        },
        summary=f'Of the {config.found} documents nearest by a code of {config.code} numbers '
        f'{precision[best]:.1%} are of the right class; LSA of the same width {precision[lsa]:.1%}, '
        f'all words {precision["words, tf-idf"]:.1%}, chance {chance:.1%}.',
    )  # fmt: skip


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
