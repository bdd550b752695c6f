"""A tiny model in WAN2.2-TI2V-5B's shape and file layout, for machines without the real weights.

The DiT and the text encoder are the library's classes at small width with random weights, the tokenizer is a small
byte-level one, the VAE is `vae.SmallVideoVAE`. `tools/demo/make_tiny_wan.py` writes the files;
`register_model_configs` makes the library's loader recognise them.
"""

import inspect
import json
import re
import shutil
from pathlib import Path

import safetensors.torch
import torch
from diffsynth.configs import MODEL_CONFIGS
from diffsynth.core.loader import hash_model_file
from diffsynth.models.wan_video_dit import WanModel
from diffsynth.models.wan_video_text_encoder import WanTextEncoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from motion_depth.files.atomic import expect_file
from motion_depth.files.digests import file_digest
from motion_depth.latents import WAN22
from motion_depth.tiny.vae import SmallVideoVAE, TinyWanVideoVAE38, stored_tensors

CONFIG_FILE = "diffsynth_model_configs.json"
DIT_FILE = "diffusion_pytorch_model.safetensors"
TEXT_ENCODER_FILE = "models_t5_umt5-xxl-enc-bf16.safetensors"
VAE_FILE = "Wan2.2_VAE.safetensors"
TOKENIZER_FOLDER = "google/umt5-xxl"

# The only classes that a CONFIG_FILE may name, each with the name under which the pipeline asks for it.
MODEL_NAMES: dict[type[nn.Module], str] = {
    WanModel: "wan_video_dit",
    WanTextEncoder: "wan_video_text_encoder",
    SmallVideoVAE: "wan_video_vae",
    TinyWanVideoVAE38: "wan_video_vae",
}
MODEL_CLASSES = {cls.__name__: cls for cls in MODEL_NAMES}  # whatever module an older CONFIG_FILE has them in
EARLIER_CLASSES = ("LinearVideoVAE",)  # that a CONFIG_FILE may name and this version has not

# What a model may have at most. A CONFIG_FILE is text, and blocks without number would be built without end.
MOST_LAYERS, LARGEST_SIZE, LARGEST_VOCABULARY = 256, 2**16, 2**19
MOST_PARAMETERS = 5e9  # of the DiT: those of the 5B
LENGTHS = {"patch_size": (3,), "decoder": (0, 3), "depths": (3,)}  # of arguments that are lists

# The tokenizer learns its merges from these; text beyond them falls back to bytes, so nothing is ever unknown.
TOKENIZER_PROMPTS = (
    "A ball and a block fall side by side onto a wooden table and come to rest.",
    "Two balls roll towards each other and collide in the middle of the floor.",
    "A ball rolls across the ground, hits a rubber duck and pushes it away.",
    "A ball rolls down a ramp, leaves the edge and bounces on the floor.",
    "A ball drops into a basket and settles at the bottom.",
    "A ball rolls over a pane of glass, off the table and out of view.",
    "A row of dominoes topples, each block knocking over the next one.",
    "A domino falls into a glass of juice while the others keep standing.",
    "A duck falls into an open box; a second duck stays still beside it.",
    "A ball rolls behind a box, is hidden for a moment and comes out on the other side.",
    "A ball rolls in front of a box from left to right.",
    "A lamp moves and the light and the shadow of a mug, a block and a sculpture change.",
    "A train of balls: the first one strikes, the last one swings away.",
    "The camera is static. Rigid bodies slide, spin, tip, bounce, stack and stop under gravity.",
)


def dit_arguments(
    dim: int = 128, num_heads: int = 4, num_layers: int = 10, text_dim: int = 64, ffn_dim: int | None = None
) -> dict[str, object]:
    """The arguments of the library's `WanModel`: TI2V-5B's flags at small width; `ffn_dim` is 4 `dim` if not given.

    Raises:
        ValueError: the width does not divide into heads that rotary position embedding works for.
    """
    # Of a head's numbers rows and columns get a third each, time the rest; rotation takes them in pairs.
    head_dim = dim // num_heads
    if dim % num_heads or head_dim < 6 or head_dim % 2 or head_dim // 3 % 2:
        raise ValueError(
            f"--dim {dim} with --num_heads {num_heads}: expected a head width (dim / heads) that is even and whose "
            "third, rounded down, is even: 12, 20, 24, 32, 48, 96 and 128 are; 16 and 64 are not"
        )
    ffn_dim = 4 * dim if ffn_dim is None else ffn_dim
    if problem := _too_large({"dim": dim, "ffn_dim": ffn_dim, "num_layers": num_layers, "text_dim": text_dim}):
        raise ValueError(f"--dim {dim} with --num_layers {num_layers}: {problem}")
    return {
        "has_image_input": False,
        "patch_size": [1, 2, 2],
        "in_dim": WAN22.channels,
        "dim": dim,
        "ffn_dim": ffn_dim,
        "freq_dim": 256,
        "text_dim": text_dim,
        "out_dim": WAN22.channels,
        "num_heads": num_heads,
        "num_layers": num_layers,
        "eps": 1e-06,
        "seperated_timestep": True,
        "require_clip_embedding": False,
        "require_vae_embedding": False,
        "fuse_vae_embedding_in_latents": True,
    }


def text_encoder_arguments(vocab: int, dim: int = 64) -> dict[str, object]:
    """The arguments of the library's `WanTextEncoder` (umT5) at small width."""
    return {"vocab": vocab, "dim": dim, "dim_attn": dim, "dim_ffn": 2 * dim, "num_heads": 4, "num_layers": 2}


def build_tokenizer(vocab: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that ends a text with </s> and pads with <pad> = 0, as umT5's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TOKENIZER_PROMPTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def save_model(model: nn.Module, path: Path, extra_kwargs: dict) -> dict:
    """Write the weights to `path` (.safetensors) and return the entry by which the library recognises the file."""
    # Not `save_file`, whose files only their owner may read, whatever the umask says.
    tensors = stored_tensors(model) if isinstance(model, SmallVideoVAE) else model.state_dict()
    path.write_bytes(safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    return {
        "model_hash": hash_model_file(str(path)),
        "model_name": MODEL_NAMES[type(model)],
        "model_class": class_path(type(model)),
        "extra_kwargs": extra_kwargs,
    }


def class_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def write_tiny_wan(
    folder: Path, vae: SmallVideoVAE, dit_kwargs: dict[str, object], seed: int = 0
) -> dict[str, nn.Module]:
    """Write the whole model into `folder`, which exists; the DiT and the text encoder are drawn from `seed`.

    Returns {file name: model}. The random weights are those of torch's default initialisation: no layer starts at
    zero, as some do before a real pretraining, so that every block changes the features. They are stored in bfloat16,
    so that float32 and bfloat16 pipelines hold the same numbers; of the VAE: see `stored_tensors`.
    """
    tokenizer = build_tokenizer()
    text_kwargs = text_encoder_arguments(vocab=len(tokenizer), dim=dit_kwargs["text_dim"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dit, text_encoder = WanModel(**dit_kwargs), WanTextEncoder(**text_kwargs)
    parts = {
        DIT_FILE: (dit.to(torch.bfloat16), dit_kwargs),
        TEXT_ENCODER_FILE: (text_encoder.to(torch.bfloat16), text_kwargs),
        VAE_FILE: (vae, vae.arguments),
    }
    entries = [save_model(model, folder / name, kwargs) for name, (model, kwargs) in parts.items()]
    (folder / CONFIG_FILE).write_text(json.dumps(entries, indent=2) + "\n")
    tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    return {name: model for name, (model, _) in parts.items()}


def write_untrained(folder: Path, model: Path, seed: int) -> dict[str, nn.Module]:
    """Copy a small model into `folder`, which exists, but for its DiT, which is drawn from `seed` as if never trained.

    Returns {DIT_FILE: that DiT}.

    Raises:
        ValueError: `model` is no small model with a DiT, or a file of it is missing.
    """
    kwargs = [entry["extra_kwargs"] for entry in read_entries(model) if _class_name(entry) == "WanModel"]
    if not kwargs:
        raise ValueError(f"{model / CONFIG_FILE}: names no WanModel; expected a small model with its DiT")
    for name in _copied(model):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, folder / name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dit = WanModel(**kwargs[0]).to(torch.bfloat16)
    save_model(dit, folder / DIT_FILE, kwargs[0])
    return {DIT_FILE: dit}


def model_digests(model: Path) -> dict[str, str]:
    """By name the digests of the files that `write_untrained` copies. Raises ValueError if one is missing."""
    return {name: file_digest(expect_file(model / name)) for name in _copied(model)}


def _copied(model: Path) -> list[str]:
    names = [CONFIG_FILE, TEXT_ENCODER_FILE, VAE_FILE]
    names += [path.relative_to(model).as_posix() for path in sorted((model / TOKENIZER_FOLDER).glob("*"))]
    if missing := [name for name in (*names, TOKENIZER_FOLDER) if not (model / name).exists()]:
        raise ValueError(f"{model}: has no {missing[0]}; expected a model that tools/demo/make_tiny_wan.py wrote")
    return names


def register_model_configs(folder: Path | str) -> None:
    """Append the entries of `folder`'s CONFIG_FILE to the library's `MODEL_CONFIGS`: its loader then knows the files.

    A folder without that file, such as that of the 5B release, registers nothing; registering twice changes nothing.
    The library recognises files by tensor names and shapes alone: of two tiny models whose files look the same but
    whose arguments differ (the number of heads, say), the one registered last counts.

    Raises:
        ValueError: the file is not readable or broken, or names a class outside `MODEL_NAMES`.
    """
    for entry in read_entries(folder):
        path = Path(folder) / CONFIG_FILE
        _register(entry | {"model_class": class_path(MODEL_CLASSES[_class_name(entry)])}, path)


def read_entries(folder: Path | str) -> list[dict]:
    """The entries of `folder`'s CONFIG_FILE, checked; none without that file. Raises as `register_model_configs`."""
    path = Path(folder) / CONFIG_FILE
    if not path.exists():
        return []
    try:
        entries = json.loads(expect_file(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}); make the tiny model again") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of model entries, found {type(entries).__name__}")
    for number, entry in enumerate(entries):
        _check_entry(entry, f"{path}: entry {number}")
    return entries


_registered: dict[str, dict] = {}  # by model_hash: what `register_model_configs` has added so far


def _register(entry: dict, path: Path) -> None:
    model_hash = entry["model_hash"]
    known = [config for config in MODEL_CONFIGS if config["model_hash"] == model_hash]
    if entry in known:
        return
    if any(config is not _registered.get(model_hash) for config in known):
        raise ValueError(f"{path}: model_hash {model_hash} belongs to one of the library's own models")
    # In place: the library's loader holds this very list.
    MODEL_CONFIGS[:] = [config for config in MODEL_CONFIGS if config["model_hash"] != model_hash] + [entry]
    _registered[model_hash] = entry


def _class_name(entry: dict) -> str:
    return str(entry["model_class"]).rpartition(".")[2]


def _check_entry(entry: object, where: str) -> None:
    keys = {"model_hash", "model_name", "model_class", "extra_kwargs"}
    if not isinstance(entry, dict) or set(entry) != keys:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{where}: expected the keys {', '.join(sorted(keys))}; found {found}")
    if not re.fullmatch(r"[0-9a-f]{32}", str(entry["model_hash"])):
        raise ValueError(f"{where}: model_hash {entry['model_hash']!r} is not 32 hexadecimal digits")
    model_class = MODEL_CLASSES.get(_class_name(entry))
    if _class_name(entry) in EARLIER_CLASSES:
        raise ValueError(
            f"{where}: model_class {entry['model_class']!r} is of an earlier version; make the tiny model again "
            "(tools/demo/make_tiny_wan.py --overwrite)"
        )
    if model_class is None:
        raise ValueError(f"{where}: model_class {entry['model_class']!r} is not one of {', '.join(MODEL_CLASSES)}")
    if entry["model_name"] != MODEL_NAMES[model_class]:
        raise ValueError(
            f"{where}: model_name {entry['model_name']!r} does not go with {entry['model_class']}: "
            f"expected {MODEL_NAMES[model_class]!r}"
        )
    try:
        inspect.signature(model_class).bind(**entry["extra_kwargs"])
    except TypeError as error:
        raise ValueError(f"{where}: extra_kwargs do not fit {model_class.__name__}: {error}") from None
    if problem := _too_large(entry["extra_kwargs"]):
        raise ValueError(f"{where}: extra_kwargs: {problem}")


def _too_large(arguments: dict[str, object]) -> str | None:
    """Which of a model's arguments is no number or flag that a model can be built with; None if none is."""
    limits = {"num_layers": MOST_LAYERS, "depths": MOST_LAYERS, "vocab": LARGEST_VOCABULARY}
    for name, value in arguments.items():
        limit, numbers = limits.get(name, LARGEST_SIZE), [value]
        if name in LENGTHS:
            numbers = value if isinstance(value, list) and len(value) in LENGTHS[name] else [None]
        for number in numbers:
            if not isinstance(number, bool) and not (isinstance(number, int | float) and 0 < number <= limit):
                return f"found {name} {value!r:.60}, expected a number of at most {limit:,}"
    dim, ffn_dim, layers = (arguments.get(name, 0) for name in ("dim", "ffn_dim", "num_layers"))
    widths, depths = arguments.get("decoder", ()), arguments.get("depths", [1])
    parameters = layers * (8 * dim**2 + 2 * dim * ffn_dim) + max(depths) * sum(12 * width**2 for width in widths)
    if parameters > MOST_PARAMETERS:
        return f"{parameters:.2g} parameters, expected at most {MOST_PARAMETERS:.2g}"
    return None
