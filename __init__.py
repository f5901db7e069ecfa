"""ComfyUI-Rollout: train diffusion and flow-matching models on their own outputs, as a node graph."""

import sys
from pathlib import Path

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY", "__version__"]

if hasattr(sys.modules.get("server"), "PromptServer"):  # ComfyUI is running, and we are one of its packs
    from .data.reading.folder import survey
    from .server.inside_comfyui import add_routes

    _paths = sys.modules["folder_paths"]
    add_routes(
        sys.modules["server"].PromptServer.instance,
        Path(__file__).parent,
        output=_paths.get_output_directory(),
        input=_paths.get_input_directory(),
        temp=_paths.get_temp_directory(),
        user=_paths.get_user_directory(),
        survey=survey,
    )
