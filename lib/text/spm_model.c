/* SPDX-License-Identifier: MIT
 * SentencePiece's tokenizer.model: a protocol buffer (sentencepiece_model.proto), of which these fields
 * matter: ModelProto 1 pieces {1 piece, 2 score, 3 type}, 2 trainer_spec, 3 normalizer_spec. */
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

/* Bytes still to be read of one message. */
struct proto {
    const unsigned char *p, *end;
};

struct field {
    uint32_t number;
    int wire;          /* 0 varint, 1 64 bits, 2 bytes, 5 32 bits */
    uint64_t value;    /* of 0 and 5 */
    struct proto body; /* of 2 */
};

static bool varint(struct proto *m, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && m->p < m->end; shift += 7) {
        unsigned char b = *m->p++;
        *out |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return true;
    }
    return false;
}

static size_t left(const struct proto *m)
{
    return (size_t)(m->end - m->p);
}

/* The next field; false if there is none, with *bad when that is because the message is broken. */
static bool next_field(struct proto *m, struct field *f, bool *bad)
{
    uint64_t key, n;
    if (m->p == m->end)
        return false;
    *bad = true;
    if (!varint(m, &key) || key >> 3 == 0 || key >> 3 > 536870911)
        return false;
    f->number = (uint32_t)(key >> 3);
    f->wire = (int)(key & 7);
    if (f->wire == 0) {
        if (!varint(m, &f->value))
            return false;
    } else if (f->wire == 1 || f->wire == 5) {
        n = f->wire == 1 ? 8 : 4;
        if (left(m) < n)
            return false;
        f->value = 0;
        memcpy(&f->value, m->p, n);
        m->p += n;
    } else if (f->wire == 2) {
        if (!varint(m, &n) || n > left(m))
            return false;
        f->body = (struct proto){m->p, m->p + n};
        m->p += n;
    } else {
        return false;
    }
    *bad = false;
    return true;
}

static enum sonde_code broken(const char *what, const char *part, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: not a SentencePiece model: %s is damaged or cut short", what,
                      part);
}

static bool read_piece(struct proto m, struct spm_piece *p)
{
    struct field f;
    bool bad = false;
    *p = (struct spm_piece){.s = "", .type = SPM_NORMAL};
    while (next_field(&m, &f, &bad)) {
        if (f.number == 1 && f.wire == 2) {
            p->s = (const char *)f.body.p;
            p->n = left(&f.body);
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&p->score, &bits, 4);
        } else if (f.number == 3 && f.wire == 0) {
            p->type = f.value > 255 ? 255 : (unsigned char)f.value;
        }
    }
    return !bad;
}

struct spec {
    uint64_t model_type;
    bool byte_fallback, suffix_space, escape;
    size_t n_charsmap;
    struct spm_options o;
};

static enum sonde_code read_trainer(struct proto m, struct spec *s, sonde_err *err)
{
    struct field f;
    bool bad = false;
    while (next_field(&m, &f, &bad)) {
        if (f.wire != 0)
            continue;
        if (f.number == 3)
            s->model_type = f.value;
        else if (f.number == 24)
            s->suffix_space = f.value;
        else if (f.number == 35)
            s->byte_fallback = f.value;
        else if (f.number == 40)
            s->o.unk = (int32_t)(uint32_t)f.value;
        else if (f.number == 41)
            s->o.bos = (int32_t)(uint32_t)f.value;
        else if (f.number == 42)
            s->o.eos = (int32_t)(uint32_t)f.value;
    }
    return bad ? broken(s->o.what, "the trainer_spec", err) : SONDE_OK;
}

static enum sonde_code read_normalizer(struct proto m, struct spec *s, sonde_err *err)
{
    struct field f;
    bool bad = false;
    while (next_field(&m, &f, &bad)) {
        if (f.number == 2 && f.wire == 2)
            s->n_charsmap = left(&f.body);
        else if (f.number == 3 && f.wire == 0)
            s->o.add_prefix = f.value;
        else if (f.number == 4 && f.wire == 0)
            s->o.remove_extra_spaces = f.value;
        else if (f.number == 5 && f.wire == 0)
            s->escape = f.value;
    }
    return bad ? broken(s->o.what, "the normalizer_spec", err) : SONDE_OK;
}

/* First pass: the number of pieces, and both specs. */
static enum sonde_code read_specs(struct proto m, struct spec *s, size_t *n, sonde_err *err)
{
    struct field f;
    bool bad = false;
    enum sonde_code rc = SONDE_OK;
    *n = 0;
    while (!rc && next_field(&m, &f, &bad)) {
        if (f.wire != 2)
            continue;
        if (f.number == 1)
            ++*n;
        else if (f.number == 2)
            rc = read_trainer(f.body, s, err);
        else if (f.number == 3)
            rc = read_normalizer(f.body, s, err);
    }
    if (!rc && (bad || *n == 0))
        rc = broken(s->o.what, "the list of pieces", err);
    return rc;
}

static enum sonde_code check_spec(const struct spec *s, sonde_err *err)
{
    static const char *const types[] = {"0", "unigram", "bpe", "word", "char"};
    if (s->model_type != 2)
        return sonde_fail(err, SONDE_E_INPUT, "%s: SentencePiece model type '%s' is not implemented; bpe is",
                          s->o.what, s->model_type < 5 ? types[s->model_type] : "unknown");
    if (s->n_charsmap)
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: a normalizer with a character map (nmt_nfkc and the like) is not implemented; identity is",
            s->o.what);
    if (s->suffix_space)
        return sonde_fail(err, SONDE_E_INPUT, "%s: treat_whitespace_as_suffix is not implemented", s->o.what);
    return SONDE_OK;
}

enum sonde_code tokenizer_read_model(sonde_tokenizer *t, const sonde_map *m, sonde_err *err)
{
    struct spec s = {.model_type = 1, .escape = true};
    s.o = (struct spm_options){.add_prefix = true,
                               .remove_extra_spaces = true,
                               .unk = 0,
                               .bos = 1,
                               .eos = 2,
                               .adds_bos = true,
                               .what = m->path};
    struct proto all = {m->data, m->data + m->n_bytes};
    size_t n, i = 0;
    enum sonde_code rc = read_specs(all, &s, &n, err);
    if (!rc)
        rc = check_spec(&s, err);
    if (rc)
        return rc;
    s.o.space = s.escape ? "\xe2\x96\x81" : " ";
    struct spm_piece *piece = sonde_arena_get(t->arena, n, sizeof *piece, err);
    if (!piece)
        return SONDE_E_MEMORY;
    struct field f;
    bool bad;
    while (next_field(&all, &f, &bad)) {
        if (f.number != 1 || f.wire != 2)
            continue;
        if (!read_piece(f.body, &piece[i]))
            return broken(m->path, "a piece", err);
        if (piece[i].type == SPM_BYTE && !s.byte_fallback)
            piece[i].type = SPM_UNUSED;
        i++;
    }
    return spm_build(t, piece, n, &s.o, err);
}
