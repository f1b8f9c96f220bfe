"""CogACT in our modules answers as the published computation does, with and without a method."""

from pathlib import Path

import numpy as np
import published
import pytest
import torch
from PIL import Image
from published import TASK, PublishedEnv, observation
from published_reference import EXACT_COLOURS, PublishedReference, pixel_values
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.testing import check_policy
from vla_bench_policies.openvla import cogact, diffusion
from vla_bench_policies.openvla.cogact import SETUPS, CogActPolicy
from vla_bench_policies.openvla.ensemble import AdaptiveEnsemble, StickyGripper
from vla_bench_policies.openvla.errors import PublishedCheckpointError


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublishedReference]:
    folder = tmp_path_factory.mktemp("weights") / "small"
    tensors = published.save_cogact(folder)
    return folder, PublishedReference(folder, tensors, heads=32, eps=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    published.save_cogact(folder, grid=4)
    return folder


def of(folder: Path, **options) -> CogActPolicy:
    made = CogActPolicy(str(folder), **{"camera": "agentview", "dtype": "float32"} | options)
    made.reset(TASK, 7)
    return made


def from_pixels(reference: PublishedReference, picture: np.ndarray, instruction: str) -> torch.Tensor:
    """The condition, from a rendered picture that Pillow squeezes to 224 px."""
    shown = np.asarray(Image.fromarray(picture).resize((224, 224), Image.Resampling.BICUBIC))
    return reference.cognition(pixel_values(shown, EXACT_COLOURS), instruction)


def restored(chunk: np.ndarray) -> np.ndarray:
    stats = published.STATISTICS["libero_spatial"]["action"]
    low, high = np.array(stats["q01"]), np.array(stats["q99"])
    found = np.clip(chunk, -1, 1)
    found[:, 6] = np.where(found[:, 6] < 0.5, 0, 1)
    found[:, :6] = (0.5 * (found + 1) * (high - low) + low)[:, :6]
    return found


def watched(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The normalised chunks (16, 7) of all answers from now on, before anything is cut off."""
    chunks: list[np.ndarray] = []

    def denoised(*arguments):
        found = diffusion.denoised(*arguments)
        chunks.append(found[0].double().numpy())
        return found

    monkeypatch.setattr(cogact, "denoised", denoised)
    return chunks


def test_the_action_is_the_independent_one_from_pixels_on(whole, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, reference = whole
    made, draw = of(folder, ensemble=False), torch.Generator().manual_seed(7)
    chunks = watched(monkeypatch)
    for seed in range(10):
        obs = observation(seed, 320)
        found = made.act(obs).actions[0]
        condition = from_pixels(reference, obs["agentview"], obs["instruction"])
        chunk = reference.diffused(condition, torch.randn(1, 16, 7, generator=draw))
        np.testing.assert_allclose(chunks[-1], chunk, atol=1e-4 * np.abs(chunk).max())
        first = restored(chunk)[0]
        np.testing.assert_allclose(found[:3], first[:3], atol=1e-4)
        assert found[6] == (1.0 if first[6] > 0.5 else -1.0)
    assert np.std(chunks, axis=0).min() > 0.01  # the inputs matter, in every entry


def as_simpler_takes_it(action: np.ndarray) -> np.ndarray:
    """Metres, the rotation as a vector (Rodrigues, of the three turns one after the other), an opening of -1 or 1."""
    turns = []
    for axis, angle in enumerate(action[3:6]):
        turn = np.eye(3)
        (i, j), c, s = [(1, 2), (2, 0), (0, 1)][axis], np.cos(angle), np.sin(angle)
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
        turns.append(turn)
    whole = turns[2] @ turns[1] @ turns[0]
    angle = np.arccos((np.trace(whole) - 1) / 2)
    axis = np.array([whole[2, 1] - whole[1, 2], whole[0, 2] - whole[2, 0], whole[1, 0] - whole[0, 1]])
    vector = axis / (2 * np.sin(angle)) * angle
    return np.clip(np.concatenate((action[:3], vector, [1.0 if action[6] > 0.5 else -1.0])), -1, 1)


def test_the_actions_of_an_episode_are_the_independent_ones_from_pixels_through_the_ensemble(whole) -> None:
    """All seven entries of every action, each a mean of what up to seven answers have said of its moment."""
    folder, reference = whole
    made, draw, said, applied = of(folder), torch.Generator().manual_seed(7), [], []
    for seed in range(9):
        obs = observation(seed) | {"instruction": "open the drawer"}
        condition = from_pixels(reference, obs["agentview"], obs["instruction"])
        said.append(restored(reference.diffused(condition, torch.randn(1, 16, 7, generator=draw))))
        now = [said[seed - age][age] for age in range(min(7, seed + 1))]
        alike = [one @ now[0] / (np.linalg.norm(one) * np.linalg.norm(now[0]) + 1e-7) for one in now]
        weights = np.exp(0.1 * np.array(alike))
        expected = as_simpler_takes_it(np.average(now, axis=0, weights=weights))
        applied.append(made.act(obs).actions[0])
        np.testing.assert_allclose(applied[-1], expected, atol=1e-4)
    assert np.std(applied, axis=0)[:6].min() > 1e-3


def test_the_whole_chunk_of_sixteen_actions_is_the_independent_one(whole) -> None:
    folder, reference = whole
    made = of(folder)
    condition = from_pixels(reference, observation(0)["agentview"], "open the drawer")
    noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(1))
    for guidance in (1.0, 1.5, 3.0):
        with torch.inference_mode():
            found = diffusion.denoised(made.network, noise, condition, 10, guidance)[0]
        expected = reference.diffused(condition, noise, guidance)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4 * np.abs(expected).max())


def test_the_noise_levels_are_those_of_a_squared_cosine() -> None:
    signal = diffusion.remaining_signal()
    t = np.arange(1, 100) / 100
    cosine = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(signal[:-1], cosine, rtol=1e-9)
    assert signal[-1] == pytest.approx(signal[-2] * 1e-3)
    assert diffusion.visited(10).tolist() == list(range(0, 100, 10))


def test_noise_that_is_known_is_taken_away_exactly() -> None:
    """A network that sees the truth leads to it, whatever the number of steps."""
    truth, noise = torch.randn(1, 16, 7), torch.randn(1, 16, 7)
    signal = diffusion.remaining_signal()

    class Knows:
        def guided(self, x, level, condition, guidance):
            here = signal[int(level)]
            return (x - here**0.5 * truth) / (1 - here) ** 0.5

    for n_steps in (2, 5, 10, 100):
        found = diffusion.denoised(Knows(), noise, torch.zeros(1, 1), n_steps, 1.5)
        torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-3)


def test_the_ensemble_is_the_mean_of_what_was_said_of_now_weighted_by_its_direction() -> None:
    rng = np.random.default_rng(0)
    chunks, ensemble = rng.normal(size=(9, 16, 7)), AdaptiveEnsemble(horizon=4)
    for step, chunk in enumerate(chunks):
        total, weights = np.zeros(7), 0.0
        for age in range(min(4, step + 1)):
            said = chunks[step - age][age]
            alike = said @ chunk[0] / (np.linalg.norm(said) * np.linalg.norm(chunk[0]) + 1e-7)
            total, weights = total + np.exp(0.1 * alike) * said, weights + np.exp(0.1 * alike)
        np.testing.assert_allclose(ensemble.mixed(chunk), total / weights)


def test_an_ensemble_of_one_is_the_first_action_of_the_answer() -> None:
    chunks = np.random.default_rng(0).normal(size=(3, 16, 7))
    ensemble = AdaptiveEnsemble(horizon=1)
    assert all(np.allclose(ensemble.mixed(chunk), chunk[0]) for chunk in chunks)


def test_a_sticky_gripper_repeats_a_change_and_listens_to_nothing_else_meanwhile() -> None:
    gripper = StickyGripper(repeats=3)
    told = [gripper.told(opening) for opening in (1.0, 0.9, 0.2, 1.0, 0.8, 0.2, 0.9, 0.9, 0.9, 0.9)]
    np.testing.assert_allclose(told, [0.0, 0.1, 0.8, 0.8, 0.8, 0.0, -0.7, -0.7, -0.7, 0.0], atol=1e-12)


def test_a_rotation_is_told_as_a_vector_and_not_as_three_angles(tiny: Path) -> None:
    made = of(tiny)
    np.testing.assert_allclose(made._applied(np.array([0.1, 0, 0, 0.3, 0, 0, 1.0]))[3:6], [0.3, 0, 0], atol=1e-12)
    both = made._applied(np.array([0, 0, 0, 0.3, 0.4, 0, 1.0]))[3:6]
    assert abs(both[2]) > 0.01  # the axis leaves the plane of the two


@pytest.mark.parametrize(("setup", "gripper"), [("widowx", "open_is_positive"), ("google-robot", "close_is_positive")])
def test_a_setup_decides_statistics_camera_and_gripper(setup: str, gripper: str, tiny: Path) -> None:
    made = CogActPolicy(str(tiny), setup=setup)
    made.reset(TASK, 0)
    assert (made._key, made.cameras) == (SETUPS[setup].stats, (SETUPS[setup].camera,))
    assert made.action_spec.gripper == gripper


def test_the_condition_is_told_by_the_token_that_ends_the_prompt(whole) -> None:
    folder, _ = whole
    made = of(folder)
    tokens = made._encoded("open the drawer")
    assert tokens[0, -2:].tolist() == [29871, 2]
    rows, layout, n_wanted = made.rows(torch.randn(1, 256, published.WIDTH), tokens, np.zeros(8))
    assert layout.n_rows == rows.shape[1] == layout.visual.stop + n_wanted
    assert layout.proprio == rows.shape[1] - 1


def test_the_same_seed_is_the_same_episode_and_another_one_is_not(whole) -> None:
    folder, _ = whole
    made = of(folder)
    episodes = []
    for seed in (1, 1, 2):
        made.reset(TASK, seed)
        episodes.append([made.act(observation(step)).actions for step in range(2)])
    assert np.array_equal(episodes[0], episodes[1])
    assert not np.array_equal(episodes[0], episodes[2])


def test_the_policy_keeps_its_contract(tiny: Path) -> None:
    check_policy(CogActPolicy(str(tiny), camera="agentview"), PublishedEnv(64), TASK)


def test_a_method_saves_rows_and_moves_the_answer(whole, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = whole
    full, reusing = of(folder), registry.method("random:0.8").apply(of(folder))
    reusing.reset(TASK, 7)
    chunks = watched(monkeypatch)
    obs = [observation(seed) | {"instruction": "open the drawer"} for seed in (0, 3)]
    answers = [(full.act(one), reusing.act(one)) for one in obs]
    first, first_again, second, second_partial = chunks
    np.testing.assert_allclose(first, first_again, atol=1e-4 * np.abs(first).max())
    assert answers[1][1].rows_reused == 204
    assert np.abs(second - second_partial).max() > 1e-2 * np.abs(second).max()


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_formula_counts_what_torch_counts(guidance: float, tiny: Path) -> None:
    made = of(tiny, guidance=guidance, packed=False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        answer = made.act(observation(0, 64))
    assert answer.flops == counter.get_total_flops()


def test_what_is_no_cogact_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishedCheckpointError, match="there is no such folder"):
        CogActPolicy(str(tmp_path / "nowhere"))
    folder = tmp_path / "broken"
    published.save_cogact(folder, grid=4)
    (file,) = (folder / "checkpoints").glob("*.pt")
    held = torch.load(file)
    del held["model"]["action_model"]["net.x_embedder.linear.weight"]
    torch.save(held, file)
    with pytest.raises(PublishedCheckpointError, match=r"'net.x_embedder.linear.weight' is missing"):
        CogActPolicy(str(folder))
    del held["model"]["action_model"]
    torch.save(held, file)
    with pytest.raises(PublishedCheckpointError, match=r"CogACT-Base.pt: its 'model' has no part 'action_model'"):
        CogActPolicy(str(folder))
    file.unlink()
    with pytest.raises(PublishedCheckpointError, match=r"0 files \*.pt; expected exactly one"):
        CogActPolicy(str(folder))
    (folder / "config.json").write_text('{"vla": {"base_vlm": "siglip-224px+7b"}}')
    with pytest.raises(PublishedCheckpointError, match="base_vlm 'siglip-224px"):
        CogActPolicy(str(folder))


def test_the_tokenizer_may_lie_elsewhere(tiny: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "bare", tmp_path / "llama"
    published.save_cogact(folder, grid=4)
    other.mkdir()
    (folder / "tokenizer.json").rename(other / "tokenizer.json")
    with pytest.raises(PublishedCheckpointError, match=r"there is no tokenizer\.json"):
        CogActPolicy(str(folder))
    CogActPolicy(str(folder), tokenizer=str(other))


@pytest.mark.parametrize(("options", "kind", "found"), [
    ({"steps": 7}, OptionError, "steps is 7; expected a divisor of 100"),
    ({"steps": 0}, OptionError, "steps is 0"),
    ({"guidance": 0.5}, OptionError, "guidance is 0.5; expected a number of at least 1"),
    ({"setup": "widow"}, UnknownNameError, "no setup of CogACT named 'widow'. Did you mean 'widowx'?"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict, kind: type, found: str, tiny: Path) -> None:
    with pytest.raises(kind, match=found):
        CogActPolicy(str(tiny), **options)
