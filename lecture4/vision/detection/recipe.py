"""The constants of a detector in one place: those of the papers, and torchvision's."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from lecture4.ops.boxes import MAX_LOG_SCALE, Extent
from lecture4.vision.detection import anchors


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Constants of a detector, from proposals to detections. The default is Faster R-CNN's.

    Attributes:
      extent: Convention of box coordinates, see `ops.boxes`.
      anchor_sizes: Square roots of the anchors' areas in pixels, for each level of the feature maps.
      anchor_ratios: Ratios of height to width of the anchors.
      strides: Pixels per cell of each level; None divides the image by the feature map, as torchvision.
      num_anchors: Number of anchors sampled per image for the loss of the region proposal network.
      anchor_fraction: Largest fraction of positive anchors among them.
      anchor_iou: IoU below which an anchor is background, and smallest IoU of an object.
      anchor_border: Number of pixels by which a sampled anchor may leave the image; None sets no limit.
      anchor_beta: Threshold at which the smooth L1 loss of anchors becomes linear: 1 / sigma^2.
      pre_nms: Number of proposals per level before non-maximum suppression, in training and in testing.
      post_nms: Number of proposals per image after it, in training and in testing.
      proposal_nms: IoU above which a proposal suppresses another.
      min_size: Smallest width and height of a proposal in pixels.
      num_rois: Number of RoIs sampled per image for the loss of the head.
      roi_fraction: Largest fraction of positive RoIs among them.
      positive_iou: Smallest IoU of a positive RoI.
      negative_iou: IoU of background, [low, high).
      std: Divisors of the head's regression targets.
      roi_beta: Threshold at which the smooth L1 loss of RoIs becomes linear.
      pooling: RoI pooling, or RoIAlign.
      pool_size: Number of bins of a RoI along both axes.
      pool_scales: Cells per pixel of the levels that RoIs are pooled from.
      sampling_ratio: Sampling ratio of RoIAlign.
      max_log_scale: See `ops.boxes.decode`.
      min_score: Detections of at most this score are dropped.
      detection_nms: IoU above which a detection suppresses another of its class.
      max_detections: Largest number of detections per image.
      max_candidates: Number of boxes of all RoIs and classes that enter the suppression, the best ones; results
        differ from those with all boxes only if more boxes have a score above min_score.
    """

    extent: Extent = 'inclusive'
    anchor_sizes: tuple[tuple[float, ...], ...] = ((128.0, 256.0, 512.0),)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    strides: tuple[int, ...] | None = (16,)
    num_anchors: int = 256
    anchor_fraction: float = 0.5
    anchor_iou: tuple[float, float] = (0.3, 0.7)
    anchor_border: float | None = 0.0
    anchor_beta: float = 1 / 9
    pre_nms: tuple[int, int] = (12_000, 6_000)
    post_nms: tuple[int, int] = (2_000, 300)
    proposal_nms: float = 0.7
    min_size: float = 16.0
    num_rois: int = 128
    roi_fraction: float = 0.25
    positive_iou: float = 0.5
    negative_iou: tuple[float, float] = (0.0, 0.5)
    std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    roi_beta: float = 1.0
    pooling: Literal['roi_pool', 'roi_align'] = 'roi_pool'
    pool_size: int = 7
    pool_scales: tuple[float, ...] = (1 / 16,)
    sampling_ratio: int = 2
    max_log_scale: float | None = MAX_LOG_SCALE
    min_score: float = 0.05
    detection_nms: float = 0.3
    max_detections: int = 100
    max_candidates: int = 5_000

    @property
    def anchors_per_cell(self) -> int:
        """Number of anchors of a cell; equal for all levels."""
        return len(self.anchor_sizes[0]) * len(self.anchor_ratios)

    def anchors(
        self, image_shape: tuple[int, int], shapes: tuple[tuple[int, int], ...]
    ) -> tuple[Float[np.ndarray, 'n 4'], ...]:
        """The anchors of every level, cells in row-major order.

        Args:
          image_shape: (height, width) of the padded image.
          shapes: (h, w) of every level's feature map.
        """
        levels = []
        for i, (shape, sizes) in enumerate(zip(shapes, self.anchor_sizes, strict=True)):
            stride = (image_shape[0] // shape[0], image_shape[1] // shape[1])
            if self.strides is not None:
                stride = (self.strides[i], self.strides[i])
            if self.extent == 'inclusive':
                scales = [size / stride[0] for size in sizes]
                base = anchors.paper_anchors(stride[0], self.anchor_ratios, scales)
            else:
                base = anchors.centered_anchors(sizes, self.anchor_ratios)
            levels.append(anchors.grid(base, shape, stride))
        return tuple(levels)


PAPER = Recipe()
# Images of 100 to 500 pixels with few objects, for small networks and frozen ones.
SMALL = Recipe(
    extent='continuous',
    num_anchors=128,
    anchor_iou=(0.3, 0.6),
    anchor_border=None,
    pre_nms=(800, 400),
    max_detections=50,
    max_candidates=1_000,
)
# torchvision's fasterrcnn_resnet50_fpn.
TORCHVISION_FPN = Recipe(
    extent='continuous',
    anchor_sizes=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    strides=None,
    anchor_border=None,
    pre_nms=(2_000, 1_000),
    post_nms=(2_000, 1_000),
    min_size=1e-3,
    num_rois=512,
    roi_beta=1 / 9,
    pooling='roi_align',
    pool_scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
    detection_nms=0.5,
)
