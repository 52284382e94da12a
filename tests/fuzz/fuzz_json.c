/* SPDX-License-Identifier: MIT
 * Against jansson alone: inside the limits both accept the same texts and give equal values, integers beyond
 * int64 excepted; what jansson takes stays under what the budget was charged. */
#include <malloc.h>

#include "../fault/check.h"
#include "file/json.h"

#define MAX_NODES 5000
#define MAX_DEPTH 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct shape {
    size_t values, depth;
};

static void measure(const json_t *v, size_t depth, struct shape *s)
{
    const char *key;
    json_t *item;
    size_t i;
    s->values++;
    if ((json_is_object(v) || json_is_array(v)) && depth + 1 > s->depth)
        s->depth = depth + 1;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) measure(item, depth + 1, s);
    json_array_foreach(v, i, item) measure(item, depth + 1, s);
}

static size_t now, peak;

static void *counting_malloc(size_t n)
{
    void *p = malloc(n);
    if (p && (now += malloc_usable_size(p) + 8) > peak)
        peak = now;
    return p;
}

static void counting_free(void *p)
{
    if (p)
        now -= malloc_usable_size(p) + 8;
    free(p);
}

static void check_against_jansson(const uint8_t *data, size_t n)
{
    json_error_t e;
    sonde_err err;
    json_t *theirs = json_loadb((const char *)data, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e),
           *ours = NULL;
    enum sonde_code rc = sonde_json_parse(data, n, MAX_NODES, "memory", &ours, &err);
    struct shape s = {0};
    if (theirs)
        measure(theirs, 0, &s);
    if (rc == SONDE_OK) {
        check_that(theirs ? json_equal(ours, theirs) : json_error_code(&e) == json_error_numeric_overflow);
        s = (struct shape){0};
        measure(ours, 0, &s);
        check_that(s.values <= MAX_NODES && s.depth <= MAX_DEPTH);
        json_decref(ours);
    } else {
        check_refusal(rc, &err);
        if (theirs)
            check_that(rc == SONDE_E_MEMORY ? 2 * s.values > MAX_NODES : s.depth > MAX_DEPTH);
    }
    json_decref(theirs);
}

static void check_budget(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_json j;
    sonde_err err;
    now = peak = 0;
    enum sonde_code rc = sonde_json_parse_within(data, n, &budget, "memory", &j, &err);
    if (rc == SONDE_OK) {
        check_that(peak <= budget.taken);
        sonde_json_release(&j);
    } else {
        check_refusal(rc, &err);
    }
    check_that(budget.taken == 0 && now == 0 && peak <= budget.limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    json_set_alloc_funcs(counting_malloc, counting_free);
    check_against_jansson(data, n);
    check_budget(data, n);
    return 0;
}
