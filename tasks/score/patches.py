"""Projected patch tokens of open_clip's image towers: what a tower's pooling and projection make of one token alone.

A tower pools its tokens and projects what that gives into the space of texts. To project a single token we let the same
layers work as if it were the only one: a class token's place is its own, a mean is of it alone, attention has nothing
else to attend to and so becomes its value, as in MaskCLIP (Zhou et al., arXiv 2112.01071). This is our adaptation: no
tower was trained for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ModelError
from configs.methods.embed import OpenClip
from tasks.embed.checkpoint import SCHEMES, located

if TYPE_CHECKING:
    import torch

WORKING = (
    "open_clip's own ViTs (ViT-B-32, ViT-L-14, CLIPA, CoCa), its ResNets (RN50, pocket), and timm's ViTs (SigLIP, "
    "SigLIP2, EVA, PE-Core, ViTamin, MobileCLIP-B, MobileCLIP2-B and -L-14)"
)
"""Towers with tokens, in words."""


def check_tower(config: OpenClip) -> None:
    """Raise ModelError if the image tower of a model has no tokens; of one on a hub this is known once it is there.

    Nothing is computed: a tower of timm is built without memory for its weights.
    """
    tower = _vision_config(config)
    if tower.get("timm_model_name"):
        import timm
        import torch

        with torch.device("meta"):
            _require_tokens(timm.create_model(tower["timm_model_name"], num_classes=0), config.model)
    elif isinstance(tower.get("attentional_pool"), str):
        raise _without_tokens(f"pools in two steps ({tower['attentional_pool']})", config.model)


def _vision_config(config: OpenClip) -> dict[str, Any]:
    """What open_clip builds the image tower from; empty for a model on a hub."""
    import open_clip

    name = located(config).model
    if name.startswith("local-dir:"):
        text = (Path(name.removeprefix("local-dir:")) / "open_clip_config.json").read_text(encoding="utf-8")
        return json.loads(text)["model_cfg"]["vision_cfg"]
    if name.startswith(SCHEMES):
        return {}
    return open_clip.get_model_config(name.replace("/", "-"))["vision_cfg"]


def _require_tokens(trunk: Any, model: str) -> None:
    """Raise ModelError unless a trunk of timm has its features as a sequence of tokens, `(B, N, C)`."""
    if not isinstance(getattr(trunk, "num_prefix_tokens", None), int):
        raise _without_tokens(f"is a {type(trunk).__name__}", model)


def _without_tokens(why: str, model: str) -> ModelError:
    return ModelError(
        f"`pair_tokens` wants patch tokens, and the image tower of {model!r} has none: it {why}; those that work are "
        f"{WORKING}"
    )


def patch_tokens(visual: Any, pictures: torch.Tensor, model: str) -> torch.Tensor:
    """Projected tokens of the patches, float `(B, N, D)`, not normalised; row by row of patches, no class token.

    Args:
        visual: The image tower of an open_clip model.
        pictures: float `(B, 3, H, W)`, as the tower takes them.
        model: Its name, for errors.

    Raises:
        ModelError: The tower has no tokens.
    """
    if hasattr(visual, "trunk"):
        _require_tokens(visual.trunk, model)
        return _timm_tokens(visual, pictures)
    if hasattr(visual, "attnpool"):
        return _resnet_tokens(visual, pictures)
    if not hasattr(visual, "_embeds"):
        raise _without_tokens(f"is a {type(visual).__name__}", model)
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise _without_tokens(f"pools in two steps ({visual.attn_pool_type})", model)
    return _vit_tokens(visual, pictures)


def _vit_tokens(visual: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Of open_clip's VisionTransformer: class token, mean, or CoCa's attentional pooling."""
    tokens = visual.transformer(visual._embeds(pictures))[:, 1:]
    pooler = visual.attn_pool
    if pooler is not None:
        # All its queries give the same where there is but one key: the first one stands for 256.
        keys = pooler.ln_k(tokens).flatten(0, 1).unsqueeze(1)
        query = pooler.ln_q(pooler.query[:1]).expand(len(keys), 1, -1)
        tokens = pooler.attn(query, keys, keys, need_weights=False)[0].reshape(*tokens.shape[:2], -1)
    return visual.ln_post(tokens) @ visual.proj


def _resnet_tokens(visual: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Of open_clip's ModifiedResNet: each place of the last feature map is a token."""
    features = visual.stem(pictures)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        features = layer(features)
    pool = visual.attnpool
    tokens = features.flatten(2).mT + pool.positional_embedding[1:].to(features.dtype)
    return pool.c_proj(pool.v_proj(tokens))


def _timm_tokens(visual: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Of a transformer of timm, with whatever pooling and head."""
    trunk = visual.trunk
    prefix = trunk.num_prefix_tokens
    tokens = trunk.forward_features(pictures)[:, prefix:]
    # A token takes all places, so that it does not matter which of them the head looks at.
    alone = tokens.flatten(0, 1).unsqueeze(1).expand(-1, prefix + 1, -1)
    return visual.head(trunk.forward_head(alone)).reshape(*tokens.shape[:2], -1)
