"""What GGUF exports are worth, and what they cost.

    python benchmarks/gguf_files.py quality RUN     # how near each type is to the trained model; held-out metric
    python benchmarks/gguf_files.py speed --tree LLAMA_CPP --quantize COMMAND [--work FOLDER]

``quality`` exports a finished run of the quick start as q4_k_m, q8_0 and f16, each in a process of its own, tells what
the gates found, and lets every file answer the held-out questions.

``speed`` writes a random Llama of one billion parameters as q4_k_m with forge and with llama.cpp's converter and
quantiser, each alone on this machine, and compares their tensors. COMMAND is ``llama-quantize``, or a Python with
llama-cpp-python in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPES = ("q4_k_m", "q8_0", "f16")
BILLION = {
    "vocab_size": 49152, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 14,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip


def measured(command: list[str], log: Path, **environ: str) -> tuple[float, float, float]:
    """Run a command and return its wall seconds, its processor seconds, and the peak of its resident memory in MiB."""
    start = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environ})
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"gguf_files.py: {' '.join(command)} ended with {process.returncode}; see {log}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def quality(arguments: argparse.Namespace) -> None:
    """Export a run and print what each type is worth."""
    sys.path[:0] = [str(ROOT / "examples" / "quickstart")]
    from metrics import judge

    from forge_gguf.llama.runtime import Generator

    run = arguments.run
    lines = (ROOT / "examples" / "quickstart" / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    table = []
    for kind in TYPES:
        command = [sys.executable, "-m", "forge", "export", str(run), "--format", "gguf", "--type", kind]
        sets = [part for change in arguments.set for part in ("--set", change)]
        seconds, cpu, peak = measured([*command, *sets], run / "benchmark.log")
        out = max(run.glob("exports/*-gguf"), key=lambda path: path.stat().st_mtime)
        about = json.loads((out / "export.json").read_text(encoding="utf-8"))["report"][kind]
        gates = about["gates"]
        with Generator(out / about["file"], context=512) as generator:
            said = ["".join(generator.chat(row[:-1], {}, max_tokens=64)) for row in rows]
        judged = [judge(text, json.loads(row[-1]["content"])) for text, row in zip(said, rows, strict=True)]
        shares = [f"{sum(one[name] for one in judged) / len(judged):.0%}" for name in ("card", "region", "capital")]
        exact = gates.get("conversion", gates["logits"])
        table.append(
            [kind, f"{about['bytes'] / 2**20:.0f} MiB", f"{gates['logits']['kl_mean']:.2g}",
             f"{gates['logits']['kl_max']:.2g}", f"{gates['logits']['top1']:.1%}", f"{exact['kl_mean']:.1g}",
             f"{gates['tokens']['different']} of {gates['tokens']['texts']}",
             f"{gates['template']['different']} of {gates['template']['conversations']}",
             f"{about['write_seconds']:.1f} s", f"{seconds:.0f} s",
                f"{cpu:.0f} s", f"{peak:.0f} MiB", *shares]
        )  # fmt: skip
    head = ["type", "size", "KL mean", "KL max", "top 1", "conversion", "ids differ", "template differs", "write",
            "whole export", "processor", "peak", "card", "region", "capital"]  # fmt: skip
    show([head, *table])


def speed(arguments: argparse.Namespace) -> None:
    """Compare time and memory with llama.cpp's own tools."""
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    folder, log = work / "billion", work / "log.txt"
    if not (folder / "tokenizer.json").exists():
        # In a process of its own: a child's peak of memory begins with what its parent holds when it is made.
        subprocess.run([sys.executable, __file__, "make", str(folder)], check=True)
    tree, quantize = arguments.tree, arguments.quantize
    ours, half, theirs = work / "forge.gguf", work / "f16.gguf", work / "llama.cpp.gguf"
    write = [sys.executable, __file__, "write", str(folder), str(ours)]
    convert = [
        sys.executable,
        str(tree / "convert_hf_to_gguf.py"),
        str(folder),
        "--outtype",
        "f16",
        "--outfile",
        str(half),
    ]
    rounds = [(measured(write, log), measured(convert, log), measured(quantized(quantize, half, theirs), log))
              for _ in range(arguments.rounds)]  # fmt: skip
    best = [min(each[index] for each in rounds) for index in range(3)]
    names = ("forge, q4_k_m", "llama.cpp's converter, f16", "llama.cpp's quantiser, q4_k_m")
    table = [
        [name, f"{wall:.1f} s", f"{cpu:.1f} s", f"{peak:.0f} MiB"]
        for name, (wall, cpu, peak) in zip(names, best, strict=True)
    ]
    both = best[1][0] + best[2][0], best[1][1] + best[2][1], max(best[1][2], best[2][2])
    table.append(["llama.cpp together", f"{both[0]:.1f} s", f"{both[1]:.1f} s", f"{both[2]:.0f} MiB"])
    show([["step", "time", "processor", "peak memory"], *table])
    print(f"\nforge takes {best[0][0] / both[0]:.2f} of llama.cpp's time; {same(ours, theirs)}")


def make_billion(folder: Path) -> None:
    """Write a random Llama in bfloat16, in several files, with the quick start's tokenizer, which llama.cpp knows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**BILLION)).to(torch.bfloat16)
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f} M parameters")
    model.save_pretrained(folder, max_shard_size="500MB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "examples" / "quickstart" / "model" / name, folder)


def write(folder: Path, path: Path) -> None:
    """Write a folder's model as q4_k_m, as an export does before its checks."""
    from transformers import AutoConfig, AutoTokenizer

    from forge_gguf.file import architectures, vocabulary, writer
    from forge_gguf.file.quants import KINDS, Shape
    from forge_gguf.file.weights import Weights

    kind = KINDS["q4_k_m"]
    config = AutoConfig.from_pretrained(folder).to_dict()
    weights = Weights(folder)
    words = vocabulary.vocabulary(AutoTokenizer.from_pretrained(folder), config["vocab_size"]).with_pre("gpt-2")
    keys = writer.general(kind, "llama", "billion") | architectures.keys(config) | words.keys()
    tensors = architectures.tensors(config, weights)
    writer.write(path, keys, tensors, weights, kind, Shape(config["num_hidden_layers"], tied=False))


def quantized(command: str, source: Path, target: Path) -> list[str]:
    """Return the command that quantises a file with llama.cpp."""
    count = str(len(os.sched_getaffinity(0)))
    if "python" not in Path(command).name:
        return [command, str(source), str(target), "Q4_K_M", count]
    code = (
        "import ctypes, llama_cpp as l, sys; p = l.llama_model_quantize_default_params(); p.ftype = 15; "
        "p.nthread = int(sys.argv[3]); "
        "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))"
    )
    return [command, "-c", code, str(source), str(target), count]


def same(one: Path, other: Path) -> str:
    """Say how many tensors of two files are equal."""
    import gguf
    import numpy as np

    first, second = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors} for path in (one, other))
    equal = sum(
        first[name].tensor_type == second[name].tensor_type and np.array_equal(first[name].data, second[name].data)
        for name in first.keys() & second.keys()
    )
    return f"{equal} of {len(first | second)} tensors are the same bytes"


def show(table: list[list[str]]) -> None:
    """Print a table as Markdown."""
    print("\n".join(f"| {' | '.join(row)} |" for row in [table[0], ["---"] * len(table[0]), *table[1:]]))


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("quality")
    one.add_argument("run", type=Path)
    one.add_argument("--set", action="append", default=[], help="a change of the job, as for forge export")
    two = parts.add_parser("speed")
    two.add_argument("--tree", type=Path, required=True, help="a llama.cpp tree")
    two.add_argument("--quantize", required=True, help="llama-quantize, or a Python with llama-cpp-python")
    two.add_argument("--work", type=Path, default=Path("gguf-speed"))
    two.add_argument("--rounds", type=int, default=2)
    parts.add_parser("make").add_argument("folder", type=Path)
    three = parts.add_parser("write")
    three.add_argument("folder", type=Path)
    three.add_argument("path", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "make":
        make_billion(arguments.folder)
    elif arguments.part == "write":
        write(arguments.folder, arguments.path)
    else:
        {"quality": quality, "speed": speed}[arguments.part](arguments)


if __name__ == "__main__":
    main()
