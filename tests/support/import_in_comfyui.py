"""Run by ComfyUI's python: how many seconds of the processor our pack takes when all that ComfyUI loads is there.

``import_in_comfyui.py pack``. Answers with the number on the last line.
"""

# ruff: noqa: E402  # ComfyUI reads the command line when it is imported

import asyncio
import importlib.util
import sys
import time
from pathlib import Path

import comfy.options

comfy.options.enable_args_parsing()
pack, sys.argv = Path(sys.argv[1]), [sys.argv[0], "--cpu"]

import execution  # noqa: F401

import nodes
import server

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
server.PromptServer(loop)
loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))

began = time.process_time()
spec = importlib.util.spec_from_file_location(
    str(pack).replace(".", "_x_"), pack / "__init__.py", submodule_search_locations=[str(pack)]
)
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(time.process_time() - began)
