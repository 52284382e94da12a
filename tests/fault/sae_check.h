/* SPDX-License-Identifier: MIT
 * What must hold for every dictionary that was loaded, and for every refusal. */
#ifndef TESTS_FAULT_SAE_CHECK_H
#define TESTS_FAULT_SAE_CHECK_H

#include "check.h"
#include "sae/dict_file.h"

#define SAE_BUDGET ((size_t)16 << 20)

/* Every number can be read, is finite, and k makes sense. */
static inline void check_dict(const sonde_dict *d)
{
    bool ranks = d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX;
    check_that(d->d_in && d->d_out && d->n_latents && d->format && json_is_object(d->meta));
    check_that(!ranks || (d->k >= 1 && d->k <= d->n_latents));
    check_that(d->act != SONDE_DICT_GROUPMAX || d->n_latents % d->k == 0);
    check_that((d->threshold != NULL) == (d->act == SONDE_DICT_JUMPRELU));
    check_that((d->r_mag != NULL) == (d->act == SONDE_DICT_GATED) &&
               (d->b_mag != NULL) == (d->r_mag != NULL));
    check_that(!d->pre_bias || d->d_in == d->d_out);
    check_that(sonde_dict_check(d, NULL) == SONDE_OK);
}

/* Load; whatever comes of it there is a checked dictionary or one printable line, and no memory is kept. */
static inline enum sonde_code check_load(const char *path, const char *format, sonde_err *err)
{
    sonde_budget budget = {.limit = SAE_BUDGET};
    sonde_dict *d = NULL;
    char note[400] = "";
    *err = (sonde_err){0};
    enum sonde_code rc = sonde_dict_load(path, format, &budget, &d, note, err);
    if (rc == SONDE_OK) {
        check_dict(d);
        for (const char *p = note; *p; p++)
            check_that((unsigned char)*p >= 0x20);
        sonde_dict_free(d);
    } else if (rc == SONDE_E_NUMERIC) {
        check_that(err->code == rc &&
                   (strstr(err->msg, " is NaN at ") || strstr(err->msg, " is infinite at ")));
    } else {
        check_refusal(rc, err);
    }
    check_that(budget.taken == 0);
    return rc;
}

#endif
