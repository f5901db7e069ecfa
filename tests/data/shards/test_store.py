"""The store of an encoding: each is made once, whoever makes it."""

import threading

from comfyui_rollout.data.data import Loader
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.shards import store
from shard_encoders import FakeEncoders, encode, same


def test_each_is_encoded_once(tars, read, tmp_path):
    """Nothing the second time; other captions leave the latents; other cuts leave the captions."""
    _, encoders = encode(read(tars), tmp_path)
    assert encoders.pictures == 10
    assert len(encoders.captions) == 7 + 4  # and the empty one, in each of four shards
    encode(read(tars), tmp_path, encoders)
    assert (encoders.pictures, len(encoders.captions)) == (10, 11)
    encode(read(tars), tmp_path, encoders, CaptionSettings("word"))
    assert (encoders.pictures, len(encoders.captions)) == (10, 11 + 9 + 4)  # without one, the word alone
    encode(read(tars, crop="random"), tmp_path, encoders)
    assert (encoders.pictures, len(encoders.captions)) == (20, 24)


def test_two_share_the_work(tars, read, tmp_path, monkeypatch):
    """Whoever has a shard's lock makes it, the other one the others; both have all at the end, each made once."""
    monkeypatch.setattr(store, "WAIT", 0.05)
    monkeypatch.setattr("comfyui_rollout.files.lock.LOOKS", 0.02)
    meet = threading.Barrier(2, timeout=20)
    both = [FakeEncoders(), FakeEncoders()]
    for encoders in both:
        plain = encoders.encode_images
        encoders.encode_images = lambda images, encoders=encoders, plain=plain: (
            meet.wait() if not encoders.pictures else None,
            plain(images),
        )[1]
    done = [None, None]

    def work(who):
        done[who] = encode(read(tars), tmp_path, both[who])[0]

    threads = [threading.Thread(target=work, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encoders.pictures for encoders in both) == 10
    assert min(encoders.pictures for encoders in both) > 0
    assert not list((tmp_path / "shards" / store.LOCKS).iterdir())
    same(Loader(done[0], 4, 0, "data").batch(1), Loader(done[1], 4, 0, "data").batch(1))
