import pytest
import torch
from torch.nn import functional as F

from sdviz.nn.classifier import ScanClassifier, SmallClassifier, build_classifier
from sdviz.nn.encoder import Encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_logits_of_any_size_of_image() -> None:
    classifier = SmallClassifier(5, width=4).eval()
    for n, size in ((1, 8), (3, 32), (2, 33)):
        assert classifier(torch.randn(n, 3, size, size)).shape == (n, 5)


def test_its_config_builds_it_again() -> None:
    first = SmallClassifier(5, width=4).eval()
    again = SmallClassifier(**first.config).eval()
    again.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(x), first(x))
    assert first.config == {"n_classes": 5, "width": 4}


def test_in_eval_mode_an_image_does_not_depend_on_its_batch() -> None:
    classifier = SmallClassifier(3, width=4).eval()
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(classifier(x)[2:3], classifier(x[2:3]), rtol=0, atol=1e-5)


def test_it_learns() -> None:
    torch.manual_seed(0)
    classifier = SmallClassifier(2, width=4)
    labels = torch.arange(16) % 2
    x = torch.randn(16, 3, 8, 8) * 0.1 + (labels * 2 - 1)[:, None, None, None] * 0.2
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(classifier(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in classifier.head.parameters())


def test_classes_that_are_kept_have_the_logits_they_had() -> None:
    torch.manual_seed(0)
    classifier = ScanClassifier(Encoder("small", 4), 5).eval()
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        before = classifier(x)
        classifier.keep_classes(torch.tensor([1, 4]))
        torch.testing.assert_close(classifier(x), before[:, [1, 4]])
    again = build_classifier(classifier.config)
    again.load_state_dict(classifier.state_dict())
