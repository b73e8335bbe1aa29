"""Tokens that a job adds or names: the folder that is trained, its rows, and what is refused when planned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from forge.api import Job
from forge.errors import JobError, PlanError
from forge_huggingface.hub.config import new_token_ids
from forge_huggingface.hub.snapshot import snapshot
from support.projects import Project, json_of

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Run

TOOLS = ["<tool>", "</tool>"]


def base_of(project: Project, **model: Any) -> tuple[Path, Run, list[str]]:
    """Return the folder that a project's run trains, the run, and what making it has told."""
    project.write(model=model)
    run, _ = project.prepare()
    job = Job.model_validate({"model": {"id": "model", **model}, "data": {"path": "rows.jsonl"}})
    told: list[str] = []
    run = replace(run, sink=lambda event: told.append(str(getattr(event, "message", ""))))
    return snapshot(job, run, weights=True), run, told


def test_new_tokens_get_rows_that_begin_as_the_mean_and_the_model_itself_stays(project: Project) -> None:
    from transformers import AutoTokenizer

    before = (project.folder / "model" / "tokenizer.json").read_bytes()
    folder, run, told = base_of(project, add_tokens=[TOOLS[0], "<|im_end|>"], add_special_tokens=[TOOLS[1]])
    assert new_token_ids(run) == [400, 401]
    assert any("<|im_end|> already" in text for text in told)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a<tool>b</tool>")["input_ids"]
    assert [each for each in ids if each >= 400] == [400, 401]
    assert "<tool>" in tokenizer.decode(ids, skip_special_tokens=True)
    assert "</tool>" not in tokenizer.decode(ids, skip_special_tokens=True)
    old, new = (load_file(each / "model.safetensors") for each in (project.folder / "model", folder))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert new[name].shape == (402, 32)
        assert torch.equal(new[name][:400], old[name])
        assert torch.allclose(new[name][400:], old[name].mean(dim=0))
    assert {name for name in old if old[name].shape != new[name].shape} == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert json_of(folder / "config.json")["vocab_size"] == 402
    assert (project.folder / "model" / "tokenizer.json").read_bytes() == before
    assert any("added (<tool>" in note for note in run.plan.notes)


def test_who_looks_at_rows_alone_writes_no_weights(project: Project) -> None:
    project.write(model={"add_tokens": TOOLS})
    run, _ = project.prepare()
    job = Job.model_validate({"model": {"id": "model", "add_tokens": TOOLS}, "data": {"path": "rows.jsonl"}})
    folder = snapshot(job, run, weights=False)
    assert not list(folder.glob("*.safetensors"))
    assert (snapshot(job, run, weights=True) / "model.safetensors").is_file()
    assert (snapshot(job, run, weights=False) / "model.safetensors").is_file()


def test_named_tokens_pad_and_end_rows_and_answers(project: Project) -> None:
    from transformers import AutoTokenizer

    known = json_of(project.folder / "model" / "tokenizer.json")["added_tokens"]
    own = json_of(project.folder / "model" / "generation_config.json")["eos_token_id"]
    end, pad = known[0], known[-1]
    folder, _, _ = base_of(project, eos_token=end["content"], pad_token=pad["content"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (end["id"], pad["id"])
    ends = json_of(folder / "generation_config.json")["eos_token_id"]
    assert set(ends) == {end["id"], *(own if isinstance(own, list) else [own])}
    assert (folder / "model.safetensors").is_symlink()  # the weights are the model's own


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"eos_token": "<|im_ent|>"}, 'eos_token = "<|im_ent|>": the tokenizer has no such token; did you mean'),
        ({"pad_token": "<gone>"}, "the tokenizer has no such token"),
        ({"add_tokens": ["<t>", "<t>"]}, "names '<t>' twice"),
        ({"add_tokens": ["<t>"], "add_special_tokens": ["<t>"]}, "twice"),
        ({"add_tokens": [" <t>"]}, "has space around it"),
        ({"add_tokens": [""]}, "add_tokens"),
    ],
)
def test_tokens_that_cannot_be_are_refused_when_planned(project: Project, model: dict[str, Any], words: str) -> None:
    project.write(model=model)
    with pytest.raises((JobError, PlanError)) as caught:
        project.prepare()
    assert words in str(caught.value)


CHOSEN = {
    "type": "layers", "r": None, "lora_alpha": None, "layers_to_transform": [-1], "modules_to_save": ["embed_tokens"],
}  # fmt: skip
LEFT = 'type = "layers" leaves the output layer frozen; write modules_to_save = ["embed_tokens", "lm_head"]'


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"use_liger_kernel": True}}, "use_liger_kernel has not been tried with rows of new tokens"),
        ({"use": {"backend": "mlx"}}, "named-tokens"),
        ({"export": [{"format": "gguf", "adapter": True}]}, "an adapter file cannot hold rows of new tokens"),
        ({"adapter": CHOSEN}, LEFT),
    ],
)
def test_what_has_no_new_tokens_is_refused_with_the_reason(
    project: Project, changes: dict[str, Any], words: str
) -> None:
    project.write(model={"add_tokens": TOOLS}, **changes)
    with pytest.raises((JobError, PlanError)) as caught:
        project.prepare()
    assert words in str(caught.value)


def test_the_plan_counts_the_rows_of_new_tokens(project: Project) -> None:
    def values(**model: Any) -> int:
        project.write(model=model)
        estimate = project.prepare()[1].plan().estimate
        note = next(part.note for part in estimate.parts if part.name == "adapter")
        return int(note.split()[0].replace(",", ""))

    assert values(add_tokens=TOOLS) - values() == 2 * 2 * 32
