"""The queue as clients use it: order, cancelling, stopping, and what is forgotten."""

import asyncio
import uuid


def test_order_and_cancel(serve, host, browse, queue, prompt):
    """Numbers decide, front comes first, waiting jobs can be dropped, the running one stopped; twice is no error."""

    async def check(client, studio):
        browser = await browse(client)
        host.gate.clear()
        prompts = [{**prompt, "1": {**prompt["1"], "inputs": {**prompt["1"]["inputs"], "seed": s}}} for s in range(5)]
        first = await queue(client, prompts[0])
        await browser.until("dummy.event")
        second = await queue(client, prompts[1])
        front = await queue(client, prompts[2], front=True)
        given = await queue(client, prompts[3], number=0.5, prompt_id=str(uuid.uuid4()))
        shown = await (await client.get("/api/queue")).json()
        assert [entry[1] for entry in shown["queue_running"]] == [first["prompt_id"]]
        expected = [front["prompt_id"], given["prompt_id"], second["prompt_id"]]
        assert [entry[1] for entry in shown["queue_pending"]] == expected
        listed = await (await client.get("/api/jobs?status=in_progress,pending&limit=2")).json()
        assert [job["status"] for job in listed["jobs"]] == ["in_progress", "pending"]
        assert listed["pagination"] == {"offset": 0, "limit": 2, "total": 4, "has_more": True}
        assert (await (await client.get("/api/prompt")).json())["exec_info"]["queue_remaining"] == 4

        async def cancel(job_id):
            return (await (await client.post(f"/api/jobs/{job_id}/cancel")).json())["cancelled"]

        assert await cancel(front["prompt_id"])
        assert not await cancel(front["prompt_id"])
        await client.post("/api/queue", json={"delete": [given["prompt_id"]]})
        await client.post("/api/interrupt", json={"prompt_id": second["prompt_id"]})
        assert studio.jobs.running.interrupt.is_set() is False
        reply = await client.post("/api/jobs/cancel", json={"job_ids": [first["prompt_id"]]})
        assert await reply.json() == {"cancelled": True}
        host.gate.set()
        await browser.until("execution_success", prompt_id=second["prompt_id"])
        await browser.until_done()
        done = await (await client.get("/api/jobs?sort_by=created_at&sort_order=asc")).json()
        assert [job["status"] for job in done["jobs"]] == ["cancelled", "completed"]
        taken = await client.post("/api/prompt", json={"prompt": prompt, "prompt_id": first["prompt_id"]})
        assert (taken.status, (await taken.json())["error"]["type"]) == (400, "invalid_prompt_id")
        await client.post("/api/history", json={"delete": [first["prompt_id"]]})
        assert len(await (await client.get("/api/history")).json()) == 1
        await client.post("/api/history", json={"clear": True})
        assert await (await client.get("/api/history")).json() == {}

    serve(check)


def test_secrets_are_not_kept(serve, browse, queue, prompt):
    """Keys for services of others are forgotten at once; the workflow's id is what errors are filed under."""
    extra = {"api_key_comfy_org": "key", "auth_token_comfy_org": "t", "extra_pnginfo": {"workflow": {"id": "w1"}}}

    async def check(client, studio):
        browser = await browse(client)
        reply = await queue(client, prompt, extra_data=extra)
        await browser.until_done()
        text = await (await client.get(f"/api/jobs/{reply['prompt_id']}")).text()
        assert "api_key" not in text
        assert "auth_token" not in text
        for wanted, count in (("w1", 1), ("w2", 0)):
            jobs = await (await client.get(f"/api/jobs?workflow_id={wanted}")).json()
            assert len(jobs["jobs"]) == count
            assert all(job["workflow_id"] == "w1" for job in jobs["jobs"])

    serve(check)


def test_free_forgets_what_was_computed(serve, browse, queue, prompt):
    """After /free the next run computes everything anew."""

    async def check(client, studio):
        browser = await browse(client)
        cached = []
        for free in (False, False, True):
            if free:
                assert (await client.post("/api/free", json={"free_memory": True})).status == 200
            await queue(client, prompt)
            cached.append(len(dict(await browser.until_done())["execution_cached"]["nodes"]))
        assert cached == [0, 2, 0]

    serve(check)


def test_partial_execution(serve, browse, queue, prompt):
    """Only the wanted outputs run."""
    prompt["4"] = {"class_type": "DummySink", "inputs": {"value": ["1", 0]}}

    async def check(client, studio):
        browser = await browse(client)
        await queue(client, prompt, partial_execution_targets=["4"])
        heard = await browser.until_done()
        assert [data["node"] for kind, data in heard if kind == "executed"] == ["4"]

    serve(check)


def test_the_server_stops_the_run(serve, host, browse, queue, prompt):
    """A server that ends interrupts the running job, waits for it, and starts no other."""
    jobs, told = [], []

    async def listen(browser):
        told.extend(await browser.until_done())

    async def check(client, studio):
        browser = await browse(client)
        prompt["1"]["inputs"] |= {"n": 100}
        for seed in range(2):
            prompt["1"]["inputs"]["seed"] = seed
            jobs.append(studio.jobs.find((await queue(client, prompt))["prompt_id"]))
        await browser.until("progress")
        listening = asyncio.create_task(listen(browser))
        await studio.stop()
        await listening

    serve(check)
    assert [job.status for job in jobs] == ["cancelled", "pending"]
    assert "execution_interrupted" in dict(told)


def test_a_failure_outside_of_nodes(serve, host, browse, queue, prompt, monkeypatch):
    """When the runner itself fails, the job fails with a reason, and the thread lives on."""

    async def check(client, studio):
        browser = await browse(client)

        def broken(*arguments, **options):
            raise SystemExit("no more")

        with monkeypatch.context() as patched:
            patched.setattr("comfyui_rollout.graph.running.execute.Executor.run", broken)
            await queue(client, prompt)
            heard = dict(await browser.until_done())
        assert heard["execution_error"]["exception_message"] == "no more\n"
        await queue(client, prompt)
        assert "execution_success" in dict(await browser.until_done())
        jobs = await (await client.get("/api/jobs")).json()
        assert [job["status"] for job in jobs["jobs"]] == ["completed", "failed"]

    serve(check)
