#!/usr/bin/env bash
# Brings the software GPU drivers that the tests use, on Debian and Ubuntu:
#   tree    Mesa 26, from Debian's testing suite: unpacked into the cache and used through its own loader and libc,
#           so it needs no root and installs nothing
#   native  the distribution's Mesa as packages (Debian 12: from its backports), which needs root
#   amd     RADV of the native Mesa, as far as that compiles for cards that are not there: up to Mesa 25
# Usage: drivers.sh                            bring both, write CACHE/env.sh
#        drivers.sh tree|native|amd COMMAND    the same, then run COMMAND (cargo test, say) on that driver
# Exit:  0 both are there; 3 one can't be had on this system (stderr says why); else a failure, as of the network.
# CACHE: $GRISTMILL_CACHE, else $XDG_CACHE_HOME/gristmill, else ~/.cache/gristmill. Remove it for newer drivers.
set -euo pipefail

say() { echo "drivers: $*" >&2; }

cache=${GRISTMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
case $cache in *[[:space:]]*) say "set GRISTMILL_CACHE to a path without spaces: cargo splits a runner there" && exit 1 ;; esac
tree=$cache/mesa-tree
work=$cache/tmp
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi # two runs at once would build the same tree
trap 'rm -rf "$work"' EXIT

packages=(mesa-vulkan-drivers libvulkan1 libegl1 libegl-mesa0 libgl1-mesa-dri libgles2)
id='' codename=''
if [ -r /etc/os-release ]; then
  id=$(. /etc/os-release && echo "${ID:-} ${ID_LIKE:-}")
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
fi
case " $id " in *" debian "* | *" ubuntu "*) command -v apt-get >/dev/null && apt=1 ;; esac
as_root() { [ "$(id -u)" = 0 ]; }

apt_install() { # [-t SUITE] PACKAGE...
  local try
  for try in 1 2 3; do
    if { apt-get -qq update &&
      DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 install "$@"; } \
      </dev/null >"$cache/apt.log" 2>&1; then
      return
    fi
    tail -n20 "$cache/apt.log" >&2
    say "apt-get install $* failed (try $try)"
    sleep 5
  done
  return 1
}

# Writes DIR/SUITE.sources or .list: this machine's own Debian entry with the suite replaced, so that whatever mirror
# and key are configured here serve. Fails if there is none.
entry() { # SUITE DIR
  local file text
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    text=$(awk -v RS= -v new="$1" -v names="$codename oldstable stable testing unstable sid" '
      BEGIN { n = split(names, list, " "); for (i = 1; i <= n; i++) known[list[i]] = 1 }
      { gsub(/(^|\n)#[^\n]*/, ""); sub(/^\n/, "") }
      /(^|\n)Types:[^\n]*deb([ \t\n]|$)/ && !/(^|\n)Enabled:[ \t]*no/ && match($0, /(^|\n)Suites:[^\n]*/) {
        n = split(substr($0, RSTART, RLENGTH), suites, /[ \t\n]+/)
        for (i = 1; i <= n; i++) if (suites[i] in known) {
          sub(/Types:[^\n]*/, "Types: deb"); sub(/Suites:[^\n]*/, "Suites: " new)
          sub(/Components:[^\n]*/, "Components: main"); print; exit
        }
      }' "$file")
    if [ -n "$text" ]; then
      echo "$text" >"$2/$1.sources"
      return
    fi
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    text=$(awk -v new="$1" -v names="$codename oldstable stable testing unstable sid" '
      BEGIN { n = split(names, list, " "); for (i = 1; i <= n; i++) known[list[i]] = 1 }
      $1 == "deb" {
        uri = 2
        if ($2 ~ /^\[/) while (uri < NF && $(uri++) !~ /\]$/);
        if ($(uri + 1) in known) { for (i = 1; i <= uri; i++) printf "%s ", $i; print new, "main"; exit }
      }' "$file")
    if [ -n "$text" ]; then
      echo "$text" >"$2/$1.list"
      return
    fi
  done
  return 1
}

# Not Debian itself: the mirror that debootstrap has for Debian, and Debian's keys.
foreign_entry() { # SUITE DIR
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg mirror
  if ! [ -e "$keys" ] || ! command -v debootstrap >/dev/null; then
    as_root && apt_install debootstrap debian-archive-keyring
  fi
  mirror=$(grep -hoE 'https?://[^" ]+/debian\b' "$(command -v debootstrap)" /usr/share/debootstrap/scripts/sid | head -n1)
  [ -e "$keys" ] && [ -n "$mirror" ] && echo "deb [signed-by=$keys] $mirror $1 main" >"$2/$1.list"
}

# The closure of the packages, with an apt of its own that believes nothing is installed.
unpack() { # SUITE
  local deb arch options lib loader
  rm -rf "$work"
  mkdir -p "$work"/{parts,lists/partial,cache/archives/partial,tree}
  : >"$work/status"
  case " $id " in
    " debian "*) entry "$1" "$work/parts" || foreign_entry "$1" "$work/parts" || return ;;
    *) foreign_entry "$1" "$work/parts" || return ;;
  esac
  arch=$(dpkg --print-architecture)
  options=(-qq -y -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::Etc::preferences=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o APT::Default-Release= -o APT::Architectures="$arch" -o Dir::State::lists="$work/lists"
    -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Install-Recommends=false
    -o APT::Sandbox::User="$(id -un)" -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  apt-get "${options[@]}" -o APT::Update::Error-Mode=any update >&2 &&
    apt-get "${options[@]}" install --download-only "${packages[@]}" >&2 || return
  for deb in "$work"/cache/archives/*.deb; do
    dpkg -x "$deb" "$work/tree" || return
  done
  # No part of it may be missing: that would show only as an adapter that isn't there.
  lib=$(echo "$work"/tree/usr/lib/*-linux-gnu)
  loader=$(echo "$lib"/ld-linux-*.so.*)
  for lib in "$lib"/{libvulkan_lvp.so,libEGL_mesa.so.0}; do
    "$loader" --library-path "${lib%/*}" --list "$lib" >"$work/list" 2>&1 || { cat "$work/list" >&2; return 1; }
  done
  dpkg-deb -f "$work"/cache/archives/mesa-vulkan-drivers_*.deb Version >"$work/tree/version" || return
  rm -rf "$tree"
  mv "$work/tree" "$tree" # whole or not at all
}

bring_tree() {
  local suite
  [ -e "$tree/version" ] && return
  say "unpacking Debian's newest Mesa into $tree"
  for suite in testing testing unstable; do # testing can be in the middle of a transition
    unpack "$suite" && return
    say "could not unpack Mesa from Debian $suite"
    sleep 5
  done
  return 1
}

native_version() { # empty if a package is missing, or if Mesa is Debian 12's own (22.3), which is too old
  local version
  [ "$(dpkg-query -W -f='${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed)" -ge ${#packages[@]} ] || return 0
  for version in $(dpkg-query -W -f='${Version}\n' libgl1-mesa-dri mesa-vulkan-drivers); do
    dpkg --compare-versions "$version" ge 23 || return 0
  done
  echo "$version"
}

bring_native() {
  [ -z "$(native_version)" ] || return 0
  say "installing ${packages[*]}"
  if [ "$codename" = bookworm ]; then
    mkdir -p "$work"
    # shellcheck disable=SC2016 # apt's own format, not a shell's
    if ! apt-get indextargets --format '$(RELEASE)' | grep -x bookworm-backports >/dev/null; then
      entry bookworm-backports "$work" || { say "no Debian entry in apt's sources to copy for bookworm-backports"; return 1; }
      for file in "$work"/bookworm-backports.*; do
        cp "$file" "/etc/apt/sources.list.d/gristmill-${file##*/}"
      done
    fi
    apt_install -t bookworm-backports "${packages[@]}"
  else
    apt_install "${packages[@]}"
  fi
}

missing=0 native=()
if [ -z "${apt:-}" ]; then
  say "only Debian and Ubuntu are set up by this script: install Mesa's lavapipe and its EGL (24 or newer) from this system's packages"
  missing=1
else
  if [ ! -e "$tree/version" ] && [[ " $id " != " debian "* ]] && ! as_root && ! command -v debootstrap >/dev/null; then
    say "for the Mesa 26 tree, install debootstrap and debian-archive-keyring, or run this as root"
    missing=1
  else
    bring_tree
  fi
  if [ -z "$(native_version)" ] && ! as_root; then
    say "not root: install ${packages[*]}$([ "$codename" != bookworm ] || echo ' from bookworm-backports') for the native run"
    missing=1
  else
    bring_native
  fi
fi

native_mesa=${apt:+$(native_version)}

icd() { # LIBRARY FILE: a driver's manifest. A full path, so that a program outside the tree fails on it, loudly
  echo "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"api_version\": \"1.4.0\", \"library_path\": \"$1\"}}" >"$2.$$"
  mv "$2.$$" "$2"
}

# What each driver needs in its environment. Compiled shaders are kept, in a folder of its own for each Mesa, processor
# and vector width: Mesa's own key lacks the width. LIBGL_ALWAYS_SOFTWARE: no real GPU through GL.
{
  cat <<EOF
tree=() native=() amd=()
shaders() {
  echo "$cache/shaders/mesa-\$1-\$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo | cksum | cut -d' ' -f1)-\${LP_NATIVE_VECTOR_WIDTH:-auto}"
}
EOF
  if [ -e "$tree/version" ]; then
    lib=$(echo "$tree"/usr/lib/*-linux-gnu)
    icd "$lib/libvulkan_lvp.so" "$cache/lavapipe.json"
    icd "$lib/libEGL_mesa.so.0" "$cache/egl.json"
    triple=$(basename "$lib" | tr '[:lower:]-' '[:upper:]_')
    cat <<EOF
tree=(
  "CARGO_TARGET_${triple/_LINUX/_UNKNOWN_LINUX}_RUNNER=$(echo "$lib"/ld-linux-*.so.*) --library-path $lib"
  "VK_DRIVER_FILES=$cache/lavapipe.json" "VK_ICD_FILENAMES=$cache/lavapipe.json" "VK_LOADER_LAYERS_DISABLE=~implicit~"
  "__EGL_VENDOR_LIBRARY_FILENAMES=$cache/egl.json" "LIBGL_ALWAYS_SOFTWARE=1"
  "MESA_SHADER_CACHE_DISABLE=false" "MESA_SHADER_CACHE_DIR=\$(shaders $(cat "$tree/version"))"
)
EOF
  fi
  if [ -n "$native_mesa" ]; then
    lvp=$(echo /usr/share/vulkan/icd.d/lvp_icd*.json | cut -d' ' -f1)
    cat <<EOF
native=(
  "VK_DRIVER_FILES=$lvp" "VK_ICD_FILENAMES=$lvp" "LIBGL_ALWAYS_SOFTWARE=1"
  "MESA_SHADER_CACHE_DISABLE=false" "MESA_SHADER_CACHE_DIR=\$(shaders $native_mesa)"
)
EOF
    radv=''
    for file in /usr/share/vulkan/icd.d/radeon_icd*.json; do
      [[ ! -e $file || $file == *.i?86.json ]] || radv=$file
    done
    if [ -n "$radv" ] && dpkg --compare-versions "$native_mesa" lt 26; then
      echo "amd=(\"VK_DRIVER_FILES=$radv\" \"VK_ICD_FILENAMES=$radv\")"
    fi
  fi
} >"$cache/env.sh.$$"
mv "$cache/env.sh.$$" "$cache/env.sh"
say "tree: Mesa $(cat "$tree/version" 2>/dev/null || echo missing); native: Mesa ${native_mesa:-missing}; $cache/env.sh"

if [ $# -gt 0 ]; then
  # shellcheck source=/dev/null
  . "$cache/env.sh"
  case $1 in
    tree) wanted=("${tree[@]}") ;;
    native) wanted=("${native[@]}") ;;
    amd) wanted=("${amd[@]}") ;;
    *) say "no driver '$1': tree, native or amd" && exit 2 ;;
  esac
  [ ${#wanted[@]} -gt 0 ] || exit 3
  shift
  rm -rf "$work"
  exec env "${wanted[@]}" "$@" 9>&-
fi
[ $missing = 0 ] || exit 3
