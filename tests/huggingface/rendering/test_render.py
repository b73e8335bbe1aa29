"""Rendering: the tokens and labels are TRL's where TRL has an answer, and an end token is always learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge.errors import DataError
from forge.job.job import Job
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.spans import inside
from forge_huggingface.rendering.templates import Template, choose, shipped
from forge_huggingface.rendering.tokenizers import settle_pad
from forge_huggingface.rows import BadRow, Completion, Conversation, Ids, LongRow, Rendered, Row, Text
from support.tiny import CHATML, make_model, make_tokenizer

EOS_TEMPLATE = CHATML.replace("<|im_end|>", "</s>")
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content.split('</think>')[-1].strip() }}</s>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}</s>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen3: reasoning stands in the last answer only."""

TURNS = [
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "Name the capital of France."},
    {"role": "assistant", "content": "Paris, 東京 🙂"},
]


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tokenizer_of(make_tokenizer(tmp_path_factory.mktemp("t")))


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tokenizer_of(make_tokenizer(tmp_path_factory.mktemp("b"), add_bos=True))


def renderer(tokenizer: Any, template: str | None = CHATML, **settings: Any) -> Renderer:
    return Renderer(tokenizer, Template("test", template, "file") if template else None, **settings)


def one(made: Renderer, row: Row) -> Rendered:
    (result,) = made.render([row])
    assert isinstance(result, Rendered), result
    return result


def taught(made: Renderer, result: Rendered) -> str:
    return made.tokenizer.decode([label for label in result.labels if label != -100])


def conversation(messages: list[dict[str, Any]], **settings: Any) -> Conversation:
    return Conversation(
        tuple(messages), settings.pop("start", len(messages) - 1), settings.pop("turns", True), **settings
    )


def prepared_by_trl(folder: Path, tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, report_to="none", bf16=False, max_length=2048, **settings
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(folder),
    )
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in trainer.train_dataset]


def as_dicts(results: list[Rendered | BadRow]) -> list[dict[str, Any]]:
    return [{"input_ids": r.input_ids, "labels": r.labels} for r in results if isinstance(r, Rendered)]


@pytest.mark.parametrize("bos", [False, True])
def test_rows_equal_those_that_trl_prepares(tmp_path: Path, bos: bool) -> None:
    folder = make_model(tmp_path / "m", template=EOS_TEMPLATE, layers=1, hidden=8, add_bos=bos)
    tokenizer = tokenizer_of(folder)
    made = renderer(tokenizer, EOS_TEMPLATE)
    prompt = [{"role": "system", "content": "Be short."}, *TURNS[:3]]
    chats = [(prompt, TURNS[3:]), (TURNS[:1], TURNS[1:2])]
    strings = [("Q: the capital of France?\nA: ", "Paris"), ("Count", "ing to five is easy.</s>"), ("x=", "=1")]
    texts = ["The sea is wide.", "Köln </s>"]

    ours = as_dicts(made.render([Conversation((*p, *c), len(p), turns=False) for p, c in chats]))
    assert ours == prepared_by_trl(folder, tmp_path, [{"prompt": p, "completion": c} for p, c in chats])
    ours = as_dicts(made.render([Completion(p, c) for p, c in strings]))
    assert ours == prepared_by_trl(folder, tmp_path, [{"prompt": p, "completion": c} for p, c in strings])
    ours = as_dicts(made.render([Text(text) for text in texts]))
    assert ours == prepared_by_trl(folder, tmp_path, [{"text": text} for text in texts])


def test_marked_answers_equal_trls_assistant_only_loss(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", layers=1, hidden=8)
    tokenizer = tokenizer_of(folder)
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "x", "chat_template": "chatml"}})
    template = choose(job, tokenizer, Path(), bos=False)
    assert template is not None
    tokenizer.chat_template = template.text
    tokenizer.save_pretrained(folder)
    ours = as_dicts(Renderer(tokenizer, template).render([conversation(TURNS), conversation(TURNS[:2])]))
    rows = [{"messages": TURNS}, {"messages": TURNS[:2]}]
    assert ours == prepared_by_trl(folder, tmp_path, rows, assistant_only_loss=True)


def test_every_answer_of_a_conversation_is_learned_and_nothing_else(tokenizer: Any) -> None:
    made = renderer(tokenizer, EOS_TEMPLATE)
    assert taught(made, one(made, conversation(TURNS))) == "red</s>\nParis, 東京 🙂</s>\n"


def test_completion_learns_the_last_answer_only(tokenizer: Any) -> None:
    made = renderer(tokenizer, EOS_TEMPLATE, train_on="completion")
    assert taught(made, one(made, conversation(TURNS))) == "Paris, 東京 🙂</s>\n"


def test_all_learns_everything(tokenizer: Any) -> None:
    made = renderer(tokenizer, EOS_TEMPLATE, train_on="all")
    row = one(made, conversation(TURNS))
    assert row.labels == row.input_ids


def test_an_end_token_is_appended_where_the_template_puts_another(tokenizer: Any) -> None:
    made = renderer(tokenizer, CHATML)
    row = one(made, conversation(TURNS))
    assert row.eos == "appended"
    assert row.labels[-1] == tokenizer.eos_token_id
    assert taught(made, row).endswith("🙂<|im_end|>\n</s>")


def test_an_end_of_turn_that_the_model_stops_at_is_enough(tokenizer: Any) -> None:
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    row = one(renderer(tokenizer, CHATML, stops=[stop]), conversation(TURNS))
    assert row.eos == "there"
    assert stop in row.labels


def test_an_end_token_outside_of_the_marked_answer_is_learned_too(tokenizer: Any) -> None:
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "A: {% generation %}{{ m.content }}{% endgeneration %}</s>\n"
        "{% else %}U: {{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
    )
    made = renderer(tokenizer, marked)
    row = one(made, conversation(TURNS))
    assert row.labels.count(tokenizer.eos_token_id) == 2
    assert row.eos == "there"


def test_answers_that_the_template_rewrites_are_still_found(tokenizer: Any) -> None:
    messages = [*TURNS]
    messages[1] = {"role": "assistant", "content": "<think>hm</think>\n\nred"}
    made = renderer(tokenizer, THINKING)
    assert taught(made, one(made, conversation(messages))) == "red</s>\n<think>\n\n</think>\n\nParis, 東京 🙂</s>\n"


def shipped_with_trl(*names: str) -> list[tuple[str, str]]:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    return [(name, (folder / f"{name}.jinja").read_text()) for name in names if (folder / f"{name}.jinja").is_file()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("phi3", "red<|end|>\nParis, 東京 🙂<|end|>\n</s>"),
        ("qwen3", "red<|im_end|>\n<think>\n\n</think>\n\nParis, 東京 🙂<|im_end|>\n</s>"),
        ("qwen3_5_nothink", "red<|im_end|>\nParis, 東京 🙂<|im_end|>\n</s>"),
        ("deepseekv3", "red<\uff5cend▁of▁sentence\uff5c>Paris, 東京 🙂<\uff5cend▁of▁sentence\uff5c></s>"),
        ("gemma3", "red<end_of_turn>\nParis, 東京 🙂<end_of_turn>\n</s>"),
        ("llama3", "red<|eot_id|>Paris, 東京 🙂<|eot_id|></s>"),
    ],
)
def test_answers_are_found_in_the_templates_of_real_models(tokenizer: Any, name: str, expected: str) -> None:
    if not (found := shipped_with_trl(name)):
        pytest.skip(f"this trl has no template {name}")
    made = renderer(tokenizer, found[0][1])
    assert taught(made, one(made, conversation(TURNS))) == expected


def test_a_history_turn_that_ends_with_a_token_of_its_own_teaches_that_token(tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{{ '</s>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = renderer(tokenizer, template)
    assert taught(made, one(made, conversation(TURNS))) == "red<|im_end|>Paris, 東京 🙂</s>"


def test_an_answer_that_the_template_does_not_write_is_a_bad_row(tokenizer: Any) -> None:
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}</s>{% endfor %}"
    (bad,) = renderer(tokenizer, parts).render([conversation(TURNS)])
    assert isinstance(bad, BadRow)
    assert "loses the text of message 1" in str(bad)


def test_answers_that_cannot_be_found_are_a_bad_row_that_says_what_to_do(tokenizer: Any) -> None:
    hidden = "{% for m in messages|reverse %}{{ m.content|upper }}{{ m.content }}</s>{% endfor %}"
    (bad,) = renderer(tokenizer, hidden).render([conversation(TURNS)])
    assert isinstance(bad, BadRow)
    assert "cannot be told" in str(bad)
    assert 'train_on = "completion"' in str(bad.do)


def test_there_is_never_a_second_bos(with_bos: Any) -> None:
    bos = with_bos.bos_token_id
    made = renderer(with_bos, "{{ bos_token }}" + EOS_TEMPLATE)
    rows: list[Row] = [conversation(TURNS), Text("<s>The sea"), Text("The sea"), Completion("<s>The", " sea")]
    for row in made.render(rows):
        assert isinstance(row, Rendered)
        assert row.input_ids[0] == bos
        assert row.input_ids.count(bos) == 1


def test_shipped_templates_write_the_bos_that_the_tokenizer_would_put(with_bos: Any) -> None:
    for name in shipped():
        job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "x", "chat_template": name}})
        made = Renderer(with_bos, choose(job, with_bos, Path(), bos=True))
        assert one(made, conversation(TURNS)).input_ids[0] == with_bos.bos_token_id


@pytest.mark.parametrize("name", shipped())
def test_shipped_templates_teach_answers_with_an_end_and_begin_like_their_prompt(tokenizer: Any, name: str) -> None:
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "x", "chat_template": name}})
    made = Renderer(tokenizer, choose(job, tokenizer, Path(), bos=False))
    row = one(made, conversation([{"role": "system", "content": "Be short."}, *TURNS]))
    assert taught(made, row) == "red</s>Paris, 東京 🙂</s>"
    assert made.template is not None
    asked, _ = made.template.render(tokenizer, [{"role": "system", "content": "Be short."}, *TURNS[:3]], prompt=True)
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert row.input_ids[: len(prompt)] == prompt
    assert row.labels[len(prompt) :] == row.input_ids[len(prompt) :]
    with_tools = one(made, conversation(TURNS, tools=({"type": "function", "function": {"name": "weather"}},)))
    assert '"weather"' in made.tokenizer.decode(with_tools.input_ids)


def test_a_template_that_refuses_a_row_says_so_in_its_own_words(tokenizer: Any) -> None:
    made = renderer(tokenizer, "{{ raise_exception('roles must alternate') }}")
    (bad,) = made.render([conversation(TURNS)])
    assert isinstance(bad, BadRow)
    assert bad.at("x.jsonl:3").what == "x.jsonl:3 is refused by the chat template test"
    assert "roles must alternate" in str(bad)


def test_an_invalid_template_is_an_error_before_any_row(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_text("{% for m in messages %}")
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "x", "chat_template": "bad.jinja"}})
    with pytest.raises(DataError, match="not valid Jinja"):
        choose(job.model_copy(update={"folder": tmp_path}), tokenizer, Path(), bos=False)


def test_a_boundary_inside_a_token_belongs_to_the_answer(tokenizer: Any) -> None:
    made = renderer(tokenizer, None)
    row = one(made, Completion("What is the cap", "ital of France?"))
    text = taught(made, row)
    assert text.endswith("ital of France?</s>")
    assert len(text) < len("What is the capital of France?</s>")


def test_truncation_keeps_the_start_and_says_that_the_end_was_cut(tokenizer: Any) -> None:
    whole = one(renderer(tokenizer), conversation(TURNS))
    cut = one(renderer(tokenizer, max_seq_length=40), conversation(TURNS))
    assert cut.input_ids == whole.input_ids[:40]
    assert cut.labels == whole.labels[:40]
    assert (cut.truncated, cut.eos, cut.length) == (True, "cut", whole.length)


def test_a_row_whose_answer_is_cut_off_whole_is_bad(tokenizer: Any) -> None:
    (bad,) = renderer(tokenizer, max_seq_length=8).render([conversation(TURNS)])
    assert isinstance(bad, BadRow)
    assert str(bad).startswith("has nothing to train on")


def test_a_long_row_is_not_cut_against_the_jobs_wish(tokenizer: Any) -> None:
    (long,) = renderer(tokenizer, max_seq_length=8, on_long_row="drop").render([conversation(TURNS)])
    assert isinstance(long, LongRow)


@pytest.mark.parametrize("limit", [8, 9, 12, 25])
def test_a_long_text_becomes_pieces_that_hold_all_of_it(with_bos: Any, limit: int) -> None:
    text = Text("The sea is wide, and the wind over it is cold in the morning. " * 3)
    whole = one(renderer(with_bos, None, max_seq_length=500), text)
    first = one(renderer(with_bos, None, max_seq_length=limit, on_long_row="auto"), text)
    pieces = [first, *first.rest]
    assert [token for piece in pieces for token in piece.input_ids] == whole.input_ids
    assert all(piece.labels == piece.input_ids and not piece.truncated for piece in pieces)
    assert all(1 < len(piece.input_ids) <= limit for piece in pieces)
    assert {len(piece.input_ids) for piece in pieces[:-2]} == {limit}
    assert whole.input_ids[0] == with_bos.bos_token_id
    assert with_bos.bos_token_id not in [piece.input_ids[0] for piece in first.rest]
    assert [piece.eos for piece in pieces] == [""] * len(first.rest) + ["there"]
    assert pieces[-1].input_ids[-1] == with_bos.eos_token_id


def test_no_piece_is_a_token_alone_which_is_never_predicted(tokenizer: Any) -> None:
    text = Text("The sea is wide. " * 4)
    limit = len(one(renderer(tokenizer, None), text).input_ids) - 1
    first = one(renderer(tokenizer, None, max_seq_length=limit, on_long_row="split"), text)
    assert [len(piece.input_ids) for piece in (first, *first.rest)] == [limit - 1, 2]


def test_only_plain_texts_are_split(tokenizer: Any) -> None:
    row = Completion("What is the capital", " of France? It is Paris.")
    cut = one(renderer(tokenizer, None, max_seq_length=12, on_long_row="auto"), row)
    assert (cut.truncated, cut.rest) == (True, ())
    assert one(renderer(tokenizer, None, max_seq_length=12, on_long_row="auto", train_on="all"), row).rest == ()
    for each in (row, conversation(TURNS), Ids((5, 6), (-100, 6))):
        with pytest.raises(DataError, match='on_long_row = "split" cannot be used'):
            renderer(tokenizer, max_seq_length=500, on_long_row="split").render([each])


def test_rows_of_tokens_are_taken_as_they_are(with_bos: Any) -> None:
    made = renderer(with_bos, max_seq_length=8)
    row = one(made, Ids((5, 6, 7), (-100, 6, -100)))
    assert (row.input_ids, row.labels, row.eos) == ([5, 6, 7], [-100, 6, -100], "")
    assert one(made, Ids((5, 2), (5, 2))).eos == "there"
    assert one(made, Ids(tuple(range(5, 15)), (-100, *range(6, 15)))).input_ids == list(range(5, 13))
    (bad,) = made.render([Ids((5, 6), (5, -100))])
    assert str(bad) == "has nothing to train on"
    split = one(
        renderer(with_bos, max_seq_length=8, on_long_row="split"), Ids(tuple(range(5, 22)), tuple(range(5, 22)))
    )
    assert [piece.input_ids for piece in (split, *split.rest)] == [[*range(5, 13)], [*range(13, 20)], [20, 21]]


@pytest.mark.parametrize(
    ("train_on", "labels", "words"),
    [("all", (-100, 6), "leave tokens out of the loss"), ("assistant", (5, 6), "do not say what an answer is")],
)
def test_the_loss_of_rows_of_tokens_is_their_own(
    tokenizer: Any, train_on: str, labels: tuple[int, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        renderer(tokenizer, train_on=train_on).render([Ids((5, 6), labels)])


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_bad(with_bos: Any) -> None:
    (bad,) = renderer(with_bos, None).render([Text("</s>")])
    assert str(bad).startswith("is empty once it is rendered")


def test_a_token_that_the_model_has_no_embedding_for_is_named(tokenizer: Any) -> None:
    assert renderer(tokenizer, vocabulary=400).foreign([399, 400]) is None, "its tokenizer has none beyond"
    made = renderer(tokenizer, vocabulary=399)
    assert made.foreign([5, 398]) is None
    bad, name = made.foreign([5, 399]), tokenizer.convert_ids_to_tokens(399)
    assert bad is not None
    assert bad.what == f"has the token {name!r} with the id 399, and the model has 399 tokens"
    for ids in ([5, 400], [-1, 5]):
        given = renderer(tokenizer, vocabulary=400).foreign(ids, given=True)
        assert given is not None
        assert given.why == "the model's ids are 0 to 399"


def test_a_padding_token_beyond_the_model_is_replaced_and_said(tmp_path: Path) -> None:
    extended = tokenizer_of(make_tokenizer(tmp_path / "t"))
    extended.add_special_tokens({"pad_token": "[MASK]"})
    assert settle_pad(extended, 401) == (400, "[MASK] (the tokenizer's own)")
    assert settle_pad(extended, 400) == (0, "<pad> (found in the vocabulary; the model has no embedding for [MASK])")


def test_tools_reach_the_template(tokenizer: Any) -> None:
    template = "{{ tools | tojson }}" + EOS_TEMPLATE
    made = renderer(tokenizer, template, train_on="completion")
    row = one(made, conversation(TURNS, tools=({"name": "clock"},)))
    assert json.dumps([{"name": "clock"}]) in tokenizer.decode(row.input_ids)


def test_plain_text_has_no_answers_to_train_on(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="have no answers"):
        renderer(tokenizer, None, train_on="assistant").render([Text("The sea")])


@pytest.mark.parametrize(
    ("span", "run"),
    [((0, 3), (0, 2)), ((2, 5), (1, 3)), ((3, 5), (2, 3)), ((0, 2), (0, 1)), ((1, 4), (0, 3))],
)
def test_white_space_with_trimmed_offsets_and_tokens_across_a_boundary_are_in_the_right_run(
    span: tuple[int, int], run: tuple[int, int]
) -> None:
    trimmed = [(0, 2), (3, 3), (3, 5)]  # "ab", "\n", "cd": byte-level tokenizers put white space at its own end
    assert inside(trimmed, [span]) == [run]
