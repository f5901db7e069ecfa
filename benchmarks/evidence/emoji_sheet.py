"""Makes data/emoji.png, the faces that Emoji Dataset hands out, from the npm package with Google's Noto emoji.

python benchmarks/evidence/emoji_sheet.py
"""

from __future__ import annotations

from pathlib import Path

from comfyui_rollout.data.emoji import COLUMNS, SIDE
from pictures import emoji_by
from PIL import Image, PngImagePlugin

SHEET = Path(__file__).parents[2] / "data" / "emoji.png"
FACES = "face-"


def main() -> None:
    drawn = [(kind.removeprefix(FACES), face) for kind, face in emoji_by("subcategory") if kind.startswith(FACES)]
    names = sorted({kind for kind, _ in drawn})
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(drawn) // COLUMNS) * SIDE), "white")
    for place, (_, face) in enumerate(drawn):
        at = (place % COLUMNS * SIDE, place // COLUMNS * SIDE)
        sheet.paste(face.resize((SIDE, SIDE), Image.Resampling.LANCZOS), at)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("names", ",".join(names))
    facts.add_text("labels", ",".join(str(names.index(kind)) for kind, _ in drawn))
    facts.add_text("Copyright", "Google, Noto Emoji 2.048, Apache License 2.0; scaled down and put on white")
    sheet.save(SHEET, pnginfo=facts, optimize=True)


if __name__ == "__main__":
    main()
