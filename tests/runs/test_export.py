"""Exports: repeatable, checked, uploaded on request, and never at the price of the trained weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge.api.run import Run
from forge.discovery.discover import discover
from forge.disk.files import write_json
from forge.errors import ExportError, ForgeError
from forge.job.decisions import Decision
from forge.job.job import load_job
from forge.machine.probe import probe
from forge.planning.planner import export_plan
from forge.worker.tasks import waiting
from support.doubles.hub import TOKEN, Hub
from support.projects import Finished, Project, json_of, perform_in
from support.tiny import make_model


def in_type(project: Project, dtype: str) -> None:
    """Store a project's model in a type."""
    from transformers import AutoModelForCausalLM

    folder = project.folder / "model"
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder)


def exported(done: Finished, index: int = 0, dtype: str | None = None) -> Finished:
    """Make an export of a finished run in this process, as if its plan had taken a type for the weights."""
    plan = done.folder.plan()
    trained = done.folder.trained()
    assert trained is not None
    job = load_job(plan.job)
    made = export_plan(job, index, discover({}), probe(), plan.facts, trained.traits, plan.source)
    from dataclasses import replace

    taken = (Decision("model.dtype", dtype, "as on another machine"),) if dtype else ()
    made = replace(made, decisions=(*plan.decisions, *made.decisions, *taken))
    return perform_in(Run(folder=done.folder.path, plan=made), done.folder)


def answers(folder: Path, adapter: Path | None = None) -> Any:
    """Return a model's logits for a fixed input."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


def test_a_merged_model_answers_as_base_and_adapter_do(project: Project) -> None:
    import torch

    project.write(export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-merged"
    base, tuned = project.folder / "model", done.folder.path / "adapter"
    torch.testing.assert_close(answers(out), answers(base, tuned), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(answers(out), answers(base), atol=1e-2)
    report = json_of(out / "export.json")
    assert report["report"]["error"] < 1e-5
    assert set(report["files"]) >= {"model.safetensors", "tokenizer.json", "config.json", "README.md"}


@pytest.mark.parametrize("decided", ["float32", "bfloat16"])
def test_a_merged_model_is_in_the_type_of_its_base_whatever_training_computed_in(
    project: Project, decided: str
) -> None:
    """Each weight is base and adapter in 32 bit, rounded once; a GPU's plan says bfloat16, a CPU's float32."""
    import torch
    from safetensors.torch import load_file

    in_type(project, "bfloat16")
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done, dtype=decided)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-merged"
    found, base = load_file(out / "model.safetensors"), load_file(project.folder / "model" / "model.safetensors")
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    assert json_of(out / "config.json")["dtype"] == "bfloat16"
    lora = load_file(done.folder.path / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{which}.weight"].float() for which in "AB")
    merged = base[f"{name}.weight"].float() + 2 * (b @ a)
    assert torch.equal(found[f"{name}.weight"], merged.to(torch.bfloat16))
    size, own = ((path / "model.safetensors").stat().st_size for path in (out, project.folder / "model"))
    assert size == pytest.approx(own, rel=0.01)
    said = [event["message"] for event in made.of_kind("note")]
    assert any(
        re.fullmatch(r"the merged model is bfloat16, .* KiB; the base is bfloat16, .* KiB", text) for text in said
    )
    assert json_of(out / "export.json")["report"]["limit"] == 5e-2


def test_a_whole_trained_model_is_exported_in_the_type_of_its_base(project: Project) -> None:
    import torch
    from safetensors.torch import load_file

    in_type(project, "bfloat16")
    project.write(adapter={"type": "none", "r": None, "lora_alpha": None}, export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-merged"
    trained, found = (load_file(path / "model.safetensors") for path in (done.folder.path / "model", out))
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert all(torch.equal(found[name], value.to(torch.bfloat16)) for name, value in trained.items())
    assert json_of(out / "config.json")["dtype"] == "bfloat16"
    assert 0 < json_of(out / "export.json")["report"]["error"] < 5e-2


@pytest.mark.parametrize(("wish", "limit"), [("float32", 1e-4), ("float16", 5e-2)])
def test_another_type_is_written_if_the_export_asks(project: Project, wish: str, limit: float) -> None:
    import torch
    from safetensors.torch import load_file

    in_type(project, "bfloat16")
    project.write(export=[{"format": "merged", "dtype": wish}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-merged"
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {getattr(torch, wish)}
    report = json_of(out / "export.json")["report"]
    assert (report["dtype"], report["limit"]) == (wish, limit)


def test_values_that_do_not_fit_into_float16_are_told(project: Project) -> None:
    from safetensors.torch import load_file, save_file

    path = project.folder / "model" / "model.safetensors"
    values = load_file(path)
    values["model.embed_tokens.weight"][7] = 1e5
    save_file(values, path, {"format": "pt"})
    project.write(export=[{"format": "merged", "dtype": "float16"}])
    made = exported(project.perform())
    assert made.code == ExportError.exit_code
    assert "above 65504" in made.error["why"]
    assert 'dtype = "bfloat16"' in made.error["do"]


def test_only_a_merged_export_has_a_type(project: Project) -> None:
    project.write(export=[{"format": "adapter", "dtype": "float32"}])
    assert "export.0.dtype: unknown key" in project.forge("plan", "job.toml", code=2)
    project.write(export=[{"format": "merged", "dtype": "float8"}])
    assert "export.0.dtype" in project.forge("plan", "job.toml", code=2)


def test_a_merged_model_that_differs_does_not_count(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora import LoraModel

    merge = LoraModel.merge_and_unload

    def wrong(model: Any, *arguments: Any, **named: Any) -> Any:
        merged = merge(model, *arguments, **named)
        merged.model.layers[0].self_attn.q_proj.weight.data *= 1.5
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done)
    assert made.code == ExportError.exit_code
    assert "not the trained one" in made.error["what"]
    assert not (done.folder.path / "exports" / "1-merged").exists()
    assert (done.folder.path / "adapter" / "adapter_model.safetensors").exists()


def test_an_adapter_export_is_what_peft_reads(project: Project) -> None:
    project.write(export=[{"format": "adapter"}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-adapter"
    trained = done.folder.path / "adapter" / "adapter_model.safetensors"
    assert (out / "adapter_model.safetensors").read_bytes() == trained.read_bytes()


def test_a_whole_model_is_exported_as_it_is(project: Project) -> None:
    project.write(adapter={"type": "none", "r": None, "lora_alpha": None}, export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    first, second = done.folder.path / "model", done.folder.path / "exports" / "1-merged"
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_an_export_can_be_made_again_later_and_in_another_format(project: Project) -> None:
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    run = str(done.folder.path)
    project.forge("export", run)
    first = (done.folder.path / "exports" / "1-merged" / "model.safetensors").read_bytes()
    project.forge("export", run, "--format", "adapter")
    assert (done.folder.path / "exports" / "2-adapter" / "adapter_config.json").exists()
    assert exported(done).code == 0
    assert (done.folder.path / "exports" / "1-merged" / "model.safetensors").read_bytes() == first


def test_when_an_export_fails_the_run_says_that_the_model_is_safe(project: Project) -> None:
    from forge.parent.after import export_all

    project.write(export=[{"format": "adapter", "push_to_hub": "nobody/there"}, {"format": "merged"}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_of_a_day_that_is_over")
        done = project.perform()
    shown: list[Any] = []
    environ = {"HF_TOKEN": None, "HF_HOME": str(project.folder / "home"), "HF_HUB_OFFLINE": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environ.items():
            patch.delenv(key, raising=False) if value is None else patch.setenv(key, value)
        with pytest.raises(ForgeError) as caught:
            export_all(done.folder, discover({}), probe(), shown.append)
    assert "trained and safe" in caught.value.what
    assert "nobody is logged in" in str(caught.value)
    assert f"forge export {done.folder.path}" in str(caught.value)
    assert (done.folder.path / "exports" / "2-merged" / "export.json").exists(), "the other export is made all the same"


def test_the_base_model_must_still_be_there(project: Project) -> None:
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    (project.folder / "model" / "model.safetensors").unlink()
    made = exported(done)
    assert made.code == 2
    assert "cannot read the model" in made.error["what"]


@pytest.mark.slow
def test_an_export_finds_a_base_that_was_moved_and_refuses_another(project: Project) -> None:
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    run, moved = str(done.folder.path), project.folder / "elsewhere"
    (project.folder / "model").rename(moved)
    assert "model" in project.forge("export", run, code=2)
    other = make_model(project.folder / "other", hidden=48)
    said = project.forge("export", run, "--set", f"model.id={other}", code=2)
    assert "not the base model that the run was trained on" in said
    project.forge("export", run, "--set", f"model.id={moved}")
    assert (done.folder.path / "exports" / "1-merged" / "export.json").exists()


def test_what_was_trained_in_four_bits_is_merged_into_the_whole_base(project: Project) -> None:
    pytest.importorskip("bitsandbytes")
    project.write(model={"load_in_4bit": True}, export=[{"format": "merged"}])
    done = project.perform()
    made = exported(done)
    assert made.code == 0, made.printed
    report = json_of(done.folder.path / "exports" / "1-merged" / "export.json")["report"]
    assert report["dtype"] == "float32"
    assert "trained on the 4bit base, merged into its float32 weights" in report["note"]


@pytest.mark.slow
def test_a_model_of_the_hub_is_trained_pinned_and_uploaded(tmp_path: Path) -> None:
    """With the double of a hub: download, training, upload; the token is written nowhere."""
    folder = make_model(tmp_path / "hubmodel")
    with Hub() as hub:
        commit = hub.add_folder("org/tiny", folder)
        project = Project(tmp_path / "project", folder)
        project.write(model={"id": "org/tiny"}, export=[{"format": "adapter", "push_to_hub": "me/tuned"}])
        environ = hub.environment(tmp_path / "home")
        output = subprocess.run(
            [sys.executable, "-P", "-m", "forge", "run", "job.toml"],
            cwd=project.folder,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert output.returncode == 0, output.stdout + output.stderr
        uploaded = hub.repos["me/tuned"]
        assert uploaded.private
        assert "adapter_model.safetensors" in uploaded.files
        assert b"base_model: org/tiny" in uploaded.files["README.md"]
    run = project.newest().path
    config = json_of(run / "adapter" / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", commit)
    assert f'revision = "{commit}"' in (run / "job.lock.toml").read_text()
    for path in [*run.rglob("*")]:
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), f"the token is in {path}"


@pytest.mark.slow
def test_an_upload_without_a_network_is_repeated_alone(project: Project, tmp_path: Path) -> None:
    project.write(train={"max_steps": 1}, export=[{"format": "merged", "push_to_hub": "me/tuned"}])
    with Hub() as hub:
        closed = hub.environment(tmp_path / "home")
    output = project.forge("run", "job.toml", code=1, **closed)
    folder = project.newest()
    out = folder.path / "exports" / "1-merged"
    assert f"the export is in place in {out.relative_to(project.folder)}, and was not uploaded" in output
    assert "the hub cannot be reached" in output
    assert "`forge resume" in output
    assert "repeats the upload alone" in output
    before = (out / "model.safetensors").stat()
    assert json_of(out / "export.json")["url"] is None
    with Hub() as hub:
        output = project.forge("resume", str(folder.path), **hub.environment(tmp_path / "home"))
        assert "read back from disk" not in output, "it was merged again"
        assert "model.safetensors" in hub.repos["me/tuned"].files
        address = f"{hub.url}/me/tuned"
    after = (out / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    report = json_of(out / "export.json")
    assert report["url"] == address
    assert "waiting" not in report
    assert folder.is_exported(0, load_job(folder.plan().job))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["me/tuned", "me/other"])
def test_forge_export_repeats_an_upload_alone_also_to_another_place(
    project: Project, tmp_path: Path, name: str
) -> None:
    project.write(train={"max_steps": 1})
    folder = project.perform().folder
    told = ("export", str(folder.path), "--format", "merged", "--push-to-hub")
    with Hub() as hub:
        closed = hub.environment(tmp_path / "home")
    output = project.forge(*told, "me/tuned", code=1, **closed)
    assert "the same command repeats the upload alone" in output, "no job of the run names this upload"
    out = folder.path / "exports" / "1-merged"
    before = (out / "model.safetensors").stat()
    with Hub() as hub:
        output = project.forge(*told, name, **hub.environment(tmp_path / "home"))
        assert "read back from disk" not in output, "it was merged again"
        assert "model.safetensors" in hub.repos[name].files
        assert json_of(out / "export.json")["url"] == f"{hub.url}/{name}"
    made = (out / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_an_export_that_waits_for_its_upload_is_made_anew_where_its_files_or_weights_are_others(
    project: Project,
) -> None:
    project.write(train={"max_steps": 1}, export=[{"format": "merged"}])
    done = project.perform()
    assert exported(done).code == 0
    out = done.folder.path / "exports" / "1-merged"
    report = json_of(out / "export.json")
    assert waiting(out, report["made_of"]) is None, "nothing waits"
    write_json(out / "export.json", report | {"waiting": "me/tuned"})
    assert waiting(out, report["made_of"]) == report
    assert waiting(out, {**report["made_of"], "weights": "others"}) is None
    (out / "README.md").write_text("changed")
    assert waiting(out, report["made_of"]) is None


@pytest.mark.parametrize(("kind", "words"), [("gated", "accept the licence"), ("missing", "org/tiny")])
def test_a_model_that_cannot_be_had_is_one_clear_sentence(tmp_path: Path, kind: str, words: str) -> None:
    folder = make_model(tmp_path / "hubmodel")
    with Hub() as hub:
        if kind == "gated":
            hub.add_folder("org/tiny", folder, gated=True)
        project = Project(tmp_path / "project", folder)
        project.write(model={"id": "org/tiny"})
        output = project.forge("plan", "job.toml", code=2, **hub.environment(tmp_path / "home"))
    assert output.startswith("error:")
    assert words in output
    assert len(output.strip().splitlines()) == 1, output


def test_events_of_an_export_are_json(project: Project) -> None:
    project.write(export=[{"format": "adapter"}])
    done = project.perform()
    output = project.forge("export", str(done.folder.path), "--json")
    kinds = [json.loads(line)["kind"] for line in output.splitlines()]
    assert "exported" in kinds
