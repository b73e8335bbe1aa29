"""``POST /api/start_training``: a training as the guide's programs ask for one, in flat JSON, and how far it is.

What is asked is written as a job of forge's, planned, and put into the queue like any other. Nothing that is asked is
left out in silence: a field that forge has no place for is a mistake, or is told in ``notes``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from forge_serve.web.bodies import Body, StartBody, checked, json_of
from forge_serve.web.jobs import add, key_of
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response


class Training(Body):
    """A training, in the guide's fields."""

    provider: Literal["huggingface", "unsloth"] = Field("huggingface", description="The backend.")
    model_name: str = Field(min_length=1, description="Hub id or folder of the base model.")
    dataset: str = Field(min_length=1, description="The rows: a file below the roots, or a hub id.")
    task: Literal["text-generation", "summarization", "extractive-question-answering"] = Field(
        "text-generation", description="What the model is for."
    )
    strategy: Literal["sft", "qlora", "dpo", "rlhf"] = Field("sft", description="How it is trained.")
    max_seq_length: int | None = Field(None, description="Longest row in tokens; -1 takes the model's own limit.")
    num_train_epochs: float | None = Field(None, description="How often all rows are seen.")
    max_steps: int | None = Field(None, description="How many steps; -1 goes by epochs.")
    per_device_train_batch_size: int | None = None
    per_device_eval_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    gradient_checkpointing: bool | None = None
    max_grad_norm: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_ratio: float | None = None
    optim: str | None = None
    lr_scheduler_type: str | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    group_by_length: bool | None = None
    packing: bool | None = None
    lora_r: int | None = None
    lora_alpha: int | None = None
    lora_dropout: float | None = None
    target_modules: list[str] | str | None = None
    use_4bit: bool | None = None
    use_8bit: bool | None = None
    bnb_4bit_quant_type: Literal["nf4"] | None = Field(None, description="forge's 4 bit is NF4.")
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    use_nested_quant: Literal[True] | None = Field(None, description="forge quantises the scales too.")
    eval_split: float | None = Field(None, ge=0, lt=1, description="The share of rows that is held out.")
    eval_steps: int | None = Field(None, ge=1, description="Steps between two evaluations.")
    compute_specs: str | None = Field(None, description="Taken and not used: forge looks at the machine itself.")


KEYS = {
    "model_name": "model.id",
    "max_seq_length": "model.max_seq_length",
    "use_4bit": "model.load_in_4bit",
    "use_8bit": "model.load_in_8bit",
    "bnb_4bit_compute_dtype": "model.dtype",
    "provider": "use.backend",
    "dataset": "data.path",
    "packing": "data.packing",
    "eval_split": "data.eval_size",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "target_modules": "adapter.target_modules",
    "strategy": "train.method",
    "warmup_ratio": "train.warmup_steps",
    "group_by_length": "train.train_sampling_strategy",
    **{
        name: f"train.{name}"
        for name in (
            "num_train_epochs",
            "max_steps",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "gradient_checkpointing",
            "max_grad_norm",
            "learning_rate",
            "weight_decay",
            "optim",
            "lr_scheduler_type",
            "bf16",
            "fp16",
            "eval_steps",
        )
    },
}
"""The guide's fields, and the keys of a job that say the same."""

_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*')


def without_comments(text: str) -> str:
    """Return JSON without the ``//`` comments that the guide's examples have, each line where it was.

    >>> without_comments('{"a": "//"} // said')
    '{"a": "//"} '
    """
    return _COMMENT.sub(lambda found: "" if found[0].startswith("//") else found[0], text)


def job_of(asked: Training) -> tuple[dict[str, Any], list[str]]:
    """Return a training as the tables of a job, and what should be known of it.

    Raises:
        Refused: It asks for what cannot be had.
    """
    problems = list(_impossible(asked))
    if problems:
        raise Refused(422, f"{problems[0]['where']}: {problems[0]['message']}", problems)
    tables: dict[str, Any] = {}
    given = asked.model_dump(exclude_none=True)
    given |= {"provider": asked.provider, "strategy": {"qlora": "sft"}.get(asked.strategy, asked.strategy)}
    if asked.strategy == "qlora":
        given["use_4bit"] = True
    if asked.max_steps == -1:
        del given["max_steps"]
    if asked.group_by_length is not None:
        given["group_by_length"] = "group_by_length" if asked.group_by_length else "random"
    if not asked.eval_split:
        given.pop("eval_split", None)
    if asked.eval_steps is not None:
        tables["train"] = {"eval_strategy": "steps"}
    for name, value in given.items():
        if name in KEYS:
            table, _, key = KEYS[name].partition(".")
            tables.setdefault(table, {})[key] = value
    return tables, list(_notes(asked))


def _impossible(asked: Training) -> Any:
    """Yield what of a training cannot be had, and what to do."""
    fixed = "Set a fixed value: 2048 is the standard; 512, 1024, 4096 and 8192 are common"
    if asked.provider == "unsloth" and asked.max_seq_length == -1:
        yield _problem("max_seq_length", "cannot be -1: auto-inference is not supported with unsloth", fixed)
    if asked.provider == "unsloth" and asked.max_seq_length is None:
        yield _problem("max_seq_length", "is missing: with unsloth you must specify a fixed one", fixed)
    if asked.strategy == "rlhf":
        what = "rlhf learns from rewards (grpo), and this call has no field for a reward"
        yield _problem("strategy", what, "POST /api/v1/runs a job with [[train.reward]]; docs/rewards.md")
    if asked.strategy == "qlora" and asked.use_4bit is False:
        yield _problem("use_4bit", "is false, and qlora loads the model in 4 bit", 'write strategy "sft"')


def _problem(where: str, message: str, hint: str) -> dict[str, Any]:
    return {"where": where, "line": None, "message": message, "hint": hint}


def _notes(asked: Training) -> Any:
    """Yield what should be known of a training."""
    if asked.compute_specs is not None:
        yield "compute_specs is not used: forge looks at the machine itself"
    if asked.task == "extractive-question-answering":
        yield "the model learns to write the answers of extractive-question-answering, and not to mark them in a text"
    if asked.use_4bit is None and asked.use_8bit is None and asked.strategy != "qlora":
        yield "the model is loaded unquantised, as use_4bit was not asked for"


def in_its_words(error: Refused) -> Refused:
    """Return a refusal whose mistakes name the guide's fields, where the job's keys came from them."""
    names = {key: name for name, key in KEYS.items()}
    problems = []
    for each in error.problems:
        where = str(each["where"])
        found = names.get(where) or next((name for key, name in names.items() if where.startswith(f"{key}.")), None)
        problems.append({**each, "where": found or where, "line": None})
    return Refused(error.status, error.detail, problems, error=error.error, headers=error.headers)


async def start(request: Request) -> Response:
    """Put a training into the queue, as the guide's programs ask for it."""
    server = server_of(request)
    try:
        text = without_comments((await request.body()).decode())
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: byte {error.start}") from None
    asked = checked(await json_of(request, text=text), Training)
    tables, notes = job_of(asked)
    body = StartBody(job=tables, name=name_of(asked))
    key = key_of(request)
    async with server.adding:
        place = None if key is None else server.shelf.by_key(key)
        if place is None:
            try:
                place = await add(server, body, key, task=asked.task)
            except Refused as error:
                raise in_its_words(error) from None
    await server.look_now()
    url = f"/api/v1/runs/{place.entry.id}"
    told: Mapping[str, Any] = {
        "success": True,
        "message": f"{place.entry.name} is {place.state()}",
        "run": place.entry.id,
        "url": url,
        "dataset_info": None,
        "notes": notes,
    }
    return answer(told, 202, headers={"location": url})


def name_of(asked: Training) -> str:
    """Return the name of a training: its model's, without what names of runs do not hold."""
    last = re.split(r"[/\\]", asked.model_name.rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "-", last).strip(".-")[:64] or "job"


async def status(request: Request) -> Response:
    """Say how far the newest training is: ``idle``, ``running``, ``completed`` or ``error``, and of a hundred."""
    lines = list(server_of(request).watch.lines.values())
    if not lines:
        return answer({"status": "idle", "progress": 0, "message": "nothing has been trained", "run": None})
    line = max(lines, key=lambda each: each["sort"])
    state = line["state"]
    word = {"running": "running", "queued": "running", "failed": "error", "lost": "error", "unknown": "error"}
    done = word.get(state, "completed" if state in {"trained", "done", "dry run"} else "idle")
    share = round(100 * (line["step"] or 0) / line["of"]) if line["of"] else 0
    error = line["error"] or {}
    said = ": ".join(str(part) for part in (error.get("what"), error.get("why")) if part)
    told = {
        "status": done,
        "progress": 100 if done == "completed" else min(share, 99 if done == "running" else 100),
        "message": said or f"{line['name']} is {state}",
        "run": line["id"],
    }
    return answer(told)
