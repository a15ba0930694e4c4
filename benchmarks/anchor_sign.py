"""Whether an AnchorNet that is trained over many pictures is a further sign of where the object of a caption is.

    python benchmarks/anchor_sign.py --cache FOLDER [--train 240] [--choice 30] [--scenes 40] [--offset 370000]

The network has AnchorNet's form, with the relevance to the caption as a further channel of each region, and gives one
distribution over all anchors and sizes. It is trained on scenes of the split "train", by cross-entropy to the softmax
of each region's intersection over union (IoU) with the object's true box, which the drawn world knows; nothing is
inpainted. A fifth of these scenes decides when training stops, and which of four settings is taken.

log pi, standardised over the regions, is then added to the location score with a weight. The weight is chosen on
`--choice` validation requests of each kind, and the tables are of `--scenes` others of each kind. They have means with
95 % intervals, and differences to the three signs with standard errors (SE) that count requests of one scene as one.

FOLDER keeps what DINO and CLIP computed of each scene (about 0.7 MB a scene), so that the command can be repeated.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from location import is_clean
from torch import Tensor, nn

from maskless import Editor
from maskless.data.boxes import box_iou, corners, propose_regions, scale_to_grid
from maskless.data.config import ResolvedConfig
from maskless.data.types import Regions
from maskless.engine.run import resolved
from maskless.evaluation.methods.trials import truth_of
from maskless.evaluation.requests.jobs import CROWD, REQUESTS, Job, draw_jobs
from maskless.locating.location import Location, Proposals, _worth_encoding, locate, propose
from maskless.locating.view import PictureView
from maskless.method.anchor_net import POOLED, PROJECTED, frozen_projection, region_features, roi_align, standardised
from maskless.method.box_fitting import extend_fitted_box, fit_edges
from maskless.method.placed import best_different
from maskless.method.ranking import location_score
from maskless.storybook.judge import iou
from maskless.storybook.world.scenes import Scene, render, split_seed

TRAIN_OFFSET = 390_000_000
"""No model was trained on scenes of the split "train" from here on."""
CHOICE_OFFSET = 360_000
"""First validation scene of the requests that the weight is chosen on."""
WIDTHS, TEMPERATURES = ((8, 4, 4), (64, 16, 64)), (0.05, 0.1)
"""What is chosen on the kept training scenes: channels of the two convolutions and units of the hidden layer (the first
are AnchorNet's), and the temperature of the softmax of the IoU."""
WEIGHTS = (0.25, 0.5, 1.0, 2.0)
"""Weights of the further sign that are tried; those of `shown` and `focus` are 1."""
EPOCHS, PATIENCE, BATCH = 80, 12, 32
THREE, ALONE = (1.0, 0.0), (0.0, 1.0)
"""Weights of the location score and of log pi: as in the package, and log pi alone."""
FIGURES = ("IoU of the best square", "IoU of the first region", "at least 1/2", "clean", "best IoU of three")
WORDINGS = (
    "a {colour} {kind}", "a {colour} {kind}", "a {colour} {kind}", "the {kind}, which is {colour}",
    "some {kind} in {colour}", "one {colour} {kind} here", "the {colour} thing, a {kind}",
    "any {kind} with {colour} paint",
)  # fmt: skip
"""Captions of the training scenes. The paraphrases that the requests use are not among them."""


def view_of(
    editor: Editor, scene: Scene, captions: list[str], config: ResolvedConfig, folder: Path, *, fitted: bool
) -> PictureView:
    """A view that knows already what locating these captions needs, from a file in the folder if there is one.

    fitted: also what proposing regions needs. If not, CLIP encodes the crops of the relevance in bfloat16, in half of
    the time."""
    view = PictureView(editor.request(scene.image, caption=captions[0], prompt="a house").image, editor.models)
    path = folder / f"{scene.graph.detail_seed}.pt"
    names = ["features", "relevance crops", "salient parts", "crops", *(f"objects named {each}" for each in captions)]
    if path.exists():
        for name, value in torch.load(path, weights_only=False).items():
            view.cached(name, lambda kept=value: kept)  # type: ignore[misc]
        return view
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not fitted):
        assert view.relevance_crops.embeddings.dtype == torch.float32
    with torch.no_grad():
        for caption in captions:
            location = locate(view, caption, config)
            if fitted:
                propose(view, caption, location, config)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({name: view.cached(name, dict) for name in names}, part)
    part.rename(path)
    return view


def training_scenes() -> Iterator[tuple[Scene, list[str], list[tuple[int, int, int, int]]]]:
    """Scenes with up to three captions and the true boxes of what they name; every third scene is a crowded one."""
    taken = 0
    for index in itertools.count(TRAIN_OFFSET):
        seed = split_seed("train", index)
        scene, rng = render(seed), np.random.default_rng(seed)
        names = [(each.kind, each.colour) for each in scene.objects]
        unique = [each for each, name in zip(scene.objects, names, strict=True) if names.count(name) == 1]
        if not unique or (taken % 3 == 0 and len(scene.objects) < CROWD):
            continue
        taken += 1
        named = [unique[number] for number in rng.permutation(len(unique))[:3]]
        captions = [str(rng.choice(WORDINGS)).format(colour=each.colour, kind=each.kind) for each in named]
        yield scene, captions, [each.box_xyxy for each in named]


def jobs_by_scene(count: int, offset: int) -> dict[int, dict[str, Job]]:
    """The validation requests of each kind, by scene and kind."""
    found: dict[int, dict[str, Job]] = {}
    for requests in REQUESTS:
        for job in draw_jobs("replace", "validation", count, offset, requests=requests):
            found.setdefault(job.scene.graph.detail_seed, {})[requests] = job
    return found


def config_of(editor: Editor) -> ResolvedConfig:
    """The options of every request."""
    scene = render(split_seed("train", TRAIN_OFFSET))
    request = editor.request(scene.image, caption="a red car", prompt="a house", task="replace")
    return resolved(editor.config, request, editor.models)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One caption of a training scene. inputs: of the network. iou: of each region with the object's true box."""

    inputs: Tensor
    iou: Tensor


class AmortisedAnchorNet(nn.Module):
    """log pi over all K * M regions of a picture, for any number of pictures.

    The layers are AnchorNet's, but for their widths and one more channel of each region, its relevance to the caption.
    The softmax is over all anchors and sizes, because a placed search compares regions of different anchors.
    """

    def __init__(self, sizes: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, hidden = widths
        self.layers = nn.Sequential(
            nn.Conv2d((PROJECTED + 1) * sizes, first, 1),
            nn.ReLU(),
            nn.Conv2d(first, second, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * POOLED * POOLED, hidden),
            nn.ReLU(),
            nn.Linear(hidden, sizes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: [B, K, M * 13, 8, 8], from `inputs_of`. Returns [B, K * M]."""
        return self.layers(inputs.flatten(0, 1)).reshape(len(inputs), -1).log_softmax(dim=1)


def inputs_of(view: PictureView, location: Location, regions: Regions) -> Tensor:
    """AnchorNet's input (method step 4), and the relevance inside each region, [K, M * 13, 8, 8]."""
    assert location.relevance is not None
    boxes, anchors = regions.boxes_xyxy, len(location.anchors)
    features = view.features.features
    projection = frozen_projection(len(features))
    cells = scale_to_grid(boxes, view.size_yx, view.features.grid_yx)
    rows, columns = location.relevance.shape
    relevant = roi_align(location.relevance[None], scale_to_grid(boxes, view.size_yx, (rows, columns)))
    relevant = (relevant - relevant.mean()) / relevant.std().clamp(min=1e-6)
    pooled = standardised(region_features(features, cells, projection, anchors))
    return torch.cat([pooled, relevant.reshape(anchors, -1, POOLED, POOLED)], dim=1)


def train_samples(editor: Editor, config: ResolvedConfig, count: int, folder: Path) -> list[list[Sample]]:
    """The samples of each of the first `count` training scenes."""
    scenes = []
    for scene, captions, boxes in itertools.islice(training_scenes(), count):
        view = view_of(editor, scene, captions, config, folder, fitted=False)
        samples = []
        for caption, true_xyxy in zip(captions, boxes, strict=True):
            location = locate(view, caption, config)
            regions = propose_regions(location.anchors, config.sizes, view.size_yx)
            samples.append(
                Sample(inputs=inputs_of(view, location, regions), iou=box_iou(regions.boxes_xyxy, true_xyxy))
            )
        scenes.append(samples)
        print(f"training scene {len(scenes)}/{count}", file=sys.stderr)
    return scenes


def trained(
    learnt: list[Sample], kept: list[Sample], widths: tuple[int, int, int], temperature: float, seed: int = 0
) -> tuple[AmortisedAnchorNet, float]:
    """The network of the epoch whose first regions have the highest mean IoU on the kept samples, and this IoU."""
    torch.manual_seed(seed)
    inputs, overlaps = torch.stack([each.inputs for each in learnt]), torch.stack([each.iou for each in learnt])
    kept_inputs, kept_overlaps = torch.stack([each.inputs for each in kept]), torch.stack([each.iou for each in kept])
    net = AmortisedAnchorNet(len(overlaps[0]) // inputs.shape[1], widths)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    targets = (overlaps / temperature).softmax(dim=1)
    best, best_weights, waited = -math.inf, net.state_dict(), 0
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            batch = inputs[chosen]
            if float(torch.rand(())) < 0.5:
                batch = batch.flip(-1)  # a mirrored picture has the same overlaps
            loss = -(targets[chosen] * net(batch)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            first = net(kept_inputs).argmax(dim=1)
        value = float(kept_overlaps.gather(1, first[:, None]).mean())
        if value > best:
            best, waited = value, 0
            best_weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        waited += 1
        if waited > PATIENCE:
            break
    net.load_state_dict(best_weights)
    return net.eval(), best


def propose_with(
    view: PictureView,
    caption: str,
    location: Location,
    config: ResolvedConfig,
    log_pi: Tensor,
    weights: tuple[float, float],
) -> tuple[Proposals, int]:
    """`propose`, with log pi as a further sign where squares are compared, and the cell of the best square.

    weights: of the location score, and of log pi in standard deviations. Edges are fitted by the location score alone,
    because pi is a distribution over squares.
    """
    regions = propose_regions(location.anchors, config.sizes, view.size_yx)
    boxes, outline = regions.boxes_xyxy.clone(), location.outline_xyxy
    further = weights[1] * (log_pi - log_pi.mean()) / log_pi.std(correction=0)
    cheap = view.location_signs(boxes, caption, outline_xyxy=outline, encode=False)
    score = weights[0] * location_score(cheap) + further
    encoded = _worth_encoding(score, boxes)
    signs = view.location_signs(boxes[encoded], caption, outline_xyxy=outline)
    by_signs = location_score(signs)
    together = weights[0] * by_signs + further[encoded]
    score = score - score.max() + together.min()
    score[encoded] = together
    best = int(score.argmax())

    def score_among(moved: Tensor) -> Tensor:
        return location_score(view.location_signs(moved, caption, outline_xyxy=outline), among=signs)

    def cheap_score(moved: Tensor) -> Tensor:
        return location_score(view.location_signs(moved, caption, outline_xyxy=outline, encode=False), among=cheap)

    start = float(by_signs[encoded == best][0])
    fitted, reached = fit_edges(corners(boxes[best]), start, score_among, view.size_yx, cheap_score=cheap_score)
    score[best] += reached - start
    boxes[best] = torch.tensor(extend_fitted_box(fitted, outline, view.size_yx))
    return Proposals(regions=replace(regions, boxes_xyxy=boxes), score=score), best


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One validation request. log_pi: of each region."""

    job: Job
    kind: str
    view: PictureView
    location: Location
    log_pi: Tensor

    def figures(self, config: ResolvedConfig, weights: tuple[float, float]) -> list[float]:
        """The FIGURES with these weights of `propose_with`."""
        truth, caption = truth_of(self.job), self.job.caption
        squares = propose_regions(self.location.anchors, config.sizes, self.view.size_yx).boxes_xyxy
        proposals, best = propose_with(self.view, caption, self.location, config, self.log_pi, weights)
        boxes = proposals.regions.boxes_xyxy
        if weights == THREE:  # these are the package's own proposals
            assert torch.equal(boxes, propose(self.view, caption, self.location, config).regions.boxes_xyxy)
        overlaps = [iou(corners(boxes[cell]), truth) for cell in best_different(proposals.score, boxes, 3)]
        clean = is_clean(corners(boxes[best]), self.job.scene, truth)
        return [iou(corners(squares[best]), truth), overlaps[0], overlaps[0] >= 0.5, clean, max(overlaps)]


def requests_of(
    editor: Editor, config: ResolvedConfig, net: AmortisedAnchorNet, count: int, offset: int, folder: Path
) -> list[Request]:
    """`count` validation requests of each kind."""
    requests = []
    for jobs in jobs_by_scene(count, offset).values():
        captions = sorted({job.caption for job in jobs.values()})
        scene = next(iter(jobs.values())).scene
        view = view_of(editor, scene, captions, config, folder, fitted=True)
        for kind, job in jobs.items():
            location = locate(view, job.caption, config)
            regions = propose_regions(location.anchors, config.sizes, view.size_yx)
            with torch.no_grad():
                log_pi = net(inputs_of(view, location, regions)[None])[0]
            requests.append(Request(job=job, kind=kind, view=view, location=location, log_pi=log_pi))
        print(f"{len(requests)}/{count * len(REQUESTS)} validation requests", file=sys.stderr)
    return requests


def mean_and_error(values: Tensor, scenes: Tensor) -> tuple[float, float]:
    """The mean of one value a request and its standard error, for which requests of the same scene are one."""
    mean = values.mean()
    sums = torch.zeros(int(scenes.max()) + 1, dtype=values.dtype).index_add(0, scenes, values - mean)
    groups = len(scenes.unique())
    return float(mean), math.sqrt(float(sums.square().sum()) * groups / max(groups - 1, 1)) / len(values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The FIGURES of one request, for each of some weights of `propose_with`. scene: what identifies its scene."""

    kind: str
    scene: int
    figures: dict[tuple[float, float], list[float]]


def rows_of(config: ResolvedConfig, requests: list[Request], ways: list[tuple[float, float]]) -> list[Row]:
    """A row for each request."""
    return [
        Row(
            kind=each.kind,
            scene=each.job.scene.graph.detail_seed,
            figures={weights: each.figures(config, weights) for weights in ways},
        )
        for each in requests
    ]


def best_weight(rows: list[Row]) -> float:
    """The one of WEIGHTS with the highest mean IoU of the first region, after printing these means."""
    means = {weight: sum(row.figures[1.0, weight][1] for row in rows) / len(rows) for weight in (0.0, *WEIGHTS)}
    print("IoU of the first region by weight:", ", ".join(f"{weight:g}: {mean:.3f}" for weight, mean in means.items()))
    return max(WEIGHTS, key=means.__getitem__)


def print_report(rows: list[Row], weight: float) -> None:
    """The tables: each way of scoring for each kind of request, and the differences to the three signs."""
    ways = {THREE: "three signs", ALONE: "pi alone", (1.0, weight): f"three signs + {weight:g} pi"}
    values = {way: torch.tensor([row.figures[way] for row in rows], dtype=torch.float64) for way in ways}
    number_of: dict[int, int] = {}
    scenes = torch.tensor([number_of.setdefault(row.scene, len(number_of)) for row in rows])
    print(f"\n| requests | squares compared by | {' | '.join(FIGURES)} |\n|---|---|{'---:|' * len(FIGURES)}")
    for kind in (*REQUESTS, "all"):
        those = torch.tensor([kind in (row.kind, "all") for row in rows])
        for way, name in ways.items():
            cells = [mean_and_error(column[those], scenes[those]) for column in values[way].T]
            line = " | ".join(f"{mean:.3f} ± {1.96 * error:.3f}" for mean, error in cells)
            print(f"| {kind} ({int(those.sum())}) | {name} | {line} |")
            if way != THREE:
                pairs = [mean_and_error(column[those], scenes[those]) for column in (values[way] - values[THREE]).T]
                print(f"| | difference | {' | '.join(f'{mean:+.3f} (SE {error:.3f})' for mean, error in pairs)} |")


def main() -> None:
    """Read the command line, train, choose the weight, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--choice", type=int, default=30)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--offset", type=int, default=370_000, help="first validation scene of the tables")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    editor = Editor.from_pretrained("storybook")
    config = config_of(editor)
    scenes = train_samples(editor, config, options.train, options.cache / "train")
    learnt = [sample for number, scene in enumerate(scenes) for sample in scene if number % 5]
    kept = [sample for number, scene in enumerate(scenes) for sample in scene if not number % 5]
    ceiling = sum(float(each.iou.max()) for each in kept) / len(kept)
    print(
        f"{len(learnt)} captions to learn from, {len(kept)} kept; the best square of these has an IoU of {ceiling:.3f}"
    )
    best, net = -math.inf, None
    for widths, temperature in itertools.product(WIDTHS, TEMPERATURES):
        candidate, value = trained(learnt, kept, widths, temperature, options.seed)
        parameters = sum(each.numel() for each in candidate.parameters())
        print(f"widths {widths} ({parameters} parameters), temperature {temperature}: {value:.3f} kept", flush=True)
        if value > best:
            best, net = value, candidate
    assert net is not None
    folder = options.cache / "validation"
    choice = requests_of(editor, config, net, options.choice, CHOICE_OFFSET, folder)
    weight = best_weight(rows_of(config, choice, [(1.0, each) for each in (0.0, *WEIGHTS)]))
    requests = requests_of(editor, config, net, options.scenes, options.offset, folder)
    print_report(rows_of(config, requests, [THREE, ALONE, (1.0, weight)]), weight)


if __name__ == "__main__":
    main()
