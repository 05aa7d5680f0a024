"""Sources of captioned images, their batches, descriptors and cached features; broken ones say what is wrong."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lecture4.data.captions import (
    batches,
    dataset,
    feature_cache,
    flickr8k,
    regions,
    registry,
    scenes,
    segments,
    task,
)
from lecture4.data.dataset import DataError
from lecture4.data.text import vocabulary


@pytest.fixture(scope='module')
def made():
    return scenes.load('train', 12)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f'{i:02d}.png')
        lines += [f'{i:02d}.png#{j}\tA dog number {i} , runs .\n' for j in range(2)]
    (tmp_path / 'captions.txt').write_text(''.join(lines))
    return tmp_path


def test_words_are_lower_case_without_punctuation():
    assert dataset.words_of("The man 's dog , a Collie , runs .") == (
        'the', 'man', "'s", 'dog', 'a', 'collie', 'runs',
    )  # fmt: skip


def test_scenes_are_a_function_of_seed_split_and_number(made):
    again = scenes.load('train', 5)
    assert again.sentences == made.sentences[:5]
    assert np.array_equal(again.features, made.features[:5])
    assert scenes.load('train', 5, seed=1).sentences != again.sentences
    assert scenes.load('dev', 5).sentences != again.sentences


def test_words_of_a_group_name_its_shapes(made):
    for n in range(len(made)):
        for words, groups in zip(made.sentences[n], made.word_groups[n], strict=True):
            assert len(words) == len(groups) and set(groups.tolist()) <= {-1, 0, 1}
            for group in (0, 1):
                number = int((made.region_groups[n] == group).sum())
                named = [w for w, g in zip(words, groups, strict=True) if g == group]
                assert scenes.COUNTS[number - 1] in named


def test_held_out_combinations_occur_in_their_split_only():
    def pairs(split):
        images = scenes.load(split, 30)
        for own in images.sentences:
            for words in own:
                yield {
                    (a, b.removesuffix('es') if b == 'crosses' else b.removesuffix('s'))
                    for a, b in itertools.pairwise(words)
                }

    unseen = set(scenes.HELD_OUT)
    assert not any(unseen & found for split in ('train', 'dev', 'test') for found in pairs(split))
    assert sum(bool(unseen & found) for found in pairs('held_out')) > 100


def test_regions_cover_the_shapes_colors(made):
    image = made.read_image(0)
    group = made.region_groups[0]
    x1, y1, x2, y2 = made.boxes[0][group == 0][0].astype(int)
    inside = image[max(y1, 0) : y2, max(x1, 0) : x2].reshape(-1, 3).astype(float)
    assert inside.std(0).max() > 2 * image[::7, ::7].reshape(-1, 3).std(0).min() / 3
    assert made.boxes.shape == (12, 8, 4) and made.features.shape == (12, 8, regions.DESCRIPTOR_DIM)


def test_crops_of_a_linear_image_are_linear():
    y, x = np.mgrid[0:40, 0:50]
    image = np.stack([4 * x, 5 * y, x + y], 2).astype(np.uint8)
    (crop,) = regions.crop(image, np.array([[10.0, 5.0, 30.0, 25.0]]), 10)
    centers = 10 + (np.arange(10) + 0.5) * 2 - 0.5
    np.testing.assert_allclose(crop[0, :, 0] * 255, 4 * centers, rtol=1e-4)


def test_descriptors_see_orientation_and_color():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::8], stripes[:, 1::8] = 255, 255
    boxes = np.array([[0.0, 0, 32, 32]])
    upright, lying = (
        regions.describe(im, boxes)[0, :128].reshape(16, 8)
        for im in (stripes, stripes.swapaxes(0, 1))
    )
    assert upright.sum(0).argmax() == 0 and lying.sum(0).argmax() == 4
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    colors = regions.describe(red, boxes)[0, 128:].reshape(16, 3)
    np.testing.assert_allclose(colors, [[0.5, -0.5, -0.5]] * 16, atol=1e-6)


def test_grid_boxes_start_with_the_whole_image():
    boxes = regions.grid_boxes(20, 40)
    assert boxes.shape == (10, 4) and boxes[0].tolist() == [0, 0, 40, 20]
    assert boxes[1:, 2:].max(0).tolist() == [40, 20]


def test_folder_splits_are_fixed_and_disjoint(folder):
    parts = {s: registry.load(f'folder:{folder}', s) for s in ('train', 'dev', 'test')}
    names = [name for part in parts.values() for name in part.names]
    assert [len(part) for part in parts.values()] == [16, 2, 2] and len(set(names)) == 20
    assert parts['dev'].sentences[0][0][:3] == ('a', 'dog', 'number')
    assert parts['dev'].features.shape == (2, 10, regions.DESCRIPTOR_DIM)
    assert parts['dev'].read_image(0).shape == (30, 40, 3)


def test_comma_separated_captions_are_read(folder):
    lines = ['image,caption', *(f'{i:02d}.png,"a dog, number {i}"' for i in range(20))]
    (folder / 'captions.txt').write_text('\n'.join(lines))
    assert registry.load(f'folder:{folder}', 'train').sentences[0][0][:2] == ('a', 'dog')


def coco(path, **changes):
    content = {
        'images': [{'id': i, 'file_name': f'{i:02d}.png'} for i in range(20)],
        'annotations': [{'image_id': i, 'caption': f'dog {i}'} for i in range(20)],
    } | changes
    for part in ('train', 'val'):
        (path / f'captions_{part}2014.json').write_text(json.dumps(content))
    return f'coco:{path}'


def test_coco_captions_are_read(folder):
    source = coco(folder)
    assert registry.load(source, 'train').names[3] == '03.png'
    assert [len(registry.load(source, split)) for split in ('train', 'dev', 'test')] == [20, 10, 10]
    assert not set(registry.load(source, 'dev').names) & set(registry.load(source, 'test').names)


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'annotations': [{'image_id': 0, 'caption': 'dog'}]}, 'image 01.png has no sentence'),
        ({'annotations': [{'image_id': 99, 'caption': 'dog'}]}, 'unknown 99'),
        ({'annotations': [{'caption': 'dog'}]}, "missing or unknown 'image_id'"),
        ({'annotations': [{'image_id': i, 'caption': '.'} for i in range(20)]}, 'has no word'),
    ],
)
def test_broken_coco_captions_are_refused(folder, changes, match):
    with pytest.raises(DataError, match=match):
        registry.load(coco(folder, **changes), 'train')


def test_a_file_that_is_no_json_is_refused(folder):
    source = coco(folder)
    (folder / 'captions_train2014.json').write_text('{"images": [')
    with pytest.raises(
        DataError, match=r'captions_train2014.json is not JSON .* download it again'
    ):
        registry.load(source, 'train')


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        ('00.png\n', 'line 1: expected a file name, a tab and a sentence'),
        ('00.png\tdog\n', 'has 1 images, expected at least 10'),
    ],
)
def test_broken_lists_of_captions_are_refused(folder, text, match):
    (folder / 'captions.txt').write_text(text)
    with pytest.raises(DataError, match=match):
        registry.load(f'folder:{folder}', 'train')


@pytest.mark.parametrize(
    ('source', 'split', 'match'),
    [
        ('scene', 'train', 'did you mean scenes'),
        ('scenes', 'val', 'it has train, dev, test, held_out'),
        ('flickr8k', 'held_out', 'it has train, dev, test'),
        ('folder:/nowhere', 'train', 'no captions.txt'),
        ('coco:/nowhere', 'train', r'has captions_train\*.json'),
    ],
)
def test_unknown_sources_and_splits_are_refused(source, split, match):
    with pytest.raises(DataError, match=match):
        registry.load(source, split)


def test_a_sentence_longer_than_the_bound_is_refused(folder):
    with pytest.raises(DataError, match=r'has 5 words, expected at most 4; raise --max_length'):
        registry.load(f'folder:{folder}', 'train', max_words=4)


def test_features_of_other_images_are_refused(tmp_path, made):
    path = tmp_path / 'features.npz'
    np.savez(path, names=np.array(made.names[1:]), features=made.features[1:])
    with pytest.raises(DataError, match=r'features of other images: 1 of 12 .* train_00000'):
        registry.read_features(path, made)
    np.savez(path, names=np.array(made.names[::-1]), features=made.features[::-1])
    assert np.array_equal(registry.read_features(path, made).features, made.features)
    path.write_bytes(b'nothing')
    with pytest.raises(DataError, match='cannot be read as features'):
        registry.read_features(path, made)


def means(variables, crops):
    return crops.mean((1, 2)) * variables['scale'][None]


def cached(made, path, scale=1.0, **options):
    variables = {'scale': jnp.full(3, scale)}
    args = (means, variables, made.names, made.read_image, made.boxes, path)
    return feature_cache.region_features(*args, batch_size=32, **options)


def test_features_are_computed_once_over_all_devices(made, tmp_path, monkeypatch):
    path = tmp_path / 'cache.npz'
    found = cached(made, path)
    expected = np.stack(
        [regions.crop(made.read_image(i), made.boxes[i], 32).mean((1, 2)) for i in range(12)]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(jax.local_devices()) == 4
    monkeypatch.setattr(jax, 'jit', None)  # nothing is compiled again
    assert np.array_equal(cached(made, path), found)
    read = registry.read_features(path, made)
    assert np.array_equal(read.features, found)


def test_features_of_other_weights_or_images_are_refused(made, tmp_path):
    path = tmp_path / 'cache.npz'
    cached(made, path)
    with pytest.raises(DataError, match='other weights, images or regions'):
        cached(made, path, scale=2.0)
    other = scenes.load('dev', 12)
    with pytest.raises(DataError, match='other weights, images or regions'):
        cached(dataclasses.replace(other, names=made.names), path)
    assert cached(made, path, scale=2.0, overwrite=True).shape == (12, 8, 3)


def box_sizes(variables, images, boxes):
    """Sums of the images' colors, and sizes of the boxes."""
    colors = variables['scale'][None] * images.mean((1, 2))
    size = boxes[:, :, 2:] - boxes[:, :, :2]
    return jnp.concatenate([colors[:, None] + 0 * size[:, :, :1], size], axis=2)


def test_features_of_one_pass_per_image_are_stored_by_fingerprint(made, tmp_path, monkeypatch):
    def compute(scale=1.0, rows=12):
        variables = {'scale': jnp.full(3, scale)}
        data = made.names[:rows], made.read_image, made.boxes[:rows], tmp_path
        return feature_cache.pooled_features(box_sizes, variables, *data, size=64, batch_size=8)

    features = compute()
    colors = np.stack([made.read_image(i).mean((0, 1)) / 255 for i in range(12)])
    np.testing.assert_allclose(features[:, 3, :3], colors, rtol=1e-5)
    sizes = (made.boxes[:, :, 2:] - made.boxes[:, :, :2]) / 64
    np.testing.assert_allclose(features[:, :, 3:], sizes, rtol=1e-5)
    (path,) = tmp_path.glob('*.npz')
    assert np.array_equal(registry.read_features(path, made).features, features)
    assert not np.array_equal(compute(scale=2.0), features)
    assert len(list(tmp_path.glob('*.npz'))) == 2
    monkeypatch.setattr(jax, 'jit', None)  # nothing is compiled again
    assert np.array_equal(compute(), features)


def test_batches_hold_sentences_of_one_group_of_lengths():
    lengths = np.random.default_rng(0).integers(1, 41, 200)
    sampler = batches.by_length(lengths, 16, seed=3)
    seen = []
    for n in range(sampler.batches_per_epoch):
        rows, length = sampler.rows(n), sampler.length(n)
        assert lengths[rows].max() <= length and len(rows) == 16
        assert batches.LENGTHS[np.searchsorted(batches.LENGTHS, lengths[rows].min())] == length
        seen += rows.tolist()
    assert set(seen) == set(range(200))
    again = batches.by_length(lengths, 16, seed=3)
    assert np.array_equal(again.rows(17), sampler.rows(17))
    assert len(sampler.lengths) == len(batches.LENGTHS)
    with pytest.raises(DataError, match='has 41 words, expected at most 40'):
        batches.by_length(np.array([41]), 16, seed=3)


def test_sentences_without_a_known_word_are_refused():
    words = vocabulary.build([('a', 'dog'), ('a', 'dog')], 2)
    with pytest.raises(
        DataError, match="sentence 1 has no word of the vocabulary of 2 words: 'the cat'"
    ):
        batches.encode(words, [('a', 'dog'), ('the', 'cat')], drop_unknown=True)
    with pytest.raises(DataError, match=r'\(empty\)'):
        batches.encode(words, [()], drop_unknown=False)
    kept, dropped = (
        batches.encode(words, [('a', 'cat', 'dog')], drop_unknown=d)[0].tolist()
        for d in (False, True)
    )
    assert len(kept) == 3 and kept[1] == 1 and dropped == [kept[0], kept[2]]


def test_whitened_features_have_unit_variance():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(500, 2, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    mean, projection = task.fit_whitening(features, 4, shrinkage=0.0)
    found = task.project(features, mean, projection)[:, 0]
    np.testing.assert_allclose(np.cov(found.T), np.eye(4), atol=0.05)
    with pytest.raises(DataError, match='have 5 dimensions, those of the training images 6'):
        task.project(features[:, :, :5], mean, projection)


def test_a_task_shares_one_vocabulary():
    loaded = task.load(
        'scenes', ('train', 'dev'), whiten_dim=5, min_count=1, drop_unknown=False, num_images=12
    )
    part = loaded.splits['train']
    assert part.features.shape == (12, 8, 5) and len(part.encoded) == 60
    assert part.image_of.tolist() == np.repeat(np.arange(12), 5).tolist()
    groups = part.groups()
    assert sorted(np.concatenate([rows for rows, _ in groups]).tolist()) == list(range(60))
    words = loaded.vocabulary.words
    assert [words[i] for i in part.encoded[0]] == list(part.images.sentences[0][0])


def test_another_vocabulary_at_resume_is_refused(tmp_path):
    words = vocabulary.build([('a', 'dog')])
    task.check_vocabulary(tmp_path / 'run', words, False)
    (tmp_path / 'run' / 'config.json').write_text('{}')
    task.check_vocabulary(tmp_path / 'run', words, False)
    other = vocabulary.build([('a', 'cat')])
    with pytest.raises(DataError, match=r'started with a vocabulary of 4 words, .* --overwrite'):
        task.check_vocabulary(tmp_path / 'run', other, False)
    task.check_vocabulary(tmp_path / 'run', other, True)
    task.check_vocabulary('', other, False)


def test_segments_of_an_alignment_run_are_read(tmp_path):
    loaded = task.load(
        'scenes', ('train', 'dev'), whiten_dim=5, min_count=1, drop_unknown=True, num_images=10
    )
    part = loaded.splits['train']
    regions_of = np.zeros((50, 16), np.int32)
    regions_of[:, 2:] = 3
    np.savez(tmp_path / '000000000-000000050.npz', regions=regions_of)
    (tmp_path / 'index.json').write_text('{"rows": 50, "block": 4096}')
    encoded, image_of, region_of = segments.read(tmp_path, loaded, 2)
    assert region_of[:2].tolist() == [0, 3] and image_of[-1] == 9
    assert np.concatenate(encoded[:2]).tolist() == part.encoded[0].tolist()
    with pytest.raises(DataError, match='contains no codes of an alignment run'):
        segments.read(tmp_path / 'nowhere', loaded)
    (tmp_path / 'index.json').write_text('{"rows": 49, "block": 4096}')
    with pytest.raises(DataError, match='regions of 50 sentences, expected 50'):
        segments.read(tmp_path, loaded)


def test_flickr8k_names_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r'--manual_dir PATH where .* has Flickr8k.token.txt'):
        flickr8k.load('test', tmp_path)
    (tmp_path / 'Flickr8k.token.txt').write_text('a.jpg#0\tA dog .\n')
    with pytest.raises(DataError, match='truncated or altered'):
        flickr8k.load('test', tmp_path)


@pytest.mark.data
def test_flickr8k_has_its_official_splits(manual_dir):
    data = flickr8k.load('test', manual_dir)
    assert len(data) == 1000 and sum(map(len, data.sentences)) == 5000
    assert data.features.shape == (1000, 10, 1280) and data.boxes.shape == (1000, 10, 4)
    assert data.read_image(0).shape == (224, 224, 3)
