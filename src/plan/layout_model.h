/* SPDX-License-Identifier: Apache-2.0
 * Inside of the layout model: shared by layout_work.c (what stages are made of and what that takes), layout_cost.c
 * (what a layout costs), layout_split.c (layers over stages), layout_place.c (ranks over the grid) and layout.c (the
 * search). */
#ifndef AP_PLAN_LAYOUT_MODEL_H
#define AP_PLAN_LAYOUT_MODEL_H

#include "plan/layout.h"
#include "plan/pipe_schedule.h"

/* What a contiguous range of layers, with the ends that go with it, consists of; per token where it says so. */
struct ap_stage_load {
    double kinds[AP_WORK_KINDS]; /* how many layers of each kind, and ends */
    double dense, routed;        /* parameters */
    double shared;               /* of the dense ones, those that a tensor group does not share out */
    double saved;                /* bytes kept per token and micro-batch in flight */
    double held;                 /* bytes per token held once: logits, a recomputed layer, gradients of activations */
    double calls, calls_forward; /* gathers and sums of a tensor group per micro-batch, of all and of its forward, */
    double width, width_forward; /* numbers per token in them */
    double exchanges, exchanges_forward; /* all-to-alls of the experts' rows per micro-batch */
    double late;                         /* bytes per token and micro-batch between the halves of a split backward; */
    double late_held;                    /* what of held is in it already, for the first of them */
};

/* What of a site takes part in a sum of gradients. */
struct ap_site_use {
    int mark, nodes, fewest; /* fewest cells on one of the nodes */
    int first, last;         /* first and last node, in the order of the ring */
    struct ap_topo_link worst;
};

/* What the closed form needs of a pipeline. */
struct ap_pipe_shape {
    double fill;   /* one micro-batch there and back */
    double period; /* of the slowest stage or link */
    int slow;      /* slowest stage */
    int like;      /* the first pipeline of a run of equal ones */
};

struct ap_layout_model {
    struct ap_layout_problem p;   /* topo and cfg borrowed */
    struct ap_stage_load *sum;    /* [layers + 1] over the layers before */
    struct ap_stage_load front;   /* embedding: what goes with the first layer, */
    struct ap_stage_load back[2]; /* head and MTP: with the last; [1]: on another stage than the embedding */
    double largest_scratch;       /* of a layer's backward */
    double largest_saved;         /* bytes per token of the largest layer */
    /* Scratch. */
    struct ap_layout_stage *stage; /* [pipeline * data], up to the number of ranks */
    double *load;                  /* [sites][sites] bytes, then egress [sites], ingress [sites] */
    int *position, *node_at;       /* [nodes] place in the order of sites and rings, and back */
    int *mark, *count, *list;      /* [nodes]; mark: stamp of the last use */
    int *site_list;                /* [sites] */
    struct ap_site_use *site_use;  /* [sites] */
    int stamp;
    double *beyond;                          /* [stages] from behind a stage to the last and back */
    double *open;                            /* [stages] windows of one pipeline */
    double *pipe, *then;                     /* [data] seconds of each pipeline, with one round more */
    struct ap_pipe_shape *shape;             /* [data] */
    double *table;                           /* [layers + 1][layers + 1], of the split by stages or chunks */
    int *choice, *kept;                      /* the same; [stages + 1] */
    struct ap_stage_links *links;            /* [stages] */
    double *line;                            /* [layers + 1] seconds of the layers before each, on one stage */
    double most_memory;                      /* bytes of the largest rank */
    double fastest;                          /* FLOP/s of the fastest rank */
    double flops[AP_WORK_KINDS];             /* operations per token, forward and backward, recomputation included */
    double flops_forward[AP_WORK_KINDS];     /* of these, what runs in forwards, */
    double flops_weight[AP_WORK_KINDS];      /* and for gradients of weights */
    double fastest_part;                     /* of all work, what the fastest rank does if nothing keeps any from it */
    double best_sum;                         /* the fastest sum of gradients in a node, or 0 */
    double farthest;                         /* latency of the longest link between any two ranks */
    struct ap_topo_link best_node, best_lan; /* lowest latency and highest bandwidth of any */
    int64_t tried;
};

/* fmax and fmin are calls, because of NaN, which does not occur here. */
static inline double larger(double a, double b)
{
    return a > b ? a : b;
}
static inline double smaller(double a, double b)
{
    return a < b ? a : b;
}

static inline struct ap_topo_link worse_link(struct ap_topo_link a, struct ap_topo_link b)
{
    return (struct ap_topo_link){larger(a.latency, b.latency), smaller(a.bandwidth, b.bandwidth)};
}
static inline double ap_layout_tokens(const struct ap_layout_model *m, const struct ap_layout *l)
{
    return (double)(l->micro_sequences * m->p.seq_len);
}

/* Fill m->sum, front, back, and the operations of each kind. */
void ap_layout_count(struct ap_layout_model *m);
/* Layers first .. end - 1 with the ends that go with them. */
void ap_layout_load(const struct ap_layout_model *m, int first, int end, struct ap_stage_load *load_p);
/* Steps to compare layouts by: those that do not fit come behind all that do. */
double ap_layout_score(const struct ap_layout *l);
struct ap_stage_links {
    double speed;                       /* FLOP/s of the slowest rank */
    const struct ap_work *work;         /* measured of it, or NULL */
    double scale;                       /* its seconds count so many times */
    struct ap_topo_link tensor, expert; /* worst inside a tensor group, an expert group */
};
/* Seconds of a micro-batch for one of each: the time of a stage is linear in its load. */
struct ap_stage_rate {
    struct ap_work_time kinds[AP_WORK_KINDS];
    double weight[AP_WORK_KINDS]; /* of the backward, what gradients of weights alone take */
    double dense, shared, routed; /* of a parameter: its gradient cleared, and added to that of other micro-batches */
    double call, width, exchange;
};
struct ap_stage_rate ap_layout_stage_rate(const struct ap_layout_model *m, const struct ap_layout *l,
                                          const struct ap_stage_links *links);
/* The best that any block of these sizes can have. */
struct ap_stage_rate ap_layout_best_rate(const struct ap_layout_model *m, const struct ap_layout *sizes);
/* Seconds of one micro-batch, forward and backward. */
double ap_layout_rate_time(const struct ap_stage_rate *r, const struct ap_stage_load *load);
/* Worst links and slowest rank of block (s, d). */
void ap_layout_block_links(struct ap_layout_model *m, const struct ap_layout *l, int s, int d,
                           struct ap_stage_links *links_p);

/* Several chunks of layers on each stage: virtual stage c * pipeline + s has layers first[.] .. first[. + 1] - 1. */
struct ap_layout_chunks {
    int count;
    int *first; /* [count * pipeline + 1] */
};
/* The split with the shortest longest virtual stage, into c->first; count * pipeline is at most the number of layers.
 */
void ap_layout_split_chunks(struct ap_layout_model *m, const struct ap_layout *l, struct ap_layout_chunks *c);
/* Times of pipeline d, [virtual stages]. */
void ap_layout_chunk_times(struct ap_layout_model *m, const struct ap_layout *l, int d,
                           const struct ap_layout_chunks *c, struct ap_layout_stage *k);
/* Micro-batches that a stage keeps at a time: in slots, each for the largest chunk; of these, between the halves of a
 * split backward. */
struct ap_layout_flight {
    double slots, late;
};
/* Of the pipeline with the most of them, by this schedule, whatever its micro-batches. */
struct ap_layout_flight ap_layout_flight_of(const struct ap_layout *l, struct ap_pipe_spec spec, int s);
struct ap_pipe_spec ap_layout_zero_bubble(const struct ap_layout *l);
/* Bytes on a rank of stage s; bytes that it may fill. */
double ap_layout_chunk_memory(const struct ap_layout_model *m, const struct ap_layout *l, int s,
                              const struct ap_layout_chunks *c, struct ap_layout_flight flight);
double ap_layout_room(const struct ap_layout_model *m, const struct ap_layout *l, int s);

/* Split the layers over the stages for the placement in l; sets l->first and the cost. thorough: also splits that are
 * not the best balanced ones, for few ranks. */
void ap_layout_split(struct ap_layout_model *m, struct ap_layout *l, int thorough);
/* No layout of these sizes and micro-batches takes less than this many seconds; fills less of a rank's memory than this
 * part. */
double ap_layout_lower_bound(const struct ap_layout_model *m, const struct ap_layout *sizes);
double ap_layout_least_memory(const struct ap_layout_model *m, const struct ap_layout *sizes, double *bytes_p);

/* ---- placements ---- */

struct ap_placer; /* the orders in which ranks are dealt out */
ap_status ap_placer_create(const struct ap_topology *t, struct ap_placer **pl_p, struct ap_error *err);
void ap_placer_destroy(struct ap_placer *pl); /* NULL is fine */
/* 1 with the reason in buf if the groups of these sizes do not fit into nodes and sites. */
int ap_placer_refused(const struct ap_placer *pl, const struct ap_layout *sizes, char *buf, size_t size);
/* Put starting placement v = 0, 1, ... into l->rank; 0: there are no more. */
int ap_placer_place(struct ap_placer *pl, int v, struct ap_layout *l);
/* Exchange ranks, cells and blocks while that helps, from l itself and from some shuffles of it; at most budget layouts
 * are tried. spare: of the same sizes. */
void ap_layout_improve(struct ap_layout_model *m, struct ap_layout *l, struct ap_layout *spare, int64_t budget);

#endif
