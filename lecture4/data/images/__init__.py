"""Images for experiments: `images.load('mnist')`, `images.load_signals('photos', 10_000, patch_size=8)`."""

from lecture4.data.images.loading import load_images as load_images
from lecture4.data.images.on_disk import ImageFiles as ImageFiles
from lecture4.data.images.related import RelatedSets as RelatedSets
from lecture4.data.images.related import load_related as load_related
from lecture4.data.images.task import ImageTask as ImageTask
from lecture4.data.images.task import add_border as add_border
from lecture4.data.images.task import load as load
from lecture4.data.images.task import load_squares as load_squares
from lecture4.data.images.task import resize_to_square as resize_to_square
from lecture4.data.images.task import shuffled_splits as shuffled_splits
from lecture4.data.images.task import subsample_test as subsample_test
from lecture4.data.images.unlabeled import load_signals as load_signals
