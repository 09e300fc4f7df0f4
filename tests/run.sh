#!/usr/bin/env bash
# Every check of gristmill, in order, on drivers that need no GPU (drivers.sh brings them).
# Usage: tests/run.sh [--full] [--steps NAME,NAME...]
#   --full   every case of the test matrix; without it, the shorter matrix of CI
#   --steps  only these, of: drivers fmt clippy clippy-cpu doc test subgroups smoke cpu gpu_stats conformance quickstart examples
# A driver that can't be had on this system is not an error: its steps then run on whatever adapters there are, and the
# end says so. One that is there must work: GRISTMILL_REQUIRE_GPU=1 makes the tests fail rather than skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

matrix=quick
steps=all
while [ $# -gt 0 ]; do
  case $1 in
    --full) matrix=full ;;
    --steps) steps=${2:?--steps needs a list of names} && shift ;;
    --steps=*) steps=${1#*=} ;;
    *) echo "run.sh: unknown argument '$1'; usage: tests/run.sh [--full] [--steps NAME,NAME...]" >&2 && exit 2 ;;
  esac
  shift
done
known=(drivers fmt clippy clippy-cpu doc test subgroups smoke cpu gpu_stats conformance quickstart examples)
for name in ${steps//,/ }; do
  [[ " all ${known[*]} " == *" $name "* ]] || { echo "run.sh: no step '$name', only: ${known[*]}" >&2 && exit 2; }
done

PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo >/dev/null; then
  echo "run.sh: there is no cargo: install Rust 1.95 or newer, with rustfmt and clippy" >&2
  exit 1
fi

table=() uncovered=() passed=0 failed=0
summary() {
  echo
  echo "== summary (matrix: $matrix)"
  if [ ${#table[@]} -gt 0 ]; then printf '%s\n' "${table[@]}"; fi
  if [ ${#uncovered[@]} -gt 0 ]; then printf '!! NOT COVERED: %s\n' "${uncovered[@]}"; fi
  echo "steps: $passed passed, $failed failed"
}
trap summary EXIT

step() { # NAME COMMAND...
  local name=$1 start=$SECONDS status=0 result=ok
  shift
  [[ $steps == all || ,$steps, == *",$name,"* ]] || return 0
  echo "== $name: $*"
  "$@" || status=$?
  if [ "$name" = drivers ] && [ $status = 3 ]; then # not to be had here: said below and at the end
    status=0 result='not all here'
  fi
  [ $status = 0 ] || result="FAILED, exit $status"
  table+=("$(printf '%-12s %6d s  %s' "$name" $((SECONDS - start)) "$result")")
  if [ $status != 0 ]; then
    failed=1
    echo "== FAILED: $name, exit $status: $*" >&2
    exit $status
  fi
  echo "== $name: $result, $((SECONDS - start)) s"
  passed=$((passed + 1))
}

export RUST_BACKTRACE=${RUST_BACKTRACE:-1}
step drivers tests/drivers.sh

tree=() native=() amd=()
cache=${GRISTMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill}
# shellcheck source=/dev/null
if [ -e "$cache/env.sh" ]; then . "$cache/env.sh"; fi
lavapipe=no
if [ ${#tree[@]} -gt 0 ]; then
  lavapipe=yes
  tree+=(GRISTMILL_REQUIRE_GPU=vulkan,gl)
else
  uncovered+=("Mesa 26 lavapipe (test, subgroups, conformance, quickstart): no tree of it, so only the adapters found here, if any")
fi
if [ ${#native[@]} -gt 0 ]; then
  native+=(GRISTMILL_REQUIRE_GPU=vulkan,gl)
else
  uncovered+=("the distribution's own Mesa, Vulkan and GL (smoke): not installed, so only the adapters found here, if any")
fi
if [ ${#amd[@]} -gt 0 ]; then
  amd+=(GRISTMILL_REQUIRE_STATS=1)
else
  uncovered+=("AMD's compiler without a card (gpu_stats): no RADV before Mesa 26, so its gates are skipped")
fi
if [ ${#uncovered[@]} -gt 0 ]; then printf '!! NOT COVERED: %s\n' "${uncovered[@]}" >&2; fi
# 0: once is enough, in the step gpu_stats.
tree+=("GRISTMILL_TEST_MATRIX=$matrix" GRISTMILL_REQUIRE_STATS=0)
native+=(GRISTMILL_TEST_MATRIX=smoke)
in_tree() { env "${tree[@]}" "$@"; }
on_native() { env "${native[@]}" "$@"; }
on_amd() { env "${amd[@]}" "$@"; }

step fmt cargo fmt --check
step clippy cargo clippy --all-targets --all-features -- -D warnings
step clippy-cpu cargo clippy --all-targets --no-default-features -- -D warnings
step doc env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features
# The oracle on OpenGL beside the rest: trials of one backend take turns, and the threads that wait leave a core idle.
beside() { # ON COMMAND...: cargo's tests COMMAND, but those of the oracle on OpenGL in a process of their own
  local on=$1 other status=0 log
  shift
  log=$(mktemp)
  "$on" cargo test --all-features --no-run || return
  GRISTMILL_TEST_BACKENDS=gl "$on" cargo test --all-features --test ops >"$log" 2>&1 &
  other=$!
  trap 'kill "$other" 2>/dev/null; cat "$log"; rm -f "$log"; summary' EXIT
  GRISTMILL_TEST_BACKENDS=cpu,vulkan,metal,dx12 "$on" "$@" || status=$?
  wait $other || status=$?
  echo "== the oracle on OpenGL"
  cat "$log"
  rm -f "$log"
  trap summary EXIT
  return $status
}
step test beside in_tree cargo test --all-features
# What shuffles must not depend on the subgroups' size, 8 unless lavapipe is told otherwise: 4 and 16, on the same shaders.
subgroups() {
  local width
  [ "$lavapipe" = yes ] || { echo "no lavapipe whose vectors this could choose"; return 0; }
  for width in 128 512; do
    in_tree env LP_NATIVE_VECTOR_WIDTH=$width GRISTMILL_TEST_SUBGROUPS=$((width / 32)) GRISTMILL_TEST_ONLY=vulkan: GRISTMILL_TEST_OPS=attention GRISTMILL_TEST_SUITES=blocks,exact \
      GRISTMILL_TEST_KERNEL=attention_subgroups cargo test --all-features --test ops || return
  done
}
step subgroups subgroups
step smoke beside on_native cargo test --all-features --test ops --test interop --test host_copies
step cpu cargo test --no-default-features --features safetensors,npy
gpu_stats() {
  on_amd cargo test --all-features --test gpu_stats || return
  if [ ${#amd[@]} -gt 0 ]; then
    on_amd cargo run --all-features --example gpu_stats -- --kernel matmul --spec .vector navi31
  fi
}
step gpu_stats gpu_stats
# In the tests' profile and features: others would compile every dependency once more.
step conformance in_tree cargo run --all-features --example conformance -- --device all --reasons examples/conformance/unsupported.txt tests/data/onnx tests/data/torch
step quickstart in_tree cargo run --all-features --example quickstart
examples() {
  local name
  for name in embed_in_wgpu_app custom_kernel survive_loss attention_zoo; do
    in_tree cargo run --all-features --example "$name" || return
  done
}
step examples examples
