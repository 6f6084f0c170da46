/* SPDX-License-Identifier: Apache-2.0
 * Which rank does what: the plan that was given, that of the run directory as long as the nodes are those it was made
 * for, or one from the job's own numbers. Rank 0 chooses, the others get its text. */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "train/trainer_impl.h"

/* Rank 0. The given plan, as far as it can be judged without the nodes. */
static ap_status read_given(struct ap_trainer *t, struct ap_plan **p, struct ap_error *err)
{
    AP_TRY(ap_plan_read(t->opt.plan, p, err));
    ap_status st = ap_plan_check_job(*p, t->job, t->comm->size, err);
    if (st != AP_OK)
        ap_error_at(err, t->opt.plan, 0, 0);
    return st;
}

ap_status ap_trainer_plan_check(struct ap_trainer *t, struct ap_error *err)
{
    struct ap_plan *p = NULL;
    char path[4096];
    ap_status st = AP_OK;
    int64_t planned = t->opt.plan != NULL;
    if (t->comm->rank == 0 && planned)
        st = read_given(t, &p, err);
    else if (t->comm->rank == 0 && ap_trainer_path(t, "plan.json", path, sizeof(path), NULL) == AP_OK)
        planned = access(path, F_OK) == 0;
    ap_plan_destroy(p);
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    AP_TRY(ap_comm_max_i64(t->comm, &planned, 1));
    if (planned)
        return AP_OK;
    AP_TRY(ap_plan_from_job(t->job, t->comm->size, NULL, &p, err));
    ap_plan_destroy(p);
    return AP_OK;
}

/* Is the plan for these nodes? One that does not say is for any. */
static int for_nodes(const struct ap_plan *p, const char *identity)
{
    return p->machine.identity[0] == 0 || strcmp(p->machine.identity, identity) == 0;
}

static ap_status given(struct ap_trainer *t, const char *identity, struct ap_plan **p, struct ap_error *err)
{
    AP_TRY(read_given(t, p, err));
    if (for_nodes(*p, identity))
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "the plan was made for other nodes, or for another order of the ranks");
    ap_error_at(err, t->opt.plan, 0, 0);
    ap_error_hint(err, "measure these with 'antipode probe' and make a new plan");
    return AP_ERR_INPUT;
}

/* That of an earlier start; NULL: there is none that holds any more. */
static void of_run(struct ap_trainer *t, const char *path, const char *identity, struct ap_plan **p)
{
    struct ap_error why = {0};
    if (access(path, F_OK) != 0)
        return;
    ap_status st = ap_plan_read(path, p, &why);
    if (st == AP_OK)
        st = ap_plan_check_job(*p, t->job, t->comm->size, &why);
    if (st == AP_OK && !for_nodes(*p, identity))
        st = ap_error_set(&why, AP_ERR_INPUT, "the nodes have changed");
    if (st == AP_OK)
        return;
    ap_events_emit(t->events, AP_LOG_WARN, 0, "changed",
                   "a new plan is made, since that of the run directory is not for "
                   "this start: %s",
                   why.text);
    ap_plan_destroy(*p);
    *p = NULL;
}

/* Rank 0. hosts: [ranks][AP_HOST_NAME]. *text_p malloc'ed. */
static ap_status choose(struct ap_trainer *t, const char *hosts, char **text_p, struct ap_error *err)
{
    int ranks = t->comm->size;
    char path[4096], identity[33];
    struct ap_plan *p = NULL;
    const char **nodes = calloc((size_t)ranks, sizeof(*nodes));
    for (int r = 0; nodes && r < ranks; r++)
        nodes[r] = hosts + (size_t)r * AP_HOST_NAME;
    ap_status st = nodes ? ap_plan_identity(ranks, nodes, identity) : AP_ERR_NOMEM;
    if (st == AP_OK)
        st = ap_trainer_path(t, "plan.json", path, sizeof(path), err);
    if (st == AP_OK && t->opt.plan)
        st = given(t, identity, &p, err);
    else if (st == AP_OK)
        of_run(t, path, identity, &p);
    if (st == AP_OK && !p)
        st = ap_plan_from_job(t->job, ranks, nodes, &p, err);
    if (st == AP_OK)
        st = ap_plan_write(p, path, err);
    struct ap_json j = {0};
    if (st == AP_OK) {
        ap_json_begin_object(&j, NULL);
        ap_plan_json(p, &j);
        ap_json_end_object(&j);
        *text_p = ap_strbuf_take(&j.text);
    }
    ap_plan_destroy(p);
    free(nodes);
    if (st == AP_ERR_NOMEM || (st == AP_OK && !*text_p))
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the plan");
    return st;
}

/* The text of rank 0 to everybody. */
static ap_status share(struct ap_comm *comm, char **text_p, struct ap_error *err)
{
    int64_t size = *text_p ? (int64_t)strlen(*text_p) + 1 : 0;
    AP_TRY(ap_comm_bcast(comm, &size, sizeof(size), 0));
    if (comm->rank != 0)
        *text_p = malloc((size_t)size);
    AP_TRY(ap_comm_agree(comm, *text_p ? AP_OK : AP_ERR_NOMEM, NULL, err));
    return ap_comm_bcast(comm, *text_p, size, 0);
}

static ap_status take(struct ap_trainer *t, const char *text, struct ap_error *err)
{
    AP_TRY(ap_plan_parse("plan.json", text, strlen(text), &t->plan, err));
    t->seqs = t->plan->micro_sequences;
    t->len = t->plan->seq_len;
    t->leaves = t->plan->global_sequences / t->seqs;
    return ap_stage_layout(t->plan, &t->layout, err);
}

ap_status ap_trainer_plan(struct ap_trainer *t, struct ap_error *err)
{
    char *hosts = NULL, *text = NULL;
    AP_TRY(ap_environment_hosts(t->comm, &hosts));
    ap_status st = ap_comm_agree(t->comm, t->comm->rank == 0 ? choose(t, hosts, &text, err) : AP_OK, NULL, err);
    if (st == AP_OK)
        st = share(t->comm, &text, err);
    if (st == AP_OK)
        st = ap_comm_agree(t->comm, take(t, text, err), NULL, err);
    free(hosts);
    free(text);
    return st == AP_OK ? ap_mesh_create(t->comm, &t->layout.shape, t->plan->place, &t->mesh, err) : st;
}
