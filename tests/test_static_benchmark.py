"""The GPU's benchmark runs whole at a tiny size on a CPU, and its arithmetic is right."""

import csv
import json
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla_bench_policies.static.check import Check, checks
from vla_bench_policies.static.factorial import effects
from vla_bench_policies.static.ledger import Ledger
from vla_bench_policies.static.models import LLAMA_7B, RandomModel, Sizes, openvla, openvla_oft
from vla_bench_policies.static.pointwise import PLAIN
from vla_bench_policies.static.roofline import Ceilings, Stage, of_one_more, of_prefill, of_sight
from vla_bench_policies.static.stock import StockLlama
from vla_bench_policies.static.timing import Watchmaker, speed_up
from vla_bench_policies.static.vision import DINOV2, SIGLIP

CPU = torch.device("cpu")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_steps.py"
MOST_BYTES = 1_000_000


def script() -> Any:
    spec = spec_from_file_location("gpu_steps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


def test_the_benchmark_runs_whole_at_a_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = ["check", "roofline", "ladder", "reuse", "methods", "factorial"]
    options = ["--small", "--plain", "--device", "cpu", "--repetitions", "1", "--shape", "openvla-oft"]
    module = script()
    module.BUDGETS, module.RATIOS = (0.6,), (0.0, 0.6, 0.9)
    module.PLAN = tuple(entry for entry in module.PLAN if not entry.endswith("25"))
    module.main([*options, "--out", str(tmp_path), "--sections", *every])
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["errors"] == []
    assert "PASSED" in told["check recorded"]
    assert float(told["towers_error"]) < 1e-5
    files = list(tmp_path.iterdir())
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) < MOST_BYTES
    ladder = [row["rung"] for row in rows(tmp_path / "ladder.csv") if row["shape"] == "openvla-oft"]
    assert ladder == ["stock", "static", "+ graphs", "+ compiled", "+ 8-bit weights"]
    reuse = [row for row in rows(tmp_path / "reuse.csv") if row["shape"] == "openvla-oft"]
    assert {row["verb"] for row in reuse} == {"none", "reuse", "delete"}
    assert [int(row["rows"]) for row in reuse if row["verb"] == "reuse"] == [221, 192, 128]
    cells = [row for row in rows(tmp_path / "factorial.csv") if row["kind"] == "cell"]
    assert len(cells) == 32
    assert "policy_speed_up" in capsys.readouterr().out


def test_a_section_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    options = ["--small", "--plain", "--device", "cpu", "--repetitions", "1", "--out", str(tmp_path)]
    script().main([*options, "--sections", "energy", "roofline", "--shape", "openvla"])
    told = json.loads((tmp_path / "run.json").read_text())
    assert [error["what"] for error in told["errors"]] == ["energy openvla"]
    assert len(rows(tmp_path / "roofline.csv")) == 4


def test_a_section_that_has_no_time_left_is_said_to_be_skipped(tmp_path: Path) -> None:
    options = ["--small", "--plain", "--device", "cpu", "--minutes", "0", "--out", str(tmp_path)]
    script().main([*options, "--sections", "roofline"])
    assert json.loads((tmp_path / "run.json").read_text())["skipped roofline"] == "no time left"


def test_what_the_static_decoder_computes_passes_its_own_check() -> None:
    with torch.no_grad():
        found = list(checks(CPU, {"eager": (PLAIN, False, False)}))
    assert len(found) > 20
    assert [one for one in found if not one.passed] == []
    assert not Check("", float("nan"), 1.0).passed


def test_stock_transformers_answer_as_the_static_decoder() -> None:
    model = RandomModel(Sizes.small(), CPU, torch.float32)
    stock = StockLlama(model.weights)
    with torch.no_grad():
        for prompt in (openvla(64), openvla_oft(2, 64)):
            decoder = model.decoder(prompt, PLAIN)
            x = decoder.rows[: prompt.n_given]
            found = stock.one_pass(x, prompt.one_pass)
            torch.testing.assert_close(found[-5:], decoder.whole(5), rtol=1e-4, atol=1e-4)
        decoder = model.decoder(openvla(64), PLAIN)
        answer = model.answer(openvla(64), decoder)
        answer.begin(decoder.whole(1))
        for _ in range(answer.n_more):
            answer.more()
        tokens = stock.tokens(decoder.rows[: decoder.n_given], 7)
    assert getattr(answer, "tokens").tolist() == tokens.tolist()  # noqa: B009


def test_floors_follow_operations_or_bytes() -> None:
    ceilings = Ceilings(copied=3e12, read=3e12, wide=8e14, narrow=1.6e15)
    assert Stage(8 * 10**12, 13 * 10**9).floor_ms(ceilings) == pytest.approx(10.0)
    assert Stage(8 * 10**11, 12 * 10**9).floor_ms(ceilings) == pytest.approx(4.0)
    assert (LLAMA_7B.layers, LLAMA_7B.width) == (32, 4096)
    small = RandomModel(Sizes.small(), CPU, torch.float32)
    decoder = small.decoder(openvla_oft(2, 64), PLAIN)
    whole, part = (of_prefill(decoder, n_rows, 16) for n_rows in (decoder.n_given, 128))
    assert 1 < whole.flops / part.flops < decoder.n_given / 128
    assert of_one_more(small.decoder(openvla(64), PLAIN)).n_bytes > small.weights.layer_bytes
    sight = of_sight(small.towers, small.projector, 2)
    assert sight["vision"].n_bytes == sum(weight.nbytes for weight in small.towers.parameters())
    assert (DINOV2.prefix_rows, SIGLIP.prefix_rows) == (5, 0)


def test_effects_are_those_that_were_put_in() -> None:
    times = {
        setting: 10.0 * (0.5 if setting[0] else 1) * (0.8 if setting[1] else 1) * (1.3 if all(setting[:2]) else 1)
        for setting in product((False, True), repeat=3)
    }
    found = effects(times, ("reuse", "graphs", "nothing"))
    assert found["reuse", "graphs"] == pytest.approx(1.3)
    assert found["reuse",] == pytest.approx(0.5 * 1.3**0.5)
    assert found["nothing",] == pytest.approx(1.0)
    assert found["reuse", "graphs", "nothing"] == pytest.approx(1.0)


def test_a_speed_up_has_an_interval_that_holds_it() -> None:
    rng = np.random.default_rng(0)
    slow = rng.normal(20, 1, 50).tolist()
    ratio, low, high = speed_up(slow, [one / 2 for one in slow], rng)
    assert low <= ratio <= high
    assert ratio == pytest.approx(2.0)


def test_steps_that_are_compared_take_turns() -> None:
    turns: list[str] = []
    steps = {name: lambda name=name: turns.append(name) for name in "ab"}
    found = Watchmaker(CPU, repetitions=20).compare(steps, np.random.default_rng(0))
    measured = turns[6:]
    assert all({measured[index], measured[index + 1]} == {"a", "b"} for index in range(0, 40, 2))
    assert measured[::2] != ["a"] * 20
    assert found["a"].summary("own")["own_n"] == 20


def test_stages_add_up_to_the_whole() -> None:
    def step(mark: Any) -> None:
        for stage in ("gate", "vision"):
            mark(stage)

    found = Watchmaker(CPU, repetitions=1).stages(step)
    assert found["total"] == pytest.approx(found["gate"] + found["vision"])


def test_a_table_is_complete_after_every_row(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, CPU, {})
    ledger.add("some", one=1)
    ledger.add("some", one=2, two=1.23456789)
    found = rows(tmp_path / "some.csv")
    assert found == [{"one": "1", "two": ""}, {"one": "2", "two": "1.2346"}]
    assert (tmp_path / "some.csv").read_text().startswith("# command: ")
    assert ledger.attempt("nothing", lambda: 1 // 0) is None
    assert "ZeroDivisionError" in json.loads((tmp_path / "run.json").read_text())["errors"][0]["error"]
