"""Our extension and its help pages."""


def test_extension_and_help(serve, folders):
    """Our modules are listed and served as modules; a help page is found in the reader's language or the one it has."""
    (folders.web / "docs").mkdir(parents=True)
    (folders.web / "lib").mkdir()
    (folders.web / "extension.js").write_text("export {}")
    (folders.web / "lib" / "chart.js").write_text("export {}")
    (folders.web / "docs" / "Rollout.md").write_text("# Rollout")

    async def check(client, studio):
        modules = await (await client.get("/api/extensions")).json()
        assert modules == [f"/extensions/comfyui-rollout/{name}" for name in ("extension.js", "lib/chart.js")]
        for module in modules:
            assert (await client.get(module)).content_type == "text/javascript"
        for page in ("/extensions/comfyui-rollout/docs/Rollout/en.md", "/extensions/comfyui-rollout/docs/Rollout.md",
                     "/docs/Rollout/en.md", "/docs/Rollout.md"):  # fmt: skip
            reply = await client.get(page)
            assert (reply.content_type, await reply.text()) == ("text/markdown", "# Rollout")
        for page in ("docs/DummyValue/en.md", "docs/DummyValue.md"):
            reply = await client.get(f"/extensions/comfyui-rollout/{page}")
            assert (reply.status, await reply.text()) == (200, "")
        for missing in ("none.js", "docs/None.md", "docs/None/en.md"):
            assert (await client.get(f"/extensions/comfyui-rollout/{missing}")).status == 404

    serve(check)
