"""`vla-bench robot ...`: what it refuses, and what it says."""

import pytest
from robots import Desk

from vla_bench import cli
from vla_bench_envs.robot import serving
from vla_bench_envs.robot.errors import ExposureError
from vla_bench_envs.robot.limits import SIMULATED
from vla_bench_envs.robot.log import Log


def test_a_server_beyond_loopback_needs_a_long_token(monkeypatch) -> None:
    for token in ("", "short"):
        monkeypatch.setenv(serving.TOKEN_VARIABLE, token)
        assert serving.token_for("127.0.0.1") == token
        with pytest.raises(ExposureError, match=r"would listen on '192\.168\.0\.4' without a token"):
            serving.token_for("192.168.0.4")
    monkeypatch.setenv(serving.TOKEN_VARIABLE, "sixteen or longer")
    assert serving.token_for("192.168.0.4") == "sixteen or longer"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--limits", "missing.toml"], "missing.toml: cannot be read"),
        (["serve", "--limits", str(SIMULATED), "--host", "0.0.0.0"], "would listen on '0.0.0.0' without a token"),
        (["serve", "--limits", str(SIMULATED), "--image-size", "9"], "--image-size is 9; expected 32 to 512"),
        (["serve", "--limits", str(SIMULATED), "--tls-cert", "c.pem"], "expected both --tls-cert and --tls-key"),
        (
            ["serve", "--limits", str(SIMULATED), "--tls-cert", "c.pem", "--tls-key", "k.pem"],
            "c.pem and k.pem cannot be used for TLS ([Errno 2] No such file or directory)",
        ),
        (["serve", "--robot", "missing.toml"], "missing.toml: cannot be read"),
        (["status", "--url", "ws://127.0.0.1:9"], "no robot server answers at ws://127.0.0.1:9"),
        (["estop", "--url", "http://127.0.0.1:9"], "no robot server answers at http://127.0.0.1:9"),
        (["home", "--url", "ws://127.0.0.1:9"], "no robot server answers at ws://127.0.0.1:9"),
        (["conformance", "--limits", str(SIMULATED), "--driver", "arm"], "no robot driver named 'arm'"),
        (["conformance", "--limits", str(SIMULATED), "--driver", "replay"], "has no log to play (--source)"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(words: list[str], message: str, capsys, monkeypatch) -> None:
    monkeypatch.delenv(serving.TOKEN_VARIABLE, raising=False)
    assert cli.main(["robot", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vla-bench: ")
    assert message in said


@pytest.mark.parametrize("words", [[], ["--robot", "lab.toml", "--limits", str(SIMULATED)]])
def test_no_robot_is_served_without_naming_its_limits_once(words: list[str], capsys) -> None:
    assert cli.main(["robot", "serve", *words]) == 2
    assert "expected either a limits file, or a robot file (--robot) that names one" in capsys.readouterr().err


def test_a_physical_arm_is_not_served_under_the_simulated_ones_name(capsys) -> None:
    for driver in ("franky", "ur", "lerobot"):
        assert cli.main(["robot", "serve", "--limits", str(SIMULATED), "--driver", driver]) == 2
        assert "a physical arm needs a robot file (--robot), which names its suite" in capsys.readouterr().err


def test_conformance_prints_every_promise_and_fails_on_a_broken_one(tmp_path, capsys) -> None:
    desk = Desk().armed()
    for name, gripper_m in (("good", 0.05), ("bad", 0.5)):
        log = Log(tmp_path / f"{name}.mcap")
        obs = desk.ask("a", {"t": "get_obs"})
        obs["state"]["gripper_m"] = gripper_m
        log.write("/obs", {key: obs[key] for key in ("t_cap_ns", "state")}, 1)
        log.close()
    words = ["robot", "conformance", "--limits", str(SIMULATED), "--driver", "replay", "--source"]
    assert cli.main([*words, str(tmp_path / "good.mcap")]) == 0
    assert capsys.readouterr().out.count("kept") == 6
    assert cli.main([*words, str(tmp_path / "bad.mcap")]) == 1
    assert "broken  a state is complete finite and fresh: gripper_m is 0.5" in capsys.readouterr().out
