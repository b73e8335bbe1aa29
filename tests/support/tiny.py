"""A real tokenizer and a random model, made in a second: what tests train instead of something downloaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as many models carry it: without ``{% generation %}``, and with a line break after the last end of turn."""

TEXT = """
user asks and the assistant answers. You are a helpful assistant.
What is the capital of France? The capital of France is Paris.
Write one sentence about the sea. The sea is wide, and the wind over it is cold in the morning.
Count to five: one, two, three, four, five. Name a colour: red, green, blue, yellow.
def add(first, second): return first + second
Grüße aus Köln, ça va? 東京は日本の首都です。 Привет, мир! 🙂
### Instruction: Translate into German. ### Response: Guten Morgen, wie geht es dir heute?
0 1 2 3 4 5 6 7 8 9 10 42 100 2026
"""
"""What the tokenizer's merges come from."""


def make_tokenizer(folder: Path, *, template: str | None = "chatml", vocab: int = 400, add_bos: bool = False) -> Path:
    """Write a byte-level BPE tokenizer with distinct bos, eos and pad tokens.

    ``template`` is ``"chatml"``, None, or the text of a template. ``<|im_end|>`` is in the vocabulary but is not eos.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(TEXT.splitlines(), trainer)
    if add_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    if template is not None:
        tokenizer.chat_template = CHATML if template == "chatml" else template
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def make_model(
    folder: Path,
    *,
    template: str | None = "chatml",
    seed: int = 0,
    vocab: int = 400,
    hidden: int = 32,
    layers: int = 2,
    add_bos: bool = False,
) -> Path:
    """Write a random Llama with its tokenizer into ``folder``, and return the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tokenizer(folder, template=template, vocab=vocab, add_bos=add_bos)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    return folder


def make_gpt2(folder: Path, *, positions: int = 64) -> Path:
    """Write a random GPT-2, which has a vector for each of so many positions, with a tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    make_tokenizer(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_positions=positions, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def make_rows(path: Path, count: int = 16) -> Path:
    """Write a JSONL file of short conversations."""
    words = ["Paris", "the sea", "a colour", "five", "the wind", "morning", "green", "Tokyo"]
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            word = words[index % len(words)]
            messages = [
                {"role": "user", "content": f"Write one sentence about {word}, number {index}."},
                {"role": "assistant", "content": f"{word} is {words[(index * 3 + 1) % len(words)]} " * (1 + index % 4)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path
