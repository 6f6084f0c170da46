#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode plan on a machine: the layout, plan.json, and what users get wrong.
set -u
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
cd "$TMPDIR" || exit 99

cat > job.yaml << 'EOF'
name: plan-test
model: {preset: deepseek-v2-lite}
data: {train: data/none, seq_len: 2048}
batch: {global_sequences: 256, micro_sequences: 1}
train_steps: 10
dtype: bf16
recompute: true
EOF
cat > two.csv << 'EOF'
# antipode topology 1
# date 2026-11-25T09:00:00Z
kind,a,b,site,node,per_node,device,gflops,memory_gb,memory_gb_per_s,latency_us,gbit_per_s
rank,0-15,,oslo,o,8,gpu,200000,80,2000,,
rank,16-31,,perth,p,8,gpu,100000,80,2000,,
node,*,,,,,,,,,3,2400
site,*,,,,,,,,,15,400
link,oslo,perth,,,,,,,,140000,10
EOF
cat > one.csv << 'EOF'
# antipode topology 1
kind,a,b,site,node,per_node,device,gflops,memory_gb,memory_gb_per_s,latency_us,gbit_per_s
rank,0-7,,oslo,o,8,gpu,200000,200,2000,,
node,*,,,,,,,,,3,2400
EOF
cat > wan.csv << 'EOF'
src,dst,rtt_ms,gbit_per_s
a,b,30,5
b,c,80,4
a,c,,
EOF
plan=(antipode plan job.yaml)

expect 0 'deepseek-v2-lite: parameters' "${plan[@]}"
expect 0 '32 ranks on 4 nodes at 2 sites' "${plan[@]}" --topology two.csv
expect 0 'measured 2026-11-25T09:00:00Z' "${plan[@]}" --topology two.csv
for word in 'predicted step' compute LAN WAN bubble memory why runners-up 'simulated'; do
    expect 0 "$word" "${plan[@]}" --topology two.csv
done
expect 0 '2 links between sites are unknown: taken as the way over other sites' \
    "${plan[@]}" --wan wan.csv --ranks-per-node 8 --gflops 1e5 --memory-gb 80

# The content of plan.json holds together, and the same question gets the same answer.
expect 0 'runners-up' "${plan[@]}" --topology two.csv --out plan.json
"${plan[@]}" --topology two.csv --json > again.json
check 'the same plan again, but for the date' cmp <(grep -v '"date"' plan.json) <(grep -v '"date"' again.json)
if command -v python3 > /dev/null; then
    check 'plan.json' python3 - << 'EOF'
import json
p = json.load(open("plan.json"))
axes = p["parallel"]
assert p["format"] == "antipode-plan" and p["version"] == 1
assert axes["data"] * axes["tensor"] * axes["pipeline"] * axes["expert"] == 32 == p["machine"]["ranks"]
assert sorted(p["place"]) == list(range(32))
ranks = [p["place"].index(slot) for slot in range(32)]
tp = axes["tensor"]
assert all(len({r // 8 for r in ranks[i:i + tp]}) == 1 for i in range(0, 32, tp)), "a tensor group leaves its node"
block = tp * axes["expert"]
assert all(len({r // 16 for r in ranks[i:i + block]}) == 1 for i in range(0, 32, block)), "an expert group leaves its site"
counts = p["micro_batches"]
assert sum(counts) * p["micro_sequences"] == 256 == p["global_sequences"]
assert len(counts) == axes["data"] * axes["expert"] and len(p["stages"]) == axes["pipeline"]
at = 0
for s in p["stages"]:
    assert s["first_layer"] == at and s["layers"] > 0
    at += s["layers"]
assert at == 27
c = p["predicted"]
assert abs(c["compute_s"] + c["lan_s"] + c["wan_s"] + c["bubble_s"] - c["step_s"]) < 1e-9 * c["step_s"]
assert abs(c["simulated_step_s"] / c["step_s"] - 1) < 0.05
assert (len(p["schedules"]) > 1) == (p["parallel"]["pipeline"] > 1)
assert c["memory_part"] <= 1
steps = [c["step_s"]] + [r["predicted"]["step_s"] for r in p["runners_up"]]
assert steps == sorted(steps) and len(steps) == 5
EOF
    # What the job fixes stays.
    "${plan[@]}" --topology two.csv --json --set parallel.pipeline=4 --set parallel.tensor=2 > fixed.json
    check 'fixed axes' python3 -c 'import json; p = json.load(open("fixed.json"))["parallel"]; assert p["pipeline"] == 4 and p["tensor"] == 2'
    check 'schedules' python3 -c 'import json; s = json.load(open("fixed.json"))["schedules"]
assert [(x["schedule"], x["chunks"]) for x in s] == [("1f1b-deep", 1), ("interleaved", 2), ("interleaved", 3), ("interleaved", 4)]
assert abs(s[0]["simulated_step_s"] / json.load(open("fixed.json"))["predicted"]["simulated_step_s"] - 1) < 0.01'
    expect 0 'quickest that fits' "${plan[@]}" --topology two.csv --set parallel.pipeline=4
    # Zero-bubble needs the activations: where the job keeps them, it is weighed, or taken because the job says so.
    one=("${plan[@]}" --topology one.csv --set recompute=false --set parallel.pipeline=4 --set parallel.tensor=1
        --set parallel.data=2 --set batch.global_sequences=16)
    for schedule in auto 1f1b zero-bubble; do
        "${one[@]}" --json --set parallel.schedule=$schedule > $schedule.json
    done
    expect 0 'schedule zero-bubble' "${one[@]}"
    check 'zero-bubble' python3 - << 'EOF'
import json
a, p, z = (json.load(open(f + ".json")) for f in ("auto", "1f1b", "zero-bubble"))
assert a["schedule"] == z["schedule"] == "zero-bubble" and p["schedule"].startswith("1f1b")
for x in (a, z):
    c = x["predicted"]
    assert abs(c["compute_s"] + c["lan_s"] + c["wan_s"] + c["bubble_s"] - c["step_s"]) < 1e-9 * c["step_s"]
    assert c["step_s"] < 0.99 * p["predicted"]["simulated_step_s"] and c["bubble_s"] < p["predicted"]["bubble_s"]
    assert c["memory_bytes"] > p["predicted"]["memory_bytes"] and c["memory_part"] <= 1
    assert [s["in_flight"] for s in x["stages"]] == [4, 4, 4, 4]
    assert abs(c["memory_bytes"] / max(s["memory_bytes"] for s in x["stages"]) - 1) < 1e-9
assert [s["schedule"] for s in z["schedules"]] == ["zero-bubble"]
EOF
    expect 3 'schedule zero-bubble: the gradients of the weights come later, from activations that recompute does not keep' \
        "${plan[@]}" --topology two.csv --set parallel.schedule=zero-bubble
    expect 3 'schedule zero-bubble: pipeline 1 has no bubble to fill' "${one[@]}" --set parallel.schedule=zero-bubble --set parallel.pipeline=1
    "${plan[@]}" --topology two.csv --json --micro-sequences auto > micro.json
    check 'more to choose from is no worse' python3 -c 'import json
a, b = (json.load(open(f))["predicted"]["step_s"] for f in ("micro.json", "plan.json")); assert a <= b'
fi

# What cannot be says why; mistakes name their place.
expect 2 'a layout is planned for a job, not for --model' antipode plan --model tiny-v3 --topology two.csv
expect 2 '--out is where a layout goes, and that needs a machine' "${plan[@]}" --out p.json
expect 3 'none/p.json' "${plan[@]}" --topology two.csv --out none/p.json
expect 2 '--wan' "${plan[@]}" --topology two.csv --wan wan.csv
expect 2 'antipode plan has no option --topolgy (did you mean --topology?)' "${plan[@]}" --topolgy two.csv
expect 3 'none.csv' "${plan[@]}" --topology none.csv
expect 3 "wan.csv:1:1: the header has no column 'kind' (a plain matrix between sites is given by --wan)" "${plan[@]}" --topology wan.csv
expect 3 "two.csv:3:1: the header has no column 'src' (a topology.csv is given by --topology)" "${plan[@]}" --wan two.csv
sed 's/^rank,16/rnak,16/' two.csv > typo.csv
expect 3 "typo.csv:5:1: there is no kind of line 'rnak' (did you mean 'rank'?)" "${plan[@]}" --topology typo.csv
sed 's/^link.*//' two.csv > apart.csv
expect 3 "no link joins the sites 'oslo' and 'perth'" "${plan[@]}" --topology apart.csv
sed 's/,80,/,8,/' two.csv > small.csv
expect 3 'no layout of 32 ranks fits into memory: the smallest' "${plan[@]}" --topology small.csv
expect 3 "tensor 16: node 'o0' has 8 ranks, and a tensor group stays inside a node" "${plan[@]}" --topology two.csv --set parallel.tensor=16
expect 3 'parallel.data is 3, but a step has only 2 micro-batches' "${plan[@]}" --topology two.csv --set parallel.data=3 --set batch.global_sequences=2
expect 3 "32 ranks cannot be shared out as the job's parallel section says" "${plan[@]}" --topology two.csv --set parallel.data=5
expect 3 '256 sequences of a step are no multiple of micro-batches of 3' "${plan[@]}" --topology two.csv --micro-sequences 3
expect 2 '--nodes-per-site' "${plan[@]}" --wan wan.csv --nodes-per-site 0
finish
