#!/usr/bin/env bash
# Fuzz the decoders with libFuzzer and the address and undefined-behaviour sanitizers.
#
#     native/fuzz/run.sh SECONDS [decode|model]...     each harness for so many seconds; all of them by default
#
# What was found interesting is kept in $CELLMILL_FUZZ_FOLDER (default: cellmill-fuzz in the user's cache folder) and
# is where the next run begins; inputs that crash lie there under crashes/. Ends with 1 when a harness has found a
# fault, 2 for a wrong call, 3 without a clang that can fuzz. CXX names another clang++.
set -euo pipefail

say() { printf '%s\n' "fuzz: $*" >&2; }

seconds=${1:-}
if [[ ! $seconds =~ ^[1-9][0-9]*$ ]]; then
  say "how many seconds? Call: native/fuzz/run.sh SECONDS [decode|model]..."
  exit 2
fi
shift
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(decode model)

native=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${CELLMILL_FUZZ_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/cellmill-fuzz}
compiler=${CXX:-clang++}
flags=(-std=c++20 -O1 -gline-tables-only -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I "$native")

sources_of() {
  case $1 in
    decode) echo block_headers.cpp decode.cpp decode_avx2.cpp decode_avx512.cpp encode.cpp model.cpp ;;
    model) echo model.cpp ;;
    *)
      say "no harness is called '$1'; there are: decode, model"
      exit 2
      ;;
  esac
}
for target in "${targets[@]}"; do sources_of "$target" >/dev/null; done

probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$probe/probe.cpp"
if ! "$compiler" -fsanitize=fuzzer,address,undefined "$probe/probe.cpp" -o "$probe/probe" >"$probe/said" 2>&1; then
  say "$compiler is missing, or has no libFuzzer: $(head -n 1 "$probe/said")"
  say "install clang with its runtime: 'apt install clang' on Debian and Ubuntu, 'dnf install clang compiler-rt' on"
  say "Fedora, 'brew install llvm' on macOS (then CXX=\$(brew --prefix llvm)/bin/clang++); or name one: CXX=clang++-18"
  exit 3
fi

# A program is named after what it is made of, so that several checkouts can share the folder.
build() {
  local target=$1 name program source job sources=()
  for name in $(sources_of "$target"); do sources+=("$native/$name"); done
  name=$(cat "$native"/*.[ch]pp "$native/fuzz/$target.cpp" "${BASH_SOURCE[0]}" <("$compiler" --version) | cksum | tr -d ' ')
  program=$folder/programs/$target-$name
  mkdir -p "$folder/programs"
  if [[ ! -x $program ]]; then
    say "building $target"
    local object jobs=() objects=()
    for source in "$native/fuzz/$target.cpp" "${sources[@]}"; do
      object=$probe/$target-${#objects[@]}.o
      objects+=("$object")
      "$compiler" "${flags[@]}" -c "$source" -o "$object" &
      jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || return; done
    "$compiler" "${flags[@]}" "${objects[@]}" -o "$program.$$" || return
    mv "$program.$$" "$program"
  fi
  echo "$program"
}

failed=()
for target in "${targets[@]}"; do
  program=$(build "$target") || { say "$target does not compile"; exit 1; }
  corpus=$folder/$target
  mkdir -p "$corpus" "$folder/crashes"
  log=$probe/$target.log
  # libFuzzer ends with another status than 0 at the first fault, at 10 seconds for one input, and at 2 GiB.
  status=0
  "$program" "$corpus" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/crashes/$target-" >"$log" 2>&1 || status=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${executions:-no} executions, $(find "$corpus" -type f | wc -l) inputs in $corpus"
  if [[ $status -ne 0 || -z $executions ]]; then
    failed+=("$target")
    tail -n 40 "$log" >&2
    say "$target ended with status $status; the input lies in $folder/crashes"
  fi
done
if [[ ${#failed[@]} -gt 0 ]]; then
  say "faults found by: ${failed[*]}"
  exit 1
fi
