#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every mistake a user can make in a job file: one message with file:line:column, what is wrong and the fix; exit
# code 3. `antipode plan` reads the job as every verb does, without MPI; train is tried on a few.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99
head='model: {preset: tiny-v3}
data: {train: corpus/train, seq_len: 64}
'

# job TEXT: write j.yaml with the two sections that every job needs in front.
job()
{
    printf '%s%b' "$head" "$1" > j.yaml
}

# bad TEXT MESSAGE: this job must be refused with this message, and with one line only.
bad()
{
    job "$1"
    raw "$2"
}

raw()
{
    expect 3 "error: $1" antipode plan j.yaml
    checks=$((checks + 1))
    [ "$(wc -l <<< "$out")" = 1 ] || {
        echo "FAIL: more than one line: $1"
        failures=$((failures + 1))
    }
}

# ---- good ones
job '#!/not/first\n'
expect 0 'tokens per step' antipode plan j.yaml
printf '#!/usr/bin/env -S antipode run\n#SBATCH --nodes=2\n#PBS -l select=1\n%s' "$head" > j.yaml
expect 0 'tokens per step' antipode plan j.yaml
printf '# comment\n---\n%s' "$head" > j.yaml
expect 0 'tokens per step' antipode plan j.yaml

for file in "$AP_SRCDIR"/inputs/*.yaml; do
    expect 0 'tokens per step' antipode plan "$file"
done

# ---- keys
bad 'trian_steps: 5\n' "j.yaml:3:1: unknown key 'trian_steps' (did you mean 'train_steps'?)"
bad 'optim:\n  learning_rate: 1e-3\n' "j.yaml:4:3: unknown key 'optim.learning_rate' (did you mean 'optim.lr'?)"
bad 'optim:\n  shedule: cosine\n' "j.yaml:4:3: unknown key 'optim.shedule' (did you mean 'optim.schedule'?)"
bad 'lr: 1e-3\n' "j.yaml:3:1: unknown key 'lr' (did you mean 'optim.lr'?)"
bad 'max_steps: 3\n' "j.yaml:3:1: unknown key 'max_steps' (did you mean 'train_steps'?)"
bad 'wholly_else: 3\n' "j.yaml:3:1: unknown key 'wholly_else' (valid here: name, "
bad 'eval:\n  wholly_else: 3\n' "j.yaml:4:3: unknown key 'eval.wholly_else' (valid here: every, sequences)"
bad 'seed: 1\nseed: 2\n' "j.yaml:4:1: key 'seed' is given twice, the first time in line 3 (remove one of the two)"
bad 'train_steps: 5\ntrain_tokens: 5000\n' 'j.yaml:4:1: train_steps and train_tokens are both given'
bad '? [a, b]\n: c\n' 'j.yaml:3:3: a key must be plain text'

# ---- types, bounds, choices
bad 'train_steps: many\n' "j.yaml:3:14: train_steps must be an integer from 1 to 1000000000000, not 'many'"
bad 'train_steps: 0\n' "j.yaml:3:14: train_steps must be an integer from 1 to 1000000000000, not '0'"
bad 'train_steps: 2.5\n' "j.yaml:3:14: train_steps must be an integer"
bad 'train_steps: "5"\n' 'j.yaml:3:15: train_steps must be an integer from 1 to 1000000000000, not the text "5" (remove the quotes)'
bad 'train_steps: [5]\n' 'j.yaml:3:1: train_steps must be an integer from 1 to 1000000000000, not a list'
bad 'train_steps:\n' 'j.yaml:3:1: train_steps has no value'
bad 'optim: {lr: -1}\n' "j.yaml:3:13: optim.lr must be a number above 0 and at most 10, not '-1'"
bad 'optim: {lr: .inf}\n' 'j.yaml:3:13: optim.lr must be a number'
bad 'optim: {schedule: cosin}\n' "j.yaml:3:19: optim.schedule must be one of constant, cosine, wsd, step, not 'cosin' (did you mean 'cosine'?)"
bad 'optim: 3\n' 'j.yaml:3:1: optim is a section: it takes keys, not a value'
bad 'expect: {below_bigram: yes}\n' "j.yaml:3:24: expect.below_bigram must be true or false, not 'yes' (did you mean 'true'?)"
bad 'dtype: fp16\n' "j.yaml:3:8: dtype must be one of fp32, fp64, bf16, not 'fp16'"
bad 'name: ../up\n' "j.yaml:3:1: the name '../up' is not fit for a directory"

# ---- shapes and files
bad 'parallel: {tensor: 3}\n' 'j.yaml:3:12: parallel.tensor is 3, which does not divide num_attention_heads of the model, 4'
bad 'batch: {global_tokens: 1000}\n' 'j.yaml:3:9: batch.global_tokens is 1000, which data.seq_len 64 does not divide (960 fits)'
bad 'batch: {global_sequences: 10, micro_sequences: 4}\n' 'j.yaml:3:31: batch.micro_sequences is 4, which does not divide batch.global_sequences 10 (2 fits)'
bad 'optim: {warmup_steps: 2000}\n' 'j.yaml:3:9: optim.warmup_steps is 2000, more than train_steps 1000'
bad 'expect: {valid_loss_max: 2}\n' 'j.yaml:3:10: expect.valid_loss_max needs data.valid'
printf 'model: {preset: tiny-v33}\ndata: {train: x}\n' > j.yaml
raw "j.yaml:1:9: there is no model preset 'tiny-v33' (did you mean 'tiny-v3'?)"
printf 'model: {config: no.json}\ndata: {train: x}\n' > j.yaml
raw "j.yaml:1:9: there is no file $PWD/no.json"
printf '{"model_type": "llama"}' > llama.json
printf 'model: {config: llama.json}\ndata: {train: x}\n' > j.yaml
raw "$PWD/llama.json:1:2: model_type 'llama' is not one this program trains (deepseek_v2 or deepseek_v3)"
printf '{"model_type": "deepseek_v3", }' > llama.json
raw "$PWD/llama.json:1:29: not valid JSON"
sed 's/"qk_rope_head_dim": 8/"qk_rope_head_dim": 7/' "$AP_SRCDIR/inputs/models/tiny-v3.json" > llama.json
raw "$PWD/llama.json: qk_rope_head_dim is 7, it must be even"
printf 'data: {train: x}\n' > j.yaml
raw 'j.yaml: model.preset or model.config is missing (for example model: {preset: quickstart})'
printf 'model: {preset: tiny-v3}\n' > j.yaml
raw 'j.yaml: data.train is missing'
: > j.yaml
raw 'j.yaml: data.train is missing'
printf 'model: {preset: tiny-v3}\ndata: {train: [{path: x, wieght: 2}]}\n' > j.yaml
raw "j.yaml:2:26: data.train: an entry has no key 'wieght' (did you mean 'weight'?)"
job ''
expect 3 "j.yaml:2:8: data.train: cannot read $PWD/corpus/train.idx: No such file or directory (make it with 'antipode prep'" \
    antipode train j.yaml
expect 3 'error: none.yaml: cannot open: No such file or directory' antipode plan none.yaml
expect 3 "error: $TMPDIR: this is a directory, not a file" antipode plan "$TMPDIR"

# ---- hostile and damaged texts, each refused at once
# aliases that would unfold to 10^9 nodes
{
    printf 'a: &a [x, x, x, x, x, x, x, x, x, x]\n'
    for c in b c d e f g h i; do
        prev=$(printf '%s' "$c" | tr b-i a-h)
        list=$(printf "*$prev, %.0s" 1 2 3 4 5 6 7 8 9)
        printf '%s: &%s [%s*%s]\n' "$c" "$c" "$list" "$prev"
    done
} > j.yaml
raw 'j.yaml:1:7: anchors and aliases (& and *) are not allowed'
bad 'name: !!python/object x\n' 'j.yaml:3:23: tags (!) are not allowed'
bad 'name: a\xffb\n' 'j.yaml:3:8: byte 0xff is not valid UTF-8 (save the file as UTF-8)'
bad 'name: \xc0\xaf\n' 'j.yaml:3:7: byte 0xc0 is not valid UTF-8'
printf '\xef\xbb\xbf%s' "$head" > j.yaml
raw 'j.yaml:1:1: the file begins with a byte order mark'
printf '%sname: a\0b\n' "$head" > j.yaml
raw 'j.yaml:3:8: the file holds a NUL byte'
printf 'a: %s' "$(printf '%50000s' '' | tr ' ' '[')" > j.yaml
raw 'j.yaml:1:35: nested too deeply'
printf 'a: %s' "$(printf '%40000s' '' | sed 's/ /{a: /g')" > j.yaml
raw 'j.yaml:1:128: nested too deeply'
head -c 2000000 /dev/zero | tr '\0' x > j.yaml
raw 'j.yaml: the file is larger than'
printf '%s' "$head" | sed 's/$/\r/' > j.yaml
raw "j.yaml:1:25: the file has carriage returns (line ends of Windows)"
expect 3 "sed -i 's/\\r//' j.yaml" antipode plan j.yaml
printf -- '---\n%s' "$head" > j.yaml
raw 'j.yaml:1:1: a leading --- keeps batch systems from reading the file (remove the line)'
printf '%s---\n%s' "$head" "$head" > j.yaml
raw 'j.yaml:3:1: a second document begins here'
bad 'eval:\n  every: 1\n\tsequences: 2\n' 'j.yaml:5:2: not valid YAML'
expect 3 'line 5 is indented with a tab: use spaces' antipode plan j.yaml
bad 'optim: {lr: 1\n' 'j.yaml:4:1: not valid YAML: missing comma in flow mapping'
printf 'just a text\n' > j.yaml
raw 'j.yaml:1:1: the file must hold keys and values'
job '#SBATCH -N 2\nseed: 1\n'
expect 0 'warning: j.yaml:3: batch systems do not read #SBATCH and #PBS lines below the first key' antipode plan j.yaml

# ---- overrides
job ''
expect 0 '"train_steps": 7' antipode plan j.yaml --json --set train_steps=7
expect 0 '"step_tokens": 640' antipode plan j.yaml --json --set batch.global_tokens=640
expect 3 "error: --set optim.lr: optim.lr must be a number above 0 and at most 10, not 'x'" antipode plan j.yaml --set optim.lr=x
expect 3 "error: --set optim.rl: unknown key 'optim.rl' (did you mean 'optim.lr'?)" antipode plan j.yaml --set optim.rl=1
expect 3 'error: --set data.train: data.train: weight must be a number above 0' antipode plan j.yaml \
    --set 'data.train=[{path: a, weight: 0}]'
expect 2 'error: --set optim.lr: must be KEY=VALUE' antipode plan j.yaml --set optim.lr

# ---- under a launcher: one message, the code of the verb
if command -v mpirun > /dev/null; then
    job 'optim: {lr: x}\n'
    expect 3 'j.yaml:3:13: optim.lr must be' mpirun -n 3 antipode train j.yaml
    checks=$((checks + 1))
    [ "$(grep -c 'optim.lr must be' <<< "$out")" = 1 ] || {
        echo 'FAIL: the message comes from more than one rank'
        failures=$((failures + 1))
    }
fi
finish
