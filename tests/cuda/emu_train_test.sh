#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whole runs with `backend: cuda` on the emulator, which stands in for the plug-in: the trainer, optimizer shards and
# checkpoints with memory that is not the host's, one device a rank, and what a user is told when that cannot be.
set -u
# shellcheck source=tests/support/tiny_job.sh
. "$AP_SRCDIR/tests/support/tiny_job.sh"
mkdir "$TMPDIR/plugin" "$TMPDIR/work"
cp "$AP_BUILDDIR/tests/cuda/antipode-cuda-emu.so" "$TMPDIR/plugin/antipode-cuda.so" || exit 99
export ANTIPODE_PLUGINDIR=$TMPDIR/plugin
unset ANTIPODE_NCCL
cd "$TMPDIR/work" || exit 99
tiny_job "$PWD" 3 || exit 99
failed=0
bad()
{
    echo "not ok: $*"
    failed=1
}
# train RANKS NAME SET...: log in NAME.log.
train()
{
    local ranks=$1 name=$2
    shift 2
    set -- "${@/#/--set=}"
    if [ "$ranks" = 1 ]; then
        antipode train job.yaml --set="run_dir=run-$name" "$@" > "$name.log" 2>&1
    else
        mpirun -n "$ranks" antipode train job.yaml --set="run_dir=run-$name" "$@" > "$name.log" 2>&1
    fi
}
# figure NAME WHAT: the value of a line "FOM WHAT=value unit".
figure()
{
    sed -n "s/^FOM $2=\([0-9.]*\) .*/\1/p" "$1.log"
}
hash_of()
{
    sed -n 's/^weights xxh3-128 //p' "$1.log"
}
train 1 cpu backend=cpu || { cat cpu.log; bad 'the run on the CPU'; }
train 1 one backend=cuda || { cat one.log; bad 'the run on one device'; }
train 2 two backend=cuda || { cat two.log; bad 'the run on two devices'; }
train 2 again backend=cuda || bad 'the second run on two devices'
for axis in tensor expert pipeline; do
    train 2 "$axis" backend=cuda parallel.$axis=2 || { cat "$axis.log"; bad "$axis parallel on two devices"; }
done
for what in final_loss valid_loss; do
    for name in one two tensor expert pipeline; do
        awk -v a="$(figure cpu $what)" -v b="$(figure $name $what)" 'BEGIN { d = a - b; exit !(a > 0 && b > 0 && d * d < 1e-8) }' ||
            bad "$what: $(figure cpu $what) on the CPU, $(figure $name $what) on $name"
    done
done
if [ -z "$(hash_of two)" ] || [ "$(hash_of two)" != "$(hash_of again)" ]; then
    bad "two equal runs end in weights $(hash_of two) and $(hash_of again)"
fi
[ "$(hash_of one)" = "$(hash_of two)" ] || bad 'one and two devices do not give the same bits'

# Tensors from device to device by NCCL's calls (a stand-in for its library): the bits of the way through the host. by_nccl
# NAME SET...: a run on two devices, and what its ranks sent.
nccl=$AP_BUILDDIR/tests/support/fake_nccl.so
by_nccl()
{
    local name=$1
    shift
    ANTIPODE_NCCL=$nccl AP_FAKE_NCCL_LOG=$PWD/$name.bytes train 2 "$name" "$@" || { cat "$name.log"; bad "$name"; }
    grep -q 'tensors travel between the devices by NCCL 2.28.9' "$name.log" || bad "$name: NCCL is not named"
    # Both ranks, and more than the set-up could send.
    [ "$(awk '$1 > 100000' "$name.bytes" | wc -l)" = 2 ] || bad "$name: bytes sent by NCCL: $(tr '\n' ' ' < "$name.bytes")"
}
if [ -e "$nccl" ]; then
    for axis in tensor expert pipeline; do
        by_nccl "nccl-$axis" backend=cuda parallel.device_comm=nccl parallel.$axis=2
        if [ -z "$(hash_of "nccl-$axis")" ] || [ "$(hash_of "nccl-$axis")" != "$(hash_of "$axis")" ]; then
            bad "$axis parallel: other bits by NCCL: $(hash_of "nccl-$axis"), not $(hash_of "$axis")"
        fi
    done
    ANTIPODE_NCCL=$nccl AP_FAKE_NCCL=stall@1 train 2 stall backend=cuda parallel.device_timeout=1
    [ $? = 6 ] || bad "a peer that does not come: $(tail -n 3 stall.log)"
    grep -q 'NCCL: .* did not end within 1 s' stall.log || bad "a peer that does not come: $(tail -n 3 stall.log)"
    train 2 host backend=cpu parallel.device_comm=nccl
    [ $? = 3 ] || bad 'NCCL on CPUs: the code is not 3'
    grep -q 'parallel.device_comm is nccl, but backend cpu' host.log || bad "NCCL on CPUs: $(tail -n 3 host.log)"
    ANTIPODE_NCCL=/nowhere/libnccl.so.2 train 2 nolib backend=cuda parallel.device_comm=nccl
    [ $? = 4 ] || bad 'no NCCL library: the code is not 4'
    grep -q 'NCCL does not load: .*/nowhere' nolib.log || bad "no NCCL library: $(tail -n 3 nolib.log)"
    grep -q 'through host memory: there is no NCCL for this kind of device' two.log || bad 'auto does not say why it takes the host'
else
    train 2 without backend=cuda parallel.device_comm=nccl && bad 'NCCL was accepted in a build without it'
    grep -q 'this build is without NCCL' without.log || bad "a build without NCCL: $(tail -n 3 without.log)"
    by_nccl()
    {
        train 2 "$@" || { cat "$1.log"; bad "$1"; }
    }
fi

# Stopped after two steps and taken up again from its checkpoint: the bits of the run that was not stopped.
train 1 part backend=cuda train_steps=2 || bad 'the first part'
mv part.log part1.log
train 1 part backend=cuda || { cat part.log; bad 'the second part'; }
[ "$(hash_of part)" = "$(hash_of one)" ] || bad 'a resumed run ends in other weights'

# auto takes the devices where every rank has one, and NCCL between them, and a run that began on them stays there.
by_nccl auto backend=auto
grep -q 'backend cuda' auto.log || bad "auto with a device for each rank: $(grep 'backend ' auto.log)"
[ "$(hash_of auto)" = "$(hash_of two)" ] || bad 'auto and cuda end in different weights'
train 3 auto3 backend=auto batch.global_sequences=6 || { cat auto3.log; bad 'backend auto with too few devices'; }
grep -q 'backend cpu' auto3.log || bad "auto with fewer devices than ranks: $(grep 'backend ' auto3.log)"
grep -q 'backend auto takes cpu: 1 of 3 ranks' auto3.log || bad 'auto does not say why it takes the CPU'

train 3 three backend=cuda batch.global_sequences=6 && bad 'three ranks on two devices were accepted'
grep -q 'device 2 was asked for and 2 are visible (start at most one rank per GPU' three.log || bad "three ranks: $(tail -n 3 three.log)"
ANTIPODE_EMU_DEVICES=none train 1 none backend=cuda
[ $? = 4 ] || bad 'no device: the code is not 4'
grep -q 'no NVIDIA GPU is visible' none.log || bad "no device: $(tail -n 3 none.log)"
ANTIPODE_EMU_FAULT=1500 train 1 fault backend=cuda && bad 'a failing device went unnoticed'
grep -q 'illegal memory access' fault.log || bad "a failing device: $(tail -n 3 fault.log)"
[ $failed = 0 ] && echo ok
exit $failed
