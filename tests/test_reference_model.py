"""The reference VLA computes what its architecture says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench_policies.reference import flops
from vla_bench_policies.reference.actions import LEAST_RANGE, N_BINS, Range, from_bins, to_bins
from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA, Decoder
from vla_bench_policies.reference.ensemble import TemporalEnsemble
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.tokenizer import PAD, tokenizer
from vla_bench_policies.reference.training.recipe import PRESETS
from vla_bench_policies.token_cache.attention import additive
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.rule import CacheRule

SMALL = ModelConfig(image_px=32, patch_px=8, vision_width=32, vision_layers=1, width=32, layers=3, heads=4, hidden=80)
SENTENCE = "put the bowl on the stove"


@pytest.fixture(scope="module")
def model() -> ReferenceVLA:
    torch.manual_seed(0)
    made = ReferenceVLA(SMALL).eval()
    for weight in made.parameters():  # norms and biases too, so that nothing is hidden behind a one or a zero
        weight.data += 0.05 * torch.randn_like(weight)
    return made


def inputs(batch: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 2, 3, 32, 32), generator=generator).float()
    tokens = torch.tensor([tokenizer().encode(SENTENCE)] * batch)
    return images, tokens, torch.randn(batch, 8, generator=generator)


def decoded(model: ReferenceVLA, prompt: torch.Tensor, n_text: int) -> torch.Tensor:
    """The bins of one action, token by token, through the cache."""
    heads = SMALL.heads
    stack = PackedLlama(model.decoder, heads, heads, ROPE_THETA, NORM_EPS, packed=False)
    cache = TokenCache(stack, [CacheRule() for _ in prompt])
    layout = model.layout(n_text, "ar")
    seen = [Seen(np.zeros(1, np.uint8), np.zeros(8), "") for _ in prompt]
    hidden = cache.step(prompt, layout, seen, 1)[:, 0]
    bins = [model.bin_of(0, hidden)]
    for entry in range(6):
        hidden = cache.extend(model.token(entry, bins[-1]), layout.proprio + 1 + entry)
        bins.append(model.bin_of(entry + 1, hidden))
    return torch.stack(bins, dim=1)


def test_the_decoder_computes_what_a_llama_of_transformers_computes() -> None:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    ours = Decoder(width=32, layers=3, heads=4, hidden=80)
    for norm in (ours.norm, *(layer.input_layernorm for layer in ours.layers)):
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80, vocab_size=7,
        rms_norm_eps=NORM_EPS, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attn_implementation="sdpa",
    )  # fmt: skip
    theirs = LlamaModel(config)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing == ["embed_tokens.weight"]
    assert unexpected == []
    x = torch.randn(2, 11, 32)
    positions = torch.arange(11)[None]
    with torch.no_grad():
        expected = theirs(inputs_embeds=x, position_ids=positions).last_hidden_state
        found = ours(x, positions)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_explicit_causal_mask_is_the_causal_default() -> None:
    torch.manual_seed(0)
    decoder, x, row = Decoder(32, 2, 4, 80), torch.randn(1, 9, 32), torch.arange(9)
    mask = additive(row <= row[:, None], x.dtype)[None, None]
    with torch.no_grad():
        torch.testing.assert_close(decoder(x, row[None], mask), decoder(x, row[None]), rtol=1e-5, atol=1e-6)


def test_the_one_pass_answer_is_the_one_that_training_sees(model: ReferenceVLA) -> None:
    images, tokens, proprio = inputs()
    filled = torch.nn.functional.pad(tokens, (0, 5), value=PAD)
    with torch.no_grad():
        trained = model(images, filled, proprio, torch.zeros(2, 7, dtype=torch.long)).chunk
        answered = model.answer(model.prompt(model.see(images), tokens, proprio))
    torch.testing.assert_close(answered, trained, rtol=1e-4, atol=1e-5)


def test_decoding_token_by_token_agrees_with_teacher_forcing(model: ReferenceVLA) -> None:
    images, tokens, proprio = inputs(batch=3)
    with torch.no_grad():
        bins = decoded(model, model.prompt(model.see(images), tokens, proprio), tokens.shape[1])
        logits = model(images, tokens, proprio, bins).logits
        other = model(images, tokens, proprio, (bins + 1) % N_BINS).logits
    assert torch.equal(logits.argmax(dim=-1), bins)
    assert not torch.allclose(other[:, 1:], logits[:, 1:], atol=1e-4)  # the given tokens matter


def test_the_chunk_does_not_see_the_action_tokens(model: ReferenceVLA) -> None:
    images, tokens, proprio = inputs()
    with torch.no_grad():
        one, other = (model(images, tokens, proprio, torch.full((2, 7), bins)).chunk for bins in (0, 200))
    assert torch.equal(one, other)


@pytest.mark.parametrize("changed", ["images", "tokens", "proprio"])
def test_every_input_moves_the_answer(model: ReferenceVLA, changed: str) -> None:
    images, tokens, proprio = inputs(batch=1)
    given = {"images": images, "tokens": tokens, "proprio": proprio}
    other = dict(given)
    other[changed] = {
        "images": images.flip(1),
        "tokens": torch.tensor([tokenizer().encode("put the bowl on the plate")]),
        "proprio": proprio + 0.5,
    }[changed]
    with torch.no_grad():
        prompts = [model.prompt(model.see(x["images"]), x["tokens"], x["proprio"]) for x in (given, other)]
        before, after = map(model.answer, prompts)
    assert not torch.allclose(before, after, atol=1e-4)


def test_the_layout_is_bos_visual_text_proprio_action(model: ReferenceVLA) -> None:
    layout = model.layout(n_text=6)
    assert (layout.visual, layout.text) == (slice(1, 33), slice(33, 39))
    assert (layout.proprio, layout.action, layout.n_rows) == (39, slice(40, 48), 48)
    images, tokens, proprio = inputs(batch=1)
    visual = model.see(images)
    rows = model.prompt(visual, tokens, proprio)
    assert torch.equal(rows[:, layout.visual], visual)
    assert torch.equal(rows[:, layout.text], model.words(tokens))
    assert torch.equal(rows[:, layout.proprio], model.proprio(proprio[:, list(SMALL.proprio_entries)]))


@pytest.mark.parametrize("head", ["oft", "ar"])
def test_the_formula_counts_what_torch_counts(model: ReferenceVLA, head: str) -> None:
    images, tokens, proprio = inputs(batch=1)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prompt = model.prompt(model.see(images), tokens, proprio)
        _ = model.answer(prompt) if head == "oft" else decoded(model, prompt, tokens.shape[1])
    assert flops.of_query(SMALL, tokens.shape[1], head).total == counter.get_total_flops()


def test_the_gpu_preset_is_a_decoder_with_eyes() -> None:
    config = PRESETS["gpu"].model
    assert config.n_visual >= 256
    assert flops.of_query(config, n_text=10).decoder_share >= 0.7


def test_every_instruction_of_every_suite_is_in_known_words_and_no_two_of_a_suite_are_one() -> None:
    for suite in registry.suites().values():
        sentences = {task.instruction for task in suite.tasks()}
        encoded = {tuple(tokenizer().encode(sentence)) for sentence in sentences}
        assert len(encoded) == len({sentence.lower() for sentence in sentences})
        assert all(tokenizer().tokens.index("<unknown>") not in tokens for tokens in encoded)


def test_an_unknown_word_is_spelled_and_an_unknown_sign_is_said_to_be_one() -> None:
    words = tokenizer()
    assert words.decode(words.encode("Put the zebra")) == "put the z e b r a"
    assert words.decode(words.encode("bowl ∮")) == "bowl <unknown>"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, allow_nan=False, width=32), min_size=1, max_size=20))
def test_a_bin_is_at_most_half_its_width_from_the_value(values: list[float]) -> None:
    exact = torch.tensor(values)
    assert (from_bins(to_bins(exact)) - exact).abs().max() <= 1 / N_BINS + 1e-6


def test_bins_take_what_lies_outside_to_the_ends() -> None:
    assert to_bins(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, N_BINS - 1, N_BINS - 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_range_is_undone_by_its_inverse(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 3, (50, 7)).astype(np.float32)
    found = Range.of(values)
    exact = torch.from_numpy(values)
    torch.testing.assert_close(found.restore(found.normalise(exact)), exact, rtol=1e-4, atol=1e-4)


def test_the_range_of_an_unused_axis_is_not_blown_up() -> None:
    values = np.zeros((100, 2), np.float32)
    values[:, 1] = np.linspace(-1, 1, 100)
    found = Range.of(values)
    assert found.high[0] - found.low[0] == pytest.approx(LEAST_RANGE)
    np.testing.assert_allclose([found.low[1], found.high[1]], [-0.98, 0.98], atol=1e-6)


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_an_ensemble_averages_what_answers_say_about_the_same_moment(execute: int) -> None:
    """Answers that count the steps agree about every moment; a constant offset shows with the weights of ACT."""
    ensemble = TemporalEnsemble(8, execute)
    for query in range(9):
        first = query * execute
        answer = torch.arange(first, first + 8.0)[:, None].expand(8, 2)
        torch.testing.assert_close(ensemble.mixed(answer), answer[:execute])
    offset = ensemble.mixed(answer + execute + 10.0)[0, 0] - (first + execute)
    n_earlier = -(-8 // execute) - 1
    weights = [math.exp(-0.01 * index) for index in range(n_earlier + 1)]
    assert float(offset) == pytest.approx(10 * weights[-1] / sum(weights), rel=1e-5)
