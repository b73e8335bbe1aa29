"""Facts about models: from a folder, from the download cache, from one request to the hub."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import ModelError
from forge.model.facts import ModelFacts
from forge_huggingface.facts import lookup as hub_module
from forge_huggingface.facts.describe import describe
from forge_huggingface.facts.safetensors import read_header
from support.doubles.hub import TOKEN, Hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "dtype": "float32",
    "tie_word_embeddings": False,
}
TENSORS = {
    "model.embed_tokens.weight": ("BF16", (10, 4)),
    "model.norm.weight": ("F32", (4,)),
    "lm_head.weight": ("BF16", (10, 4)),
}
SIZES = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1}


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in tensors.items():
        size = SIZES[kind]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"\0" * end


def model(folder: Path, config: Mapping[str, Any] = LLAMA, tensors: Any = TENSORS) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    return folder


def sharded(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    placed = {}
    for number, (name, tensor) in enumerate(TENSORS.items(), 1):
        placed[name] = f"model-0000{number}-of-00003.safetensors"
        (folder / placed[name]).write_bytes(safetensors({name: tensor}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees this user's cache or token, or asks the real hub."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


# --- local folders


def test_a_folder_tells_everything(tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    (path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    facts = describe("./m", "main", tmp_path)
    assert facts == ModelFacts(
        id="./m",
        source="folder",
        path=str(path),
        architectures=("LlamaForCausalLM",),
        model_type="llama",
        task="text",
        parameters=84,
        weight_bytes=(path / "model.safetensors").stat().st_size,
        dtype="bfloat16",  # of the weights, whatever the config says
        context=4096,
        chat_template=True,
        digest=facts.digest,
    )
    assert ModelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_shards_count_as_one_model(tmp_path: Path) -> None:
    single = describe(str(model(tmp_path / "m")), None, tmp_path)
    several = describe(str(sharded(tmp_path / "s")), None, tmp_path)
    assert several.parameters == single.parameters == 84
    assert several.digest != single.digest


def test_the_digest_changes_with_config_and_headers_but_not_with_place(tmp_path: Path) -> None:
    digests = [
        describe(str(model(tmp_path / name, config, tensors)), None, tmp_path).digest
        for name, config, tensors in [
            ("a", LLAMA, TENSORS),
            ("b", LLAMA, TENSORS),
            ("c", LLAMA | {"x": 1}, TENSORS),
            ("d", LLAMA, {"model.norm.weight": ("F32", (4,))}),
        ]
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_tied_weights_count_once_even_if_stored_twice(tmp_path: Path) -> None:
    path = model(tmp_path / "m", LLAMA | {"tie_word_embeddings": True})
    assert describe(str(path), None, tmp_path).parameters == 44


@pytest.mark.parametrize("files", [["chat_template.jinja"], ["chat_template.json"]])
def test_a_chat_template_may_be_a_file_of_its_own(tmp_path: Path, files: list[str]) -> None:
    path = model(tmp_path / "m")
    assert describe("./m", None, tmp_path).chat_template is False
    for name in files:
        (path / name).write_text('{"chat_template": "x"}')
    assert describe("./m", None, tmp_path).chat_template is True


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "text"),
        ({"architectures": ["GPT2LMHeadModel"]}, "text"),
        ({"architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {}}, "vision"),
        ({"architectures": ["LlavaForConditionalGeneration"], "image_token_index": 5}, "vision"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "seq2seq"),
        ({"architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "seq2seq"),
        (
            {"architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": True, "num_mel_bins": 8},
            "other",
        ),
        ({"architectures": ["CLIPModel"], "vision_config": {}}, "other"),
        ({"architectures": ["BertForMaskedLM"]}, "other"),
        ({"model_type": "llama"}, "unknown"),
    ],
)
def test_the_architecture_tells_the_task(tmp_path: Path, config: Mapping[str, Any], task: str) -> None:
    facts = describe(str(model(tmp_path / "m", config)), None, tmp_path)
    assert facts.task == task
    assert (facts.note is not None) == (task == "unknown")


def test_a_vision_models_context_and_type_are_those_of_its_text_part(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {}}
    config |= {"text_config": {"max_position_embeddings": 1234, "tie_word_embeddings": True}}
    facts = describe(str(model(tmp_path / "m", config)), None, tmp_path)
    assert (facts.task, facts.context, facts.parameters) == ("vision", 1234, 44)


def test_packed_weights_leave_the_number_of_parameters_unknown(tmp_path: Path) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    facts = describe(str(model(tmp_path / "m", config, {"w.weight": ("U8", (50, 1))})), None, tmp_path)
    assert (facts.quantized, facts.parameters, facts.dtype) == ("bitsandbytes", None, "float32")
    assert "packs several" in (facts.note or "")


@pytest.mark.parametrize(
    ("quantization", "tensors"),
    [
        ({"quant_method": "fp8"}, {"w.weight": ("F8_E4M3", (9, 5)), "w.weight_scale_inv": ("F32", (3,))}),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"w.weight": ("I8", (9, 5)), "w.SCB": ("F32", (9,))}),
    ],
)
def test_one_number_per_weight_can_be_counted(tmp_path: Path, quantization: Any, tensors: Any) -> None:
    path = model(tmp_path / "m", LLAMA | {"quantization_config": quantization}, tensors)
    assert describe(str(path), None, tmp_path).parameters == 45


def test_headers_are_read_as_the_safetensors_library_reads_them(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(
        {"a": numpy.zeros((3, 5), "float16"), "b": numpy.zeros((), "float32")}, tmp_path / "x.safetensors"
    )
    assert read_header(tmp_path / "x.safetensors").tensors == {"a": ("F16", 15), "b": ("F32", 1)}


# --- folders that are not models, or damaged ones


def fails(model: str, folder: Path, *texts: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(model, None, folder)
    for text in texts:
        assert text in str(caught.value)


def test_a_folder_that_is_not_there_is_told_with_near_names(tmp_path: Path) -> None:
    model(tmp_path / "models" / "tiny-llama")
    fails("./models/tiny-lama", tmp_path, "is not there", f"did you mean {tmp_path / 'models' / 'tiny-llama'}")
    fails("./none/x", tmp_path, f"{tmp_path / 'none'} is not there either")
    fails("a/b/c", tmp_path, "is not there")


def test_a_gguf_file_is_an_output(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    fails("./m.gguf", tmp_path, "GGUF file", "name the safetensors folder")
    fails("org/m.GGUF", tmp_path, "GGUF file")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = model(tmp_path / "m") / "model.safetensors"
    fails(str(path), tmp_path, "is a file", f"name its folder: {path.parent}")


def test_a_model_and_an_adapter_in_one_folder_are_refused(tmp_path: Path) -> None:
    (model(tmp_path / "m") / "adapter_config.json").write_text("{}")
    fails("./m", tmp_path, "holds a whole model and an adapter", "move adapter_config.json")


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_that_leads_nowhere_is_no_name_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nothing")
    for name in ("loop", "lost"):
        fails(name, tmp_path, f"the link {tmp_path / name} leads nowhere")


def test_a_name_too_long_for_a_file_is_told(tmp_path: Path) -> None:
    fails("a" * 300, tmp_path, "cannot be read: File name too long")


def test_a_home_that_nobody_knows_is_told(tmp_path: Path) -> None:
    fails("~nobody-of-this-name/m", tmp_path, "is not there", "set HOME")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom modes bind")
@pytest.mark.parametrize("name", [".", "config.json", "model.safetensors"])
def test_files_that_may_not_be_read_are_named(tmp_path: Path, name: str) -> None:
    closed = model(tmp_path / "m") / name
    closed.chmod(0)
    try:
        fails("./m", tmp_path, f"{closed} cannot be read: Permission denied")
    finally:
        closed.chmod(0o700)


def test_files_that_a_disk_does_not_give_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model(tmp_path / "m") / "config.json"

    def broken(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", broken)
    fails("./m", tmp_path, f"{path} cannot be read: Input/output error")


def test_a_name_that_no_hub_has_is_refused_without_a_request(tmp_path: Path) -> None:
    fails("my model", tmp_path, "names no model")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "it is empty"),
        (["adapter_config.json", "adapter_model.safetensors"], "it holds a peft adapter"),
        (["m.gguf"], "it holds GGUF files"),
        (["a", "b", "c", "d", "e", "f"], "found a, b, c, d, e and 1 more"),
    ],
)
def test_a_folder_without_config_says_what_is_in_it(tmp_path: Path, names: list[str], told: str) -> None:
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).touch()
    fails("./m", tmp_path, "it has no config.json", told)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "there are no weights in it"),
        (["pytorch_model.bin"], "forge loads safetensors only, and pytorch_model.bin may run code"),
        (["consolidated.safetensors"], "(consolidated.safetensors) have names that transformers does not look for"),
    ],
)
def test_a_folder_without_weights_says_so(tmp_path: Path, names: list[str], told: str) -> None:
    path = model(tmp_path / "m")
    (path / "model.safetensors").unlink()
    for name in names:
        (path / name).touch()
    fails("./m", tmp_path, told)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path / "m") / "model-00002-of-00003.safetensors").unlink()
    fails("./m", tmp_path, "lacks 1 of its 3 weight files", "names model-00002-of-00003.safetensors")


def test_a_shard_without_its_tensor_is_named(tmp_path: Path) -> None:
    other = safetensors({"other": ("F32", (1,))})
    (sharded(tmp_path / "m") / "model-00002-of-00003.safetensors").write_bytes(other)
    fails("./m", tmp_path, "places the tensor model.norm.weight in model-00002-of-00003.safetensors")


def test_an_index_that_is_none_is_told(tmp_path: Path) -> None:
    (sharded(tmp_path / "m") / "model.safetensors.index.json").write_text("{}")
    fails("./m", tmp_path, "model.safetensors.index.json is damaged")


WHOLE = safetensors(TENSORS)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (WHOLE[:-10], f"it has {len(WHOLE) - 10} bytes, and its header promises {len(WHOLE)}"),
        (WHOLE + b"\0", f"it has {len(WHOLE) + 1} bytes, and its header promises {len(WHOLE)}"),
        (WHOLE[:100], "it has 100 bytes, and its header alone should have"),
        (WHOLE[:3], "it has 3 bytes, too few"),
        (b"", "it has 0 bytes, too few"),
        (struct.pack("<Q", 5) + b"{nope", "its header is not that of a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "its header is not that of a safetensors file"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "its header is not that of a safetensors file"),
        (b"PK\x03\x04" * 10, "claims a header of"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_a_damaged_file_is_named_with_both_sizes(tmp_path: Path, content: bytes, told: str) -> None:
    path = model(tmp_path / "m") / "model.safetensors"
    path.write_bytes(content)
    fails("./m", tmp_path, str(path), told)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    path = model(tmp_path / "m") / "config.json"
    path.write_bytes(text.encode("latin-1"))
    fails("./m", tmp_path, f"{path} is damaged")


# --- the download cache


def snapshot(tmp_path: Path, commit: str = "a" * 40, ref: str = "main") -> Path:
    root = tmp_path / "hf-home" / "hub" / "models--org--m"
    (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    return model(root / "snapshots" / commit)


@pytest.mark.parametrize("revision", [None, "main", "a" * 40])
def test_a_model_in_the_cache_needs_no_request(tmp_path: Path, revision: str | None) -> None:
    path = snapshot(tmp_path)
    facts = describe("org/m", revision, tmp_path)
    assert (facts.source, facts.path, facts.revision) == ("cache", str(path), "a" * 40)
    assert (facts.parameters, facts.chat_template, facts.note) == (84, None, None)
    assert facts.digest == describe(str(path), None, tmp_path).digest


def test_a_tag_with_a_slash_is_found_in_the_cache(tmp_path: Path) -> None:
    snapshot(tmp_path, ref="refs/pr/1")
    assert describe("org/m", "refs/pr/1", tmp_path).source == "cache"


def test_another_revision_is_not_that_of_the_cache(tmp_path: Path) -> None:
    snapshot(tmp_path)
    assert describe("org/m", "v2", tmp_path, offline=True).source == "unknown"


def test_a_cache_without_weights_is_no_error(tmp_path: Path) -> None:
    path = snapshot(tmp_path)
    (path / "model.safetensors").unlink()
    facts = describe("org/m", None, tmp_path)
    assert (facts.source, facts.path, facts.parameters, facts.task) == ("cache", None, None, "text")
    assert "weights are not in the cache yet" in (facts.note or "")


def test_a_damaged_file_in_the_cache_is_an_error(tmp_path: Path) -> None:
    (snapshot(tmp_path) / "model.safetensors").write_bytes(WHOLE[:-1])
    fails("org/m", tmp_path, "is damaged")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, "/c"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(environ: dict[str, str], expected: str) -> None:
    assert hub_module.cache_folder(environ).as_posix() == expected
    clean = {key: value for key, value in os.environ.items() if key != "HF_HOME"} | environ
    script = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == expected


# --- the hub


def test_the_hub_is_asked_once_for_the_config_alone(tmp_path: Path, hub: Hub) -> None:
    commit = hub.add("org/m", {"config.json": json.dumps(LLAMA), "model.safetensors": WHOLE})
    facts = describe("org/m", None, tmp_path)
    assert (facts.source, facts.revision, facts.task, facts.context) == ("hub", commit, "text", 4096)
    assert (facts.path, facts.parameters, facts.digest, facts.dtype) == (None, None, None, "float32")
    assert "only config.json was read" in (facts.note or "")
    assert hub.requests == [("GET", "/org/m/resolve/main/config.json")]
    assert hub.tokens_seen == []


def test_a_folder_of_that_name_comes_before_the_hub(tmp_path: Path, hub: Hub) -> None:
    model(tmp_path / "org" / "m")
    assert describe("org/m", None, tmp_path).source == "folder"
    assert hub.requests == []


def test_offline_asks_nobody(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", {"config.json": json.dumps(LLAMA)})
    assert describe("org/m", None, tmp_path, offline=True).source == "unknown"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = describe("org/m", None, tmp_path)
    assert (facts.source, facts.task) == ("unknown", "unknown")
    assert "offline; no folder here has its name; assumed text, not verified" in (facts.note or "")
    assert hub.requests == []
    assert describe("org/m", None, tmp_path, offline=False).source == "hub"


def test_an_older_commit_can_be_asked_for(tmp_path: Path, hub: Hub) -> None:
    first = hub.add("org/m", {"config.json": json.dumps(LLAMA)})
    hub.add("org/m", {"config.json": json.dumps(LLAMA | {"max_position_embeddings": 8})})
    facts = describe("org/m", first, tmp_path)
    assert (facts.revision, facts.context) == (first, 4096)


@pytest.mark.parametrize("by", ["variable", "file"])
def test_a_private_model_is_asked_for_with_the_token(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    hub.add("org/m", {"config.json": json.dumps(LLAMA)}, private=True)
    fails("org/m", tmp_path, "org/m was not found", "or it is private", "log in with")
    if by == "variable":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (tmp_path / "hf-home").mkdir()
        (tmp_path / "hf-home" / "token").write_text(TOKEN + "\n")
    facts = describe("org/m", None, tmp_path)
    assert facts.source == "hub"
    assert hub.tokens_seen == [TOKEN]
    assert TOKEN not in repr(facts)


def test_a_gated_model_names_the_page_where_its_licence_is_accepted(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/m", {"config.json": json.dumps(LLAMA)}, gated=True)
    fails("org/m", tmp_path, "org/m is gated", f"accept the licence at {hub.url}/org/m and log in")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fails("org/m", tmp_path, "your account has no access to it yet")
    hub.repos["org/m"].granted.add(TOKEN)
    assert describe("org/m", None, tmp_path).source == "hub"


def test_what_the_hub_does_not_have_is_an_error(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", {"model.gguf": b"GGUF"})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fails("org/none", tmp_path, "org/none was not found", "a local folder is written ./name")
    fails("org/m", tmp_path, "org/m is no transformers model", "GGUF")
    with pytest.raises(ModelError, match="no branch, tag or commit v9"):
        describe("org/m", "v9", tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ModelError, match="refused the login: Invalid credentials") as caught:
        describe("org/m", None, tmp_path)
    assert "hf_secret" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_leaves_facts_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = describe("org/m", None, tmp_path)
    assert (facts.source, facts.task) == ("unknown", "unknown")
    assert "could not reach the hub at http://127.0.0.1:9: " in (facts.note or "")
    assert (facts.note or "").endswith("; assumed text, not verified")
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "is no address of a hub" in (describe("org/m", None, tmp_path).note or "")


@pytest.mark.parametrize("answer", [b"<html>log in to the hotel's network</html>", b"[1]", b"\xff"])
def test_an_answer_that_is_no_config_leaves_facts_unknown(tmp_path: Path, hub: Hub, answer: bytes) -> None:
    hub.add("org/m", {"config.json": answer})
    assert "config.json" in (describe("org/m", None, tmp_path).note or "")


def test_a_token_that_cannot_be_a_header_is_not_shown(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a\nhf_b")
    assert "hf_" not in (describe("org/m", None, tmp_path).note or "")


def test_a_redirect_to_another_host_does_not_take_the_token_along(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The double stores large files on another host name, so a large config is redirected there.
    commit = hub.add("org/m", {"config.json": json.dumps(LLAMA)})
    monkeypatch.setattr("support.doubles.hub._is_large", lambda *_: True)
    hub.objects[next(iter(_large_name(hub)))] = json.dumps(LLAMA).encode()
    facts = describe("org/m", None, tmp_path)
    assert (facts.source, facts.revision) == ("hub", commit)
    assert hub.tokens_seen == [TOKEN]
    assert hub.leaked == []


def _large_name(hub: Hub) -> set[str]:
    from support.doubles.hub import _etag

    return {_etag(path, body) for path, body in hub.repos["org/m"].files.items()}


def test_planning_with_a_local_model_imports_nothing_heavy(tmp_path: Path) -> None:
    model(tmp_path / "m")
    script = f"""
import sys
from pathlib import Path
from forge_huggingface.facts.describe import describe
describe("./m", None, Path({str(tmp_path)!r}))
print({{"torch", "numpy", "safetensors", "huggingface_hub", "pydantic", "urllib.request"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
