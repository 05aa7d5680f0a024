"""Sentences generated from images (Karpathy & Fei-Fei, CVPR 2015, section 3.2).

A recurrent network predicts the next word from the words so far and an image: the paper's multimodal RNN, or
neuraltalk's LSTM, or with soft attention over regions. Beam search generates sentences; BLEU, ROUGE-L and CIDEr-D
compare them with five references. The default is scenes of colored shapes, with unseen combinations of color and shape.

Run:      python -m experiments.descriptions.captions [--preset flickr8k --manual_dir DATA]
          regions: python -m experiments.descriptions.alignment --workdir runs/alignment [--stage encode]
                   python -m experiments.descriptions.captions --segments runs/alignment/codes
Hardware: one core (AMD EPYC), 1.5 minutes; flickr8k 14 minutes. Training 4300 tokens per second of one core, 1.03 times
          torch 2.13; decoding 1140 captions per second, 220 of beam width 5 (tests/benchmarks/captions_speed.py)
Results:  flickr8k, official test set of 1000 images, beam width 7; published: Karpathy & Fei-Fei 2015, table 2

          | method                               | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 (95 %)       | ROUGE-L | CIDEr-D |
          |--------------------------------------|--------|--------|--------|---------------------|---------|---------|
          | LSTM, image at the first step        | 57.2   | 39.0   | 25.6   | 16.8 (15.6 to 18.0) | 42.2    | 0.387   |
          | nearest training image's sentence    | 44.6   | 25.6   | 15.1   | 8.8                 | 34.2    | 0.238   |
          | a person, against the other four     | 63.7   | 44.7   | 30.6   | 21.0                | 48.8    | 0.793   |
          | published                            | 57.9   | 38.3   | 24.5   | 16.0                | -       | -       |
          | 1000 training images, AlexNet (1)    | 50.2   | 30.4   | 17.1   | 9.5 (8.4 to 10.5)   | 36.4    | 0.138   |

          8.7 epochs. BLEU-1 is lower than published because sentences are short at beam width 7; by beam width 1, 3, 7:
          58.0, 59.5, 57.2, BLEU-4 16.4, 17.9, 16.8. 20.6 % of sentences are training sentences. Scenes (default):
          BLEU-4 37.9 (34.4 to 42.1), a person 37.1; unseen combinations 33.2. (1) --preset flickr8k --source
          flickr8k_pixels --features alexnet_v2:pool5 --init alexnet.ckpt --whiten_dim 64 --steps 500 (5 epochs).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax

from lecture4 import train
from lecture4.data.captions import segments
from lecture4.language import caption_evaluation, caption_metrics, captions
from lecture4.language.caption_metrics import BLEU
from lecture4.vision import region_features


@dataclasses.dataclass(frozen=True)
class Config(train.Captioned):
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 64
    min_count: train.AtLeast1 = 5
    # Directory of the codes of an alignment run on the same source, to train on regions and segments of sentences.
    segments: str = ''
    # Recurrence: relu as in the paper, or lstm as in neuraltalk.
    cell: captions.Cell = 'lstm'
    # Whether the image is an input of the first step only, as published, or of every step.
    image_at: captions.ImageAt = 'first'
    # Whether every word attends to the regions.
    attention: bool = True
    # Dimension of word and image embeddings.
    embed_dim: train.AtLeast1 = 64
    # Dimension of the hidden state.
    hidden_dim: train.AtLeast1 = 128
    # Dropout rate of embeddings and hidden states.
    dropout_rate: train.FractionBelow1 = 0.1
    # Optimizer: adam, or rmsprop with neuraltalk's constants.
    optimizer: Literal['adam', 'rmsprop'] = 'adam'
    # Initial learning rate, with cosine decay to a tenth.
    learning_rate: train.Positive = 4e-3
    # Beam widths to compare; the last one generates the reported sentences.
    beam_widths: train.Ints = (1, 2, 5)
    # Largest number of words of a generated sentence.
    max_length: train.AtLeast1 = 16


METRICS = (
    train.Metric('bleu_4', 'fraction', 'higher', 'BLEU-4', primary=True),
    *(train.Metric(f'bleu_{n}', 'fraction', 'higher', f'BLEU-{n}') for n in (1, 2, 3)),
    train.Metric('rouge_l', 'fraction', 'higher', 'ROUGE-L'),
    train.Metric('cider_d', '', 'higher', 'CIDEr-D'),
    train.Metric('perplexity', '', 'lower', 'perplexity per word'),
    train.Metric('copied', 'fraction', '', 'sentences that are training sentences'),
    train.Metric('loss', 'nats', 'lower', 'loss per word'),
)
SHORTER = 'Wider beams choose shorter sentences, which lose BLEU by its brevity penalty.'
PRESETS = {
    'smoke': {'steps': 30, 'num_images': 48, 'batch_size': 16, 'min_count': 1}
    | {'beam_widths': (2,), 'max_length': 8},
    'flickr8k': {'source': 'flickr8k', 'whiten_dim': 300, 'attention': False, 'steps': 5200}
    | {'batch_size': 50, 'embed_dim': 256, 'hidden_dim': 256, 'dropout_rate': 0.2}
    | {'learning_rate': 2e-3, 'beam_widths': (1, 3, 7), 'max_length': 20},
}
IMAGE_AT = train.grid(cell=('relu', 'lstm'), image_at=('first', 'every'), attention=(False,))
SWEEPS = {'image_at': IMAGE_AT}


def data(config):
    loaded = train.load_captioned(config, region_features.load_pooled, drop_unknown=True)
    sentences = segments.read(config.segments, loaded) if config.segments else None
    return train.captioned_data(config, loaded, sentences=sentences)


def network(config, spec):
    names = ('embed_dim', 'hidden_dim', 'cell', 'image_at', 'attention', 'dropout_rate')
    fields = {name: getattr(config, name) for name in names}
    return captions.CaptionNetwork(len(spec.constants['vocabulary']), **fields)


def build(config, spec):
    model = network(config, spec)

    def init(key, batch):
        return model.init(key, jnp.zeros((1, *spec.shape)), jnp.zeros((1, 1), jnp.int32))['params']

    def loss(params, batch, key):
        options = {'train': True, 'rngs': {'dropout': key}}
        logits, _ = model.apply({'params': params}, batch['features'], batch['words'], **options)
        return captions.loss(logits, batch['words']), {}

    def evaluate(params, evaluation):
        x, words = evaluation['features'], evaluation['words']
        total, count = captions.log_likelihood(model, params, x, words)
        return {'perplexity': jnp.exp(-jnp.sum(total) / jnp.sum(count))}

    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.1)
    adam = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate))
    optimizer = {'adam': adam, 'rmsprop': captions.optimizer(rate)}[config.optimizer]
    return train.optimize(init, loss, optimizer, evaluate)


def apply(config, spec):
    model = network(config, spec)
    mean, projection = spec.constants['mean'], spec.constants['projection']

    def whiten(features):
        return (features - mean) @ projection

    options = {'width': config.beam_widths[-1], 'max_length': config.max_length}
    return captions.functions(model, whiten, **options)


def report(config, state, data):
    splits, model = data.report_data.splits, network(config, data.spec)
    words, trained = data.spec.constants['vocabulary'], splits['train'].images.sentences
    generated, records, widths = {}, [], []
    options = {'beam_widths': config.beam_widths, 'max_length': config.max_length}
    for name, method, split in train.measured_splits(data.report_data):
        corpus = split.features, split.image_of, split.groups(), split.images.sentences, words
        generated[name], values, swept = caption_evaluation.evaluate(
            model, state.params, *corpus, train_sentences=trained, **options
        )
        records.append({'method': method, **values})
        widths += [{'split': name, **record} for record in swept]
    split, main = splits['test'], dict(records[0])
    whole = splits['train'].features[:, 0], split.images.sentences, split.features[:, 0]
    records += caption_metrics.baselines(trained, *whole) + caption_metrics.published_records()
    scores = ', '.join(f'{100 * main[name]:.1f}' for name in BLEU)
    note = f'{len(split.features)} test images, beam width {config.beam_widths[-1]}; bootstrap intervals.'
    tables = (
        train.Table('Descriptions', records, ('method',), caption=note, in_results=False),
        train.Table('Beam width', widths, ('split', 'beam_width'), caption=SHORTER),
    )
    metrics = {k: main[k] for k in (*BLEU, 'rouge_l', 'cider_d', 'perplexity', 'copied')}
    drawn = figures(config, model, state.params, data, generated['test'], widths)
    return train.Report(metrics, tables, drawn, f'{config.source}: BLEU-1 to BLEU-4 {scores} %.')


def figures(config, model, params, data, generated, widths):
    from lecture4.figures import descriptions

    words, splits = data.spec.constants['vocabulary'], data.report_data.splits
    images, features = splits['test'].images, splits['test'].features[:8]
    sentences = {'generated': generated, 'references': [own[0] for own in images.sentences]}
    beam = descriptions.beam_widths(widths, ('bleu_1', 'bleu_4'))
    shown = {
        'beam': train.Figure(beam, 'BLEU against beam width.'),
        'lengths': train.Figure(descriptions.lengths(sentences), 'Number of words per sentence.'),
    }
    if images.read_image is None or images.boxes is None:
        return shown
    pixels, trained = [images.read_image(i) for i in range(len(features))], splits['train'].images
    texts = generated[:8], images.sentences[:8], trained.sentences
    samples = descriptions.samples(pixels, caption_metrics.next_to_references(*texts))
    regions = caption_evaluation.describe_regions(model, params, features, words)
    boxes = descriptions.segments(pixels, images.boxes[: len(pixels)], regions, scores=False)
    shown |= {
        'samples': train.Figure(samples, 'Generated, reference, and nearest training sentence.'),
        'regions': train.Figure(boxes, 'Regions described as images; --segments trains for that.'),
    }
    if config.attention:
        weights = caption_evaluation.attention(model, params, features[0], generated[0], words)
        maps = descriptions.attention(pixels[0], images.boxes[0], [*generated[0], 'END'], weights)
        shown['attention'] = train.Figure(maps, 'Attention of each generated word to the regions.')
    return shown


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
