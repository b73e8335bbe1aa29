"""Tokenizer, chat template and the model's settings that speak of other tokens are told before weights are loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge.api import Noted, Warned
from forge_huggingface.rendering.agreement import disagreements
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template, text_of_shipped
from forge_huggingface.rendering.tokenizers import stop_ids
from support.tiny import CHATML, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

FITTING = {"eos_token_id": [2, 4], "pad_token_id": 0}


def found(
    folder: Path,
    *,
    template: Template | None = None,
    add_bos: bool = False,
    config: dict[str, Any] = FITTING,
    generation: dict[str, Any] | None = None,
    online: bool = False,
    **tokenizer: Any,
) -> list[tuple[type, str]]:
    """Return the kind and the text of each of a model's disagreements."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(make_tokenizer(folder, add_bos=add_bos), **tokenizer)
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    template = template or Template("of the model", CHATML, "model")
    renderer = Renderer(made, template, stops=stop_ids(folder), vocabulary=400)
    told = disagreements(renderer, renderer.template, folder, online=online)
    return [(type(each), f"{each.message}; {getattr(each, 'do', None)}") for each in told]


def test_files_of_one_model_agree(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    assert found(tmp_path, generation=FITTING, add_bos=True) == []
    assert found(tmp_path, template=Template("chatml", text_of_shipped("chatml"), "forge"), add_bos=True) == []


def test_an_end_of_answers_that_the_settings_do_not_stop_at_is_noted(tmp_path: Path) -> None:
    for settings in ({"config": {"eos_token_id": 2}}, {"generation": {"eos_token_id": 2}}):
        ((kind, said),) = found(tmp_path, **settings)
        assert kind is Noted
        assert said.startswith("answers end with <|im_end|>, where the model's own generation settings do not stop")


def test_it_is_a_warning_where_the_trainer_has_the_model_answer(tmp_path: Path) -> None:
    ((kind, said),) = found(tmp_path, generation={"eos_token_id": 2}, online=True)
    assert kind is Warned
    assert "while training, it goes on behind them; add 4 to eos_token_id in the model's generation_config.json" in said
    assert found(tmp_path, generation=FITTING, online=True) == []


def test_ends_of_another_tokenizer_are_told(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ((kind, said),) = found(tmp_path, generation={"eos_token_id": [2, 4, 300]})
    name = AutoTokenizer.from_pretrained(tmp_path).convert_ids_to_tokens(300)
    assert kind is Warned
    assert f"generation_config.json: eos_token_id 300 is {name!r}, a part of words in this tokenizer" in said
    assert "answers end wherever it is written" in said
    ((kind, said),) = found(tmp_path, generation={"eos_token_id": [2, 4, 7000]})
    assert kind is Warned
    assert "generation_config.json: eos_token_id 7000 is no token of the tokenizer" in said


def test_padding_that_is_a_part_of_texts_is_told(tmp_path: Path) -> None:
    ((kind, said),) = found(tmp_path, pad_token="!")
    assert kind is Warned
    assert "padding is by '!', which texts hold too: answers are shown without it" in said


def test_padding_beyond_the_model_is_told(tmp_path: Path) -> None:
    ((kind, said),) = found(tmp_path, config={**FITTING, "pad_token_id": 400})
    assert kind is Warned
    assert "config.json: pad_token_id is 400, and the model has 400 tokens; set it to null" in said
    assert found(tmp_path, config={**FITTING, "pad_token_id": -1}) == []  # as Llama 1's


def test_marks_that_the_tokenizer_splits_are_told_as_a_warning_of_the_jobs_template_alone(tmp_path: Path) -> None:
    ((kind, said),) = found(tmp_path, template=Template("llama3", text_of_shipped("llama3"), "forge"))
    assert kind is Warned
    assert "the chat template llama3 writes marks that are no tokens here: <|start_header_id|> (16 pieces)" in said
    assert "alpaca" in said
    zephyr = CHATML.replace("<|im_start|>' + message['role'] + '", "<|' + message['role'] + '|>")
    ((kind, said),) = found(tmp_path, template=Template("of the model", zephyr, "model"))
    assert kind is Noted
    assert "<|user|>" in said
    assert found(tmp_path, template=Template("alpaca", text_of_shipped("alpaca"), "forge")) == []


def test_a_template_of_the_job_that_leaves_the_first_token_out_is_told(tmp_path: Path) -> None:
    ((kind, said),) = found(tmp_path, template=Template("own.jinja", CHATML, "file"), add_bos=True)
    assert kind is Warned
    assert "the chat template own.jinja begins without <s>, which the tokenizer puts before plain texts" in said
    begun = Template("own.jinja", "{{ bos_token }}" + CHATML, "file")
    assert found(tmp_path, template=begun, add_bos=True) == []


def test_a_run_tells_it_before_the_model_is_loaded(project: Project) -> None:
    project.write(data={"chat_template": "llama3"}, train={"max_steps": 1})
    done = project.perform()
    kinds = [(event["kind"], event.get("message", "")) for event in done.events]
    told = next(index for index, (_, message) in enumerate(kinds) if "marks that are no tokens here" in message)
    assert kinds[told][0] == "warning"
    assert told < next(index for index, (kind, _) in enumerate(kinds) if kind == "loaded")
