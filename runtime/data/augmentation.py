"""Augmentation: images that come slightly changed in each epoch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...compiler.graph.calls import Checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count


class CropFlip(Checked):
    """Pads images with zeros, crops them to their size at a random place, and mirrors every other.

    What it draws comes from the generator that `Batches` makes for each epoch from its seed.

    Args:
        padding: how many zeros are added on each side; an eighth of the height unless given, which
            is the usual 4 of images of 32 pixels.

    Raises:
        NewtritonError: `padding` is no integer ≥ 0.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> x, y = torch.rand(6, 3, 32, 32), torch.arange(6)
        >>> batches = nt.Batches(x, y, batch_size=2, transform=nt.CropFlip())
        >>> [tuple(images.shape) for images, labels in batches]
        [(2, 3, 32, 32), (2, 3, 32, 32), (2, 3, 32, 32)]
    """

    def __init__(self, padding: int | None = None) -> None:
        self.padding = None if padding is None else check_count("padding", padding, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the changed images.

        Args:
            x: images (N, C, H, W).
            generator: what the places and the mirroring are drawn from.

        Raises:
            NewtritonError: x are no images.
        """
        if not isinstance(x, Tensor) or x.dim() != 4:
            raise NewtritonError(
                f"crop and flip got inputs of shape {getattr(x, 'shape', type(x).__name__)}: give "
                "images (N, C, H, W)"
            )
        number, _, height, width = x.shape
        padding = height // 8 if self.padding is None else self.padding
        if padding > max(height, width):
            raise NewtritonError(
                f"padding is {padding}, more than images of {height}×{width} have: they would be "
                "cropped to nothing but zeros"
            )
        drawn = {"generator": generator, "device": generator.device}
        places = torch.randint(2 * padding + 1, (number, 2), **drawn).tolist()
        mirrored = torch.randint(2, (number,), **drawn).tolist()
        padded, changed = F.pad(x, (padding,) * 4), torch.empty_like(x)
        for n, ((row, column), flip) in enumerate(zip(places, mirrored, strict=True)):
            window = padded[n, :, row : row + height, column : column + width]
            changed[n] = window.flip(-1) if flip else window
        return changed
