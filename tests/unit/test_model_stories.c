/* SPDX-License-Identifier: MIT
 * A real model on real text: the losses of stories260K over TinyStories as ../shared/data says them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "capture_fixture.h"

#define DATA      SONDE_SOURCE_DIR "/../shared/data/"
#define SEPARATOR "\n<|endoftext|>\n"

static void *open_data(void)
{
    FILE *f = fopen(DATA "text/tinystories.txt", "rb");
    if (f)
        return f;
    print_message("no ../shared/data\n");
    skip();
    return NULL;
}

/* Stories [first, end) of the text into a file of their own. */
static void cut_stories(FILE *in, int first, int end, const char *path)
{
    fseek(in, 0, SEEK_END);
    size_t n = (size_t)ftell(in);
    char *text = malloc(n + 1);
    assert_non_null(text);
    rewind(in);
    assert_int_equal(fread(text, 1, n, in), n);
    text[n] = '\0';
    char *from = text;
    for (int i = 0; i < first; i++)
        from = strstr(from, SEPARATOR) + strlen(SEPARATOR);
    char *to = from;
    for (int i = first; i < end; i++) {
        to = strstr(i > first ? to + strlen(SEPARATOR) : to, SEPARATOR);
        assert_non_null(to);
    }
    FILE *out = fopen(path, "wb");
    assert_true(out && fwrite(from, 1, (size_t)(to - from), out) == (size_t)(to - from));
    fclose(out);
    free(text);
}

/* The mean over the first context of each story: BOS and at most 511 tokens. */
static double mean_loss(int first, int end, uint64_t *n_stories)
{
    FILE *f = open_data();
    char text[120];
    sonde_err err = {0};
    sonde_model *m;
    sonde_tokenizer *t;
    sonde_corpus *c;
    sonde_hook_list none = {0};
    snprintf(text, sizeof text, "%s/stories.txt", dir);
    cut_stories(f, first, end, text);
    fclose(f);
    must(sonde_model_open(DATA "models/stories260K/stories260K.bin", NULL, NULL, &m, &err), &err);
    must(sonde_tokenizer_open(DATA "models/stories260K/tok512.bin", NULL, &t, &err), &err);
    must(sonde_corpus_read(
             &(sonde_corpus_options){.text_path = text, .separator = "<|endoftext|>", .n_context = 512}, t,
             NULL, &c, &err),
         &err);
    sonde_capture_result r =
        capture(m, c, t, &(sonde_capture_options){.hooks = &none, .loss = true, .overwrite = true}, 2);
    sonde_store *s = open_store();
    float *loss = read_all(s, "/loss", SONDE_F32, 1, DIM(c->n_tokens));
    int32_t *doc = read_all(s, "/tokens/doc", SONDE_I32, 1, DIM(c->n_tokens));
    int32_t *seq = read_all(s, "/tokens/seq", SONDE_I32, 1, DIM(c->n_tokens));
    double sum = 0;
    uint64_t n = 0;
    int32_t first_seq = 0;
    for (uint64_t i = 0; i < c->n_tokens; i++) {
        if (i == 0 || doc[i] != doc[i - 1])
            first_seq = seq[i];
        if (seq[i] == first_seq && !isnan(loss[i])) {
            sum += (double)loss[i];
            n++;
        }
    }
    *n_stories = c->n_docs;
    free(loss), free(doc), free(seq), free(r.saturated);
    sonde_store_close(s);
    sonde_corpus_free(c);
    sonde_tokenizer_close(t);
    sonde_model_close(m);
    return sum / (double)n;
}

static void check(int first, int end, double want)
{
    uint64_t n_stories;
    double got = mean_loss(first, end, &n_stories);
    assert_int_equal(n_stories, end - first);
    if (!(fabs(got - want) <= 0.002))
        fail_msg("stories %d-%d: mean loss %.4f, should be %.3f", first, end - 1, got, want);
}

static void losses_of_stories_the_model_learned_are_1_294(void **state)
{
    (void)state;
    check(2500, 3000, 1.294);
}

static void losses_of_the_first_stories_are_1_519(void **state)
{
    (void)state;
    check(0, 500, 1.519);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_stories_the_model_learned_are_1_294),
        cmocka_unit_test(losses_of_the_first_stories_are_1_519),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
