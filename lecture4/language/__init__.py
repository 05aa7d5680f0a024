"""Sentences: classification, alignment with image regions, captions, decoding and their measures.

Start from:

- `language.sentence_cnn.SentenceCNN`: Kim's convolutional network.
- `language.alignment.image_sentence_scores`: similarity of images and sentences by regions and words.
- `language.captions.describe`: sentences of images by beam search.
- `language.decoding.beam_search`: beam search over any step function.
- `language.bleu.bleu`: BLEU of a corpus.
"""
