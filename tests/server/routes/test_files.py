"""Pictures and weights, looked at."""

import io
import json
import struct

from PIL import Image


def test_views(serve, folders):
    """A picture as it is, smaller, and one channel of it; names with their folder in brackets; odd wishes."""
    (folders.output / "rollout" / "run").mkdir(parents=True)
    Image.new("RGBA", (32, 16), (255, 0, 0, 128)).save(folders.output / "rollout" / "run" / "a.png")
    (folders.output / "x.jsonl").write_text("{}\n")

    async def check(client, studio):
        async def picture(**query):
            query = {"filename": "a.png", "subfolder": "rollout/run", "type": "output"} | query
            reply = await client.get("/api/view", params=query)
            assert reply.status == 200
            return reply.content_type, Image.open(io.BytesIO(await reply.read()))

        assert (await picture())[1].mode == "RGBA"
        assert (await picture(preview="webp;90"))[0] == "image/webp"
        assert (await picture(preview="jpeg;x"))[0] == "image/jpeg"
        assert (await picture(preview="odd;90"))[0] == "image/png"
        assert (await picture(channel="rgb"))[1].mode == "RGB"
        assert (await picture(channel="a"))[1].getpixel((0, 0)) == (0, 0, 0, 128)
        assert (await picture(channel="rgba"))[1].mode == "RGBA"
        assert (await picture(filename="a.png [output]", type="input"))[1].size == (32, 16)
        assert (await picture(subfolder="rollout/run/"))[1].size == (32, 16)
        text = await client.get("/view?filename=x.jsonl&preview=webp;90")
        assert (text.content_type, await text.text()) == ("text/plain", "{}\n")

    serve(check)


def test_metadata_of_weights(serve, folders):
    """The workflow in a weights file can be read without reading the weights."""
    folders.output.mkdir()
    header = json.dumps({"__metadata__": {"workflow": "{}"}}).encode()
    (folders.output / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folders.output / "bad.safetensors").write_bytes(b"x")

    async def check(client, studio):
        reply = await client.get("/view_metadata/output?filename=m.safetensors")
        assert await reply.json() == {"workflow": "{}"}
        assert (await client.get("/view_metadata/output?filename=bad.safetensors")).status == 400
        assert (await client.get("/view_metadata/output?filename=none.safetensors")).status == 404
        assert (await client.get("/view_metadata/loras?filename=m.safetensors")).status == 404

    serve(check)
