"""SAM 2: masks from boxes and points, in pictures and through videos (arXiv 2408.00714).

The networks are those of `transformers`; weights are a local folder, the same for pictures and videos. In the data
pipeline of arXiv 2410.13830 the picture model plays SAM's role and the video model DEVA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .folder import SAM2, LocalModel, Place, Progress, check_frames, library, load_network, stay
from .prompt import Prompt

#: Mean and standard deviation of the pictures that the networks were trained on (ImageNet's).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Pictures per pass; each needs about half a GB at the published models' 1024 pixels (estimated).
BATCH = 4


class Segmenter(LocalModel):
    """Cuts out what a box or points mark in a picture."""

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32, place: Place = stay) -> Segmenter:
        """The model of a local folder. Raises ValueError with what is missing or wrong, never downloads."""
        # The config of the video model holds all of the picture model's, under another class's name.
        return cls(load_network(SAM2, Path(folder), "Sam2Config", "Sam2Model"), dtype, place)

    def segment(
        self, frames: Tensor, prompts: Sequence[Prompt], batch: int = BATCH, progress: Progress | None = None
    ) -> Tensor:
        """The mask of what each prompt marks: bool [F, H, W].

        frames: [F, H, W, 3], 0..1. prompts: one per frame. batch: pictures per pass.
        Raises ValueError for frames without pixels or outside 0..1 and for another number of prompts.
        """
        frames = check_frames(frames, "picture")
        if len(prompts) != len(frames):
            raise ValueError(f"There are {len(prompts)} prompts for {len(frames)} pictures; give one per picture.")
        size = image_size(self.network)
        masks: list[Tensor] = []
        with self.running() as device:
            for start, stop in _batches(prompts, batch):
                points, labels = zip(*(_as_points(p, size) for p in prompts[start:stop]), strict=True)
                out = self.network(
                    pixel_values=torch.stack([prepare(frame, size) for frame in frames[start:stop]]).to(device),
                    input_points=torch.cat(points).to(device),
                    input_labels=torch.cat(labels).to(device),
                    # A single point may mean a part or the whole: three masks, of which the best is taken.
                    multimask_output=len(labels[0][0, 0]) == 1,
                )
                best = out.iou_scores[:, 0].float().argmax(-1)  # [f]
                logits = out.pred_masks[torch.arange(stop - start, device=device), 0, best]  # [f, h, w]
                masks.append(_full_size(logits[:, None], frames.shape[1], frames.shape[2])[:, 0])
                if progress:
                    progress(stop, len(frames))
        return torch.cat(masks)


class VideoSegmenter(LocalModel):
    """Follows through a video what a box, points or a mask mark in its first frame."""

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32, place: Place = stay) -> VideoSegmenter:
        """The model of a local folder. Raises ValueError with what is missing or wrong, never downloads."""
        return cls(load_network(SAM2, Path(folder), "Sam2VideoConfig", "Sam2VideoModel"), dtype, place)

    def track(self, frames: Tensor, start: Prompt | Tensor, progress: Progress | None = None) -> Tensor:
        """The subject's mask in every frame: bool [F, H, W], empty where it is not visible.

        frames: [F, H, W, 3], 0..1. start: where the subject is in the first frame, a prompt or its mask [H, W] (above
        0.5 is the subject). Memory does not grow with the number of frames, besides the masks.
        Raises ValueError for frames without pixels or outside 0..1, and for a mask of another size or empty.
        """
        frames = check_frames(frames)
        height, width = frames.shape[1:3]
        size = image_size(self.network)
        masks = torch.zeros(len(frames), height, width, dtype=torch.bool)
        with self.running() as device:
            session = self._session(frames, device)
            # A registered object of the session; its number is never seen.
            subject = session.obj_id_to_idx(1)
            if isinstance(start, Prompt):
                points, labels = _as_points(start, size)
                session.add_point_inputs(subject, 0, {"point_coords": points, "point_labels": labels})
            else:
                session.add_mask_inputs(subject, 0, _first_mask(start, height, width, size))
            session.obj_with_new_inputs = [1]
            config = self.network.config
            memory = max(config.num_maskmem, config.max_object_pointers_in_encoder)
            tracked = session.output_dict_per_obj[subject]["non_cond_frame_outputs"]
            for t in range(len(frames)):
                out = self.network(inference_session=session, frame_idx=t)
                masks[t] = _full_size(out.pred_masks, height, width)[0, 0]
                tracked.pop(t - memory, None)  # what no later frame looks back to
                if progress:
                    progress(t + 1, len(frames))
        return masks

    def _session(self, frames: Tensor, device: torch.device) -> Any:
        library(SAM2, "Sam2VideoModel")
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        session: Any = Sam2VideoInferenceSession(
            video_height=frames.shape[1], video_width=frames.shape[2], inference_device=device,
            inference_state_device=device, video_storage_device="cpu", dtype=torch.float32,
        )  # fmt: skip
        # The session would hold the whole video at the network's size (12 MB a frame): frames are made when asked for.
        session.processed_frames = PreparedFrames(frames, image_size(self.network))
        return session


class PreparedFrames:
    """A video [F, H, W, 3] as the list of frames [3, size, size] that the network reads, each made when asked for."""

    def __init__(self, frames: Tensor, size: int):
        self.frames, self.size = frames, size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Tensor:
        return prepare(self.frames[index], self.size)


def image_size(network: Any) -> int:
    """Side in pixels of the square picture that the network reads."""
    return int(network.config.prompt_encoder_config.image_size)


def prepare(frame: Tensor, size: int) -> Tensor:
    """[H, W, 3] in 0..1 -> [3, size, size], stretched to the square and normalised, as the published models want it."""
    chw = frame.permute(2, 0, 1)[None].float()
    square = F.interpolate(chw, (size, size), mode="bilinear", antialias=True)[0]
    return (square - square.new_tensor(MEAN).view(3, 1, 1)) / square.new_tensor(STD).view(3, 1, 1)


def _as_points(prompt: Prompt, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates [1, 1, P, 2] in pixels of the network's square, and labels [1, 1, P].

    SAM reads a box as its two corners, labelled 2 and 3; 1 is a point on the subject, 0 one beside it.
    """
    marked = [(point, 1) for point in prompt.points] + [(point, 0) for point in prompt.outside]
    if prompt.box is not None:
        marked = [(prompt.box[:2], 2), (prompt.box[2:], 3), *marked]
    points, labels = zip(*marked, strict=True)
    return torch.tensor([[points]]) * size, torch.tensor([[labels]], dtype=torch.int32)


def _batches(prompts: Sequence[Prompt], batch: int) -> list[tuple[int, int]]:
    """(start, stop) of runs of at most `batch` prompts with the same number of points.

    Prompts of different length could only share a pass with padding, which the network's attention notices.
    """
    counts = [2 * (p.box is not None) + len(p.points) + len(p.outside) for p in prompts]
    starts = [0]
    for i in range(1, len(prompts)):
        if counts[i] != counts[i - 1] or i - starts[-1] == batch:
            starts.append(i)
    return list(zip(starts, [*starts[1:], len(prompts)], strict=True))


def _first_mask(mask: Tensor, height: int, width: int, size: int) -> Tensor:
    """[H, W] -> [1, 1, size, size], 0 or 1."""
    if tuple(mask.shape) != (height, width):
        raise ValueError(
            f"The mask of the first frame has shape {list(mask.shape)} [height, width] but the video is {height} high "
            f"and {width} wide; connect a mask of the same video."
        )
    inside = (mask > 0.5).float()[None, None]
    if not bool(inside.any()):
        raise ValueError("The mask of the first frame is empty (nothing above 0.5); mark the subject with 1.")
    return (F.interpolate(inside, (size, size), mode="bilinear", antialias=True) >= 0.5).float()


def _full_size(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits [N, 1, h, w] of the stretched square -> masks bool [N, 1, height, width] on the CPU."""
    return (F.interpolate(logits.float(), (height, width), mode="bilinear") > 0).cpu()
