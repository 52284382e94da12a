/* SPDX-License-Identifier: MIT
 * Pre-tokenizers: text cut into the pieces that BPE works on, one after the other and without copies. */
#ifndef SONDE_TEXT_PRETOKEN_IMPL_H
#define SONDE_TEXT_PRETOKEN_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/error.h"

/* A stretch of text and where its bytes came from: byte i covers [from[i], to[i]) of the original, or, where
 * from is NULL, the byte base + i. Both are non-decreasing. */
struct text_view {
    const unsigned char *s;
    size_t n;
    size_t base;
    const uint32_t *from, *to;
};

static inline struct text_view text_cut(const struct text_view *t, size_t begin, size_t end)
{
    return (struct text_view){t->s + begin, end - begin, t->base + begin, t->from ? t->from + begin : NULL,
                              t->to ? t->to + begin : NULL};
}

static inline uint32_t text_begin(const struct text_view *t, size_t i)
{
    return t->from ? t->from[i] : (uint32_t)(t->base + i);
}

/* End of the original range of bytes [.., i), i > 0. */
static inline uint32_t text_end(const struct text_view *t, size_t i)
{
    return t->to ? t->to[i - 1] : (uint32_t)(t->base + i);
}

/* Text being rewritten: bytes with their origins (malloc'd). */
struct text_build {
    unsigned char *s;
    uint32_t *from, *to;
    size_t n, cap;
};
void text_build_free(struct text_build *b);
/* Copy bytes [begin, end) of t with their origins. */
enum sonde_code text_build_copy(struct text_build *b, const struct text_view *t, size_t begin, size_t end,
                                sonde_err *err);
/* n new bytes that all stand for [from, to) of the original. */
enum sonde_code text_build_put(struct text_build *b, const void *s, size_t n, uint32_t from, uint32_t to,
                               sonde_err *err);
struct text_view text_build_view(const struct text_build *b);

enum pretoken_kind {
    PRETOKEN_GPT2,   /* the pattern of GPT-2 */
    PRETOKEN_CL100K, /* that of Llama 3 and Qwen 2, which differ in max_digits */
    PRETOKEN_REGEX,
    PRETOKEN_STRING,
    PRETOKEN_DIGITS,
    PRETOKEN_PUNCTUATION,
    PRETOKEN_SPACES, /* each White_Space code point */
    PRETOKEN_WORDS,  /* runs of \w, runs of what is neither \w nor space; spaces are no matches */
    PRETOKEN_SAFE,   /* before `pattern`, where no merge can cross; changes no id, only speed */
    PRETOKEN_WHOLE
};

enum pretoken_behaviour {
    PRETOKEN_ISOLATED,
    PRETOKEN_REMOVED,
    PRETOKEN_MERGED_WITH_PREVIOUS,
    PRETOKEN_MERGED_WITH_NEXT,
    PRETOKEN_CONTIGUOUS
};

enum pretoken_prefix { PRETOKEN_PREFIX_NEVER, PRETOKEN_PREFIX_ALWAYS, PRETOKEN_PREFIX_FIRST };

struct regex;

struct pretoken_step {
    enum pretoken_kind kind;
    enum pretoken_behaviour behaviour;
    bool invert;
    unsigned max_digits;
    const char *pattern; /* STRING, SAFE */
    size_t n_pattern;
    const unsigned char *unsafe; /* SAFE: [256], bytes before the pattern that a merge may join to it */
    struct regex *regex;
    /* Before cutting: ' ' becomes space (if not NULL), then prefix is put before text that does not begin
     * with it. */
    const char *space, *prefix;
    enum pretoken_prefix prefix_when; /* FIRST: only at the beginning of the original text */
};

#define PRETOKEN_MAX_STEPS 8

/* One level of a cascade: the piece that its step is cutting, and the item it looked at last. */
struct pretoken_level {
    struct text_view t;
    struct text_build own;  /* if the step rewrote the piece */
    unsigned char *subject; /* REGEX: room for the piece with invalid bytes replaced */
    size_t cap_subject;
    const unsigned char *clean; /* REGEX: the piece as valid UTF-8 */
    size_t at;                  /* what lies before has been given out or peeked at */
    bool peeked, match;         /* the item [item, item_end) is known and waits */
    size_t item, item_end;
    bool searched; /* REGEX, STRING: the next match is [found, found_end); found > n: there is none */
    size_t found, found_end, from, last_end;
};

struct pretokens {
    const struct pretoken_step *step;
    int n_steps, depth;
    struct regex_match *regex; /* made when first needed */
    struct pretoken_level level[PRETOKEN_MAX_STEPS];
};

/* Start cutting t with steps (n_steps >= 1). *p is zeroed before the first use and freed after the last. */
enum sonde_code pretokens_begin(struct pretokens *p, const struct pretoken_step *step, int n_steps,
                                const struct text_view *t, sonde_err *err);
/* The next piece, never empty; *more is false when there is none. The piece is valid until the next call. */
enum sonde_code pretokens_next(struct pretokens *p, struct text_view *piece, bool *more, sonde_err *err);
void pretokens_free(struct pretokens *p);

/* Is this regular expression one of those that have a scanner? Fills kind and max_digits. */
bool pretoken_known_pattern(const char *pattern, size_t n, struct pretoken_step *step);

/* ---- regular expressions of strangers (pretoken_regex.c) --------------------------------------- */

/* Compile a pattern in the syntax of Hugging Face tokenizers (Oniguruma) with PCRE2. Errors: SONDE_E_INPUT:
 * what is wrong with it, or which construct means something else here; SONDE_E_MEMORY. */
enum sonde_code regex_new(const char *pattern, size_t n, struct regex **out, sonde_err *err);
void regex_free(struct regex *r);

/* Find the first match at or after `at` in s[0..n), which must be valid UTF-8; *begin = n + 1 if there is
 * none. Errors: SONDE_E_INPUT if the pattern needs more than a stated number of steps or time on this text.
 */
enum sonde_code regex_find(const struct regex *r, struct regex_match **state, const unsigned char *s,
                           size_t n, size_t at, size_t *begin, size_t *end, sonde_err *err);
void regex_match_free(struct regex_match *m);

/* s with every invalid byte replaced by U+0001, which is no letter, digit or space either; *out is s itself
 * if there is none, else *buf (grown as needed). */
enum sonde_code regex_subject(const unsigned char *s, size_t n, unsigned char **buf, size_t *cap,
                              const unsigned char **out, sonde_err *err);

#endif
