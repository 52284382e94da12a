/* SPDX-License-Identifier: MIT
 * Option tables and numbers of the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "number.h"
#include "option.h"
#include "progress.h"
#include "tool.h"

struct values {
    const char *model;
    struct strings hook;
    uint64_t context, latents, cache;
    double lr, holdout;
    int dtype;
    bool loss;
};

static const struct option table[] = {
    {"model", OPT_STRING, offsetof(struct values, model), "DIR", "a model", NULL, OPT_RESULT | OPT_REQUIRED},
    {"hook", OPT_STRINGS, offsetof(struct values, hook), "NAME", "a hook", "resid", OPT_RESULT},
    {"context", OPT_COUNT, offsetof(struct values, context), "N", "tokens per context", .fallback = "128",
     OPT_RESULT, .min = 1, .max = 1e6},
    {"latents", OPT_COUNT, offsetof(struct values, latents), "N", "latents", NULL, OPT_RESULT},
    {"cache", OPT_BYTES, offsetof(struct values, cache), "BYTES", "cache", "1MiB"},
    {"lr", OPT_FLOAT, offsetof(struct values, lr), "X", "rate", .fallback = "auto", OPT_RESULT,
     .words = "auto"},
    {"holdout", OPT_FLOAT, offsetof(struct values, holdout), "X", "part", .fallback = "0.05", OPT_RESULT,
     .min = 0, .max = 1},
    {"dtype", OPT_CHOICE, offsetof(struct values, dtype), NULL, "type", .fallback = "f32", OPT_RESULT,
     .words = "f32|f16|bf16"},
    {"loss", OPT_FLAG, offsetof(struct values, loss), NULL, "loss", NULL, OPT_RESULT},
};

static const struct command capture = {.name = "capture",
                                       .operands = "FILE",
                                       .max_operands = 2,
                                       .options = table,
                                       .n_options = sizeof table / sizeof *table,
                                       .n_values = sizeof(struct values),
                                       .common = TAKES_OUTPUT | TAKES_SEED | TAKES_THREADS | TAKES_MEMORY |
                                                 TAKES_PROGRESS};

/* Parse a line cut at spaces. */
static enum sonde_code parse(const char *line, struct parsed *p, sonde_err *err)
{
    static char copy[2000];
    char *argv[64];
    int argc = 0;
    strcpy(copy, line);
    for (char *s = strtok(copy, " "); s; s = strtok(NULL, " "))
        argv[argc++] = s;
    memset(err, 0, sizeof *err);
    return option_parse(&capture, argc, argv, p, err);
}

static void refuse(const char *line, const char *message)
{
    struct parsed p;
    sonde_err err;
    assert_int_equal(parse(line, &p, &err), SONDE_E_USAGE);
    assert_string_equal(err.msg, message);
    parsed_free(&p);
}

static void values_arrive_in_both_spellings(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "--model m --hook a --hook=b --context 4k --cache 1.5MiB --lr 1e-3 --dtype bf16 --loss -o out -q "
        "--seed 7 in",
        "in --model=m --hook=a --hook b --context=4000 --cache=1536KiB --lr=0.001 --dtype=bf16 --loss -oout "
        "--quiet --seed=7",
        "-qo out --seed=7 --model=m --hook=a --hook b --context=4.0k --cache=1572864 --lr=.1e-2 --dtype=bf16 "
        "--loss -- in",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct parsed p;
        sonde_err err;
        assert_int_equal(parse(lines[i], &p, &err), SONDE_OK);
        const struct values *v = p.values;
        assert_string_equal(v->model, "m");
        assert_int_equal(v->hook.n, 2);
        assert_string_equal(v->hook.item[1], "b");
        assert_int_equal(v->context, 4000);
        assert_int_equal(v->cache, 1536 << 10);
        assert_true(v->lr == 1e-3 && v->holdout == 0.05 && v->loss && v->dtype == 2);
        assert_string_equal(p.common.output, "out");
        assert_true(p.common.quiet && !p.common.force && p.common.seed == 7);
        assert_true(p.common.threads == OPTION_WORD && p.common.max_memory == OPTION_WORD);
        assert_int_equal(p.n_operands, 1);
        assert_string_equal(p.operand[0], "in");
        assert_true(option_given(&p, "context") && !option_given(&p, "latents"));
        parsed_free(&p);
    }
}

static void canonical_text_names_what_affects_the_result(void **state)
{
    (void)state;
    struct parsed p;
    sonde_err err;
    assert_int_equal(
        parse("-o x --force --threads 2 -q --max-memory 1GiB --loss --model /m/gpt2 in", &p, &err), SONDE_OK);
    char *a = option_canonical(&p);
    parsed_free(&p);
    assert_string_equal(a, "capture --model=/m/gpt2 --hook=resid --context=128 --lr=auto --holdout=0.05 "
                           "--dtype=f32 --loss --seed=0 in");
    assert_int_equal(parse("in --context 128 --model /m/gpt2 --holdout 5e-2 --loss", &p, &err), SONDE_OK);
    char *b = option_canonical(&p);
    parsed_free(&p);
    assert_string_equal(a, b);
    free(a);
    free(b);
    assert_int_equal(
        option_parse(&capture, 4, (char *[]){"--model", "it's a $", "--latents", "12M"}, &p, &err), SONDE_OK);
    a = option_canonical(&p);
    parsed_free(&p);
    assert_string_equal(a, "capture --model='it'\\''s a $' --hook=resid --context=128 --latents=12000000 "
                           "--lr=auto --holdout=0.05 "
                           "--dtype=f32 --seed=0");
    free(a);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    refuse("--modle m", "no option '--modle'; did you mean '--model'?");
    refuse("--sed 1 --model m", "no option '--sed'; did you mean '--seed'?");
    refuse("--resume --model m", "no option '--resume'");
    refuse("-x", "no option '-x'; the short ones are -o, -q, -v and -h");
    refuse("--context 12", "--model DIR is missing; sonde capture --help shows examples");
    refuse("--model", "--model needs a value: --model DIR");
    refuse("--model --loss", "--model needs a value; if it is '--loss', write --model=--loss");
    refuse("--model m --context 0", "--context 0: must be between 1 and 1e+06");
    refuse("--model m --context 1.0001k", "--context 1.0001k: is not a count (128, 10k, 1.5M)");
    refuse("--model m --context -1", "--context -1: is not a count (128, 10k, 1.5M)");
    refuse("--model m --holdout 1.5", "--holdout 1.5: must be between 0 and 1");
    refuse("--model m --lr nan", "--lr nan: is not a number, nor 'auto'");
    refuse("--model m --dtype f64", "--dtype f64: must be one of f32|f16|bf16");
    refuse("--model m --dtype f", "--dtype f: must be one of f32|f16|bf16");
    refuse("--model m --loss=1", "--loss takes no value");
    refuse("--model m a b c", "'c' is one word too many; sonde capture --help shows examples");
    refuse("--model m --max-memory 0", "--max-memory 0: must be at least 1");
    refuse("--model m -o", "-o needs a value: -o PATH");
}

static void help_is_found_before_anything_is_missing(void **state)
{
    (void)state;
    struct parsed p;
    sonde_err err;
    assert_int_equal(parse("--context 3 --help", &p, &err), SONDE_OK);
    assert_true(p.help);
    parsed_free(&p);
    assert_int_equal(parse("-qh", &p, &err), SONDE_OK);
    assert_true(p.help);
    parsed_free(&p);
}

static void counts_are_exact(void **state)
{
    (void)state;
    uint64_t n;
    assert_true(number_parse_count("18446744073709551615", &n) && n == UINT64_MAX);
    assert_true(number_parse_count("18.446744073G", &n) && n == 18446744073u);
    assert_true(number_parse_count("0.5k", &n) && n == 500);
    static const char *const bad[] = {"18446744073709551616",
                                      "18446744074G",
                                      "",
                                      "k",
                                      ".5",
                                      "5.",
                                      "1 k",
                                      " 1",
                                      "0x10",
                                      "1e3",
                                      "-1",
                                      "+1",
                                      "1kk",
                                      "0.0001k",
                                      "1,5k",
                                      "1.0000000000000000001"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(number_parse_count(bad[i], &n));
    assert_true(number_parse_bytes("16GiB", &n) && n == (uint64_t)16 << 30);
    assert_false(number_parse_bytes("16GB", &n));
}

static void floats_print_shortest_and_read_back(void **state)
{
    (void)state;
    static const double x[] = {0.1, 1e-300, 5e-324, 1.7976931348623157e308, 3, 1.0 / 3, -2.5e-4};
    char buf[32];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        double y;
        assert_true(number_parse_float(number_print_float(x[i], buf), &y) && y == x[i]);
    }
    assert_string_equal(number_print_float(0.1, buf), "0.1");
    double y;
    static const char *const bad[] = {"", "0x1p3", "inf", "nan", " 1", "1 ", "1,5", "1e999", "--1", "e"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(number_parse_float(bad[i], &y));
    assert_string_equal(number_print_bytes(1, buf), "1 byte");
    assert_string_equal(number_print_bytes(1536, buf), "1.5 KiB");
    assert_string_equal(number_print_bytes((1u << 20) - 1, buf), "1.0 MiB");
    assert_string_equal(number_print_short(999, buf), "999");
    assert_string_equal(number_print_short(1234567, buf), "1.23M");
    assert_string_equal(number_print_short(99999, buf), "100k");
    assert_string_equal(number_print_short(999999, buf), "1.00M");
}

static void progress_line_has_rate_and_time_left(void **state)
{
    (void)state;
    char buf[200];
    progress_text(buf, sizeof buf, &(sonde_progress){"capturing", "tokens", 30000, 90000, NULL}, 10000, 10);
    assert_string_equal(buf, "capturing 30.0k/90.0k tokens  33 %  2.00k tokens/s  0:30 left");
    progress_text(buf, sizeof buf, &(sonde_progress){"reading", "bytes", 500, 0, "part 1"}, 0, 0.1);
    assert_string_equal(buf, "reading 500 bytes  part 1");
    progress_text(buf, 12, &(sonde_progress){"reading", "bytes", 500, 0, "part 1"}, 0, 0.1);
    assert_string_equal(buf, "reading 500");
}

static void hostile_text_is_made_visible(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t n;
        const char *want;
    } c[] = {
        {"a\n\t\\\0b", 6, "a\\n\\t\\\\\\x00b"},
        {"gr\xc3\xbc", 4, "gr\xc3\xbc"},
        {"\xff\xc3", 2, "\\xff\\xc3"},
        {"\x1b[2J", 4, "\\x1b[2J"},
        {"\xc2\x9b", 2, "\\xc2\\x9b"},
        {"\xe2\x80\xae", 3, "\\xe2\\x80\\xae"},
        {"", 0, ""},
        {"\xed\xa0\x80", 3, "\\xed\\xa0\\x80"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char *v = tool_visible(c[i].s, c[i].n);
        assert_string_equal(v, c[i].want);
        free(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive_in_both_spellings),
        cmocka_unit_test(canonical_text_names_what_affects_the_result),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(help_is_found_before_anything_is_missing),
        cmocka_unit_test(counts_are_exact),
        cmocka_unit_test(floats_print_shortest_and_read_back),
        cmocka_unit_test(progress_line_has_rate_and_time_left),
        cmocka_unit_test(hostile_text_is_made_visible),
    };
    return cmocka_run_group_tests_name("tool_option", tests, NULL, NULL);
}
