/* SPDX-License-Identifier: MIT
 * llama2.c's tokenizer.bin: int32 longest piece, then for each piece float32 score, int32 length, bytes. How
 * many there are is not said: they fill the file. Pieces 0, 1, 2 are <unk>, BOS and EOS, 3..258 the bytes. */
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

/* The piece at *at; false if the file ends inside it. */
static bool next_piece(const sonde_map *m, size_t *at, struct spm_piece *p)
{
    int32_t n;
    if (!sonde_inside(*at, 8, m->n_bytes))
        return false;
    memcpy(&p->score, m->data + *at, 4);
    memcpy(&n, m->data + *at + 4, 4);
    if (n < 0 || !sonde_inside(*at + 8, (uint64_t)n, m->n_bytes))
        return false;
    p->s = (const char *)m->data + *at + 8;
    p->n = (size_t)n;
    *at += 8 + (size_t)n;
    return true;
}

static unsigned char type_of(size_t i, const struct spm_piece *p)
{
    if (i == 0)
        return SPM_UNKNOWN;
    if (i <= 2)
        return SPM_CONTROL;
    int byte = byte_of_fallback_name(p->s, p->n);
    return i < 259 && byte == (int)i - 3 ? SPM_BYTE : SPM_NORMAL;
}

enum sonde_code tokenizer_read_bin(sonde_tokenizer *t, const sonde_map *m, sonde_err *err)
{
    size_t n = 0, at = 4;
    struct spm_piece p;
    if (m->n_bytes < 4)
        return sonde_fail(err, SONDE_E_INPUT, "%s: no llama2.c tokenizer: it has %zu bytes", m->path,
                          m->n_bytes);
    while (at < m->n_bytes) {
        if (!next_piece(m, &at, &p))
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: no llama2.c tokenizer: piece %zu at byte %zu runs past the end (%zu)",
                              m->path, n, at, m->n_bytes);
        n++;
    }
    struct spm_piece *piece = sonde_arena_get(t->arena, n, sizeof *piece, err);
    if (!piece)
        return SONDE_E_MEMORY;
    at = 4;
    for (size_t i = 0; i < n; i++) {
        next_piece(m, &at, &piece[i]);
        piece[i].type = type_of(i, &piece[i]);
    }
    if (n < 3)
        return sonde_fail(err, SONDE_E_INPUT, "%s: a llama2.c tokenizer has at least 3 pieces, this has %zu",
                          m->path, n);
    struct spm_options o = {
        .space = " ", .add_prefix = true, .unk = 0, .bos = 1, .eos = 2, .adds_bos = true, .what = m->path};
    return spm_build(t, piece, n, &o, err);
}
