"""What a user of SIMPLER can cause: what was found, what was expected, what to do."""

from collections.abc import Iterable

from vla_bench.errors import VlaBenchError


class MissingSimulatorError(VlaBenchError):
    """Report that ManiSkill or something below it cannot be imported."""

    def __init__(self, cause: ImportError) -> None:
        super().__init__(
            f"SIMPLER needs {cause.name or 'mani_skill'!r}, which cannot be imported ({cause}): "
            f"pip install 'vla-bench[simpler]'"
        )


class SimulatorVersionError(VlaBenchError):
    """Refuse a simulator whose version is not the protocol's."""

    def __init__(self, package: str, found: str, expected: str) -> None:
        super().__init__(
            f"{package} {found} is installed, the suite is defined on {expected} (physics and pixels move with it, see "
            f"docs/simpler.md): pip install '{package}=={expected}'"
        )


class MissingVulkanError(VlaBenchError):
    """Report that SAPIEN finds nothing to draw with."""

    def __init__(self, cause: object, driver: str) -> None:
        tried = f"VK_ICD_FILENAMES={driver!r}" if driver else "no driver named, and no SwiftShader found"
        super().__init__(
            f"SAPIEN cannot draw ({cause}; {tried}): install a GPU's Vulkan driver, or for drawing without a GPU "
            f"SwiftShader ('apt-get install chromium' on Debian brings it), or name a driver's JSON file in "
            f"VK_ICD_FILENAMES; Mesa's lavapipe is refused by SAPIEN"
        )


class MissingAssetsError(VlaBenchError):
    """Report that meshes or photographs are not where ManiSkill looks for them."""

    def __init__(self, folder: object, missing: Iterable[str]) -> None:
        super().__init__(
            f"{folder} lacks {', '.join(missing)}: run 'vla-bench simpler-fetch', or set MS_ASSET_DIR to the folder "
            f"above a 'data' folder that has them"
        )


class OtherAssetsError(VlaBenchError):
    """Refuse a protocol that says something else about the assets than what lies there."""

    def __init__(self, protocol: str, expected: str, found: str) -> None:
        super().__init__(
            f"the protocol {protocol!r} is for {expected} assets and MS_ASSET_DIR holds {found} ones: take the "
            f"protocol from the suite ('vla-bench list'), or set MS_ASSET_DIR"
        )


class DownloadError(VlaBenchError):
    """Report a download that did not come or is not what it should be; what came is kept for the next try."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url}: {problem}: run 'vla-bench simpler-fetch' again, which goes on where it stopped")
