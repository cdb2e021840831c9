"""Our V-JEPA 2 modules against those of transformers, with random weights, through real files.

transformers counts positions on a square grid of `crop_size`, whatever the picture's shape. Three
comparisons are fair nevertheless: at `crop_size`; a single tubelet on a picture that is as wide as
`crop_size` but lower, where its frames, rows and columns come out right; and any other shape once
it is told the positions of the real grid.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2RopeAttention

from jepa_gym.checkpoint import export, published
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.models.attentive import AttentiveClassifier

transformers.utils.logging.disable_progress_bar()
TOLERANCE = 2e-4
PATCH = 16
SIDE = 3
SIZES = {
    "head32": {"hidden_size": 64, "num_attention_heads": 2},
    "head80": {"hidden_size": 160, "num_attention_heads": 2, "mlp_ratio": 48 / 11},
}
# (frames, rows, columns): square at crop_size; one tubelet as wide as crop_size
AS_IT_IS = [(4, SIDE, SIDE), (2, SIDE, SIDE), (2, 1, SIDE), (2, 2, SIDE)]
# needs the positions of the real grid: several tubelets, taller than wide, larger than crop_size
TOLD = [(4, 2, SIDE), (6, SIDE, 2), (2, 4, 2), (4, 4, 5), (4, 5, 5)]


def close(got, expected, tolerance=TOLERANCE):
    assert got.shape == expected.shape
    error = (got - expected).abs().max().item()
    assert error <= tolerance
    assert expected.std() > 0.1  # what is compared is not nearly zero


def shaken(module):
    """Move every weight, also those that start as zeros or ones, so that each one matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


@pytest.fixture(params=SIZES)
def theirs(request):
    """Build their classifier, which contains all the rest."""
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        crop_size=SIDE * PATCH,
        frames_per_clip=4,
        num_hidden_layers=3,
        pred_hidden_size=64,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=2,
        pred_num_mask_tokens=3,
        num_pooler_layers=2,
        num_labels=7,
        **SIZES[request.param],
    )
    return shaken(transformers.VJEPA2ForVideoClassification(config))


@pytest.fixture
def folder(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def video(frames, rows, columns):
    return torch.randn(2, 3, frames, rows * PATCH, columns * PATCH)


def tell(model, rows, columns):
    """Give all attention layers of a model of transformers the positions of the real grid."""

    def positions(self, x, masks=None):
        ids = torch.arange(x.shape[1]) if masks is None else masks[:, None]
        return ids // (rows * columns), ids % (rows * columns) // columns, ids % columns

    for module in model.modules():
        if isinstance(module, VJEPA2RopeAttention):
            module.get_position_ids = positions.__get__(module)


def ask(model, clip):
    """Return the features of transformers for a video (B, 3, T, Y, X)."""
    return model.get_vision_features(clip.transpose(1, 2))


def some_ids(tokens, kept, seed):
    """Draw `kept` ids for each of two clips, and as many others; neither in order."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(2)])
    return ids[:, :kept], ids[:, kept : 2 * kept]


@pytest.mark.parametrize("shape", AS_IT_IS + TOLD)
def test_encoder(shape, theirs, folder):
    encoder = published.load(folder, "encoder")
    assert isinstance(encoder, VideoTransformer)
    clip = video(*shape)
    if shape in TOLD:
        untold = ask(theirs.vjepa2, clip)
        assert (untold - encoder(clip)).abs().max() > 100 * TOLERANCE
        tell(theirs, *shape[1:])
    close(encoder(clip), ask(theirs.vjepa2, clip))


def test_encoder_of_a_single_frame(theirs, folder):
    """transformers repeats it; we are given it twice."""
    encoder, clip = published.load(folder, "encoder"), video(1, SIDE, SIDE)
    close(encoder(clip.expand(-1, -1, 2, -1, -1)), ask(theirs.vjepa2, clip))


@pytest.mark.parametrize("shape", AS_IT_IS + TOLD)
def test_masked_predictor(shape, theirs, folder):
    frames, rows, columns = shape
    encoder = published.load(folder, "encoder")
    predictor = published.load(folder, "masked_predictor", img_size=(rows * PATCH, columns * PATCH))
    tokens = frames // 2 * rows * columns
    context, targets = some_ids(tokens, max(1, tokens // 3), seed=tokens)
    if shape in TOLD:
        tell(theirs, rows, columns)
    clip = video(*shape)
    expected = theirs.vjepa2(
        clip.transpose(1, 2), context_mask=[context], target_mask=[targets]
    ).predictor_output.last_hidden_state
    features = torch.take_along_dim(encoder(clip), context[..., None], dim=1)
    close(predictor(features, context, targets, mask_index=1), expected)  # theirs is always 1
    other = predictor(features, context, targets, mask_index=2)
    assert (other - expected).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("shape", AS_IT_IS + TOLD)
def test_classifier(shape, theirs, folder):
    encoder = published.load(folder, "encoder")
    classifier = published.load(folder, "attentive_classifier")
    clip = video(*shape)
    if shape in TOLD:
        tell(theirs, *shape[1:])
    close(classifier(encoder(clip)), theirs(clip.transpose(1, 2)).logits)
    for module in theirs.pooler.modules():  # the original's 1e-5, where transformers has 1e-6
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    close(classifier(encoder(clip)), theirs(clip.transpose(1, 2)).logits, TOLERANCE / 10)


def ours(width, heads, ratio):
    torch.manual_seed(1)
    encoder = VideoTransformer(width, 3, heads, patch_size=PATCH, mlp_ratio=ratio, rope="v2")
    predictor = MaskedPredictor(
        (SIDE, SIDE), width, 64, 2, 2, num_mask_tokens=3, mlp_ratio=4.0, rope="v2"
    )
    classifier = AttentiveClassifier(width, heads, 7, depth=3)
    return [shaken(module) for module in (encoder, predictor, classifier)]


@pytest.mark.parametrize(("width", "heads", "ratio"), [(64, 2, 4.0), (160, 2, 48 / 11)])
@pytest.mark.parametrize("shape", AS_IT_IS + TOLD)
def test_ours_in_transformers(shape, width, heads, ratio, tmp_path):
    """The other direction, and back again to the same bytes."""
    encoder, predictor, classifier = ours(width, heads, ratio)
    export.hugging_face(tmp_path, encoder, predictor, classifier)
    model, report = transformers.VJEPA2ForVideoClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())  # nothing is missing, unexpected or of another shape
    frames, rows, columns = shape
    predictor.grid = (rows, columns)
    if shape in TOLD:
        tell(model, rows, columns)
    clip, tokens = video(*shape), frames // 2 * rows * columns
    context, targets = some_ids(tokens, max(1, tokens // 3), seed=tokens)
    with torch.no_grad():
        expected = model.vjepa2(clip.transpose(1, 2), context_mask=[context], target_mask=[targets])
        features = encoder(clip)
        close(features, expected.last_hidden_state)
        kept = torch.take_along_dim(features, context[..., None], dim=1)
        predicted = predictor(kept, context, targets, mask_index=1)
        close(predicted, expected.predictor_output.last_hidden_state)
        close(classifier(features), model(clip.transpose(1, 2)).logits)
    kinds = {"encoder": encoder, "masked_predictor": predictor, "attentive_classifier": classifier}
    for kind, module in kinds.items():
        again = published.load(tmp_path, kind).state_dict()
        assert again.keys() == module.state_dict().keys()
        assert all(torch.equal(x, again[name]) for name, x in module.state_dict().items())


def test_sharded_folder(theirs, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    clip = video(4, SIDE, SIDE)
    features = published.load(tmp_path, "encoder")(clip)
    close(features, ask(theirs.vjepa2, clip))
    logits = published.load(tmp_path, "attentive_classifier")(features)
    close(logits, theirs(clip.transpose(1, 2)).logits)


def test_their_files_of_ours_keep_their_bytes(theirs, folder, tmp_path):
    """Theirs, read by us, written by us: the tensors that transformers wrote."""
    parts = [
        published.load(folder, kind)
        for kind in ("encoder", "masked_predictor", "attentive_classifier")
    ]
    export.hugging_face(tmp_path / "again", *parts)
    again = transformers.VJEPA2ForVideoClassification.from_pretrained(tmp_path / "again")
    before = theirs.state_dict()
    assert again.state_dict().keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in again.state_dict().items())
