"""ComfyUI-Rollout: train diffusion and flow-matching models on their own outputs, as a node graph."""

import sys

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY", "__version__"]


def _be_a_guest() -> None:
    """Inside ComfyUI, its server answers for our list of runs too."""
    from .hosts.comfyui_routes import add_routes, output_folder, running_since
    from .server.routes.run_list import RunList, as_guest
    from .server.routes.runs import ROUTES

    def where() -> RunList:
        return RunList(output_folder() / "rollout", output_folder(), running_since)

    add_routes(as_guest(ROUTES, where))


if getattr(sys.modules.get("server"), "PromptServer", None) is not None:
    _be_a_guest()
