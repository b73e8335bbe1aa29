"""The tables of a job file that belong to the core.

A stage's table can hold more keys: those that the offers for its ``method``, ``type`` or ``format`` declare in
``Offer.options``. :mod:`forge.job.read` checks both and puts the plugins' keys into ``options``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from forge.errors import Mistake
from forge.job.adapter import AdapterTable
from forge.job.data import DataTable
from forge.job.elsewhere import MODEL_KEYS, advice
from forge.job.table import Extensible, Hint, NonEmpty, Table

_NOT_TO_CHANGE = frozenset({"architectures", "auto_map", "model_type", "quantization_config", "vocab_size"})
"""Values of ``config.json`` that no job changes: the weights are what they say."""


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
    dequantize: bool | None = Field(
        None,
        description="Load weights that are stored in `mxfp4` or `fp8` as 16 bit ones. Decided where they could not be "
        "trained on otherwise.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the weights in memory. `auto` decides by machine and says why."
    )
    attn_implementation: str = Field(
        "auto",
        description="`auto`, `sdpa`, `varlen`, `eager`, `flash_attention_2`, or any name that transformers knows.",
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Values to take instead of those in the model's `config.json`; tables go into its tables.",
    )
    add_tokens: list[NonEmpty] = Field(
        default_factory=list,
        description="Tokens that the tokenizer does not have yet: each gets a row of the embedding, which is trained, "
        "with LoRA too.",
    )
    add_special_tokens: list[NonEmpty] = Field(
        default_factory=list, description="Such tokens that mark something, and are left out of answers as text."
    )
    pad_token: NonEmpty | None = Field(None, description="Token to pad with; decided if unset.")
    eos_token: NonEmpty | None = Field(
        None, description="Token that ends a row, and an answer; the tokenizer's own if unset."
    )

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another tool is called here."""
        said = advice(key, MODEL_KEYS)
        return Hint(*said) if said else None

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        for key in sorted(self.config.keys() & _NOT_TO_CHANGE):
            yield Mistake(f"config.{key} says what the weights are; name another model instead", ("config",))
        asked = tuple(name for name in ("load_in_4bit", "load_in_8bit", "load_in_16bit") if getattr(self, name))
        if len(asked) > 1:
            yield Mistake(f"{' and '.join(asked)} contradict each other; keep one", asked)
        seen: set[str] = set()
        for key in ("add_tokens", "add_special_tokens"):
            for token in getattr(self, key):
                if token in seen:
                    yield Mistake(f"{key} names {token!r} twice; once is enough", (key,))
                elif token != token.strip() or not token.isprintable():
                    what = "has space around it, or characters that are not seen"
                    yield Mistake(f"{key}: {token!r} {what}, and the tokenizer would not find it in a text", (key,))
                seen.add(token)
        if self.load_in_16bit and self.dtype == "float32":
            yield Mistake('load_in_16bit contradicts dtype = "float32"; keep one', ("load_in_16bit",))
        if self.max_seq_length != -1 and self.max_seq_length < 8:
            yield Mistake("max_seq_length must be at least 8, or -1 for the model's own limit", ("max_seq_length",))

    @property
    def new_tokens(self) -> list[str]:
        """The tokens that the job adds, special ones behind the others, as their ids follow each other."""
        return [*self.add_tokens, *self.add_special_tokens]

    @property
    def changes_tokenizer(self) -> bool:
        """Whether the model is to have another tokenizer than its files have."""
        return bool(self.new_tokens or self.pad_token or self.eos_token)

    @property
    def bits(self) -> Literal["4bit", "8bit"] | None:
        """The quantised form in which the base is loaded, if any."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else None


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
            yield Mistake(f"{what}, or remove it", ("early_stopping_threshold",), by="early_stopping_patience")


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

    cuda_graph: bool = Field(
        True,
        description="Decode by a CUDA graph where the model allows it, in chat, evaluation and answers while training.",
    )


class EvalTable(SamplingTable):
    """``[eval]``: what to measure on held-out rows after training, the base model beside the trained one."""

    path: str | list[str] | None = Field(
        None, description="Rows to ask instead of the held-out rows of `[data]`: a file, folder, glob or hub id."
    )
    metrics: list[NonEmpty] = Field(
        default_factory=list,
        description="`exact-match`, `f1`, `rouge`, `json`, `pass@k`, `./file.py:function` or `module:function`; "
        "`lm-eval:task` of the lm-evaluation-harness. Loss and perplexity come by themselves.",
    )
    base: bool = Field(True, description="Ask the base model too, side by side.")
    max_rows: int | None = Field(None, ge=1, description="Ask only this many rows, drawn by `seed`.")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Rows at a time; `auto`: as many greedy ones as fit, 8 drawn ones. Halved where memory is short.",
    )
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

    def made_by(self) -> dict[str, Any]:
        """Return what decides the files of the export: all but where it is uploaded to."""
        return self.model_dump(mode="json", exclude={"push_to_hub", "private"})


class LaunchTable(Table):
    """``[launch]``: over how many processes a training is spread, and what of the model each of them holds.

    What a step trains on is the same for any number of processes: they share its rows.
    """

    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="Processes of a node; `auto`: as many as it has GPUs that the job can be spread over."
    )
    nodes: int = Field(
        1,
        ge=1,
        le=4096,
        description="Machines that share the run folder's disk; each but the first is told `forge worker-node RUN`.",
    )
    shard: Literal["auto", "none", "full"] = Field(
        "auto",
        description="`none`: each process holds the whole model (DDP). `full`: each holds a part (FSDP2). "
        "`auto` shards only what does not fit on one GPU.",
    )
    timeout: int = Field(
        600, ge=1, description="Seconds that a process waits for the others in a step before it gives up."
    )

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        if self.shard == "full" and self.processes == 1 and self.nodes == 1:
            yield Mistake('shard = "full" needs several processes; raise processes, or remove it', ("shard",))

    @property
    def world_size(self) -> int:
        """All processes of all nodes; 1 of a node whose number is left open."""
        return (1 if self.processes == "auto" else self.processes) * self.nodes


class UseTable(Table):
    """``[use]``: which plugins to use, where forge's own choice is not wanted."""

    backend: str = Field(
        "auto", description="`auto`, or the backend that loads and adapts: `huggingface`, `unsloth`, `mlx`."
    )
    prefer: list[NonEmpty] = Field(
        default_factory=list,
        description="Plugins or backends to take before all others wherever they can serve, the best first.",
    )
    plugins: list[NonEmpty] = Field(
        default_factory=list,
        description="Plugins that are files beside the job, `./my_plugin.py`; the run's folder gets a copy.",
    )
    versions: dict[str, str] = Field(
        default_factory=dict,
        description="In a lock: the plugins of others that it was made with, each with its distribution and version.",
    )
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
    "launch": LaunchTable,
    "export": ExportTable,
    "use": UseTable,
}
