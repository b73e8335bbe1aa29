"""What tests of several processes change in a worker, by the environment; Python imports this module as it starts.

``FORGE_TESTS_SHARD=1``: accelerate (1.15) shards a model on GPUs only, and on a CPU takes sharding for none. It decides
that by the kind of machine alone, and FSDP2 itself runs on a CPU by gloo. So a CPU counts as what may shard: it
stands in for GPUs, and everything else is real.

``FORGE_TESTS_ROOM=0``: weights go through main memory, as where a GPU has no room for all of them; the GPUs are real.

``FORGE_TESTS_ANSWERS=1``: answers are drawn by each process with random numbers of its own, so no two numbers of
processes draw the same ones. These answers depend on the prompt and on the place in the step alone, of held-out prompts
on the place in the group.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from typing import Any


class After(importlib.abc.MetaPathFinder):
    """Calls a function with a module once it is imported."""

    def __init__(self, name: str, change: Any) -> None:
        self.name, self.change = name, change

    def find_spec(self, name: str, *_: Any) -> Any:
        """Find what others find, and change what it executes."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def changed(module: Any) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = changed
        return spec


def shard_on_a_cpu(state: Any) -> None:
    """Have a CPU be one of the kinds that may shard."""
    before = state.AcceleratorState.__init__

    def begin(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        before(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is None or self.distributed_type != state.DistributedType.MULTI_CPU:
            return
        self.distributed_type = state.DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = self.distributed_type
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin

    state.AcceleratorState.__init__ = begin


def fix_answers(rollouts: Any) -> None:
    """Have a trainer take answers that depend on prompts and places."""

    def answer(self: Any, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        first = self.accelerator.process_index * len(prompt_ids)
        group = 10**9 if self.model.training else getattr(self, "num_generations_eval", 1)
        answers = [
            [20 + (sum(prompt) + 13 * place + 5 * index) % 50 for index in range(2 + 3 * place % 5)]
            for place, prompt in ((place % group, prompt) for place, prompt in enumerate(prompt_ids, first))
        ]
        end = self.processing_class.eos_token_id
        ended = [[*ids, end] if len(ids) < self.max_completion_length else ids for ids in answers]
        return ended if type(self).__name__.endswith("RLOO") else (ended, None)

    rollouts.Decoding._generate_single_turn = answer


if os.environ.get("FORGE_TESTS_SHARD"):
    sys.meta_path.insert(0, After("accelerate.state", shard_on_a_cpu))
if "FORGE_TESTS_ROOM" in os.environ:
    room = float(os.environ["FORGE_TESTS_ROOM"])
    sys.meta_path.insert(0, After("forge_huggingface.rules.placement", lambda module: setattr(module, "ROOM", room)))
if os.environ.get("FORGE_TESTS_ANSWERS"):
    sys.meta_path.insert(0, After("forge_huggingface.training.recipes.rollouts", fix_answers))
