"""Captions of any length: windows of CLIP, one behind the other."""

import pytest
import torch
from comfyui_rollout.data.encodings.texts import concatenated
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.families.clip import MOST_WINDOWS, alike, tokens_of
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source

LONG = "abcdefghijklmn opqrstuvwxyz ABCDEFG"  # 33 tokens of the tiny tokenizer, whose windows hold 14


@pytest.fixture
def pipeline(tiny_pipeline):
    """``pipeline("sd", clip_skip=2)``: the text encoders of a tiny pipeline."""

    def load(family, **options):
        source = Source(str(tiny_pipeline(family)), storage="fp32", **options)
        info = inspect(source)
        return load_parts(source, info, info.kind.text_parts)

    return load


def by_diffusers(pipeline, family, text):
    """What diffusers' pipeline makes of one window's tokens: (text, pooled)."""
    if family == "sd":
        return pipeline.encode_prompt([text], "cpu", 1, False)[0], None
    states, _, pooled, _ = pipeline.encode_prompt([text], device="cpu", do_classifier_free_guidance=False)
    return states, pooled


def detokenised(tokenizer, window):
    """A text whose tokens are those of the window: what the pipeline is asked for."""
    words = tokenizer.convert_ids_to_tokens(window, skip_special_tokens=True)
    return "".join(word.replace("</w>", " ") for word in words)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_each_window_is_read_as_a_text_of_its_own(pipeline, family):
    """ComfyUI's rule: 75 tokens, begun and ended; all windows in a row; pooled from the first. (14 tokens here.)"""
    found = pipeline(family)
    encoded = PRETRAINED[family].encode_captions(found, [LONG])
    rows = tokens_of([LONG], found.tokenizer).reshape(-1, 16)
    assert len(rows) == 3
    first = [int(token) for token in rows[0]]
    assert (first[0], first[-1]) == (found.tokenizer.bos_token_id, found.tokenizer.eos_token_id)
    embed = PRETRAINED[family].embed
    encoders = [getattr(found, part) for part in PRETRAINED[family].trainable_text_parts]
    alone = [embed(encoders, row[None, None].expand(1, len(encoders), -1)) for row in rows]
    torch.testing.assert_close(encoded["text"], torch.cat([one["text"] for one in alone], 1), rtol=0, atol=1e-5)
    if family == "sdxl":
        torch.testing.assert_close(encoded["pooled"], alone[0]["pooled"], rtol=0, atol=1e-5)
    # the last window, which is not cut, is what diffusers makes of the same words
    text, _ = by_diffusers(found, family, detokenised(found.tokenizer, rows[-1].tolist()))
    torch.testing.assert_close(encoded["text"][:, -16:], text, rtol=0, atol=1e-5)


def test_captions_that_differ_behind_the_first_window_are_told_apart(pipeline):
    """Cut at 77 tokens they would be trained as one."""
    encode = PRETRAINED["sd"].encode_captions
    one, other = (encode(pipeline("sd"), [LONG + end])["text"] for end in (" x", " y"))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_short_captions_are_what_diffusers_makes_of_them(pipeline, family):
    """One window, to the bit."""
    found = pipeline(family)
    encoded = PRETRAINED[family].encode_captions(found, ["a cat"])
    text, pooled = by_diffusers(found, family, "a cat")
    assert torch.equal(encoded["text"], text)
    assert pooled is None or torch.equal(encoded["pooled"], pooled)


def test_weights_in_brackets_are_text(pipeline):
    """(like this:1.2) is read letter by letter, as the base model's training did."""
    tokenizer = pipeline("sd").tokenizer
    assert detokenised(tokenizer, tokens_of(["(a:1.2)"], tokenizer)[0, 0].tolist()).replace(" ", "") == "(a:1.2)"


def test_a_batch_of_several_lengths_repeats_the_shorter(pipeline):
    """Attention to a text that comes twice is attention to it: nothing but the shape changes."""
    kind, found = PRETRAINED["sd"], pipeline("sd")
    told = [kind.encode_captions(found, [caption]) for caption in ("a", LONG, LONG[:20])]
    together = concatenated(told)
    assert together["text"].shape[:2] == (3, 6 * 16)
    assert together["tokens"].shape == (3, 1, 6 * 16)
    queries = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    attend = torch.nn.functional.scaled_dot_product_attention
    for row, one in zip(together["text"], told, strict=True):
        repeated, alone = attend(queries, row[None], row[None]), attend(queries, one["text"], one["text"])
        torch.testing.assert_close(repeated, alone, rtol=0, atol=1e-5)
    again = kind.embed([found.text_encoder], together["tokens"])["text"]
    torch.testing.assert_close(again, together["text"], rtol=0, atol=1e-5)


def test_prompts_and_negative_prompts_get_one_length(pipeline):
    """diffusers' pipelines take no others."""
    kind, found = PRETRAINED["sd"], pipeline("sd")
    positive, negative = (kind.encode_captions(found, [text]) for text in (LONG, "bad"))
    arguments = kind.sampling_arguments(positive, negative)
    assert arguments["prompt_embeds"].shape == arguments["negative_prompt_embeds"].shape == (1, 48, 16)
    assert alike(positive, positive)[0] is positive


def test_what_is_behind_the_last_window_is_cut(pipeline):
    """And counted as such: four windows, no more."""
    found, text = pipeline("sd"), "a " * 70
    assert tokens_of([text], found.tokenizer).shape == (1, 1, MOST_WINDOWS * 16)
    assert PRETRAINED["sd"].most_tokens(found) == MOST_WINDOWS * 14
    assert PRETRAINED["sd"].count_tokens(found, [text, "a"]) == [72, 3]


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_clip_skip_is_comfyuis(pipeline, clip_skip):
    """The states of an earlier layer, counted from the last, through the last norm."""
    encoded = PRETRAINED["sd"].encode_captions(pipeline("sd", clip_skip=clip_skip), ["a cat"])
    encoder = pipeline("sd").text_encoder
    states = encoder(encoded["tokens"][:, 0], output_hidden_states=True).hidden_states[-max(1, clip_skip)]
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    torch.testing.assert_close(encoded["text"], norm(states), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("family", "clip_skip"), [("sdxl", 1), ("flux", 2), ("sd3", 1)])
def test_clip_skip_is_refused_where_it_makes_no_sense(family, clip_skip):
    """With the family's name, and what may be chosen."""
    with pytest.raises(
        ValueError, match=f"clip_skip: {PRETRAINED[family].title.split('/')[0].strip()}.* set it to one of these: 0"
    ):
        PRETRAINED[family].check_clip_skip(clip_skip)


@pytest.mark.parametrize(("family", "most"), [("sd3", 256), ("flux", 512), ("lumina2", 256)])
def test_every_family_knows_how_much_it_reads(tiny_pipeline, family, most):
    """So that captions that are cut can be named; tokenizers alone are loaded for it."""
    from comfyui_rollout.data.encodings.encoders import PretrainedEncoders
    from comfyui_rollout.models.loading.pretrained import Pretrained

    source = Source(str(tiny_pipeline(family)), storage="fp32")
    encoders = PretrainedEncoders(Pretrained(source, inspect(source)))
    cut, reads = encoders.longer_than_read(["a " * 600, "a cat"])
    assert (cut, reads) == (["a " * 600], most)


@pytest.mark.parametrize("text", ["half a \ud83d", "caf\udce9"])
def test_a_text_with_a_part_of_a_letter_is_refused(text):
    """Of an emoji that was cut, or typed in another encoding: a tokenizer says only that it is of the wrong type."""
    with pytest.raises(ValueError, match="holds a part of a letter: write it anew"):
        PRETRAINED["sd"].encode_captions(None, ["a dog", text])
