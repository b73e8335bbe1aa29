"""A run on plain text: its GGUF file is asked to continue a text too, and whoever runs it elsewhere is told so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge.api import Sampling
from forge.api.run import Run
from forge.job.job import load_job
from forge_gguf.llama.generate import generate
from support.evaluating import exported, generator_of, heard

if TYPE_CHECKING:
    from support.projects import Project

ROWS = [{"text": f"The sea is wide, the wind is cold, and the {number}th ship is not here."} for number in range(8)]
ASKED = [{"role": "user", "content": "The sea is"}]


def test_a_file_continues_what_is_written_as_the_run_does(project: Project) -> None:
    (project.folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    project.write(
        data={"path": "plain.jsonl", "eval_size": None},
        train={"max_steps": 2},
        export=[{"format": "gguf", "types": ["f32"]}],
    )
    done = project.perform()
    assert done.code == 0, done.printed
    made = exported(done, 0)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-gguf"
    tuned = generator_of(done.folder)
    plan = done.folder.plan()
    from_file: Any = generate(load_job(plan.job), Run(folder=done.folder.path, plan=plan), next(out.glob("*.gguf")))
    assert "what is written is continued" in from_file.advice
    wish = Sampling(max_new_tokens=8)
    (mine, ended), (wanted, end) = (heard(each.chat(ASKED, wish)) for each in (from_file, tuned))
    assert "".join(mine) == "".join(wanted)
    assert (ended.tokens, ended.finished) == (end.tokens, end.finished)
    assert from_file.model.begun("The sea is") == tuned._encode([tuned._prompt(ASKED)])["input_ids"][0].tolist()
    from_file.close()
    assert 'TEMPLATE "{{ .Prompt }}"' in (out / "Modelfile").read_text()
    card = (out / "README.md").read_text()
    assert "llama-completion -m" in card
    assert "llama-server" not in card
