/* SPDX-License-Identifier: MIT
 * What a tokenizer is made of. Every reader (JSON, merges.txt, SentencePiece, GGUF) fills one of these. */
#ifndef SONDE_TEXT_TOKENIZER_IMPL_H
#define SONDE_TEXT_TOKENIZER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/hash.h"
#include "../file/json.h"
#include "../file/tensors.h"
#include "bpe_impl.h"
#include "pretoken_impl.h"
#include "tokenizer.h"
#include "unicode.h"

/* ---- added tokens: found in the text before anything else -------------------------------------- */

#define ADDED_MAX_BYTES 1024

struct added_token {
    int32_t id;
    const char *s;
    size_t n;
    bool special, normalized, lstrip, rstrip, single_word;
};

/* A trie: the children of a node are a list through `sibling`, in no order. */
struct trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* index of the added token that ends here, or -1 */
    unsigned char byte;
};

struct trie {
    struct trie_node *node; /* node 0 is unused */
    uint32_t n, cap;
    uint32_t root[256];
    bool ordinary; /* some token in it is not special */
};

enum sonde_code trie_add(struct trie *t, sonde_arena *a, const char *s, size_t n, int32_t token,
                         sonde_err *err);
/* The longest token that begins at s[at]: its index, its bytes in *len; -1 if there is none. */
int32_t trie_longest(const struct trie *t, const unsigned char *s, size_t n, size_t at, size_t *len);

/* ---- normalizers ------------------------------------------------------------------------------- */

enum normal_kind {
    NORMAL_FORM, /* NFC and its kin */
    NORMAL_LOWER,
    NORMAL_PREPEND,
    NORMAL_REPLACE, /* a string */
    NORMAL_REPLACE_REGEX,
    NORMAL_STRIP,
    NORMAL_TRIM_END, /* pattern, as often as it stands at the end */
    NORMAL_SPACES    /* SentencePiece's remove_extra_whitespaces: trims, and joins runs of U+0020 */
};

struct normal_step {
    enum normal_kind kind;
    enum sonde_normal_form form;
    bool left, right;
    const char *pattern, *content;
    size_t n_pattern, n_content;
    struct regex *regex;
};

#define NORMAL_MAX_STEPS 16

/* Scratch memory of normalisation, zeroed before the first use: two texts to write to and from in turn. */
struct normal_room {
    struct text_build build[2];
    struct regex_match *match;
    unsigned char *subject;
    size_t cap_subject;
};
void normal_room_free(struct normal_room *r);

/* Apply the steps to *t. A span that a step leaves as it is keeps its origins byte by byte; every byte of a
 * span that it changes gets the origin of the whole span; inserted bytes get the empty range where they
 * stand. */
enum sonde_code normalize(const struct normal_step *step, int n_steps, struct normal_room *r,
                          struct text_view *t, sonde_err *err);

/* ---- the tokenizer ----------------------------------------------------------------------------- */

enum { TOKEN_SPECIAL = 1, TOKEN_ADDED = 2 };

#define TEMPLATE_MAX 16

struct sonde_tokenizer {
    sonde_arena *arena;
    sonde_budget *budget;
    struct vocab vocab; /* names as the file spells them */
    struct bpe bpe;
    struct sonde_bytes *out; /* [n_ids] the bytes that an id stands for; s NULL for a hole */
    unsigned char *flags;    /* [n_ids] TOKEN_* */
    int32_t n_ids;

    struct added_token *added;
    size_t n_added;
    struct trie raw, normal; /* over `added`: in the text as given, and after normalisation */
    bool added_as_is;        /* names in `normal` are not normalised themselves (SentencePiece) */

    struct normal_step normalizer[NORMAL_MAX_STEPS];
    int n_normalizers;
    struct pretoken_step pre[PRETOKEN_MAX_STEPS];
    int n_pre;                 /* at least 1 */
    unsigned char unsafe[256]; /* for PRETOKEN_SAFE */

    int32_t prefix[TEMPLATE_MAX], suffix[TEMPLATE_MAX]; /* what the post-processor puts around a text */
    int n_prefix, n_suffix;
    int32_t bos, eos;
    bool strip_space; /* decoding drops one leading space */
    const char *kind;
    char sha256[65];
};

/* ---- building (tokenizer_build.c) -------------------------------------------------------------- */

enum sonde_code tokenizer_new(sonde_budget *budget, sonde_tokenizer **out, sonde_err *err);

/* The byte that a character of a byte-level name stands for, or -1 (GPT-2's table). */
int byte_of_char(uint32_t cp);
/* A byte-level name in bytes: at most n, into out; false if a character stands for no byte. */
bool bytes_of_name(const char *name, size_t n, unsigned char *out, size_t *n_out);
/* "<0xAB>": 0xAB, else -1. */
int byte_of_fallback_name(const char *s, size_t n);

/* From t->vocab to byte_id, bytes, out, and usable[] for a byte-level or a by-character model. late:
 * SentencePiece. */
enum sonde_code tokenizer_byte_level(sonde_tokenizer *t, sonde_err *err);
enum sonde_code tokenizer_by_char(sonde_tokenizer *t, sonde_err *err);

/* Merge i joins left and right, named as in t->vocab; rank i. Errors: SONDE_E_INPUT naming the unknown part.
 */
enum sonde_code tokenizer_merge(sonde_tokenizer *t, uint32_t rank, const char *left, size_t n_left,
                                const char *right, size_t n_right, const char *what, sonde_err *err);

/* Room for n added tokens. */
enum sonde_code tokenizer_added_room(sonde_tokenizer *t, size_t n, sonde_err *err);
/* Take tok into t->added; its name has that id in the vocabulary or
 * both are new to it. The id is below n_ids. */
enum sonde_code tokenizer_add_token(sonde_tokenizer *t, const struct added_token *tok, const char *what,
                                    sonde_err *err);

/* The last steps of every reader: tries of the added tokens, table of whole words, cutting where no merge
 * crosses (space: how the vocabulary writes a space; NULL: do not). */
enum sonde_code tokenizer_finish(sonde_tokenizer *t, const char *space, sonde_err *err);

/* ---- readers ----------------------------------------------------------------------------------- */

struct config;

/* Each fills an empty tokenizer; m is what was mapped, and stays the caller's. */
enum sonde_code tokenizer_read_json(sonde_tokenizer *t, const sonde_map *m, sonde_err *err);
enum sonde_code tokenizer_read_merges(sonde_tokenizer *t, const sonde_map *vocab, const sonde_map *merges,
                                      const struct config *c, sonde_err *err);
enum sonde_code tokenizer_read_model(sonde_tokenizer *t, const sonde_map *m, sonde_err *err);
enum sonde_code tokenizer_read_bin(sonde_tokenizer *t, const sonde_map *m, sonde_err *err);
enum sonde_code tokenizer_read_gguf(sonde_tokenizer *t, const sonde_tensors *f, sonde_err *err);

/* tokenizer_config.json and special_tokens_map.json of a directory; NULL where there is none. */
struct config {
    json_t *main, *map;
};
enum sonde_code config_open(const char *dir, struct config *c, sonde_err *err);
void config_close(struct config *c);
/* Does the name of the tokenizer's class contain this? */
bool config_class_has(const struct config *c, const char *part);
/* BOS and EOS, and, where the flags add_bos_token and add_eos_token decide, what is put around a text. */
void config_ends(sonde_tokenizer *t, const struct config *c, bool flags_decide);
/* The added tokens that tokenizer_config.json lists: how many, and the largest id (-1: none). */
size_t config_n_added(const struct config *c, int64_t *largest);
enum sonde_code config_add_tokens(sonde_tokenizer *t, const struct config *c, const char *what,
                                  sonde_err *err);

/* t->vocab from an object of names and ids, with room for n_more tokens with ids up to max_more. */
enum sonde_code tokenizer_json_vocab(sonde_tokenizer *t, const json_t *vocab, size_t n_more, int64_t max_more,
                                     const char *what, sonde_err *err);

/* merges.txt after the vocabulary. */
enum sonde_code tokenizer_parse_merges(sonde_tokenizer *t, const char *s, size_t n, const char *what,
                                       sonde_err *err);

/* ---- SentencePiece (spm.c) --------------------------------------------------------------------- */

enum spm_type { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER_DEFINED, SPM_UNUSED, SPM_BYTE };

struct spm_piece {
    const char *s;
    size_t n;
    float score;
    unsigned char type; /* enum spm_type */
};

struct spm_options {
    const char *space; /* how pieces write a space: U+2581 or " " */
    bool add_prefix, remove_extra_spaces;
    int32_t unk, bos, eos; /* -1: none */
    bool adds_bos, adds_eos;
    const char *what;
};

/* Build a whole tokenizer from pieces; piece i has id i. */
enum sonde_code spm_build(sonde_tokenizer *t, const struct spm_piece *piece, size_t n,
                          const struct spm_options *o, sonde_err *err);

#endif
