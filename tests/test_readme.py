"""The code that README shows runs, on a network that is nobody's."""

from __future__ import annotations

import re

import torch
from conftest import ROOT
from torch import nn

from modeconn_lite import fresh_weights

README = (ROOT / "README.md").read_text("utf8")
MAKEFILE = (ROOT / "Makefile").read_text("utf8")


class MyNetwork(nn.Module):
    """BatchNorm and a skip, neither in an nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.leave = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.enter(x)).relu()
        h = h + self.inner(h).relu()
        return self.leave(h.mean(dim=(2, 3)))


def load_checkpoint(network: nn.Module, name: str) -> nn.Module:
    network.load_state_dict(fresh_weights(network, int(name[5])), strict=False)
    return network


def test_code(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    x, y = torch.rand(40, 3, 32, 32), torch.arange(40) % 2
    names = {"MyNetwork": MyNetwork, "load_checkpoint": load_checkpoint}
    names |= {"images": x, "labels": y, "train_images": x, "train_labels": y}
    exec(code, names)
    worst, barrier = map(float, capsys.readouterr().out.split())
    assert 0 <= worst <= 1 and barrier >= 0
    assert 'type="range"' in names["explorer"]._repr_html_()


def test_targets_of_make():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    assert {"book", "test", "notebooks", "handouts"} <= named <= targets
    phony = re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)[0].split()
    assert set(phony) == targets


def test_without_make_the_notebooks_are_compared_as_make_does():
    (by_make,) = re.findall(r"NBVAL +=.*?-m pytest (.*?) -q\n", MAKEFILE, re.DOTALL)
    plain_words = " ".join(README.replace("\\", " ").split())
    assert " ".join(by_make.replace("\\", " ").split()) in plain_words
