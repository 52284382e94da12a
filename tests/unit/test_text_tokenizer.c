/* SPDX-License-Identifier: MIT
 * What tokenizers promise for any text: bytes come back, ranges tile, policies hold, long pieces are fast. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/pool.h"
#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define GOLDEN SONDE_SOURCE_DIR "/tests/golden/tokenizers/"

static sonde_tokenizer *open_or_die(const char *path)
{
    sonde_err err = {0};
    sonde_tokenizer *t = NULL;
    if (sonde_tokenizer_open(path, NULL, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

static sonde_tokens encode(const sonde_tokenizer *t, const void *text, size_t n, enum sonde_bos bos,
                           bool special)
{
    sonde_tokens k = {0};
    sonde_err err = {0};
    if (sonde_tokenizer_encode(t, text, n, bos, special, &k, &err))
        fail_msg("%s", err.msg);
    return k;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- bytes and ranges -------------------------------------------------------------------------- */

static const char *const byte_level[] = {"gpt2", "llama3", "starcoder"};

static void check_tiles(const sonde_tokenizer *t, const unsigned char *s, size_t n)
{
    sonde_tokens k = encode(t, s, n, SONDE_BOS_NEVER, false);
    uint32_t at = 0;
    for (size_t i = 0; i < k.n; i++) {
        size_t len;
        const char *bytes = sonde_tokenizer_bytes(t, k.id[i], &len);
        assert_int_equal(k.begin[i], at);
        assert_int_equal(k.end[i] - k.begin[i], len);
        assert_memory_equal(bytes, s + at, len);
        at = k.end[i];
    }
    assert_int_equal(at, n);
    char *back;
    size_t n_back;
    assert_int_equal(sonde_tokenizer_decode(t, k.id, k.n, true, &back, &n_back, NULL), SONDE_OK);
    assert_int_equal(n_back, n);
    assert_memory_equal(back, s, n);
    free(back);
    sonde_tokens_free(&k);
}

static void byte_level_ranges_tile_any_bytes_and_decode_to_them(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(7);
    static const char *const bits[] = {" ",    "\n",       "the",      "'s",          "\xff",
                                       "\xc3", "\xe4\xb8", "\x80",     "\xc3\xa9",    "\xed\xa0\x80",
                                       "1",    "\0",       "\xf4\x90", "\xe2\x80\x83"};
    for (size_t m = 0; m < 3; m++) {
        char path[300];
        snprintf(path, sizeof path, GOLDEN "%s", byte_level[m]);
        sonde_tokenizer *t = open_or_die(path);
        for (int round = 0; round < 300; round++) {
            unsigned char s[400];
            size_t n = 0, want = (size_t)sonde_rng_below(&r, 300);
            while (n < want) {
                size_t k = (size_t)sonde_rng_below(&r, 14), len = k == 11 ? 1 : strlen(bits[k]);
                memcpy(s + n, bits[k], len);
                n += len;
                if (round % 3 == 0)
                    s[n - 1] = (unsigned char)sonde_rng_u32(&r);
            }
            check_tiles(t, s, n);
        }
        sonde_tokenizer_close(t);
    }
}

static void invalid_bytes_are_characters_of_their_own(void **state)
{
    (void)state;
    static const unsigned char s[] = "a\xff\xc3\xe4\xb8\x80"
                                     "b\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80";
    size_t len, n = sizeof s - 1;
    assert_int_equal(sonde_utf8_next(s, n, 1, &len), SONDE_INVALID);
    assert_int_equal(len, 1);
    assert_int_equal(sonde_utf8_next(s, n, 2, &len), SONDE_INVALID);
    assert_int_equal(sonde_utf8_next(s, n, 3, &len), 0x4e00);
    assert_int_equal(len, 3);
    assert_int_equal(sonde_utf8_last(s, 6, &len), 0x4e00);
    assert_int_equal(sonde_utf8_last(s, 3, &len), SONDE_INVALID);
    assert_int_equal(sonde_utf8_invalid(s, n), 2 + 3 + 4 + 2);
    assert_int_equal(sonde_unicode_class(SONDE_INVALID), 0);
    /* a space joins an invalid byte as it joins a punctuation mark, and no letter does */
    sonde_tokenizer *t = open_or_die(GOLDEN "gpt2");
    sonde_tokens a = encode(t, "the\xff the", 8, SONDE_BOS_NEVER, false),
                 b = encode(t, "the", 3, SONDE_BOS_NEVER, false);
    assert_true(a.n > b.n);
    assert_memory_equal(a.id, b.id, b.n * sizeof *b.id);
    assert_int_equal(a.begin[b.n], 3);
    assert_int_equal(a.end[b.n], 4);
    sonde_tokens_free(&a);
    sonde_tokens_free(&b);
    sonde_tokenizer_close(t);
}

static void unicode_classes_are_those_of_the_standard(void **state)
{
    (void)state;
    size_t n_space = 0, n_letter = 0;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        n_space += (sonde_unicode_class(c) & SONDE_U_SPACE) != 0;
        n_letter += (sonde_unicode_class(c) & SONDE_U_LETTER) != 0;
    }
    assert_string_equal(sonde_unicode_version(), "15.0.0");
    assert_int_equal(n_space, 25);
    assert_int_equal(n_letter, 1831 + 2233 + 31 + 397 + 131612); /* Lu, Ll, Lt, Lm, Lo of Unicode 15.0 */
    assert_false(sonde_unicode_class(0x180e) & SONDE_U_SPACE);
    assert_true(sonde_unicode_class(0xb2) & SONDE_U_NUMBER);
    assert_true(sonde_unicode_class(0x24b6) & SONDE_U_WORD);
    assert_false(sonde_unicode_stable(0x301, SONDE_NFC));
    assert_true(sonde_unicode_stable(0xe9, SONDE_NFC));
    assert_false(sonde_unicode_stable(0xe9, SONDE_NFD));
}

static void ranges_refer_to_the_text_before_normalisation(void **state)
{
    (void)state;
    sonde_tokenizer *t = open_or_die(GOLDEN "neox");
    /* e + U+0301 + U+0323 is reordered and composed: one span of 5 bytes at 2 */
    static const char text[] = "a e\xcc\x81\xcc\xa3 b";
    sonde_tokens k = encode(t, text, strlen(text), SONDE_BOS_NEVER, false);
    uint32_t covered = 0;
    for (size_t i = 0; i < k.n; i++) {
        assert_true(k.begin[i] <= k.end[i] && k.end[i] <= strlen(text) &&
                    k.begin[i] <= (covered ? covered : k.begin[i]));
        if (k.begin[i] >= 2 && k.end[i] <= 7 && k.end[i] > 2)
            assert_true(k.begin[i] == 2 && k.end[i] == 7);
        covered = k.end[i] > covered ? k.end[i] : covered;
    }
    assert_int_equal(covered, strlen(text));
    sonde_tokens_free(&k);
    sonde_tokenizer_close(t);
    t = open_or_die(GOLDEN "llama2");
    k = encode(t, "ab cd", 5, SONDE_BOS_AUTO, false);
    assert_int_equal(k.begin[0], 0);
    assert_int_equal(k.end[0], 0); /* BOS */
    assert_int_equal(k.end[k.n - 1], 5);
    sonde_tokens_free(&k);
    sonde_tokenizer_close(t);
}

/* ---- an independent and slow BPE --------------------------------------------------------------- */

struct slow {
    json_t *root, *vocab, *rank;
};

static struct slow slow_open(const char *path)
{
    json_error_t e;
    struct slow s = {json_load_file(path, 0, &e), NULL, json_object()};
    const json_t *model = json_object_get(s.root, "model"), *merges = json_object_get(model, "merges"), *m;
    s.vocab = json_object_get(model, "vocab");
    size_t i;
    json_array_foreach(merges, i, m)
    {
        char key[200];
        if (json_is_string(m))
            snprintf(key, sizeof key, "%s", json_string_value(m));
        else
            snprintf(key, sizeof key, "%s %s", json_string_value(json_array_get(m, 0)),
                     json_string_value(json_array_get(m, 1)));
        json_object_set_new(s.rank, key, json_integer((json_int_t)i));
    }
    return s;
}

/* ASCII letters only, so that names are bytes. */
static size_t slow_encode(const struct slow *s, const char *text, int32_t *id)
{
    char part[1200][40];
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        snprintf(part[i], sizeof part[i], "%c", text[i]);
    for (;;) {
        json_int_t best = INT64_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char key[100];
            snprintf(key, sizeof key, "%s %s", part[i], part[i + 1]);
            const json_t *r = json_object_get(s->rank, key);
            if (r && json_integer_value(r) < best) {
                best = json_integer_value(r);
                at = i;
            }
        }
        if (best == INT64_MAX)
            break;
        size_t have = strlen(part[at]), more = strlen(part[at + 1]);
        assert_true(have + more < sizeof part[at]);
        memcpy(part[at] + have, part[at + 1], more + 1);
        memmove(part + at + 1, part + at + 2, (n - at - 2) * sizeof part[0]);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        id[i] = (int32_t)json_integer_value(json_object_get(s->vocab, part[i]));
    return n;
}

static void pieces_of_any_length_equal_the_definition(void **state)
{
    (void)state;
    struct slow slow = slow_open(GOLDEN "gpt2/tokenizer.json");
    sonde_tokenizer *t = open_or_die(GOLDEN "gpt2");
    sonde_rng r = sonde_rng_seed(3);
    static const size_t length[] = {1, 2, 3, 7, 8, 14, 15, 16, 17, 63, 64, 65, 66, 127, 128, 129, 1000};
    for (size_t i = 0; i < 17 * 6; i++) {
        size_t n = length[i % 17], kinds = i < 17 ? 1 : i < 34 ? 2 : 12;
        char text[1200];
        int32_t want[1200];
        for (size_t k = 0; k < n; k++)
            text[k] = "etaoinshrdlu"[sonde_rng_below(&r, kinds)];
        text[n] = '\0';
        size_t n_want = slow_encode(&slow, text, want);
        sonde_tokens got = encode(t, text, n, SONDE_BOS_NEVER, false);
        assert_int_equal(got.n, n_want);
        assert_memory_equal(got.id, want, n_want * sizeof *want);
        sonde_tokens_free(&got);
    }
    sonde_tokenizer_close(t);
    json_decref(slow.rank);
    json_decref(slow.root);
}

static void a_long_text_equals_its_lines_one_by_one(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "qwen2", "llama3"};
    static const char line[] =
        "The cat's 42 hats, na\xc3\xafve and don't; uncharacteristically \xe4\xbd\xa0\xe5\xa5\xbd!";
    size_t n_line = strlen(line), n = 2000 * (n_line + 2); /* long enough for the large cache */
    char *text = malloc(n);
    for (size_t i = 0; i < 2000; i++) {
        memcpy(text + i * (n_line + 2), line, n_line);
        memcpy(text + i * (n_line + 2) + n_line, "\n\n", 2);
    }
    for (int m = 0; m < 3; m++) {
        char path[300];
        snprintf(path, sizeof path, GOLDEN "%s", models[m]);
        sonde_tokenizer *t = open_or_die(path);
        sonde_tokens whole = encode(t, text, n, SONDE_BOS_NEVER, false),
                     one = encode(t, text, n_line + 2, SONDE_BOS_NEVER, false);
        /* two line ends and a letter cut alike everywhere, except that GPT-2 gives the last of them to the
         * next line's piece */
        size_t same = m == 0 ? one.n - 2 : one.n;
        assert_true(whole.n >= 2000 * same);
        assert_memory_equal(whole.id, one.id, same * sizeof *one.id);
        assert_memory_equal(whole.id + whole.n - one.n, one.id, one.n * sizeof *one.id);
        if (m > 0)
            for (size_t i = 0; i < 2000; i++)
                assert_memory_equal(whole.id + i * one.n, one.id, one.n * sizeof *one.id);
        sonde_tokens_free(&whole);
        sonde_tokens_free(&one);
        sonde_tokenizer_close(t);
    }
    free(text);
}

/* ---- policies ---------------------------------------------------------------------------------- */

static void control_tokens_in_text_are_text_unless_asked_for(void **state)
{
    (void)state;
    sonde_tokenizer *t = open_or_die(GOLDEN "qwen2");
    static const char text[] = "a<|im_start|>b";
    sonde_tokens plain = encode(t, text, strlen(text), SONDE_BOS_NEVER, false);
    sonde_tokens asked = encode(t, text, strlen(text), SONDE_BOS_NEVER, true);
    assert_int_equal(asked.n, 3);
    assert_true(sonde_tokenizer_is_special(t, asked.id[1]));
    assert_int_equal(asked.begin[1], 1);
    assert_int_equal(asked.end[1], 13);
    for (size_t i = 0; i < plain.n; i++)
        assert_false(sonde_tokenizer_is_special(t, plain.id[i]));
    size_t n;
    const char *name = sonde_tokenizer_bytes(t, asked.id[1], &n);
    assert_int_equal(n, 12);
    assert_memory_equal(name, "<|im_start|>", 12);
    char *s;
    assert_int_equal(sonde_tokenizer_decode(t, asked.id, 3, false, &s, &n, NULL), SONDE_OK);
    assert_string_equal(s, "ab");
    free(s);
    sonde_tokens_free(&plain);
    sonde_tokens_free(&asked);
    sonde_tokenizer_close(t);
}

static void bos_follows_the_policy_and_is_never_double(void **state)
{
    (void)state;
    sonde_tokenizer *t = open_or_die(GOLDEN "llama3");
    int32_t bos = sonde_tokenizer_bos_id(t);
    static const char spelt[] = "<|begin_of_text|>the";
    assert_true(bos >= 0 && sonde_tokenizer_adds_bos(t));
    static const enum sonde_bos policy[] = {SONDE_BOS_AUTO, SONDE_BOS_ALWAYS, SONDE_BOS_NEVER};
    for (int i = 0; i < 3; i++) {
        sonde_tokens k = encode(t, "the", 3, policy[i], false),
                     d = encode(t, spelt, strlen(spelt), policy[i], true);
        assert_int_equal(k.id[0] == bos, policy[i] != SONDE_BOS_NEVER);
        assert_true(k.n < 2 || k.id[1] != bos);
        assert_true(d.id[0] == bos && d.id[1] != bos);
        sonde_tokens_free(&k);
        sonde_tokens_free(&d);
    }
    sonde_tokens empty = encode(t, "", 0, SONDE_BOS_AUTO, true);
    assert_int_equal(empty.n, 1);
    sonde_tokens_free(&empty);
    sonde_tokenizer_close(t);
    t = open_or_die(GOLDEN "gpt2"); /* adds none by itself, but has one */
    assert_false(sonde_tokenizer_adds_bos(t));
    sonde_tokens a = encode(t, "the", 3, SONDE_BOS_AUTO, false),
                 b = encode(t, "the", 3, SONDE_BOS_ALWAYS, false);
    assert_int_equal(b.n, a.n + 1);
    assert_int_equal(b.id[0], sonde_tokenizer_bos_id(t));
    sonde_tokens_free(&a);
    sonde_tokens_free(&b);
    sonde_tokenizer_close(t);
    t = open_or_die(GOLDEN "odd"); /* has no special token at all */
    sonde_tokens none = {0};
    sonde_err err = {0};
    assert_int_equal(sonde_tokenizer_encode(t, "the", 3, SONDE_BOS_ALWAYS, false, &none, &err),
                     SONDE_E_USAGE);
    assert_int_equal(none.n, 0);
    sonde_tokens_free(&none);
    sonde_tokenizer_close(t);
}

static void a_failed_call_leaves_the_tokens_as_they_were(void **state)
{
    (void)state;
    sonde_tokenizer *t = open_or_die(GOLDEN "odd");
    sonde_tokens k = encode(t, "the", 3, SONDE_BOS_NEVER, false);
    size_t n = k.n;
    assert_int_equal(sonde_tokenizer_encode(t, "x", (size_t)UINT32_MAX + 1, SONDE_BOS_NEVER, false, &k, NULL),
                     SONDE_E_USAGE);
    assert_int_equal(k.n, n);
    char *s = NULL;
    size_t n_s;
    int32_t outside = sonde_tokenizer_size(t);
    assert_int_equal(sonde_tokenizer_decode(t, &outside, 1, true, &s, &n_s, NULL), SONDE_E_USAGE);
    outside = -1;
    assert_int_equal(sonde_tokenizer_decode(t, &outside, 1, true, &s, &n_s, NULL), SONDE_E_USAGE);
    assert_null(s);
    sonde_tokens_free(&k);
    sonde_tokenizer_close(t);
}

/* ---- files ------------------------------------------------------------------------------------- */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(text, 1, strlen(text), f) == strlen(text));
    fclose(f);
}

static void remove_dir(const char *dir)
{
    static const char *const name[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                       "special_tokens_map.json"};
    char path[300];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, name[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* The golden GPT-2 pipeline as vocab.json and merges.txt. */
static void put_pair(const char *dir)
{
    json_error_t e;
    json_t *root = json_load_file(GOLDEN "gpt2/tokenizer.json", 0, &e),
           *model = json_object_get(root, "model"), *m;
    const json_t *added = json_array_get(json_object_get(root, "added_tokens"), 0);
    json_object_set(json_object_get(model, "vocab"), json_string_value(json_object_get(added, "content")),
                    json_object_get(added, "id"));
    char *vocab = json_dumps(json_object_get(model, "vocab"), 0), *merges = calloc(1, 100000);
    size_t i;
    strcpy(merges, "#version: 0.2\n");
    json_array_foreach(json_object_get(model, "merges"), i, m)
    {
        strcat(merges, json_string_value(m));
        strcat(merges, i % 2 ? "\n" : "\r\n");
    }
    put_file(dir, "vocab.json", vocab);
    put_file(dir, "merges.txt", merges);
    free(vocab);
    free(merges);
    json_decref(root);
}

static void vocab_and_merges_equal_the_tokenizer_json(void **state)
{
    (void)state;
    char dir[] = "/tmp/sonde-test-XXXXXX", path[300];
    static const char text[] = "The cat's 42 hats,  don't\n\n you?";
    assert_non_null(mkdtemp(dir));
    put_pair(dir);
    sonde_tokenizer *a = open_or_die(GOLDEN "gpt2"), *b = open_or_die(dir);
    sonde_tokens x = encode(a, text, strlen(text), SONDE_BOS_AUTO, false),
                 y = encode(b, text, strlen(text), SONDE_BOS_AUTO, false);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.id, y.id, x.n * sizeof *x.id);
    assert_int_equal(sonde_tokenizer_bos_id(a), sonde_tokenizer_bos_id(b));
    assert_int_equal(strlen(sonde_tokenizer_sha256(b)), 64);
    assert_string_not_equal(sonde_tokenizer_sha256(a), sonde_tokenizer_sha256(b));
    sonde_tokenizer_close(b);
    snprintf(path, sizeof path, "%s/merges.txt", dir); /* either file stands for both */
    b = open_or_die(path);
    assert_int_equal(sonde_tokenizer_size(a), sonde_tokenizer_size(b));
    sonde_tokenizer_close(b);
    put_file(dir, "tokenizer_config.json",
             "{\"add_bos_token\": true, \"add_prefix_space\": true, \"bos_token\": {\"content\": "
             "\"<|endoftext|>\"}, "
             "\"eos_token\": null, \"model_max_length\": 1000000000000000019884624838656}");
    b = open_or_die(dir);
    assert_true(sonde_tokenizer_adds_bos(b));
    assert_int_equal(sonde_tokenizer_eos_id(b), -1);
    sonde_tokens z = encode(b, text, strlen(text), SONDE_BOS_AUTO, false);
    assert_int_equal(z.id[0], sonde_tokenizer_bos_id(b));
    assert_int_equal(sonde_tokenizer_bytes(b, z.id[1], &(size_t){0})[0], ' ');
    sonde_tokens_free(&x);
    sonde_tokens_free(&y);
    sonde_tokens_free(&z);
    sonde_tokenizer_close(a);
    sonde_tokenizer_close(b);
    remove_dir(dir);
}

/* ---- time and threads -------------------------------------------------------------------------- */

static void one_letter_a_million_times_is_fast(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "qwen2", "llama2", "gemma", "odd"};
    size_t n = 1000000;
    char *text = malloc(n);
    for (int m = 0; m < 5; m++) {
        char path[300];
        snprintf(path, sizeof path, GOLDEN "%s", models[m]);
        sonde_tokenizer *t = open_or_die(path);
        for (const char *c = "a \n.'1\xff"; *c; c++) {
            memset(text, *c, n);
            double start = seconds();
            sonde_tokens k = encode(t, text, n, SONDE_BOS_NEVER, false);
            if (seconds() - start >
                20) /* milliseconds, but sanitizers and valgrind are slow; quadratic would be minutes */
                fail_msg("%s: %zu times 0x%02x took %.1f s", models[m], n, (unsigned char)*c,
                         seconds() - start);
            sonde_tokens_free(&k);
        }
        sonde_tokenizer_close(t);
    }
    free(text);
}

struct shared {
    const sonde_tokenizer *t;
    const char *text;
    const sonde_tokens *want;
    int same[16];
};

static void encode_task(void *arg, size_t task, int thread)
{
    struct shared *s = arg;
    sonde_tokens k = {0};
    (void)thread;
    s->same[task] =
        sonde_tokenizer_encode(s->t, s->text, strlen(s->text), SONDE_BOS_AUTO, true, &k, NULL) == SONDE_OK &&
        k.n == s->want->n && !memcmp(k.id, s->want->id, k.n * sizeof *k.id);
    sonde_tokens_free(&k);
}

static void threads_share_one_tokenizer(void **state)
{
    (void)state;
    static const char *const models[] = {"qwen2", "llama2", "odd"};
    sonde_pool *pool;
    assert_int_equal(sonde_pool_new(4, &pool, NULL), SONDE_OK);
    for (int m = 0; m < 3; m++) {
        char path[300];
        snprintf(path, sizeof path, GOLDEN "%s", models[m]);
        sonde_tokenizer *t = open_or_die(path);
        struct shared s = {.t = t, .text = "The cat's <word> e\xcc\x81 42  [MASK] don't\n\nyou"};
        sonde_tokens want = encode(t, s.text, strlen(s.text), SONDE_BOS_AUTO, true);
        s.want = &want;
        sonde_pool_run(pool, 16, encode_task, &s);
        for (int i = 0; i < 16; i++)
            assert_true(s.same[i]);
        sonde_tokens_free(&want);
        sonde_tokenizer_close(t);
    }
    sonde_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_ranges_tile_any_bytes_and_decode_to_them),
        cmocka_unit_test(invalid_bytes_are_characters_of_their_own),
        cmocka_unit_test(unicode_classes_are_those_of_the_standard),
        cmocka_unit_test(ranges_refer_to_the_text_before_normalisation),
        cmocka_unit_test(pieces_of_any_length_equal_the_definition),
        cmocka_unit_test(a_long_text_equals_its_lines_one_by_one),
        cmocka_unit_test(control_tokens_in_text_are_text_unless_asked_for),
        cmocka_unit_test(bos_follows_the_policy_and_is_never_double),
        cmocka_unit_test(a_failed_call_leaves_the_tokens_as_they_were),
        cmocka_unit_test(vocab_and_merges_equal_the_tokenizer_json),
        cmocka_unit_test(one_letter_a_million_times_is_fast),
        cmocka_unit_test(threads_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
