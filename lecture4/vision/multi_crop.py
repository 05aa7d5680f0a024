"""Several looks at a test picture: crops, mirrors, scales, or the network moved over all of it.

    plan = ten(images.shape[1:3], 224)
    probabilities = posterior(predict_fn, images, plan)

predict_fn takes pictures [n, h, w, c] to logits, [n, classes] or a map of them. Everything is pure and
may be jitted with the plan static.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops import resize


class Group(NamedTuple):
    """Crops of pictures at one scale: corners (upper, left) in pictures brought to `sizes` in turn."""

    sizes: tuple[tuple[int, int], ...]
    corners: tuple[tuple[int, int], ...]


class Plan(NamedTuple):
    """Which crops of side x side are looked at; `mirrored` says that each is once more, mirrored."""

    side: int
    groups: tuple[Group, ...]
    mirrored: bool

    @property
    def n_views(self) -> int:
        """Looks at a picture."""
        return sum(len(group.corners) for group in self.groups) * (2 if self.mirrored else 1)


def _sizes(shape, scales):
    """Sizes of pictures whose shorter side is brought to each of the scales; () leaves them."""
    return [(resize.scaled_shape(shape, scale),) for scale in scales] or [(tuple(shape),)]


def _middle(shape, side):
    return resize.center_corner(shape, (side, side))


def _five(shape, side):
    """Corners of the crops in the four corners and in the middle, of pictures that hold them."""
    bottom, right = shape[0] - side, shape[1] - side
    return (0, 0), (0, right), (bottom, 0), (bottom, right), _middle(shape, side)


def _plan(shape, side, scales, corners_fn, mirrored) -> Plan:
    groups = []
    for sizes in _sizes(shape, scales):
        if min(sizes[-1]) < side:
            raise ValueError(
                f'pictures of {sizes[-1][0]} x {sizes[-1][1]} have no crop of {side} x {side}; '
                'use a larger scale or a smaller crop'
            )
        groups.append(Group(sizes, tuple(corners_fn(sizes[-1], side))))
    return Plan(side, tuple(groups), mirrored)


def one(shape, side: int, scales=()) -> Plan:
    """The crop in the middle, once; of pictures [h, w] at each scale, () their own.

    Errors  of this and the next three: ValueError where a crop does not fit.
    """
    return _plan(shape, side, scales, lambda *at: (_middle(*at),), False)


def ten(shape, side: int, scales=()) -> Plan:
    """The four corners and the middle, and their mirror images (Krizhevsky et al. 2012, section 4.1)."""
    return _plan(shape, side, scales, _five, True)


def grid(shape, side: int, scales=()) -> Plan:
    """A grid of 5 x 5 crops and their mirror images: 150 at three scales.

    Source  Simonyan & Zisserman 2015, section 3.2, after Szegedy et al. 2015.
    """

    def corners(shape, side):
        rows, columns = (np.rint(np.linspace(0, n - side, 5)).astype(int) for n in shape)
        return [(int(i), int(j)) for i in rows for j in columns]

    return _plan(shape, side, scales, corners, True)


def squares(shape, side: int, scales) -> Plan:
    """Of three squares at each scale the corners, the middle and the square itself: 144 at four scales.

    The squares are the left, middle and right one of a wide picture, the upper, middle and lower one of a
    high one; each is looked at once more made as small as the crops.
    Source  Szegedy et al. 2015, section 7, with scales of 256, 288, 320 and 352 for crops of 224.
    """
    plan = _plan(shape, side, scales, lambda *_: (), True)
    groups = []
    for (size,), _ in plan.groups:
        short = min(size)
        ends = size[0] - short, size[1] - short
        starts = (0, 0), (ends[0] // 2, ends[1] // 2), ends
        five = _five((short, short), side)
        corners = tuple((y + i, x + j) for y, x in starts for i, j in five)
        small = resize.scaled_shape(size, side)
        ends = small[0] - side, small[1] - side
        whole = (0, 0), (ends[0] // 2, ends[1] // 2), ends
        groups += [Group((size,), corners), Group((size, small), whole)]
    return plan._replace(groups=tuple(groups))


Kind = Literal['1', '10', '144', '150', 'dense']


def looks(kind: Kind, shape, side: int, scales=()) -> Plan | None:
    """The plan of a number of views of pictures [h, w]; None for 'dense', which has no crops.

    scales  shorter sides that pictures are brought to; () of 144 and 150 views those of the papers,
            in proportion to crops of 224, of others the pictures' own.
    Errors  KeyError for another kind; ValueError where a crop does not fit.
    """
    papers = {'1': (), '10': (), '144': (256, 288, 320, 352), '150': (256, 384, 512), 'dense': ()}
    own = tuple(round(scale * side / 224) for scale in papers[kind])
    if kind == 'dense':
        return None
    plan_fn = {'1': one, '10': ten, '144': squares, '150': grid}[kind]
    return plan_fn(shape, side, scales or own)


def views(images, plan: Plan):
    """The crops of every picture.

    Shapes  images [n, h, w, c] -> [n, n_views, side, side, c], group after group, mirrors last.
    """
    found = []
    for group in plan.groups:
        scaled = images
        for size in group.sizes:
            scaled = resize.resize(scaled, size)

        def cut(corner, scaled=scaled):
            shape = (len(images), plan.side, plan.side, images.shape[-1])
            return jax.lax.dynamic_slice(scaled, (0, *corner, 0), shape)

        found.append(jax.vmap(cut, out_axes=1)(jnp.array(group.corners, jnp.int32)))
    found = jnp.concatenate(found, axis=1)
    return jnp.concatenate([found, found[:, :, :, ::-1]], axis=1) if plan.mirrored else found


def posterior(predict_fn: Callable[[jax.Array], jax.Array], images, plan: Plan):
    """The mean over a plan's views of the softmax: probabilities [n, classes], float32."""
    seen = views(images, plan)
    logits = predict_fn(seen.reshape(-1, *seen.shape[2:]))
    return _softmax(logits).reshape(*seen.shape[:2], -1).mean(1)


def dense(predict_fn: Callable[[jax.Array], jax.Array], images, scales=(), mirrored: bool = True):
    """Probabilities from whole pictures, mean over scales and mirror images.

    A map of logits is averaged before the softmax, as in the paper; networks that average their features
    (GoogLeNet, ResNet) do as much by themselves.
    Shapes  images [n, h, w, c] -> [n, classes], float32.
    Source  Simonyan & Zisserman 2015, section 3.2; He et al. 2016 with scales 224, 256, 384, 480, 640.
    """
    found = []
    for (size,) in _sizes(images.shape[1:3], scales):
        scaled = resize.resize(images, size)
        for view in (scaled, scaled[:, :, ::-1]) if mirrored else (scaled,):
            logits = predict_fn(view)
            found.append(_softmax(logits.mean((1, 2)) if logits.ndim == 4 else logits))
    return jnp.stack(found).mean(0)


def _softmax(logits):
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def probabilities(
    network,
    variables,
    images,
    kind: Kind,
    *,
    crop: int,
    scales=(),
    normalise_fn,
    batch_size: int,
    each_fn: Callable = iter,
) -> np.ndarray:
    """Probabilities [n, classes] that a network gives to a set on the host, by one kind of looks.

    normalise_fn  stored pictures [n, h, w, c] -> what the network sees of them, uncropped.
    batch_size    views that are looked at together, about.
    each_fn       as `in_batches` has it.
    Errors        as `looks`.
    """
    plan = looks(kind, images.shape[1:3], crop, scales)
    if plan is None and hasattr(network, 'dense'):
        network = network.clone(dense=True)

    def ask(variables, batch):
        batch = normalise_fn(batch)
        predict_fn = lambda x: network.apply(variables, x)[0]  # noqa: E731
        if plan is None:
            return dense(predict_fn, batch, scales)
        return posterior(predict_fn, batch, plan)

    at_once = max(1, batch_size // (plan.n_views if plan else 1))
    return in_batches(functools.partial(ask, jax.device_put(variables)), images, at_once, each_fn)


def in_batches(score_fn: Callable, images, batch_size: int, each_fn: Callable = iter) -> np.ndarray:
    """score_fn(batch) of a set on the host, jitted once: the last batch is filled up and cut again.

    each_fn  what goes through the batches' starts, a range, and may show how far it has come.
    Shapes   images [n, ...] -> [n, ...].
    """
    run = jax.jit(score_fn)
    found = []
    for start in each_fn(range(0, len(images), batch_size)):
        batch = images[start : start + batch_size]
        n_filling = min(batch_size, len(images)) - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], n_filling, 0)])
        found.append(run(filled)[: len(batch)])  # while the next batch is read
        found[-2:-1] = map(np.asarray, found[-2:-1])
    return np.concatenate(found)
