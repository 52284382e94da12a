/* SPDX-License-Identifier: MIT */
#include "suggest.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_LENGTH 64
#define MAX_NAMES  3

static int least(int a, int b)
{
    return a < b ? a : b;
}

int sonde_edit_distance(const char *a, const char *b, int limit)
{
    size_t n = strnlen(a, MAX_LENGTH + 1), m = strnlen(b, MAX_LENGTH + 1);
    if (n > MAX_LENGTH || m > MAX_LENGTH)
        return limit + 1;
    int row[3][MAX_LENGTH + 1]; /* rows i - 2, i - 1 and i of the table, in turn */
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = least(last[j - 1] + (a[i - 1] != b[j - 1]), least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return least(row[n % 3][m], limit + 1);
}

char *sonde_suggest(const char *word, const char *const *name, size_t n_names, char *buf, size_t n_buf)
{
    const char *best[MAX_NAMES];
    int cost[MAX_NAMES], n_best = 0;
    size_t length = strnlen(word, MAX_LENGTH + 1);
    int limit = length < 3 ? 1 : (int)length / 3;
    for (size_t i = 0; i < n_names; i++) {
        int c = sonde_edit_distance(word, name[i], limit);
        if (c > limit && length >= 3 && !strncmp(word, name[i], length))
            c = limit;
        if (c > limit || c >= (int)strlen(name[i]))
            continue;
        int at = n_best < MAX_NAMES ? n_best++ : MAX_NAMES;
        for (; at > 0 && cost[at - 1] > c; at--)
            if (at < MAX_NAMES) {
                best[at] = best[at - 1];
                cost[at] = cost[at - 1];
            }
        if (at < MAX_NAMES) {
            best[at] = name[i];
            cost[at] = c;
        }
    }
    buf[0] = '\0';
    size_t used = 0;
    for (int i = 0; i < n_best && used < n_buf; i++) {
        const char *joint = i == 0 ? "; did you mean " : i == n_best - 1 ? " or " : ", ";
        used += (size_t)snprintf(buf + used, n_buf - used, "%s'%s'%s", joint, best[i],
                                 i == n_best - 1 ? "?" : "");
    }
    return buf;
}
