"""Translations: served as ComfyUI does, and chosen by the person's language."""

import json


def test_translations_are_served_as_comfyui_does(serve, folders):
    """main.json at the top, node definitions under their own name; an empty folder is a language without words."""
    (folders.locales / "hi").mkdir(parents=True)
    (folders.locales / "en").mkdir()
    (folders.locales / "hi" / "main.json").write_text(json.dumps({"g": {"run": "चलाएँ"}}))
    (folders.locales / "hi" / "nodeDefs.json").write_text(json.dumps({"Rollout": {"display_name": "रोलआउट"}}))

    async def check(client, studio):
        found = await (await client.get("/api/i18n")).json()
        assert found == {"en": {}, "hi": {"g": {"run": "चलाएँ"}, "nodeDefs": {"Rollout": {"display_name": "रोलआउट"}}}}

    serve(check)


def test_the_template_browser_speaks_the_persons_language(serve, folders):
    """By what the browser accepts, unless the settings say otherwise."""
    (folders.locales / "hi").mkdir(parents=True)
    lines = {"# Digits": "# अंक", "**What it costs.** 2 GB.": "**कितना खर्च।** 2 GB।"}
    (folders.locales / "hi" / "main.json").write_text(json.dumps({"rolloutTemplates": lines}))
    folders.workflows.mkdir(exist_ok=True)
    note = {"type": "MarkdownNote", "widgets_values": ["# Digits\n\nPress *Run*.\n\n**What it costs.** 2 GB.\n"]}
    (folders.workflows / "digits.json").write_text(json.dumps({"nodes": [note]}))

    async def check(client, studio):
        async def told(accepted):
            reply = await client.get("/templates/index.json", headers={"Accept-Language": accepted})
            (template,) = [one for one in (await reply.json())[0]["templates"] if one["name"] == "digits"]
            return template["title"], template["description"]

        assert await told("en-GB,hi;q=0.5") == ("Digits", "Press Run. 2 GB.")
        assert await told("hi-IN,en;q=0.5") == ("अंक", "Press Run. 2 GB।")
        await client.post("/api/settings/Rollout.Language", data=json.dumps("en"))
        assert await told("hi-IN") == ("Digits", "Press Run. 2 GB.")

    serve(check)
