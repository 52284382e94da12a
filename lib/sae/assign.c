/* SPDX-License-Identifier: MIT */
#include "assign.h"

#include <math.h>

#define NONE UINT32_MAX

/* Rows are the short side: k rows are matched to K >= k columns, whichever way a lies in memory.
 * Prices satisfy  cost(i, j) - row_price[i] - col_price[j] >= 0, and = 0 on matched pairs; col_price of a
 * free column is 0 and no col_price is above 0. */
struct problem {
    const float *a;
    size_t step_row, step_col; /* of the short and of the long side */
    double sign;               /* -1: the greatest sum is wanted */
    size_t k, K;
    double *row_price, *col_price;
    uint32_t *row_at;  /* [K] the row matched to a column */
    uint32_t *col_at;  /* [k] */
    double *distance;  /* [K] shortest path found to each column */
    uint32_t *from;    /* [K] the row before it on that path */
    uint32_t *open;    /* [K] columns not reached yet */
    uint32_t *reached; /* [K] columns in the order in which they were reached */
};

static double cost(const struct problem *p, size_t row, size_t col)
{
    return p->sign * (double)p->a[row * p->step_row + col * p->step_col];
}

static enum sonde_code check_finite(const float *a, size_t ld, size_t n_rows, size_t n_cols, sonde_err *err)
{
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_cols; j++)
            if (!isfinite(a[i * ld + j]))
                return sonde_fail(err, SONDE_E_NUMERIC, "assignment: row %zu, column %zu is not finite", i,
                                  j);
    return SONDE_OK;
}

/* Each row's least cost becomes its price; it takes that column if the column is free. */
static void match_greedily(struct problem *p)
{
    for (size_t i = 0; i < p->k; i++) {
        size_t best = 0;
        double least = cost(p, i, 0);
        for (size_t j = 1; j < p->K; j++) {
            double c = cost(p, i, j);
            if (c < least) {
                least = c;
                best = j;
            }
        }
        p->row_price[i] = least;
        if (p->row_at[best] == NONE) {
            p->row_at[best] = (uint32_t)i;
            p->col_at[i] = (uint32_t)best;
        }
    }
}

/* Dijkstra from a free row over reduced costs until a free column is reached: its distance is *least, columns
 * reached before it are reached[0 .. *n_reached). */
static uint32_t shortest_path(struct problem *p, uint32_t start, double *least, size_t *n_reached)
{
    size_t n_open = p->K, n = 0;
    for (size_t j = 0; j < p->K; j++) {
        p->open[j] = (uint32_t)j;
        p->distance[j] = INFINITY;
        p->from[j] = NONE;
    }
    uint32_t row = start;
    double base = 0;
    for (;;) {
        size_t best = 0;
        for (size_t o = 0; o < n_open; o++) {
            uint32_t j = p->open[o];
            double d = base + (cost(p, row, j) - p->row_price[row] - p->col_price[j]);
            if (d < p->distance[j]) {
                p->distance[j] = d;
                p->from[j] = row;
            }
            uint32_t b = p->open[best];
            if (p->distance[j] < p->distance[b] || (p->distance[j] == p->distance[b] && j < b))
                best = o;
        }
        uint32_t col = p->open[best];
        base = p->distance[col];
        p->open[best] = p->open[--n_open];
        if (p->row_at[col] == NONE) {
            *least = base;
            *n_reached = n;
            return col;
        }
        p->reached[n++] = col;
        row = p->row_at[col];
    }
}

/* Match one more row: prices move so that the path costs nothing, then pairs along it change partners. */
static void augment(struct problem *p, uint32_t start)
{
    double least;
    size_t n_reached;
    uint32_t col = shortest_path(p, start, &least, &n_reached);
    p->row_price[start] += least;
    for (size_t r = 0; r < n_reached; r++) {
        uint32_t j = p->reached[r];
        double slack = least - p->distance[j];
        p->row_price[p->row_at[j]] += slack;
        p->col_price[j] -= slack;
    }
    for (uint32_t row = NONE; row != start;) {
        row = p->from[col];
        uint32_t next = p->col_at[row];
        p->row_at[col] = row;
        p->col_at[row] = col;
        col = next;
    }
}

static enum sonde_code problem_new(struct problem *p, sonde_arena *arena, sonde_err *err)
{
    p->row_price = sonde_arena_get(arena, p->k, sizeof *p->row_price, err);
    p->col_price = sonde_arena_get(arena, p->K, sizeof *p->col_price, err);
    p->distance = sonde_arena_get(arena, p->K, sizeof *p->distance, err);
    p->row_at = sonde_arena_get(arena, p->K, sizeof *p->row_at, err);
    p->col_at = sonde_arena_get(arena, p->k, sizeof *p->col_at, err);
    p->from = sonde_arena_get(arena, p->K, sizeof *p->from, err);
    p->open = sonde_arena_get(arena, p->K, sizeof *p->open, err);
    p->reached = sonde_arena_get(arena, p->K, sizeof *p->reached, err);
    if (!p->row_price || !p->col_price || !p->distance || !p->row_at || !p->col_at || !p->from || !p->open ||
        !p->reached)
        return SONDE_E_MEMORY;
    for (size_t j = 0; j < p->K; j++)
        p->row_at[j] = NONE;
    for (size_t i = 0; i < p->k; i++)
        p->col_at[i] = NONE;
    return SONDE_OK;
}

static enum sonde_code solve(struct problem *p, const sonde_work *work, sonde_err *err)
{
    match_greedily(p);
    for (size_t i = 0; i < p->k; i++) {
        if (p->col_at[i] != NONE)
            continue;
        if (sonde_work_stopped(work))
            return sonde_fail(err, SONDE_E_STOPPED, "stopped while matching row %zu of %zu", i, p->k);
        sonde_work_report(work, "matching", "rows", i, p->k);
        augment(p, (uint32_t)i);
    }
    return SONDE_OK;
}

enum sonde_code sonde_assign(const float *a, size_t ld, size_t n_rows, size_t n_cols,
                             enum sonde_assign_goal goal, const sonde_work *work, uint32_t *column_of,
                             double *total, sonde_err *err)
{
    if (n_rows >= NONE || n_cols >= NONE)
        return sonde_fail(err, SONDE_E_USAGE, "assignment: %zu rows and %zu columns are too many", n_rows,
                          n_cols);
    enum sonde_code code = check_finite(a, ld, n_rows, n_cols, err);
    if (code)
        return code;
    bool tall = n_rows > n_cols;
    struct problem p = {.a = a,
                        .step_row = tall ? 1 : ld,
                        .step_col = tall ? ld : 1,
                        .sign = goal == SONDE_ASSIGN_GREATEST ? -1 : 1,
                        .k = tall ? n_cols : n_rows,
                        .K = tall ? n_rows : n_cols};
    sonde_arena *arena = sonde_arena_new(work ? work->budget : NULL, err);
    if (!arena)
        return SONDE_E_MEMORY;
    code = problem_new(&p, arena, err);
    if (!code && p.k > 0)
        code = solve(&p, work, err);
    double sum = 0;
    for (size_t i = 0; i < n_rows && !code; i++) {
        column_of[i] = tall ? p.row_at[i] : p.col_at[i];
        if (column_of[i] != NONE)
            sum += (double)a[i * ld + column_of[i]];
    }
    if (!code && total)
        *total = sum;
    sonde_arena_free(arena);
    return code;
}
