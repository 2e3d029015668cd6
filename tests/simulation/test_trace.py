"""A run told to people: the text timeline and the space-time diagram, and that telling changes nothing."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from node.__main__ import main
from node.simulation.config import SimulationConfig
from node.simulation.diagram import draw_diagram
from node.simulation.diagram_page import COLORS
from node.simulation.engine_world import EngineWorld, simulate
from node.simulation.timeline import Timeline
from node.simulation.trace import format_trace

CONFIG = SimulationConfig(loss=0.2, crashes=0.02, partitions=1.0, villains=("equivocator",))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def timeline(seed: int) -> Timeline:
    kept = Timeline()
    EngineWorld(CONFIG, seed, timeline=kept).run()
    return kept


def test_a_run_that_is_watched_is_the_same_run(seed: int) -> None:
    assert simulate(CONFIG, seed, timeline=Timeline()) == simulate(CONFIG, seed)


def test_the_trace_tells_of_everything_in_order_and_in_columns(timeline: Timeline, seed: int) -> None:
    lines = list(format_trace(timeline, CONFIG, seed))[3:]
    times = [int(line[:6]) for line in lines]
    assert times == sorted(times)
    words = {line[14:27].strip() for line in lines}
    assert words >= {"starts", "enters", "proposal", "notarize", "notarization", "finalization", "FINAL"}
    assert words >= {"CUT", "HEALS", "CRASHES"}
    assert any("lost" in line for line in lines)
    assert all(line[6:8] == "  " and line[12:14] == "  " for line in lines)


def test_the_diagram_is_one_well_formed_file_that_asks_for_nothing(timeline: Timeline, seed: int) -> None:
    page = draw_diagram(timeline, CONFIG, seed, "assay simulate --seed 1")
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert re.findall(r"""(?:src|href)\s*=|url\((?!#)|@import""", page) == []
    svg = root.find(f".//{SVG}svg")
    assert svg is not None
    drawn = {name for element in svg.iter() for name in element.get("class", "").split()}
    assert drawn >= {
        "proposal",
        "notarize",
        "notarization",
        "lost",
        "cut",
        "final",
        "crash",
        "view",
        "heal",
        "up",
    }
    for line in svg.iter(f"{SVG}line"):
        if "m" in line.get("class", "").split():
            assert line.get("marker-end", "url(#tip-").startswith("url(#tip-")
            assert line.find(f"{SVG}title") is not None
    text = "".join(root.itertext())
    assert all(kind in text for kind in COLORS)
    assert "Time runs to the right" in text
    assert "equivocator" in text


def test_a_violation_stands_on_top_of_the_diagram(seed: int) -> None:
    kept = Timeline()
    kept.add(0, 0, "start", "")
    kept.add(5, -1, "violation", "agreement: a < b & c")
    page = draw_diagram(kept, CONFIG, seed, "replay")
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert "Violation: agreement: a < b & c" in "".join(root.itertext())


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, page = tmp_path / "run.txt", tmp_path / "run.html"
    words = ["simulate", "--faulty-ms", "300", "--trace", str(trace), "--html", str(page)]
    assert main(words) == 0
    assert "notarization" in trace.read_text()
    assert str(page) in page.read_text()
    assert "trace hash" in capsys.readouterr().out


def test_a_trace_goes_to_the_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--faulty-ms", "300", "--trace"]) == 0
    assert "enters" in capsys.readouterr().out
