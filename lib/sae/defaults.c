/* SPDX-License-Identifier: MIT
 * Options of training: defaults that follow the budget, and what is refused. */
#include <string.h>

#include "defaults_impl.h"
#include "trainer_impl.h"

/* Every option once: its name in JSON, its kind, its place. The order is that of the header. */
enum kind { TEXT, COUNT, NUMBER, CHOICE };
#define AT(member) offsetof(sonde_train_options, member)
static const struct field {
    const char *name;
    enum kind kind;
    size_t at;
} fields[] = {
    {"arch", TEXT, AT(arch)},
    {"n_latents", COUNT, AT(n_latents)},
    {"k", COUNT, AT(k)},
    {"batch", COUNT, AT(batch)},
    {"n_tokens", COUNT, AT(n_tokens)},
    {"lr", NUMBER, AT(lr)},
    {"warmup", COUNT, AT(warmup)},
    {"decay", NUMBER, AT(decay)},
    {"lr_end", NUMBER, AT(lr_end)},
    {"schedule", CHOICE, AT(schedule)},
    {"beta1", NUMBER, AT(beta1)},
    {"beta2", NUMBER, AT(beta2)},
    {"eps", NUMBER, AT(eps)},
    {"clip", NUMBER, AT(clip)},
    {"loss", CHOICE, AT(loss)},
    {"l1", NUMBER, AT(l1)},
    {"l0", NUMBER, AT(l0)},
    {"target_l0", NUMBER, AT(target_l0)},
    {"jump_penalty", CHOICE, AT(jump_penalty)},
    {"tanh_scale", NUMBER, AT(tanh_scale)},
    {"bandwidth", NUMBER, AT(bandwidth)},
    {"threshold", NUMBER, AT(threshold)},
    {"pre_act", NUMBER, AT(pre_act)},
    {"pre_act_dead_only", CHOICE, AT(pre_act_dead_only)},
    {"sparsity_warmup", COUNT, AT(sparsity_warmup)},
    {"k_start", COUNT, AT(k_start)},
    {"k_anneal", COUNT, AT(k_anneal)},
    {"aux_k", COUNT, AT(aux_k)},
    {"aux_coef", NUMBER, AT(aux_coef)},
    {"aux_any_sign", CHOICE, AT(aux_any_sign)},
    {"aux_scaled", CHOICE, AT(aux_scaled)},
    {"dead_window", COUNT, AT(dead_window)},
    {"resample_every", COUNT, AT(resample_every)},
    {"resample_times", COUNT, AT(resample_times)},
    {"bias_weight", NUMBER, AT(bias_weight)},
    {"gated_detach", CHOICE, AT(gated_detach)},
    {"normalize", CHOICE, AT(normalize)},
    {"unit_decoder", CHOICE, AT(unit_decoder)},
    {"decoder_norm", NUMBER, AT(decoder_norm)},
    {"tied", CHOICE, AT(tied)},
    {"bias_init", CHOICE, AT(bias_init)},
    {"pre_bias", CHOICE, AT(pre_bias)},
    {"skip", CHOICE, AT(skip)},
    {"seed", COUNT, AT(seed)},
};
#define N_FIELDS (sizeof fields / sizeof *fields)

static void *member(sonde_train_options *o, const struct field *f)
{
    return (char *)o + f->at;
}
static const void *value_of(const sonde_train_options *o, const struct field *f)
{
    return (const char *)o + f->at;
}

sonde_train_options sonde_train_options_auto(void)
{
    sonde_train_options o = {0};
    for (size_t i = 0; i < N_FIELDS; i++)
        switch (fields[i].kind) {
        case COUNT:
            *(uint64_t *)member(&o, &fields[i]) = SONDE_AUTO;
            break;
        case NUMBER:
            *(double *)member(&o, &fields[i]) = NAN;
            break;
        case CHOICE:
            *(int *)member(&o, &fields[i]) = -1;
            break;
        case TEXT:
            break;
        }
    o.seed = 0;
    return o;
}

json_t *sonde_train_options_json(const sonde_train_options *o)
{
    json_t *out = json_object();
    bool whole = true;
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *f = &fields[i];
        const void *at = value_of(o, f);
        json_t *v = NULL;
        switch (f->kind) {
        case TEXT:
            v = json_string(*(const char *const *)at);
            break;
        case COUNT:
            v = json_integer((json_int_t) * (const uint64_t *)at);
            break;
        case NUMBER:
            v = json_real(*(const double *)at);
            break;
        case CHOICE:
            v = json_integer(*(const int *)at);
            break;
        }
        whole = whole && !json_object_set_new(out, f->name, v);
    }
    if (o->n_prefixes > 0) {
        json_t *ends = json_array(), *weights = json_array();
        for (size_t j = 0; j < o->n_prefixes; j++) {
            whole = whole && !json_array_append_new(ends, json_integer((json_int_t)o->prefix[j])) &&
                    !json_array_append_new(weights, json_real(o->prefix_weight[j]));
        }
        whole = !json_object_set_new(out, "prefix", ends) && whole;
        whole = !json_object_set_new(out, "prefix_weight", weights) && whole;
    }
    if (whole)
        return out;
    json_decref(out);
    return NULL;
}

/* How many values a choice has; most are no and yes. */
static int n_choices(size_t at)
{
    return at == AT(schedule)       ? 3
           : at == AT(loss)         ? 3
           : at == AT(jump_penalty) ? 3
           : at == AT(bias_init)    ? 3
           : at == AT(normalize)    ? SONDE_N_NORMALIZES
                                    : 2;
}

static bool read_field(const json_t *v, const struct field *f, void *at)
{
    const struct sae_arch *arch;
    const json_int_t i = json_integer_value(v);
    switch (f->kind) {
    case TEXT:
        arch = json_is_string(v) ? sae_arch_find(json_string_value(v)) : NULL;
        *(const char **)at = arch ? arch->name : NULL;
        return arch;
    case COUNT:
        *(uint64_t *)at = (uint64_t)i;
        return json_is_integer(v) && i >= 0;
    case NUMBER:
        *(double *)at = json_number_value(v);
        return json_is_number(v);
    case CHOICE:
        *(int *)at = (int)i;
        return json_is_integer(v) && i >= 0 && i < n_choices(f->at);
    }
    return false;
}

static bool read_prefixes(const json_t *ends, const json_t *weights, sonde_train_options *o)
{
    const json_t *v;
    size_t j;
    if (json_array_size(ends) > SONDE_MAX_PREFIXES || json_array_size(weights) != json_array_size(ends))
        return false;
    json_array_foreach(ends, j, v)
    {
        if (!json_is_integer(v) || json_integer_value(v) <= 0 || !json_is_number(json_array_get(weights, j)))
            return false;
        o->prefix[j] = (uint64_t)json_integer_value(v);
        o->prefix_weight[j] = json_number_value(json_array_get(weights, j));
    }
    o->n_prefixes = json_array_size(ends);
    return true;
}

enum sonde_code sonde_train_options_read(const json_t *json, sonde_train_options *o, sonde_err *err)
{
    sonde_train_options got = sonde_train_options_auto();
    for (size_t i = 0; i < N_FIELDS; i++) {
        const json_t *v = json_object_get(json, fields[i].name);
        if (v && !json_is_null(v) && !read_field(v, &fields[i], member(&got, &fields[i])))
            return sonde_fail(err, SONDE_E_INPUT, "the training option '%s' has a value that it cannot have",
                              fields[i].name);
    }
    if (!read_prefixes(json_object_get(json, "prefix"), json_object_get(json, "prefix_weight"), &got))
        return sonde_fail(err, SONDE_E_INPUT, "the training option 'prefix' has a value that it cannot have");
    *o = got;
    return SONDE_OK;
}

uint64_t sonde_train_steps(const sonde_train_options *o)
{
    return o->n_tokens / o->batch + (o->n_tokens % o->batch != 0);
}

/* The power of two nearest to x on a log scale, within [1024, 4096]. */
static uint64_t batch_for(uint64_t n_tokens)
{
    const double x = (double)n_tokens / 4000;
    return x < 1448.2 ? 1024 : x < 2896.3 ? 2048 : 4096;
}

static uint64_t clamp_count(uint64_t x, uint64_t lo, uint64_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* Fractions of F by default: a sixteenth, an eighth, a quarter, a half, all; of equal weight. */
static void default_prefixes(sonde_train_options *o)
{
    if (o->n_prefixes == 0)
        for (uint64_t part = 16; part >= 1; part /= 2) {
            const uint64_t end = o->n_latents / part;
            if (end > 0 && (o->n_prefixes == 0 || end > o->prefix[o->n_prefixes - 1]))
                o->prefix[o->n_prefixes++] = end;
        }
    for (size_t j = 0; j < o->n_prefixes && j < SONDE_MAX_PREFIXES; j++)
        if (!(o->prefix_weight[j] > 0))
            o->prefix_weight[j] = 1.0 / (double)o->n_prefixes;
}

static enum sonde_code check(const sonde_train_options *o, size_t d_in, size_t d_out, bool transcoder,
                             sonde_err *err)
{
    const struct {
        const char *name;
        double value, lo, hi;
    } range[] = {
        {"lr", o->lr, 0, 1e3},
        {"decay", o->decay, 0, 1},
        {"lr_end", o->lr_end, 0, 1},
        {"beta1", o->beta1, 0, 1},
        {"beta2", o->beta2, 0, 1},
        {"eps", o->eps, 1e-30, 1}, /* a latent without gradient divides 0 by it, in float32 */
        {"clip", o->clip, 0, 1e30},
        {"l1", o->l1, 0, 1e30},
        {"l0", o->l0, 0, 1e30},
        {"pre_act", o->pre_act, 0, 1e30},
        {"aux_coef", o->aux_coef, 0, 1e30},
        {"bandwidth", o->bandwidth, 1e-12, 1e12},
        {"threshold", o->threshold, 0, 1e12},
        {"target_l0", o->target_l0, 1e-6, 1e12},
        {"tanh_scale", o->tanh_scale, 0, 1e12},
        {"bias_weight", o->bias_weight, 0, 1e30},
        {"decoder_norm", o->decoder_norm, 0, 1e6},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (!(range[i].value >= range[i].lo && range[i].value <= range[i].hi))
            return sonde_fail(err, SONDE_E_USAGE, "%s is %g, it must lie in [%g, %g]", range[i].name,
                              range[i].value, range[i].lo, range[i].hi);
    if (o->beta1 >= 1 || o->beta2 >= 1)
        return sonde_fail(err, SONDE_E_USAGE, "beta1 %g and beta2 %g must be below 1", o->beta1, o->beta2);
    if (o->n_latents == 0 || o->n_latents > UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%llu latents; between 1 and %u are possible",
                          (unsigned long long)o->n_latents, UINT32_MAX);
    if (o->k == 0 || o->k > o->n_latents)
        return sonde_fail(err, SONDE_E_USAGE, "k is %llu, it must lie between 1 and the %llu latents",
                          (unsigned long long)o->k, (unsigned long long)o->n_latents);
    if (o->k_start < o->k || o->k_start > o->n_latents)
        return sonde_fail(
            err, SONDE_E_USAGE, "k begins with %llu, it must lie between k, %llu, and the %llu latents",
            (unsigned long long)o->k_start, (unsigned long long)o->k, (unsigned long long)o->n_latents);
    if (o->dead_window == 0)
        return sonde_fail(err, SONDE_E_USAGE,
                          "a dead window of 0 rows: latents that fire would be dead too; at least 1");
    if (o->batch == 0 || o->batch > (1u << 24) || o->n_tokens == 0)
        return sonde_fail(err, SONDE_E_USAGE, "a batch of %llu rows of %llu in all",
                          (unsigned long long)o->batch, (unsigned long long)o->n_tokens);
    if (o->normalize == SONDE_NORMALIZE_LAYER && d_in == 1)
        return sonde_fail(err, SONDE_E_USAGE, "rows of 1 number have no variance to bring to 1");
    if (o->skip > 0 && !transcoder)
        return sonde_fail(err, SONDE_E_USAGE,
                          "a skip connection would copy an autoencoder's input to its output; it is for "
                          "transcoders (--hook-out)");
    if (o->tied > 0 && d_in != d_out)
        return sonde_fail(err, SONDE_E_USAGE,
                          "an encoder for %zu numbers cannot begin as the transpose of a decoder of %zu",
                          d_in, d_out);
    if (o->pre_bias > 0 && (transcoder || d_in != d_out))
        return sonde_fail(
            err, SONDE_E_USAGE,
            "a transcoder's b_dec belongs to its output and cannot be subtracted from its input");
    if (transcoder && (o->normalize == SONDE_NORMALIZE_CONSTANT || o->normalize == SONDE_NORMALIZE_LAYER))
        return sonde_fail(err, SONDE_E_USAGE,
                          "normalising each row cannot be undone for a transcoder: its dictionary knows the "
                          "norms of inputs, not of targets");
    if (o->n_prefixes > SONDE_MAX_PREFIXES)
        return sonde_fail(err, SONDE_E_USAGE, "%zu prefixes, at most %d are possible", o->n_prefixes,
                          SONDE_MAX_PREFIXES);
    for (size_t j = 0; j < o->n_prefixes; j++)
        if (o->prefix[j] == 0 || (j > 0 && o->prefix[j] <= o->prefix[j - 1]) ||
            (j + 1 == o->n_prefixes && o->prefix[j] != o->n_latents))
            return sonde_fail(err, SONDE_E_USAGE,
                              "prefixes must rise and end at the %llu latents; number %zu is %llu",
                              (unsigned long long)o->n_latents, j + 1, (unsigned long long)o->prefix[j]);
    return SONDE_OK;
}

enum sonde_code sonde_train_defaults(sonde_train_options *o, size_t d_in, size_t d_out, uint64_t n_rows,
                                     bool transcoder, sonde_err *err)
{
    const struct sae_arch *arch = sae_arch_find(o->arch ? o->arch : sae_archs[0]->name);
    if (!arch)
        return sonde_fail(err, SONDE_E_USAGE, "no architecture '%s'", o->arch);
    o->arch = arch->name;
    default_count(&o->n_latents, 16 * (uint64_t)d_in);
    default_count(&o->n_tokens, n_rows > 10000000 ? n_rows : 10000000);
    default_count(&o->batch, batch_for(o->n_tokens));
    if (o->batch == 0 || o->n_tokens == 0)
        return sonde_fail(err, SONDE_E_USAGE, "no rows to learn from: batch %llu, %llu in all",
                          (unsigned long long)o->batch, (unsigned long long)o->n_tokens);
    const uint64_t steps = sonde_train_steps(o);
    const uint64_t k = clamp_count(d_in / 16, 4, 64);
    default_count(&o->k, k < o->n_latents ? k : o->n_latents);
    if (arch->defaults)
        arch->defaults(o, d_in, steps);
    const double scarce = sqrt(20000 / (double)steps);
    default_number(&o->lr, fmin(3e-3, 2e-4 * sqrt(16384 / (double)o->n_latents) * fmax(1, scarce)));
    default_count(&o->warmup, clamp_count(steps / 20, 0, 1000));
    default_choice(&o->schedule, SONDE_SCHEDULE_LINEAR);
    default_number(&o->decay, 0.2);
    default_number(&o->lr_end, 0);
    default_number(&o->beta1, 0.9);
    default_number(&o->beta2, 0.999);
    default_number(&o->eps, 1e-8);
    default_number(&o->clip, 1);
    default_choice(&o->loss, SONDE_LOSS_FVU);
    default_number(&o->l1, 0);
    default_number(&o->l0, 0);
    default_number(&o->target_l0, (double)o->k);
    default_choice(&o->jump_penalty, SONDE_JUMP_TARGET);
    default_number(&o->tanh_scale, 4);
    default_number(&o->bandwidth, 0.05);
    default_number(&o->threshold, 0.01);
    default_number(&o->pre_act, 0);
    default_choice(&o->pre_act_dead_only, 1);
    default_count(&o->sparsity_warmup, 0);
    default_count(&o->k_start, o->k);
    default_count(&o->k_anneal, 0);
    default_count(&o->aux_k, arch->traits & ARCH_AUX ? (d_in / 2 > 0 ? d_in / 2 : 1) : 0);
    default_number(&o->aux_coef, 1.0 / 32);
    default_choice(&o->aux_any_sign, 0);
    default_choice(&o->aux_scaled, 0);
    default_count(&o->dead_window, clamp_count(o->n_tokens / 20, 200000, 10000000));
    default_count(&o->resample_every, 0);
    default_count(&o->resample_times, 0);
    default_number(&o->bias_weight, 0);
    default_choice(&o->gated_detach, 1);
    default_choice(&o->normalize, SONDE_NORMALIZE_MEAN_SQUARE);
    default_choice(&o->unit_decoder, 1);
    default_number(&o->decoder_norm, 1);
    default_choice(&o->tied, !transcoder);
    default_choice(&o->bias_init, SONDE_BIAS_MEAN);
    default_choice(&o->pre_bias, !transcoder);
    default_choice(&o->skip, 0);
    if (arch->traits & ARCH_PREFIXES)
        default_prefixes(o);
    else
        o->n_prefixes = 0;
    enum sonde_code code = check(o, d_in, d_out, transcoder, err);
    return code ? code : arch->check ? arch->check(o, err) : SONDE_OK;
}
