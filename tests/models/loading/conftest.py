"""Live pipelines, and files made of them."""

import pytest
from comfyui_rollout.models.families import PRETRAINED
from original_names import clip, ldm_unet, ldm_vae, sd3, write
from tiny_pipelines import unread


@pytest.fixture
def pipeline_of(tiny_pipeline):
    """``pipeline_of(family)``: diffusers' own loading of the whole tiny pipeline, as what ours is compared to.

    Qwen-Image 2.1's constructor asks a processor, which is not there: ours does not.
    """
    import diffusers

    def load(family, **options):
        kind = PRETRAINED[family]
        loader, folder = getattr(diffusers, kind.pipeline_class), tiny_pipeline(family, **options)
        loader = kind.pipeline() if family == "qwen_image_21" else loader
        if issubclass(loader, diffusers.ModularPipeline):
            pipeline = loader.from_pretrained(folder)
            pipeline.load_components()
            return pipeline
        return loader.from_pretrained(folder, use_safetensors=True, **unread(kind))

    return load


@pytest.fixture
def single_file(pipeline_of, tmp_path):
    """``single_file(family, *parts)``: the family's checkpoint in one file, named as its own repository does."""

    def make(family, *names, **marks):
        pipeline = pipeline_of(family)
        weights = sd3(pipeline.transformer) if family == "sd3" else ldm_unet(pipeline.unet)
        extra = {
            "vae": lambda: ldm_vae(pipeline.vae),
            "text_encoder": lambda: clip(pipeline.text_encoder, "cond_stage_model.transformer."),
        }
        return write(tmp_path / f"{family}.safetensors", weights, *(extra[name]() for name in names), **marks)

    return make
