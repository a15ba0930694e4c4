"""Make the README's pictures with the bundled models: `make pictures` (or with others, by their folder).

docs/before-after.png: three samples, each with its best edit. docs/overview.png: the overview of the first.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskless import Editor
from maskless.engine.outputs import save_edit

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "src/maskless/assets/samples"
EDITS = (
    ("desert.png", "a red car", "a blue house"),
    ("meadow.png", "a red car", "a yellow flower"),
    ("room.png", "a blue cake", "a green tree"),
)
SIDE, GAP, LINE = 256, 16, 30
INK, FAINT = (31, 36, 48), (110, 116, 132)


def main() -> None:
    editor = Editor.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "storybook")
    width = len(EDITS) * (2 * SIDE + GAP) + (len(EDITS) + 1) * 2 * GAP
    sheet = Image.new("RGB", (width, SIDE + 2 * LINE + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, (name, caption, prompt) in enumerate(EDITS):
        result = editor.edit(SAMPLES / name, caption=caption, prompt=prompt)
        x = 2 * GAP + column * (2 * SIDE + 3 * GAP)
        sheet.paste(Image.open(SAMPLES / name).resize((SIDE, SIDE)), (x, GAP))
        sheet.paste(result.best.pil().resize((SIDE, SIDE)), (x + SIDE + GAP, GAP))
        draw.text((x, SIDE + GAP + 8), f"“{caption}”", fill=FAINT, font=font)
        draw.text((x + SIDE + GAP, SIDE + GAP + 8), f"“{prompt}”", fill=INK, font=font)
        if column == 0:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copyfile(save_edit(result, folder).overview, HERE / "overview.png")
    sheet.save(HERE / "before-after.png", optimize=True)


if __name__ == "__main__":
    main()
