/* SPDX-License-Identifier: MIT
 * Any bytes as JSON lines and as text with separators: refused in one line, or a corpus that keeps its
 * promises, the same for one thread and two, within 16 MiB. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define fail_msg(...)          (fprintf(stderr, __VA_ARGS__), abort())
#define assert_true(x)         ((x) ? (void)0 : fail_msg("%s:%d: %s\n", __FILE__, __LINE__, #x))
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_non_null(x)     assert_true((x) != NULL)
#include "../unit/corpus_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct fixture *x;
static sonde_pool *pool;

static enum sonde_code read_with(const sonde_corpus_options *o, sonde_pool *threads, sonde_corpus **c,
                                 sonde_err *err)
{
    sonde_budget budget = {.limit = (size_t)16 << 20};
    sonde_work work = {.pool = threads, .budget = &budget};
    enum sonde_code rc = sonde_corpus_read(o, x->tokenizer, &work, c, err);
    if (rc == SONDE_OK) {
        check_corpus(*c, o);
    } else {
        assert_true(rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY);
        assert_true(!*c && err->code == rc && err->msg[0]);
        assert_true(budget.taken == 0);
    }
    if (*c) { /* freed here: the budget ends with this function; what is compared was copied */
        sonde_corpus *copy = malloc(sizeof *copy);
        assert_true(copy);
        *copy = **c;
        copy->id = malloc(copy->n_tokens * sizeof *copy->id);
        assert_true(copy->id);
        memcpy(copy->id, (*c)->id, copy->n_tokens * sizeof *copy->id);
        sonde_corpus_free(*c);
        assert_true(budget.taken == 0);
        *c = copy;
    }
    return rc;
}

static void check(const sonde_corpus_options *o)
{
    sonde_corpus *one = NULL, *two = NULL;
    sonde_err err[2] = {0};
    enum sonde_code rc = read_with(o, NULL, &one, &err[0]);
    assert_true(read_with(o, pool, &two, &err[1]) == rc);
    if (rc == SONDE_OK) {
        assert_true(one->n_tokens == two->n_tokens && one->n_seqs == two->n_seqs &&
                    one->n_docs == two->n_docs);
        assert_true(memcmp(one->id, two->id, one->n_tokens * sizeof *one->id) == 0);
        free(one->id);
        free(two->id);
    } else {
        assert_true(strcmp(err[0].msg, err[1].msg) == 0);
    }
    free(one);
    free(two);
}

static void clean(void)
{
    sonde_pool_free(pool);
    sonde_tokenizer_close(x->tokenizer);
    free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int fd = -1;
    if (!x) {
        x = fixture_new();
        rmdir(x->dir); /* its file is gone already */
        assert_true(sonde_pool_new(2, &pool, NULL) == SONDE_OK);
        fd = memfd_create("input", MFD_CLOEXEC);
        assert_true(fd >= 0 && atexit(clean) == 0);
        snprintf(x->path, sizeof x->path, "/proc/self/fd/%d", fd);
    }
    assert_true(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    for (int packing = 0; packing < 2; packing++) {
        sonde_corpus_options o = {
            .jsonl_path = x->path, .n_context = 7, .packing = packing ? SONDE_PACK_CONCAT : SONDE_PACK_DOC};
        check(&o);
        o.jsonl_path = NULL;
        o.text_path = x->path;
        o.separator = "-";
        o.max_tokens = packing ? 100 : 0;
        check(&o);
    }
    return 0;
}
