"""What a GPU computes in training. Skipped where there is none; nothing here needs data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from jepa_gym import poses
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.engine.distributed import Processes
from jepa_gym.training.engine.task import Task
from jepa_gym.training.engine.throughput import peak_flops
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.joint import JointConfig, JointModel, joint_losses
from jepa_gym.training.recipes.losses import sigreg
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.world_model import WorldModel

from ..engine.toy import config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, STEPS = torch.device("cpu"), 4
SIZES = {"embed_dim": 32, "depth": 1, "num_heads": 2}


def world_model(kind: str) -> WorldModel:
    torch.manual_seed(0)
    frame = FrameSpec(height=32, width=32, cameras=("left",))
    encoder = EncoderConfig(kind=kind, latent_dim=32, patch_size=8, **SIZES)
    return WorldModel(WorldModelConfig(frame, encoder, PredictorConfig(**SIZES), train_frames=4))


def masked() -> Task:
    model = MaskedModel(world_model("vit"), PredictorConfig(**SIZES), 4)

    def draw(step: int, rows: slice) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        frames = torch.randint(256, (8, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)
        drawn = {"frames": frames, **model.draw_masks(8, generator)}
        return {name: x[rows] for name, x in drawn.items()}

    def loss(batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        return {"loss": model.loss(batch["frames"], batch)}

    return Task(model, draw, loss, dict, "", {}, lambda course: model.update_target_encoder(0.9))


def joint() -> Task:
    model, settings = JointModel(world_model("conv")), JointConfig("data", "output")  # type: ignore[arg-type]

    def draw(step: int, rows: slice) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        frames = torch.randint(256, (8, 5, 32, 32, 3), dtype=torch.uint8, generator=generator)
        states, actions = (torch.randn(8, n, 7, generator=generator) / 10 for n in (4, 3))
        return {"frames": frames[rows], "states": states[rows], "actions": actions[rows]}

    def loss(batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        return joint_losses(model, **batch, config=settings, generator=generator)

    return Task(model, draw, loss, dict, "", {})


def losses(make, folder, device: torch.device, **changes) -> list[float]:
    """The losses of some steps; small steps, so that rounding does not grow."""
    run = replace(config(folder, learning_rate=1e-4, tf32=False), **changes)
    trainer = Trainer(run, make(), Processes(device=device))
    found = []
    for _ in range(STEPS):
        trainer.take_step(STEPS)
        found.append(trainer.sums[0].item())
        trainer.counted = 0
    trainer.batches.close()
    return found


@pytest.mark.parametrize("make", [masked, joint])
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-4),
        ({"channels_last": True}, 1e-4),
        ({"checkpoint_activations": True}, 1e-4),
        ({"compile": True}, 1e-3),
        ({"tf32": True}, 1e-2),
        ({"bf16": True}, 3e-2),
    ],
    ids=lambda x: next(iter(x), "float32") if isinstance(x, dict) else "",
)
def test_a_gpu_has_the_losses_of_the_cpu(make, changes, tolerance, tmp_path):
    gpu = torch.device("cuda", 0)
    expected = losses(make, tmp_path, CPU)
    assert losses(make, tmp_path, gpu, **changes) == pytest.approx(expected, rel=tolerance)


def test_what_must_be_exact_is_float32_under_autocast():
    gpu = torch.device("cuda", 0)
    latents, states = torch.randn(16, 4, 8, device=gpu), torch.randn(4, 7, device=gpu)
    exact = sigreg(latents.cpu(), 8, torch.Generator().manual_seed(0))
    composed = poses.difference(states[:1].cpu(), states[1:2].cpu())
    with torch.autocast("cuda", torch.bfloat16):
        rounded = nn.Linear(8, 8, device=gpu)(latents)
        found = sigreg(latents, 8, torch.Generator().manual_seed(0))
        difference = poses.difference(states[:1], states[1:2])
    assert rounded.dtype == torch.bfloat16
    assert found.dtype == difference.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(difference.cpu(), composed, rtol=1e-5, atol=1e-5)


def test_the_share_of_peak_is_measured_on_the_gpu(tmp_path):
    assert peak_flops(torch.device("cuda", 0), torch.bfloat16, 1) > 1e11
