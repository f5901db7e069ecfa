"""Where a run reports and asks: nobody, our own graph runner, or ComfyUI."""
