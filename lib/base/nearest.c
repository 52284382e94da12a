/* SPDX-License-Identifier: MIT */
#include "nearest.h"

#include <stdio.h>
#include <string.h>

#define LONGEST 64
#define KEEP 3

/* Edits (insert, delete, replace, swap neighbours) between a and b, each at most LONGEST bytes. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t row[3][LONGEST + 1];
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = row[i % 3], *before = row[(i + 2) % 3], *two = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = before[j - 1] + (a[i - 1] != b[j - 1]);
            if (before[j] + 1 < best)
                best = before[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two[j - 2] + 1 < best)
                best = two[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

char *sonde_nearest(const char *word, const char *const *name, size_t n, char *buf, size_t n_buf)
{
    size_t len = strlen(word), best[KEEP], far[KEEP], kept = 0;
    size_t limit = len / 3 > 2 ? len / 3 : 2;
    buf[0] = '\0';
    if (len == 0 || len > LONGEST)
        return buf;
    for (size_t i = 0; i < n; i++) {
        size_t m = strlen(name[i]);
        if (m > LONGEST)
            continue;
        size_t d = distance(word, len, name[i], m);
        if (d > limit && !strncmp(word, name[i], len))
            d = limit;
        if (d > limit || d >= m)
            continue;
        size_t at = kept < KEEP ? kept++ : KEEP;
        while (at > 0 && d < far[at - 1]) {
            if (at < KEEP)
                best[at] = best[at - 1], far[at] = far[at - 1];
            at--;
        }
        if (at < KEEP)
            best[at] = i, far[at] = d;
    }
    size_t used = 0;
    for (size_t i = 0; i < kept && used < n_buf; i++)
        used += (size_t)snprintf(buf + used, n_buf - used, "%s'%s'", i == 0 ? "did you mean " : i + 1 == kept ? " or " : ", ",
                                 name[best[i]]);
    if (kept && used < n_buf)
        snprintf(buf + used, n_buf - used, "?");
    return buf;
}
