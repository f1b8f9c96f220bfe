"""SIMPLER's WidowX tasks (Li et al. 2024) on ManiSkill 3's digital twins.

protocols       pictures, judgement and horizons of published loops, as data
suites          the four tasks: names, sentences, horizons; starts no simulator
assets          where meshes and photographs lie, and whether they are stand-ins
download        official assets, with checksum, progress and resume
vulkan          a GPU's driver, else SwiftShader
startup         ManiSkill, imported when it is needed
shading         a shader that leaves alone what the photograph covers
pictures        the photograph behind what was drawn
stage           one task: physics, the success predicate and what is sensed
environment     the Gymnasium environment
fingerprint     the physics and the pixels that two runs must share
diagnosis       what `vla-bench doctor` should know
commands        `vla-bench simpler-fetch`
experts         scripted experts of the four tasks
demonstrations  where the experts' demonstrations start, and what plays them
registration    names for Gymnasium
"""

from vla_bench_envs.simpler.protocols import PROTOCOLS
from vla_bench_envs.simpler.suites import SUITES

__all__ = ["PROTOCOLS", "SUITES"]
