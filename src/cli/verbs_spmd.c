/* SPDX-License-Identifier: Apache-2.0
 * Descriptions of the verbs that antipode-train runs. Linked into both programs: antipode answers --help and
 * writes the man pages without MPI. */
#include "config.h"

#include "cli/verbs.h"

static const struct ap_option train_flags[] = {
    {.key = "plan",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_train_flags, plan),
     .default_words = "that of the run directory, else what the job's parallel section says",
     .doc = "A plan.json of 'antipode plan': which rank does what. Where the run directory has one and the nodes are "
            "those it was made for, a run that is started again follows it without this flag."},
    {.key = "replay",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_train_flags, replay),
     .doc = "A decisions.jsonl of another run: take its choices (backend, threads) instead of making new ones, so that "
            "the same job gives the same bits on another machine of that instruction set."},
    {.key = "reprod",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct ap_train_flags, reprod),
     .fallback = "false",
     .doc = "Let nothing depend on the machine's size: one thread per process unless the job says otherwise."},
    {.key = "trace",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_train_flags, trace),
     .doc = "Write a trace of steps to this file: open it in Perfetto (ui.perfetto.dev) or chrome://tracing. "
            "All processes of the run are in it, one row for each of their threads."},
    {.key = "trace-steps",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_train_flags, trace_steps),
     .default_words = "the first 10 of this start",
     .doc =
         "Steps to trace: one, or the first and the last with a dash between them (100-120). Other steps run at full "
         "speed."},
};

const struct ap_verb ap_verb_desc_train = {
    .name = "train",
    .operands = "JOB",
    .min_operands = 1,
    .max_operands = 1,
    .takes = AP_VERB_SETS,
    .summary = "train the model of a job file (one process of the parallel program)",
    .doc =
        "Trains as JOB says, on all processes that mpirun or srun started: 'mpirun -n 4 antipode train JOB'. Without "
        "a launcher one process trains alone. The run directory (runs/NAME) receives the resolved job, metrics, "
        "events, decisions, checkpoints and summary.json.\n\n"
        "Started again, the same command goes on from the newest intact checkpoint, bit for bit, on any number of "
        "processes. SIGTERM and SIGUSR2 ask the run to finish its step, save and end with exit code 5; a second "
        "one is not waited for.\n\n"
        "The last line on standard output is VALID or INVALID: reason; 'FOM name=value unit' lines stand before it.",
    .flags = train_flags,
    .flag_count = sizeof train_flags / sizeof train_flags[0],
};

static const struct ap_option eval_flags[] = {
    {.key = "step",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_eval_flags, step),
     .fallback = "newest",
     .doc = "Which state to evaluate: newest, best, or a step number."},
    {.key = "dir",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_eval_flags, dir),
     .default_words = "the checkpoint directory of the job",
     .doc = "Directory of the states."},
};

const struct ap_verb ap_verb_desc_eval = {
    .name = "eval",
    .operands = "JOB",
    .min_operands = 1,
    .max_operands = 1,
    .takes = AP_VERB_SETS | AP_VERB_JSON,
    .summary = "validation loss of a saved state",
    .doc = "Loads a state of the job's checkpoint directory and computes the loss over the validation data of JOB, as "
           "training does: 'mpirun -n 4 antipode eval JOB --step best'. Nothing is written.",
    .flags = eval_flags,
    .flag_count = sizeof eval_flags / sizeof eval_flags[0],
};

static const struct ap_option selftest_flags[] = {
    {.key = "golden",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_selftest_flags, golden),
     .doc = "Folder of golden numbers, or a folder of such folders, to compare against."},
    {.key = "backend",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_selftest_flags, backend),
     .fallback = "auto",
     .choices = "auto|cpu|onednn|cuda|reference",
     .doc = "Backend under test."},
    {.key = "dtype",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_selftest_flags, dtype),
     .fallback = "f32",
     .choices = "f32|f64|bf16",
     .doc = "Precision of the computation; f64 is held to the limits of f32, bf16 to its own."},
    {.key = "threads",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct ap_selftest_flags, threads),
     .fallback = "auto",
     .min = 1,
     .max = 1024,
     .flags = AP_OPT_AUTO,
     .doc = "Threads of each process."},
};

const struct ap_verb ap_verb_desc_selftest = {
    .name = "selftest",
    .operands = "",
    .takes = AP_VERB_JSON,
    .summary = "check this installation against numbers that are known",
    .doc =
        "The model of DIR/config.json is run on DIR/tokens.npy, and logits, losses, every gradient, the optimizer "
        "steps "
        "and the routing are compared with the files there; the worst difference of each quantity is printed. Without "
        "--golden the two small cases that come with the program are checked. Exit code 7 where a quantity is out of "
        "tolerance.",
    .flags = selftest_flags,
    .flag_count = sizeof selftest_flags / sizeof selftest_flags[0],
};

static const struct ap_option bench_flags[] = {
    {.key = "backend",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_bench_flags, backend),
     .choices = "auto|cpu|onednn|cuda|reference",
     .default_words = "the job's backend",
     .doc = "Backend to measure."},
    {.key = "threads",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct ap_bench_flags, threads),
     .fallback = "auto",
     .min = 1,
     .max = 1024,
     .flags = AP_OPT_AUTO,
     .doc = "Threads of each process; auto: the job's number, or all processors."},
    {.key = "repeats",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct ap_bench_flags, repeats),
     .fallback = "5",
     .min = 1,
     .max = 1000,
     .doc = "Measured steps; the median and the extremes are printed."},
    {.key = "recompute",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct ap_bench_flags, recompute),
     .fallback = "false",
     .doc = "Compute activations again in backward instead of keeping them."},
    {.key = "no-replay",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct ap_bench_flags, no_replay),
     .fallback = "false",
     .doc = "Leave out the replay, which takes longer than the steps: to compare speeds."},
    {.key = "trace",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_bench_flags, trace),
     .doc = "Write a trace of measured and unmeasured steps to this file: open it in Perfetto (ui.perfetto.dev) or "
            "chrome://tracing. "
            "All processes of the run are in it, one row for each of their threads."},
    {.key = "trace-steps",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_bench_flags, trace_steps),
     .default_words = "the first 10",
     .doc = "Steps to trace (1 is the warm-up; 2, which makes the list of the replay, is left out): one, or the first "
            "and the last with a dash between them (100-120). Traced steps are a little slower: "
            "look elsewhere for figures."},
};

const struct ap_verb ap_verb_desc_bench = {
    .name = "bench",
    .operands = "step|op JOB",
    .min_operands = 2,
    .max_operands = 2,
    .takes = AP_VERB_SETS | AP_VERB_JSON,
    .summary = "measure the training step of a job beside the limits of the machine",
    .doc = "Times the training step of JOB on random tokens; data files are not needed and nothing is written. 'step' "
           "prints "
           "tokens/s, the share of the GEMM peak, memory, and the ratio to a GEMM-only replay: the matrix products of "
           "the same "
           "step in the same order and nothing else, each by the fastest engine found, interleaved with the steps. "
           "'op' prints "
           "for each operation what it reached and the limit that binds it. Under mpirun every rank takes part.",
    .flags = bench_flags,
    .flag_count = sizeof bench_flags / sizeof bench_flags[0],
};

static const struct ap_option probe_flags[] = {
    {.key = "out",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_probe_flags, out),
     .fallback = "topology.csv",
     .doc = "The measured machine, for 'antipode plan JOB --topology'; a file of that name is replaced."},
    {.key = "svg",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct ap_probe_flags, svg),
     .doc = "Write a heat map of round trips and bandwidths to this file."},
    {.key = "sites",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_probe_flags, sites),
     .default_words = "found by the round trips between nodes",
     .doc =
         "Which hosts are which site: NAME=PATTERN,NAME=PATTERN with patterns of host names as the shell knows them; a "
         "name may come more than once, the first pattern that fits counts."},
    {.key = "quick",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct ap_probe_flags, quick),
     .fallback = "false",
     .doc =
         "Less time: shorter runs, each once, whatever they look like. Links that lose packets, or whose round trips "
         "vary, may come out too slow."},
    {.key = "seconds",
     .kind = AP_OPT_REAL,
     .offset = offsetof(struct ap_probe_flags, seconds),
     .fallback = "auto",
     .min = 0.001,
     .max = 60,
     .flags = AP_OPT_AUTO,
     .default_words = "0.06 to 0.3 by the number of sites, with --quick 0.05",
     .doc = "Length of a run between two sites; longer ones see more of what varies."},
    {.key = "streams",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct ap_probe_flags, streams),
     .fallback = "4",
     .min = 1,
     .max = 16,
     .doc = "Connections between two sites at once, each between two ranks of its own: what several reach together is "
            "the link's bandwidth. As many as the sites have ranks, at most."},
    {.key = "backend",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_probe_flags, backend),
     .fallback = "auto",
     .choices = "auto|cpu|onednn|cuda|reference",
     .doc = "Backend whose speed is measured; auto: the job's."},
    {.key = "dtype",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct ap_probe_flags, dtype),
     .fallback = "f32",
     .choices = "f32|bf16",
     .doc = "Without JOB, data type of the matrix product that is measured."},
    {.key = "threads",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct ap_probe_flags, threads),
     .fallback = "auto",
     .min = 1,
     .max = 1024,
     .flags = AP_OPT_AUTO,
     .doc = "Threads of each process for it."},
};

const struct ap_verb ap_verb_desc_probe = {
    .name = "probe",
    .operands = "[JOB]",
    .max_operands = 1,
    .takes = AP_VERB_SETS | AP_VERB_JSON,
    .summary = "measure the machine: speed of ranks, latency and bandwidth between them",
    .doc =
        "Started on all processes by mpirun or srun: 'mpirun -n 16 antipode probe'. Measures the speed of every "
        "rank, and "
        "the links on three levels: inside nodes, between the nodes of a site, between sites. In every round each "
        "rank has one partner, so that nothing is measured while something else runs over the same link; then every "
        "site "
        "sends to all others at once, and receives from all at once, which shows the caps of sites.\n\n"
        "With JOB the speed is that of micro-batches of the job's own model, and of its optimizer, in the job's data "
        "type, on its backend and with its threads, for each kind of layer, and as ranks of a tensor or an expert "
        "group would share them; the ranks of a node time collectives and sums of gradients together. Then "
        "'antipode plan' predicts the job's step in seconds. Without "
        "it the speed is that of a large matrix product: enough to tell ranks from each other, but a step does not "
        "reach it.\n\n"
        "Writes the machine to topology.csv, from which 'antipode plan JOB --topology topology.csv' arranges a job, "
        "and "
        "prints what it found: levels, sites with their caps, links whose directions differ, regions. The method "
        "is in docs/probe.md.\n\n"
        "  mpirun -n 16 antipode probe --svg machine.svg\n"
        "  mpirun -n 16 antipode probe inputs/bench-s.yaml --out bench-s.csv\n"
        "  mpirun --host a1,a2,b1 antipode probe --sites 'oslo=a*,perth=b*' --quick",
    .flags = probe_flags,
    .flag_count = sizeof probe_flags / sizeof probe_flags[0],
};
