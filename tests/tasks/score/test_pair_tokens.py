"""Logits of pairs: patch tokens of small open_clip models by the texts of a vocabulary."""

import io
import itertools

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from configs.errors import ConfigError, ModelError
from configs.methods.embed import OpenClip
from configs.methods.logits import PairTokens
from configs.methods.utility import UtilityDiversity
from tasks import load, score
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.score import pair_tokens
from tasks.score.logits import SOURCES
from tasks.score.patches import check_tower, patch_tokens

SMALL = {"model": "ViT-S-32-alt", "image_size": 64, "context_length": 16, "device": "cpu", "batch_size": 4}
NAMES = ["cat", "dog", "house on a hill", "ß", "tree", "sea", "fire"]


def picture(seed, size=(40, 30)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "PNG")
    return target.getvalue()


GOOD = [picture(row) for row in range(10)]


def table(images=GOOD):
    return pa.table({"image": pa.array(images, pa.large_binary())})


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(["", NAMES[0], *NAMES, "  dog ", ""]), encoding="utf-8")  # repeats are one name
    return str(path)


def source(vocabulary, **over):
    encoder = over.pop("encoder", OpenClip(**SMALL))
    return load(SOURCES, PairTokens(vocabulary=vocabulary, encoder=encoder, **over))


def blocks(made, rows, sizes=None):
    """Every row's logits, the failures, and the blocks themselves; the table is handed over in slices."""
    bounds = np.cumsum([0, *(sizes or [len(rows)])])
    failures, found = [], {}
    every = list(made.blocks((rows.slice(a, b - a) for a, b in itertools.pairwise(bounds)), failures))
    for block in every:
        assert block.rows.dtype == np.int64 and len(block.rows) == len(block.logits)
        assert block.there.shape == block.logits.shape[:2] and block.there.all() and block.responses.all()
        assert block.tokens is None and block.hidden is None
        found |= dict(zip(block.rows.tolist(), block.logits.numpy(), strict=True))
    return found, failures, every


# ---- what the numbers are
def test_logits_are_cosines_of_open_clip_called_directly_times_the_scale(vocabulary):
    import open_clip
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, _, transform = open_clip.create_model_and_transforms(
            "ViT-S-32-alt", force_image_size=64, force_context_length=16
        )
    model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-S-32-alt", context_length=16)
    seen = []
    model.visual.transformer.register_forward_hook(lambda _module, _given, out: seen.append(out))
    with torch.no_grad():
        pictures = torch.stack([transform(Image.open(io.BytesIO(data))) for data in GOOD])
        model.encode_image(pictures)
        tokens = torch.stack([model.visual.ln_post(seen[0][:, place]) @ model.visual.proj for place in range(1, 5)], 1)
        texts = model.encode_text(tokenizer([f"a drawing of {name}" for name in NAMES]), normalize=True)
        cosines = torch.nn.functional.cosine_similarity(tokens[:, :, None], texts[None, None], dim=-1)
    made = source(vocabulary, template="a drawing of {}")
    found, failures, _ = blocks(made, table())
    assert failures == [] and sorted(found) == list(range(10)) and made.shape() == (4, len(NAMES))
    expected = (cosines * model.logit_scale.exp()).detach().numpy()
    np.testing.assert_allclose([found[row] for row in range(10)], expected, atol=1e-4)
    assert np.std(expected) > 0.1  # else this could not fail


def test_the_score_is_the_nuclear_norm_of_these_logits(vocabulary):
    images = [*GOOD[:5], None, b"no picture", *GOOD[5:]]
    section = UtilityDiversity(logits=PairTokens(vocabulary=vocabulary, encoder=OpenClip(**SMALL)))
    scorer = load(score.METHODS, section)
    assert scorer.needs == ("image",)
    result = scorer.run(iter([table(images)]))
    found, failures, _ = blocks(source(vocabulary), table(images))
    assert result.failures == failures and [failure[:2] for failure in failures] == [(6, "not_an_image")]
    intra = result.table["intra"].to_pylist()
    assert [row for row, value in enumerate(intra) if value is None] == [5, 6]
    norms = {row: np.linalg.svd(logits.astype(np.float64), compute_uv=False).sum() for row, logits in found.items()}
    assert {row: value for row, value in enumerate(intra) if value is not None} == pytest.approx(norms, rel=1e-3)


def test_the_pocket_model_has_four_places(vocabulary):
    made = source(vocabulary, encoder=OpenClip(model="pocket", device="cpu", batch_size=4))
    made.check()
    found, _, _ = blocks(made, table(GOOD[:3]))
    assert made.shape() == (4, len(NAMES)) and found[2].shape == (4, len(NAMES)) and np.isfinite(found[2]).all()


# ---- towers: what their own pooling makes of a token alone
def _features(tower, pictures):
    """What the tower's own code pools: float `(B, N, C)`."""
    return tower.transformer(tower._embeds(pictures))


@pytest.mark.parametrize("pool", ["tok", "avg"])
@pytest.mark.parametrize("form", [{}, {"final_ln_after_pool": True}, {"attentional_pool": True}])
def test_a_token_of_open_clips_vit_is_pooled_alone(pool, form):
    import torch
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(1)
    tower = VisionTransformer(32, 16, 32, 1, 2, 2.0, output_dim=24, attn_pooler_queries=3, pool_type=pool, **form)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features, tokens = _features(tower.eval(), pictures), patch_tokens(tower, pictures, "small")
        assert tokens.shape == (2, 4, 24)
        for place in range(4):
            alone = features[:, [place + 1]].expand(-1, 2, -1)  # the class token and one patch, which are the same
            torch.testing.assert_close(tokens[:, place], tower._pool(alone)[0] @ tower.proj)
        if pool == "avg" and not form:  # where all behind the tokens is linear, their mean is the tower's embedding
            torch.testing.assert_close(tokens.mean(1), tower(pictures))


def test_a_place_of_a_resnet_is_what_attention_to_it_alone_gives():
    import torch
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(1)
    tower = ModifiedResNet([1, 1, 1, 1], 24, 4, image_size=96, width=8).eval()
    pool, pictures = tower.attnpool, torch.randn(2, 3, 96, 96)
    torch.nn.init.zeros_(pool.k_proj.weight)  # attention is even: to nine places and, before them, to their mean
    torch.nn.init.zeros_(pool.k_proj.bias)
    maps = []
    pool.register_forward_hook(lambda _module, given, _out: maps.append(given[0]))
    with torch.no_grad():
        tokens, pooled = patch_tokens(tower, pictures, "small"), tower(pictures)
        mean = pool.c_proj(pool.v_proj(maps[-1].flatten(2).mean(2) + pool.positional_embedding[0]))
        fifth = pool.c_proj(pool.v_proj(maps[-1][:, :, 1, 2] + pool.positional_embedding[6]))
    assert tokens.shape == (2, 9, 24) and len(maps) == 1  # the tokens come without the pooling
    torch.testing.assert_close(tokens[:, 5], fifth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((tokens.sum(1) + mean) / 10, pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pool", "proj"), [("map", "none"), ("map", None), ("token", None), ("avg", "linear")])
def test_a_token_of_timms_vit_is_pooled_alone(pool, proj):
    import torch
    from open_clip.timm_model import TimmModel

    torch.manual_seed(1)
    tower = TimmModel("test_vit", 24, 160, pool=pool, proj=proj).eval()
    trunk, pictures = tower.trunk, torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        features, tokens = trunk.forward_features(pictures), patch_tokens(tower, pictures, "small")
        patches = features[:, trunk.num_prefix_tokens :]
        assert tokens.shape == (2, 100, tower(pictures).shape[1])
        for place in (0, 41, 99):
            if pool == "map":
                mask = torch.full((1, patches.shape[1]), -torch.inf).index_fill(1, torch.tensor(place), 0.0)
                alone = trunk.attn_pool(patches, attn_mask=mask)
            else:
                alone = patches[:, place]
            expected = tower.head(trunk.head(trunk.fc_norm(alone)))
            torch.testing.assert_close(tokens[:, place], expected, rtol=1e-4, atol=1e-5)
        if pool == "avg":
            torch.testing.assert_close(tokens.mean(1), tower(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_base", "MobileCLIP-S1", "swin_base_patch4_window7_224"])
def test_a_tower_without_tokens_is_refused_with_those_that_work(name):
    with pytest.raises(
        ModelError, match=rf"image tower of '{name}' has none: it is a \w+; those that work are .*SigLIP"
    ):
        check_tower(OpenClip(model=name))


def test_a_tower_of_a_hub_is_refused_once_it_is_there():
    import torch
    from open_clip.timm_model import TimmModel

    tower = TimmModel("test_convnext", 24, 160, pool="", proj="linear").eval()
    with pytest.raises(ModelError, match="'hub' has none: it is a ConvNeXt"):
        patch_tokens(tower, torch.zeros(1, 3, 160, 160), "hub")
    check_tower(OpenClip(model="hf-hub:org/name"))


@pytest.mark.nightly
def test_which_towers_of_open_clip_have_tokens():
    import open_clip

    refused = set()
    for name in open_clip.list_models():
        try:
            check_tower(OpenClip(model=name))
        except ModelError:
            refused.add(name)
    without = ("convnext_", "MobileCLIP-S", "MobileCLIP2-S", "swin_")
    assert refused == {name for name in open_clip.list_models() if name.startswith(without)}
    assert len(refused) < 25 < 100 < len(open_clip.list_models())


# ---- rows
def test_rows_fail_as_they_do_when_they_are_embedded(vocabulary):
    images = [GOOD[0], b"", GOOD[1], None, GOOD[2][:200], b"<html>", GOOD[3], picture(0, (60, 60)), GOOD[4]]
    config = OpenClip(**SMALL, max_pixels=3000)
    found, failures, _ = blocks(source(vocabulary, encoder=config), table(images), [2, 5, 2])
    assert failures == OpenClipEmbedder(config, ("image",)).run(table(images)).failures
    reasons = {row: reason for row, reason, _ in failures}
    assert reasons == {1: "not_an_image", 4: "truncated_image", 5: "not_an_image", 7: "too_many_pixels"}
    assert {*reasons.values()} <= {*UtilityDiversity.reasons}
    assert sorted(found) == [0, 2, 6, 8]


def test_a_rows_bytes_depend_on_its_place_and_never_on_neighbours_or_slices(vocabulary):
    clean, _, _ = blocks(source(vocabulary), table())
    spoiled = [data if row in (1, 4, 9) else (None, b"x", picture(99))[row % 3] for row, data in enumerate(GOOD)]
    other, _, _ = blocks(source(vocabulary), table(spoiled), [3, 3, 3, 1])
    for row in (1, 4, 9):
        assert clean[row].tobytes() == other[row].tobytes()
    assert clean[0].tobytes() != other.get(3, clean[1]).tobytes()


def test_blocks_are_as_large_as_memory_allows(vocabulary, monkeypatch):
    whole, _, few = blocks(source(vocabulary), table())
    monkeypatch.setattr(pair_tokens, "BLOCK_BYTES", 3 * 4 * 4 * len(NAMES))
    cut, _, many = blocks(source(vocabulary), table())
    assert [block.rows.tolist() for block in few] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [block.rows.tolist() for block in many] == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9]]
    for row in range(10):
        np.testing.assert_allclose(whole[row], cut[row], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(pair_tokens, "BLOCK_BYTES", 1)
    assert [len(block.rows) for block in blocks(source(vocabulary), table())[2]] == [1] * 10


def test_logits_that_are_not_finite_fail_their_row_alone(vocabulary, monkeypatch):
    def broken(visual, pictures, model):
        tokens = patch_tokens(visual, pictures, model)
        tokens[1, 2, 3] = np.nan
        tokens[2] = 0  # a token without a direction has logits of zero
        return tokens

    expected, _, _ = blocks(source(vocabulary), table())
    monkeypatch.setattr(pair_tokens, "patch_tokens", broken)
    found, failures, _ = blocks(source(vocabulary), table(GOOD[:8]))
    assert [failure[:2] for failure in failures] == [(1, "non_finite_logits"), (5, "non_finite_logits")]
    assert sorted(found) == [0, 2, 3, 4, 6, 7] and not found[2].any()
    np.testing.assert_array_equal(found[3], expected[3])


def test_no_rows_and_rows_without_pictures_have_no_blocks(vocabulary):
    assert blocks(source(vocabulary), table([])) == ({}, [], [])
    assert blocks(source(vocabulary), table([None] * 5)) == ({}, [], [])
    with pytest.raises(ValueError, match="`hidden` is True; it must be False"):
        list(source(vocabulary).blocks(table(), [], hidden=True))


def test_others_may_change_the_logits_that_they_got(vocabulary):
    (block,) = source(vocabulary).blocks(table(GOOD[:4]), [])
    block.logits.mul_(2)


# ---- vocabulary
def test_a_vocabulary_is_embedded_once_a_process(vocabulary, monkeypatch):
    from tasks.annotate.zero_shot import ZeroShotAnnotator

    built, build = [], ZeroShotAnnotator.build
    monkeypatch.setattr(ZeroShotAnnotator, "build", lambda self, part: built.append(part) or build(self, part))
    for _ in range(3):
        blocks(source(vocabulary, template="once: {}"), table(GOOD[:2]))
    assert built == [0]


def test_a_vocabulary_counts_by_its_content(vocabulary, tmp_path):
    moved, other = tmp_path / "moved.txt", tmp_path / "other.txt"
    moved.write_bytes(open(vocabulary, "rb").read())
    other.write_text("cat\n")
    same = [(source(path).depends_on(), source(path).config.output_fields()) for path in (vocabulary, str(moved))]
    assert same[0] == same[1]
    assert source(str(other)).depends_on() != same[0][0]
    threads = source(vocabulary, encoder=OpenClip(**SMALL, cpu_threads=2))
    assert threads.config.output_fields() == same[0][1]
    assert source(vocabulary, template="{}").config.output_fields() != same[0][1]


def test_what_is_wrong_is_told_before_anything_is_computed(vocabulary, tmp_path):
    with pytest.raises(
        ConfigError, match=r"`logits\.vocabulary` is '/no/such'; there is no such file, and built in are"
    ):
        source("/no/such").check()
    with pytest.raises(ConfigError, match="there is no such file"):
        source("/no/such").depends_on()
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConfigError, match=r"`logits\.vocabulary` is '.*empty\.txt'; there is no concept in it"):
        source(str(tmp_path / "empty.txt")).check()
    with pytest.raises(ValueError, match="must be a sentence with one {}"):
        PairTokens(vocabulary=vocabulary, template="a photo")
    with pytest.raises(ModelError, match="unknown to open_clip"):
        source(vocabulary, encoder=OpenClip(model="ViT-B-23")).check()
    with pytest.raises(ValueError, match="`encoder` is null"):
        source(vocabulary, encoder=None).check()
    source(vocabulary).check()


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(vocabulary):
    import torch

    cpu, _, _ = blocks(source(vocabulary), table())
    made = source(vocabulary, encoder=OpenClip(**SMALL | {"device": "cuda"}))
    for block in made.blocks(table(), []):
        assert block.logits.is_cuda and block.there.is_cuda
        expected = torch.from_numpy(np.stack([cpu[row] for row in block.rows.tolist()]))
        torch.testing.assert_close(block.logits.cpu(), expected, rtol=1e-3, atol=1e-3)
