"""Jobs as the frontend's queue and history want them."""

import pytest
from comfyui_rollout.graph import Result
from comfyui_rollout.server.guard.bodies import BadBody
from comfyui_rollout.server.jobs.job import Job
from comfyui_rollout.server.jobs.job_list import LONGEST_TEXT, job_item, list_jobs
from comfyui_rollout.server.jobs.job_queue import JobQueue


@pytest.fixture
def jobs():
    """Two done jobs, a failed one, one that runs, and one that waits, made one after another."""
    queue = JobQueue()
    for number, status in enumerate(("success", "success", "error", None, None)):
        queue.put(Job(queue.next_number(), f"job {number}", {}, [], extra_data={"create_time": number}))
        if number < 4:
            job = queue.take()
            if status:
                job.end(Result(status))
                job.started, job.ended = 10 * number, 15 * number + 1
                queue.finish(job)
    return queue


def ids(jobs, **query):
    return [item["id"][-1] for item in list_jobs(jobs, {name: str(value) for name, value in query.items()})["jobs"]]


def test_what_runs_comes_first_then_what_waits_then_the_newest(jobs):
    """As in the panel."""
    assert ids(jobs) == ["3", "4", "2", "1", "0"]


def test_a_query_chooses_and_sorts(jobs):
    """By status, by time of making or by how long it took."""
    assert ids(jobs, status="completed,failed") == ["2", "1", "0"]
    assert ids(jobs, status="failed") == ["2"]
    assert ids(jobs, sort_by="created_at") == ["4", "3", "2", "1", "0"]
    assert ids(jobs, sort_order="asc") == ["0", "1", "2", "3", "4"]
    assert ids(jobs, status="completed,failed", sort_by="execution_duration", sort_order="asc") == ["0", "1", "2"]


def test_a_page_says_whether_there_are_more(jobs):
    """The frontend asks for the next one until there is none."""
    page = list_jobs(jobs, {"offset": "3", "limit": "1"})
    assert [item["id"] for item in page["jobs"]] == ["job 1"]
    assert page["pagination"] == {"offset": 3, "limit": 1, "total": 5, "has_more": True}
    assert not list_jobs(jobs, {"offset": "3", "limit": "2"})["pagination"]["has_more"]


@pytest.mark.parametrize(
    "query",
    [{"status": "done"}, {"sort_by": "name"}, {"sort_order": "up"}, {"limit": "-1"}, {"limit": "²"}, {"offset": "1e3"},
     {"offset": "1" * 10}],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(jobs, query):
    with pytest.raises(BadBody):
        list_jobs(jobs, query)


def shown(**outputs):
    job = Job(1, "j", {}, [], extra_data={"create_time": 0})
    job.end(Result("success", outputs=outputs))
    return job_item(job)


def test_a_saved_picture_stands_for_a_job_else_a_passing_one_else_a_text():
    """Files that are no pictures count, and are not shown."""
    passing = {"images": [{"filename": "a.png", "type": "temp"}]}
    saved = {"images": [{"filename": "b.png", "type": "output"}]}
    item = shown(**{"1": passing, "2": saved, "3": {"files": [{"filename": "c.safetensors"}]}})
    assert (item["outputs_count"], item["previewable_outputs_count"]) == (3, 2)
    assert item["preview_output"] == {"filename": "b.png", "type": "output", "nodeId": "2", "mediaType": "images"}
    assert shown(**{"1": passing})["preview_output"]["filename"] == "a.png"
    assert shown(**{"5": {"text": ["done"]}})["preview_output"] == {
        "content": "done",
        "nodeId": "5",
        "mediaType": "text",
    }
    long = shown(**{"5": {"text": ["x" * (LONGEST_TEXT + 1)]}})["preview_output"]
    assert (len(long["content"]), long["truncated"]) == (LONGEST_TEXT, True)
    assert "preview_output" not in shown(**{"1": {"odd": 3, "images": [None, {"filename": 4}]}})
