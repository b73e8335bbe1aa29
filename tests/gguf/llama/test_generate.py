"""A GGUF file is asked as the trained model is, and answers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Sampling, Who
from support.evaluating import Evaluation, exported, generator_of, heard

if TYPE_CHECKING:
    from support.projects import Project

pytestmark = pytest.mark.slow


def test_a_gguf_file_answers_as_the_model_that_it_was_made_of(project: Project) -> None:
    pytest.importorskip("xllamacpp")
    from forge_gguf.llama.generate import GgufGenerator

    project.write(
        data={"eval_size": 4},
        eval={"metrics": ["f1"], "max_new_tokens": 8, "samples": 4, "base": False},
        export=[{"format": "gguf", "types": ["f16"]}],
    )
    done = project.perform()
    assert done.code == 0, done.printed
    made = exported(done, 0)
    assert made.code == 0, made.printed
    file = next((done.folder.path / "exports").rglob("*.gguf"))

    found = Evaluation(project, done.folder).found(models=[Who.TUNED, Who.GGUF], gguf=file)
    assert all(sample["answers"]["tuned"] == sample["answers"]["gguf"] for sample in found["samples"])
    assert set(found["metrics"]["loss"]) == {"tuned"}, "llama.cpp cannot say the loss"

    asked = [{"role": "user", "content": "Name a colour."}]
    tuned: Any = generator_of(done.folder)
    from_file = GgufGenerator(file, Sampling(), "", {})
    (said, end), (mine, ended) = (heard(each.chat(asked, Sampling(max_new_tokens=8))) for each in (tuned, from_file))
    assert "".join(said) == "".join(mine)
    assert (end.tokens, end.finished) == (ended.tokens, ended.finished)
    drawn = Sampling(max_new_tokens=8, temperature=1.0, seed=1)
    prompt = [tuned._prompt(asked)]
    first, again = (next(from_file.complete(prompt, drawn, count=3))[1] for _ in range(2))
    assert [answer.text for answer in first] == [answer.text for answer in again]
    assert len({answer.text for answer in first}) > 1
    from_file.close()
