"""Make what ``job.toml`` reads: ``data/``, handwritten digits as pictures, and ``model/``, which has learnt nothing.

    python examples/vision_digits/prepare.py [--force]

The digits are scikit-learn's (1797, 8 by 8 pixels, from UCI's optdigits), scaled up; one in five is held out. The model
is a vision-language model in the shape of Idefics3 with a million random parameters and a tokenizer of its own: small
enough to be trained from nothing on a CPU, and otherwise like those that people use. Needs ``pip install scikit-learn
pillow``; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).resolve().parent
SIDE = 56
QUESTION = "Which digit is this?"
TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<image>{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def digits() -> Iterable[tuple[Any, str, str]]:
    """Yield picture, question and answer."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for pixels, label in zip(data.images, data.target, strict=True):
        image = Image.fromarray((255 - pixels * 15.9375).astype("uint8"))
        yield image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"), QUESTION, str(label)


def make_data(folder: Path, samples: Iterable[tuple[Any, str, str]], held_out: float = 0.2, seed: int = 0) -> None:
    """Write PNG files, and ``train.jsonl`` and ``eval.jsonl``, whose paths start at their own folder."""
    (folder / "images").mkdir(parents=True)
    rng, parts = random.Random(seed), {"train": [], "eval": []}
    for index, (image, question, answer) in enumerate(samples):
        name = f"images/{index:05d}.png"
        image.save(folder / name)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        parts["eval" if rng.random() < held_out else "train"].append({"images": [name], "messages": messages})
    for part, rows in parts.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")


def make_model(folder: Path, texts: Iterable[str], *, side: int = SIDE, hidden: int = 128, seed: int = 0) -> None:
    """Write a random model in the shape of Idefics3, with a tokenizer trained on ``texts`` and a processor."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForImageTextToText, Idefics3Config, Idefics3Processor, PreTrainedTokenizerFast
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    special = ["<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>",
               "<end_of_utterance>"]  # fmt: skip
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(
        ["user assistant", *texts],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:],
        model_max_length=512,
    )
    tokenizer.chat_template = TEMPLATE
    patch, scale, edge = 7, 2, {"longest_edge": side}
    config = Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "image_size": side,
            "patch_size": patch,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        scale_factor=scale,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(do_image_splitting=False, size=edge, max_image_size=edge),
        tokenizer=tokenizer,
        image_seq_len=(side // patch) ** 2 // scale**2,
        chat_template=TEMPLATE,
    )
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    print(f"{folder.name}/: {model.num_parameters():,} random parameters")


def main() -> None:
    """Make both, unless they are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="make both again")
    if parser.parse_args().force:
        for name in ("data", "model"):
            shutil.rmtree(HERE / name, ignore_errors=True)
    if not (HERE / "data").is_dir():
        make_data(HERE / "data", digits())
        print("data/: handwritten digits")
    if not (HERE / "model").is_dir():
        make_model(HERE / "model", [QUESTION, *map(str, range(10))])


if __name__ == "__main__":
    main()
