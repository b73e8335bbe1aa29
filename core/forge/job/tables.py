"""The tables of a job file that belong to the core.

A stage's table can hold more keys: those that the offers for its ``method``, ``type`` or ``format`` declare in
``Offer.options``. :mod:`forge.job.read` checks both and puts the plugins' keys into ``options``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from forge.errors import Mistake
from forge.job.data import DataTable
from forge.job.elsewhere import ADAPTER_KEYS, ADAPTERS, BEGINNINGS, MODEL_KEYS, advice, folded
from forge.job.keys import keys_of
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


Beginning = Literal["gaussian", "olora", "orthogonal", "pissa", "pissa_niter_4", "pissa_niter_16"]
"""peft's words for how LoRA begins; ``niter`` counts the steps of a faster, random decomposition."""


OF_LAYERS = frozenset({"type", "layers_to_transform", "target_modules", "modules_to_save"})
"""The keys of ``[adapter]`` that choose layers to train whole."""


class AdapterTable(Extensible):
    """``[adapter]``: which parameters to train. The keys are peft's."""

    type: NonEmpty = Field(
        "lora", description="`lora`, `none` to train every weight, or `layers` to train chosen ones whole."
    )
    from_: NonEmpty | None = Field(
        None,
        alias="from",
        description="Go on from this adapter: a run, a folder with `adapter_config.json`, or a hub id. "
        "It brings the other keys of this table.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of `from` on the hub. The lock pins it.")
    digest: str | None = Field(
        None, description="Refuse another adapter in `from` than this. Written by forge into the lock."
    )
    r: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale: the update is multiplied by `lora_alpha / r`.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | list[str] = Field(
        "auto",
        description="`auto` (attention and MLP projections), `all-linear`, names of modules, as they end, or a regular "
        "expression for whole names.",
    )
    target_parameters: list[str] | None = Field(
        None,
        description="Parameters to adapt beside these, as their names end; `experts` stands for all of a mixture of "
        "experts, and `[]` leaves them as they are.",
    )
    exclude_modules: list[str] | None = Field(None, description="Names of modules to leave out.")
    modules_to_save: list[str] | None = Field(
        None, description="Modules to train whole and save, beside LoRA or beside the chosen layers."
    )
    ensure_weight_tying: bool = Field(
        False,
        description="Train embedding and output layer as one, where the model has one for both and `modules_to_save` "
        "names it; else what is trained parts from the other.",
    )
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
    layers_to_transform: list[int] | None = Field(
        None, description="Indices of the layers to adapt, or to train whole; of these, -1 is the last one."
    )
    rank_pattern: dict[str, int] = Field(default_factory=dict, description="Other ranks for some modules.")
    alpha_pattern: dict[str, int] = Field(default_factory=dict, description="Other alphas for some modules.")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases to train.")
    use_rslora: bool = Field(False, description="Scale by `lora_alpha / sqrt(r)` (rank-stabilised LoRA).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA (DoRA).")
    init_lora_weights: bool | Beginning = Field(
        True,
        description="How to initialise LoRA, as in peft. `olora` and `pissa` begin with a part of the base; what they "
        "leave is a plain LoRA of twice the rank.",
    )

    @field_validator("init_lora_weights", mode="before")
    @classmethod
    def _known_beginning(cls, value: Any) -> Any:
        """Say why forge does not have a beginning that other tools have."""
        if isinstance(value, str) and (why := BEGINNINGS.get(folded(value))):
            raise ValueError(why)
        return value

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another tool is called here."""
        said = advice(key, ADAPTER_KEYS)
        return Hint(*said) if said else None

    @classmethod
    def forge_word(cls, word: str) -> str | None:
        """Say what to write for a type of another tool."""
        return ADAPTERS.get(folded(word))

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        if isinstance(self.target_modules, str) and (fault := _fault(self.target_modules)):
            yield Mistake(f"target_modules is no regular expression: {fault}", ("target_modules",))
        if self.target_parameters:
            for name in ("lora_dropout", "use_dora", "layers_to_transform"):
                if getattr(self, name):
                    yield Mistake(f"{name} is not for target_parameters in peft; leave it out", (name,))
            if self.init_lora_weights == "orthogonal":
                what = 'init_lora_weights = "orthogonal" is not for target_parameters in peft; leave it out'
                yield Mistake(what, ("init_lora_weights",))
        words = {name.rpartition(".")[2] for name in self.modules_to_save or ()}
        if self.ensure_weight_tying and not words & {"embed_tokens", "lm_head", "wte", "shared"}:
            what = "ensure_weight_tying does nothing unless modules_to_save names the embedding; remove it"
            yield Mistake(what, ("ensure_weight_tying",))
        for one, other in (("vision_layers", "language_layers"), ("attention_modules", "mlp_modules")):
            both = (f"finetune_{one}", f"finetune_{other}")
            if all(self.parts.get(name) is False for name in both):
                yield Mistake(f"{' and '.join(both)} are both false, which leaves nothing to train", both)
        if self.init_lora_weights == "orthogonal" and any(rank % 2 for rank in (self.r, *self.rank_pattern.values())):
            yield Mistake('init_lora_weights = "orthogonal" needs even ranks', ("init_lora_weights", "r"))
        if self.use_dora and self.takes_from_the_base:
            begin = f'init_lora_weights = "{self.init_lora_weights}"'
            what = f"use_dora cannot be with {begin}: its magnitudes are those of the whole base"
            yield Mistake(what, ("use_dora", "init_lora_weights"))
        if self.takes_from_the_base and (self.from_ or self.target_parameters):
            other = "from" if self.from_ else "target_parameters"
            what = f'init_lora_weights = "{self.init_lora_weights}" cannot be with {other}'
            yield Mistake(what, ("init_lora_weights", other))
        if self.from_ is None and (alone := [name for name in ("revision", "digest") if getattr(self, name)]):
            yield Mistake(f"{' and '.join(alone)} without from does nothing; remove it", tuple(alone))
        if self.type == "layers":
            yield from self._of_layers()
        # A frozen vision tower is a way to train all the rest.
        extra = {key for key, name in keys_of(type(self)).items() if name in self.model_fields_set}
        extra -= {"type", "finetune_vision_layers"}
        if self.type == "none" and extra:
            names = ", ".join(sorted(extra))
            what = f'type = "none" trains every weight, so {names} would do nothing; remove them'
            yield Mistake(what, ("type",))

    def _of_layers(self) -> Iterator[Mistake]:
        """Yield what is wrong with the keys beside ``type = "layers"``."""
        if extra := {key for key, name in keys_of(type(self)).items() if name in self.model_fields_set - OF_LAYERS}:
            names = ", ".join(sorted(extra))
            yield Mistake(f'type = "layers" trains weights whole, so {names} would do nothing; remove them', ("type",))
        if not (self.layers_to_transform or self.modules_to_save or self.target_modules != "auto"):
            what = 'type = "layers" is without layers; name them in layers_to_transform, target_modules or '
            yield Mistake(f"{what}modules_to_save", ("type",))

    @property
    def leaves_model(self) -> bool:
        """Whether the model's own weights are trained, so that a whole model is left and no adapter."""
        return self.type in {"none", "layers"}

    @property
    def takes_from_the_base(self) -> bool:
        """Whether the adapter begins as a part of the base, which then lacks it."""
        return str(self.init_lora_weights).startswith(("olora", "pissa"))

    @property
    def parts(self) -> dict[str, bool]:
        """The ``finetune_…`` keys that the job sets."""
        return {
            name: value
            for name in type(self).model_fields
            if name.startswith("finetune_") and (value := getattr(self, name)) is not None
        }


def _fault(pattern: str) -> str | None:
    """Return what is wrong with a regular expression, or None."""
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


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
