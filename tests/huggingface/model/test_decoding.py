"""Answers decoded with a cache of fixed size, and by a CUDA graph, are those of transformers' plain ``generate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.model import decoding
from forge_huggingface.model.decoding import Decoder, fit, fitting, generating, reason_against
from support.decoding import FAMILIES, SIZE, made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch = pytest.importorskip("torch")


def answers(model: Any, **sampling: Any) -> Any:
    """Return what a model says to three prompts of different lengths, padded at the left."""
    from transformers import GenerationConfig

    ids = torch.randint(3, 211, (3, 21), generator=torch.Generator().manual_seed(5)).to(model.device)
    mask = torch.ones_like(ids)
    mask[1, :9] = mask[2, :20] = 0
    config = GenerationConfig(
        max_new_tokens=40, pad_token_id=0, eos_token_id=[2, 9], do_sample=bool(sampling), **sampling
    )
    torch.manual_seed(1)
    with torch.inference_mode():
        return model.generate(input_ids=ids * mask, attention_mask=mask, generation_config=config).cpu()


class Counted:
    """A step that only counts, and sees that a recording of the second call would fit all others."""

    def __init__(self) -> None:
        self.calls = 0
        self.misfits = 0

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        recorded: list[Any] = []

        def step(**inputs: Any) -> Any:
            self.calls += 1
            leaves = [leaf for name, leaf in sorted(inputs.items()) if name != "past_key_values"]
            leaves = [each for leaf in leaves for each in (leaf.values() if isinstance(leaf, dict) else [leaf])]
            if self.calls == 2:
                recorded.extend(leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
            self.misfits += self.calls > 2 and not fit(leaves, recorded)
            return forward(**inputs)

        return step


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_of_fixed_size_gives_the_same_greedy_answers(family: str) -> None:
    model, counted = made(family), Counted()
    plain = answers(model)
    assert reason_against(model) is None
    with generating(model, counted.around, print):
        fixed = answers(model)
    assert fixed.tolist() == plain.tolist()
    assert counted.calls == plain.shape[1] - 21 - 1, "every token but the first goes through the step"
    assert counted.misfits == 0
    assert "generate" not in vars(model)
    assert "get_compiled_call" not in vars(model)
    assert answers(model).tolist() == plain.tolist(), "afterwards all is as before"


def test_drawn_answers_are_the_same_with_the_same_seed() -> None:
    model, sampling = made("Llama"), {"temperature": 0.9, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1}
    plain = answers(model, **sampling)
    with generating(model, Counted().around, print):
        assert answers(model, **sampling).tolist() == plain.tolist()


def test_an_adapter_answers_through_the_model_inside_it() -> None:
    model, counted = made("Llama", adapter=True), Counted()
    plain = answers(model)
    with generating(model.get_base_model(), counted.around, print):
        assert answers(model).tolist() == plain.tolist()
    assert counted.calls > 0


def test_what_cannot_be_recorded_is_named() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert "positions" in str(reason_against(LlamaForCausalLM(LlamaConfig(**SIZE, rope_parameters=scaled))))
    replaced = made("Llama")
    replaced.generate = replaced.generate
    assert "not transformers' own" in str(reason_against(replaced))


def test_on_a_cpu_nothing_is_changed() -> None:
    model, said = made("Llama"), list[str]()
    with Decoder(said.append).around(model):
        assert "generate" not in vars(model)
    assert said == []


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cuda_graph_gives_the_same_answers(family: str, *, adapter: bool) -> None:
    if adapter and family == "Phi3":
        pytest.skip("its projections have other names")
    torch.backends.cuda.matmul.allow_tf32 = False
    model, said = made(family, "cuda", adapter=adapter), list[str]()
    kinds: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.9, "top_p": 0.9})
    decoder = Decoder(said.append)
    for sampling in kinds:
        plain = answers(model, **sampling)
        with decoder.around(model):
            assert answers(model, **sampling).tolist() == plain.tolist()
    assert said == ["answers are decoded by a CUDA graph"]


@pytest.mark.gpu
def test_a_model_that_does_not_repeat_itself_is_found_out() -> None:
    model, said = made("Llama", "cuda"), list[str]()
    state = {"calls": 0}

    def different(module: Any, inputs: Any, output: Any) -> Any:
        state["calls"] += 1
        return output * (1 + state["calls"])

    plain = answers(model)
    handle = model.model.layers[0].mlp.register_forward_hook(different)
    with Decoder(said.append).around(model):
        answers(model)
    handle.remove()
    assert said == ["answers are decoded without a CUDA graph: its logits are not those of the model"]
    assert answers(model).tolist() == plain.tolist()


def test_a_cache_that_does_not_fit_is_told_and_grows_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counted, said = made("Llama"), Counted(), list[str]()
    plain = answers(model)
    monkeypatch.setattr(decoding, "free", lambda _: 100_000)
    with generating(model, counted.around, said.append):
        assert answers(model).tolist() == plain.tolist()
    assert counted.calls == 0
    assert "3 of 64 tokens would keep" in said[0]


def test_as_many_answers_are_made_at_a_time_as_fit() -> None:
    model = made("Llama")
    assert fitting(model, width=16, answer=16) == 8, "a CPU wins nothing by more"
    alone = fitting(model, width=10**8, answer=10**8)
    assert alone == 1, "one is tried even where it cannot fit"
    some = [fitting(model, width=16, answer=answer) for answer in (10**5, 10**6, 10**7, 10**8)]
    assert some == sorted(some, reverse=True)


@pytest.mark.gpu
def test_a_cuda_graph_decodes_weights_in_4_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    made("Llama").save_pretrained(tmp_path)
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model, said = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=bits), list[str]()
    plain = answers(model)
    with Decoder(said.append).around(model):
        assert answers(model).tolist() == plain.tolist()
    assert said == ["answers are decoded by a CUDA graph"]
