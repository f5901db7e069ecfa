"""The log, read and subscribed to."""


def test_logs(serve, browse, queue, prompt):
    """What nodes found and how the job ended can be read, and is sent to clients that subscribed."""

    async def check(client, studio):
        browser = await browse(client)
        reply = await client.patch("/internal/logs/subscribe", json={"enabled": True, "clientId": "probe1"})
        assert reply.status == 200
        await queue(client, prompt)
        sent = []
        while not sent or "completed" not in sent[-1]["m"]:
            _, data = (await browser.until("logs"))[-1]
            sent += data["entries"]
        assert any("node 2 (DummySink): 2.5" in line["m"] for line in sent)
        assert (await (await client.get("/internal/logs/raw")).json())["entries"] == sent
        assert sent[-1]["m"] in await (await client.get("/internal/logs")).json()

    serve(check)
