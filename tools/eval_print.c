/* SPDX-License-Identifier: MIT
 * sonde eval: the table for people, printed from the JSON. */
#include <inttypes.h>
#include <string.h>

#include "eval.h"

#define SHORT (-1) /* six digits, wherever the point is */

/* A line of the table; key NULL: a heading. A line whose key is missing is left out, and so is a heading with
 * nothing under it. */
static const struct line {
    const char *key, *label;
    int decimals; /* of a number that is not whole */
} lines[] = {
    {NULL, "reconstruction", 0},
    {"explained_variance", "share of the variance: 1 - fvu", 4},
    {"explained_variance_legacy", "mean of each row's share", 4},
    {"frac_variance_explained", "share of the variance, a constant error forgiven", 4},
    {"fvu", "fraction of variance unexplained", 4},
    {"mse", "squared error of a row", SHORT},
    {"mse_per_element", "squared error of an element", SHORT},
    {"cossim", "cosine of what should come out and what does", 4},
    {"l2_ratio", "norm of what comes out over that of what should", 4},
    {"relative_reconstruction_bias", "1: no shrinkage", 4},
    {NULL, "sparsity", 0},
    {"l0", "active latents of a row", 3},
    {"l1", "sum of the latents of a row", SHORT},
    {"dead_features", "latents active on none of these rows", 0},
    {"frac_alive", "share of the others", 4},
    {"below_1e-5", "latents active on fewer than 1e-5 of the rows", 0},
    {"below_1e-6", "latents active on fewer than 1e-6 of the rows", 0},
    {"freq_over_1_percent", "share of latents active on over 1 % of the rows", 4},
    {"freq_over_10_percent", "share of latents active on over 10 % of the rows", 4},
    {NULL, "geometry", 0},
    {"encoder_norm_mean", "norm of an encoder row", SHORT},
    {"decoder_norm_mean", "norm of a decoder row", SHORT},
    {"encoder_decoder_cosine_sim", "cosine of a latent's encoder and decoder", 4},
    {"average_max_encoder_cosine_sim", "cosine with the nearest other encoder row", 4},
    {"average_max_decoder_cosine_sim", "cosine with the nearest other decoder row", 4},
    {NULL, "truth", 0},
    {"n_true", "true directions", 0},
    {"mmcs", "cosine of a true direction with the nearest latent", 4},
    {"mmcs_weighted", "the same, weighted by frequency", 4},
    {"recall_at_0.9", "share of true directions with a latent above 0.9", 4},
    {"mcc", "cosine of the pairs matched one to one", 4},
    {"uniqueness", "different true directions that latents lean to, over latents", 4},
    {"true_l0", "true latents active in a row", 3},
    {"f1", "of a latent as detector of the true one it leans to", 4},
    {"precision", "share of its activity that is right", 4},
    {"recall", "share of the true activity that it finds", 4},
    {"accuracy", "share of rows in which it is right", 4},
    {"f1_matched", "f1 of the pairs matched one to one", 4},
    {NULL, "the model with the dictionary in it", 0},
    {"n_tokens", "next tokens that it predicted", 0},
    {"ce_loss_without_sae", "nats per next token, clean", 4},
    {"ce_loss_with_sae", "with the dictionary", 4},
    {"ce_delta", "the difference", 4},
    {"ce_loss_with_ablation", "with zeros", 4},
    {"ce_loss_with_mean_ablation", "with the mean", 4},
    {"ce_loss_score", "1: as clean, 0: as with zeros", 4},
    {"ce_loss_score_mean", "1: as clean, 0: as with the mean", 4},
    {"kl_div_with_sae", "KL from the clean model's next-token distribution", 4},
    {"kl_div_with_ablation", "with zeros", 4},
    {"kl_div_score", "1: as clean, 0: as with zeros", 4},
};

static const char *text(const struct eval *e, const char *key)
{
    const char *s = json_string_value(json_object_get(e->out, key));
    return s ? s : "";
}

static int64_t count(const struct eval *e, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(e->out, key));
}

static void print_subject(const struct eval *e)
{
    const char *split = text(e, "split");
    int64_t d_in = count(e, "d_in"), d_out = count(e, "d_out");
    printf("%s: %s, %" PRId64 " -> %" PRId64, text(e, "sae"), text(e, "architecture"), d_in,
           count(e, "n_latents"));
    if (d_out)
        printf(" -> %" PRId64, d_out);
    printf("\n");
    if (text(e, "hook")[0])
        printf("%s%s%s, ", text(e, "hook"), text(e, "hook_out")[0] ? " -> " : "", text(e, "hook_out"));
    printf("%" PRId64 " rows%s\n", count(e, "n_rows"),
           !strcmp(split, "heldout") ? " held out"
           : !strcmp(split, "train") ? " of the training split"
                                     : "");
}

static void print_line(const struct line *l, const json_t *value)
{
    char number[40] = "-";
    double v = json_number_value(value);
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%" PRId64, (int64_t)json_integer_value(value));
    else if (json_is_real(value) && l->decimals == SHORT)
        snprintf(number, sizeof number, "%.6g", v);
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.*f", l->decimals, v);
    printf("  %-30s %12s  %s\n", l->key, number, l->label);
}

/* How many latents have a frequency in each power of ten. */
static void print_density(const struct eval *e)
{
    const json_t *counts = json_object_get(e->out, "density_counts");
    if (!counts)
        return;
    printf("frequency of latents\n  %-30s %12" PRId64 "\n", "never active", count(e, "dead_features"));
    for (size_t decade = 0; decade < SONDE_DENSITY_BINS / 4; decade++) {
        json_int_t n = 0;
        for (size_t i = 4 * decade; i < 4 * decade + 4; i++)
            n += json_integer_value(json_array_get(counts, i));
        n -= decade == 0 ? (json_int_t)count(e, "dead_features") : 0;
        char range[32];
        snprintf(range, sizeof range, "1e%d to 1e%d", (int)decade - 10, (int)decade - 9);
        if (n)
            printf("  %-30s %12" PRId64 "\n", range, (int64_t)n);
    }
}

void eval_print(const struct eval *e)
{
    print_subject(e);
    const char *heading = NULL;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct line *l = &lines[i];
        const json_t *value = l->key ? json_object_get(e->out, l->key) : NULL;
        if (!l->key)
            heading = l->label;
        if (!value)
            continue;
        if (heading)
            printf("%s\n", heading);
        heading = NULL;
        print_line(l, value);
    }
    print_density(e);
    eval_print_baselines(e);
}
