"""Make what the example needs: a tiny model, questions, and the codes that answer them.

    python examples/sdpo_codes/prepare.py

The model has half a million parameters and a character for a token. It is pretrained here, in about a minute, for two
habits: to answer "ab?" with three digits at random and to answer "ab?(471)" with the 471 that it is shown. So it can
use a hint, and knows no code: what SDPO needs, and what a real model brings along.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

FOLDER = Path(__file__).parent
KEYS = 16
"""Questions: the codes of this many pairs of letters are to be learnt."""

LENGTH = 3


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter, digit and sign."""
    signs = ["<pad>", "<eos>", *string.ascii_lowercase, *string.digits, *"?()"]
    inner = Tokenizer(models.WordLevel({sign: index for index, sign in enumerate(signs)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", model_max_length=64)


def make_batch(ids: dict[str, int], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Questions with random answers, half of them with the answer shown; labels are the answers."""
    rows, labels = [], []
    for index in range(size):
        key = "".join(random.choices(string.ascii_lowercase, k=2))
        code = "".join(random.choices(string.digits, k=LENGTH))
        asked = [ids[sign] for sign in (f"{key}?({code})" if index % 2 else f"{key}?")]
        answer = [*(ids[sign] for sign in code), ids["<eos>"]]
        filler = 3 + LENGTH + 2 - len(asked)
        rows.append([*asked, *answer, *[ids["<pad>"]] * filler])
        labels.append([*[-100] * len(asked), *answer, *[-100] * filler])
    return torch.tensor(rows), torch.tensor(labels)


def pretrain(tokenizer: PreTrainedTokenizerFast, steps: int) -> Qwen2ForCausalLM:
    """Teach the two habits."""
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        ids, labels = make_batch(tokenizer.get_vocab(), 128)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}", flush=True)
    return model


@torch.no_grad()
def share_copied(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """How many answers are right when they are shown."""
    ids, labels = make_batch(tokenizer.get_vocab(), 512)
    shown = torch.arange(len(ids)) % 2 == 1
    guessed = model(input_ids=ids[shown]).logits[:, :-1].argmax(-1)
    target = labels[shown][:, 1:]
    return float(((guessed == target) | (target == -100)).all(-1).float().mean())


def main() -> None:
    """Write ``model/`` and ``codes.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = pretrain(tokenizer, options.steps)
    print(f"copies {share_copied(model, tokenizer):.1%} of the codes that it is shown")
    model.save_pretrained(options.folder / "model")
    tokenizer.save_pretrained(options.folder / "model")
    keys = random.sample([a + b for a in string.ascii_lowercase for b in string.ascii_lowercase], KEYS)
    with (options.folder / "codes.jsonl").open("w", encoding="utf-8") as file:
        for key in keys:
            code = "".join(random.choices(string.digits, k=LENGTH))
            file.write(json.dumps({"prompt": f"{key}?", "code": code}) + "\n")


if __name__ == "__main__":
    main()
