/* SPDX-License-Identifier: MIT
 * Documents into ids, in rounds: the threads encode a few megabytes, then the ids are packed in the order of
 * the documents. What comes out, errors included, does not depend on rounds, tasks or threads. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../file/json.h"
#include "corpus_impl.h"
#include "unicode.h"

#define ROUND_BYTES      ((size_t)1 << 20) /* of text per thread and round */
#define ROUND_LEAST      ((size_t)64 << 10)
#define TASKS_PER_THREAD 4u
#define ROUND_DOCS       ((size_t)1 << 16)
#define BYTES_PER_ID     (2 * sizeof(uint32_t) + sizeof(int32_t)) /* in sonde_tokens */

struct encoder {
    struct packer *p;
    const sonde_map *m;
    const sonde_tokenizer *tokenizer;
    sonde_budget *budget;
    struct task *task; /* of this round */
};

/* The documents [first, first + n_docs) of one task, and what became of them. */
struct task {
    size_t first, n_docs;
    size_t n_done;       /* documents before the first that failed */
    size_t *end;         /* [n_docs] ids up to the end of each */
    uint64_t *n_invalid; /* [n_docs] */
    sonde_tokens ids;
    size_t held; /* bytes of the budget */
    sonde_err err;
};

static uint64_t line_of(const sonde_map *m, size_t at)
{
    uint64_t line = 1;
    for (const unsigned char *q = m->data, *end = m->data + at; (q = memchr(q, '\n', (size_t)(end - q))); q++)
        line++;
    return line;
}

/* The text of one line of JSON; it lives as long as *json. */
static enum sonde_code text_of_line(const struct encoder *e, size_t at, size_t n, sonde_json *json,
                                    const char **text, size_t *n_text, sonde_err *err)
{
    const char *field = e->p->o->field ? e->p->o->field : "text", *path = e->p->path;
    enum sonde_code rc = sonde_json_parse_within(e->m->data + at, n, e->budget, "", json, NULL);
    if (rc != SONDE_OK) { /* once more for the message: counting lines is slow */
        char what[300];
        snprintf(what, sizeof what, "%.250s: line %" PRIu64, path, line_of(e->m, at));
        rc = sonde_json_parse_within(e->m->data + at, n, e->budget, what, json, err);
        return rc == SONDE_OK ? sonde_fail(err, SONDE_E_MEMORY, "%s: no memory", what) : rc;
    }
    if (!json_is_object(json->root))
        return sonde_fail(err, SONDE_E_INPUT, "%s: line %" PRIu64 ": is not a JSON object", path,
                          line_of(e->m, at));
    const json_t *value = json_object_get(json->root, field);
    if (!json_is_string(value))
        return sonde_fail(err, SONDE_E_INPUT, "%s: line %" PRIu64 ": %s '%.80s'%s", path, line_of(e->m, at),
                          value ? "the field" : "there is no field", field, value ? " is not a string" : "");
    *text = json_string_value(value);
    *n_text = json_string_length(value);
    return SONDE_OK;
}

static bool hold(struct encoder *e, struct task *t, size_t bytes)
{
    if (bytes <= t->held)
        return true;
    if (!sonde_budget_hold(e->budget, bytes - t->held))
        return false;
    t->held = bytes;
    return true;
}

static enum sonde_code encode_text(struct encoder *e, struct task *t, const char *text, size_t n)
{
    size_t guess = t->ids.n + n / 4; /* ordinary text has about four bytes per token */
    if (n > UINT32_MAX)
        return sonde_fail(&t->err, SONDE_E_INPUT,
                          "has %zu bytes, a document may have %" PRIu32 "; cut it with a separator", n,
                          UINT32_MAX);
    enum sonde_code rc = SONDE_OK;
    if (n == 0)
        return rc; /* not even what the tokenizer puts around a text */
    bool fits = hold(e, t, guess * BYTES_PER_ID);
    if (fits) {
        rc = sonde_tokenizer_encode(e->tokenizer, text, n, e->p->o->bos, false, &t->ids, &t->err);
        fits = hold(e, t, t->ids.cap * BYTES_PER_ID);
    }
    if (!fits)
        rc = sonde_fail(&t->err, SONDE_E_MEMORY,
                        "the tokens of %zu bytes of text do not fit into the memory limit of %zu", n,
                        e->budget->limit);
    return rc;
}

static enum sonde_code encode_document(struct encoder *e, struct task *t, size_t i)
{
    const int64_t *range = (const int64_t *)e->p->range.p + 2 * (t->first + i);
    size_t at = (size_t)range[0], n = (size_t)range[1] - at;
    const char *text = (const char *)e->m->data + at;
    sonde_json json = {0};
    enum sonde_code rc = SONDE_OK;
    if (e->p->o->jsonl_path)
        rc = text_of_line(e, at, n, &json, &text, &n, &t->err);
    if (rc == SONDE_OK) {
        t->n_invalid[i] = sonde_utf8_invalid((const unsigned char *)text, n);
        rc = encode_text(e, t, text, n);
        if (rc != SONDE_OK)
            sonde_err_wrap(&t->err, "%s: document %zu", e->p->path, t->first + i);
        t->end[i] = t->ids.n;
    }
    sonde_json_release(&json);
    return rc;
}

static void run_task(void *arg, size_t which, int thread)
{
    (void)thread;
    struct encoder *e = arg;
    struct task *t = &e->task[which];
    for (size_t i = 0; i < t->n_docs; i++) {
        if (sonde_work_stopped(e->p->work)) {
            sonde_fail(&t->err, SONDE_E_STOPPED, "%s: stopped while tokenising", e->p->path);
            return;
        }
        if (encode_document(e, t, i) != SONDE_OK)
            return;
        t->n_done = i + 1;
    }
}

/* Cut the round that begins with document `first` into tasks; returns the document after it. */
static size_t plan(struct encoder *e, size_t first, size_t round_bytes, size_t task_bytes, size_t *n_tasks)
{
    const int64_t *range = e->p->range.p;
    size_t d = first, sum = 0, in_task = 0;
    *n_tasks = 0;
    while (d < e->p->pub.n_docs && sum < round_bytes && d - first < ROUND_DOCS) {
        if (in_task == 0 || in_task >= task_bytes) {
            e->task[(*n_tasks)++] = (struct task){.first = d};
            in_task = 0;
        }
        size_t n = (size_t)(range[2 * d + 1] - range[2 * d]) + 1;
        e->task[*n_tasks - 1].n_docs++;
        in_task += n;
        sum += n;
        d++;
    }
    return d;
}

static enum sonde_code pack_task(struct encoder *e, const struct task *t, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < t->n_done && rc == SONDE_OK && !sonde_pack_full(e->p); i++) {
        size_t begin = i ? t->end[i - 1] : 0;
        struct ids ids = {.p = t->ids.id ? t->ids.id + begin : NULL, .n = t->end[i] - begin};
        rc = sonde_pack_document(e->p, (int32_t)(t->first + i), &ids, err);
        e->p->pub.n_invalid += t->n_invalid[i];
    }
    if (rc == SONDE_OK && t->n_done < t->n_docs && !sonde_pack_full(e->p)) {
        if (err)
            *err = t->err;
        rc = t->err.code;
    }
    return rc;
}

/* Encode and pack the documents [first, last) in the tasks that plan() has made. */
static enum sonde_code run_round(struct encoder *e, size_t first, size_t last, size_t n_tasks,
                                 sonde_arena *scratch, sonde_err *err)
{
    sonde_arena_reset(scratch);
    size_t *end = sonde_arena_get(scratch, last - first, sizeof *end, err);
    uint64_t *n_invalid = end ? sonde_arena_get(scratch, last - first, sizeof *n_invalid, err) : NULL;
    if (!n_invalid)
        return SONDE_E_MEMORY;
    for (size_t k = 0; k < n_tasks; k++) {
        e->task[k].end = end + (e->task[k].first - first);
        e->task[k].n_invalid = n_invalid + (e->task[k].first - first);
    }
    sonde_pool_run(e->p->work ? e->p->work->pool : NULL, n_tasks, run_task, e);
    enum sonde_code rc = SONDE_OK;
    for (size_t k = 0; k < n_tasks; k++) {
        if (rc == SONDE_OK && !sonde_pack_full(e->p))
            rc = pack_task(e, &e->task[k], err);
        sonde_tokens_free(&e->task[k].ids);
        sonde_budget_release(e->budget, e->task[k].held);
    }
    return rc;
}

enum sonde_code sonde_encode_documents(struct packer *p, const sonde_map *m, const sonde_tokenizer *tokenizer,
                                       sonde_err *err)
{
    struct encoder e = {.p = p, .m = m, .tokenizer = tokenizer, .budget = p->work ? p->work->budget : NULL};
    size_t n_threads = (size_t)sonde_pool_threads(p->work ? p->work->pool : NULL);
    size_t round = n_threads * ROUND_BYTES, n_docs = (size_t)p->pub.n_docs;
    if (e.budget && e.budget->limit &&
        e.budget->limit / 32 < round) /* a round takes several times its text */
        round = e.budget->limit / 32 < ROUND_LEAST ? ROUND_LEAST : e.budget->limit / 32;
    size_t task = round / (TASKS_PER_THREAD * n_threads) + 1;
    sonde_arena *tasks = sonde_arena_new(e.budget, err),
                *scratch = tasks ? sonde_arena_new(e.budget, err) : NULL;
    e.task = scratch ? sonde_arena_get(tasks, TASKS_PER_THREAD * n_threads + 1, sizeof *e.task, err) : NULL;
    enum sonde_code rc = e.task ? SONDE_OK : SONDE_E_MEMORY;
    for (size_t d = 0, next, n_tasks, seen = 0; d < n_docs && rc == SONDE_OK && !sonde_pack_full(p);
         d = next) {
        next = plan(&e, d, round, task, &n_tasks);
        rc = run_round(&e, d, next, n_tasks, scratch, err);
        if (rc != SONDE_OK)
            break;
        size_t to = (size_t)((const int64_t *)p->range.p)[2 * next - 1];
        sonde_map_forget(m, seen, to - seen);
        sonde_work_report(p->work, "tokenising", "bytes", to, m->n_bytes);
        seen = to;
    }
    sonde_arena_free(scratch);
    sonde_arena_free(tasks);
    return rc;
}
