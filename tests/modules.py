"""PyTorch modules of the kinds that people bring, small: ordinary networks, and ordinary oddities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Case:
    """A module to capture.

    Attributes:
        make: makes the module.
        shape: the shape of one sample.
        tokens: how many token ids there are, where inputs are ids.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int | None = None

    def batch(self, samples: int, seed: int = 0) -> Tensor:
        """Returns random inputs."""
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, *self.shape)
        if self.tokens is not None:
            return torch.randint(self.tokens, shape, generator=generator)
        return torch.randn(shape, generator=generator, dtype=torch.float64)


class BasicBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
            if stride > 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width: int = 2, blocks: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages, i = [], width
        for stage in range(3):
            for block in range(blocks):
                o = width * 2**stage
                stages.append(BasicBlock(i, o, 2 if stage and not block else 1))
                i = o
        self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(i, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(functional.relu(self.bn(self.conv(x))))
        x = functional.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(x, 1))


class SqueezeExcite(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(c, 2, 1), nn.Conv2d(2, c, 1)
        self.act, self.gate = nn.SiLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(self.act(self.down(self.pool(x)))))


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(inplace=True)
        )
        self.block = nn.Sequential(
            nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            SqueezeExcite(8),
            nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(x.mean([2, 3]))


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    i = 3
    for o in (2, "M", 3, "M", 4, 4, "M", 4, 4, "M", 4, 4, "M"):
        if o == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(i, int(o), 3, padding=1), nn.BatchNorm2d(int(o)), nn.ReLU(True)]
            i = int(o)
    tail = [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(i, 6), nn.ReLU(True),
            nn.Dropout(0.0), nn.Linear(6, 3)]  # fmt: skip
    return nn.Sequential(*layers, *tail)


class Attention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (d // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class Encoder(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = Attention(d, heads)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, d: int = 8, depth: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.1)
        self.pos = nn.Parameter(torch.randn(1, 5, d) * 0.1)
        self.blocks = nn.ModuleList([Encoder(d, 2) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class CausalAttention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.size()
        q, k, v = self.c_attn(x).split(d, dim=2)
        q, k, v = (a.view(n, t, self.heads, d // self.heads).transpose(1, 2) for a in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(n, t, d))


class GPT(nn.Module):
    def __init__(self, words: int = 11, d: int = 8, length: int = 5, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, d), nn.Embedding(length, d)
        self.drop = nn.Dropout(0.0)
        self.h = nn.ModuleList(
            [
                nn.ModuleDict(
                    {
                        "ln_1": nn.LayerNorm(d),
                        "attn": CausalAttention(d, 2),
                        "ln_2": nn.LayerNorm(d),
                        "mlp": nn.Sequential(
                            nn.Linear(d, 2 * d), nn.GELU("tanh"), nn.Linear(2 * d, d)
                        ),
                    }
                )
                for _ in range(depth)
            ]
        )
        self.ln_f = nn.LayerNorm(d)
        self.lm_head = nn.Linear(d, words, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(positions))
        for block in self.h:
            x = x + block["attn"](block["ln_1"](x))
            x = x + block["mlp"](block["ln_2"](x))
        return self.lm_head(self.ln_f(x))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 3, 3, 2, 1), nn.ELU(), nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), nn.Mish(),
            nn.ConvTranspose2d(3, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x)).flatten(1)


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 5, 2, 2, bias=False), nn.BatchNorm1d(4), nn.LeakyReLU(0.1),
        nn.MaxPool1d(2), nn.Conv1d(4, 6, 3, padding="same"), nn.BatchNorm1d(6, affine=False),
        nn.Softplus(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3), nn.BatchNorm1d(3),
    )  # fmt: skip


class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.step, self.leave = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for _ in range(3):
            x = torch.tanh(self.step(x))
        return self.leave(x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.pair(1, 2), self.pair(2, 4)
        self.middle = self.pair(4, 4)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.join2, self.join1 = self.pair(8, 2), self.pair(4, 2)
        self.out = nn.Conv2d(2, 1, 1)

    @staticmethod
    def pair(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(1, o), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(functional.max_pool2d(a, 2))
        c = self.middle(functional.avg_pool2d(b, 2))
        c = self.join2(torch.cat([self.up(c), b], 1))
        c = functional.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(self.join1(torch.cat([c, a], 1))).flatten(1)


NETWORKS = {
    "resnet20": Case(ResNet, (3, 8, 8)),
    "mobilenet": Case(MobileNet, (3, 8, 8)),
    "vgg11": Case(vgg, (3, 32, 32)),
    "vit": Case(ViT, (3, 8, 8)),
    "gpt": Case(GPT, (5,), 11),
    "autoencoder": Case(Autoencoder, (1, 8, 8)),
    "signals": Case(signals, (2, 16)),
    "recurrence": Case(Recurrence, (4,)),
    "unet": Case(UNet, (1, 8, 8)),
}
