"""``forge migrate``: what it writes, refuses and says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomli

if TYPE_CHECKING:
    from support.sites import Site

LORA = """\
base_model: org/base
adapter: lora
lora_r: 8
lora_alpha: 16
learning_rate: 1e-4
datasets: [{path: rows.jsonl, type: chat_template}]
hf_token: hf_abcdef
"""


def test_the_job_is_written_and_plans(site: Site) -> None:
    (site.folder / "rows.jsonl").write_text('{"messages": []}\n')
    (site.folder / "axolotl.yaml").write_text(LORA)
    done = site.forge("migrate", "axolotl.yaml", "-o", "job.toml")
    assert done.returncode == 0, done.stderr
    assert "wrote   job.toml; next: forge plan job.toml" in done.stdout
    text = (site.folder / "job.toml").read_text()
    assert "hf_abcdef" not in text
    assert 'lr_scheduler_type = "cosine"  # Axolotl\'s default' in text
    assert tomli.loads(text)["adapter"]["r"] == 8
    assert site.forge("plan", "job.toml").returncode == 0
    assert sorted(path.name for path in site.folder.glob("*.toml")) == ["job.toml"]
    again = site.forge("migrate", "axolotl.yaml", "-o", "job.toml")
    assert again.returncode == 2
    assert "job.toml is there already" in again.stderr


def test_what_is_missing_is_an_error_until_it_is_allowed(site: Site) -> None:
    (site.folder / "axolotl.yaml").write_text(f"{LORA}lisa_n_layers: 2\n")
    done = site.forge("migrate", "axolotl.yaml", "-o", "job.toml")
    assert done.returncode == 2
    assert "lisa_n_layers = 2: forge has nothing of the kind" in done.stderr
    assert not (site.folder / "job.toml").exists()
    done = site.forge("migrate", "axolotl.yaml", "-o", "job.toml", "--allow-missing")
    assert done.returncode == 0
    assert "missing lisa_n_layers = 2" in done.stdout
    assert "#   lisa_n_layers = 2" in (site.folder / "job.toml").read_text().replace("# - ", "#   ")


def test_a_value_that_forge_does_not_take_is_an_error_too(site: Site) -> None:
    (site.folder / "axolotl.yaml").write_text(f"{LORA}optimizer: dion\n")
    done = site.forge("migrate", "axolotl.yaml", "-o", "job.toml")
    assert done.returncode == 2
    assert "train.optim: must be one of" in done.stderr
    assert not (site.folder / "job.toml").exists()


def test_help_and_plans_load_nothing_of_it(site: Site) -> None:
    assert not {name for name in site.modules("--help") if name.startswith(("forge_migrate.", "yaml"))}
