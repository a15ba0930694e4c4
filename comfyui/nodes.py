"""The four nodes, of ComfyUI's V3 schema."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import lru_cache

import comfy.utils
import torch
from comfy_api.latest import io

from maskless import Editor, Finder, MasklessError
from maskless.data.errors import EditCancelled
from maskless.data.masks import mask_box
from maskless.data.paste import paste_back
from maskless.engine.rank_pictures import rank_pictures
from maskless.models.presets import BY_NAME

from .pictures import masks_of, merged, pictures_of

CATEGORY = "image/maskless"
TASKS = ["replace", "add", "remove", "texture", "style", "background", "repair"]
BOX, OBJECT = "box", "object"


def model_inputs() -> list:
    """The inputs that choose the models, which all but Paste Back have."""
    return [
        io.Combo.Input(
            "models", options=list(BY_NAME), default="storybook",
            tooltip="sd15 and the others are for photographs and are downloaded once. storybook is small, comes with "
            "Maskless, and knows only drawn scenes.",
        ),
        io.String.Input(
            "models_folder", default="", optional=True, advanced=True,
            tooltip="A folder with inpainting/, dino/ and clip/ to use instead of `models`.",
        ),
    ]  # fmt: skip


class FindRegion(io.ComfyNode):
    """Where in a picture something is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MasklessFindRegion",
            display_name="Find Region (Maskless)",
            category=CATEGORY,
            description="Finds what a caption names, and gives a mask for any inpainting or editing workflow.",
            search_aliases=["text to mask", "segment by text", "auto mask"],
            inputs=[
                io.Image.Input("image"),
                io.String.Input("caption", default="", tooltip="What is in the picture, such as: a red car"),
                io.Combo.Input(
                    "region", options=[BOX, OBJECT], default=BOX,
                    tooltip="box: the box of the best region, which leaves room for something of another shape. "
                    "object: the outlines of all objects that the caption names.",
                ),
                *model_inputs(),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="1 where to edit, for each picture."),
                io.BoundingBox.Output("box", tooltip="The best region of the first picture, in pixels."),
                io.String.Output("report", tooltip="Boxes, scores and reasons of each picture, as JSON."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, caption: str | None = None) -> bool | str:
        return _filled("caption", caption)

    @classmethod
    def execute(cls, image, caption, region, models, models_folder="") -> io.NodeOutput:
        finder = _finder(models_folder.strip() or models)
        found = [finder.find(picture, caption) for picture in pictures_of(image)]
        masks = []
        for finding in found:
            mask = finding.mask
            if region == BOX or not bool(mask.any()):
                x0, y0, x1, y1 = finding.box_xyxy
                mask = torch.zeros(finding.size_yx, dtype=torch.bool)
                mask[y0:y1, x0:x1] = True
            masks.append(mask)
        x0, y0, x1, y1 = found[0].box_xyxy
        box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
        return io.NodeOutput(torch.stack(masks).float(), box, _as_json([finding.to_dict() for finding in found]))


class EditRegion(io.ComfyNode):
    """A whole edit by words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MasklessEditRegion",
            display_name="Edit Region (Maskless)",
            category=CATEGORY,
            description="Finds the region that the caption names, inpaints it with the prompt, and ranks the results. "
            "Outside the mask that it gives, the picture is the input, bit for bit.",
            search_aliases=["edit by text", "replace object", "remove object"],
            inputs=[
                io.Image.Input("image"),
                io.String.Input("caption", default="", tooltip="What is there now, such as: a red car"),
                io.String.Input("prompt", default="", tooltip="What should be there, such as: a blue house"),
                io.Combo.Input("task", options=TASKS, default="replace"),
                io.Int.Input("seed", default=0, min=0, max=2**53 - 1, control_after_generate=True),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="Denoising steps; 0: the model's own."),
                io.Mask.Input("mask", optional=True, tooltip="Where to edit, if not empty, instead of a search."),
                *model_inputs(),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The best edit of each picture."),
                io.Mask.Output("mask", tooltip="Where it may differ from the input."),
                io.Image.Output("candidates", tooltip="All edits of all pictures, each picture's best first."),
                io.String.Output("report", tooltip="Boxes and scores of each picture's edits, as JSON."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image, caption, prompt, task, seed, steps, mask=None, models="storybook", models_folder=""
    ) -> io.NodeOutput:
        editor = _editor(models_folder.strip() or models)
        options = {"steps": steps} if steps else {}
        images, touched, candidates, report = [], [], [], []
        rows = zip(image, pictures_of(image), masks_of(mask, image), strict=True)
        for original, picture, region in rows:
            with _progress() as on_step:
                result = editor.edit(
                    picture, caption=caption, prompt=prompt, task=task, mask=region, seed=seed, on_step=on_step,
                    **options,
                )  # fmt: skip
            edits = [result.edited(index) for index in result.order]
            candidates += [merged(original, edit.tensor(), edit.touched()) for edit in edits]
            images.append(candidates[-len(edits)])
            touched.append(edits[0].touched())
            scores = result.scores.tolist()
            report.append(
                [
                    {"box_xyxy": list(edit.box_xyxy), "score": round(scores[index], 4)}
                    for edit, index in zip(edits, result.order, strict=True)
                ]
            )
        return io.NodeOutput(
            torch.stack(images), torch.stack(touched).float(), torch.stack(candidates), _as_json(report)
        )


class PasteBack(io.ComfyNode):
    """Any editor's picture, with everything outside a mask as it was."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MasklessPasteBack",
            display_name="Paste Back (Maskless)",
            category=CATEGORY,
            description="Takes from an edited picture only what is inside the mask. Every other pixel is the "
            "original's, bit for bit. The edited picture may have another size.",
            search_aliases=["composite", "restore original", "lock region"],
            inputs=[
                io.Image.Input("original"),
                io.Image.Input("edited"),
                io.Mask.Input("mask", tooltip="1 where the picture may change; of the original's size."),
                io.Float.Input(
                    "feather", default=0.06, min=0.0, max=0.5, step=0.01,
                    tooltip="Width of the seam inside the mask, as a share of the root of its area.",
                ),
            ],
            outputs=[io.Image.Output("image")],
        )  # fmt: skip

    @classmethod
    def execute(cls, original, edited, mask, feather) -> io.NodeOutput:
        count = max(len(original), len(edited))
        if len(original) not in (1, count) or len(edited) not in (1, count):
            raise MasklessError(f"original and edited must be as many pictures, got {len(original)} and {len(edited)}")
        sources, drawn = original.expand(count, -1, -1, -1), edited.expand(count, -1, -1, -1)
        results = []
        rows = zip(sources, pictures_of(sources), pictures_of(drawn), masks_of(mask, sources), strict=True)
        for kept, source, crop, region in rows:
            if region is None:
                results.append(kept)
                continue
            window = (0, 0, source.shape[2], source.shape[1])
            pasted = paste_back(source, crop, window, mask_box(region), feather=feather, mask=region)
            results.append(merged(kept, pasted, region))
        return io.NodeOutput(torch.stack(results))


class RankCandidates(io.ComfyNode):
    """The best of several edits."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MasklessRankCandidates",
            display_name="Rank Candidates (Maskless)",
            category=CATEGORY,
            description="Orders edits of one picture, by any workflow, by how well they show the prompt and keep the "
            "rest.",
            search_aliases=["best of", "score images", "CLIP score"],
            inputs=[
                io.Image.Input("original"),
                io.Image.Input("candidates", tooltip="A batch of edits of the original."),
                io.String.Input("prompt", default="", tooltip="What the edits should show."),
                io.String.Input("caption", default="", optional=True, tooltip="What was there before."),
                io.Mask.Input("mask", optional=True, tooltip="What was edited."),
                *model_inputs(),
            ],
            outputs=[
                io.Image.Output("best"),
                io.Image.Output("ranked", tooltip="All candidates, the best first."),
                io.String.Output("report", tooltip="Positions of the candidates, the best first, and their scores."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return _filled("prompt", prompt)

    @classmethod
    def execute(
        cls, original, candidates, prompt, caption="", mask=None, models="storybook", models_folder=""
    ) -> io.NodeOutput:
        (source, *others), (region, *_) = pictures_of(original), masks_of(mask, original)
        if others:
            raise MasklessError(f"original must be one picture, got {1 + len(others)}")
        view = _finder(models_folder.strip() or models).look(source)
        ranking = rank_pictures(
            view, torch.stack(pictures_of(candidates)), caption=caption, prompt=prompt,
            box_xyxy=None if region is None else mask_box(region),
        )  # fmt: skip
        ranked = candidates[list(ranking.order)]
        scores = [round(float(ranking.score[index]), 4) for index in ranking.order]
        return io.NodeOutput(ranked[:1], ranked, _as_json({"order": list(ranking.order), "scores": scores}))


@lru_cache(maxsize=1)
def _finder(models: str) -> Finder:
    """The finder of these models, which is kept for the next execution."""
    return Finder.from_pretrained(models)


@lru_cache(maxsize=1)
def _editor(models: str) -> Editor:
    """The editor of these models, which is kept for the next execution."""
    return Editor.from_pretrained(models)


@contextmanager
def _progress():
    """A callback for an edit in this block: ComfyUI's progress bar follows the denoising steps, and its Cancel button
    stops them."""
    interruption: list[BaseException] = []

    def on_step(step: int, total: int) -> bool:
        try:
            comfy.utils.ProgressBar(total).update_absolute(step, total)
        except Exception as error:  # ComfyUI interrupts a node by an exception from here
            interruption.append(error)
        return bool(interruption)

    try:
        yield on_step
    except EditCancelled:
        raise (interruption or [EditCancelled("cancelled")])[0] from None


def _filled(name: str, text: str | None) -> bool | str:
    """True, or what is wrong with a text input. It is None while another node gives it."""
    return True if text is None or text.strip() else f"{name} is empty: say it in words, such as: a red car"


def _as_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
