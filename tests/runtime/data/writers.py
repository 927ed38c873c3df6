"""Small data sets in the formats in which they are published, each with what is in it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor

Part = tuple[Tensor, Tensor]  # images as bytes (N, C, H, W), labels
NORB = "smallnorb-5x{}x9x18x6x2x96x96-{}ing-{}.mat"


def idx_bytes(values: np.ndarray) -> bytes:
    header = np.array([0x0800 + values.ndim, *values.shape], ">u4")
    return header.tobytes() + values.astype(np.uint8).tobytes()


def matrix_bytes(values: np.ndarray) -> bytes:
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[values.dtype.name]
    sizes = [*values.shape, *[1] * (3 - values.ndim)]
    return np.array([magic, values.ndim, *sizes], "<u4").tobytes() + values.tobytes()


def part(shape: tuple[int, ...], classes: int, seed: int) -> Part:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return images, torch.arange(shape[0]) % classes


def write_idx(folder: Path, zipped: bool = True) -> list[Part]:
    parts = [part((12, 1, 28, 28), 10, 0), part((7, 1, 28, 28), 10, 1)]
    for name, (x, y) in zip(("train", "t10k"), parts, strict=True):
        for kind, values in (("images-idx3", x[:, 0]), ("labels-idx1", y)):
            path, content = folder / f"{name}-{kind}-ubyte", idx_bytes(values.numpy())
            if zipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return parts


def write_cifar(folder: Path, classes: int) -> list[Part]:
    parts = [part((15, 3, 32, 32), classes, 0), part((4, 3, 32, 32), classes, 1)]
    names = [[f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]]
    if classes == 100:
        names = [["train.bin"], ["test.bin"]]
    for files, (x, y) in zip(names, parts, strict=True):
        labels = [y // 5, y] if classes == 100 else [y]
        records = torch.cat([torch.stack(labels, 1).byte(), x.flatten(1)], 1)
        for file, some in zip(files, records.chunk(len(files)), strict=True):
            (folder / file).write_bytes(some.numpy().tobytes())
    return parts


def write_svhn(folder: Path) -> list[Part]:
    parts = [part((11, 3, 32, 32), 10, 0), part((5, 3, 32, 32), 10, 1)]
    for name, (x, y) in zip(("train", "test"), parts, strict=True):
        images = x.permute(2, 3, 1, 0).numpy()
        labels = torch.where(y == 0, 10, y).byte().numpy()[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": images, "y": labels}, do_compression=True)
    return parts


def write_norb(folder: Path, zipped: bool = False) -> list[Part]:
    parts = [part((6, 2, 96, 96), 5, 0), part((5, 2, 96, 96), 5, 1)]
    for name, which, (x, y) in zip(("train", "test"), ("46789", "01235"), parts, strict=True):
        for kind, values in (("dat", x), ("cat", y.int())):
            path, content = folder / NORB.format(which, name, kind), matrix_bytes(values.numpy())
            if zipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return parts


def write_jpeg(path: Path, size: tuple[int, int], seed: int) -> Tensor:
    """A smooth picture, so that what JPEG changes is small."""
    height, width = size
    path.parent.mkdir(parents=True, exist_ok=True)
    slope = torch.linspace(0, 1, height)[:, None] * torch.linspace(0, 1, width)
    colours = torch.tensor([40.0, 90.0, 160.0]) + 10 * seed
    pixels = (slope[..., None] * colours).byte().numpy()
    Image.fromarray(pixels).save(path, format="JPEG", quality=95)
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def write_tiny(folder: Path, classes: tuple[str, ...] = ("n02", "n01", "n03")) -> list[Part]:
    (folder / "wnids.txt").write_text("\n".join(classes) + "\n", encoding="ascii")
    numbers = sorted(classes)
    train = [
        (write_jpeg(folder / f"train/{name}/images/{name}_{i}.JPEG", (64, 64), 4 * n + i), n)
        for n, name in enumerate(numbers)
        for i in range(3)
    ]
    lines, test = list[str](), list[tuple[Tensor, int]]()
    for i in range(5):
        n = (2 * i) % len(numbers)
        x = write_jpeg(folder / f"val/images/val_{i}.JPEG", (64, 64), i)
        lines.append(f"val_{i}.JPEG\t{numbers[n]}\t0\t0\t62\t62\n")
        test.append((x, n))
    (folder / "val/val_annotations.txt").write_text("".join(lines), encoding="ascii")
    return [stacked(train), stacked(test)]


def write_classes(folder: Path) -> list[Part]:
    """Squares of 256 pixels, of which 224 in the middle are taken."""
    parts = []
    for name, count in (("train", 2), ("val", 1)):
        found = [
            (write_jpeg(folder / f"{name}/{kind}/{i}.JPEG", (256, 256), 3 * n + i), n)
            for n, kind in enumerate(("cat", "dog"))
            for i in range(count)
        ]
        x, y = stacked(found)
        parts.append((x[:, :, 16:240, 16:240], y))
    return parts


def stacked(samples: list[tuple[Tensor, int]]) -> Part:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


WRITERS: dict[str, tuple[str, Callable[[Path], list[Part]]]] = {
    "mnist": ("MNIST/raw", write_idx),
    "fashion-mnist": ("FashionMNIST/raw", lambda folder: write_idx(folder, False)),
    "cifar10": ("cifar-10-batches-bin", lambda folder: write_cifar(folder, 10)),
    "cifar100": ("cifar-100-binary", lambda folder: write_cifar(folder, 100)),
    "svhn": ("svhn", write_svhn),
    "smallnorb": ("smallnorb", write_norb),
    "tiny-imagenet": ("tiny-imagenet-200", write_tiny),
    "imagenet-10": ("imagenet-10", write_classes),
}
