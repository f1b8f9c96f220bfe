"""SIMPLER's Google robot: its suites against the official scripts."""

import hashlib
import json
from typing import Any

import pytest

from vla_bench.suite import Suite
from vla_bench.types import ActionSpec
from vla_bench_envs.simpler_google.protocols import PROTOCOLS
from vla_bench_envs.simpler_google.starts import Playbook
from vla_bench_envs.simpler_google.suites import SUITES, find_suite

MATCHING, VARIANTS = "simpler-google-matching@1", "simpler-google-variants@1"

SWEPT = {
    MATCHING: [
        ("pick_horizontal_coke_can", 100, "b3ee45947d876d7d55c22a71400c8527ed62e8963dce9274070c3ed7722eefed"),
        ("pick_vertical_coke_can", 100, "d3c7bbe39c706b11cdd1c4a2a93951a6b392afa062a23f5f4a0cc607cacdbf14"),
        ("pick_standing_coke_can", 100, "fba523a7dd14941e9c2dd1abadba143c585a6ab0d50095737fa678b071c289d6"),
        ("move_near", 240, "84b2598607640d25073b0671f07435a69058dc28b95b0ad82a95734321876718"),
        ("open_top_drawer", 36, "dbd200b7eec7df042f915c95613f99906d020ad4c274203d9ed09f9d6349528f"),
        ("open_middle_drawer", 36, "cd0cf0229b50dd328c1864b103abc81f3e4e4a9aa8fc8d5e21747bcf265d35c5"),
        ("open_bottom_drawer", 36, "e4dcedc35a25cd473d2804a8001bc72c8960bfb820a0041f3777ff43154a53a0"),
        ("close_top_drawer", 36, "63bfe185a13903d0f6aa9be9a39e92079c6bdeff749b96498cede41d3749f6c2"),
        ("close_middle_drawer", 36, "aa9548e9c3a4ff1ccee147721fb9ce2fccbe44b6acd2df256e82d8268146f031"),
        ("close_bottom_drawer", 36, "97f9a00732d77747acd7275f7eab2a0096c51c892165521b14905118e3c18733"),
        ("place_apple_in_closed_top_drawer", 108, "9c47bc7eb22ac7e6ea802d9a01e8ed2e8af5a84bdddc4bc1d3edc62d8c653d12"),
    ],
    VARIANTS: [
        ("pick_horizontal_coke_can", 225, "1aa31ebf436a29bbbb5d991ca03f54dd3ab950e53acb20a19c588d4096331c9b"),
        ("pick_vertical_coke_can", 225, "2f6098e4df63efac9259f399bd6398927ffc8f109eb48c25f5834b40aed2eb1d"),
        ("pick_standing_coke_can", 225, "604bd0b287ce8887864cb3f9c46bbcaac0968b2fd68c22a1a9e048d27804771f"),
        ("move_near", 480, "8c3c1d26dd957c582e48101c80be7de2d53856b72ffa93a91752990b44378424"),
        ("open_top_drawer", 63, "27ee34d33ef7dcf434e9eb0f9d04e7e0099a346aeaf88bbb859f970106f62d55"),
        ("open_middle_drawer", 63, "45415b6bddff2c56a5e2b00181b4279bfe113367823f925dc82eef0efe4c2660"),
        ("open_bottom_drawer", 63, "d8e59f96376bfd02db34c9ac41b6ee8c620207ad3b9af731fa4a5b9d4e384fee"),
        ("close_top_drawer", 63, "c5e3e84ccefb1456fc7f0403c44e36fbb3d1900d34dd80ef08bc12ad793f905e"),
        ("close_middle_drawer", 63, "15f75bc5590f2faae864b2fd637392a29dd12d185dfe4f4c39dd9fe8b3fdc922"),
        ("close_bottom_drawer", 63, "c026839cc0487f5fa8788f0801263ad847611503db6a7c679a36ad3af004d429"),
        ("place_apple_in_closed_top_drawer", 189, "bae25d8711a385bcc7b9f07226af31787190f9689f4831bad246b05b209268d2"),
    ],
}
"""Episodes of a task and the hash of their list. Source: SimplerEnv at 4ab7178, `scripts/rt1_*.sh`, run with a `python`
that writes its arguments down; each command without its checkpoint once, without `*AltGoogleCamera*`, expanded as
`evaluation/argparse.py` and `maniskill2_evaluator` do."""


def as_listed(book: Playbook) -> list[dict[str, Any]]:
    """Return a task's episodes in the form of which the hashes above were taken."""
    return [
        {
            "env": start.env_id,
            "scene": start.scene,
            "overlay": start.overlay,
            "options": [list(option) for option in start.options],
            "horizon": book.horizon,
            "robot": [*start.robot_xy_m, start.robot_yaw_rad],
            "object": list(start.object_xy_m) if start.object_xy_m else None,
            "episode": start.episode_id,
        }
        for start in book.starts
    ]


@pytest.mark.parametrize("name", SWEPT)
def test_starts_are_those_of_the_official_scripts_in_their_order(name: str) -> None:
    found = [
        (book.name, len(book.starts), hashlib.sha256(json.dumps(as_listed(book), sort_keys=True).encode()).hexdigest())
        for book in SUITES[name].playbooks
    ]
    assert found == SWEPT[name]


def test_published_trials_are_the_grids_without_their_variations() -> None:
    """25 a way the can lies, 60, 27 for three drawers, 27: `tools/calc_metrics_evaluation_videos.py`, `n_trials_*`."""
    starts = [len(book.starts) for book in SUITES[MATCHING].playbooks]
    assert [n // 4 for n in starts] == [25, 25, 25, 60, 9, 9, 9, 9, 9, 9, 27]
    assert [len(book.starts) for book in SUITES[VARIANTS].playbooks] == [225] * 3 + [480] + [63] * 6 + [189]


@pytest.mark.parametrize("name", SWEPT)
def test_a_suite_is_a_suite_of_eleven_tasks(name: str) -> None:
    suite = find_suite(name)
    assert isinstance(suite, Suite)
    assert suite.default_protocol in suite.protocols()
    tasks = suite.tasks()
    assert [task.horizon for task in tasks] == [80] * 4 + [113] * 6 + [200]
    assert {task.control_hz for task in tasks} == {3.0}
    assert len({start.sha256 for book in suite.playbooks for start in book.starts}) == sum(n for _, n, _ in SWEPT[name])


def test_actions_mean_what_cogact_answers_on_this_robot() -> None:
    expected = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="close_is_positive")
    tasks = [task for suite in SUITES.values() for task in suite.tasks()]
    assert all(task.action_spec.differences(expected) == [] for task in tasks)
    assert {protocol.gripper for protocol in PROTOCOLS.values()} == {"close_is_positive"}
    assert len({protocol.hash for protocol in PROTOCOLS.values()}) == len(PROTOCOLS) == 2
