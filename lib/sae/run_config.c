/* SPDX-License-Identifier: MIT
 * What a run is: its configuration, and whether the directory holds one that is equal. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../file/json.h"
#include "../file/map.h"
#include "run_impl.h"

#define DIGITS         12 /* of numbers in run.json */
#define MAX_JSON_NODES 100000

static const char *compute(const struct run *r)
{
    return strcmp(sonde_kernels_name(r->kernels), "openblas") ? "sonde float32" : "openblas float32";
}

enum sonde_code config_make(const struct run *r, struct job *j, const sonde_train_options *o, sonde_err *err)
{
    json_t *data = json_loads(sonde_source_about(r->source)->identity, 0, NULL);
    json_t *options = sonde_train_options_json(o), *all = NULL;
    if (data && options)
        all = json_pack("{s:O, s:O, s:s}", "options", options, "data", data, "compute", compute(r));
    json_decref(data);
    json_decref(options);
    j->config = all ? sonde_json_text(all, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    j->config_object = all;
    return j->config ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for the options of a run");
}

/* Options and data as they look in run.json. */
static json_t *rounded(const char *config)
{
    json_t *exact = json_loads(config, 0, NULL);
    char *text = exact ? sonde_json_text(exact, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    json_decref(exact);
    free(text);
    return o;
}

/* run.json's object, NULL when it is absent or damaged: then the checkpoints decide. */
static enum sonde_code read_run(const char *dir, char path[4096], json_t **out, sonde_err *err)
{
    sonde_map *m = NULL;
    sonde_err why = {0};
    *out = NULL;
    snprintf(path, 4096, "%s/run.json", dir);
    if (access(path, F_OK))
        return SONDE_OK;
    enum sonde_code code = sonde_map_open(path, &m, err);
    if (code)
        return code;
    code = sonde_json_parse((const char *)m->data, m->n_bytes, MAX_JSON_NODES, path, out, &why);
    sonde_map_close(m);
    if (code == SONDE_E_MEMORY && err)
        *err = why;
    return code == SONDE_E_MEMORY ? code : SONDE_OK;
}

enum sonde_code config_check(struct job *j, sonde_err *err)
{
    char path[4096], now[17], was[17] = "unknown";
    json_t *o;
    enum sonde_code code = read_run(j->dir, path, &o, err);
    const char *hash = json_string_value(json_object_get(o, "configuration"));
    j->described = false;
    if (code || !hash || strlen(hash) != 16) {
        json_decref(o);
        return code;
    }
    state_config_hash(j->config, now);
    memcpy(was, hash, sizeof was);
    if (strcmp(was, now)) {
        static const char *const part[] = {"options", "data", "compute"};
        json_t *is = rounded(j->config), *then = json_object();
        bool whole = is && then;
        for (size_t i = 0; i < sizeof part / sizeof *part; i++)
            if (json_object_get(o, part[i]))
                whole = !json_object_set(then, part[i], json_object_get(o, part[i])) && whole;
        code = whole ? state_compare(path, then, is, was, now, err)
                     : sonde_fail(err, SONDE_E_MEMORY, "no memory to compare %s", path);
        json_decref(is);
        json_decref(then);
    } else {
        j->described = true;
    }
    json_decref(o);
    return code;
}
