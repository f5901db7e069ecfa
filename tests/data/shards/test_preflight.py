"""What is told before an encoding of shards."""

from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.shards.encoding import ShardEncoding
from comfyui_rollout.data.shards.preflight import cut_in_words, shard_encoding_in_words
from shard_encoders import FakeEncoders


def test_captions_that_are_cut_are_told(tar, read, tmp_path):
    """By their pictures, as a folder's are; looked for among the longest, for there may be millions."""
    files = {}
    for number in range(6):
        text = "word " * (20 if number < 4 else 2)
        files |= {f"{number}.png": True, f"{number}.txt": text.encode()}
    encoders = FakeEncoders()
    encoders.longer_than_read = lambda captions: ([text for text in captions if len(text) > 60], 7)
    encoding = ShardEncoding(read(tar(files)), encoders, CaptionSettings(), Cache(tmp_path))
    assert cut_in_words(encoding) == [
        "of the 4 longest captions, 4 are longer than the 7 tokens that the encoder reads, and cut: 0.png, 1.png, "
        "2.png, 1 more"
    ]
    assert cut_in_words(encoding)[0] in shard_encoding_in_words(encoding)
    encoders.longer_than_read = lambda captions: ([], 7)
    assert cut_in_words(encoding) == []
    default = ShardEncoding(
        read(tar({"a.png": True}), default_caption=70 * "a"), encoders, CaptionSettings(), Cache(tmp_path)
    )
    encoders.longer_than_read = lambda captions: (captions, 7)
    assert cut_in_words(default)[0].startswith("of the 1 longest caption, 1 is longer")
