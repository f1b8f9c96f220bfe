"""Gates learn from the published policies by the same trainer, and what they learn on is what the adapters compute."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from published import TASK, PublishedEnv, observation
from published_reference import PublishedReference
from recordings import write_dataset
from torch import Tensor

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.testing import check_method
from vla_bench_policies.acl.command import TrainAcl
from vla_bench_policies.lac.flow import difference
from vla_bench_policies.lac.gates import KIND, GateConfig, Gates
from vla_bench_policies.lac.training.command import TrainLac
from vla_bench_policies.lac.training.losses import Losses
from vla_bench_policies.lac.training.recipe import GateRecipe
from vla_bench_policies.learned import checkpoint, trainer
from vla_bench_policies.learned.blend import _blended
from vla_bench_policies.learned.command import NETWORKS, UnteachableError
from vla_bench_policies.learned.trainer import NetworkTrainer
from vla_bench_policies.learned.windows import WindowBatch, Windows
from vla_bench_policies.openvla import answers, cogact
from vla_bench_policies.openvla.cogact import CogActPolicy
from vla_bench_policies.openvla.model import Trunk
from vla_bench_policies.openvla.noise_teaching import DRAWS
from vla_bench_policies.openvla.oft import OpenVlaOftPolicy
from vla_bench_policies.openvla.policy import OpenVlaPolicy, TrunkPolicy
from vla_bench_policies.reference.training import frames
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule

SAVED = {"openvla": published.save_openvla, "openvla-oft": published.save_oft, "cogact": published.save_cogact}
MADE: dict[str, Callable[..., TrunkPolicy]] = {
    "openvla": OpenVlaPolicy, "openvla-oft": OpenVlaOftPolicy, "cogact": CogActPolicy,
}  # fmt: skip
OPTIONS = {"openvla": {}, "openvla-oft": {}, "cogact": {"camera": "agentview", "stats": "bridge_orig"}}
KINDS = list(SAVED)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(trainer, "VALIDATION_WINDOWS", 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint of each kind, which sees 56 px."""
    found = {}
    for kind, save in SAVED.items():
        found[kind] = tmp_path_factory.mktemp("weights") / kind
        save(found[kind], grid=4)
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("recorded") / "squares", px=256)


def made(kind: str, folder: Path, **options) -> TrunkPolicy:
    policy = MADE[kind](str(folder), **OPTIONS[kind] | {"dtype": "float32", "packed": False} | options)
    policy.reset(TASK, 0)
    return policy


def spec(kind: str, folder: Path) -> str:
    options = "".join(f",{name}={value}" for name, value in OPTIONS[kind].items())
    return f"{kind}:{folder},dtype=float32{options}"


def watched(policy: TrunkPolicy, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the policy makes its actions of from now on: scores of tokens, a chunk, a condition."""
    found: list[Tensor] = []

    def kept(place: int, plain: Callable[..., Tensor], gives: bool):
        def call(*arguments):
            result = plain(*arguments)
            found.append(result if gives else arguments[place])
            return result

        return call

    monkeypatch.setattr(Trunk, "scores", kept(0, Trunk.scores, gives=True))
    monkeypatch.setattr(cogact, "denoised", kept(2, cogact.denoised, gives=False))
    if isinstance(policy, OpenVlaOftPolicy):
        policy.regressed = kept(0, policy.regressed, gives=True)
    return found


def as_batch(policy: TrunkPolicy, obs: dict, chunk: Tensor) -> WindowBatch:
    shown = np.stack([policy.shown(obs[camera]) for camera in policy.cameras or ()])
    return WindowBatch(
        images=torch.from_numpy(shown).float()[None, None],
        flow=torch.zeros(1, 0, 1, 1, 1, 2),
        tokens=torch.tensor([policy.prompter.tokens(obs["instruction"])]),
        proprio=torch.from_numpy(obs["proprio"])[None, None],
        chunk=chunk[None, None],
        within=torch.ones(1, 1, len(chunk), dtype=torch.bool),
    )


@pytest.mark.parametrize("first_layer", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_hard_training_forward_is_the_sparse_inference_forward_of_the_adapter(
    kind: str, first_layer: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = made(kind, folders[kind])
    teaching = plain.teaching(first_layer)
    n_rows = teaching.teacher.sight.n_visual
    rng = np.random.default_rng(0)
    plans = [rng.random(n_rows) < 0.6 for _ in range(3)]

    class Given(CacheRule):
        def plan(self, step):
            return RowPlan.full(n_rows, published.LAYERS).reuse(plans[step.index - 1], from_layer=first_layer)

    policy = plain.with_rule(Given())
    policy.reset(TASK, 0)
    seen = watched(policy, monkeypatch)
    remembered, changed = None, 0.0
    for index in range(4):
        seen.clear()
        obs = observation(index, 64) | {"instruction": "open the drawer"}
        assert policy.act(obs).rows_reused == (0 if index == 0 else plans[index - 1].sum())
        sparse = torch.cat(seen)[None] if kind == "openvla" else seen[0]
        rows, layout = teaching.teacher.window_rows(as_batch(policy, obs, torch.zeros(teaching.reader.chunk, 7)))
        if kind == "openvla":  # given are the tokens that it has decoded
            rows[:, 0, layout.action] = plain.trunk.embed(sparse.argmax(dim=-1)[:, :-1])
        mask = None if index == 0 else torch.from_numpy(~plans[index - 1]).float()[None]
        full = teaching.teacher.look(rows[:, 0], layout)
        looked = teaching.teacher.look(rows[:, 0], layout, mask, remembered)
        remembered = looked.remembered
        largest = float(sparse.abs().max())
        torch.testing.assert_close(looked.answer.view_as(sparse), sparse, rtol=0, atol=1e-4 * max(1.0, largest))
        changed = max(changed, float((looked.answer - full.answer).abs().max()) / largest)
    assert changed > 1e-2  # what is reused is not what would be computed


def digest(policy: TrunkPolicy) -> str:
    """A hash of every weight that the policy has."""
    trunk, found = policy.trunk, hashlib.sha256()
    every = [*trunk.towers.state_dict().values(), *trunk.projector.state_dict().values(), trunk.words, trunk.scorer]
    for layer in trunk.stack._layers:
        products = (layer.qkv, layer.out, layer.gate_up, layer.down)
        every += [cell.cell_contents for product in products for cell in product.__closure__]
        every += [layer.norm_in, layer.norm_out]
    for part in ("_head", "_projector", "network"):
        if hasattr(policy, part):
            every += getattr(policy, part).state_dict().values()
    for weight in every:
        if weight is not None:
            assert weight.grad is None
            found.update(weight.detach().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_means_frozen(kind: str, folders: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    policy = made(kind, folders[kind])
    teaching = policy.teaching(0)
    before = digest(policy)
    config = GateConfig(flow="difference", grid=4, widths=(8, 16, 16), hidden=16)
    recipe = GateRecipe(gates=config, steps=3, batch=2, window=3, stride=2, warmup_steps=0, task_loss="distill")
    reader = teaching.reader
    data = frames.load([dataset], reader.cameras, reader.picture_px, tmp_path, reader.preparation)
    windows = Windows(data, reader, recipe, difference)
    torch.manual_seed(0)
    gates = Gates(config)
    first = {name: weight.clone() for name, weight in gates.named_parameters()}
    NetworkTrainer(recipe, gates, Losses(recipe, gates, teaching.teacher), windows, tmp_path, {}).run()
    assert digest(policy) == before
    moved = {name for name, weight in gates.named_parameters() if not torch.equal(weight, first[name])}
    assert {name.partition(".")[0] for name in moved} == {"stem", "selector", "predictor"}


@pytest.mark.parametrize("kind", KINDS)
def test_gates_trained_by_the_command_load_and_run_on_the_adapter(
    kind: str, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    first = TrainLac(
        (dataset,), policy=spec(kind, folders[kind]), stage=1, out=tmp_path / "one", flow="difference", steps=3,
        batch=2, window=2, stride=2, threads=1, cache=tmp_path,
    )  # fmt: skip
    assert first.run() == 0
    second = TrainLac(**vars(first) | {"stage": 2, "begin": tmp_path / "one" / NETWORKS, "out": tmp_path / "two"})
    assert second.run() == 0
    path = tmp_path / "two" / NETWORKS
    trained = checkpoint.load(path, KIND)
    plain = made(kind, folders[kind])
    assert trained.policy == plain.trunk.sha256
    assert trained.network.config.grid == 4
    assert trained.history["pictures"] == plain.preparation
    assert set(trained.history["validation"]) >= {"held_out_task", "held_out_task_full", "held_out_distance"}
    assert trained.history["validation"]["held_out_task_full"] > 0

    exact = registry.method(f"lac:{path},ratio=0.0")
    check_method(registry.method(f"lac:{path}"), lambda: made(kind, folders[kind]), PublishedEnv(64), TASK, exact)
    policy, env = registry.method(f"lac:{path},ratio=0.5,recover=0").apply(plain), PublishedEnv(64)
    obs, _ = env.reset()
    policy.reset(TASK, 0)
    shares = []
    for _ in range(2):
        chunk = policy.act(obs)
        shares.append(chunk.cache["effective"])
        obs, *_ = env.step(chunk.actions[0])
    assert shares == [0.0, 0.5]


def test_a_scorer_of_vla_acl_is_trained_on_openvla_oft_and_runs_in_half_precision(
    folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    folder = folders["openvla-oft"]
    command = TrainAcl(
        (dataset,), policy=f"openvla-oft:{folder}", out=tmp_path / "half", steps=3, batch=2, threads=1, cache=tmp_path
    )
    assert command.run() == 0
    policy = registry.method(f"vla-acl:{tmp_path / 'half' / NETWORKS}").apply(OpenVlaOftPolicy(str(folder)))
    policy.reset(TASK, 0)
    assert policy.act(observation(0, 64)).cache["effective"] == 0.5


def test_the_stride_is_what_the_policy_executes(folders: dict[str, Path]) -> None:
    strides = {kind: made(kind, folders[kind]).teaching(0).reader.stride for kind in KINDS}
    assert strides == {"openvla": 1, "openvla-oft": 8, "cogact": 1}
    assert made("openvla-oft", folders["openvla-oft"], execute=4).teaching(0).reader.stride == 4


# losses and conventions


def test_action_tokens_are_the_published_bins_and_come_back_as_their_centres() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate((rng.uniform(-1.2, 1.2, 500), [-1.0, 1.0, 0.0, 1 / 255, -1 / 255])).astype(np.float32)
    expected = 32000 - np.digitize(np.clip(values.astype(np.float64), -1, 1), np.linspace(-1, 1, 256))
    tokens = answers.to_tokens(torch.from_numpy(values), 32000, 256)
    assert np.array_equal(tokens.numpy(), expected)
    back = answers.of_tokens(tokens.numpy(), 32000, 256)
    assert np.abs(back - np.clip(values, -1, 1)).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wanted_of_an_applied_action_is_what_the_policy_applies_for_it(
    kind: str, folders: dict[str, Path]
) -> None:
    policy = made(kind, folders[kind])
    reader = policy.teaching(0).reader
    low, high = policy.quantiles("action").low, policy.quantiles("action").high
    rng = np.random.default_rng(1)
    applied = rng.uniform(low, high, (50, 7)) * 0.9
    applied[:, 6] = np.where(rng.random(50) < 0.5, 1.0, -1.0)
    said = policy.quantiles("action").restore(reader.wanted(applied).double().numpy())
    again = np.stack([policy._applied(one) for one in said]) if kind == "cogact" else answers.for_libero(said)
    np.testing.assert_allclose(again, applied, atol=1e-6)


def test_the_loss_of_openvla_is_the_cross_entropy_of_the_seven_tokens(folders: dict[str, Path]) -> None:
    teacher = made("openvla", folders["openvla"]).teaching(0).teacher
    draw = torch.Generator().manual_seed(0)
    scores, values = torch.randn(2, 7, 32064, generator=draw), torch.rand(2, 1, 7, generator=draw) * 2 - 1
    expected = 0.0
    for one, wanted in zip(scores.double().numpy(), values[:, 0].double().numpy(), strict=True):
        for row, value in zip(one, wanted, strict=True):
            token = 32000 - int(np.digitize(value, np.linspace(-1, 1, 256)))
            expected -= (row - row.max())[token] - np.log(np.exp(row - row.max()).sum())
    within = torch.ones(2, 1, dtype=torch.bool)
    assert float(teacher.loss(scores, values, within, None, draw)) == pytest.approx(expected / 14, rel=1e-5)
    assert float(teacher.loss(scores, values, within, scores, draw)) == pytest.approx(expected / 28, rel=1e-5)
    assert float(teacher.distance(scores, scores)) == 0


def test_the_loss_of_cogact_is_the_squared_error_of_the_independent_models_noise(tmp_path: Path) -> None:
    tensors = published.save_cogact(tmp_path / "small")
    reference = PublishedReference(tmp_path / "small", tensors, heads=32, eps=1e-5)
    teacher = made("cogact", tmp_path / "small").teaching(0).teacher
    draw = torch.Generator().manual_seed(3)
    condition, chunk = torch.randn(1, published.WIDTH, generator=draw), torch.rand(1, 16, 7, generator=draw) * 2 - 1
    within = torch.arange(16)[None] < 11
    found = teacher.loss(condition, chunk, within, None, torch.Generator().manual_seed(5))

    draw = torch.Generator().manual_seed(5)
    noise, level = torch.randn(DRAWS, 16, 7, generator=draw), torch.randint(100, (DRAWS,), generator=draw)
    kept = [np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 for t in np.arange(101) / 100]
    errors = []
    for one, t in zip(noise, level.tolist(), strict=True):
        share = float(np.prod([1 - min(1 - kept[s + 1] / kept[s], 0.999) for s in range(t + 1)]))
        noisy = share**0.5 * chunk[0] + (1 - share) ** 0.5 * one
        errors.append((reference.noise_in(noisy, t, condition) - one).square()[:11].mean())
    assert float(found) == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)


def test_a_hard_blend_in_half_precision_is_exactly_the_new_or_the_old() -> None:
    draw = torch.Generator().manual_seed(0)
    new, old = (torch.randn(1, 2, 6, 4, generator=draw).bfloat16() for _ in range(2))
    mask = torch.tensor([[1.0, 0, 1, 0]])
    blended = _blended(new, old[:, :, 1:5], mask, slice(1, 5))
    assert torch.equal(blended[:, :, [0, 1, 3, 5]], new[:, :, [0, 1, 3, 5]])
    assert torch.equal(blended[:, :, [2, 4]], old[:, :, [2, 4]])


# refusals


def test_what_cannot_teach_is_refused_by_name(folders: dict[str, Path], dataset: Path) -> None:
    folder = folders["openvla"]
    with pytest.raises(UnteachableError, match="no networks can be trained for 'remote:there'"):
        TrainLac((dataset,), policy="remote:there").run()
    with pytest.raises(OptionError, match="--policy openvla: device is 'cuda'; expected it to be said by --device"):
        TrainLac((dataset,), policy=f"openvla:{folder},device=cuda").run()
    with pytest.raises(OptionError, match="packed is True"):
        made("openvla", folder, packed=True).teaching(0)
    with pytest.raises(OptionError, match="setup is 'google-robot'"):
        made("cogact", folders["cogact"], setup="google-robot").teaching(0)


def test_pictures_of_another_size_than_the_protocols_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "small", n_episodes=2)
    with pytest.raises(frames.UnfitDemonstrationsError, match=r"images \(32, 32, 3\); the recipe expects \(256, 256"):
        TrainLac((small,), policy=f"openvla:{folders['openvla']}", cache=tmp_path).run()
