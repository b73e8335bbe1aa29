"""Says where the code in use comes from, so that a run's log shows whether a library was patched, and by whom.

Unsloth replaces classes and methods of trl, transformers and peft, and keeps their names. What runs can only be seen on
the objects themselves, so this looks at those that a training is made of.
"""

from __future__ import annotations

from typing import Any

LIBRARIES = ("accelerate", "bitsandbytes", "peft", "torch", "transformers", "trl")
"""Where code comes from if nothing is patched."""

OWN = ("forge_huggingface", "forge_sdpo")
"""Whose trainers add to those of a library: such a class is told by the one behind it, which may be patched."""


def origins(trainer: Any) -> dict[str, Any]:
    """Describe a trainer.

    Returns:
        ``trainer``, ``config``, ``loop``, ``model``, ``attention_class`` and so on: module and name of what runs.
        ``patched``: the names of those that do not come from the libraries themselves. ``attention``: the
        implementation that the model's config names. ``trainable``, ``all``, ``dtypes``: the parameters.
    """
    model = trainer.model
    found = {
        "trainer": _name(next(kind for kind in type(trainer).__mro__ if kind.__module__.partition(".")[0] not in OWN)),
        "config": _made_by(type(trainer.args)),
        "loop": _name(type(trainer)._inner_training_loop),  # noqa: SLF001 - what Unsloth replaces
        "model": _name(type(model)),
        "forward": _name(_inner(model).forward),
    }
    for key, endings in (("attention", ("self_attn", "attn", "attention")), ("mlp", ("mlp",))):
        module = next((module for name, module in model.named_modules() if name.endswith(endings)), None)
        if module is not None:
            found[f"{key}_class"] = _name(type(module))
            found[f"{key}_forward"] = _name(module.forward)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {
        **found,
        "patched": [key for key, name in found.items() if name.partition(".")[0] not in LIBRARIES],
        "attention": getattr(model.config, "_attn_implementation", None),
        "trainable": sum(parameter.numel() for parameter in trainable),
        "all": sum(parameter.numel() for parameter in model.parameters()),
        "dtypes": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in trainable}),
    }


def _inner(model: Any) -> Any:
    """Return the model inside peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _name(thing: Any) -> str:
    """Return module and name of a class, function, method or partial."""
    function = getattr(thing, "func", None) or getattr(thing, "__func__", thing)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module or type(function).__module__}.{name or type(function).__qualname__}"


def _made_by(kind: type) -> str:
    """Return where a class was made: a subclass under its parent's name is known by the globals of its ``__init__``."""
    function = kind.__dict__.get("__init__")
    module = getattr(function, "__globals__", {}).get("__name__", kind.__module__)
    return f"{module}.{kind.__qualname__}"
