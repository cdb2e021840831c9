"""Published files of weights by name: where they are, what they hold, how large they are."""

from __future__ import annotations

from dataclasses import dataclass

_META = "https://dl.fbaipublicfiles.com/vjepa2/"
_META_1 = "https://dl.fbaipublicfiles.com/jepa/"
_JEPA_WMS = "https://huggingface.co/facebook/jepa-wms/resolve/main/"


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        url: Where it is; the last part is the file's name.
        holds: What is in it.
        size: Bytes, None where nobody states them.
        about_gb: The rough size where only that is known, 1e9 bytes.
        sha256: None where nobody states it, which at present is everywhere.
        encoder: The name of the file with the encoder, if this one has none.
    """

    url: str
    holds: str
    size: int | None = None
    about_gb: float | None = None
    sha256: str | None = None
    encoder: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file in the cache."""
        return self.url.rpartition("/")[2]


_PRETRAINED = "{}: encoder, its moving average, masked predictor, optimiser"
_VJEPA_1 = "V-JEPA 1, {} (CC-BY-NC 4.0): encoder, its moving average, masked predictor, optimiser"
_PROBE = "attentive probe of {}"
REGISTRY: dict[str, Published] = {
    "vjepa2-vitl": Published(f"{_META}vitl.pt", _PRETRAINED.format("ViT-L, 256 px")),
    "vjepa2-vith": Published(f"{_META}vith.pt", _PRETRAINED.format("ViT-H, 256 px")),
    "vjepa2-vitg": Published(f"{_META}vitg.pt", _PRETRAINED.format("ViT-g, 256 px"), about_gb=16.5),
    "vjepa2-vitg-384": Published(f"{_META}vitg-384.pt", _PRETRAINED.format("ViT-g, 384 px")),
    "vjepa1-vitl": Published(
        f"{_META_1}vitl16/vitl16.pth.tar", _VJEPA_1.format("ViT-L, 224 px"), about_gb=5.1
    ),
    "vjepa1-vith": Published(f"{_META_1}vith16/vith16.pth.tar", _VJEPA_1.format("ViT-H, 224 px")),
    "vjepa1-vith-384": Published(
        f"{_META_1}vith16-384/vith16-384.pth.tar", _VJEPA_1.format("ViT-H, 384 px")
    ),
    "vjepa2-ac-vitg": Published(
        f"{_META}vjepa2-ac-vitg.pt",
        "V-JEPA 2-AC: encoder ViT-g, action-conditioned predictor, optimiser",
        about_gb=11.76,
    ),
    "jepa-wms-vjepa2-ac-oss": Published(
        f"{_JEPA_WMS}vjepa2_ac_oss.pth.tar",
        "the weights of vjepa2-ac-vitg without optimiser",
        size=5_269_870_323,
    ),
    "jepa-wms-vjepa2-ac-droid": Published(
        f"{_JEPA_WMS}vjepa2_ac_droid.pth.tar",
        "V-JEPA 2-AC trained anew with the corrected loss: predictor, optimiser",
        size=3_662_844_455,
        encoder="vjepa2-vitg",
    ),
} | {
    f"vjepa2-{name}": Published(f"{_META}evals/{name}.pt", _PROBE.format(name))
    for name in (
        "ssv2-vitl-16x2x3",
        "diving48-vitl-256",
        "ek100-vitl-256",
        "ssv2-vitg-384-64x2x3",
        "diving48-vitg-384-32x4x3",
        "ek100-vitg-384",
    )
}
