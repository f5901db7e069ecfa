"""Templates: the list, their words and pictures."""

import io
import json

import pytest
from PIL import Image


@pytest.fixture
def workflows(folders):
    folders.workflows.mkdir()
    text = "## First steps\n\nPress **Run** and watch.\n\nMore.\n\n**What it costs.** 2 `GB`."
    note = {"type": "MarkdownNote", "widgets_values": [text]}
    order = {"rollout": {"order": 1}}
    (folders.workflows / "another_one.json").write_text('{"version": 0.4, "nodes": []}')
    (folders.workflows / "quickstart_digits.json").write_text(
        json.dumps({"version": 0.4, "nodes": [note], "extra": order})
    )
    (folders.workflows / "broken.json").write_text("{")
    Image.new("RGB", (8, 8)).save(folders.workflows / "another_one.jpg")
    return folders.workflows


def test_templates(serve, workflows):
    """Ours are the templates, in their own order; each has a title, a description and a picture."""

    async def check(client, studio):
        (category,) = await (await client.get("/templates/index.json")).json()
        assert category["moduleName"] == "default"
        shown = {template["name"]: template for template in category["templates"]}
        assert list(shown) == ["quickstart_digits", "another_one", "broken"]
        assert shown["quickstart_digits"]["title"] == "First steps"
        assert shown["quickstart_digits"]["description"] == "Press Run and watch. 2 GB."
        assert shown["another_one"]["title"] == "Another one"
        for name, template in shown.items():
            assert isinstance(template["description"], str)
            picture = await client.get(f"/templates/{name}-1.{template['mediaSubtype']}")
            assert (picture.status, picture.content_type) == (200, "image/jpeg")
            Image.open(io.BytesIO(await picture.read())).verify()
            for place in ("/templates", "/api/workflow_templates/comfyui-rollout"):
                assert (await client.get(f"{place}/{name}.json")).content_type == "application/json"
        assert (await client.get("/templates/none.json")).status == 404
        assert (await client.get("/templates/none-1.jpg")).status == 404

    serve(check)
