"""A shader that leaves alone what the photograph will cover: most of a picture is table, drawn and then thrown away.

Such surfaces still hide what is behind them, so robot and objects keep every pixel; their colour is not computed. They
are drawn in a pass of their own, by a copy of SAPIEN's shaders that is made at run time. One shader for all surfaces,
with a loop that is not entered where nothing will be seen, saved 7 % of the processor's time; the pass saves 74 %.
"""

import atexit
import shutil
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SHADED = "minimal"
"""The shader pack of which there is such a copy; `default` computes light afterwards, from pictures of the scene."""

COVERED = 1
"""Objects of this shading mode are drawn by `gbuffer1`, after those of mode 0 by `gbuffer`."""

_MAIN = "void main() {\n"

_NO_COLOUR = f"""{_MAIN}  outColorRaw = vec4(0, 0, 0, 1);
  outPositionSegmentation = ivec4(0, 0, 0, inSegmentation[1]);
}}
"""
"""What is left of a fragment: that it is there, and of which segment."""


def shader_config(shader: str, in_two_passes: bool = True) -> Any:
    """Return ManiSkill's configuration of a shader pack, drawing in two passes if that is wanted of `minimal`."""
    shaders = import_module("mani_skill.render.shaders")
    plain = shaders.PREBUILT_SHADER_CONFIGS[shader]
    if shader != SHADED or not in_two_passes:
        return plain
    return shaders.ShaderConfig(
        shader_pack=str(_pack()), texture_names=plain.texture_names, texture_transforms=plain.texture_transforms
    )


def set_picture_formats(simulator: Any) -> None:
    """Make SAPIEN's pictures as for `minimal`, which ManiSkill knows by that name alone; before cameras are made."""
    if not _draws_in_two_passes(simulator):
        return
    render = import_module("sapien.render")
    render.set_picture_format("Color", "r8g8b8a8unorm")
    render.set_picture_format("ColorRaw", "r8g8b8a8unorm")
    render.set_picture_format("PositionSegmentation", "r16g16b16a16sint")


def mark_covered(simulator: Any) -> None:
    """Draw in the second pass what is no segment that is shown; must be done for every scene that is built."""
    if not _draws_in_two_passes(simulator):
        return
    shown = set(simulator._segmentation_ids_to_keep.tolist())
    body = import_module("sapien.render").RenderBodyComponent
    for entity in simulator.scene.sub_scenes[0].entities:
        found = entity.find_component_by_type(body)
        if found is not None and entity.per_scene_id not in shown:
            for drawn in found._internal_node.children:
                drawn.shading_mode = COVERED


def _draws_in_two_passes(simulator: Any) -> bool:
    return simulator._custom_sensor_configs["shader_config"].shader_pack == str(_pack())


@cache
def _pack() -> Path:
    """Return the copy of SAPIEN's shaders; it lasts as long as the process."""
    source = Path(import_module("sapien").__file__ or "").parent / "vulkan_shader"
    folder = Path(mkdtemp(prefix="vla-bench-shaders-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("common", SHADED):  # the latter includes the former by its relative path
        shutil.copytree(source / name, folder / name)
    pack = folder / SHADED
    shutil.copy(pack / "gbuffer.vert", pack / "gbuffer1.vert")
    declared, main, _ = (pack / "gbuffer.frag").read_text().partition(_MAIN)
    assert main, "SAPIEN's version is pinned, and so is this line of its shaders"
    (pack / "gbuffer1.frag").write_text(declared + _NO_COLOUR)
    return pack
