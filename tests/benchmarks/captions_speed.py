"""Tokens per second of training a caption network, ours and torch's, and captions per second of decoding.

    python tests/benchmarks/captions_speed.py [--steps 20] [--threads 1] [--hidden 256] [--vocabulary 2538]

Both train neuraltalk's LSTM (embedding, LSTM, softmax over the vocabulary, dropout, Adam) on the same batches of
100 sentences, interleaved; wall-clock time, median. Torch is no dependency and is timed where it can be imported.
Prints also the ratio to the matrix-product rate of the same cores, by a count of flops, and how many programs an
epoch of ragged sentences compiles.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import processor

from lecture4.data.captions import batches
from lecture4.data.text import vocabulary
from lecture4.language import captions

N, D, EMBED = 100, 300, 256


def ours(options):
    """(function that trains on a batch, box of parameters, network, counter of traces)."""
    network = captions.CaptionNetwork(options.vocabulary, EMBED, options.hidden, 'lstm')
    features, words = jnp.zeros((1, 1, D)), jnp.zeros((1, 1), jnp.int32)
    params = network.init(jax.random.key(0), features, words)['params']
    rule = optax.adam(1e-3)
    box, traces = [params, rule.init(params)], []

    def loss(params, features, words, key):
        rngs = {'dropout': key}
        logits, _ = network.apply({'params': params}, features, words, train=True, rngs=rngs)
        return captions.loss(logits, words)

    def step(params, state, features, words, key):
        traces.append(words.shape)
        value, grads = jax.value_and_grad(loss)(params, features, words, key)
        updates, state = rule.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run(features, words, n):
        box[0], box[1], value = compiled(*box, features, words, jax.random.key(n))
        jax.block_until_ready(value)

    return run, box, network, traces


def theirs(torch, options):
    """The same network in torch: a function that trains on a batch."""
    from torch import nn

    torch.set_num_threads(options.threads)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.image = nn.Linear(D, EMBED)
            self.words = nn.Embedding(options.vocabulary, EMBED)
            self.lstm = nn.LSTM(EMBED, options.hidden, batch_first=True)
            self.logits = nn.Linear(options.hidden, options.vocabulary)

        def forward(self, features, inputs):
            x = torch.cat([self.image(features)[:, None], self.words(inputs)], 1)
            hidden, _ = self.lstm(nn.functional.dropout(x, 0.5))
            return self.logits(nn.functional.dropout(hidden[:, 1:], 0.5))

    model = Network()
    rule = torch.optim.Adam(model.parameters(), 1e-3)

    def run(features, words, n):
        del n
        targets = torch.from_numpy(np.pad(words, ((0, 0), (0, 1))).astype(np.int64))
        inputs = torch.from_numpy(np.pad(words, ((0, 0), (1, 0))).astype(np.int64))
        logits = model(torch.from_numpy(features[:, 0]), inputs)
        entropy = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction='none')
        mask = torch.arange(targets.shape[1])[None] <= (targets != 0).sum(1, keepdim=True)
        loss = (entropy * mask).sum() / mask.sum()
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()

    return run


def matmul_rate(n=1024):
    """Flops per second of a float32 product."""
    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--vocabulary', type=int, default=2538)
    options = parser.parse_args()
    print(processor.describe())
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        torch = None
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(10.5, 3.5, 5000).round().astype(int), 2, 38)  # Flickr8k's
    encoded = [rng.integers(2, options.vocabulary, n).astype(np.int32) for n in lengths]
    sampler = batches.by_length(lengths, N, seed=0)
    run, box, network, traces = ours(options)
    runs = {'ours': run}
    if torch is not None:
        runs[f'torch {torch.__version__}'] = theirs(torch, options)
    features = rng.normal(size=(N, 1, D)).astype(np.float32)
    epoch = [
        vocabulary.pad([encoded[row] for row in sampler.rows(n)], sampler.length(n))
        for n in range(sampler.batches_per_epoch)
    ]
    for one in runs.values():
        for words in epoch:
            if words.shape not in traces or one is not run:
                one(features, words, 0)
    print(f'{len(epoch)} batches of ragged sentences: {len(traces)} programs')
    rates = {name: [] for name in runs}
    for i in range(options.steps):
        words = epoch[i % len(epoch)]
        tokens = int((words != 0).sum()) + N
        for name, one in runs.items():
            began = time.perf_counter()
            one(features, words, i)
            rates[name].append(tokens / (time.perf_counter() - began))
    base = statistics.median(rates['ours'])
    for name, values in rates.items():
        rate = statistics.median(values)
        print(
            f'{name:16s} {rate:9.0f} tokens per second of training, ours is {base / rate:4.2f} times'
        )
    per_token = 6 * (
        4 * options.hidden * (EMBED + options.hidden) + options.hidden * options.vocabulary
    )
    print(
        f'ours: {base * per_token / matmul_rate():.0%} of the matrix-product rate (padding not counted)'
    )
    for width in (1, 5):
        captions.describe(network, box[0], features, width=width).tokens.block_until_ready()
        began = time.perf_counter()
        captions.describe(network, box[0], features, width=width).tokens.block_until_ready()
        print(f'beam {width}: {N / (time.perf_counter() - began):.0f} captions per second')


if __name__ == '__main__':
    main()
