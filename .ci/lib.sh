# shellcheck shell=bash
# What .ci/run and .ci/nightly share: steps with timing, installing what is missing, the machine's abilities, the tally.
#
# A step that fails ends the script. What cannot be done prints 'skipped: WHAT: WHY'; with CI=true a skip is an error,
# unless the machine itself cannot do it (no root, no FUSE, no loop devices).

# Nothing is built a second time here with little changed.
export CARGO_INCREMENTAL=0

log_directory=$(mktemp -d)
scratch_directory=$(mktemp -d)
started_at=$SECONDS
step_name='(no step yet)'

# The last line that a reader of the log sees, whatever happened.
close_log() {
    local status=$?
    local passed failed
    set +e
    passed=$(tally passed)
    failed=$(tally failed)
    rm -rf "$log_directory" "$scratch_directory"
    if [ "$status" -ne 0 ]; then
        echo "== FAILED in step '$step_name' (exit $status)"
        if [ "$failed" -eq 0 ]; then failed=1; fi
    fi
    echo "== total $((SECONDS - started_at)) s"
    echo "$passed passed, $failed failed"
}
trap close_log EXIT

# Sums the numbers before a word in the closing lines of `cargo test`.
tally() {
    cat "$log_directory"/*.log 2>/dev/null |
        sed -n "s/^test result: .*[. ]\([0-9][0-9]*\) $1;.*/\1/p" |
        awk '{ sum += $1 } END { print sum + 0 }'
}

# step NAME COMMAND...
step() {
    step_name=$1
    shift
    local step_started=$SECONDS
    echo "== $step_name: $*"
    "$@" 2>&1 | tee "$log_directory/${step_name//[^a-zA-Z0-9]/-}.log"
    echo "== $step_name: $((SECONDS - step_started)) s"
}

# skip WHAT WHY: something that could have been done here.
skip() {
    echo "skipped: $1: $2"
    if [ "${CI:-}" = true ]; then
        step_name=$1
        return 1
    fi
}

# cannot WHAT WHY: something that this machine cannot do.
cannot() {
    echo "skipped: $1: $2"
}

# needs PROGRAM PACKAGE: notes the package when the program is not there.
missing_packages=()
needs() {
    if ! command -v "$1" >/dev/null; then
        missing_packages+=("$2")
    fi
}

# needs_file FILE PACKAGE: the same for what is no program.
needs_file() {
    if [ ! -e "$1" ]; then
        missing_packages+=("$2")
    fi
}

install_missing() {
    if [ "${#missing_packages[@]}" -eq 0 ]; then
        return
    fi
    echo "== install: ${missing_packages[*]}"
    if ! command -v apt-get >/dev/null; then
        skip install "no apt-get; install by hand: ${missing_packages[*]}"
        return
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            skip install "not root and no sudo; install by hand: ${missing_packages[*]}"
            return
        fi
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing_packages[@]}" >/dev/null
}

# What the tests of file systems and mounts need from the machine; prints the first thing it lacks.
machine_lacks() {
    if [ "$(id -u)" -ne 0 ]; then
        echo 'not root'
    elif [ ! -e /dev/fuse ] && ! modprobe fuse 2>/dev/null; then
        echo 'no /dev/fuse'
    elif ! losetup --find >/dev/null 2>&1; then
        echo 'no loop devices'
    elif ! kernel_knows ext4; then
        echo 'a kernel without ext4'
    fi
}

kernel_knows() {
    grep -qw "$1" /proc/filesystems || modprobe "$1" 2>/dev/null
}

# Sets test_command to the command that README.md tells people: the one line between its markers, so that the two
# cannot drift.
test_command=()
read_test_command() {
    local lines
    lines=$(sed -n '/^<!-- tests -->$/,/^<!-- end -->$/p' README.md | sed '/^<!--/d; /^```/d; /^$/d')
    if [ "$(wc -l <<<"$lines")" -ne 1 ] || [[ $lines != cargo\ test\ * ]]; then
        step_name='read README.md'
        echo "README.md: one 'cargo test' line is expected between <!-- tests --> and <!-- end -->, found: '$lines'" >&2
        return 1
    fi
    read -r -a test_command <<<"$lines"
}

list_missing() {
    hash -r
    missing_packages=()
    needs mkfs.ext4 e2fsprogs
    needs mkfs.xfs xfsprogs
    needs sqlite3 sqlite3
    needs fusermount3 fuse3
    needs losetup mount
    needs fallocate util-linux
    needs make make
    needs valgrind valgrind
    needs cmake cmake
    needs pkg-config pkg-config
    needs nbdkit nbdkit
    needs_file /usr/include/nbdkit-plugin.h nbdkit-plugin-dev
    needs nbdinfo libnbd-bin
    needs qemu-img qemu-utils
    needs fio fio
    needs nbdfuse nbdfuse
    needs qemu-system-x86_64 qemu-system-x86
    needs busybox busybox-static
}

prepare() {
    list_missing
    install_missing
    # To install one package may remove another that was there, of a version that does not go with it (those of QEMU).
    list_missing
    install_missing
    read_test_command
}

# The ignored tests of the tool's acceptance suite that need root, FUSE and loop devices.
machine_tests() {
    local lacks without=()
    lacks=$(machine_lacks)
    if [ -n "$lacks" ]; then
        cannot 'machine tests' "$lacks"
        return
    fi
    if ! kernel_knows xfs; then
        cannot 'the XFS test' 'a kernel without XFS'
        without=(--skip machine::filesystems::xfs)
    fi
    step 'machine tests' \
        "${test_command[@]}" --test acceptance -- --ignored --test-threads=1 --show-output machine:: "${without[@]}"
}

# The C interface: its programs once more under what finds misuse of memory, the installed library, the examples, the plugin for nbdkit.
c_interface_tests() {
    local programs=("${test_command[@]}" --test programs)
    step 'C programs under sanitizers' \
        env CDP_C_FLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all' "${programs[@]}"
    step 'C programs under valgrind' \
        env CDP_C_RUNNER='valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect' \
        "${programs[@]}"
    local build=(cargo build --release -p cdp-ffi -p cdp-cli)
    local built=${CARGO_TARGET_DIR:-$PWD/target}/release
    step 'C library' "${build[@]}"
    # The same build as above: another choice of packages would be another build.
    step 'installed C library' env "CARGO_BUILD=${build[*]}" cdp-ffi/packaging/check "$scratch_directory/installed"
    step 'C examples' make -C examples/c check "CDP_BUILD=$built" "BUILD=$scratch_directory/examples-c"
    step 'plugin for nbdkit' make -C examples/nbdkit check "CDP_BUILD=$built" "BUILD=$scratch_directory/examples-nbdkit"
    step 'machine on the plugin for nbdkit' examples/nbdkit/check-machine \
        "$scratch_directory/examples-nbdkit/nbdkit-cdp-plugin.so" "$built/cdp"
    local lacks
    lacks=$(machine_lacks)
    if [ -n "$lacks" ]; then
        cannot 'file systems on the plugin for nbdkit' "$lacks"
        return
    fi
    step 'file systems on the plugin for nbdkit' examples/nbdkit/check-filesystems \
        "$scratch_directory/examples-nbdkit/nbdkit-cdp-plugin.so" "$built/cdp"
}
