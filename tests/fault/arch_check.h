/* SPDX-License-Identifier: MIT
 * What must hold for every architecture that a config was accepted as; for the fault tests and the fuzz
 * targets. */
#ifndef TESTS_FAULT_ARCH_CHECK_H
#define TESTS_FAULT_ARCH_CHECK_H

#include <math.h>

#include "check.h"
#include "file/json.h"
#include "model/families_impl.h"

#define CONFIG_NODES 200000

static inline void check_rope(const sonde_arch *a)
{
    check_that(a->rope_dim >= 2 && a->rope_dim % 2 == 0 && a->rope_dim <= a->d_head);
    for (int table = 0; table < 2; table++) {
        check_that(a->inv_freq[table]);
        for (size_t i = 0; i < a->rope_dim / 2; i++)
            check_that(isfinite(a->inv_freq[table][i]) && a->inv_freq[table][i] >= 0);
    }
}

static inline void check_arch(const sonde_arch *a)
{
    const size_t most = 1 << 24;
    check_that(a->n_layers >= 1 && a->n_layers <= SONDE_MAX_LAYERS);
    check_that(a->d_model >= 1 && a->d_model <= most && a->d_mlp <= 4 * most);
    check_that(a->n_heads >= 1 && a->n_kv_heads >= 1 && a->n_heads % a->n_kv_heads == 0);
    check_that(a->d_head >= 1 && a->d_head <= 1 << 16 && a->n_heads <= most / a->d_head);
    check_that(a->n_vocab >= 1 && a->n_vocab <= most && a->n_vocab_out >= 1 && a->n_vocab_out <= most);
    check_that(a->n_ctx >= 1 && a->n_ctx <= most);
    check_that(!a->tied || a->n_vocab == a->n_vocab_out);
    check_that(a->norm <= SONDE_NORM_RMS && a->final_norm <= SONDE_NORM_RMS);
    check_that(isfinite(a->eps) && a->eps >= 0 && a->eps <= 1);
    check_that(isfinite(a->embed_scale) && a->embed_scale > 0 && isfinite(a->attn_scale) &&
               a->attn_scale > 0);
    check_that(isfinite(a->attn_softcap) && a->attn_softcap >= 0);
    check_that(isfinite(a->final_softcap) && a->final_softcap >= 0);
    check_that(!a->solu || (a->act == SONDE_ACT_NONE && !a->gated));
    check_that(a->solu || !a->d_mlp || a->act != SONDE_ACT_NONE);
    check_that(a->solu || !a->solu_ln);
    check_that(a->pad_id >= -1);
    for (size_t l = 0; l < SONDE_MAX_LAYERS; l++)
        check_that(!a->layer_local[l] || (l < a->n_layers && a->window > 0));
    if (a->positions == SONDE_POS_ROPE)
        check_rope(a);
}

/* A config.json: refused with one line, or an architecture for which all of the above holds. *a may be NULL.
 */
static inline enum sonde_code check_config(const void *data, size_t n, sonde_budget *budget, sonde_arch *a,
                                           sonde_err *err)
{
    static sonde_arch own;
    const struct family *family = NULL;
    json_t *config = NULL;
    sonde_arena *arena = sonde_arena_new(budget, err);
    a = a ? a : &own;
    *err = (sonde_err){0};
    check_that(arena);
    enum sonde_code rc = sonde_json_parse(data, n, CONFIG_NODES, "config.json", &config, err);
    if (rc == SONDE_OK)
        rc = family_configure(config, "config.json", a, &family, arena, err);
    json_decref(config);
    if (rc == SONDE_OK) {
        check_that(family && family_find(a->family) == family);
        check_arch(a);
    } else {
        check_refusal(rc, err);
    }
    a->inv_freq[0] = a->inv_freq[1] = NULL; /* they go with the arena */
    sonde_arena_free(arena);
    check_that(budget->taken == 0);
    return rc;
}

#endif
