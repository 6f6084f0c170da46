#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Backends in plug-ins: found, refused with cause and fix, and their asynchronous errors seen.
set -u
open=$AP_BUILDDIR/tests/cuda/open_backend
emu=$AP_BUILDDIR/tests/cuda
failed=0
# expect CODE TEXT... -- COMMAND...: the command ends with CODE and prints every TEXT.
expect()
{
    local code=$1 texts=() text out got
    shift
    while [ "$1" != -- ]; do
        texts+=("$1")
        shift
    done
    shift
    out=$("$@" 2>&1)
    got=$?
    [ $got = "$code" ] || { echo "not ok: code $got instead of $code: $*: $out"; failed=1; }
    for text in "${texts[@]}"; do
        [[ $out == *"$text"* ]] || { echo "not ok: '$text' is missing: $*: $out"; failed=1; }
    done
}
export ANTIPODE_PLUGINDIR=$emu
expect 0 'opened cuda-emu' 'launch ok, synchronisation ok, last sum 8' -- "$open" cuda-emu 0 add
expect 0 'opened cuda-emu' -- "$open" cuda-emu 1
expect 1 'environment: backend cuda: device 7 was asked for and 2 are visible' 'one rank per GPU' -- "$open" cuda-emu 7
expect 1 'environment: backend cuda: device -1 was asked for' -- "$open" cuda-emu -1
expect 1 'no NVIDIA GPU is visible' 'CUDA_VISIBLE_DEVICES' -- env ANTIPODE_EMU_DEVICES=none "$open" cuda-emu
expect 1 'driver is missing or older' 'backend: cpu' -- env ANTIPODE_EMU_DEVICES=nodriver "$open" cuda-emu
# The error of a kernel comes back from the synchronisation, not before.
expect 0 'launch ok, synchronisation environment' 'illegal memory access' -- env ANTIPODE_EMU_FAULT=1 "$open" cuda-emu 0 add
expect 1 'no memory' -- env ANTIPODE_EMU_MEMORY=4100 "$open" cuda-emu 0 add
expect 1 'could not make a stream' -- env ANTIPODE_EMU_MEMORY=100 "$open" cuda-emu

# Not installed, not loadable, of another age.
mkdir "$TMPDIR/empty" "$TMPDIR/broken" "$TMPDIR/old"
unset ANTIPODE_PLUGINDIR
expect 1 'unsupported: there is no backend named' 'reference' -- "$open" cuda-emx
expect 1 'unsupported: there is no backend named' -- "$open" ../cuda-emu
export ANTIPODE_PLUGINDIR=$TMPDIR/empty
[ -e /usr/local/lib/antipode/antipode-cuda.so ] || [ -e /usr/lib/antipode/antipode-cuda.so ] ||
    expect 1 'environment: backend cuda: the plug-in antipode-cuda.so is not installed' '--with-cuda' -- "$open" cuda
echo 'not an object' > "$TMPDIR/broken/antipode-cuda.so"
export ANTIPODE_PLUGINDIR=$TMPDIR/broken
expect 1 'environment: backend cuda: the plug-in does not load' -- "$open" cuda
printf 'static const struct { unsigned long size; int abi; } old = {16, 0};\nconst void *ap_backend_plugin(void) { return &old; }\n' > "$TMPDIR/old/old.c"
if ${CC:-cc} -shared -fPIC -o "$TMPDIR/old/antipode-cuda.so" "$TMPDIR/old/old.c"; then
    export ANTIPODE_PLUGINDIR=$TMPDIR/old
    expect 1 'environment: backend cuda: ' 'built for another version' 'install the plug-in of this version' -- "$open" cuda
else
    failed=1
fi
# auto never fails for want of a GPU.
export ANTIPODE_PLUGINDIR=$TMPDIR/broken
expect 0 'opened c' -- "$open" auto

# The real plug-in, where it was built: it loads, and says what is missing here or opens.
if [ -e "$AP_BUILDDIR/antipode-cuda.so" ]; then
    export ANTIPODE_PLUGINDIR=$AP_BUILDDIR
    out=$("$open" cuda 2>&1)
    case $out in
    'opened cuda') echo 'a GPU is here' ;;
    'environment: backend cuda: the NVIDIA driver is missing'* | 'environment: backend cuda: no NVIDIA GPU is visible'*) echo "$out" ;;
    *) echo "not ok: the CUDA plug-in: $out"; failed=1 ;;
    esac
fi
[ $failed = 0 ] && echo 'ok'
exit $failed
