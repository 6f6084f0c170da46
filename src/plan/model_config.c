/* SPDX-License-Identifier: Apache-2.0
 * The model configuration as JSON: reading a config.json by one field table, the same table backwards for
 * writing, presets. The checks on shapes are in model_check.c, the counts in model_count.c. */
#include "config.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "backend/ops.h"
#include "base/io.h"
#include "base/paths.h"
#include "base/suggest.h"
#include "plan/model_config.h"

#define CONFIG_MAX_BYTES (4u << 20)

enum field_kind { FIELD_INT, FIELD_REAL, FIELD_BOOL };

/* need: always, or only where there are routed experts. */
enum field_need { NEED_NO, NEED_YES, NEED_MOE };

struct field {
    const char *key;
    size_t offset;
    enum field_kind kind;
    enum field_need need;
    double fallback; /* where absent or null */
};

#define AT(member) offsetof(struct ap_model_config, member)
/* In the order of the published files. */
static const struct field fields[] = {
    {"vocab_size", AT(vocab_size), FIELD_INT, NEED_YES, 0},
    {"hidden_size", AT(hidden_size), FIELD_INT, NEED_YES, 0},
    {"intermediate_size", AT(intermediate_size), FIELD_INT, NEED_YES, 0},
    {"moe_intermediate_size", AT(moe_intermediate_size), FIELD_INT, NEED_MOE, 0},
    {"num_hidden_layers", AT(layers), FIELD_INT, NEED_YES, 0},
    {"num_attention_heads", AT(heads), FIELD_INT, NEED_YES, 0},
    {"n_shared_experts", AT(shared_experts), FIELD_INT, NEED_NO, 0},
    {"n_routed_experts", AT(routed_experts), FIELD_INT, NEED_NO, 0},
    {"num_experts_per_tok", AT(experts_per_token), FIELD_INT, NEED_MOE, 0},
    {"routed_scaling_factor", AT(routed_scaling), FIELD_REAL, NEED_NO, 1.0},
    {"q_lora_rank", AT(q_lora_rank), FIELD_INT, NEED_NO, 0},
    {"kv_lora_rank", AT(kv_lora_rank), FIELD_INT, NEED_YES, 0},
    {"qk_nope_head_dim", AT(nope_dim), FIELD_INT, NEED_YES, 0},
    {"qk_rope_head_dim", AT(rope_dim), FIELD_INT, NEED_YES, 0},
    {"v_head_dim", AT(v_dim), FIELD_INT, NEED_YES, 0},
    {"n_group", AT(groups), FIELD_INT, NEED_NO, 1},
    {"topk_group", AT(groups_kept), FIELD_INT, NEED_NO, 1},
    {"norm_topk_prob", AT(norm_topk), FIELD_BOOL, NEED_NO, 0},
    {"first_k_dense_replace", AT(first_dense), FIELD_INT, NEED_NO, 0},
    {"moe_layer_freq", AT(moe_layer_freq), FIELD_INT, NEED_NO, 1},
    {"max_position_embeddings", AT(max_position), FIELD_INT, NEED_NO, 4096},
    {"initializer_range", AT(init_std), FIELD_REAL, NEED_NO, 0.02},
    {"rms_norm_eps", AT(rms_eps), FIELD_REAL, NEED_NO, 1e-6},
    {"rope_theta", AT(rope_theta), FIELD_REAL, NEED_NO, 10000.0},
    {"aux_loss_alpha", AT(aux_loss_alpha), FIELD_REAL, NEED_NO, 0.0},
    {"seq_aux", AT(seq_aux), FIELD_BOOL, NEED_NO, 1},
    {"num_nextn_predict_layers", AT(mtp_depth), FIELD_INT, NEED_NO, 0},
    {"device_groups", AT(device_groups), FIELD_INT, NEED_NO, -1},
    {"device_groups_kept", AT(device_groups_kept), FIELD_INT, NEED_NO, -1},
};
static const struct field yarn_fields[] = {
    {"factor", AT(yarn.factor), FIELD_REAL, NEED_YES, 0},
    {"original_max_position_embeddings", AT(yarn.original_max_position), FIELD_INT, NEED_YES, 0},
    {"beta_fast", AT(yarn.beta_fast), FIELD_REAL, NEED_NO, 32},
    {"beta_slow", AT(yarn.beta_slow), FIELD_REAL, NEED_NO, 1},
    {"mscale", AT(yarn.mscale), FIELD_REAL, NEED_NO, 1},
    {"mscale_all_dim", AT(yarn.mscale_all_dim), FIELD_REAL, NEED_NO, 0},
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* One file being read. */
struct reader {
    const char *path, *text;
    size_t size;
    struct ap_model_config *cfg;
    struct ap_error *err;
};

static void position_of(const char *text, size_t offset, long *line_p, long *column_p)
{
    long line = 1, column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else {
            column++;
        }
    }
    *line_p = line;
    *column_p = column;
}

/* The JSON tree keeps no positions, so look the key up in the text; 0 where it is not there. */
static void locate_key(const struct reader *r, const char *key)
{
    char quoted[80];
    long line = 0, column = 0;
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(r->text, quoted);
    if (at != NULL)
        position_of(r->text, (size_t)(at - r->text), &line, &column);
    ap_error_at(r->err, r->path, line, column);
}

static ap_status bad_value(const struct reader *r, const char *key, const char *wanted)
{
    ap_error_set(r->err, AP_ERR_INPUT, "%s must be %s", key, wanted);
    locate_key(r, key);
    return AP_ERR_INPUT;
}

static ap_status read_field(const struct reader *r, yyjson_val *object, const struct field *f)
{
    char *base = (char *)r->cfg;
    yyjson_val *v = yyjson_obj_get(object, f->key);
    int absent = v == NULL || yyjson_is_null(v);
    int needed = f->need == NEED_YES || (f->need == NEED_MOE && r->cfg->routed_experts > 0);
    if (absent && needed) {
        ap_error_set(r->err, AP_ERR_INPUT, "the model configuration has no %s", f->key);
        ap_error_at(r->err, r->path, 0, 0);
        return AP_ERR_INPUT;
    }
    switch (f->kind) {
    case FIELD_INT:
        if (!absent && !yyjson_is_int(v))
            return bad_value(r, f->key, "an integer");
        if (!absent && yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)
            return bad_value(r, f->key, "below 2^63");
        *(int64_t *)(void *)(base + f->offset) = absent ? (int64_t)f->fallback : yyjson_get_sint(v);
        return AP_OK;
    case FIELD_REAL:
        if (!absent && !yyjson_is_num(v))
            return bad_value(r, f->key, "a number");
        *(double *)(void *)(base + f->offset) = absent ? f->fallback : yyjson_get_num(v);
        return AP_OK;
    case FIELD_BOOL:
        if (!absent && !yyjson_is_bool(v))
            return bad_value(r, f->key, "true or false");
        *(int *)(void *)(base + f->offset) = absent ? (int)f->fallback : yyjson_get_bool(v);
        return AP_OK;
    }
    return AP_OK;
}

static ap_status read_fields(const struct reader *r, yyjson_val *object, const struct field *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        AP_TRY(read_field(r, object, &list[i]));
    return AP_OK;
}

/* String value of key, fallback where absent or null, NULL where it is something else. */
static const char *string_or(yyjson_val *object, const char *key, const char *fallback)
{
    yyjson_val *v = yyjson_obj_get(object, key);
    if (v == NULL || yyjson_is_null(v))
        return fallback;
    return yyjson_get_str(v);
}

static ap_status read_type(const struct reader *r, yyjson_val *root)
{
    const char *type = string_or(root, "model_type", "");
    if (type != NULL && strcmp(type, "deepseek_v2") == 0) {
        r->cfg->version = 2;
    } else if (type != NULL && strcmp(type, "deepseek_v3") == 0) {
        r->cfg->version = 3;
    } else {
        ap_error_set(r->err, AP_ERR_INPUT, "model_type %s%s%s is not one this program trains", type && *type ? "'" : "",
                     type && *type ? type : "(missing)", type && *type ? "'" : "");
        locate_key(r, "model_type");
        ap_error_hint(r->err, "deepseek_v2 or deepseek_v3");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

static ap_status read_gate(const struct reader *r, yyjson_val *root)
{
    const char *method = string_or(root, "topk_method", r->cfg->version == 3 ? "noaux_tc" : "greedy");
    if (method != NULL && strcmp(method, "greedy") == 0)
        r->cfg->gate_kind = AP_GATE_SOFTMAX_GREEDY;
    else if (method != NULL && strcmp(method, "group_limited_greedy") == 0)
        r->cfg->gate_kind = AP_GATE_SOFTMAX_GROUP;
    else if (method != NULL && strcmp(method, "noaux_tc") == 0)
        r->cfg->gate_kind = AP_GATE_SIGMOID_NOAUX;
    else
        return bad_value(r, "topk_method", "greedy, group_limited_greedy or noaux_tc");
    const char *fitting = r->cfg->gate_kind == AP_GATE_SIGMOID_NOAUX ? "sigmoid" : "softmax";
    const char *scoring = string_or(root, "scoring_func", fitting);
    if (scoring == NULL || strcmp(scoring, fitting) != 0) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "%s with topk_method %s", fitting, method);
        return bad_value(r, "scoring_func", wanted);
    }
    return AP_OK;
}

/* Features of the format that no DeepSeek model uses: refuse them instead of training something else. */
static ap_status refuse_foreign(const struct reader *r, yyjson_val *root)
{
    if (yyjson_get_bool(yyjson_obj_get(root, "tie_word_embeddings")))
        return bad_value(r, "tie_word_embeddings", "false (tied embeddings are not supported)");
    if (yyjson_get_bool(yyjson_obj_get(root, "attention_bias")))
        return bad_value(r, "attention_bias", "false (attention biases are not supported)");
    const char *act = string_or(root, "hidden_act", "silu");
    if (act == NULL || strcmp(act, "silu") != 0)
        return bad_value(r, "hidden_act", "silu");
    yyjson_val *kv = yyjson_obj_get(root, "num_key_value_heads");
    if (yyjson_is_int(kv) && yyjson_get_sint(kv) != r->cfg->heads)
        return bad_value(r, "num_key_value_heads", "equal to num_attention_heads (latent attention has no groups)");
    return AP_OK;
}

static ap_status read_rope(const struct reader *r, yyjson_val *root)
{
    yyjson_val *scaling = yyjson_obj_get(root, "rope_scaling");
    const char *key = "rope_scaling";
    if (scaling == NULL) {
        /* Newer transformers versions write rope_parameters, which also holds rope_theta. */
        key = "rope_parameters";
        scaling = yyjson_obj_get(root, key);
        yyjson_val *theta = yyjson_obj_get(scaling, "rope_theta");
        if (theta != NULL && !yyjson_is_num(theta))
            return bad_value(r, "rope_theta", "a number");
        if (theta != NULL)
            r->cfg->rope_theta = yyjson_get_num(theta);
    }
    if (scaling == NULL || yyjson_is_null(scaling))
        return AP_OK;
    if (!yyjson_is_obj(scaling))
        return bad_value(r, key, "an object or null");
    const char *type = string_or(scaling, "type", string_or(scaling, "rope_type", "default"));
    if (type != NULL && strcmp(type, "default") == 0)
        return AP_OK;
    if (type == NULL || strcmp(type, "yarn") != 0)
        return bad_value(r, key, "null or of type yarn");
    r->cfg->yarn.enabled = 1;
    return read_fields(r, scaling, yarn_fields, COUNT(yarn_fields));
}

/* Device-level balance of V2 (D and M of the report) follows the groups of the gate unless stated. */
static void derive_device_groups(struct ap_model_config *cfg)
{
    int grouped = cfg->gate_kind == AP_GATE_SOFTMAX_GROUP && cfg->routed_experts > 0;
    if (cfg->device_groups < 0)
        cfg->device_groups = grouped ? cfg->groups : 0;
    if (cfg->device_groups_kept < 0)
        cfg->device_groups_kept = grouped ? cfg->groups_kept : 0;
}

static ap_status read_root(const struct reader *r, yyjson_val *root)
{
    if (!yyjson_is_obj(root)) {
        ap_error_set(r->err, AP_ERR_INPUT, "a model configuration is one JSON object");
        ap_error_at(r->err, r->path, 1, 1);
        return AP_ERR_INPUT;
    }
    AP_TRY(read_type(r, root));
    /* routed_experts decides which other fields are needed, so it comes first. */
    for (size_t i = 0; i < COUNT(fields); i++)
        if (fields[i].offset == AT(routed_experts))
            AP_TRY(read_field(r, root, &fields[i]));
    AP_TRY(read_fields(r, root, fields, COUNT(fields)));
    AP_TRY(read_gate(r, root));
    AP_TRY(read_rope(r, root));
    AP_TRY(refuse_foreign(r, root));
    derive_device_groups(r->cfg);
    ap_status status = ap_model_config_check(r->cfg, r->err);
    if (status != AP_OK)
        ap_error_at(r->err, r->path, 0, 0);
    return status;
}

/* "dir/deepseek-v3.json" -> "deepseek-v3"; "dir/config.json" -> "dir", as hub folders are named. */
static void name_from_path(const char *path, char *name, size_t size)
{
    char work[PATH_MAX];
    snprintf(work, sizeof work, "%s", path);
    char *stem = strrchr(work, '/');
    stem = stem != NULL ? stem + 1 : work;
    if (strcmp(stem, "config.json") == 0 && stem > work + 1) {
        stem[-1] = '\0';
        char *folder = strrchr(work, '/');
        stem = folder != NULL ? folder + 1 : work;
    }
    size_t n = strlen(stem);
    if (n > 5 && strcmp(stem + n - 5, ".json") == 0)
        n -= 5;
    snprintf(name, size, "%.*s", (int)(n < size ? n : size - 1), stem);
}

ap_status ap_model_config_load(const char *path, struct ap_model_config *cfg_p, struct ap_error *err)
{
    struct ap_model_config cfg = {0};
    char *text;
    size_t size;
    AP_TRY(ap_io_read_file(path, CONFIG_MAX_BYTES, &text, &size, err));
    yyjson_read_err json;
    yyjson_doc *doc = yyjson_read_opts(text, size, YYJSON_READ_NOFLAG, NULL, &json);
    ap_status status;
    if (doc == NULL) {
        long line, column;
        position_of(text, json.pos < size ? json.pos : size, &line, &column);
        status = ap_error_set(err, AP_ERR_INPUT, "not valid JSON: %s", json.msg);
        ap_error_at(err, path, line, column);
    } else {
        struct reader r = {path, text, size, &cfg, err};
        status = read_root(&r, yyjson_doc_get_root(doc));
        yyjson_doc_free(doc);
    }
    free(text);
    if (status != AP_OK)
        return status;
    name_from_path(path, cfg.name, sizeof cfg.name);
    *cfg_p = cfg;
    return AP_OK;
}

/* Nearest preset among the *.json of every data folder; the name found is copied to buf. */
static int nearest_preset(const char *typed, char *buf, size_t size)
{
    char dir[PATH_MAX], path[PATH_MAX + 16];
    int best = -1, found = 0;
    for (int i = 0; i < AP_PATHS_DATA_DIRS; i++) {
        if (ap_paths_data_dir(i, dir, sizeof dir) != 1)
            continue;
        snprintf(path, sizeof path, "%s/models", dir);
        DIR *d = opendir(path);
        if (d == NULL)
            continue;
        struct dirent *e;
        while ((e = readdir(d)) != NULL) {
            char stem[256];
            size_t n = strlen(e->d_name);
            if (n < 6 || strcmp(e->d_name + n - 5, ".json") != 0)
                continue;
            snprintf(stem, sizeof stem, "%.*s", (int)(n - 5), e->d_name);
            struct ap_suggest s = {NULL, 0};
            ap_suggest_consider(&s, typed, stem);
            if (ap_suggest_result(&s, typed) != NULL && (best < 0 || s.distance < best)) {
                best = s.distance;
                snprintf(buf, size, "%s", stem);
                found = 1;
            }
        }
        closedir(d);
    }
    return found;
}

ap_status ap_model_config_preset(const char *name, struct ap_model_config *cfg_p, struct ap_error *err)
{
    char relative[300], path[PATH_MAX], near[256];
    int plain = name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
    if (plain && snprintf(relative, sizeof relative, "models/%s.json", name) < (int)sizeof relative &&
        ap_paths_find_data(relative, path, sizeof path) == 0)
        return ap_model_config_load(path, cfg_p, err);
    ap_error_set(err, AP_ERR_NOTFOUND, "there is no model preset '%.200s'", name);
    if (!plain)
        ap_error_hint(err, "a preset is a name; for a file use model.config");
    else if (nearest_preset(name, near, sizeof near))
        ap_error_hint(err, "did you mean '%s'?", near);
    else
        ap_error_hint(err, "deepseek-v2-lite, deepseek-v2, deepseek-v3, tiny-v2lite, tiny-v2, tiny-v3, quickstart, "
                           "bench-s, bench-m, dense-30m, moe-64; ANTIPODE_DATADIR names the folder that holds models/");
    return AP_ERR_NOTFOUND;
}

static void add_field(yyjson_mut_doc *doc, yyjson_mut_val *object, const struct ap_model_config *cfg,
                      const struct field *f)
{
    const char *base = (const char *)cfg;
    int64_t n;
    switch (f->kind) {
    case FIELD_INT:
        n = *(const int64_t *)(const void *)(base + f->offset);
        if (f->offset == AT(q_lora_rank) && n == 0)
            yyjson_mut_obj_add_null(doc, object, f->key);
        else
            yyjson_mut_obj_add_int(doc, object, f->key, n);
        return;
    case FIELD_REAL:
        yyjson_mut_obj_add_real(doc, object, f->key, *(const double *)(const void *)(base + f->offset));
        return;
    case FIELD_BOOL:
        yyjson_mut_obj_add_bool(doc, object, f->key, *(const int *)(const void *)(base + f->offset) != 0);
        return;
    }
}

static int field_applies(const struct ap_model_config *cfg, const struct field *f)
{
    /* Keys of ours appear only where they say something that the groups of the gate do not. */
    if (f->offset == AT(device_groups) || f->offset == AT(device_groups_kept)) {
        struct ap_model_config derived = *cfg;
        derived.device_groups = -1;
        derived.device_groups_kept = -1;
        derive_device_groups(&derived);
        return derived.device_groups != cfg->device_groups || derived.device_groups_kept != cfg->device_groups_kept;
    }
    return f->offset != AT(mtp_depth) || cfg->version == 3 || cfg->mtp_depth > 0;
}

static void add_constants(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct ap_model_config *cfg)
{
    static const char *const methods[] = {
        [AP_GATE_SOFTMAX_GREEDY] = "greedy",
        [AP_GATE_SOFTMAX_GROUP] = "group_limited_greedy",
        [AP_GATE_SIGMOID_NOAUX] = "noaux_tc",
    };
    yyjson_mut_obj_add_int(doc, root, "num_key_value_heads", cfg->heads);
    yyjson_mut_obj_add_str(doc, root, "topk_method", methods[cfg->gate_kind]);
    yyjson_mut_obj_add_str(doc, root, "scoring_func", cfg->gate_kind == AP_GATE_SIGMOID_NOAUX ? "sigmoid" : "softmax");
    yyjson_mut_obj_add_str(doc, root, "hidden_act", "silu");
    yyjson_mut_obj_add_bool(doc, root, "attention_bias", false);
    yyjson_mut_obj_add_real(doc, root, "attention_dropout", 0.0);
    yyjson_mut_obj_add_bool(doc, root, "tie_word_embeddings", false);
    if (!cfg->yarn.enabled) {
        yyjson_mut_obj_add_null(doc, root, "rope_scaling");
        return;
    }
    yyjson_mut_val *yarn = yyjson_mut_obj_add_obj(doc, root, "rope_scaling");
    yyjson_mut_obj_add_str(doc, yarn, "type", "yarn");
    for (size_t i = 0; i < COUNT(yarn_fields); i++)
        add_field(doc, yarn, cfg, &yarn_fields[i]);
}

char *ap_model_config_json(const struct ap_model_config *cfg)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    if (doc == NULL)
        return NULL;
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *arch = yyjson_mut_obj_add_arr(doc, root, "architectures");
    yyjson_mut_arr_add_str(doc, arch, cfg->version == 3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM");
    yyjson_mut_obj_add_str(doc, root, "model_type", cfg->version == 3 ? "deepseek_v3" : "deepseek_v2");
    for (size_t i = 0; i < COUNT(fields); i++)
        if (field_applies(cfg, &fields[i]))
            add_field(doc, root, cfg, &fields[i]);
    add_constants(doc, root, cfg);
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
    yyjson_mut_doc_free(doc);
    return text;
}
