"""Make the README's pictures with the bundled models: `make pictures` (or with others, by their folder).

docs/before-after.png: three samples, each with its best edits. docs/overview.png: the overview of the first.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskless import Editor
from maskless.records.outputs import save_edit

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "src/maskless/assets/samples"
EDITS = (
    ("desert.png", "replace", "a red car", "a blue house"),
    ("meadow.png", "replace", "a red car", "a yellow flower"),
    ("room.png", "replace", "a blue cake", "a green tree"),
    ("desert.png", "style", "a desert", "a pencil sketch"),
    ("meadow.png", "texture", "a red car", "a striped red car"),
    ("room.png", "texture", "a red cat", "a dotted red cat"),
)
COLUMNS = 3
SIDE, GAP, LINE = 256, 16, 30
INK, FAINT = (31, 36, 48), (110, 116, 132)


def main() -> None:
    editor = Editor.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "storybook")
    width, row = COLUMNS * (2 * SIDE + 3 * GAP) + 2 * GAP, SIDE + 2 * LINE
    sheet = Image.new("RGB", (width, len(EDITS) // COLUMNS * row + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for number, (name, task, caption, prompt) in enumerate(EDITS):
        result = editor.edit(SAMPLES / name, caption=caption, prompt=prompt, task=task)
        x, y = 2 * GAP + number % COLUMNS * (2 * SIDE + 3 * GAP), GAP + number // COLUMNS * row
        sheet.paste(Image.open(SAMPLES / name).resize((SIDE, SIDE)), (x, y))
        sheet.paste(result.best.pil().resize((SIDE, SIDE)), (x + SIDE + GAP, y))
        draw.text((x, y + SIDE + 8), f"“{caption}”", fill=FAINT, font=font)
        draw.text((x + SIDE + GAP, y + SIDE + 8), f"“{prompt}”", fill=INK, font=font)
        if number == 0:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copyfile(save_edit(result, folder).overview, HERE / "overview.png")
    sheet.save(HERE / "before-after.png", optimize=True)


if __name__ == "__main__":
    main()
