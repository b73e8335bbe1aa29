"""What single values of a job need to be installed, beside what every job needs.

The optimizers' packages are those that transformers' ``trainer_optimizer.py`` imports, the attention's those that its
``modeling_flash_attention_utils.py`` asks for.
"""

from __future__ import annotations

from forge.api import Package

BITSANDBYTES = ("bitsandbytes>=0.46.1",)

TRACKERS: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml-mlflow",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet-ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardx"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Names that ``report_to`` takes, and the distributions of which one must be there."""

OPTIMIZERS = (
    Package(
        key="train.optim",
        values=("adamw_8bit", "adamw_bnb_8bit", "ademamix*", "lion_*", "paged_*", "rmsprop_bnb*"),
        requires=BITSANDBYTES,
    ),
    Package(key="train.optim", values=("galore_*",), requires=("galore-torch",)),
    Package(key="train.optim", values=("galore_*_8bit*",), requires=BITSANDBYTES),
    Package(key="train.optim", values=("apollo_*",), requires=("apollo-torch",)),
    Package(key="train.optim", values=("lomo", "adalomo"), requires=("lomo-optim",)),
    Package(key="train.optim", values=("grokadamw",), requires=("grokadamw",)),
    Package(key="train.optim", values=("schedule_free_*",), requires=("schedulefree>=1.2.6",)),
    Package(key="train.optim", values=("schedule_free_radam",), requires=("schedulefree>=1.4",)),
    Package(key="train.optim", values=("stable_adamw",), requires=("torch-optimi",)),
    Package(key="train.optim", values=("adamw_torch_4bit", "adamw_torch_8bit"), requires=("torchao>=0.15",)),
    Package(
        key="train.optim",
        values=("adamw_anyprecision",),
        requires=("torchdistx",),
        install="git+https://github.com/pytorch/torchdistx",
    ),
    Package(key="train.optim", values=("muon",), requires=("torch>=2.9",)),
    Package(key="train.optim", values=("adamw_torch_xla",), requires=("torch-xla",)),
    Package(key="train.optim", values=("adamw_torch_npu_fused",), requires=("torch-npu",)),
)

TRAINING = (
    *OPTIMIZERS,
    *(
        Package(key="train.report_to", values=(name,), requires=packages[:1], instead=packages[1:])
        for name, packages in TRACKERS.items()
        if packages
    ),
    Package(key="train.use_liger_kernel", requires=("liger-kernel>=0.3",), accelerators=frozenset({"cuda", "rocm"})),
    Package(key="train.gradient_checkpointing_kwargs.offload", accelerators=frozenset({"cuda", "rocm"})),
    Package(key="train.use_vllm", requires=("vllm",)),
)
"""What the trainers need."""

LOADING = (
    Package(key="model.load_in_4bit", requires=BITSANDBYTES),
    Package(key="model.load_in_8bit", requires=BITSANDBYTES),
    Package(key="model.attn_implementation", values=("flash_attention_2",), requires=("flash-attn>=2.3.3",)),
    Package(key="model.attn_implementation", values=("flash_attention_3",), requires=("flash-attn-3",)),
    Package(key="model.attn_implementation", values=("flash_attention_4",), requires=("flash-attn-4",)),
    Package(key="model.attn_implementation", values=("*/*",), requires=("kernels>=0.18.2,<0.19",)),
)
"""What a model needs to be loaded in a certain way; ``*/*`` is a kernel of the hub."""

WITH_VIDEO = frozenset(
    {
        "ernie4_5_vl_moe",
        "gemma4",
        "glm46v",
        "glm4v",
        "glm4v_moe",
        "instructblipvideo",
        "internvl",
        "llava_next_video",
        "llava_onevision",
        "perception_lm",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
        "video_llama_3",
        "video_llava",
    }
)
"""Types of models whose processor takes videos too, which transformers reads with torchvision alone."""
