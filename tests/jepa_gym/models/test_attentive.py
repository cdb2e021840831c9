from __future__ import annotations

import pytest
import torch

from jepa_gym.models import AnticipationHead, AttentiveClassifier, AttentivePooler


def test_the_order_of_tokens_does_not_matter():
    torch.manual_seed(0)
    classifier = AttentiveClassifier(24, 2, num_classes=5, depth=3).requires_grad_(False)
    tokens = torch.randn(2, 9, 24)
    out = classifier(tokens)
    assert out.shape == (2, 5)
    torch.testing.assert_close(classifier(tokens[:, torch.randperm(9)]), out)
    assert not torch.allclose(classifier(tokens[:, :8]), out)


def test_heads_read_their_own_query():
    torch.manual_seed(0)
    head = AnticipationHead(24, 2, verbs=3, nouns=4, actions=5, depth=2).requires_grad_(False)
    tokens = torch.randn(2, 9, 24)
    before = head(tokens)
    assert {name: x.shape for name, x in before.items()} == {
        "verb": (2, 3),
        "noun": (2, 4),
        "action": (2, 5),
    }
    for number, name in enumerate(before):
        head.pooler.query_tokens[:, number] += 1
        after = head(tokens)
        assert [k for k in before if not torch.equal(before[k], after[k])] == [name]
        before = after


def test_every_parameter_learns():
    pooler = AttentivePooler(24, 2, depth=2, num_queries=2)
    pooler(torch.randn(2, 5, 24)).square().sum().backward()
    assert all(p.grad.any() for p in pooler.parameters())


def test_depth_one_is_the_cross_attention_alone():
    names = AttentivePooler(24, 2, depth=1).state_dict()
    assert not any(name.startswith("blocks.") for name in names)


def test_errors():
    with pytest.raises(ValueError, match="`depth` and `num_queries` must be at least 1"):
        AttentivePooler(24, 2, depth=0)
    with pytest.raises(ValueError, match=r"`tokens` must be \(B, N, 24\)"):
        AttentivePooler(24, 2)(torch.zeros(2, 5, 12))
