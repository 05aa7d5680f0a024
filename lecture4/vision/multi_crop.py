"""Multi-crop testing: predictions averaged over crops, mirror images and scales, or densely over whole images.

    plan = ten_crop(images.shape[1:3], 224)
    probs = mean_probs(predict_fn, images, plan)

predict_fn maps images [n, h, w, c] to logits, [n, n_classes] or a map of them. All functions are pure and may be
jitted with a static plan.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from lecture4.ops import resize

PredictFn = Callable[[Any], Any]
ProgressFn = Callable[[range], Iterable[int]]
Size = tuple[int, int]


class CropGroup(NamedTuple):
    """Square crops of images that are resized to one size.

    Attributes:
      image_size: (h, w) that the images are resized to.
      window: Height and width of the extracted squares, which are resized to the plan's crop size if it differs.
      corners: (top, left) of the squares.
    """

    image_size: Size
    window: int
    corners: tuple[Size, ...]


class CropPlan(NamedTuple):
    """The crops taken from every image.

    Attributes:
      crop_size: Height and width of the crops.
      groups: Crops by image size.
      mirrored: Whether each crop is also taken mirrored.
    """

    crop_size: int
    groups: tuple[CropGroup, ...]
    mirrored: bool

    @property
    def n_crops(self) -> int:
        """Number of crops per image."""
        return sum(len(group.corners) for group in self.groups) * (2 if self.mirrored else 1)


def _image_sizes(image_size, scales) -> list[Size]:
    """Sizes of images whose shorter side is resized to each of the scales; () keeps them."""
    return [resize.scaled_shape(image_size, scale) for scale in scales] or [tuple(image_size)]


def _five_corners(image_size, crop_size):
    """Corners of the four corner crops and the center crop."""
    bottom, right = image_size[0] - crop_size, image_size[1] - crop_size
    center = resize.center_corner(image_size, (crop_size, crop_size))
    return (0, 0), (0, right), (bottom, 0), (bottom, right), center


def _grid_corners(image_size, crop_size):
    rows, columns = (np.rint(np.linspace(0, n - crop_size, 5)).astype(int) for n in image_size)
    return tuple((int(i), int(j)) for i in rows for j in columns)


def _plan(image_size, crop_size, scales, corners_fn, mirrored) -> CropPlan:
    groups = []
    for size in _image_sizes(image_size, scales):
        if min(size) < crop_size:
            raise ValueError(
                f'images of {size[0]} x {size[1]} are smaller than the crop of {crop_size} x '
                f'{crop_size}; use a larger scale or a smaller crop'
            )
        groups.append(CropGroup(size, crop_size, corners_fn(size, crop_size)))
    return CropPlan(crop_size, tuple(groups), mirrored)


def center_crop(image_size: Sequence[int], crop_size: int, scales: Sequence[int] = ()) -> CropPlan:
    """The center crop.

    Args:
      image_size: (h, w) of the images.
      crop_size: Height and width of the crop.
      scales: Lengths to which the shorter side of the images is resized, one after another; () keeps their size.

    Raises:
      ValueError: A crop does not fit; the same holds for the next three functions.
    """

    def corners(size, crop_size):
        return (resize.center_corner(size, (crop_size, crop_size)),)

    return _plan(image_size, crop_size, scales, corners, False)


def ten_crop(image_size: Sequence[int], crop_size: int, scales: Sequence[int] = ()) -> CropPlan:
    """The four corner crops and the center crop, and their mirror images.

    References:
      Krizhevsky et al. 2012, section 4.1.
    """
    return _plan(image_size, crop_size, scales, _five_corners, True)


def grid_crops(image_size: Sequence[int], crop_size: int, scales: Sequence[int] = ()) -> CropPlan:
    """A grid of 5 x 5 crops and their mirror images: 150 at three scales.

    References:
      Simonyan & Zisserman 2015, section 3.2, after Szegedy et al. 2015.
    """
    return _plan(image_size, crop_size, scales, _grid_corners, True)


def inception_crops(image_size: Sequence[int], crop_size: int, scales: Sequence[int]) -> CropPlan:
    """Five crops of each of three squares at each scale, the squares themselves, and mirror images: 144 at four scales.

    The squares are the left, center and right one of a wide image, the top, center and bottom one of a tall
    image. The five crops are those of `ten_crop`; the square itself is resized to the crop size.

    References:
      Szegedy et al. 2015, section 7, with scales of 256, 288, 320 and 352 for crops of 224.
    """
    groups = []
    for group in _plan(image_size, crop_size, scales, _five_corners, True).groups:
        size = group.image_size
        short = min(size)
        end = size[0] - short, size[1] - short
        squares = ((0, 0), (end[0] // 2, end[1] // 2), end)
        five = _five_corners((short, short), crop_size)
        corners = tuple((y + i, x + j) for y, x in squares for i, j in five)
        groups += [CropGroup(size, crop_size, corners), CropGroup(size, short, squares)]
    return CropPlan(crop_size, tuple(groups), True)


Kind = Literal['center', '10', '144', '150', 'dense']


def plan_for(
    kind: Kind, image_size: Sequence[int], crop_size: int, scales: Sequence[int] = ()
) -> CropPlan | None:
    """The plan of a kind of test crops; None for 'dense', which has no crops.

    Args:
      kind: 'center', 'dense', or the number of crops.
      image_size: (h, w) of the images.
      crop_size: Height and width of the crops.
      scales: Lengths that the shorter side of the images is resized to. () means those of the papers for '144' and
        '150', in proportion to crops of 224, and otherwise keeps the size of the images.

    Raises:
      KeyError: The kind is unknown.
      ValueError: A crop does not fit.
    """
    published = {
        'center': (),
        '10': (),
        '144': (256, 288, 320, 352),
        '150': (256, 384, 512),
        'dense': (),
    }
    defaults = tuple(round(scale * crop_size / 224) for scale in published[kind])
    if kind == 'dense':
        return None
    plans = {'center': center_crop, '10': ten_crop, '144': inception_crops, '150': grid_crops}
    return plans[kind](image_size, crop_size, scales or defaults)


def scales_for(kind: Kind, eval_resize: int, scales: Sequence[int]) -> tuple[int, ...]:
    """The scales of a kind of test crops, from two options: one size, and several scales.

    Args:
      kind: As in `plan_for`.
      eval_resize: Length of the shorter side for 'center' and '10'; 0 keeps the size of the images.
      scales: Lengths of the shorter side for the other kinds; () takes their defaults.
    """
    if kind in ('center', '10'):
        return (eval_resize,) if eval_resize else ()
    return tuple(scales)


def check_sizes(
    network: nn.Module,
    crop_size: int,
    image_size: Sequence[int],
    kinds: Sequence[Kind],
    *,
    eval_resize: int = 0,
    scales: Sequence[int] = (),
    channels: int = 3,
) -> None:
    """Raise a ValueError, from shapes alone, if the network or a kind of test crops does not fit the images.

    Args:
      network: Any image network.
      crop_size: Height and width of the network's input.
      image_size: (h, w) of the test images.
      kinds: Kinds of test crops.
      eval_resize: See `scales_for`.
      scales: See `scales_for`.
      channels: Number of channels of the network's input.
    """
    example = jax.ShapeDtypeStruct((1, crop_size, crop_size, channels), jnp.float32)
    jax.eval_shape(network.init, jax.random.key(0), example)
    for kind in kinds:
        plan_for(kind, image_size, crop_size, scales_for(kind, eval_resize, scales))


def center_logits(
    network: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array | np.ndarray, 'n h w c'],
    crop_size: int,
    image_size: int = 0,
) -> Float[Array, 'n n_classes']:
    """Logits of the center crops of images, which are first resized to squares of image_size, if not 0."""
    if image_size:
        images = resize.resize(images, (image_size, image_size))
    outputs: Any = network.apply(variables, resize.center_crop(images, crop_size))
    return outputs[0]


def extract_crops(
    images: Float[Array | np.ndarray, 'n h w c'], plan: CropPlan
) -> Float[Array, 'n n_crops crop_size crop_size c']:
    """The crops of every image, group by group, mirror images last."""
    images = jnp.asarray(images)
    n, channels, crop_size = images.shape[0], images.shape[-1], plan.crop_size
    crops = []
    for group in plan.groups:
        scaled = resize.resize(images, group.image_size)

        def cut(corner, scaled=scaled, window=group.window):
            shape = (n, window, window, channels)
            return jax.lax.dynamic_slice(scaled, (0, *corner, 0), shape)

        squares = jax.vmap(cut)(jnp.array(group.corners))  # [corners, n, ...]
        squares = squares.reshape(-1, *squares.shape[2:])
        squares = resize.resize(squares, (crop_size, crop_size))
        squares = squares.reshape(len(group.corners), n, crop_size, crop_size, channels)
        crops.append(jnp.moveaxis(squares, 0, 1))
    crops = jnp.concatenate(crops, axis=1)
    return jnp.concatenate([crops, crops[:, :, :, ::-1]], axis=1) if plan.mirrored else crops


def mean_probs(
    predict_fn: PredictFn, images: Float[Array | np.ndarray, 'n h w c'], plan: CropPlan
) -> Float[Array, 'n n_classes']:
    """Mean of the softmax over a plan's crops, float32."""
    crops = extract_crops(images, plan)
    logits = predict_fn(crops.reshape(-1, *crops.shape[2:]))
    return _softmax(logits).reshape(*crops.shape[:2], -1).mean(1)


def dense_probs(
    predict_fn: PredictFn,
    images: Float[Array | np.ndarray, 'n h w c'],
    scales: Sequence[int] = (),
    mirrored: bool = True,
) -> Float[Array, 'n n_classes']:
    """Mean of the softmax over scales and mirror images of whole images, float32.

    A map of logits is averaged before the softmax, as in the paper; networks that average their features
    (GoogLeNet, ResNet) do so themselves.

    Args:
      predict_fn: Images -> logits.
      images: Whole images.
      scales: Lengths to which the shorter side of the images is resized; () keeps their size.
      mirrored: Whether to use mirror images too.

    References:
      Simonyan & Zisserman 2015, section 3.2; He et al. 2016 with scales 224, 256, 384, 480, 640.
    """
    images = jnp.asarray(images)
    probs = []
    for size in _image_sizes(images.shape[1:3], scales):
        scaled = resize.resize(images, size)
        for x in (scaled, scaled[:, :, ::-1]) if mirrored else (scaled,):
            logits = predict_fn(x)
            probs.append(_softmax(logits.mean((1, 2)) if logits.ndim == 4 else logits))
    return jnp.stack(probs).mean(0)


def _softmax(logits):
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def predict_probs(
    network: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    kind: Kind,
    *,
    crop_size: int,
    scales: Sequence[int] = (),
    normalize_fn: Callable[[Any], Any],
    batch_size: int,
    progress_fn: ProgressFn = iter,
) -> Float[np.ndarray, 'n n_classes']:
    """A network's probabilities for a set of images on the host, by one kind of test crops.

    Args:
      network: Any image network.
      variables: Variables of the network.
      images: Images [n, h, w, c], an array or an object that is indexed like one.
      kind: See `plan_for`.
      crop_size: Height and width of the crops.
      scales: See `plan_for`, and `dense_probs` for 'dense'.
      normalize_fn: Stored images [n, h, w, c] -> the network's input, not cropped.
      batch_size: Approximate number of crops per batch.
      progress_fn: As in `map_batches`.

    Raises:
      KeyError, ValueError: As in `plan_for`.
    """
    plan = plan_for(kind, images.shape[1:3], crop_size, scales)
    if plan is None and hasattr(network, 'dense'):
        network = network.clone(dense=True)

    def probs_of(variables, batch):
        def predict(x):
            return network.apply(variables, x)[0]

        batch = normalize_fn(batch)
        if plan is None:
            return dense_probs(predict, batch, scales)
        return mean_probs(predict, batch, plan)

    images_per_batch = max(1, batch_size // (plan.n_crops if plan else 1))
    fn = functools.partial(probs_of, jax.device_put(variables))
    return map_batches(fn, images, images_per_batch, progress_fn)


def map_batches(
    fn: Callable[[Any], Any], images: Any, batch_size: int, progress_fn: ProgressFn = iter
) -> Shaped[np.ndarray, 'n *shape']:
    """Apply fn to batches of a set on the host, jitted once: the last batch is padded, and its padding removed.

    Args:
      fn: [b, ...] -> [b, ...].
      images: Images [n, ...], an array or an object that is indexed like one.
      batch_size: Number of rows per call.
      progress_fn: Iterates over the first rows of the batches (a range), and may show progress.
    """
    run = jax.jit(fn)
    outputs = []
    for start in progress_fn(range(0, len(images), batch_size)):
        batch = images[start : start + batch_size]
        n_padding = min(batch_size, len(images)) - len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], n_padding, 0)])
        outputs.append(run(padded)[: len(batch)])
        outputs[-2:-1] = map(np.asarray, outputs[-2:-1])  # fetched while the next batch runs
    return np.concatenate(outputs)
