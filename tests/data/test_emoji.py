"""The emoji that come with the nodes."""

import torch
from comfyui_rollout.data.emoji import Emoji


def test_emoji_are_the_faces():
    """118 colour faces in -1..1, in 12 groups, on white; each group's first is where Unicode has it."""
    emoji = Emoji()
    info = emoji.info
    assert (info.count, info.channels, info.size, len(info.classes)) == (118, 3, 24, 12)
    assert emoji.latents.shape == (118, 3, 24, 24)
    assert float(emoji.latents.min()) == -1
    assert float(emoji.latents.max()) == 1
    assert info.classes[emoji.labels[0]] == "smiling"
    assert info.classes[emoji.labels[-1]] == "costume"
    assert torch.bincount(emoji.labels, minlength=12).tolist() == [9, 26, 8, 3, 7, 3, 8, 16, 6, 14, 6, 12]
    corners = emoji.latents[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float((corners > 0.9).double().mean()) > 0.95


def test_a_smile_is_yellow_and_upright():
    """Red and green are high and blue is low; the sheet was cut as it was laid."""
    face = Emoji().latents[0]
    red, green, blue = face[:, 8, 12]
    assert red > 0.8
    assert green > 0.4
    assert blue < 0
    assert float((face - face.flip(2)).abs().mean()) < 0.1  # a smile is the same in a mirror
    assert float((face - face.flip(1)).abs().mean()) > 0.15  # and another one upside down


def test_emoji_from_inference_mode_can_be_trained_on():
    """The node makes the data set inside ComfyUI's inference mode; its batches must be plain tensors."""
    with torch.inference_mode():
        emoji = Emoji()
    batch = emoji.batch([0, 117], [])
    assert not batch.latents.is_inference()
    assert batch.conditioning["label"].tolist() == [9, 2]
