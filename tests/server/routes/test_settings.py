"""Settings of the editor."""


def test_settings(serve):
    """Settings are kept between servers; the tutorial stays undone, so that a fresh browser sees our templates."""

    async def change(client, studio):
        assert (await client.get("/api/settings")).status == 200
        for name, value in (("Comfy.TutorialCompleted", "true"), ("Comfy.ColorPalette", '"light"'), ("a.b", "[1]")):
            reply = await client.post(f"/api/settings/{name}", data=value)
            assert (reply.status, await reply.text()) == (200, "")
        await client.post("/api/settings", data='{"Comfy.Locale": "de", "Comfy.TutorialCompleted": true}')

    async def check(client, studio):
        kept = await (await client.get("/api/settings")).json()
        assert kept["Comfy.ColorPalette"] == "light"
        assert kept["Comfy.Locale"] == "de"
        assert "Comfy.TutorialCompleted" not in kept
        assert kept["Comfy.Notification.ShowVersionUpdates"] is False
        assert await (await client.get("/api/settings/a.b")).json() == [1]
        assert await (await client.get("/api/settings/unknown")).json() is None

    serve(change)
    serve(check)
