"""DreamVideo-2 for ComfyUI: one subject along one path of boxes."""

from comfy_api.latest import ComfyExtension, io

from .nodes.host.files import offer_examples, register_folders

register_folders()  # before the nodes list their files
offer_examples()

from .nodes import (  # noqa: E402
    adherence,
    box_files,
    box_sources,
    boxes,
    editor,
    load,
    patch,
    sample,
    segment,
    subject,
)

WEB_DIRECTORY = "./web"


class DreamVideo2(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (load, subject, segment, boxes, box_sources, box_files, editor, patch, sample, adherence)
        return [node for module in modules for node in module.NODES]


async def comfy_entrypoint() -> ComfyExtension:
    return DreamVideo2()
