/* SPDX-License-Identifier: Apache-2.0
 * Which rank does what: the search for the layout with the shortest predicted step, and the model of a step's cost. The
 * model and its assumptions are written down in docs/planner.md; the numbers of a layout are a function of (problem,
 * layout) alone. Pure arithmetic, no MPI, no threads; nothing here reads a clock, so a search gives the same plan every
 * time.
 *
 * The grid has the axes pipeline (stages), data, expert and tensor; rank[((s * data + d) * expert + e) * tensor + t].
 * A cell is the tensor ranks of one (s, d, e), inside one node; a block is the cells of one (s, d), inside one site; a
 * round is one micro-batch on each cell of a block. All ranks are used. */
#ifndef AP_PLAN_LAYOUT_H
#define AP_PLAN_LAYOUT_H

#include <stdint.h>
#include "base/status.h"
#include "plan/model_config.h"
#include "plan/topology.h"

/* Share of a rank's memory that a plan may fill; the rest is for libraries and buffers of transports. */
#define AP_LAYOUT_MEMORY_SHARE 0.9

/* Order of the work on pipelines. The search compares layouts by 1F1B; ap_pipe_decide (pipe_choice.h) then looks at
 * zero-bubble where it may, or must, be. */
enum ap_layout_schedule { AP_LAYOUT_1F1B, AP_LAYOUT_ANY, AP_LAYOUT_ZERO_BUBBLE };

struct ap_layout_problem {
    const struct ap_topology *topo;    /* borrowed */
    const struct ap_model_config *cfg; /* borrowed */
    const struct ap_work *work;        /* [ranks], borrowed: measured with this job; NULL: ranks have one speed each */
    int64_t seq_len, global_sequences;
    int64_t micro_sequences; /* per micro-batch; 0: searched among the divisors of global_sequences */
    int element_size;        /* of activations: 4 (fp32), 2 (bf16) */
    int recompute;
    int schedule;                           /* enum ap_layout_schedule */
    int64_t data, tensor, pipeline, expert; /* fixed, or -1: searched */
};

/* Seconds of a step and what they are spent on; step is the sum of compute, lan, wan and bubble. Seen from the slowest
 * stage of the slowest pipeline. */
struct ap_layout_cost {
    double step;
    double compute; /* its own arithmetic, and the optimizer */
    double lan;     /* waiting for tensor, expert and data communication inside of sites, and for stages there */
    double wan;     /* the same between sites */
    double bubble;  /* the pipeline filling and draining */
    double sync_lan, sync_wan, optimizer; /* parts of the above */
    double pipe;                          /* step without these three */
    double memory;                        /* bytes, of the rank that is nearest to its limit */
    double memory_part;                   /* that, over what the rank may fill: above 1 it does not fit */
    int memory_stage, slow_pipe, slow_stage;
};

struct ap_layout {
    int tensor, expert, pipeline, data;
    int64_t micro_sequences;
    int deep;   /* 1: as many micro-batches in flight as hide the ways between stages; 0: at most 1F1B's number */
    int *rank;  /* [pipeline][data][expert][tensor] */
    int *first; /* [pipeline + 1] layers of stage s: first[s] .. first[s + 1] - 1; ends and MTP go with the outer stages
                 */
    int64_t *rounds; /* [data] micro-batches that each cell of pipeline d does in a step; set by ap_layout_cost */
    int64_t *window; /* [pipeline][data] micro-batches in flight from stage s on; set by ap_layout_cost */
    struct ap_layout_cost cost;
};

struct ap_layout *ap_layout_create(int tensor, int expert, int pipeline, int data); /* zeroed; NULL: out of memory */
void ap_layout_destroy(struct ap_layout *l);                                        /* NULL is fine */
/* to has the same sizes as from. */
void ap_layout_copy(struct ap_layout *to, const struct ap_layout *from);
int ap_layout_rank(const struct ap_layout *l, int s, int d, int e, int t);

/* The model: what the layers cost, and scratch memory. Not for two threads at once. */
struct ap_layout_model;
ap_status ap_layout_model_create(const struct ap_layout_problem *p, struct ap_layout_model **m_p, struct ap_error *err);
void ap_layout_model_destroy(struct ap_layout_model *m); /* NULL is fine */

/* Why no layout of these sizes and micro-batches can be, whatever the placement: a sentence in buf, returns 1. 0: there
 * may be one. */
int ap_layout_refused(const struct ap_layout_model *m, const struct ap_layout *sizes, char *buf, size_t size);
/* Fill cost, rounds and window from sizes, rank and first. The placement keeps tensor groups inside nodes and expert
 * groups inside sites (checked by ap_layout_placed). Does not allocate. */
void ap_layout_cost(struct ap_layout_model *m, struct ap_layout *l);
/* 1 if every rank stands exactly once and the groups are where they have to be. */
int ap_layout_placed(const struct ap_layout_model *m, const struct ap_layout *l);

/* Times of one micro-batch on stage s of pipeline d, for the simulation and the report; valid after ap_layout_cost of
 * this layout until the next call of it. */
struct ap_layout_stage {
    double forward, backward; /* with the communication inside */
    double weight;            /* of the backward, what gradients of weights alone take */
    double compute;           /* of forward and backward together, without communication */
    struct {
        double latency, occupied; /* seconds; occupied: that the link is busy with one transfer */
        int wan;
    } ahead, back; /* activations to stage s + 1, gradients from it; zero on the last stage */
};
const struct ap_layout_stage *ap_layout_stage(const struct ap_layout_model *m, const struct ap_layout *l, int s, int d);
/* Bytes on a rank of stage s. */
double ap_layout_memory(const struct ap_layout_model *m, const struct ap_layout *l, int s);

/* Gathers and sums that a rank of a tensor group takes part in for a micro-batch of the whole model, and the numbers
 * per token in all of them. */
void ap_layout_tensor_traffic(const struct ap_model_config *cfg, int recompute, double *calls_p, double *width_p);

/* ---- the search ---- */

#define AP_LAYOUT_REASONS 8

struct ap_layout_plan {
    int count; /* best first; at most `keep` of them, of different sizes */
    struct ap_layout **best;
    int64_t tried;   /* layouts whose cost was computed */
    int64_t sizes;   /* (tensor, expert, pipeline, data, micro-batch) that could be */
    int64_t pruned;  /* of these, by their lower bound */
    int64_t too_big; /* of these, by their memory */
    int reasons;     /* why sizes could not be, each once */
    char reason[AP_LAYOUT_REASONS][160];
};

/* The best layouts that the search finds. AP_ERR_INPUT with the reason when there is none. ap_layout_plan_clear in any
 * case. */
ap_status ap_layout_search(struct ap_layout_model *m, int keep, struct ap_layout_plan *plan, struct ap_error *err);
void ap_layout_plan_clear(struct ap_layout_plan *plan);

#endif
