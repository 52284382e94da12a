/* SPDX-License-Identifier: MIT
 * Tokenizer files that are damaged or made to do harm: one line and a code, under a memory limit, in little
 * time. */
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

#include "../fault/gguf_maker.h"
#include "text/tokenizer.h"

#define LIMIT ((size_t)64 << 20)

static char dir[] = "/tmp/sonde-test-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[2][300];
    static int k;
    k ^= 1;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void put_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_true(n == 0 || fwrite(data, 1, n, f) == n);
    fclose(f);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A tokenizer that was accepted works: ids in the vocabulary, ranges in the text and in order. */
static void use(const sonde_tokenizer *t)
{
    static const char text[] = "ab abc\n 12 \xff\xc3\xa9 <s>x</s> \0 hello";
    for (int special = 0; special < 2; special++) {
        sonde_tokens k = {0};
        sonde_err err = {0};
        enum sonde_code rc =
            sonde_tokenizer_encode(t, text, sizeof text - 1, SONDE_BOS_AUTO, special, &k, &err);
        assert_true(rc == SONDE_OK || (rc == SONDE_E_INPUT && err.msg[0]));
        for (size_t i = 0; i < k.n; i++) {
            assert_true(k.id[i] >= 0 && k.id[i] < sonde_tokenizer_size(t));
            assert_true(k.begin[i] <= k.end[i] && k.end[i] < sizeof text);
            assert_true(i == 0 || (k.begin[i] >= k.begin[i - 1] && k.end[i] >= k.end[i - 1]));
        }
        char *s;
        size_t n;
        assert_int_equal(sonde_tokenizer_decode(t, k.id, k.n, special, &s, &n, NULL), SONDE_OK);
        free(s);
        sonde_tokens_free(&k);
    }
    for (int32_t id = -1; id <= sonde_tokenizer_size(t) && id < 2000; id++) {
        size_t n;
        const char *s = sonde_tokenizer_bytes(t, id, &n);
        for (size_t i = 0; i < n; i++)
            (void)*(volatile const char *)(s + i);
    }
}

static enum sonde_code try_open(const char *path, sonde_err *err)
{
    sonde_budget budget = {.limit = LIMIT};
    sonde_tokenizer *t = NULL;
    *err = (sonde_err){0};
    enum sonde_code rc = sonde_tokenizer_open(path, &budget, &t, err);
    if (rc) {
        assert_null(t);
        assert_true(rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY || rc == SONDE_E_IO);
        assert_true(err->code == rc && err->msg[0] != '\0' && !strchr(err->msg, '\n'));
    } else {
        use(t);
        sonde_tokenizer_close(t);
    }
    assert_int_equal(budget.taken, 0);
    return rc;
}

/* ---- small whole files ------------------------------------------------------------------------- */

static const char json_bytes[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":"
    "false},"
    "{\"id\":7,\"content\":\"  \",\"special\":false,\"lstrip\":true,\"rstrip\":true,\"single_word\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"},{"
    "\"type\":\"Replace\","
    "\"pattern\":{\"Regex\":\"x+\"},\"content\":\"a\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\","
    "\"pretokenizers\":[{\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"\\\\s|\\\\d{1,2}\"},\"behavior\":\"MergedWithNext\",\"invert\":false},{"
    "\"type\":\"ByteLevel\","
    "\"add_prefix_space\":true,\"use_regex\":true}]},\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{\"SpecialToken\":"
    "{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>"
    "\":{\"id\":\"<s>\",\"ids\":[6]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"a\","
    "\"fuse_unk\":true,"
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"\\u0120\":5},\"merges\":[\"a "
    "b\",[\"ab\",\"c\"]]}}";

static const char json_chars[] = "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true}],"
                                 "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"
                                 "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\","
                                 "\"prepend_scheme\":\"first\",\"split\":true},"
                                 "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                                 "\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},"
                                 "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
                                 "\"content\":\" \",\"start\":1,\"stop\":0}]},"
                                 "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,"
                                 "\"vocab\":{\"<unk>\":0,\"\\u2581\":1,\"a\":2,\"b\":3,"
                                 "\"\\u2581a\":4,\"<0xC3>\":5,\"<0xA9>\":6},\"merges\":[\"\\u2581 a\"]}}";

static const char vocab_json[] =
    "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"\\u0120\":5,\"<|endoftext|>\":9}";
static const char merges_txt[] = "#version: 0.2\na b\nab c\n";

static size_t make_bin(unsigned char *b)
{
    static const char *const piece[] = {"<unk>", "\n<s>\n", "\n</s>\n", "<0x00>", "a", "b", "ab", " ", " a"};
    size_t n = 4;
    memcpy(b, &(int32_t){6}, 4);
    for (int i = 0; i < 9; i++) {
        float score = (float)-i;
        int32_t len = (int32_t)strlen(piece[i]);
        memcpy(b + n, &score, 4);
        memcpy(b + n + 4, &len, 4);
        memcpy(b + n + 8, piece[i], (size_t)len);
        n += 8 + (size_t)len;
    }
    return n;
}

static size_t put_model_piece(unsigned char *b, const char *s, float score, int type)
{
    size_t n = strlen(s);
    b[0] = 0x0a;
    b[1] = (unsigned char)(2 + n + 5 + 2);
    b[2] = 0x0a;
    b[3] = (unsigned char)n;
    memcpy(b + 4, s, n);
    b[4 + n] = 0x15;
    memcpy(b + 5 + n, &score, 4);
    b[9 + n] = 0x18;
    b[10 + n] = (unsigned char)type;
    return n + 11;
}

static size_t make_model(unsigned char *b)
{
    static const struct {
        const char *s;
        int type;
    } piece[] = {{"<unk>", 2},
                 {"<s>", 3},
                 {"</s>", 3},
                 {"<0xC3>", 6},
                 {"a", 1},
                 {"b", 1},
                 {"ab", 1},
                 {"\xe2\x96\x81", 1},
                 {"\xe2\x96\x81"
                  "a",
                  1},
                 {"hello", 4},
                 {"zz", 5}};
    size_t n = 0;
    for (int i = 0; i < 11; i++)
        n += put_model_piece(b + n, piece[i].s, (float)-i, piece[i].type);
    static const unsigned char trainer[] = {0x12, 5, 0x18, 2, 0x98, 0x02, 1},
                               normal[] = {0x1a, 4, 0x18, 1, 0x20, 1};
    memcpy(b + n, trainer, sizeof trainer);
    n += sizeof trainer;
    memcpy(b + n, normal, sizeof normal);
    return n + sizeof normal;
}

/* Every truncation and every single-bit flip of one file (the others of its directory stay). */
static void torture(const char *name, const void *whole, size_t n)
{
    unsigned char *b = malloc(n + 1);
    sonde_err err;
    put_file(name, whole, n);
    if (try_open(in_dir(name), &err))
        fail_msg("the whole file is refused: %s", err.msg);
    for (size_t k = 0; k < n; k++) {
        put_file(name, whole, k);
        try_open(in_dir(name), &err);
    }
    for (size_t i = 0; i < 8 * n; i++) {
        memcpy(b, whole, n);
        b[i / 8] ^= (unsigned char)(1u << i % 8);
        put_file(name, b, n);
        try_open(in_dir(name), &err);
    }
    free(b);
    unlink(in_dir(name));
}

static void damaged_tokenizer_json_is_refused_or_works(void **state)
{
    (void)state;
    torture("bytes.json", json_bytes, sizeof json_bytes - 1);
    torture("chars.json", json_chars, sizeof json_chars - 1);
}

static void damaged_vocab_or_merges_is_refused_or_works(void **state)
{
    (void)state;
    put_file("vocab.json", vocab_json, sizeof vocab_json - 1);
    torture("merges.txt", merges_txt, sizeof merges_txt - 1);
    put_file("merges.txt", merges_txt, sizeof merges_txt - 1);
    torture("vocab.json", vocab_json, sizeof vocab_json - 1);
    unlink(in_dir("merges.txt"));
}

static void damaged_tokenizer_bin_is_refused_or_works(void **state)
{
    (void)state;
    unsigned char b[400];
    sonde_err err;
    size_t n = make_bin(b), at = 4, n_pieces = 0;
    torture("tokenizer.bin", b, n);
    for (size_t k = 0; k <= n;
         k++) { /* cut between pieces it is a smaller vocabulary, anywhere else it is damaged */
        put_file("tokenizer.bin", b, k);
        bool between = k == at;
        assert_int_equal(try_open(in_dir("tokenizer.bin"), &err),
                         between && n_pieces >= 3 ? SONDE_OK : SONDE_E_INPUT);
        if (!between || k == n)
            continue;
        int32_t len;
        memcpy(&len, b + at + 4, 4);
        at += 8 + (size_t)len;
        n_pieces++;
    }
    unlink(in_dir("tokenizer.bin"));
}

static void damaged_tokenizer_model_is_refused_or_works(void **state)
{
    (void)state;
    unsigned char b[400];
    torture("tokenizer.model", b, make_model(b));
}

/* ---- one row per defect ------------------------------------------------------------------------ */

#define MODEL(rest) "{\"model\":{\"type\":\"BPE\"," rest "}}"
#define AB          "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define WITH(part)  "{" part ",\"model\":{" AB ",\"merges\":[]}}"

static const struct {
    const char *json, *words; /* words: what the message must say; NULL: accepted */
} row[] = {
    {MODEL(AB ",\"merges\":[\"a b\"]"), NULL},
    {MODEL(AB ",\"merges\":[\"a c\"]"), "refers to 'c'"},
    {MODEL(AB ",\"merges\":[\"b a\"]"), "makes no token"},
    {MODEL(AB ",\"merges\":[\"ab\"]"), "not two tokens"},
    {MODEL(AB ",\"merges\":[\"a b c\"]"), "not two tokens"},
    {MODEL(AB ",\"merges\":[[\"a\",\"b\",\"c\"]]"), "not two tokens"},
    {MODEL(AB ",\"merges\":[[\"a\",1]]"), "not two tokens"},
    {MODEL(AB ",\"merges\":[7]"), "not two tokens"},
    {MODEL(AB ",\"merges\":{}"), "no list 'merges'"},
    {MODEL("\"vocab\":[],\"merges\":[]"), "no object 'vocab'"},
    {MODEL("\"vocab\":{},\"merges\":[]"), "empty"},
    {MODEL("\"vocab\":{\"a\":0,\"b\":5},\"merges\":[]"), NULL}, /* holes are allowed */
    {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "two tokens"},
    {MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "duplicate"},
    {MODEL("\"vocab\":{\"a\":0,\"\\u0061\":1},\"merges\":[]"), "duplicate"},
    {MODEL("\"vocab\":{\"a\":2147483647},\"merges\":[]"), "largest token id"},
    {MODEL("\"vocab\":{\"a\":2147483648},\"merges\":[]"), "largest token id"},
    {MODEL("\"vocab\":{\"a\":9223372036854775807},\"merges\":[]"), "largest token id"},
    {MODEL("\"vocab\":{\"a\":1000000},\"merges\":[]"), "largest token id"},
    {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), "no integer from 0"},
    {MODEL("\"vocab\":{\"a\":0.5},\"merges\":[]"), "no integer from 0"},
    {MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "no integer from 0"},
    {MODEL("\"vocab\":{\"\\ud800\":0},\"merges\":[]"), "JSON"},
    {MODEL("\"vocab\":{\"\\udc00x\":0},\"merges\":[]"), "JSON"},
    {MODEL("\"vocab\":{\"a\\u0000b\":0},\"merges\":[]"), "JSON"},
    {MODEL(AB ",\"merges\":[],\"dropout\":0.1"), "dropout"},
    {MODEL(AB ",\"merges\":[],\"unk_token\":\"z\""), "unk_token 'z'"},
    {MODEL(AB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\""), "'</w>' is not implemented"},
    {MODEL(AB ",\"merges\":[],\"continuing_subword_prefix\":\"##\""), "'##' is not implemented"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "'Unigram' is not implemented"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "'WordPiece' is not implemented"},
    {"{\"model\":7}", "no object 'model'"},
    {"[]", "no object 'model'"},
    {"", "JSON"},
    {"\xef\xbb\xbf{}", "JSON"},
    {WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), "normalizer 'Precompiled' is not implemented"},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}"),
     "not understood"},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}"), "'String' is missing"},
    {WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":7}"), "no list"},
    {WITH("\"normalizer\":7"), "object"},
    {WITH("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"),
     "pre_tokenizer 'UnicodeScripts' is not implemented"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
          "\"Digits\"}]}"),
     "after ByteLevel"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&[b]]\"},\"behavior\":"
          "\"Isolated\"}"),
     "set inside"},
    {WITH(
         "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?R)\"},\"behavior\":\"Isolated\"}"),
     "not implemented"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\Kb\"},\"behavior\":"
          "\"Isolated\"}"),
     "not implemented"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}"),
     "'Sideways'"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}"),
     "leaves the text out"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
          "}"),
     "no ids for 'x'"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
          "{\"Sequence\":{\"id\":\"A\"}}],"
          "\"special_tokens\":{\"x\":{\"ids\":[77]}}}"),
     "id 77, which is no token"},
    {WITH("\"post_processor\":{\"type\":\"Mystery\"}"), "'Mystery' is not implemented"},
    {WITH("\"decoder\":{\"type\":\"CTC\"}"), "decoder 'CTC' is not implemented"},
    {WITH("\"decoder\":{\"type\":\"ByteLevel\"}"), "both be ByteLevel"},
    {WITH("\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"),
     "empty string"},
    {WITH("\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]"), "has id 1, the vocabulary gives it 0"},
    {WITH("\"added_tokens\":[{\"id\":0,\"content\":\"z\"}]"), "belongs to two tokens"},
    {WITH("\"added_tokens\":[{\"id\":5,\"content\":\"z\"},{\"id\":5,\"content\":\"z\"}]"), "added twice"},
    {WITH("\"added_tokens\":[{\"id\":5,\"content\":\"z\"},{\"id\":6,\"content\":\"z\"}]"),
     "vocabulary gives it 5"},
    {WITH("\"added_tokens\":[{\"id\":5,\"content\":\"\"}]"), "has 0 bytes"},
    {WITH("\"added_tokens\":[{\"id\":2147483647,\"content\":\"z\"}]"), "largest token id"},
    {WITH("\"added_tokens\":[{\"id\":-1,\"content\":\"z\"}]"), "'id' is -1"},
    {WITH("\"added_tokens\":[{\"content\":\"z\"}]"), "'id' is missing"},
    {WITH("\"added_tokens\":[7]"), "object"},
    {WITH("\"added_tokens\":{}"), "not a list"},
};

static void each_defect_of_a_tokenizer_json_is_named(void **state)
{
    (void)state;
    sonde_err err;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_file("row.json", row[i].json, strlen(row[i].json));
        enum sonde_code rc = try_open(in_dir("row.json"), &err);
        if (!row[i].words ? rc != SONDE_OK : rc != SONDE_E_INPUT || !strstr(err.msg, row[i].words))
            fail_msg("row %zu (%s): code %d, '%s', want '%s'", i, row[i].json, rc, err.msg,
                     row[i].words ? row[i].words : "success");
    }
    unlink(in_dir("row.json"));
}

/* A vocabulary in a GGUF; what is wrong with it is one of these. */
enum defect {
    NO_DEFECT,
    BAD_MODEL,
    BAD_PRE,
    BAD_TYPE,
    SHORT_TYPES,
    NO_SCORES,
    SHORT_SCORES,
    BAD_BOS,
    SAME_NAME,
    BAD_MERGE,
    NO_TOKENS
};

static void make_gguf(struct maker *k, bool spm, enum defect d)
{
    static const char *const bpe[] = {"a", "b", "ab", "<|end|>", "\xc4\xa0"}, *const pieces[] = {
                                                                                  "<unk>", "<s>", "</s>", "a",
                                                                                  "\xe2\x96\x81"};
    static const int32_t bpe_type[] = {1, 1, 1, 3, 1}, piece_type[] = {2, 3, 3, 1, 1};
    put_head(k, 3, 0, spm ? 5 : 6);
    put_key(k, "tokenizer.ggml.model", KV_STRING);
    put_str(k, d == BAD_MODEL ? "bert" : spm ? "llama" : "gpt2");
    put_key(k, "tokenizer.ggml.bos_token_id", KV_U32);
    put32(k, d == BAD_BOS ? 5 : 1);
    put_array(k, d == NO_TOKENS ? "tokens" : "tokenizer.ggml.tokens", KV_STRING, 5);
    for (int i = 0; i < 5; i++)
        put_str(k, d == SAME_NAME && i == 4 ? "a" : spm ? pieces[i] : bpe[i]);
    put_array(k, "tokenizer.ggml.token_type", KV_I32, d == SHORT_TYPES ? 4 : 5);
    for (int i = 0; i < (d == SHORT_TYPES ? 4 : 5); i++)
        put32(k, (uint32_t)(d == BAD_TYPE && i == 3 ? 9 : spm ? piece_type[i] : bpe_type[i]));
    if (spm) {
        put_array(k, d == NO_SCORES ? "scores" : "tokenizer.ggml.scores", KV_F32, d == SHORT_SCORES ? 3 : 5);
        put_zeros(k, d == SHORT_SCORES ? 12 : 20);
    } else {
        put_array(k, "tokenizer.ggml.merges", KV_STRING, 1);
        put_str(k, d == BAD_MERGE ? "a c" : "a b");
        put_key(k, "tokenizer.ggml.pre", KV_STRING);
        put_str(k, d == BAD_PRE ? "mystery" : "gpt-2");
    }
    put_pad(k, 32);
}

static void damaged_gguf_vocabulary_is_refused_or_works(void **state)
{
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct maker k = {.n = 0};
        make_gguf(&k, spm, NO_DEFECT);
        torture("vocab.gguf", k.b, k.n);
    }
}

static void each_defect_of_a_gguf_vocabulary_is_named(void **state)
{
    (void)state;
    static const struct {
        bool spm;
        enum defect defect;
        const char *words;
    } gguf_row[] = {{false, BAD_MODEL, "'bert' is not implemented"},
                    {false, BAD_PRE, "'mystery' is not implemented"},
                    {false, BAD_TYPE, "type"},
                    {true, BAD_TYPE, "type 0"},
                    {false, SHORT_TYPES, "4 items"},
                    {true, SHORT_SCORES, "3 items"},
                    {true, NO_SCORES, "scores is missing"},
                    {true, BAD_BOS, "bos_token_id is 5"},
                    {false, BAD_BOS, "bos_token_id is 5"},
                    {false, SAME_NAME, "two ids"},
                    {false, BAD_MERGE, "refers to 'c'"},
                    {false, NO_TOKENS, "tokens is missing"}};
    sonde_err err;
    for (size_t i = 0; i < sizeof gguf_row / sizeof *gguf_row; i++) {
        struct maker k = {.n = 0};
        make_gguf(&k, gguf_row[i].spm, gguf_row[i].defect);
        put_file("row.gguf", k.b, k.n);
        if (try_open(in_dir("row.gguf"), &err) != SONDE_E_INPUT || !strstr(err.msg, gguf_row[i].words))
            fail_msg("row %zu: '%s', want '%s'", i, err.msg, gguf_row[i].words);
    }
    unlink(in_dir("row.gguf"));
}

static void huge_tokens_do_no_harm(void **state)
{
    (void)state;
    size_t n = 10000000;
    char *s = malloc(n + 400);
    sonde_err err;
    int k = sprintf(s, "{\"model\":{\"vocab\":{\"a\":0,\"");
    memset(s + k, 'a', n);
    strcpy(s + k + n, "\":1},\"merges\":[]}}");
    put_file("huge.json", s, strlen(s));
    double start = seconds();
    assert_int_equal(try_open(in_dir("huge.json"), &err), SONDE_OK);
    k = sprintf(s,
                "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1,\"content\":\"");
    memset(s + k, 'a', n);
    strcpy(s + k + n, "\"}]}");
    put_file("huge.json", s, strlen(s));
    assert_int_not_equal(try_open(in_dir("huge.json"), &err), SONDE_OK);
    memset(s, 'a', n + 24);
    memcpy(s, &(int32_t){1}, 4);
    for (int i = 0; i < 3; i++) { /* three pieces, the last of 10 MB */
        int32_t len = i < 2 ? 1 : (int32_t)n - 22;
        memset(s + 4 + 9 * i, 0, 4);
        memcpy(s + 8 + 9 * i, &len, 4);
        s[12 + 9 * i] = (char)('x' + i);
    }
    put_file("huge.bin", s, 4 + 9 + 9 + 8 + n - 22);
    assert_int_equal(try_open(in_dir("huge.bin"), &err), SONDE_E_INPUT);
    assert_true(seconds() - start < 20);
    unlink(in_dir("huge.json"));
    unlink(in_dir("huge.bin"));
    free(s);
}

static void catastrophic_patterns_are_given_up(void **state)
{
    (void)state;
    static const char *const pattern[] = {"(a+)+$",      "(a|aa)+$",        "(.*)*x",
                                          "a*a*a*a*a*b", "(?:a?){40}a{40}", "(?=(a+)+$)b"};
    for (size_t i = 0; i < 6; i++) {
        char json[400], *text = malloc(100000);
        int k = snprintf(json, sizeof json,
                         "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":"
                         "\"Isolated\"},"
                         "\"model\":{\"vocab\":{\"a\":0,\"!\":1},\"merges\":[]}}",
                         pattern[i]);
        put_file("regex.json", json, (size_t)k);
        sonde_tokenizer *t = NULL;
        sonde_tokens tok = {0};
        sonde_err err = {0};
        assert_int_equal(sonde_tokenizer_open(in_dir("regex.json"), NULL, &t, &err), SONDE_OK);
        memset(text, 'a', 100000);
        for (size_t at = 99; at < 100000; at += 100)
            text[at] = '!';
        double start = seconds();
        enum sonde_code rc = sonde_tokenizer_encode(t, text, 100000, SONDE_BOS_NEVER, false, &tok, &err);
        if (rc != SONDE_OK && rc != SONDE_E_INPUT)
            fail_msg("%s: code %d, %s", pattern[i], rc, err.msg);
        if (seconds() - start > 60)
            fail_msg("%s took %.0f s", pattern[i], seconds() - start);
        if (i < 2) {
            assert_int_equal(rc, SONDE_E_INPUT);
            assert_non_null(strstr(err.msg, "too many steps"));
        }
        sonde_tokens_free(&tok);
        sonde_tokenizer_close(t);
        free(text);
    }
    unlink(in_dir("regex.json"));
}

static void a_missing_or_empty_directory_is_named(void **state)
{
    (void)state;
    sonde_err err;
    assert_int_equal(try_open(in_dir("nowhere"), &err), SONDE_E_IO);
    assert_int_equal(try_open(dir, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "no tokenizer here"));
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_tokenizer_json_is_refused_or_works),
        cmocka_unit_test(damaged_vocab_or_merges_is_refused_or_works),
        cmocka_unit_test(damaged_tokenizer_bin_is_refused_or_works),
        cmocka_unit_test(damaged_tokenizer_model_is_refused_or_works),
        cmocka_unit_test(damaged_gguf_vocabulary_is_refused_or_works),
        cmocka_unit_test(each_defect_of_a_tokenizer_json_is_named),
        cmocka_unit_test(each_defect_of_a_gguf_vocabulary_is_named),
        cmocka_unit_test(huge_tokens_do_no_harm),
        cmocka_unit_test(catastrophic_patterns_are_given_up),
        cmocka_unit_test(a_missing_or_empty_directory_is_named),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
