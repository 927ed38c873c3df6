"""The nn.Modules that are measured after capture: a ResNet, a GPT, a vision transformer, parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            convolution = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(body(x) + shortcut(x))."""
        body = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(body + self.shortcut(x))


def resnet20(width: int = 16, classes: int = 10) -> nn.Sequential:
    """Returns the ResNet-20 of CIFAR-10."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
    ]  # fmt: skip
    channels = width
    for stage in range(3):
        for block in range(3):
            wide = width << stage
            layers.append(Residual(channels, wide, 2 if stage and not block else 1))
            channels = wide
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *head)


def attention(x: Tensor, heads: int, causal: bool) -> Tensor:
    """Maps queries, keys and values side by side, N×T×3D, to N×T×D."""
    batch, positions, width = x.shape[0], x.shape[1], x.shape[2] // 3
    shape = (batch, positions, heads, width // heads)
    q, k, v = (t.view(shape).transpose(1, 2) for t in x.split(width, dim=2))
    o = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return o.transpose(1, 2).reshape(batch, positions, width)


class Scaled(nn.Module):
    """What it is given times a weight for each column: a loss with hardly a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x with its columns scaled."""
        return x * self.weight


class Attended(Scaled):
    """Causal attention alone, on queries, keys and values with a weight for each column."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(3 * width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×T×3D to N×T×D."""
        return attention(x * self.weight, self.heads, causal=True)


class Attention(nn.Module):
    """Self-attention of several heads, with one product for queries, keys and values."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×T×D to N×T×D."""
        return self.out(attention(self.qkv(x), self.heads, self.causal))


class Block(nn.Module):
    """A transformer block with the norms in front (Radford et al. 2019)."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×T×D to N×T×D."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A GPT whose head is its embedding of words, N×T words to N×T×V logits."""

    def __init__(
        self, layers: int = 4, width: int = 128, positions: int = 64, words: int = 1000,
        heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of the next word at each position."""
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.blocks(self.words(x) + self.places(places))))


class ViT(nn.Module):
    """A vision transformer with a class token (Dosovitskiy et al. 2021)."""

    def __init__(
        self, layers: int = 4, width: int = 128, size: int = 32, patch: int = 4, heads: int = 4,
        classes: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of images."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])
