"""Boxes from VOC layouts, COCO JSON and .npz files: what is read, and one clear line for what cannot be."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from lecture4.data import detection
from lecture4.data.dataset import DataError
from lecture4.data.detection import registry
from lecture4.data.detection.dataset import annotations, fingerprint, select_classes, take
from lecture4.data.sources import archives

RNG = np.random.default_rng(0)
OBJECT = (
    '<object><name>{}</name><difficult>{}</difficult><part><name>head</name></part>'
    '<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
)


def xml(objects, size=(30, 20)):
    body = ''.join(OBJECT.format(name, difficult, *box) for name, difficult, *box in objects)
    return f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{body}</annotation>'


def jpeg(path, size=(30, 20), mode='RGB'):
    pixels = RNG.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three images: two objects of which one is difficult, none, and one of another class."""
    root = tmp_path / 'VOCdevkit' / 'VOC2007'
    for part in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / part).mkdir(parents=True)
    objects = {
        'a': [('cat', 0, 1, 1, 10, 10), ('dog', 1, 5, 2, 30, 20)],
        'b': [],
        'c': [('cat', 0, 3, 4, 12, 18)],
    }
    for name, own in objects.items():
        (root / 'Annotations' / f'{name}.xml').write_text(xml(own))
        jpeg(root / 'JPEGImages' / f'{name}.jpg', mode='L' if name == 'b' else 'RGB')
    (root / 'ImageSets/Main/train.txt').write_text('a\nb\n')
    (root / 'ImageSets/Main/val.txt').write_text('c\n')
    (root / 'ImageSets/Main/cat_train.txt').write_text('a 1\nb -1\n')
    return root


def annotate(folder, objects, name='a', size=(30, 20)):
    (folder / 'Annotations' / f'{name}.xml').write_text(xml(objects, size))


def test_voc_boxes_become_edges(folder):
    data = detection.load(f'voc:{folder}')
    assert data.names == ('a', 'b') and data.sizes.tolist() == [[20, 30]] * 2
    assert data.boxes[0].tolist() == [[0, 0, 10, 10], [4, 1, 30, 20]]
    assert len(data.class_names) == 20
    assert [data.class_names[k - 1] for k in data.labels[0]] == ['cat', 'dog']
    assert data.difficult[0].tolist() == [False, True]
    assert data.boxes[1].shape == (0, 4) and data.images[1].shape == (20, 30, 3)
    assert annotations(data)['image'].tolist() == [0, 0]


def test_a_folder_around_it_and_a_zip_archive_read_the_same(folder, tmp_path):
    shutil.make_archive(str(tmp_path / 'all'), 'zip', folder.parent.parent)
    sets = [
        detection.load(f'voc:{path}', 'val')
        for path in (folder, folder.parent, folder.parent.parent, tmp_path / 'all.zip')
    ]
    assert {fingerprint(data) for data in sets} == {fingerprint(sets[0])}
    for data in sets:
        np.testing.assert_array_equal(data.images[0], sets[0].images[0])
        assert data.boxes[0].tolist() == [[2, 3, 12, 18]]


def test_without_image_sets_all_images_are_train(folder):
    shutil.rmtree(folder / 'ImageSets')
    assert detection.load(f'voc:{folder}').names == ('a', 'b', 'c')
    with pytest.raises(DataError, match="no split 'val'; without ImageSets/Main it has only train"):
        detection.load(f'voc:{folder}', 'val')


def test_other_classes_are_those_of_all_splits(folder):
    annotate(folder, [('zebra', 0, 1, 1, 5, 5)], 'c')
    data = detection.load(f'voc:{folder}', 'val')
    assert data.class_names == ('cat', 'dog', 'zebra') and data.labels[0].tolist() == [3]


def test_points_are_left_out_and_boxes_cut_at_the_border(folder, caplog):
    annotate(folder, [('cat', 0, 7, 7, 7, 7), ('cat', 0, -4, 5, 40, 9)])
    data = detection.load(f'voc:{folder}')
    assert data.boxes[0].tolist() == [[0, 4, 30, 9]]
    assert '1 boxes without area' in caplog.text and '1 boxes extend beyond' in caplog.text


@pytest.mark.parametrize(
    ('box', 'reason'),
    [
        ((9, 1, 2, 5), r'box 1 of 1 is \[8, 0, 2, 5\] \(x1, y1, x2, y2\): x2 < x1 or y2 < y1'),
        (('nan', 1, 5, 5), 'it is not finite'),
        ((40, 1, 45, 5), 'it lies outside the image of 30 x 20'),
        (('', 1, 5, 5), 'object 1 has no name or no box of four numbers'),
    ],
)
def test_impossible_boxes_are_refused(folder, box, reason):
    annotate(folder, [('cat', 0, *box)])
    with pytest.raises(DataError, match=f'Annotations/a.xml.*{reason}'):
        detection.load(f'voc:{folder}')


def test_missing_files_and_other_sizes_are_refused(folder):
    from lecture4.data.detection import voc

    with pytest.raises(
        DataError, match=r"a.xml has an object of class 'dog', which is none of cat;"
    ):
        voc.read_voc(folder, class_names=('cat',))
    jpeg(folder / 'JPEGImages' / 'a.jpg', (31, 20))
    with pytest.raises(DataError, match=r'a.xml is for an image of 30 x 20 .*/a.jpg is 31 x 20'):
        detection.load(f'voc:{folder}')
    (folder / 'JPEGImages' / 'a.jpg').unlink()
    with pytest.raises(DataError, match=r'the image of Annotations/a.xml is missing'):
        detection.load(f'voc:{folder}')
    (folder / 'Annotations' / 'a.xml').write_text('<annotation>')
    with pytest.raises(DataError, match=r'a.xml cannot be read as XML'):
        detection.load(f'voc:{folder}')
    (folder / 'Annotations' / 'a.xml').unlink()
    with pytest.raises(DataError, match=r'has no Annotations/a.xml; add it'):
        detection.load(f'voc:{folder}')
    with pytest.raises(DataError, match=r"no split 'test'; it has train, val$"):
        detection.load(f'voc:{folder}', 'test')
    with pytest.raises(DataError, match='has no folder Annotations'):
        detection.load(f'voc:{folder / "JPEGImages"}')


def test_a_truncated_image_is_named_or_skipped(folder, caplog):
    file = folder / 'JPEGImages' / 'a.jpg'
    file.write_bytes(file.read_bytes()[:700])
    data = detection.load(f'voc:{folder}')
    with pytest.raises(DataError, match=r'a\.jpg cannot be read as an image'):
        data.images[0]
    assert detection.load(f'voc:{folder}', unreadable='skip').names == ('b',)
    assert 'skipped' in caplog.text


def test_one_pixel_images_are_read(folder):
    annotate(folder, [], size=(1, 1))
    jpeg(folder / 'JPEGImages' / 'a.jpg', (1, 1))
    data = detection.load(f'voc:{folder}')
    assert data.sizes[0].tolist() == [1, 1] and data.images[0].shape == (1, 1, 3)


def test_ten_thousand_boxes(folder):
    annotate(
        folder, [('cat', 0, 1 + i % 20, 1 + i % 10, 22 + i % 9, 12 + i % 9) for i in range(10_000)]
    )
    assert len(detection.load(f'voc:{folder}').boxes[0]) == 10_000


def test_classes_are_selected_and_renumbered(folder):
    data = detection.load(f'voc:{folder}', classes=('dog', 'cat'))
    assert data.class_names == ('dog', 'cat') and data.labels[0].tolist() == [2, 1]
    only = select_classes('x', data, ('dog',))
    assert only.labels[0].tolist() == [1] and only.difficult[0].tolist() == [True]
    with pytest.raises(DataError, match=r"has no class 'zebra'; it has aeroplane"):
        detection.load(f'voc:{folder}', classes=('zebra',))


def test_fingerprints_are_of_images_not_of_boxes(folder):
    data = detection.load(f'voc:{folder}')
    before = fingerprint(data)
    annotate(folder, [])
    assert fingerprint(detection.load(f'voc:{folder}')) == before
    assert fingerprint(take(data, [1])) != before
    jpeg(folder / 'JPEGImages' / 'a.jpg')
    assert fingerprint(detection.load(f'voc:{folder}')) != before


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    (root / 'train2017').mkdir()
    for i in (3, 7):
        jpeg(root / 'train2017' / f'{i}.jpg')
    content = {
        'images': [
            {'id': i, 'file_name': f'{i}.jpg', 'width': 30, 'height': 20} for i in (7, 3)
        ],
        'categories': [{'id': 18, 'name': 'dog'}, {'id': 5, 'name': 'cat'}],
        'annotations': [
            {'id': 1, 'image_id': 3, 'category_id': 18, 'bbox': [2, 3, 10, 8], 'area': 44.5, 'iscrowd': 0},
            {'id': 2, 'image_id': 3, 'category_id': 5, 'bbox': [0, 0, 40, 20], 'iscrowd': 1},
            {'id': 3, 'image_id': 3, 'category_id': 5, 'bbox': [4, 4, 0, 6], 'area': 0},
        ],
    }  # fmt: skip

    def write(**changes):
        (root / 'annotations' / 'instances_train2017.json').write_text(
            json.dumps(content | changes)
        )
        return root

    write()
    return write


def test_coco_boxes_crowds_and_areas(coco, caplog):
    root = coco()
    for path in (root, root / 'annotations' / 'instances_train2017.json'):
        data = detection.load(f'coco:{path}')
        assert data.names == ('3', '7') and data.class_names == ('cat', 'dog')
        assert data.boxes[0].tolist() == [[2, 3, 12, 11], [0, 0, 30, 20]]
        assert data.labels[0].tolist() == [2, 1] and data.crowd[0].tolist() == [False, True]
        assert data.areas[0].tolist() == [44.5, 800] and data.boxes[1].shape == (0, 4)
        assert data.images[1].shape == (20, 30, 3)
    assert '1 boxes without area' in caplog.text and '1 boxes extend beyond' in caplog.text


@pytest.mark.parametrize(
    ('annotation', 'message'),
    [
        (
            {'image_id': 9, 'category_id': 5},
            'annotation 4 is of image 9, which is not among the images',
        ),
        ({'image_id': 3, 'category_id': 6}, 'annotation 4 has category 6, which is none of 5, 18'),
        ({'image_id': 3, 'category_id': 5}, r'expected bbox \[x, y, width, height\]'),
        ({'image_id': 3, 'category_id': 5, 'bbox': [5, 5, -2, 3]}, 'x2 < x1 or y2 < y1'),
        ({'image_id': 3, 'category_id': 5, 'bbox': [5, float('nan'), 2, 3]}, 'it is not finite'),
        ({'image_id': 3, 'category_id': 5, 'bbox': [50, 5, 2, 3]}, 'it lies outside the image'),
    ],
)
def test_impossible_annotations_are_refused(coco, annotation, message):
    with pytest.raises(DataError, match=message):
        detection.load(f'coco:{coco(annotations=[{"id": 4} | annotation])}')


def test_broken_json_and_missing_images_are_refused(coco):
    root = coco(images=[{'id': 3, 'file_name': '3.jpg', 'width': 31, 'height': 20}])
    with pytest.raises(DataError, match=r'image 3 is stated to be 31 x 20 .* is 30 x 20'):
        detection.load(f'coco:{root}')
    coco(images=[{'id': 3, 'file_name': 'none.jpg'}])
    with pytest.raises(DataError, match=r'the image none.jpg is missing; it was searched in'):
        detection.load(f'coco:{root}')
    coco(images=[])
    with pytest.raises(DataError, match='has no images'):
        detection.load(f'coco:{root}')
    (root / 'annotations' / 'instances_train2017.json').write_text('[1, 2')
    with pytest.raises(DataError, match='cannot be read as JSON'):
        detection.load(f'coco:{root}')
    with pytest.raises(
        DataError, match=r"no split 'test'; expected .* got annotations/instances_train2017"
    ):
        detection.load(f'coco:{root}', 'test')


def own_arrays(**changes):
    return {
        'images': np.zeros((2, 20, 30), np.uint8),
        'boxes': np.array([[0, 0, 5, 5], [1, 1, 30, 9]], np.float32),
        'image': np.array([1, 1]),
        'labels': np.array([2, 1]),
        'class_names': np.array(['a', 'b']),
    } | changes


def test_own_arrays(tmp_path):
    np.savez(tmp_path / 'x.npz', **own_arrays(difficult=np.array([True, False])))
    data = detection.load(f'npz:{tmp_path / "x.npz"}')
    assert data.images[0].shape == (20, 30, 3) and data.class_names == ('a', 'b')
    assert data.boxes[0].shape == (0, 4) and data.boxes[1].tolist() == [[0, 0, 5, 5], [1, 1, 30, 9]]
    assert data.labels[1].tolist() == [2, 1] and data.difficult[1].tolist() == [True, False]
    np.savez(
        tmp_path / 'y.npz',
        **{f'val_{k}': v for k, v in own_arrays(sizes=np.array([[20, 30], [9, 30]])).items()},
    )
    assert detection.load(f'npz:{tmp_path / "y.npz"}', 'val').images[1].shape == (9, 30, 3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image': np.array([1, 2])}, 'expected image from 0 to 1, got 1 to 2'),
        ({'labels': np.array([0, 1])}, 'expected labels from 1 to 2, got 0 to 1'),
        ({'labels': np.array([3, 1])}, 'got 1 to 3'),
        ({'boxes': np.zeros((2, 5))}, r'expected boxes \[m, 4\]'),
        (
            {'boxes': np.array([[5, 0, 2, 2], [0, 0, 1, 1.0]])},
            r'image 1: box 1 of 2 is \[5, 0, 2, 2\]',
        ),
        ({'images': np.zeros((2, 20, 30))}, 'expected uint8 images'),
        ({'sizes': np.array([[20, 31], [20, 30]])}, 'expected sizes'),
    ],
)
def test_own_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / 'x.npz', **own_arrays(**changes))
    with pytest.raises(DataError, match=message):
        detection.load(f'npz:{tmp_path / "x.npz"}')


def test_unreadable_own_arrays_are_refused(tmp_path):
    path = tmp_path / 'x.npz'
    with pytest.raises(DataError, match='is not a file'):
        detection.load(f'npz:{path}')
    path.write_bytes(b'no archive')
    with pytest.raises(DataError, match=r'cannot be read as \.npz'):
        detection.load(f'npz:{path}')
    np.savez(path, images=np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(DataError, match='has no boxes'):
        detection.load(f'npz:{path}')


@pytest.mark.parametrize(
    ('source', 'split', 'message'),
    [
        ('scene', 'train', r"unknown detection data set 'scene'; did you mean scenes\?"),
        ('scenes', 'val', "no split 'val'; it has train, test"),
        ('bccd', 'train', r'run with --manual_dir PATH where PATH or PATH/bccd has BCCD.zip'),
    ],
)
def test_unknown_and_missing_sets(monkeypatch, source, split, message):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    with pytest.raises(DataError, match=message):
        detection.load(source, split)


def test_voc_is_prepared_once_and_read_lazily(folder, tmp_path):
    from hashlib import sha256

    (folder / 'ImageSets/Main/trainval.txt').write_text('a\nb\nc\n')
    (folder / 'ImageSets/Main/test.txt').write_text('c\n')
    pins = []
    for file, part in (('one.tar', ('Annotations', 'ImageSets')), ('two.tar', ('JPEGImages',))):
        with tarfile.open(tmp_path / file, 'w') as archive:
            for name in part:
                archive.add(folder / name, f'VOCdevkit/VOC2007/{name}')
        content = (tmp_path / file).read_bytes()
        pins.append(
            archives.Pin(file, f'http://x/{file}', len(content), sha256(content).hexdigest())
        )
    options = {'data_dir': tmp_path / 'prepared', 'pins': tuple(pins)}
    data = registry.load_prepared('voc2007', 'trainval', manual_dir=tmp_path, **options)
    again = registry.load_prepared('voc2007', 'test', **options)
    assert data.names == ('a', 'b', 'c') and again.names == ('c',)
    expected = detection.load(f'voc:{folder}', 'trainval')
    assert fingerprint(data) == fingerprint(expected) and data.class_names == expected.class_names
    for i in range(3):
        np.testing.assert_array_equal(data.images[i], expected.images[i])
        np.testing.assert_array_equal(data.boxes[i], expected.boxes[i])
        np.testing.assert_array_equal(data.difficult[i], expected.difficult[i])
    with pytest.raises(DataError, match="no split 'x'; it has test, train, trainval, val"):
        registry.load_prepared('voc2007', 'x', **options)


def test_scenes_are_loaded_by_name():
    data = detection.load('scenes', 'test', num_images=3, seed=5)
    assert data.num_images == 3 and data.names[0] == 'test_5_000000'


@pytest.mark.data
def test_the_real_sets(manual_dir):
    """Counts as in the sets' descriptions; every image decodes at the size of its annotation."""
    total = np.zeros(3, int)
    for split, n in (('train', 205), ('val', 87), ('test', 72)):
        data = detection.load('bccd', split, manual_dir=manual_dir)
        assert data.num_images == n and data.class_names == ('Platelets', 'RBC', 'WBC')
        total += np.bincount(np.concatenate(data.labels), minlength=4)[1:]
    assert total.tolist() == [361, 4155 - 2, 372]
    counts = {'train': [88, 176, 96, 115, 158, 223], 'val': [48, 81, 52, 72, 67, 124]}
    for split, expected in counts.items():
        data = detection.load('voc2012_animals', split, manual_dir=manual_dir)
        assert data.num_images == {'train': 400, 'val': 200}[split]
        assert np.bincount(np.concatenate(data.labels))[1:].tolist() == expected
        for i in range(0, data.num_images, 20):
            assert data.images[i].shape == (*data.sizes[i], 3)
