"""What saved workflows of a few small classes become.

`Pass` has a socket `value` and widgets `gain`, `steps`; types are FLOAT unless said otherwise.
"""

from comfyui_rollout.graph import to_prompt

INFO = {
    "Make": {"display_name": "Maker", "input": {"required": {"seed": ["INT", {}]}}, "output": ["FLOAT", "INT"]},
    "Pass": {
        "input": {
            "required": {"gain": ["FLOAT", {"default": 1.0}], "value": ["FLOAT", {"forceInput": True}]},
            "optional": {"steps": ["INT", {"default": 4}]},
        },
        "output": ["FLOAT"],
    },
    "Sink": {"input": {"required": {"value": ["FLOAT", {"forceInput": True}]}}, "output": [], "output_node": True},
    "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": ["STRING"]},
}


def inputs(workflow, info=INFO):
    return {node_id: node["inputs"] for node_id, node in to_prompt(workflow, info).items()}
