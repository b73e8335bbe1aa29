"""The tables of a job file that belong to the core.

A stage's table can hold more keys: those that the offers for its ``method``, ``type`` or ``format`` declare in
``Offer.options``. :mod:`forge.job.read` checks both and puts the plugins' keys into ``options``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from forge.errors import Mistake, Mistakes
from forge.job.braces import Pieces, pieces_of
from forge.job.elsewhere import ADAPTER_KEYS, ADAPTERS, folded

NonEmpty = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Hint:
    """What to do about a key that a table does not know.

    Attributes:
        do: What to do, as a phrase.
        key: The key of the same table that is meant, if it is one.
    """

    do: str
    key: str | None = None


class Table(BaseModel):
    """One table of a job file: unknown keys and wrong types are errors, and nothing changes afterwards.

    Example:
        What ``Offer.options`` of a plugin may name; a contradiction is told with the line of its first key:

        >>> class ZipOptions(Table):
        ...     level: int = Field(6, ge=0, le=9, description="How hard to try.")
        ...     store: bool = Field(False, description="Do not compress.")
        ...
        ...     def contradictions(self):
        ...         if self.store and "level" in self.model_fields_set:
        ...             yield Mistake("store = true compresses nothing; remove level", ("level", "store"))
        >>> ZipOptions(level=9).level
        9
        >>> [mistake.keys for mistake in ZipOptions.model_construct({"store", "level"}, store=True).contradictions()]
        [('level', 'store')]
    """

    # TOML has nan and inf, and a bound alone lets inf through.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:  # noqa: ARG003 - for those who have one
        """Return what to do about a key that this table does not know; None where the nearest name says enough."""
        return None

    @classmethod
    def forge_word(cls, word: str) -> str | None:  # noqa: ARG003
        """Return what to write for a method, type or format that no plugin serves: other tools have other words."""
        return None

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in, which no single key shows."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        if context.get("checked"):  # a job of an older forge, which did not know what today's calls a mistake
            return self
        changed = context.get("changed", ())  # what a change for this time sets in this table
        found = list(self.contradictions())
        overruled = {each.keys[0] for each in found if each.by in changed and each.keys[0] not in changed}
        if wrong := [each for each in found if each.by is None or each.keys[0] not in overruled]:
            raise Mistakes(*wrong)
        fields = type(self).model_fields
        left_out = {name: fields[name].get_default(call_default_factory=True) for name in overruled}
        return self.model_copy(update=left_out) if left_out else self


class Extensible(Table):
    """A table that plugins add keys to: those are checked by the plugins' models, defaults filled in."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> Mapping[str, Any]:
        """The plugins' keys."""
        return self.model_extra or {}


class ModelTable(Table):
    """``[model]``: what to start from."""

    id: NonEmpty = Field(description="Hub id (`org/name`) or local folder of the base model.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub. The lock pins the commit.")
    max_seq_length: int = Field(
        2048, description="Longest row in tokens: the one length key. -1 takes the model's own limit."
    )
    load_in_4bit: bool = Field(False, description="Load the base in 4 bit (NF4, bitsandbytes): QLoRA.")
    load_in_8bit: bool = Field(False, description="Load the base in 8 bit (bitsandbytes).")
    load_in_16bit: bool = Field(False, description="Load the base in 16 bit even where `auto` would take 32.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the weights in memory. `auto` decides by machine and says why."
    )
    attn_implementation: str = Field(
        "auto", description="`auto`, `sdpa`, `eager`, `flash_attention_2`, or any name that transformers knows."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        asked = tuple(name for name in ("load_in_4bit", "load_in_8bit", "load_in_16bit") if getattr(self, name))
        if len(asked) > 1:
            yield Mistake(f"{' and '.join(asked)} contradict each other; keep one", asked)
        if self.load_in_16bit and self.dtype == "float32":
            yield Mistake('load_in_16bit contradicts dtype = "float32"; keep one', ("load_in_16bit",))
        if self.max_seq_length != -1 and self.max_seq_length < 8:
            yield Mistake("max_seq_length must be at least 8, or -1 for the model's own limit", ("max_seq_length",))

    @property
    def bits(self) -> Literal["4bit", "8bit"] | None:
        """The quantised form in which the base is loaded, if any."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else None


class AdapterTable(Extensible):
    """``[adapter]``: which parameters to train. The keys are peft's."""

    type: NonEmpty = Field("lora", description="`lora`, or `none` to train every weight.")
    r: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale: the update is multiplied by `lora_alpha / r`.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | list[str] = Field(
        "auto",
        description="`auto` (attention and MLP projections), `all-linear`, or names of modules, as they end.",
    )
    exclude_modules: list[str] | None = Field(None, description="Names of modules to leave out.")
    modules_to_save: list[str] | None = Field(None, description="Modules to train whole and save, beside LoRA.")
    finetune_vision_layers: bool | None = Field(
        None, description="Vision models: adapt the vision tower; with `none`, `false` freezes it. On if unset."
    )
    finetune_language_layers: bool | None = Field(
        None, description="Vision models: adapt the language model. On if unset."
    )
    finetune_attention_modules: bool | None = Field(
        None, description="Vision models: adapt the attention layers. On if unset."
    )
    finetune_mlp_modules: bool | None = Field(None, description="Vision models: adapt the MLP layers. On if unset.")
    layers_to_transform: list[int] | None = Field(None, description="Indices of the layers to adapt.")
    rank_pattern: dict[str, int] = Field(default_factory=dict, description="Other ranks for some modules.")
    alpha_pattern: dict[str, int] = Field(default_factory=dict, description="Other alphas for some modules.")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases to train.")
    use_rslora: bool = Field(False, description="Scale by `lora_alpha / sqrt(r)` (rank-stabilised LoRA).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA (DoRA).")
    init_lora_weights: bool | Literal["gaussian"] = Field(True, description="How to initialise LoRA, as in peft.")

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another tool is called here."""
        return Hint(f"write {ADAPTER_KEYS[key]}", ADAPTER_KEYS[key]) if key in ADAPTER_KEYS else None

    @classmethod
    def forge_word(cls, word: str) -> str | None:
        """Say what to write for a type of another tool."""
        return ADAPTERS.get(folded(word))

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        for one, other in (("vision_layers", "language_layers"), ("attention_modules", "mlp_modules")):
            both = (f"finetune_{one}", f"finetune_{other}")
            if all(self.parts.get(name) is False for name in both):
                yield Mistake(f"{' and '.join(both)} are both false, which leaves nothing to train", both)
        # A frozen vision tower is a way to train all the rest.
        extra = (self.model_fields_set & type(self).model_fields.keys()) - {"type", "finetune_vision_layers"}
        if self.type == "none" and extra:
            names = ", ".join(sorted(extra))
            what = f'type = "none" trains every weight, so {names} would do nothing; remove them'
            yield Mistake(what, ("type",))

    @property
    def parts(self) -> dict[str, bool]:
        """The ``finetune_…`` keys that the job sets."""
        return {
            name: value
            for name in type(self).model_fields
            if name.startswith("finetune_") and (value := getattr(self, name)) is not None
        }


Format = Literal[
    "auto",
    "messages",
    "sharegpt",
    "prompt-completion",
    "instruction",
    "input-output",
    "text",
    "tokens",
    "preference",
    "unpaired-preference",
    "prompt",
    "question",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]

MessageKey = Literal["role", "content", "reasoning_content", "tool_calls"]

_ROW = ("row_template",)
_TEMPLATE_KEYS = (("prompt",), ("prompt", "completion"), ("user",), ("user", "assistant"))


class Source(Table):
    """``[[data.sources]]``: one place that rows come from. ``[data]`` itself takes the same keys for a single one."""

    path: str | list[str] | None = Field(
        None, description="File, folder, glob, hub id, or a list of files: JSON, JSONL, CSV, Parquet, Arrow."
    )
    name: str | None = Field(None, description="Configuration (subset) of a hub data set.")
    split: str | None = Field(None, description="Split of a hub data set or folder; `train` if there is one.")
    revision: str | None = Field(None, description="Revision of a hub data set.")
    format: Format = Field("auto", description="Shape of the rows; `auto` goes by the columns and says what it took.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="What forge calls a column = what the file calls it."
    )
    roles: dict[str, Role] = Field(
        default_factory=dict, description='Speakers that forge does not know, as in `{ customer = "user" }`.'
    )
    message_keys: dict[MessageKey, str] = Field(
        default_factory=dict, description='What a message\'s keys are called: `{ role = "speaker", content = "text" }`.'
    )
    row_template: str | dict[str, str] | None = Field(
        None,
        description="Text to make of each row, with columns in braces: a string, or a table of `prompt` and "
        "`completion`, or of `system`, `user` and `assistant`.",
    )
    prompt_prefix: NonEmpty | None = Field(None, description="Text to put before the question of every row.")
    weight: float = Field(1.0, gt=0, description="How often each row is seen in an epoch: 0.5 takes half of the rows.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        template = self.row_template
        if isinstance(template, dict) and tuple(key for key in template if key != "system") not in {
            *_TEMPLATE_KEYS,
            *(keys[::-1] for keys in _TEMPLATE_KEYS),
        }:
            what = f"row_template has the keys {', '.join(template) or 'none'}"
            yield Mistake(f"{what}; write prompt and completion, or user and assistant, or the first alone", _ROW)
        elif isinstance(template, dict) and "system" in template and "prompt" in template:
            yield Mistake("row_template has system beside prompt, which no template is put around; write user", _ROW)
        try:
            pieces = self.row_pieces()
        except ValueError as error:
            yield Mistake(f"row_template cannot be read: {error}; write {{{{ and }}}} for braces", _ROW)
        else:
            if pieces and not any(column for text in pieces.values() for _, column in text):
                yield Mistake("row_template names no column, so all rows would be alike; write {column}", _ROW)
        others = {name: getattr(self, name) for name in ("format", "columns", "roles", "message_keys")}
        if template is not None and (beside := [name for name, value in others.items() if value not in ("auto", {})]):
            what = f"row_template says what a row is, so {' and '.join(beside)} would do nothing"
            yield Mistake(f"{what}; remove one", (*_ROW, *beside))

    def row_pieces(self) -> dict[str, Pieces]:
        """Return the texts of ``row_template`` by name, cut at their columns; a plain string is ``text``.

        Raises:
            ValueError: A text has braces that are no column's.
        """
        template = self.row_template
        texts = {"text": template} if isinstance(template, str) else template or {}
        return {name: pieces_of(text) for name, text in texts.items()}


def _moment(value: object) -> str:
    """Return a local date and time as text: TOML has a type for them, and JSON, in which plans are, has none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime) or value.tzinfo is not None:
        raise ValueError("must be a local date and time without an offset; write date = 2026-11-28T12:00:00")
    return value.isoformat()


class DataTable(Source):
    """``[data]``: the rows, and how they become tokens."""

    sources: list[Source] = Field(default_factory=list, description="Several sources instead of one `path`.")
    streaming: bool = Field(False, description="Read rows as they are needed. Needs `[train] max_steps`.")
    chat_template: str | None = Field(
        None, description="Name of a template that forge ships, or a `.jinja` file. Without it, the model's own."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        description="Variables for the chat template, such as `enable_thinking`: for rows, evaluation, chat and "
        "exports' checks. A row's own column wins, key by key.",
    )
    system_prompt: NonEmpty | None = Field(
        None, description="System message for conversations that have none. `forge chat` begins with it too."
    )
    tools: NonEmpty | list[dict[str, Any]] | None = Field(
        None, description="Tools for conversations that have none: a JSON file with a list, or the list itself."
    )
    date: Annotated[str, BeforeValidator(_moment)] | None = Field(
        None,
        description="The moment that a chat template takes for now. If it asks for one, the run's start, written into "
        "the lock.",
    )
    train_on: Literal["auto", "completion", "assistant", "flagged", "all"] = Field(
        "auto",
        description="Tokens in the loss: `completion` (the last answer), `assistant` (every answer), `all`; `flagged` "
        "takes only messages whose flag says so. `auto` takes every answer of a conversation, the completion of a "
        "prompt, all of a plain text. A message's flag (`weight`, `train`, …) wins.",
    )
    keep_reasoning: bool = Field(
        False, description="Write the reasoning of earlier answers too, where the chat template leaves it out."
    )
    mask_empty_reasoning: bool = Field(
        False, description="Leave the empty `<think>` block that templates write for no reasoning out of the loss."
    )
    eval_path: str | list[str] | None = Field(None, description="Held-out rows: a file, folder, glob or hub id.")
    eval_split: str | None = Field(None, description="Held-out split of the same source.")
    eval_size: int | float | None = Field(
        None, gt=0, description="Hold out this many rows (or this share, below 1) of the training rows."
    )
    on_bad_row: Literal["error", "drop"] = Field("error", description="What to do with a row that cannot be used.")
    max_bad_rows: int | float = Field(
        0.05, ge=0, description="With `drop`: the most rows (or the largest share, below 1) that may be dropped."
    )
    on_long_row: Literal["auto", "split", "truncate", "drop", "error"] = Field(
        "auto",
        description="What to do with a row longer than `[model] max_seq_length`: `split` a plain text into several "
        "rows, `truncate`, `drop`, or `error`. `auto` splits texts and cuts other rows, unless more than a tenth of "
        "all tokens were lost. Counted and said.",
    )
    max_rows: int | None = Field(None, ge=1, description="Take only the first rows of the training data.")
    packing: bool = Field(False, description="Fill each row up to `max_seq_length` with several, kept apart.")
    digest: str | None = Field(None, description="Refuse other rows than these. Written by forge into the lock.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        yield from super().contradictions()
        if not self.path and not self.sources:
            yield Mistake('there is no source of rows; write path = "…" or one or more [[data.sources]]')
        if self.path and self.sources:
            yield Mistake("path and [[data.sources]] are two ways to say the same; keep one", ("path", "sources"))
        if any(not source.path for source in self.sources):
            yield Mistake("every [[data.sources]] needs a path", ("sources",))
        own = (Source.model_fields.keys() - {"path"}) & self.model_fields_set
        if self.sources and own:
            names = tuple(sorted(own))
            yield Mistake(f"{', '.join(names)} belong into each [[data.sources]], since there are several", names)
        held_out = tuple(key for key in ("eval_path", "eval_split", "eval_size") if getattr(self, key) is not None)
        if len(held_out) > 1:
            yield Mistake(f"{' and '.join(held_out)} contradict each other; keep one", held_out)
        if self.streaming and self.eval_size is not None:
            what = "eval_size needs all rows, and streaming never sees them; use eval_path or eval_split"
            yield Mistake(what, ("eval_size", "streaming"))
        if self.on_bad_row != "drop" and self.max_bad_rows != type(self).model_fields["max_bad_rows"].default:
            what = 'max_bad_rows has no effect: no row is dropped; write on_bad_row = "drop", or remove it'
            yield Mistake(what, ("max_bad_rows",))

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the chat template; empty where the job gives none."""
        return self.chat_template_kwargs or {}

    def all_sources(self) -> list[Source]:
        """The sources of training rows, one or several."""
        if self.sources:
            return list(self.sources)
        return [Source(**{key: getattr(self, key) for key in Source.model_fields})]


class TrainTable(Extensible):
    """``[train]``: the method, and the trainer's own arguments by their own names."""

    method: NonEmpty = Field(
        "sft", description="How to train: `sft`, `dpo`, `grpo` and others; docs/methods.md tells of each."
    )
    probe: bool = Field(
        True, description="Try the longest batch first, so that out-of-memory comes at once and not after hours."
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop after this many evaluations without improvement."
    )
    early_stopping_threshold: float = Field(0.0, ge=0, description="What counts as an improvement.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        if self.early_stopping_threshold and self.early_stopping_patience is None:
            what = "early_stopping_threshold has no effect: nothing stops early; write early_stopping_patience = 3"
            yield Mistake(f"{what}, or remove it", ("early_stopping_threshold",))


class SamplingTable(Table):
    """The keys that say how an answer is generated. What is left out is for others to say."""

    max_new_tokens: int | None = Field(None, ge=1, description="The longest answer, in tokens.")
    temperature: float | None = Field(
        None, ge=0, le=10, description="0 takes the most probable token each time; above 0, tokens are drawn."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw among the most probable tokens that together have this probability."
    )
    top_k: int | None = Field(None, ge=0, description="Draw among this many tokens; 0 is all.")
    min_p: float | None = Field(
        None, ge=0, le=1, description="Draw among tokens with at least this share of the best one's probability."
    )
    repetition_penalty: float | None = Field(
        None, gt=0, description="Above 1, what prompt and answer hold already becomes less probable."
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Above 0, what the answer holds already becomes less probable."
    )

    def asked(self) -> dict[str, Any]:
        """Return the keys of how to generate that are set."""
        names = SamplingTable.model_fields
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class GenerationTable(SamplingTable):
    """``[generation]``: how the trained model is to answer, in ``forge chat`` and by its ``generation_config.json``."""


class EvalTable(SamplingTable):
    """``[eval]``: what to measure on held-out rows after training, the base model beside the trained one."""

    path: str | list[str] | None = Field(
        None, description="Rows to ask instead of the held-out rows of `[data]`: a file, folder, glob or hub id."
    )
    metrics: list[NonEmpty] = Field(
        default_factory=list,
        description="`exact-match`, `f1`, `rouge`, `json`, `pass@k`, `./file.py:function` or `module:function`. "
        "Loss and perplexity come by themselves.",
    )
    base: bool = Field(True, description="Ask the base model too, side by side.")
    max_rows: int | None = Field(None, ge=1, description="Ask only this many rows, drawn by `seed`.")
    batch_size: int = Field(8, ge=1, description="Rows at a time; halved by itself where memory is short.")
    sampling: Literal["greedy", "recommended"] = Field(
        "greedy",
        description="`greedy`, or `recommended`: as `[generation]`, the model or its family say. Keys beside it win.",
    )
    num_generations: int | None = Field(
        None, ge=1, description="Answers drawn for each row, for `pass@k`; the largest k if it is left out."
    )
    pass_reward: float | None = Field(
        None, description="Rewards of this sum, by weight, count as passed for `pass@k`; the weights' sum if left out."
    )
    seed: int = Field(42, description="For drawn rows, drawn tokens and intervals.")
    samples: int = Field(3, ge=0, description="How many rows to keep with their answers, for people to read.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        if len(set(self.metrics)) < len(self.metrics):
            yield Mistake("metrics names one of them twice", ("metrics",))
        wanted = [int(name.removeprefix("pass@")) for name in self.metrics if re.fullmatch(r"pass@[1-9]\d*", name)]
        if self.num_generations is not None and max(wanted, default=1) > self.num_generations:
            what = f"num_generations is {self.num_generations}, and pass@{max(wanted)} needs {max(wanted)}"
            yield Mistake(what, ("num_generations",))
        if max([*wanted, self.num_generations or 1]) > 1 and self.sampling == "greedy" and not self.temperature:
            yield Mistake(
                "metrics holds pass@k of several answers, and greedy ones would all be alike; "
                'write temperature, or sampling = "recommended"',
                ("metrics",),
            )


class ExportTable(Extensible):
    """``[[export]]``: what to make of the trained weights."""

    format: NonEmpty = Field(description="`adapter` (peft's files), `merged` (a whole model), `gguf` (for llama.cpp).")
    push_to_hub: str | None = Field(None, description="Upload to this hub repository (`user/name`).")
    private: bool = Field(True, description="Whether a repository made by `push_to_hub` is private.")


class UseTable(Table):
    """``[use]``: which plugins to use, where forge's own choice is not wanted."""

    backend: str = Field("auto", description="`auto`, or the backend that loads and adapts: `huggingface`, `unsloth`.")
    collate: str | None = Field(None, description="Plugin for this stage.")
    load: str | None = Field(None, description="Plugin for this stage.")
    adapt: str | None = Field(None, description="Plugin for this stage.")
    train: str | None = Field(None, description="Plugin for this stage.")
    generate: str | None = Field(None, description="Plugin for this stage; a GGUF file's is the one that reads it.")
    evaluate: str | None = Field(None, description="Plugin for this stage.")
    export: str | None = Field(None, description="Plugin for this stage.")
    with_: list[str] = Field(default_factory=list, alias="with", description="Plugins whose observers act on this run.")


TABLES: Mapping[str, type[BaseModel]] = {
    "model": ModelTable,
    "adapter": AdapterTable,
    "data": DataTable,
    "train": TrainTable,
    "eval": EvalTable,
    "generation": GenerationTable,
    "export": ExportTable,
    "use": UseTable,
}
