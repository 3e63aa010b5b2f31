"""Motion blur: random camera paths as homographies, and objects with their own motion.

A path is the motion during one exposure: `samples` poses of a camera, each a homography. With three
degrees of freedom the camera rotates, K R K^-1, which is the dominant part of hand shake (Whyte et
al., "Non-uniform deblurring for shaken images", CVPR 2010); with six it also moves in front of a
scene of constant depth, K R (I + t n^T / d) K^-1. Paths are centred: the mean pose is the identity,
so that blurred and sharp pictures are aligned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Poses during one exposure."""

    shift: np.ndarray  # (T, 2) displacement of the picture's centre in pixels, x then y; mean zero
    roll: np.ndarray  # (T,) rotation about the optical axis in radians; mean zero
    focal: float  # focal length in pixels
    # x, y of the optical axis in pixels of the blurred image (possibly outside of it)
    centre: tuple[float, float]
    # (T, 3) translation of the camera, in units of the scene's depth; mean zero. None for a camera
    # that only rotates.
    translation: np.ndarray | None = None

    @property
    def path(self) -> np.ndarray:
        """(T, 2) path of the picture's centre, in pixels."""
        if self.translation is None:
            return self.shift
        return np.asarray(self.shift - self.focal * self.translation[:, :2])

    @property
    def length(self) -> float:
        """Arc length of the centre's path in pixels."""
        return float(np.hypot(*np.diff(self.path, axis=0).T).sum())

    def record(self) -> dict[str, Any]:
        """Return plain numbers and lists for JSON, without loss of precision."""
        moved = None if self.translation is None else self.translation.tolist()
        return {
            "shift": self.shift.tolist(),
            "roll": self.roll.tolist(),
            "focal": self.focal,
            "centre": list(self.centre),
            "translation": moved,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Trajectory:
        """Invert `record`."""
        moved = record["translation"]
        x, y = record["centre"]
        return cls(
            np.array(record["shift"]),
            np.array(record["roll"]),
            record["focal"],
            (x, y),
            None if moved is None else np.array(moved),
        )

    def homographies(self) -> np.ndarray:
        """Return (T, 3, 3) float64 maps from pixels of the blurred picture to the sharp one's."""
        yaw = -np.arctan(self.shift[:, 0] / self.focal)
        pitch = np.arctan(self.shift[:, 1] / self.focal)
        zero, one = np.zeros_like(yaw), np.ones_like(yaw)

        def matrix(*entries: np.ndarray) -> np.ndarray:
            return np.stack(entries, -1).reshape(-1, 3, 3)

        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        cr, sr = np.cos(self.roll), np.sin(self.roll)
        rotation = (
            matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
            @ matrix(one, zero, zero, zero, cp, -sp, zero, sp, cp)
            @ matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
        )
        if self.translation is not None:
            tx, ty, tz = self.translation.T
            rotation = rotation @ matrix(one, zero, tx, zero, one, ty, zero, zero, one + tz)
        x, y = self.centre
        camera = np.array([[self.focal, 0, x], [0, self.focal, y], [0, 0, 1]])
        return np.asarray(camera @ rotation @ np.linalg.inv(camera))


def draw_trajectory(
    rng: np.random.Generator,
    *,
    length: float,
    samples: int,
    picture: tuple[int, int],
    centre: tuple[float, float],
    degrees_of_freedom: int = 3,
    walk: tuple[float, float] | None = None,
) -> Trajectory:
    """Draw a random smooth path of a hand-held camera.

    Velocity is a constant drift plus a smooth random part (an integrated random walk), so that
    paths range from a straight sweep to a hook or a loop.

    Args:
        rng: source of all randomness.
        length: arc length of the picture centre's path in pixels; 0 for a camera at rest.
        samples: poses T, at least 2.
        picture: height, width of the whole picture in pixels; fixes field of view and roll.
        centre: optical axis in the coordinates of the image that will be blurred.
        degrees_of_freedom: 3 for a camera that rotates, 6 for one that also moves.
        walk: the random part of the velocity over the drift is log-normal: its median, and the
            standard deviation of its logarithm. None for uniform in [0, 1.5], which makes fewer
            straight paths and fewer hooks than a hand (`benchmarks/camera_paths.py`).
    """
    height, width = picture
    angle = rng.uniform(0, 2 * np.pi)
    drift = np.array([np.cos(angle), np.sin(angle)])
    steps = np.cumsum(rng.standard_normal((samples, 3)), axis=0)
    steps -= steps.mean(0)
    steps /= np.sqrt((steps[:, :2] ** 2).sum(1).mean()) + 1e-12
    strength = rng.uniform(0, 1.5) if walk is None else walk[0] * rng.lognormal(sigma=walk[1])
    velocity = drift + strength * steps[:, :2]
    shift = np.cumsum(velocity, axis=0)
    shift *= length / max(np.hypot(*np.diff(shift, axis=0).T).sum(), 1e-12)
    # Roll moves the corners, by up to about half of the centre's path.
    roll = np.cumsum(rng.uniform(-1, 1) + rng.uniform(0, 1) * steps[:, 2])
    roll *= rng.uniform(0, 0.5) * length / (np.hypot(height, width) / 2) / max(np.ptp(roll), 1e-12)
    focal = rng.uniform(0.7, 1.5) * max(height, width)
    turned = Trajectory(shift - shift.mean(0), roll - roll.mean(), focal, centre)
    if degrees_of_freedom == 3 or length == 0:
        return turned
    # Translation sideways causes at most the displacement of the rotation, forwards at most half of
    # it, at the corners. Then both together are scaled to the requested length.
    steps = np.cumsum(np.cumsum(rng.standard_normal((samples, 3)), axis=0), axis=0)
    steps -= steps.mean(0)
    steps /= np.ptp(steps, axis=0) + 1e-12
    sideways = rng.uniform(0, 1) * length * steps[:, :2] / focal
    forwards = rng.uniform(0, 0.5) * length * steps[:, 2:] / (np.hypot(height, width) / 2)
    moved = dataclasses.replace(turned, translation=np.concatenate([sideways, forwards], 1))
    ratio = length / moved.length
    assert moved.translation is not None
    return dataclasses.replace(
        moved,
        shift=ratio * moved.shift,
        roll=ratio * moved.roll,
        translation=ratio * moved.translation,
    )


def blur(linear: Tensor, paths: list[Trajectory]) -> Tensor:
    """Average the views of (B, C, H, W) linear light along each image's path; the same shape.

    Border values are replicated outwards. All paths have the same number of samples.
    """
    total = torch.zeros_like(linear)
    for grids in _grids(paths, linear):
        total += F.grid_sample(linear, grids, padding_mode="border", align_corners=False)
    return total / len(paths[0].shift)


def blur_with_object(
    linear: Tensor,
    paths: list[Trajectory],
    object_linear: Tensor,
    mask: Tensor,
    object_paths: list[Trajectory],
) -> Tensor:
    """Average the views of an object with its own motion in front of a moving background.

    In each view the moved object covers the moved background, so the average contains background
    that is visible for a part of the exposure (soft occlusion).

    Args:
        linear: (B, C, H, W) background, linear.
        paths: paths of the camera, one per image.
        object_linear: (B, C, H, W) texture of the object, linear.
        mask: (B, 1, H, W) coverage by the object in [0, 1].
        object_paths: paths of the object as seen by a camera at rest, one per image.
    """
    layer = torch.cat([object_linear * mask, mask], 1)
    total = torch.zeros_like(linear)
    both = [_combined(path, own) for path, own in zip(paths, object_paths, strict=True)]
    for grids, object_grids in zip(_grids(paths, linear), _grids(both, linear), strict=True):
        behind = F.grid_sample(linear, grids, padding_mode="border", align_corners=False)
        front = F.grid_sample(layer, object_grids, padding_mode="border", align_corners=False)
        total += front[:, :-1] + (1 - front[:, -1:]) * behind
    return total / len(paths[0].shift)


def _combined(path: Trajectory, own: Trajectory) -> Trajectory:
    """Combine the motion of an object with that of the camera that sees it."""
    moved = [t.translation for t in (path, own) if t.translation is not None]
    translation = np.sum(moved, axis=0) if moved else None
    return Trajectory(
        path.shift + own.shift, path.roll + own.roll, path.focal, path.centre, translation
    )


def _grids(paths: list[Trajectory], linear: Tensor) -> Iterator[Tensor]:
    """Yield T sampling grids (B, H, W, 2), one after the other, in `grid_sample` coordinates."""
    height, width = linear.shape[-2:]
    # Pixel centre i <-> (2i + 1) / n - 1, combined with the homography.
    to_pixel = np.array(
        [[width / 2, 0, width / 2 - 0.5], [0, height / 2, height / 2 - 0.5], [0, 0, 1]]
    )
    maps = np.linalg.inv(to_pixel) @ np.stack([p.homographies() for p in paths]) @ to_pixel
    maps /= maps[..., 2:, 2:]
    y = (torch.arange(height, device=linear.device, dtype=linear.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=linear.device, dtype=linear.dtype) * 2 + 1) / width - 1
    points = torch.stack(
        [x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)],
        -1,
    ).reshape(-1, 3)
    for pose in torch.from_numpy(maps).to(linear).unbind(1):  # (B, 3, 3)
        moved = points @ pose.mT  # (B, H * W, 3)
        yield (moved[..., :2] / moved[..., 2:]).reshape(-1, height, width, 2)


def draw_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a random blob with soft edges: its coverage (H, W), float32 in [0, 1].

    It is noise, smoothed and thresholded; `height` and `width` are in pixels.
    """
    cells = int(rng.integers(3, 7))
    noise = torch.from_numpy(rng.standard_normal((1, 1, cells, cells)).astype(np.float32))
    smooth = F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)[0, 0].numpy()
    threshold = np.quantile(smooth, rng.uniform(0.5, 0.85))
    # The edge is about two pixels wide, independent of the size of the blob.
    slope = np.hypot(*np.gradient(smooth)).mean() + 1e-6
    coverage: np.ndarray = np.clip((smooth - threshold) / (2 * slope) + 0.5, 0, 1)
    return coverage
