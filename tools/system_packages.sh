#!/usr/bin/env bash
# Install the Debian packages for software rendering and virtual environments, as root; otherwise say what is missing.
# A browser, for the tests of the leaderboard's page and for SIMPLER's pictures where there is no GPU (it brings
# SwiftShader), is installed too or asked for, and nothing fails without it.
set -euo pipefail

missing=()
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
has_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }
has_library libEGL.so.1 || missing+=(libegl1)
has_library libEGL_mesa.so.0 || has_library libEGL_nvidia.so.0 || missing+=(libegl-mesa0)
has_library libGL.so.1 || missing+=(libgl1)
has_library libOpenGL.so.0 || missing+=(libopengl0)
compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || has_library libgallium || has_library libEGL_nvidia.so.0 ||
    missing+=(libgl1-mesa-dri)
has_library libglib-2.0.so.0 || missing+=(libglib2.0-0) # OpenCV, which robosuite imports
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)

add_browser() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && return
    if ((EUID == 0)) && command -v apt-get >/dev/null && apt-get update -qq && install chromium; then return; fi
    echo "vla-bench: found no browser: tests of the leaderboard's page will be skipped, and SIMPLER has no SwiftShader to draw with" >&2
    echo "           where there is no GPU; for both, install chromium" >&2
}
if ((${#missing[@]} == 0)); then
    add_browser
    exit 0
fi
if [[ $(uname -s) != Linux ]] || ! command -v apt-get >/dev/null; then
    echo "vla-bench: found no ${missing[*]} (names of Debian); install their counterparts, then run make again" >&2
    exit 1
fi
if ((EUID != 0)); then
    echo "vla-bench: system packages are missing; run: sudo apt-get install ${missing[*]}" >&2
    echo "           then run make again" >&2
    exit 1
fi
echo "installing ${missing[*]}"
apt-get update -qq
install "${missing[@]}"
add_browser
