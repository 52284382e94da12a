/* SPDX-License-Identifier: MIT */
#include "train_words.h"

#include <stdio.h>
#include <string.h>

#include "base/suggest.h"

/* What SAELens, dictionary_learning, sparsify and papers call them. */
static const char *const elsewhere[][2] = {
    {"standard", "relu"},
    {"vanilla", "relu"},
    {"l1", "relu"},
    {"standard_new", "relu"},
    {"batch_top_k", "batchtopk"},
    {"top_k", "topk"},
    {"matryoshka_batchtopk", "matryoshka"},
    {"matryoshka_batch_top_k", "matryoshka"},
    {"jump_relu", "jumprelu"},
};

enum sonde_code train_words_arch(const char *name, sonde_err *err)
{
    const char *const *names = sonde_train_archs();
    char near[160], list[200] = "";
    size_t n = 0;
    for (; names[n]; n++)
        if (!name || !strcmp(names[n], name))
            return SONDE_OK;
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (!strcmp(name, elsewhere[i][0]))
            return sonde_fail(err, SONDE_E_USAGE, "no architecture '%s'; here it is called '%s'", name,
                              elsewhere[i][1]);
    sonde_suggest(name, names, n, near, sizeof near);
    if (near[0])
        return sonde_fail(err, SONDE_E_USAGE, "no architecture '%.60s'%s", name, near);
    for (size_t i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    return sonde_fail(err, SONDE_E_USAGE, "no architecture '%.60s'; there are %s", name, list);
}

enum sonde_code train_words_unused(const struct parsed *p, const char *const *arch, size_t n, char note[200],
                                   sonde_err *err)
{
    static const struct {
        const char *option, *archs;
    } use[] = {
        {"k", "batchtopk, topk, matryoshka, jumprelu"},
        {"k-start", "batchtopk, topk, matryoshka"},
        {"k-anneal", "batchtopk, topk, matryoshka"},
        {"widths", "matryoshka"},
        {"l1-coef", "relu, relu-2023, gated"},
        {"l0-coef", "jumprelu"},
        {"target-l0", "jumprelu"},
        {"jump-penalty", "jumprelu"},
        {"bandwidth", "jumprelu"},
        {"threshold", "jumprelu"},
        {"pre-act", "jumprelu"},
        {"resample-every", "relu-2023"},
        {"resample-times", "relu-2023"},
    };
    note[0] = '\0';
    for (size_t i = 0; i < sizeof use / sizeof *use; i++) {
        bool used = !option_given(p, use[i].option);
        for (size_t j = 0; j < n && !used; j++) {
            char item[80], all[120];
            snprintf(item, sizeof item, " %.60s,", arch[j]);
            snprintf(all, sizeof all, " %s,", use[i].archs);
            used = strstr(all, item) != NULL;
        }
        if (used)
            continue;
        snprintf(note, 200, "--%s does nothing with --arch %.60s; it is for %s", use[i].option, arch[0],
                 use[i].archs);
        if (strcmp(use[i].option, "k") != 0)
            return sonde_fail(err, SONDE_E_USAGE, "%s", note);
    }
    if (option_given(p, "latents") && option_given(p, "expansion"))
        return sonde_fail(err, SONDE_E_USAGE, "--latents and --expansion say the same; give one of them");
    return SONDE_OK;
}

json_t *train_words_options(const sonde_train_options *o)
{
    static const struct {
        const char *key, *words[SONDE_N_NORMALIZES];
    } choices[] = {
        {"schedule", {"linear", "cosine", "constant"}},
        {"loss", {"fvu", "sum", "mean"}},
        {"jump_penalty", {"target", "step", "tanh"}},
        {"bias_init", {"mean", "median", "zero"}},
        {"normalize", {"none", "mean-square", "sqrt-d", "standard", "constant", "layer"}},
    };
    static const char *const flags[] = {"pre_act_dead_only", "aux_any_sign", "aux_scaled", "gated_detach",
                                        "unit_decoder",      "tied",         "pre_bias",   "skip"};
    json_t *all = sonde_train_options_json(o);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        json_int_t v = json_integer_value(json_object_get(all, choices[i].key));
        if (v >= 0 && v < SONDE_N_NORMALIZES && choices[i].words[v])
            json_object_set_new(all, choices[i].key, json_string(choices[i].words[v]));
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const json_t *v = json_object_get(all, flags[i]);
        if (json_is_integer(v))
            json_object_set_new(all, flags[i], json_boolean(json_integer_value(v) > 0));
    }
    return all;
}
