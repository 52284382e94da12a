/* SPDX-License-Identifier: MIT
 * sonde tokenize: text to ids and back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "commands.h"
#include "text/tokenizer.h"
#include "tool.h"

struct tokenize_options {
    const char *model, *tokenizer;
    bool ids, offsets, decode, special;
    int bos;
};

/* All bytes of a file, or of standard input for NULL and "-". malloc'd; never more than the memory limit. */
static enum sonde_code read_all(const char *path, size_t limit, char **out, size_t *n_out, sonde_err *err)
{
    bool std = !path || !strcmp(path, "-");
    const char *name = std ? "standard input" : path;
    int fd = std ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", name, strerror(errno));
    size_t cap = 1 << 16, n = 0;
    char *data = malloc(cap);
    enum sonde_code rc = data ? SONDE_OK : SONDE_E_MEMORY;
    while (!rc) {
        ssize_t k = read(fd, data + n, cap - n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            rc = sonde_fail(err, SONDE_E_IO, "%s: %s", name, strerror(errno));
        if (k <= 0)
            break;
        n += (size_t)k;
        if (n < cap)
            continue;
        size_t more;
        char *bigger = sonde_mul(&more, cap, 2) && (!limit || more <= limit) ? realloc(data, more) : NULL;
        if (!bigger)
            rc = SONDE_E_MEMORY;
        else
            data = bigger, cap = more;
    }
    if (!std)
        close(fd);
    if (rc == SONDE_E_MEMORY)
        sonde_fail(err, rc, "%s: no memory for its text beyond %zu bytes", name, n);
    if (rc) {
        free(data);
        return rc;
    }
    *out = data;
    *n_out = n;
    return SONDE_OK;
}

/* Ids between anything but digits and signs: "1 2 3", "[1, 2, 3]", one on each line. malloc'd. */
static enum sonde_code read_ids(const char *text, size_t n, int32_t **out, size_t *n_out, sonde_err *err)
{
    int32_t *id = malloc((n / 2 + 1) * sizeof *id);
    if (!id)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu ids", n / 2 + 1);
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        if (memchr(" \t\r\n,[]", text[i], 8)) {
            i++;
            continue;
        }
        int64_t value = 0;
        size_t first = i;
        for (; i < n && text[i] >= '0' && text[i] <= '9' && value <= INT32_MAX; i++)
            value = value * 10 + (text[i] - '0');
        if (i == first || value > INT32_MAX) {
            free(id);
            return sonde_fail(err, SONDE_E_INPUT, "byte %zu of the ids: %s", i,
                              value > INT32_MAX ? "the number is too large for an id"
                                                : "this is not a number, a comma or a bracket");
        }
        id[count++] = (int32_t)value;
    }
    *out = id;
    *n_out = count;
    return SONDE_OK;
}

static enum sonde_code decode(const sonde_tokenizer *tok, const struct tokenize_options *o, const char *text,
                              size_t n, sonde_err *err)
{
    int32_t *id = NULL;
    size_t n_ids = 0, n_bytes = 0;
    char *bytes = NULL;
    enum sonde_code rc = read_ids(text, n, &id, &n_ids, err);
    if (rc)
        return rc;
    rc = sonde_tokenizer_decode(tok, id, n_ids, o->special, &bytes, &n_bytes, err);
    free(id);
    if (rc)
        return rc;
    fwrite(bytes, 1, n_bytes, stdout);
    free(bytes);
    return SONDE_OK;
}

static char *token_text(const sonde_tokenizer *tok, int32_t id)
{
    size_t n;
    const char *s = sonde_tokenizer_bytes(tok, id, &n);
    return tool_visible(s, n);
}

static enum sonde_code print_lines(const sonde_tokenizer *tok, const struct tokenize_options *o,
                                   const sonde_tokens *t, sonde_err *err)
{
    for (size_t i = 0; i < t->n && !tool_output_broken(); i++) {
        if (o->ids) {
            printf(i ? " %" PRId32 : "%" PRId32, t->id[i]);
            continue;
        }
        if (o->offsets) {
            printf("%" PRId32 "\t%" PRIu32 "\t%" PRIu32 "\n", t->id[i], t->begin[i], t->end[i]);
            continue;
        }
        char *text = token_text(tok, t->id[i]);
        if (!text)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory to print token %zu", i);
        printf("%" PRId32 "\t%" PRIu32 "\t%" PRIu32 "\t%s\n", t->id[i], t->begin[i], t->end[i], text);
        free(text);
    }
    if (o->ids)
        putchar('\n');
    return SONDE_OK;
}

static void print_u32_array(const char *key, const uint32_t *x, size_t n)
{
    printf(",\n  \"%s\": [", key);
    for (size_t i = 0; i < n && !tool_output_broken(); i++)
        printf(i ? ", %" PRIu32 : "%" PRIu32, x[i]);
    putchar(']');
}

/* Written directly: a tree of a million numbers would take a hundred times their size. */
static enum sonde_code print_json(const sonde_tokenizer *tok, const sonde_tokens *t, sonde_err *err)
{
    printf("{\n  \"n_tokens\": %zu,\n  \"tokenizer\": \"%s\",\n  \"tokenizer_sha256\": \"%s\",\n  \"ids\": [",
           t->n, sonde_tokenizer_kind(tok), sonde_tokenizer_sha256(tok));
    for (size_t i = 0; i < t->n && !tool_output_broken(); i++)
        printf(i ? ", %" PRId32 : "%" PRId32, t->id[i]);
    putchar(']');
    print_u32_array("begin", t->begin, t->n);
    print_u32_array("end", t->end, t->n);
    fputs(",\n  \"text\": [", stdout);
    for (size_t i = 0; i < t->n && !tool_output_broken(); i++) {
        char *text = token_text(tok, t->id[i]);
        if (!text)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory to print token %zu", i);
        fputs(i ? ", \"" : "\"", stdout);
        for (const char *s = text; *s; s++) { /* no control characters are left in it */
            if (*s == '"' || *s == '\\')
                putchar('\\');
            putchar(*s);
        }
        putchar('"');
        free(text);
    }
    fputs("]\n}\n", stdout);
    return SONDE_OK;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct tokenize_options *o = values;
    const char *source = o->tokenizer ? o->tokenizer : o->model;
    if (!source)
        return sonde_fail(err, SONDE_E_USAGE, "which tokenizer? --model DIR or --tokenizer FILE");
    if (o->ids + o->offsets + o->decode + t->common->json > 1)
        return sonde_fail(err, SONDE_E_USAGE,
                          "only one of --ids, --offsets, --json and --decode is possible");
    sonde_tokenizer *tok;
    enum sonde_code rc = sonde_tokenizer_open(source, t->budget, &tok, err);
    if (rc)
        return rc;
    char *text = NULL;
    size_t n = 0;
    sonde_tokens tokens = {0};
    rc = read_all(t->n_operands ? t->operand[0] : NULL, t->budget->limit, &text, &n, err);
    if (rc)
        goto out;
    if (o->decode) {
        rc = decode(tok, o, text, n, err);
        goto out;
    }
    rc = sonde_tokenizer_encode(tok, text, n, (enum sonde_bos)o->bos, o->special, &tokens, err);
    if (!rc)
        rc = t->common->json ? print_json(tok, &tokens, err) : print_lines(tok, o, &tokens, err);
out:
    sonde_tokens_free(&tokens);
    free(text);
    sonde_tokenizer_close(tok);
    return rc;
}

#define AT(field) offsetof(struct tokenize_options, field)

static const struct option options[] = {
    {"model", OPT_STRING, AT(model), "DIR", "the model whose tokenizer to use: a directory or a GGUF file",
     .flags = OPT_FILE},
    {"tokenizer", OPT_STRING, AT(tokenizer), "FILE",
     "a tokenizer: tokenizer.json, vocab.json, tokenizer.model or tokenizer.bin", .flags = OPT_FILE},
    {"ids", OPT_FLAG, AT(ids), NULL, "print the ids only, separated by spaces"},
    {"offsets", OPT_FLAG, AT(offsets), NULL, "print id, first byte and past-last byte only"},
    {"decode", OPT_FLAG, AT(decode), NULL, "read ids and write the exact bytes they stand for"},
    {"special", OPT_FLAG, AT(special), NULL,
     "control tokens written in the text become their ids, and are written when decoding"},
    {"bos", OPT_CHOICE, AT(bos), NULL, "a token for the beginning", .fallback = "auto",
     .words = "auto|always|never"},
};
_Static_assert(SONDE_BOS_AUTO == 0 && SONDE_BOS_ALWAYS == 1 && SONDE_BOS_NEVER == 2, "the order of --bos");

const struct command cmd_tokenize = {
    .name = "tokenize",
    .about = "turns text into ids, with the bytes of each token, and back",
    .operands = "[FILE]",
    .max_operands = 1,
    .examples = (const char *const[]){"sonde tokenize --model gpt2 story.txt",
                                      "one token per line: id, first byte, past-last byte, text",
                                      "echo 464 3290 | sonde tokenize --model gpt2 --decode",
                                      "the text of these ids", NULL},
    .details = "Reads standard input when no FILE is given. Bytes that are not printable UTF-8 are shown as "
               "\\xNN, a backslash as \\\\.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_MEMORY | TAKES_JSON | TAKES_PROGRESS,
    .n_values = sizeof(struct tokenize_options),
    .run = run,
};
