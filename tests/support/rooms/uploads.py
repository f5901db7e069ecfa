"""Pictures made on the spot, sent to a data set, and its list."""

import io

from PIL import Image


def picture(colour="red", kind="PNG", size=(300, 300)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, kind)
    return data.getvalue()


async def put(client, name, file, data):
    reply = await client.put(f"/rollout/datasets/{name}/files/{file}", data=data)
    return reply.status, (await reply.json()).get("result", "")


async def entries(client, name):
    return {
        entry["picture"]: entry for entry in (await (await client.get(f"/rollout/datasets/{name}")).json())["entries"]
    }
