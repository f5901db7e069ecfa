"""Blueprints, as ComfyUI lists them."""

import json


def test_blueprints(serve, folders):
    """Graphs folded into one node, as ComfyUI lists them: not those that need its nodes, and no broken ones."""
    folders.blueprints.mkdir()
    (folders.blueprints / "Train in One Node.json").write_text('{"version": 0.4, "extra": {}}')
    (folders.blueprints / "guest.json").write_text('{"version": 0.4, "extra": {"rollout": {"needs": "comfyui"}}}')
    (folders.blueprints / "broken.json").write_text("{")

    async def check(client, studio):
        listed = await (await client.get("/api/global_subgraphs")).json()
        ((name, told),) = listed.items()
        assert told == {
            "source": "custom_node",
            "name": "Train in One Node",
            "info": {"node_pack": "custom_nodes.comfyui-rollout"},
        }
        whole = await (await client.get(f"/api/global_subgraphs/{name}")).json()
        assert json.loads(whole["data"])["version"] == 0.4
        for other in ("none", "..%2fguest"):
            assert await (await client.get(f"/global_subgraphs/{other}")).json() is None

    serve(check)
