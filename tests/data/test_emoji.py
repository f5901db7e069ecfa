"""The faces that are drawn here: always the same, all different, and what they are called can be seen."""

import pytest
import torch
from comfyui_rollout.data.emoji import MOODS, Emoji


@pytest.fixture(scope="module")
def emoji():
    return Emoji(each=8)


def test_faces_are_pictures_of_every_mood(emoji):
    """In -1..1 on white, as many of each; the data set says so."""
    count = 8 * len(MOODS)
    assert (emoji.info.count, emoji.info.channels, emoji.info.size) == (count, 3, 24)
    assert emoji.info.classes == tuple(mood.name for mood in MOODS)
    assert emoji.latents.shape == (count, 3, 24, 24)
    assert torch.bincount(emoji.labels).tolist() == [8] * len(MOODS)
    assert -1 <= float(emoji.latents.min()) < float(emoji.latents.max()) == 1
    corners = emoji.latents[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float((corners > 0.99).double().mean()) > 0.99


def test_faces_are_the_same_each_time_and_none_twice(emoji):
    """Runs can be compared; more of them begin with the same."""
    again = Emoji(each=9)
    assert again.latents[: len(emoji.latents)].equal(emoji.latents)
    assert len(again.latents.flatten(1).unique(dim=0)) == len(again.latents)


@pytest.mark.parametrize(("mood", "channel"), [("angry", 0), ("sick", 1), ("cold", 2)])
def test_moods_have_their_colours(emoji, mood, channel):
    """Channels are red, green, blue; on the forehead, where nothing else is drawn."""
    faces = emoji.latents[emoji.labels == emoji.info.classes.index(mood)]
    assert int(faces[:, :, 3:5, 10:14].mean((0, 2, 3)).argmax()) == channel


def test_faces_are_upright(emoji):
    """Tears run down: who cries is bluer below the eyes, at both sides, than above them or between."""
    crying = emoji.latents[emoji.labels == emoji.info.classes.index("crying")]
    blue = (crying[:, 2] - crying[:, 0]).mean(0)
    left, right, above, between = blue[13:17, 6:9], blue[13:17, 15:18], blue[3:7, 6:18], blue[12:15, 10:14]
    assert min(left.mean(), right.mean()) > max(above.mean(), between.mean()) + 0.2


def test_faces_from_inference_mode_can_be_trained_on():
    """The node makes the data set inside ComfyUI's inference mode; its batches must be plain tensors."""
    with torch.inference_mode():
        emoji = Emoji(each=1)
    batch = emoji.batch([0, 11], [])
    assert not batch.latents.is_inference()
    assert batch.conditioning["label"].tolist() == [0, 11]
