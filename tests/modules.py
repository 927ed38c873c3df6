"""PyTorch modules of the kinds that people bring, small: ordinary networks and oddities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import newtriton as nt

from .tolerances import assert_close, relative_error

EXACT = 1e-12


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


# --- oddities: what people write by hand ---------------------------------------------------------


class Written(nn.Module):
    """A module whose forward is a function of it, with some layers to call."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def functional_calls(m: nn.Module, x: Tensor) -> Tensor:
    x = functional.conv2d(functional.pad(x, (1, 2, 0, 1)), m.c.weight, m.c.bias, stride=2)
    x = torch.relu_(x)
    x = x * 2.0 + 1.0 - x / 3.0
    x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    x = x.view(x.size(0), -1)
    return functional.linear(x, m.f.weight)


def means(m: nn.Module, x: Tensor) -> Tensor:
    x = m.c(x)
    a, b = x.mean([2, 3]), x.amax(dim=(2, 3))
    s = x.std(dim=(2, 3)) + x.var(dim=(2, 3), unbiased=False, keepdim=True).squeeze()
    n = torch.norm(x.flatten(2), dim=-1) + x.flatten(2).max(dim=-1).values
    return m.f(torch.cat([a, b, s, n], 1))


def products(m: nn.Module, x: Tensor) -> Tensor:
    x = m.f(x)
    a = torch.einsum("nij,nkj->nik", x, x) / x.shape[-1]
    b = torch.einsum("nij,kj->nki", x, m.f.weight)
    c = torch.bmm(a, x) + torch.matmul(x, m.f.weight[:, :6]) + (x @ m.f.weight[0, :6])[..., None]
    return torch.cat([c.sum(1), b.mean(2), torch.baddbmm(x, a, x)[:, -1]], -1)


def cuts(m: nn.Module, x: Tensor) -> Tensor:
    a, b, c = m.f(x).chunk(3, dim=-1)
    x = torch.stack([a, b * c.sigmoid()], dim=1).sum(1)
    first, *rest = x.split([1, 2, 1], dim=1)
    x = torch.cat([first.expand(-1, 3, -1), *rest[::-1]], 1)
    x = x[:, ::2] + x[:, 1::2].sum(1, True) + x.flip(1)[:, :3] + torch.roll(x, 1, dims=1)[:, -3:]
    return x.permute(0, 2, 1).reshape(x.shape[0], -1).squeeze()


def gates(m: nn.Module, x: Tensor) -> Tensor:
    h = m.f(x)
    h = torch.where(h > 0, h, 0.1 * h.exp()) * (h.abs() < 2.0)
    h = h.clamp(-1.5, 1.0).masked_fill(h == 0.25, 3.0) + torch.maximum(h, -h)
    h = h.pow(3) / (1 + h**2).sqrt() + torch.rsqrt(h.square() + 1) + torch.sin(h) * h.cos()
    return h + h.minimum(torch.tensor(0.3)) - (h * 1.0).log_softmax(-1) + torch.log1p(h * h)


def writes(m: nn.Module, x: Tensor) -> Tensor:
    h = m.f(x).clone()
    h[:, 0] = 0.5
    h[:, 1:3] *= 2.0
    h.add_(1.0).mul_(h.sigmoid())
    v = h.view(h.shape[0], 2, 3)
    v[:, 1].neg_()
    return h + torch.zeros_like(h).index_fill_(1, torch.tensor([2]), 1.0)


def attend(m: nn.Module, x: Tensor) -> Tensor:
    return m.a(x, x, x, need_weights=False)[0].mean(1)


def attend_weights(m: nn.Module, x: Tensor) -> Tensor:
    mask = torch.triu(torch.full((4, 4), float("-inf"), dtype=x.dtype), diagonal=1)
    y, w = m.a(x, x, x, attn_mask=mask)
    return torch.cat([y.mean(1), w.flatten(1)], -1)


def encode(m: nn.Module, x: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(4, dtype=x.dtype)
    return m.t(x, src_mask=mask, is_causal=True)[:, -1]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class Rotary(nn.Module):
    """Rotary positions, RMS norms, SwiGLU, fewer key heads: a small Llama's block."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        frequency = 1.0 / (10000 ** (torch.arange(0, 4, 2, dtype=torch.float64) / 4))
        self.register_buffer("frequency", frequency, persistent=False)
        self.norm1, self.norm2 = nn.RMSNorm(d, eps=1e-6), nn.RMSNorm(d)
        self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, 4), nn.Linear(d, 4)
        self.o, self.head = nn.Linear(d, d), nn.Linear(d, 3)
        self.gate, self.up, self.down = nn.Linear(d, 12), nn.Linear(d, 12), nn.Linear(12, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        angle = torch.outer(torch.arange(t, device=x.device).double(), self.frequency)
        angle = torch.cat([angle, angle], -1)
        cos, sin = angle.cos(), angle.sin()
        h = self.norm1(x)
        q = rotated(self.q(h).view(n, t, 2, 4).transpose(1, 2), cos, sin)
        k = rotated(self.k(h).view(n, t, 1, 4).transpose(1, 2), cos, sin)
        v = self.v(h).view(n, t, 1, 4).transpose(1, 2)
        k, v = k.repeat_interleave(2, dim=1), v.expand(-1, 2, -1, -1)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return self.head(x.mean(1))


def shuffled(m: nn.Module, x: Tensor) -> Tensor:
    x = functional.channel_shuffle(m.c(x), 2) if m.training else m.c(x).view(
        x.shape[0], 2, -1, *x.shape[2:]
    ).transpose(1, 2).flatten(1, 2)  # fmt: skip
    return functional.pixel_shuffle(x, 2).flatten(1)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(2 + 2 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(2 + 2 * i, 2, 3, padding=1) for i in range(3)])
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found.append(conv(functional.relu(norm(torch.cat(found, 1)), inplace=True)))
        return self.fc(torch.cat(found, 1).mean((-2, -1)))


class Windows(nn.Module):
    """Windows of an image that are attended one by one, as in Swin, with relative positions."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.attn = Attention(d, 2)
        self.table = nn.Parameter(torch.randn(9, 2))
        place = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij"))
        near = place.flatten(1)[:, :, None] - place.flatten(1)[:, None, :] + 1
        self.register_buffer("index", near[0] * 3 + near[1])
        self.fc = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = torch.roll(x, (-1, -1), dims=(2, 3)).permute(0, 2, 3, 1)
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        bias = self.table[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        x = self.attn(x) + bias.mean(0) @ x
        x = x.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return self.fc(x.mean((1, 2)))


def resampled(m: nn.Module, x: Tensor) -> Tensor:
    x = functional.pad(m.c(x), (2, 1, 1, 2), mode="reflect")
    x = functional.pad(x, (1, 0), mode="constant", value=1.5)
    x = functional.interpolate(x, size=(5, 7), mode="nearest")
    x = functional.interpolate(x, size=(9, 9), mode="bilinear", align_corners=True)
    return functional.adaptive_avg_pool2d(x, (2, 4)).flatten(1)


def summed(m: nn.Module, x: Tensor) -> Tensor:
    h = m.f(x)
    return h.cumsum(1) + torch.logsumexp(h, 1, keepdim=True) + h.prod(dim=1, keepdim=True)


def pooled_tokens(m: nn.Module, ids: Tensor) -> Tensor:
    mask = (ids != 0).unsqueeze(-1)
    x = m.e(ids) * mask
    x = x.sum(1) / mask.sum(1).clamp(min=1)
    return m.f(x) + functional.one_hot(ids[:, 0], 7).to(x.dtype)[:, :3]


class Padded(nn.Module):
    """Token ids with padding: positions, masks and the last token are computed from them."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.words, self.places = (
            nn.Embedding(7, d, padding_idx=1),
            nn.Embedding(9, d, padding_idx=1),
        )
        self.kinds = nn.Embedding(2, d)
        self.register_buffer("kind", torch.zeros(1, 9, dtype=torch.long), persistent=False)
        self.fc = nn.Linear(d, 3)

    def forward(self, ids: Tensor) -> Tensor:
        n, t = ids.shape
        real = ids.ne(1).int()
        places = (torch.cumsum(real, dim=1).type_as(real) * real).long() + 1
        kind = torch.gather(self.kind.expand(n, -1), 1, places)
        x = self.words(ids) + self.places(places) + self.kinds(kind)
        samples = torch.arange(n)[:, None, None, None]
        seen = ids.ne(1)[samples, torch.arange(t)[None, None, None, :]].expand(n, 1, t, t)
        seen = seen | torch.eye(t, dtype=torch.bool)
        x = (
            x
            + functional.scaled_dot_product_attention(
                x[:, None], x[:, None], x[:, None], attn_mask=seen
            )[:, 0]
        )
        return self.fc(x[torch.arange(n), (torch.arange(t) * real).argmax(-1)])


def gathered(m: nn.Module, x: Tensor) -> Tensor:
    h = m.f(x)  # (N, 4, 6)
    near = (torch.arange(4)[:, None] - torch.arange(4)[None, :]).abs()
    score = torch.gather(h, -1, near.expand(h.shape[0], 4, 4))
    top = h.max(dim=1).indices  # (N, 6)
    best = torch.gather(h, 1, top[:, None, :2])[:, 0]
    own = h[torch.arange(h.shape[0])[:, None], top[:, :2], torch.tensor([0, -1])]
    mixed = h[torch.arange(h.shape[0])[:, None], :, torch.tensor([[1, -2]])].sum(-1)
    table = m.f.weight[h.argmin(-1)].sum((1, 2))[:, None]
    parts = h.unfold(1, 2, 2).mean(-1).flatten(1)
    return torch.cat([score.sum(1), best, own, mixed, table, parts], -1)


ODDITIES = {
    "functional": Case(
        lambda: Written(functional_calls, c=nn.Conv2d(2, 3, 3), f=nn.Linear(18, 4)), (2, 6, 6)
    ),
    "means": Case(lambda: Written(means, c=nn.Conv2d(2, 3, 3), f=nn.Linear(12, 4)), (2, 6, 6)),
    "products": Case(lambda: Written(products, f=nn.Linear(6, 6)), (4, 6)),
    "cuts": Case(lambda: Written(cuts, f=nn.Linear(3, 6)), (4, 3)),
    "gates": Case(lambda: Written(gates, f=nn.Linear(3, 6)), (3,)),
    "writes": Case(lambda: Written(writes, f=nn.Linear(3, 6)), (3,)),
    "attention": Case(
        lambda: Written(attend, a=nn.MultiheadAttention(8, 2, batch_first=True)), (4, 8)
    ),
    "weights": Case(
        lambda: Written(attend_weights, a=nn.MultiheadAttention(8, 2, batch_first=True)), (4, 8)
    ),
    "encoder": Case(
        lambda: Written(
            encode, t=nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        ),
        (4, 8),
    ),
    "rotary": Case(Rotary, (5, 8)),
    "shuffle": Case(lambda: Written(shuffled, c=nn.Conv2d(2, 8, 1, groups=2)), (2, 3, 3)),
    "dense": Case(Dense, (2, 5, 5)),
    "windows": Case(Windows, (4, 4, 4)),
    "resampled": Case(
        lambda: Written(resampled, c=nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
        (2, 5, 5),
    ),
    "summed": Case(lambda: Written(summed, f=nn.Linear(3, 4)), (3,)),
    "tokens": Case(
        lambda: Written(pooled_tokens, e=nn.Embedding(7, 4, padding_idx=0), f=nn.Linear(4, 3)),
        (5,),
        7,
    ),
    "padded": Case(Padded, (5,), 7),
    "gathered": Case(lambda: Written(gathered, f=nn.Linear(3, 6)), (4, 3)),
    "groups": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(4), nn.InstanceNorm2d(4, affine=True),
            nn.AvgPool2d(2, 1), nn.CELU(), nn.Flatten(), nn.Linear(36, 8), nn.GLU(), nn.SELU(),
        ),
        (2, 6, 6),
    ),
}  # fmt: skip


# --- what autograd makes of them ------------------------------------------------------------------


def criterion_of(z: Tensor) -> nt.Loss:
    """Returns a loss that fits outputs: of few outputs they are classes."""
    return nt.CrossEntropyLoss() if z.shape[-1] < 16 else nt.MSELoss()


def labels_of(z: Tensor) -> Tensor:
    """Returns labels for `criterion_of`."""
    generator = torch.Generator().manual_seed(1)
    if z.shape[-1] < 16:
        return torch.randint(z.shape[-1], z.shape[:-1], generator=generator)
    return torch.randn(z.shape, generator=generator, dtype=z.dtype)


def loss_of(z: Tensor, y: Tensor) -> Tensor:
    """Returns the mean of `criterion_of`."""
    if z.shape[-1] < 16:
        return functional.cross_entropy(z.flatten(0, -2), y.flatten())
    return (z - y).square().sum(1).mean()


class Reference:
    """Loss, gradient and products of a module by double backward, flat in a model's layout."""

    def __init__(self, model: nt.Model, module: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.y = model, y
        self.names, self.params = zip(*module.named_parameters(), strict=True)
        with sdpa_kernel(SDPBackend.MATH), twice_differentiable():
            self.z = module(x)
            self.loss = loss_of(self.z, y)
        self.grads = self._pulled(self.loss, create_graph=True)

    def _pulled(self, value: Tensor, ct: Tensor | None = None, **options: bool) -> list[Tensor]:
        found = torch.autograd.grad(
            value, self.params, ct, allow_unused=True, retain_graph=True, **options
        )
        pairs = zip(found, self.params, strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in pairs]

    def _flat(self, tensors: list[Tensor]) -> Tensor:
        return self.model.flatten(dict(zip(self.names, (t.detach() for t in tensors), strict=True)))

    def _along(self, tensors: list[Tensor], v: Tensor) -> Tensor:
        named = self.model.unflatten(v)
        return sum((t * named[n]).sum() for t, n in zip(tensors, self.names, strict=True))  # type: ignore[return-value]

    @property
    def gradient(self) -> Tensor:
        return self._flat(self.grads)

    def hvp(self, v: Tensor) -> Tensor:
        return self._flat(self._pulled(self._along(self.grads, v)))

    def ggnvp(self, v: Tensor) -> Tensor:
        """Jᵀ B J v, where J v is the derivative of Jᵀ u by u."""
        u = torch.zeros_like(self.z, requires_grad=True)
        (jv,) = torch.autograd.grad(
            self._along(self._pulled(self.z, u, create_graph=True), v), u, retain_graph=True
        )
        z = self.z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(z, self.y), z, create_graph=True)
        (bjv,) = torch.autograd.grad((slope * jv).sum(), z)
        return self._flat(self._pulled(self.z, bjv))


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Writes out what PyTorch cannot differentiate twice."""
    kept = functional.hardsigmoid
    functional.hardsigmoid = lambda x, inplace=False: functional.relu6(x + 3) / 6
    try:
        yield
    finally:
        functional.hardsigmoid = kept


def check_captured(case: Case) -> None:
    """Compares a captured module with itself: outputs in both modes, all derivatives."""
    torch.manual_seed(0)
    module, x = case.make().double(), case.batch(3)
    alone = copy.deepcopy(module)
    with torch.no_grad():
        z = copy.deepcopy(module)(x)
    y = labels_of(z)
    model = nt.from_torch(module, x, criterion_of(z), backend="aten")
    lin = model.linearize(x, y)
    expected = Reference(model, alone, x, y)
    assert relative_error(lin.outputs, expected.z) < EXACT
    assert abs(lin.objective - expected.loss.item()) < EXACT * (1 + abs(lin.objective))
    assert_close(lin.gradient, expected.gradient, "gradient")
    v = torch.randn(model.layout.numel, dtype=torch.float64)
    assert_close(lin.hvp(v), expected.hvp(v), "hvp")
    assert_close(lin.ggnvp(v), expected.ggnvp(v), "ggnvp")
    form = lin.quadratic_forms([v])
    assert_close(form.reshape(()), v @ expected.hvp(v), "form")
    again = case.batch(4, seed=2)  # of another size than the example
    module.eval(), alone.eval()
    with torch.no_grad():
        alone.load_state_dict(module.state_dict())
        assert relative_error(model(again), alone(again)) < EXACT
        assert relative_error(module(again), alone(again)) < EXACT
