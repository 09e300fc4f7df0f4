#!/usr/bin/env bash
# The mutation run (contract N10), on the software driver that drivers.sh brings; tests/mutation/main.rs says what it does.
# Usage: tests/mutation.sh [--list] [--stale] [--again] [--trust] [--within SECONDS] [--suites A,B] [--jobs N] [SHADER...]
#   SHADER   only these: matmul, lib/number (all without a name)
#   --list   print every edit, run none
#   --stale  only shaders whose text is not what tests/mutation/last.txt has a result for
#   --again  run those alone that survived last time, whatever has become of the oracle
#   --trust  take survivors.txt's word for what it lists: those take longest
#   --within what has not failed after so long is a survivor for now: to see soon what needs a reason or a better oracle, then --again
#   --suites of a shader's suites only these; what they do not catch is a survivor for now, likewise
#   --jobs   processes at once, the cores' number without it
# Results are kept in target/mutation until a shader or the oracle changes, so a run that was stopped goes on where it was.
# Exit: 0 if every survivor has its reason in tests/mutation/survivors.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec tests/drivers.sh tree cargo test --quiet --test mutation -- --mutate "$@"
