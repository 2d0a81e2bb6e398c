#!/bin/sh
# Fetches SwiftShader, a Vulkan driver in software, for the tests of the GPU path on machines without a GPU.
#
# Debian's chromium-common carries it, and a Vulkan loader. Nothing is installed: the package is unpacked into
# build/swiftshader. Does nothing where the package is installed or was unpacked before.
set -eu
cd "$(dirname "$0")/.."
folder=build/swiftshader
library=usr/lib/chromium/libvk_swiftshader.so

if [ -e "/$library" ] || [ -e "$folder/$library" ]; then exit 0; fi
command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || exit 1
rm -rf "$folder.part"
mkdir -p "$folder.part"
(
    cd "$folder.part"
    apt-get download -qq chromium-common 2>/dev/null || { apt-get update -qq && apt-get download -qq chromium-common; }
    dpkg-deb --fsys-tarfile chromium-common_*.deb | tar -x --wildcards './usr/lib/chromium/*vulkan.so.1' './usr/lib/chromium/*vk_swiftshader*'
    rm -f chromium-common_*.deb
    [ -e "$library" ]
) >&2 || { rm -rf "$folder.part"; exit 1; }
rm -rf "$folder"
mv "$folder.part" "$folder"
