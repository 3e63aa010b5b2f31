"""Places in a picture that is turned upright and resized, for metadata that refers to them."""

from __future__ import annotations

from dataclasses import dataclass


def mirrored(orientation: int) -> tuple[bool, bool]:
    """Whether the stored picture begins at the right, and at the bottom, of the upright one."""
    return orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)


@dataclass(frozen=True, slots=True)
class GeometryChange:
    """How the stored picture became the restored one."""

    before: tuple[int, int] | None  # stored width and height; None if unknown
    orientation: int  # EXIF orientation that was applied; 1 for none
    after: tuple[int, int]  # width and height of the restored picture

    @property
    def transposed(self) -> bool:
        """Whether rows became columns."""
        return self.orientation >= 5

    def map_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a place in the restored picture for one in the stored picture, both in [0, 1]."""
        if self.transposed:
            x, y = y, x
        right, bottom = mirrored(self.orientation)
        return (1 - x if right else x), (1 - y if bottom else y)

    def box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        before: tuple[float, float],
        after: tuple[float, float],
    ) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a part in the restored picture.

        They are given for the stored picture. `before` and `after` are width and height of the
        stored and of the restored picture, in the unit of the part.
        """
        x, y = zip(
            self.map_point(left / before[0], top / before[1]),
            self.map_point((left + width) / before[0], (top + height) / before[1]),
            strict=True,
        )
        (left, right), (top, bottom) = sorted(x), sorted(y)
        return left * after[0], top * after[1], (right - left) * after[0], (bottom - top) * after[1]

    def point(self, x: float, y: float) -> tuple[int, int]:
        """Return a pixel of the restored picture for one of the stored picture."""
        width, height = self.before or self.after
        across, down = self.map_point(x / width, y / height)
        return round(across * self.after[0]), round(down * self.after[1])

    def extent(self, width: float, height: float) -> tuple[int, int]:
        """Return width and height in the restored picture of a part of the stored picture."""
        stored = self.before or self.after
        across, down = width / stored[0], height / stored[1]
        if self.transposed:
            across, down = down, across
        return round(across * self.after[0]), round(down * self.after[1])
