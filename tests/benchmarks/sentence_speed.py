"""Epochs a minute of Kim's network: ours, the same by convolution and whole-table Adadelta in JAX, and torch.

    python tests/benchmarks/sentence_speed.py [--source docstrings] [--steps 30] [--threads 1]

With --source mr, subj, ... and LECTURE4_MANUAL_DIR real sets are timed. All three see the same batches of 50 sentences,
interleaved; CPU time, median. Torch (it is no dependency; 2.13 was used) is timed where it can be imported. Prints also
the number of shapes that an epoch's batches have, each of which is compiled once, and the share of the core's
measured matrix-product rate that ours reaches by its own count of flops.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import processor

from lecture4.data.text import cross_validation, sentences, vocabulary
from lecture4.language import sentence_cnn, train_step, word_vectors

D, MAPS, WIDTHS = 300, 100, (3, 4, 5)


def ours(n_words, n_classes):
    """A function that takes a batch and carries out a step."""
    model, optimizer = sentence_cnn.SentenceCNN(n_classes), sentence_cnn.optimizer()
    table = word_vectors.random_table(jax.random.key(0), n_words, D)
    box = [train_step.init(jax.random.key(1), model, optimizer, table)]

    def step(state, batch, key):
        return train_step.step(state, batch, key, model=model, optimizer=optimizer)

    compiled = jax.jit(step, donate_argnums=0)

    def run(batch, n):
        box[0], metrics = compiled(box[0], batch, jax.random.key(n))
        jax.block_until_ready(metrics)

    return run


def plain(n_words, n_classes):
    """The network as it is usually written: lookup, three convolutions, the whole table in Adadelta."""
    key = jax.random.key(0)
    params = {
        'table': word_vectors.random_table(key, n_words, D),
        'filters': [0.01 * jax.random.normal(key, (h, D, MAPS)) for h in WIDTHS],
        'bias': jnp.zeros(len(WIDTHS) * MAPS),
        'softmax': jnp.zeros((len(WIDTHS) * MAPS, n_classes)),
    }
    optimizer = optax.adadelta(1.0, rho=0.95, eps=1e-6)
    box = [params, optimizer.init(params)]

    def loss(params, words, labels, key):
        x = params['table'][jnp.pad(words, ((0, 0), (4, 4)))]
        layout = ('NWC', 'WIO', 'NWC')
        responses = [
            jax.lax.conv_general_dilated(x, w, (1,), 'VALID', dimension_numbers=layout)
            for w in params['filters']
        ]
        features = jax.nn.relu(jnp.concatenate([r.max(1) for r in responses], 1) + params['bias'])
        kept = features * jax.random.bernoulli(key, 0.5, features.shape)
        return sentence_cnn.loss(kept @ params['softmax'], labels)[0]

    def step(params, state, words, labels, key):
        grads = jax.grad(loss)(params, words, labels, key)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run(batch, n):
        words = batch['rows'].reshape(-1)[batch['words']]
        box[0], box[1] = compiled(box[0], box[1], words, batch['labels'], jax.random.key(n))
        jax.block_until_ready(box[0])

    return run


def theirs(torch, n_words, n_classes, n_threads):
    """The same in torch."""
    from torch import nn

    torch.set_num_threads(n_threads)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(n_words, D, padding_idx=0)
            self.filters = nn.ModuleList(nn.Conv1d(D, MAPS, h) for h in WIDTHS)
            self.softmax = nn.Linear(len(WIDTHS) * MAPS, n_classes)

        def forward(self, words):
            x = self.table(nn.functional.pad(words, (4, 4))).transpose(1, 2)
            features = [torch.relu(f(x)).amax(2) for f in self.filters]
            return self.softmax(nn.functional.dropout(torch.cat(features, 1), 0.5))

    model = Network()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-6)

    def run(batch, n):
        del n
        words = torch.from_numpy(batch['rows'].reshape(-1)[batch['words']].astype(np.int64))
        loss = nn.functional.cross_entropy(model(words), torch.from_numpy(batch['labels']).long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def matmul_rate(n=1024):
    """Flops a CPU second of a float32 product."""
    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = []
    for _ in range(5):
        began = time.process_time()
        product(a).block_until_ready()
        times.append(time.process_time() - began)
    return 2 * n**3 / min(times)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--source', default='docstrings')
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    print(processor.describe())
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        torch = None
    part = sentences.load(options.source, sentences.splits(options.source)[0])
    words = vocabulary.build(part.texts)
    encoded = vocabulary.encode(words, part.texts, max_length=64, truncate=True)
    n = len(encoded)
    fold = cross_validation.Fold(
        np.arange(n), np.arange(1), np.arange(1), np.ones(len(words), bool)
    )
    made = cross_validation.create(encoded, part.labels, [fold], epochs=2, batch_size=50, seed=0)
    epoch = [made.batch(i) for i in range(made.batches_per_epoch)]
    shapes = {(batch['rows'].shape, batch['words'].shape) for batch in epoch}
    print(
        f'{options.source}: {n} sentences, {len(words)} words, {made.batches_per_epoch} batches an epoch'
    )
    print(f'shapes of an epoch: {len(shapes)}')
    batches = [epoch[i % len(epoch)] for i in range(options.steps)]
    runs = {
        'ours': ours(len(words), len(part.class_names)),
        'plain jax': plain(len(words), len(part.class_names)),
    }
    if torch is not None:
        runs[f'torch {torch.__version__}'] = theirs(
            torch, len(words), len(part.class_names), options.threads
        )
    times = {who: [] for who in runs}
    for who, run in runs.items():
        for shape in {
            batch['rows'].shape + batch['words'].shape: batch for batch in batches
        }.values():
            began = time.process_time()
            run(shape, 0)
            first = time.process_time() - began
        print(f'{who}: first step of the last shape {first:.1f} s')
    for i, batch in enumerate(batches):
        for who, run in runs.items():
            began = time.process_time()
            run(batch, i)
            times[who].append(time.process_time() - began)
    flops = [6 * batch['rows'].size * D * MAPS * sum(WIDTHS) for batch in batches]
    share = statistics.median(flops) / statistics.median(times['ours']) / matmul_rate()
    base = statistics.median(times['ours'])
    for who, values in times.items():
        median = statistics.median(values)
        print(
            f'{who:14s} {1e3 * median:7.1f} ms a step, {60 / median / made.batches_per_epoch:5.1f} epochs a minute, '
            f'{median / base:4.1f} times ours'
        )
    print(f"ours: {share:.0%} of the core's matrix-product rate")


if __name__ == '__main__':
    main()
