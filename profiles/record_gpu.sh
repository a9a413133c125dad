#!/usr/bin/env bash
# Record a GPU: four parts, each a command, the first three of under nine minutes on the machine with the GPU.
#
#   profiles/record_gpu.sh 1        device facts, correctness on the GPU, rates, and the cases that decide
#   profiles/record_gpu.sh 2        goes on with them: peers, tokens, blocks, other paths, the forward pass
#   profiles/record_gpu.sh 3        whole models, and traces of chosen cases
#   profiles/record_gpu.sh profile  at home: profiles/NAME with its README, verdicts, evaluation and the report
#
# A part goes on where it or the part before it stopped: run it again while it exits with 3. It needs a checkout, torch
# and numpy; peers and models need peft and transformers, tests pytest; what is missing is said, and its rows left out.
# It writes at most 8 files into OUT, changes no setting of the GPU, and commits nothing. Variables:
#
#   OUT      folder for the files (default: gpu-record)
#   FROM     folder with the files of an earlier part, where OUT is new
#   WHEELS   folder of wheels to use for packages that are missing (default: profiles/wheels, if it is there)
#   LIMIT    seconds that a part may take (default: 520); a command that hangs is ended a minute later
#   HANG     seconds after which a case is given up, and the next one begun (default: 180)
#   NAME     of the profile (default: after the GPU and the day)
#   PYTHON   interpreter (default: python3)
#   DRY      1 for a run of every line on the CPU with tiny cases, which measures nothing: a rehearsal
#   CDVFT_BENCH_REVISION   the revision, where the checkout came without its repository or over an older one
#   CDVFT_BENCH_GPU_METER  how clock and power are read: nvml, nvidia-smi or none
set -u
PART="${1:-}"
case "$PART" in 1 | 2 | 3 | profile) ;; *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
OUT="${OUT:-gpu-record}"
LIMIT="${LIMIT:-520}"
HANG="${HANG:-180}"
PYTHON="${PYTHON:-python3}"
DRY="${DRY:-}"
case "$PYTHON" in */*) PYTHON="$(cd "$(dirname "$PYTHON")" && pwd)/${PYTHON##*/}" ;; esac
mkdir -p "$OUT" && [ -w "$OUT" ] || { echo "OUT=$OUT cannot be written to: name another folder." >&2 && exit 2; }
OUT="$(cd "$OUT" && pwd)"
SCRATCH="$(mktemp -d 2> /dev/null)" || { SCRATCH="$(mktemp -d "$OUT/scratch.XXXXXX")" && export TMPDIR="$SCRATCH"; } || exit 2
trap 'rm -rf "$SCRATCH"' EXIT
rm -f "$OUT"/*.part "$OUT"/.*.part # of a part that was killed while it wrote
if [ -n "${FROM:-}" ]; then # files that are handed over may be read-only, and are gone on with
    for file in "$FROM"/*; do [ -e "$OUT/${file##*/}" ] || cp "$file" "$OUT"/; done
    chmod u+w "$OUT"/*
fi
export PYTHONPATH="$HERE:$HERE/reference${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
wheels=""
for wheel in "${WHEELS:-$HERE/profiles/wheels}"/*.whl; do # unpacked, which asks for no pip; wheels fill gaps only
    name="${wheel##*/}"
    [ -e "$wheel" ] && ! "$PYTHON" -c "import importlib.metadata as m; m.version('${name%%-*}')" > /dev/null 2>&1 &&
        "$PYTHON" -m zipfile -e "$wheel" "$SCRATCH/wheels" && wheels=":$SCRATCH/wheels"
done
PYTHONPATH="$PYTHONPATH$wheels"
# What Triton compiles goes along in one archive. It finds it again at the same path only: not in SCRATCH, if need be.
OWN=""
if [ -z "${TRITON_CACHE_DIR:-}" ]; then
    OWN="${TMPDIR:-/tmp}/cdvft-bench-triton-$UID"
    mkdir -p -m 700 "$OWN" 2> /dev/null && [ -O "$OWN" ] && [ -w "$OWN" ] || { OWN="$SCRATCH/triton" && mkdir "$OWN"; }
    export TRITON_CACHE_DIR="$OWN"
    [ ! -s "$OUT/triton.tar.gz" ] || tar -xzf "$OUT/triton.tar.gz" -C "$OWN" || rm -rf "${OWN:?}"/*
fi
cd "$HERE" || exit 2
if [ -z "${CDVFT_BENCH_REVISION:-}" ] && ! git rev-parse --short HEAD > /dev/null 2>&1; then
    echo "There is no repository here: set CDVFT_BENCH_REVISION, or the rows will not say what they measured." >&2
fi

DEVICE=cuda GRID=gpu-first MODELS=gpu-first-models CASE=0.3s MODEL_CASE=1s SELFTEST=20 MARK="gpu and not slow"
if [ -n "$DRY" ]; then
    DEVICE=cpu CASE=0.02s MODEL_CASE=0.02s SELFTEST=1 MARK="not slow"
    for kind in layer model; do
        [ $kind = layer ] && subject=32x32 || subject=minilm
        cat > "$SCRATCH/$kind.toml" << END
[grid]
name = "rehearsal"
[[block]]
kind = "$kind"
subjects = ["$subject"]
sequence = [8]
device = "cuda"
keep_trace = true
[[block.method]]
name = "cdvft"
m = 2
path = ["auto", "merged_dense"]
END
    done
    GRID="$SCRATCH/layer.toml" MODELS="$SCRATCH/model.toml"
fi

CODE=0 MORE=0
step() { # step NAME COMMAND...: say it, run it, keep what it says, and go on; 3 is "run it again"
    local name="$1" code
    shift
    echo "== $name (after $SECONDS s): $*" | tee -a "$OUT/log.txt"
    "$@" 2>&1 | tee -a "$OUT/log.txt"
    code="${PIPESTATUS[0]}"
    [ "$code" = 0 ] || echo "== $name ended with $code" | tee -a "$OUT/log.txt"
    if [ "$code" = 3 ]; then MORE=1; elif [ "$code" != 0 ]; then CODE=1; fi
    [ -z "$OWN" ] || ! compgen -G "$OWN/*" > /dev/null || { # whole or not at all: a part may be killed from outside
        tar -czf "$OUT/triton.tar.gz.part" -C "$OWN" . && mv -f "$OUT/triton.tar.gz.part" "$OUT/triton.tar.gz"
    }
}
said() { echo "== $*" | tee -a "$OUT/log.txt"; }
left() { # seconds that the part has left, of which it keeps some to end in
    local rest=$((LIMIT - SECONDS - ${1:-5}))
    echo "$((rest > 1 ? rest : 1))s"
}
# In the foreground: whatever kills this script and its group then reaches the command, too.
bounded() { timeout --foreground --kill-after 10 "$((LIMIT > SECONDS ? LIMIT - SECONDS + 60 : 60))" "$@"; }
has() { "$PYTHON" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)" > /dev/null 2>&1; }

able() { # what no part can do without, found in seconds
    "$PYTHON" -c 'if 1:
        import sys
        if sys.version_info < (3, 11):
            sys.exit(f"Python {sys.version.split()[0]} is too old: name one of 3.11 or later in PYTHON.")
        try:
            import numpy, torch
        except ImportError as error:
            sys.exit(f"{sys.executable} has no torch or no numpy ({error}): name another one in PYTHON.")
        if sys.argv[1] == "cuda" and not torch.cuda.is_available():
            sys.exit("torch finds no CUDA device here (DRY=1 rehearses on the CPU).")' "$DEVICE"
}
facts() { # what cannot be read is a note
    "$PYTHON" -c 'if 1:
        import dataclasses, importlib.metadata, json, sys, torch
        from cdvft_bench.execution.triton.path import refusal
        from cdvft_bench.timing.machine.environment import read_environment
        print(json.dumps(dataclasses.asdict(read_environment()), indent=1))
        for name in ("torch", "triton", "numpy", "peft", "transformers", "fvcore", "msgspec", "nvidia-ml-py", "pytest"):
            try:
                print(f"{name}=={importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                print(f"{name} is not installed")
        print("Triton:", refusal(torch.device(sys.argv[1])) or "its kernels start")' "$DEVICE" || echo "no facts"
    echo "Triton keeps what it compiles in $TRITON_CACHE_DIR"
    if [ "$DEVICE" = cuda ]; then
        timeout 20 nvidia-smi
        timeout 20 nvidia-smi --format=csv --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.draw,power.limit,temperature.gpu,persistence_mode,compute_mode,mig.mode.current,ecc.mode.current
    fi
    return 0
}
tested() { # tested SECONDS MARK FILES AND OPTIONS...: without the configuration, which asks for plugins
    local limit="$1" mark="$2"
    shift 2
    local options=(-q -c /dev/null --rootdir "$HERE" --import-mode=importlib -p no:cacheprovider -W ignore -m "$mark")
    has hypothesis || options+=(--noconftest)
    timeout "$limit" "$PYTHON" -m pytest "${options[@]}" "$@"
}
tests() { # by file name: collecting the whole tree takes longer than they do, and needs packages that may be missing
    local files=(tests/reference/test_layer.py tests/timing/test_gpu_state.py)
    [ -n "$DRY" ] || files+=(tests/execution/test_triton.py tests/execution/test_graphs.py tests/timing/test_clock.py
        tests/timing/test_modes.py tests/timing/test_peak_memory.py tests/timing/test_trace.py
        tests/timing/test_selftest.py)
    # The on-chip FFT, which auto leaves alone, takes a compiler minutes: see part 3.
    tested 150 "$MARK" "${files[@]}" --deselect \
        "tests/execution/test_graphs.py::test_a_replayed_step_gives_the_gradients_of_a_plain_one[triton]"
}
rates() { # once in an environment; a rehearsal takes any
    [ -n "$DRY" ] && [ -s "$OUT/rates.json" ] ||
        timeout 120 "$PYTHON" -m cdvft_bench.timing.calibrate --keep --device "$DEVICE" --output "$OUT/rates.json"
}
plan_by_rates() { # path auto picks by them; without them by a datasheet's
    "$PYTHON" -c 'if 1:
        import pathlib, sys
        from cdvft_bench.analytic.roofline import load_rates
        load_rates(pathlib.Path(sys.argv[1]))' "$OUT/rates.json" > /dev/null 2>&1 &&
        cp "$OUT/rates.json" "$SCRATCH/rates.json" && cp "$OUT/rates.json" "$SCRATCH/rates-cuda.json" &&
        export CDVFT_BENCH_RATES="$SCRATCH/rates.json" || said "no calibrated rates: path auto picks by a datasheet's"
}
size() { if [ -e "$1" ]; then wc -c < "$1"; else echo 0; fi; }
cases() { # cases GRID FILE SECONDS_A_CASE MORE...; goes on without a case with which the process died, or broke CUDA
    local grid="$1" file="$2" case="$3" code before
    shift 3
    while :; do
        before="$(size "$OUT/$file")"
        bounded "$PYTHON" -m cdvft_bench.timing --grid "$grid" --device "$DEVICE" --output "$OUT/$file" \
            --budget "$(left)" --case-budget "$case" --case-limit "${HANG}s" --modes eager,graph --energy 0 \
            --precision 0.02 --selftest "$SELFTEST" "$@"
        code=$?
        [ -e "$OUT/$file.begun" ] || { [ $code -ge 4 ] && [ "$(size "$OUT/$file")" != "$before" ]; } || return $code
        [ $((LIMIT - SECONDS)) -gt 30 ] || return 3
    done
}
traces() { # in a process of their own, after all times: the profiler stays attached
    cases "$1" "$2" "$CASE" --kept --selftest 0 --traces "$OUT/traces.tar"
}
table() {
    for file in rows.jsonl models.jsonl; do
        [ ! -s "$OUT/$file" ] || "$PYTHON" -m cdvft_bench.timing --table "$OUT/$file"
    done
}
profile() {
    local bench=("$PYTHON" -m cdvft_bench) profiles="$HERE/profiles" reports="$HERE/reports" rows=() judged=() name
    for file in rows.jsonl models.jsonl; do [ ! -s "$OUT/$file" ] || rows+=("$OUT/$file"); done
    [ ${#rows[@]} -gt 0 ] || { echo "There are no rows in $OUT: run parts 1 to 3 on the GPU first." >&2 && return 2; }
    name="${NAME:-$("$PYTHON" -m cdvft_bench.timing --name "${rows[0]}")}" || return 2
    if [ -n "$DRY" ]; then # nothing of it may come into the checkout, and other claims do not hang on these rows
        profiles="$SCRATCH/profiles" reports="$SCRATCH/reports"
        judged=(--records "$profiles/$name/records.jsonl.gz" --only "*step-time*")
    fi
    local folder="$profiles/$name" code=0
    mkdir -p "$folder" &&
        "${bench[@]}" import "${rows[@]}" --store "$SCRATCH/records.sqlite" &&
        "${bench[@]}" export "$SCRATCH/records.sqlite" "$folder/records.jsonl.gz" || return 1
    [ ! -s "$OUT/rates.json" ] || cp "$OUT/rates.json" "$folder/"
    [ ! -s "$OUT/traces.tar" ] || { mkdir -p "$folder/traces" && tar -xf "$OUT/traces.tar" -C "$folder/traces"; }
    "${bench[@]}" dev profile-readme "$folder/records.jsonl.gz" || code=1
    "${bench[@]}" verify ${judged[@]+"${judged[@]}"} --output "$profiles/verdicts.json"
    [ $? -le 1 ] || code=1 # it exits with 1 where a verdict is not the expected one: that is a result
    "${bench[@]}" evaluate "$profiles"/*/records.jsonl.gz --output "$profiles/evaluation.json" || code=1
    "${bench[@]}" report "$profiles" --output "$reports" --figures svg || code=1
    (cd "$profiles" && find "$name" -type f -exec wc -c {} + | sort -k 2)
    return $code
}

[ "$PART" = profile ] || able || exit 2
case "$PART" in
    1)
        step "device facts" facts
        if has pytest; then step "correctness on the device" tests; else said "pytest is missing: no tests"; fi
        step "rates" rates
        plan_by_rates
        step "the cases that decide" cases "$GRID" rows.jsonl "$CASE" --no-trace
        ;;
    2)
        plan_by_rates
        step "peers, tokens, blocks, the forward pass" cases "$GRID" rows.jsonl "$CASE" --no-trace
        ;;
    3)
        plan_by_rates
        if has transformers && has peft; then
            step "models" cases "$MODELS" models.jsonl "$MODEL_CASE" --no-trace
        else
            said "peft or transformers is missing: no models"
        fi
        step "traces" traces "$GRID" rows.jsonl
        [ ! -s "$OUT/models.jsonl" ] || step "traces of models" traces "$MODELS" models.jsonl
        if [ -z "$DRY" ] && has pytest && [ $((LIMIT - SECONDS)) -gt 120 ]; then
            step "the on-chip FFT, as far as time goes" tested "$(left)" "gpu and slow" -x -k on_chip_fft \
                tests/execution/test_triton.py
        fi
        ;;
    profile) step "profile" profile ;;
esac
[ "$PART" = profile ] || step "so far" table
[ $MORE = 0 ] || CODE=3
echo "== part $PART took $SECONDS s and ends with $CODE; its files:"
(cd "$OUT" && find . -maxdepth 1 -type f -exec wc -c {} +)
exit $CODE
