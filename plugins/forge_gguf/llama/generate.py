"""GENERATE: a GGUF file as a chat and an evaluation ask it, in llama.cpp.

What is asked for by transformers' names is said in llama.cpp's, each value written out: llama.cpp has defaults of its
own (top_k 40, top_p 0.95, min_p 0.05) that would otherwise slip into answers that are to be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Answer, UsageError
from forge_gguf.llama.runtime import Generator
from forge_huggingface.generation.plain import SAID, text_of, trained_on_plain_text
from forge_huggingface.generation.sampling import recommended

if TYPE_CHECKING:
    from collections.abc import Generator as Stream
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from forge.api import Job, Prompt, Run, Sampling


def generate(job: Job, run: Run, file: Path) -> GgufGenerator:
    """Load a GGUF file.

    Raises:
        BackendImportError: xllamacpp is not installed or does not load.
        ExportError: llama.cpp cannot load the file.
    """
    facts = run.plan.facts
    found = recommended(job, None, facts.model_type, None)
    advice = found.advice
    plain = trained_on_plain_text(run.folder)
    if plain:
        advice += f"; {SAID}"
    elif job.data.tools is not None:
        advice += "; a GGUF file is not told of the job's tools here"
    return GgufGenerator(file, found.sampling(), advice, job.data.variables, plain=plain)


_PENALISED = 4096  # tokens that a penalty goes by; llama.cpp's own default is 64


class GgufGenerator:
    """A GGUF file that answers.

    Args:
        file: The file.
        sampling: How the model is meant to answer.
        advice: Where that comes from.
        variables: Those of ``[data] chat_template_kwargs``, for a chat.
        plain: Whether it was trained on plain text, which is to be continued.
    """

    def __init__(
        self, file: Path, sampling: Sampling, advice: str, variables: Mapping[str, Any], *, plain: bool = False
    ) -> None:
        self.sampling, self.advice, self.variables, self.plain = sampling, advice, variables, plain
        self.model = Generator(file)

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Stream[str, None, Answer]:
        """Yield the answer to a conversation, rendered by the file's own template; return the :class:`Answer`.

        Of a run on plain text, what is asked is continued.
        """
        if self.plain:
            ids = self.model.begun(text_of(messages))
            return self.model.continued(ids, n_predict=sampling.max_new_tokens, **_settings(sampling))
        if any(not isinstance(message["content"], str) for message in messages):
            raise UsageError("the message has an image", "a GGUF file is asked by text only here", "leave it out")
        asked = [{"role": message["role"], "content": message["content"]} for message in messages]
        return self.model.chat(asked, self.variables, max_tokens=sampling.max_new_tokens, **_settings(sampling))

    def complete(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        count: int = 1,
        batch_size: int | None = None,  # noqa: ARG002 - llama.cpp answers one after the other
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of each prompt with ``count`` answers; the prompt is the run's own, tokenised by the file."""
        for index, prompt in enumerate(prompts):
            if len(prompt.images):
                raise UsageError("the rows have images", "a GGUF file is asked by text only here", "leave --gguf out")
            ids = self.model.tokens(prompt.text, special=False)
            answers = []
            for number in range(count):
                wish = _settings(sampling, number) | {"n_predict": sampling.max_new_tokens, "cache_prompt": True}
                answers.append(self.model.answer(ids, **wish))
            yield index, answers

    def losses(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> None:
        """Say that the loss cannot be had: llama.cpp's server gives the probabilities of the likeliest tokens only."""

    def base(self) -> None:
        """Say that there is no base model in the file."""

    def close(self) -> None:
        """Free the memory."""
        self.model.close()


def _settings(sampling: Sampling, number: int = 0) -> dict[str, Any]:
    """Return llama.cpp's parameters; ``number`` tells the answers to one prompt apart.

    llama.cpp's penalties go by the last tokens of prompt and answer, transformers' and forge's by all of them, and the
    presence penalty by those of the answer alone.
    """
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": _PENALISED,
        "presence_penalty": sampling.presence_penalty,
    }
    return settings if sampling.seed is None else settings | {"seed": sampling.seed + number}
