"""New tokens, chosen layers and Muon of other tools, and that the plan takes what comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Migrate

    from support.projects import Project

AXOLOTL = "base_model: model\nmicro_batch_size: 1\ndatasets: [{path: d.jsonl, type: alpaca}]\n"
FACTORY = "model_name_or_path: model\nstage: sft\ntemplate: qwen\ndataset: d\n"
SWIFT = "swift sft --model model --dataset d.jsonl "
TRL = "trl sft --model_name_or_path model --dataset_name d "


@pytest.mark.parametrize(
    ("text", "model", "adapter"),
    [
        (
            AXOLOTL + "adapter: lora\ntokens: ['<a>']\nspecial_tokens: {eos_token: '<|im_end|>'}\n",
            {"add_tokens": ["<a>"], "eos_token": "<|im_end|>"},
            {"type": "lora"},
        ),
        (
            FACTORY + "finetuning_type: lora\nadd_tokens: '<a>, <b>'\nadd_special_tokens: '<c>'\nresize_vocab: true\n",
            {"add_tokens": ["<a>", "<b>"], "add_special_tokens": ["<c>"]},
            {"type": "lora", "modules_to_save": ["embed_tokens", "lm_head"]},
        ),
        (SWIFT + "--new_special_tokens '<a>' '<b>'", {"add_special_tokens": ["<a>", "<b>"]}, {"type": "lora"}),
        (TRL + "--eos_token '<e>' --pad_token '<p>'", {"eos_token": "<e>", "pad_token": "<p>"}, {"type": "none"}),
        (
            AXOLOTL + "unfrozen_parameters: ['^lm_head.weight$', 'model.layers.1.mlp']\n",
            {},
            {"type": "layers", "target_modules": "(?:^lm_head.weight$|model.layers.1.mlp).*"},
        ),
        (
            FACTORY + "finetuning_type: freeze\nfreeze_trainable_layers: 2\nfreeze_extra_modules: lm_head\n",
            {},
            {"type": "layers", "layers_to_transform": [-2, -1], "modules_to_save": ["lm_head"]},
        ),
        (
            FACTORY + "finetuning_type: freeze\nfreeze_trainable_layers: -1\nfreeze_trainable_modules: mlp\n",
            {},
            {"type": "layers", "layers_to_transform": [0], "target_modules": ["mlp"]},
        ),
        (
            SWIFT + "--tuner_type full --freeze_parameters model.embed_tokens --trainable_parameters model.norm",
            {},
            {"type": "layers", "target_modules": r"(?:model\.norm).*|(?!(?:model\.embed_tokens)).*"},
        ),
    ],
)
def test_tokens_and_layers_are_taken_over(
    migrate: Migrate, text: str, model: dict[str, Any], adapter: dict[str, Any]
) -> None:
    name = "run.sh" if text.startswith(("swift", "trl")) else "config.yaml"
    job, draft = migrate(text, name)
    assert not [each for each in draft.missing if each.key != "dataset"]
    names = ("add_tokens", "add_special_tokens", "pad_token", "eos_token")
    assert {key: value for key, value in job["model"].items() if key in names} == model
    kept = {"type", "modules_to_save", "layers_to_transform"} | (
        {"target_modules"} if job["adapter"]["type"] == "layers" else set()
    )
    assert {key: value for key, value in job["adapter"].items() if key in kept} == adapter


@pytest.mark.parametrize(
    ("targets", "left"), [("[q_proj, model.embed_tokens]", ["q_proj"]), ("[embed_tokens]", "auto")]
)
def test_lora_on_an_embedding_that_gets_new_tokens_is_missing_and_not_written(
    migrate: Migrate, targets: str, left: list[str] | str
) -> None:
    job, draft = migrate(AXOLOTL + f"adapter: lora\ntokens: ['<a>']\nlora_target_modules: {targets}\n")
    assert [each.key for each in draft.missing] == ["LoRA on the embedding"]
    assert job["adapter"]["target_modules"] == left


@pytest.mark.parametrize(
    ("text", "name"),
    [(FACTORY + "finetuning_type: full\nuse_muon: true\n", "c.yaml"), (SWIFT + "--optimizer muon", "run.sh")],
)
def test_muon_is_taken_over_where_its_steps_are_the_same(migrate: Migrate, text: str, name: str) -> None:
    job, _ = migrate(text, name)
    assert job["train"]["optim"] == "muon"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (SWIFT + "--tuner_type full --freeze_parameters_ratio 0.5", "freeze_parameters_ratio"),
        (SWIFT + "--init_weights lora-ga", "init_weights"),
        (SWIFT + "--new_special_tokens tokens.txt", "new_special_tokens"),
    ],
)
def test_what_forge_has_not_is_missing(migrate: Migrate, text: str, key: str) -> None:
    _, draft = migrate(text, "run.sh")
    assert [each.key for each in draft.missing] == [key]


@pytest.mark.parametrize(
    "lines",
    ["unfrozen_parameters: ['lm_head.weight']\n", "adapter: lora\nlora_target_linear: true\ntokens: ['<a>']\n"],
)
def test_what_is_written_passes_the_plan(migrate: Migrate, project: Project, lines: str) -> None:
    from forge_migrate.writing import text_of

    _, draft = migrate(AXOLOTL + lines)
    draft.set("data.path", "rows.jsonl")
    for key in ("format", "columns"):
        draft.tables.get("data", {}).pop(key, None)
    draft.sources = []
    (project.folder / "job.toml").write_text(text_of(draft, "c.yaml"))
    project.prepare()
