/* SPDX-License-Identifier: MIT
 * The fixed part of a synthetic dictionary: probabilities, trees, magnitudes, factors. */
#include "synth.h"

#include <math.h>

#include "../base/rng.h"
#include "../base/size.h"
#include "synth_impl.h"

#define MOST_TRUTH ((size_t)1 << 28)

static const char *const laws[] = {"uniform", "zipf", "geometric", "linear"};
static const char *const magnitudes[] = {"uniform", "half-normal", "exponential", "constant", "normal"};

const char *sonde_synth_law_name(enum sonde_synth_law l)
{
    return (unsigned)l < SONDE_SYNTH_N_LAWS ? laws[l] : "?";
}

const char *sonde_synth_magnitude_name(enum sonde_synth_magnitude m)
{
    return (unsigned)m < SONDE_SYNTH_N_MAGNITUDES ? magnitudes[m] : "?";
}

/* ---- options --------------------------------------------------------------------------------- */

/* Latents in the trees; false if there are more than MOST_TRUTH. */
static bool count_tree(const sonde_synth_options *o, size_t *n)
{
    size_t level = o->roots;
    *n = level;
    for (size_t k = 0; k < o->depth && level > 0; k++)
        if (!sonde_mul(&level, level, o->branch) || !sonde_add(n, *n, level) || *n > MOST_TRUTH)
            return false;
    return *n <= MOST_TRUTH;
}

static enum sonde_code check_number(const char *name, double x, double low, double high, sonde_err *err)
{
    if (x >= low && x <= high)
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_USAGE, "%s is %.9g, it must be %.9g to %.9g", name, x, low, high);
}

static enum sonde_code check_probabilities(const sonde_synth_options *o, sonde_err *err)
{
    enum sonde_code code;
    if ((unsigned)o->law >= SONDE_SYNTH_N_LAWS || (unsigned)o->magnitude >= SONDE_SYNTH_N_MAGNITUDES)
        return sonde_fail(err, SONDE_E_USAGE, "no law of frequencies %d or of magnitudes %d", (int)o->law,
                          (int)o->magnitude);
    if (o->law == SONDE_SYNTH_ZIPF &&
        (code = check_number("the exponent of Zipf's law", o->zipf, 0, 100, err)))
        return code;
    if (o->law == SONDE_SYNTH_GEOMETRIC &&
        (code = check_number("the decay of frequencies", o->decay, 1e-6, 1, err)))
        return code;
    if (o->active != 0)
        return check_number("the mean number of active latents", o->active, 1e-9, (double)o->truth, err);
    if ((code = check_number("the first probability", o->p_first, 0, 1, err)))
        return code;
    return check_number("the last probability", o->p_last, 0, 1, err);
}

static enum sonde_code check_options(const sonde_synth_options *o, sonde_err *err)
{
    size_t tree, bytes;
    enum sonde_code code;
    if (o->dim == 0 || o->truth == 0 || o->truth > MOST_TRUTH)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%zu latents in %zu dimensions: both must be at least 1, latents at most %zu",
                          o->truth, o->dim, MOST_TRUTH);
    if (!sonde_mul(&bytes, o->truth, o->dim) || !sonde_mul(&bytes, bytes, 4 * sizeof(float)))
        return sonde_fail(err, SONDE_E_USAGE, "%zu latents in %zu dimensions fit no memory", o->truth,
                          o->dim);
    if ((code = check_probabilities(o, err)))
        return code;
    if (o->roots && (o->branch == 0 || o->depth == 0))
        return sonde_fail(err, SONDE_E_USAGE,
                          "a hierarchy needs branches and a depth of at least 1, it has %zu and %zu",
                          o->branch, o->depth);
    if (!count_tree(o, &tree) || tree > o->truth)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "a hierarchy of %zu roots, %zu branches and depth %zu has more than the %zu latents", o->roots,
            o->branch, o->depth, o->truth);
    if (o->rank > 4096)
        return sonde_fail(err, SONDE_E_USAGE, "the rank of the correlations is %zu, it must be at most 4096",
                          o->rank);
    if ((code = check_number("the scale of correlations", o->correlation, 0, 1e3, err)) ||
        (code = check_number("the noise", o->noise, 0, 1e6, err)) ||
        (code = check_number("the bias", o->bias, 0, 1e6, err)) ||
        (code = check_number("the first magnitude", o->scale_first, 0, 1e6, err)) ||
        (code = check_number("the last magnitude", o->scale_last, 0, 1e6, err)) ||
        (code = check_number("the spread", o->spread, 0, 1e6, err)) ||
        (code = check_number("the spread of the spread", o->spread_std, 0, 1e6, err)))
        return code;
    return check_number("the step of orthogonalisation", o->orthogonal_lr, 0, 1e3, err);
}

/* ---- probabilities --------------------------------------------------------------------------- */

static double law_at(const sonde_synth_options *o, size_t i)
{
    switch (o->law) {
    case SONDE_SYNTH_ZIPF:
        return synth_power((double)(i + 1), -o->zipf);
    case SONDE_SYNTH_GEOMETRIC:
        return synth_power(o->decay, (double)i);
    case SONDE_SYNTH_LINEAR:
        return (double)(o->truth - i);
    default:
        return 1;
    }
}

/* What was asked for, before the hierarchy. */
static enum sonde_code ask_probabilities(const sonde_synth *s, double *p, sonde_err *err)
{
    const sonde_synth_options *o = &s->o;
    double sum = 0;
    for (size_t i = 0; i < o->truth; i++)
        sum += p[i] = law_at(o, i);
    if (o->active != 0) {
        for (size_t i = 0; i < o->truth; i++)
            p[i] *= o->active / sum;
        if (p[0] > 1 + 1e-12)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%.6g active latents under this law need a first probability of %.4g; ask for "
                              "fewer or a flatter law",
                              o->active, p[0]);
        return SONDE_OK;
    }
    double first = p[0], last = p[o->truth - 1];
    for (size_t i = 0; i < o->truth; i++)
        p[i] =
            first > last ? o->p_last + (o->p_first - o->p_last) * (p[i] - last) / (first - last) : o->p_first;
    return SONDE_OK;
}

/* Chances of the children of one active parent, whose probability was to be asked[parent]. Exclusive siblings
 * whose chances add up to more than 1 are scaled down when they are drawn. */
static void give_children(sonde_synth *s, const double *asked, size_t parent)
{
    size_t c0 = synth_first_child(&s->o, parent), c1 = c0 + s->o.branch;
    double sum = 0;
    for (size_t c = c0; c < c1; c++) {
        double r = asked[parent] > 0 ? asked[c] / asked[parent] : 0;
        s->plan->chance[c] = r < 1 ? r : 1;
        sum += s->plan->chance[c];
    }
    for (size_t c = c0; c < c1; c++) {
        double share = !s->o.siblings_free && sum > 1 ? s->plan->chance[c] / sum : s->plan->chance[c];
        s->parent[c] = (int32_t)parent;
        s->probability[c] = s->probability[parent] * share;
    }
}

static enum sonde_code set_probabilities(sonde_synth *s, sonde_err *err)
{
    size_t n = s->o.truth;
    double *asked = sonde_arena_get(s->arena, n, sizeof *asked, err);
    if (!asked)
        return SONDE_E_MEMORY;
    enum sonde_code code = ask_probabilities(s, asked, err);
    if (code)
        return code;
    for (size_t i = 0; i < n; i++) {
        asked[i] = asked[i] < 1 ? asked[i] : 1;
        s->parent[i] = -1;
        s->probability[i] = s->plan->chance[i] = asked[i];
    }
    for (size_t i = 0; i < s->plan->n_tree; i++) /* parents come before their children */
        if (synth_has_children(s, i))
            give_children(s, asked, i);
    for (size_t i = 0; i < n; i++) {
        s->mean_active += s->probability[i];
        s->n_squeezed += s->probability[i] < asked[i] * (1 - 1e-9);
    }
    return SONDE_OK;
}

/* ---- magnitudes and factors ------------------------------------------------------------------ */

static void set_magnitudes(sonde_synth *s)
{
    const sonde_synth_options *o = &s->o;
    static const double mean[] = {0.5, 0.7978845608028654, 1, 1, 1}; /* of the draw with s_i = 1 */
    sonde_rng root = sonde_rng_seed(o->seed), spread = sonde_rng_fork(&root, "spread", 0);
    for (size_t i = 0; i < o->truth; i++) {
        double t = o->truth > 1 ? (double)i / (double)(o->truth - 1) : 0;
        s->mean[i] = mean[o->magnitude] * (o->scale_first + (o->scale_last - o->scale_first) * t);
        s->spread[i] = fabs(o->spread + o->spread_std * sonde_rng_normal(&spread));
    }
}

static void set_factors(sonde_synth *s)
{
    size_t n = s->o.truth, rank = s->o.rank;
    struct sonde_synth_plan *p = s->plan;
    sonde_rng root = sonde_rng_seed(s->o.seed);
    for (size_t i = 0; i < n; i++) {
        sonde_rng rng = sonde_rng_fork(&root, "factor", i);
        double sum = 0;
        for (size_t r = 0; r < rank; r++) {
            double l = s->o.correlation * sonde_rng_normal(&rng);
            s->factor[r * n + i] = (float)l;
            sum += l * l;
        }
        double shrink = sum > 0.99 ? sqrt(0.99 / sum) : 1;
        for (size_t r = 0; r < rank && shrink < 1; r++)
            s->factor[r * n + i] = (float)(shrink * (double)s->factor[r * n + i]);
        double own = 1 - sum * shrink * shrink, q = p->chance[i];
        p->own[i] = (float)(1 / sqrt(own));
        p->cut[i] = q <= 0 ? INFINITY : q >= 1 ? -INFINITY : (float)synth_normal_cut(q);
    }
    for (size_t k = 0; k <= SYNTH_TAIL_STEPS; k++)
        p->tail[k] = synth_normal_tail(SYNTH_TAIL_END * (2.0 * (double)k / SYNTH_TAIL_STEPS - 1));
}

static void set_limits(sonde_synth *s)
{
    for (size_t i = 0; i < s->o.truth; i++)
        s->plan->limit[i] = (uint64_t)(s->plan->chance[i] * 0x1p32 + 0.5);
}

/* ---- all together ---------------------------------------------------------------------------- */

static enum sonde_code allocate(sonde_synth *s, sonde_err *err)
{
    size_t n = s->o.truth, d = s->o.dim, rank = s->o.rank;
    sonde_arena *a = s->arena;
    s->plan = sonde_arena_get(a, 1, sizeof *s->plan, err);
    s->direction = sonde_arena_get(a, n * d, sizeof(float), err);
    s->bias = sonde_arena_get(a, d, sizeof(float), err);
    s->probability = sonde_arena_get(a, n, sizeof(double), err);
    s->mean = sonde_arena_get(a, n, sizeof(double), err);
    s->spread = sonde_arena_get(a, n, sizeof(double), err);
    s->parent = sonde_arena_get(a, n, sizeof(int32_t), err);
    s->factor = sonde_arena_get(a, n * rank, sizeof(float), err);
    if (!s->plan || !s->direction || !s->bias || !s->probability || !s->mean || !s->spread || !s->parent ||
        !s->factor)
        return SONDE_E_MEMORY;
    struct sonde_synth_plan *p = s->plan;
    (void)count_tree(&s->o, &p->n_tree);
    p->chance = sonde_arena_get(a, n, sizeof(double), err);
    p->limit = sonde_arena_get(a, rank ? 0 : n, sizeof(uint64_t), err);
    p->cut = sonde_arena_get(a, rank ? n : 0, sizeof(float), err);
    p->own = sonde_arena_get(a, rank ? n : 0, sizeof(float), err);
    p->tail = sonde_arena_get(a, SYNTH_TAIL_STEPS + 1, sizeof(double), err);
    return p->chance && p->limit && p->cut && p->own && p->tail ? SONDE_OK : SONDE_E_MEMORY;
}

/* Options that were left at zero and mean something else. */
static void fill_in(sonde_synth_options *o)
{
    if (o->scale_first == 0 && o->scale_last == 0)
        o->scale_first = o->scale_last = 1;
    if (o->orthogonal_lr == 0)
        o->orthogonal_lr = 0.01;
    if (o->correlation == 0)
        o->rank = 0;
}

enum sonde_code sonde_synth_new(const sonde_synth_options *o, const sonde_kernels *kernels,
                                const sonde_work *work, sonde_synth **out, sonde_err *err)
{
    enum sonde_code code = check_options(o, err);
    if (code)
        return code;
    sonde_arena *arena = sonde_arena_new(work ? work->budget : NULL, err);
    sonde_synth *s = arena ? sonde_arena_get(arena, 1, sizeof *s, err) : NULL;
    if (!s) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    s->o = *o;
    s->arena = arena;
    fill_in(&s->o);
    if (!(code = allocate(s, err)) && !(code = set_probabilities(s, err))) {
        set_magnitudes(s);
        if (s->o.rank)
            set_factors(s);
        else
            set_limits(s);
        code = synth_directions(s, kernels, work, err);
    }
    if (code)
        sonde_synth_free(s);
    else
        *out = s;
    return code;
}

void sonde_synth_free(sonde_synth *s)
{
    if (s)
        sonde_arena_free(s->arena);
}
