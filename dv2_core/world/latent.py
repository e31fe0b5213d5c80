"""The miniature's latent space: a PCA of 8x8 pixel patches, packed into an autoencoder of TAESD's shape.

ComfyUI's stock VAELoader reads a TAESD-shaped state dict with any number of latent channels. Its encoder can compute a
linear patch transform exactly (`write_pca_encoder`), so the diffusion model may train on `PatchPCA.encode` while the
decoder (`decoder_init`, `train_vae`) is still being trained.
"""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import nn

PATCH = 8
LATENT_CHANNELS = 24
WIDTH = 64  # channels of every hidden layer of a TAESD
WHITENING = 0.6  # components are divided by std ** 0.6: the leading ones keep a better signal-to-noise ratio
# Latents are multiplied by this before TAESD's tanh(x / 3) * 3, which is then all but linear over their whole range.
# A power of two, so that half-precision files hold the products exactly.
VAE_SCALE = 1 / 16


class PatchPCA:
    """Linear patch autoencoder.

    latent = encode_weight @ patch + encode_bias; patch = decode_weight @ latent + decode_bias. A patch is the flattened
    [3, 8, 8] square in 0..1 RGB. encode_weight [C, 192], decode_weight [192, C]."""

    def __init__(
        self,
        encode_weight: torch.Tensor,
        encode_bias: torch.Tensor,
        decode_weight: torch.Tensor,
        decode_bias: torch.Tensor,
    ):
        self.encode_weight, self.encode_bias = encode_weight, encode_bias
        self.decode_weight, self.decode_bias = decode_weight, decode_bias

    @property
    def channels(self) -> int:
        return self.encode_weight.shape[0]

    @classmethod
    def fit(cls, batches: Iterable[torch.Tensor], channels: int = LATENT_CHANNELS) -> "PatchPCA":
        """Fit to batches of frames [N, 3, H, W] in 0..1; latents get unit variance over all components together.

        Raises ValueError if the frames hold fewer patches than a patch has values."""
        size = 3 * PATCH * PATCH
        count, total, moment = 0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        for frames in batches:
            rows = to_patches(frames).movedim(1, -1).reshape(-1, size).double()  # [patches, 192]
            count, total, moment = count + len(rows), total + rows.sum(0), moment + rows.T @ rows
        if count < size:
            raise ValueError(f"A patch PCA needs at least {size} patches; it was given {count}. Use more frames.")
        mean = total / count
        variances, vectors = torch.linalg.eigh(moment / count - mean[:, None] * mean[None])  # ascending
        if variances[-channels] < 1e-8 * variances[-1]:
            raise ValueError(f"The frames vary in fewer than {channels} ways, too few for that many latent channels.")
        variances, vectors = variances.flip(0)[:channels], vectors.flip(1)[:, :channels]
        divisors = variances.sqrt() ** WHITENING
        divisors = divisors * (variances / divisors**2).mean().sqrt()
        # Rounded to half precision once, here: the published file then computes the very same latents.
        encode_weight = (vectors / divisors).T.half().double()  # [C, 192]
        encode_bias = (-encode_weight @ mean).half().double()
        decode_weight = torch.linalg.pinv(encode_weight)  # [192, C]
        decode_bias = mean - decode_weight @ (encode_weight @ mean + encode_bias)
        return cls(*(part.float() for part in (encode_weight, encode_bias, decode_weight, decode_bias)))

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [N, 3, H, W] in 0..1 -> latents [N, C, H/8, W/8]."""
        return F.conv2d(to_patches(frames), self.encode_weight[:, :, None, None], self.encode_bias)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, C, h, w] -> frames [N, 3, 8h, 8w], not clamped. Linear: shows the patch grid."""
        return F.pixel_shuffle(F.conv2d(latents, self.decode_weight[:, :, None, None], self.decode_bias), PATCH)

    def save(self, path: str | Path) -> None:
        tensors = {name: tensor.contiguous() for name, tensor in vars(self).items()}
        save_file(tensors, str(path), metadata={"format": "dv2-patch-pca-1"})

    @classmethod
    def load(cls, path: str | Path) -> "PatchPCA":
        """From a file of its own, or from the autoencoder that it was written into (`write_pca_encoder`).

        A PCA fitted anew has other signs and, where variances are close, other axes: what was trained on an
        autoencoder's latents needs that autoencoder's."""
        tensors = load_file(str(path))
        return cls(**tensors) if "encode_weight" in tensors else cls.of(MiniVAE.load(path))

    @classmethod
    @torch.no_grad()
    def of(cls, vae: "MiniVAE") -> "PatchPCA":
        """The transform that an autoencoder's encoder computes; its decode is the linear least-squares one.

        Raises ValueError if the encoder is no linear transform of patches."""
        size = 3 * PATCH * PATCH
        units = torch.cat([torch.zeros(1, size), torch.eye(size)])[:, :, None, None].double()
        encode_bias, *columns = deepcopy(vae).double().encode(F.pixel_shuffle(units, PATCH)).flatten(1)
        encode_weight = torch.stack(columns, 1) - encode_bias[:, None]  # [C, 192]
        decode_weight = torch.linalg.pinv(encode_weight)
        parts = encode_weight, encode_bias, decode_weight, -decode_weight @ encode_bias
        pca = cls(*(part.float() for part in parts))
        probe = torch.rand(2, 3, 2 * PATCH, 2 * PATCH, generator=torch.Generator().manual_seed(0))
        if not torch.allclose(pca.encode(probe), vae.encode(probe), atol=1e-3):
            raise ValueError("This autoencoder's encoder is no linear transform of patches; give the miniature's.")
        return pca


def to_patches(frames: torch.Tensor) -> torch.Tensor:
    """[N, 3, H, W] -> [N, 192, H/8, W/8], channel order (rgb, y, x). ValueError if a side is no multiple of 8."""
    if frames.shape[-1] % PATCH or frames.shape[-2] % PATCH:
        raise ValueError(
            f"Frames of {frames.shape[-1]}x{frames.shape[-2]} pixels do not divide into {PATCH}x{PATCH} patches."
        )
    return F.pixel_unshuffle(frames, PATCH)


# --- the TAESD shape --------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """relu(conv(relu(conv(relu(conv(x))))) + x), parameter names as in TAESD files."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH))

    @property
    def layers(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        return conv_at(self.conv, 0), conv_at(self.conv, 2), conv_at(self.conv, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


def conv(channels_in: int, channels_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def conv_at(layers: nn.Sequential, index: int) -> nn.Conv2d:
    layer = layers[index]
    assert isinstance(layer, nn.Conv2d)
    return layer


def block_at(layers: nn.Sequential, index: int) -> Block:
    layer = layers[index]
    assert isinstance(layer, Block)
    return layer


def bias_of(layer: nn.Conv2d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


class MiniVAE(nn.Module):
    """The miniature's autoencoder; its state dict is what ComfyUI's VAELoader takes for a TAESD."""

    def __init__(self, channels: int = LATENT_CHANNELS):
        super().__init__()
        encoder: list[nn.Module] = [conv(3, WIDTH), Block()]
        decoder: list[nn.Module] = [SoftClamp(), conv(channels, WIDTH), nn.ReLU()]
        for _ in range(3):
            encoder += [conv(WIDTH, WIDTH, stride=2, bias=False), Block(), Block(), Block()]
            decoder += [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(WIDTH, WIDTH, bias=False)]
        self.taesd_encoder = nn.Sequential(*encoder, conv(WIDTH, channels))
        self.taesd_decoder = nn.Sequential(*decoder, Block(), conv(WIDTH, 3))
        self.vae_scale = nn.Parameter(torch.tensor(VAE_SCALE), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [N, 3, H, W] in 0..1 -> latents [N, C, H/8, W/8]."""
        return self.taesd_encoder(frames) / self.vae_scale + self.vae_shift

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, C, h, w] -> frames [N, 3, 8h, 8w], about 0..1, not clamped."""
        return self.taesd_decoder((latents - self.vae_shift) * self.vae_scale)

    @classmethod
    def load(cls, path: str | Path) -> "MiniVAE":
        tensors = {name: tensor.float() for name, tensor in load_file(str(path)).items()}
        vae = cls(channels=tensors["taesd_decoder.1.weight"].shape[1])
        vae.load_state_dict(tensors)
        return vae.eval()

    def save(self, path: str | Path) -> None:
        """Write the file for `models/vae`, in half precision."""
        tensors = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(path), metadata={"format": "pt", "license": "Apache-2.0"})


@torch.no_grad()
def write_pca_encoder(vae: MiniVAE, pca: PatchPCA) -> None:
    """Set the encoder's weights so that `vae.encode` equals `pca.encode` on frames in 0..1.

    Pixels are not negative, so they pass the ReLUs; zeroed blocks are identities; a stride-2 3x3 convolution gathers
    2x2 neighbours (3 -> 12 -> 48 channels); the third maps straight to the components, each as a positive and a
    negative part (2 x 24 <= 64) because a ReLU follows; the last convolution subtracts the two and adds the bias."""
    encoder = vae.taesd_encoder
    for parameter in encoder.parameters():
        parameter.zero_()
    weight = rearrange(
        pca.encode_weight, "c (rgb y2 y1 y0 x2 x1 x0) -> c rgb y2 y1 y0 x2 x1 x0", rgb=3, y2=2, y1=2, y0=2, x2=2, x1=2
    )
    for channel in range(3):
        conv_at(encoder, 0).weight[channel, channel, 1, 1] = 1
    # Kernel taps 1 and 2 of a stride-2, padding-1 convolution are the two pixels of the output cell.
    for level, inputs in ((2, 3), (6, 12)):
        for channel in range(inputs):
            for dy in range(2):
                for dx in range(2):
                    conv_at(encoder, level).weight[channel * 4 + dy * 2 + dx, channel, 1 + dy, 1 + dx] = 1
    last = rearrange(weight, "c rgb y2 y1 y0 x2 x1 x0 -> c (rgb y0 x0 y1 x1) y2 x2")
    split, join = conv_at(encoder, 10), conv_at(encoder, 14)
    split.weight[: pca.channels, :48, 1:, 1:] = last * vae.vae_scale
    split.weight[pca.channels : 2 * pca.channels, :48, 1:, 1:] = -last * vae.vae_scale
    for component in range(pca.channels):
        join.weight[component, component, 1, 1] = 1
        join.weight[component, pca.channels + component, 1, 1] = -1
    bias_of(join).copy_(pca.encode_bias * vae.vae_scale)
