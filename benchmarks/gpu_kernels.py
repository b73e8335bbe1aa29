"""forge's kernels on a GPU: whether their gradients are as good as the libraries' own, and what they gain.

    python benchmarks/gpu_kernels.py [--quick] [--no-model]

Gradients of each architecture and part are compared with those of the same model in float32: an error above that of
plain bfloat16 by more than a seventh is marked. Times are of one layer, of the loss, and of a whole step of a model of
the shape of Llama 3.2 1B, 4 rows of 2,048 tokens. It takes less than a minute on an H200 and prints JSON lines.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from forge_huggingface.kernels import check, lora, loss, mlp, norm, rope, seams

SMALL: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {**SMALL, "head_dim": 64}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SMALL),
    "mistral": ("Mistral", SMALL),
    "qwen2": ("Qwen2", SMALL),
    "qwen3": ("Qwen3", HEADS),
    "gemma2": ("Gemma2", HEADS),
    "gemma3": ("Gemma3", HEADS),
    "phi3": ("Phi3", SMALL),
    "granite": ("Granite", {**SMALL, "logits_scaling": 4.0}),
    "olmo2": ("Olmo2", SMALL),
    "smollm3": ("SmolLM3", SMALL),
}
LARGE: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
PARTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "lora": ("lora",),
    "swiglu": ("swiglu",),
    "norm": ("norm",),
    "rope": ("rope",),
    "loss": ("loss",),
    "all": ("lora", "swiglu", "norm", "rope", "loss"),
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


def adapted(model: Any, dtype: torch.dtype, rank: int = 16) -> Any:
    """Return a frozen model with random LoRA matrices in float32."""
    names = sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} & set(PROJECTIONS))
    model = get_peft_model(model.to(dtype), LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, device=parameter.device) * 0.02
    return model.train()


def put(model: Any, parts: Iterable[str]) -> None:
    """Put kernels into a model."""
    for part in parts:
        if part == "swiglu":
            mlp.install(model, lora="lora" in parts)
        elif part != "loss":
            {"lora": lora, "norm": norm, "rope": rope}[part].install(model)


def loss_of(model: Any, ids: torch.Tensor, *, fused: bool) -> torch.Tensor:
    """Return the loss of rows without padding."""
    inner = model.get_base_model()
    hidden = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    head, labels = inner.get_output_embeddings().weight, ids[:, 1:].reshape(-1)
    config = inner.config.get_text_config()
    scale, cap = loss.logit_scale(config), getattr(config, "final_logit_softcapping", None)
    states = hidden.reshape(-1, hidden.shape[-1])
    if fused:
        return -loss.log_probs(states, head, None, labels, scale, cap)[0].mean()
    logits = (states @ head.t().to(states.dtype)).float() * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return functional.cross_entropy(logits, labels)


def gradients(model: Any, ids: torch.Tensor, *, half: bool, fused: bool = False) -> tuple[float, torch.Tensor]:
    """Return the loss and the gradient of all adapters as one row."""
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        value = loss_of(model, ids, fused=fused)
    value.backward()
    found = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.requires_grad])
    return value.item(), found


def exactness(quick: bool) -> None:
    """Print the error of each architecture's gradients against float32, part by part."""
    for name, (kind, values) in ARCHITECTURES.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}TextConfig" if name == "gemma3" else f"{kind}Config")(**values)
        with torch.device("cuda"):
            base = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.bfloat16)
        ids = torch.randint(3, values["vocab_size"], (2, 512), device="cuda")
        true_loss, true = gradients(adapted(copy.deepcopy(base).float(), torch.float32), ids, half=False)
        plain = None
        for label, parts in PARTS.items():
            if quick and label not in {"none", "all"}:
                continue
            model = adapted(copy.deepcopy(base), torch.bfloat16)
            put(model, parts)
            value, found = gradients(model, ids, half=True, fused="loss" in parts)
            seams.restore()
            error = float((found - true).norm() / true.norm())
            plain = error if plain is None else plain
            mark = "" if error <= plain * 8 / 7 else "WORSE"
            show("gradient", name, label, error=round(error, 5), loss=round(value - true_loss, 5), mark=mark)


def packed() -> None:
    """Print the error of a model in 4 bit: against peft on the same packed weights in float32."""
    try:
        from bitsandbytes.nn import Linear4bit
    except ImportError:
        show("gradient", "nf4", "none", mark="bitsandbytes is not installed")
        return
    torch.manual_seed(0)
    with torch.device("cuda"):
        base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).to(torch.bfloat16)
    for module in list(base.modules()):
        for name, child in list(module.named_children()):
            if name in PROJECTIONS:
                layer = Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=False,
                    compute_dtype=torch.bfloat16,
                    quant_type="nf4",
                    compress_statistics=True,
                )
                layer.load_state_dict({"weight": child.weight.data})
                setattr(module, name, layer.to("cuda"))
    ids = torch.randint(3, SMALL["vocab_size"], (2, 512), device="cuda")
    found = {}
    for label in ("none", "lora", "all"):
        model = get_peft_model(
            copy.deepcopy(base), LoraConfig(r=16, lora_alpha=32, target_modules=list(PROJECTIONS))
        ).train()
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, device="cuda") * 0.02
        put(model, PARTS[label])
        found[label] = gradients(model, ids, half=True, fused="loss" in PARTS[label])[1]
        seams.restore()
        error = float((found[label] - found["none"]).norm() / found["none"].norm())
        show("gradient", "nf4", label, error=round(error, 5), mark="" if error < 0.05 else "WORSE")


def timed(function: Callable[[], Any], rounds: int = 10) -> float:
    """Return the median milliseconds of a function on the GPU."""
    times = []
    for _ in range(rounds + 3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1000)
    return sorted(times[3:])[rounds // 2]


def layers() -> None:
    """Print what one layer of the 1B shape takes, forward and backward, part by part."""
    for label, parts in PARTS.items():
        if label == "loss":
            continue
        with torch.device("cuda"):
            base = transformers.LlamaForCausalLM(
                transformers.LlamaConfig(**{**LARGE, "num_hidden_layers": 1, "vocab_size": 256})
            )
        model = adapted(base, torch.bfloat16)
        put(model, parts)
        inner = model.get_base_model().model
        x = torch.randn(4, 2048, LARGE["hidden_size"], device="cuda", dtype=torch.bfloat16, requires_grad=True)

        def run(inner: Any = inner, x: torch.Tensor = x) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                y = inner(inputs_embeds=x, use_cache=False).last_hidden_state
            y.backward(x.detach())

        torch.cuda.reset_peak_memory_stats()
        show("layer", "llama 1B", label, ms=round(timed(run), 2), gib=peak())
        seams.restore()


def losses() -> None:
    """Print what the loss takes over a frozen head of the 1B shape."""
    weight = torch.randn(LARGE["vocab_size"], LARGE["hidden_size"], device="cuda", dtype=torch.bfloat16) * 0.02
    hidden = torch.randn(8192, LARGE["hidden_size"], device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, LARGE["vocab_size"], (8192,), device="cuda")

    def plain() -> None:
        functional.cross_entropy((hidden @ weight.t()).float(), labels).backward()

    def ours() -> None:
        (-loss.log_probs(hidden, weight, None, labels)[0].mean()).backward()

    for label, run in (("none", plain), ("loss", ours)):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        show("loss", "8192 tokens", label, ms=round(timed(run, 6), 2), gib=round(peak() - before / 2**30, 2))


def steps() -> None:
    """Print what a whole step of a 1B model takes, with and without gradient checkpointing."""
    for label in ("none", "all"):
        for checkpointing in (False, True):
            with torch.device("cuda"):
                base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LARGE)).to(torch.bfloat16)
            model = adapted(base, torch.bfloat16)
            if checkpointing:
                base.gradient_checkpointing_enable({"use_reentrant": False})
                base.enable_input_require_grads()
            put(model, PARTS[label])
            ids = torch.randint(0, LARGE["vocab_size"], (4, 2048), device="cuda")
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

            def run(model: Any = model, ids: torch.Tensor = ids, optimizer: Any = optimizer) -> None:
                with torch.autocast("cuda", torch.bfloat16):
                    value = loss_of(model, ids, fused=bool(PARTS[label]))  # noqa: B023 - it is called at once
                value.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

            torch.cuda.reset_peak_memory_stats()
            took = timed(run, 6)
            how = "checkpointing" if checkpointing else "no checkpointing"
            show("step", how, label, ms=round(took, 1), tokens=round(8192 / took * 1000), gib=peak())
            seams.restore()
            del model, base, optimizer, run
            gc.collect()
            torch.cuda.empty_cache()


def peak() -> float:
    """Return the most memory that was taken, in GiB."""
    return float(round(torch.cuda.max_memory_allocated() / 2**30, 2))


def show(kind: str, name: str, part: str, **values: Any) -> None:
    """Print a result."""
    print(json.dumps({"kind": kind, "name": name, "part": part, **values}), flush=True)


def main() -> None:
    """Check and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only without kernels, and with all of them")
    parser.add_argument("--no-model", action="store_true", help="leave out the steps of a whole model")
    options = parser.parse_args()
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}))
    for part in check.TRIALS:
        for dtype in (torch.bfloat16, torch.float32):
            begin = time.perf_counter()
            why = check.differs_on(part, torch.device("cuda"), check.Sizes(dtype, words=LARGE["vocab_size"]))
            show("trial", str(dtype), part, seconds=round(time.perf_counter() - begin, 2), mark=why or "")
    losses()
    layers()
    if not options.no_model:
        steps()
    exactness(options.quick)
    packed()


if __name__ == "__main__":
    main()
