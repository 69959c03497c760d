"""The examples that want a server: what is learned, and what is plotted, is what it should be."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from harness.server import Server

from headrace import Client
from headrace.sample import generate

ROOT = Path(__file__).parents[2]

MARGIN = 1.1
"""How many times as good as popularity BPR must be. It was 1.27 by recall and 1.20 by NDCG (2026-11-30)."""


def example(name: str) -> ModuleType:
    """An example as a module."""
    found = importlib.util.spec_from_file_location(name, ROOT / "clients/python/examples" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_bpr_beats_popularity_by_its_margin_on_the_generated_shop(
    client: Client, tenant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = example("train")
    shop = generate(train.SHOP, tmp_path)
    train.make_dataset(client, tenant, shop.items, shop.interactions)
    found = train.train(client, tenant)
    for ours, popular in zip(found["bpr"], found["popularity"], strict=True):
        assert ours > MARGIN * popular > 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown[-2:]] == [
        ["popularity", "test", "recall@20"],
        ["bpr", "test", "recall@20"],
    ]
    assert len([line for line in shown if line.startswith("epoch")]) == train.EPOCHS


def test_it_trains_on_a_real_slice_too(client: Client, tenant: str) -> None:
    """Five days of a wholesaler: test has 70 users, of whom anything hits a few, so nobody must win."""
    train, files = example("train"), ROOT / "tests" / "data" / "online_retail"
    train.make_dataset(client, tenant, files / "items.csv", files / "interactions.csv")
    found = train.train(client, tenant)
    assert all(0 <= value <= 1 for values in found.values() for value in values)


def test_negatives_are_plotted_beside_theory(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, picture = example("plot_negatives"), tmp_path / "negatives.svg"
    monkeypatch.setattr(plot, "SEEDS", 1)
    monkeypatch.setattr("sys.argv", ["plot_negatives", "--address", server.address, "-o", str(picture)])
    plot.main()
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in shown] == ["uniform", "popularity", "zipf", "mixed", "exposed"]
    # Of 400 items: five standard deviations.
    assert all(0.6 < float(line[-1]) < 1.35 for line in shown)
    dots = ET.parse(picture).getroot().findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 5 * 400
