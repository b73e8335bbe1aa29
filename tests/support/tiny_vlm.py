"""Random vision-language models with real processors, in the shapes of five families, made in a second each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Sizes = Mapping[str, Mapping[str, Any]]
    Made = tuple[Any, dict[str, Any]]

ARCHS = ("qwen2_5_vl", "qwen3_vl", "idefics3", "gemma3", "llava")
HIDDEN = 32
SIDE = 56

_WORDS = """
user asks and the assistant answers what is in the picture: red green blue yellow white black, a square, a circle.
Which colour is this? It is red. Which digit is this? 0 1 2 3 4 5 6 7 8 9. Describe the picture. Compare both.
"""

# As the families write it: parts in, one placeholder for an image, no marks around answers.
TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}IMAGE{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def make_vlm(
    folder: Path,
    arch: str = "idefics3",
    *,
    seed: int = 0,
    hidden: int = HIDDEN,
    side: int = SIDE,
    sizes: Sizes | None = None,
    dtype: str = "float32",
) -> Path:
    """Write a random model of a family with its processor into ``folder``, and return the folder.

    ``sizes`` holds other values for the config's ``"text"`` and ``"vision"``.
    """
    import torch
    import transformers

    config, parts = {"qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "idefics3": _idefics, "gemma3": _gemma, "llava": _llava}[
        arch
    ](arch, hidden, side, sizes or {})
    names = {
        "qwen2_5_vl": "Qwen2_5_VL",
        "qwen3_vl": "Qwen3VL",
        "idefics3": "Idefics3",
        "gemma3": "Gemma3",
        "llava": "Llava",
    }
    processor = getattr(transformers, f"{names[arch]}Processor")(
        chat_template=parts["tokenizer"].chat_template, **parts
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_pictures(folder: Path, count: int = 8, size: tuple[int, int] = (60, 40)) -> list[str]:
    """Write PNG files of one colour each and return their names."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    colours = ("red", "green", "blue", "yellow", "white", "black")
    names = []
    for index in range(count):
        name = f"{index}.png"
        Image.new("RGB", size, colours[index % len(colours)]).save(folder / name)
        names.append(name)
    return names


def make_image_rows(path: Path, count: int = 8) -> Path:
    """Write pictures and a JSONL file of questions about them beside it."""
    colours = ("red", "green", "blue", "yellow", "white", "black")
    with path.open("w", encoding="utf-8") as file:
        for index, name in enumerate(make_pictures(path.parent / "pictures", count)):
            question = [{"type": "image"}, {"type": "text", "text": "Which colour is this?"}]
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"It is {colours[index % len(colours)]}."},
            ]
            file.write(json.dumps({"images": [f"pictures/{name}"], "messages": messages}) + "\n")
    return path


def _tokenizer(markup: str, special: Sequence[str], **named: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    own = ["<pad>", "<|im_start|>", "<|im_end|>", *special]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=own,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(_WORDS.splitlines(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=own[1:],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        **({"model_specific_special_tokens": named} if named else {}),
    )
    tokenizer.chat_template = TEMPLATE.replace("IMAGE", markup)
    return tokenizer


def _text(tokenizer: Any, hidden: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vision(**more: Any) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def _qwen(arch: str, hidden: int, side: int, sizes: Sizes) -> Made:
    """Patches at the image's own resolution, merged two by two; needs torchvision."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    patch = 14 if arch == "qwen2_5_vl" else 16
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer("<|vision_start|><|image_pad|><|vision_end|>", special)
    pixels = (2 * patch) ** 2
    edges = {"shortest_edge": pixels, "longest_edge": max(4 * pixels, side * side)}
    images = Qwen2VLImageProcessorPil(patch_size=patch, size=edges)
    vision: dict[str, Any]
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": patch}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision["out_hidden_size"] = hidden
    if arch == "qwen2_5_vl":
        vision |= {"window_size": 112, "fullatt_block_indexes": [1]}
    else:
        rope["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    videos = transformers.Qwen2VLVideoProcessor if arch == "qwen2_5_vl" else transformers.Qwen3VLVideoProcessor
    config = transformers.AutoConfig.for_model(
        arch,
        text_config={**_text(tokenizer, hidden), "rope_parameters": rope, **sizes.get("text", {})},
        vision_config={**vision, **sizes.get("vision", {})},
        tie_word_embeddings=True,
        **dict(zip(names, tokenizer.convert_tokens_to_ids(special), strict=True)),
    )
    return config, {"image_processor": images, "tokenizer": tokenizer, "video_processor": videos(patch_size=patch)}


def _idefics(arch: str, hidden: int, side: int, sizes: Sizes) -> Made:
    """One square image with tokens around it, pixel-shuffled."""
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    patch, scale = 7, 2
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer = _tokenizer("<image>", special)
    edge = {"longest_edge": side}
    images = Idefics3ImageProcessorPil(do_image_splitting=False, size=edge, max_image_size=edge)
    config = transformers.AutoConfig.for_model(
        arch,
        text_config={"model_type": "llama", **_text(tokenizer, hidden), **sizes.get("text", {})},
        vision_config=_vision(image_size=side, patch_size=patch, **sizes.get("vision", {})),
        scale_factor=scale,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    count = (side // patch) ** 2 // scale**2
    return config, {"image_processor": images, "tokenizer": tokenizer, "image_seq_len": count}


def _gemma(arch: str, hidden: int, side: int, sizes: Sizes) -> Made:
    """SigLIP, pooled; the placeholder is not the token that fills the image's place, and line breaks go around it."""
    import transformers
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    patch = 14
    grid = side // patch
    special = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    names = dict(zip(("boi_token", "eoi_token", "image_token"), special, strict=True))
    tokenizer = _tokenizer(special[0], special, **names)
    text = _text(tokenizer, hidden) | {"model_type": "gemma3_text", "sliding_window": 64, "query_pre_attn_scalar": 8}
    text["layer_types"] = ["sliding_attention", "full_attention"]
    images = Gemma3ImageProcessorPil(size={"height": side, "width": side}, do_pan_and_scan=False)
    config = transformers.AutoConfig.for_model(
        arch,
        text_config={**text, **sizes.get("text", {})},
        vision_config=_vision(image_size=side, patch_size=patch, vision_use_head=False, **sizes.get("vision", {})),
        mm_tokens_per_image=(grid // 2) ** 2,
        **{f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )
    return config, {"image_processor": images, "tokenizer": tokenizer, "image_seq_length": (grid // 2) ** 2}


def _llava(arch: str, hidden: int, side: int, sizes: Sizes) -> Made:
    """CLIP and a projector of two layers."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    patch = 14
    tokenizer = _tokenizer("<image>", ["<image>"])
    size = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)
    config = transformers.AutoConfig.for_model(
        arch,
        text_config={"model_type": "llama", **_text(tokenizer, hidden), **sizes.get("text", {})},
        vision_config=_vision(
            model_type="clip_vision_model",
            projection_dim=32,
            image_size=side,
            patch_size=patch,
            **sizes.get("vision", {}),
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // patch) ** 2,
        vision_feature_layer=-1,
    )
    parts = {"image_processor": images, "tokenizer": tokenizer, "patch_size": patch}
    return config, {**parts, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
