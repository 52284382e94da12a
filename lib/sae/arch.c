/* SPDX-License-Identifier: MIT
 * The table of architectures. */
#include <string.h>

#include "trainer_impl.h"

const struct sae_arch *const sae_archs[] = {&arch_batchtopk, &arch_topk, &arch_matryoshka,
                                            &arch_jumprelu,  &arch_relu, &arch_relu_2023,
                                            &arch_gated,     NULL};

static const char *const names[] = {"batchtopk", "topk",      "matryoshka", "jumprelu",
                                    "relu",      "relu-2023", "gated",      NULL};

const struct sae_arch *sae_arch_find(const char *name)
{
    for (size_t i = 0; sae_archs[i]; i++)
        if (!strcmp(sae_archs[i]->name, name))
            return sae_archs[i];
    return NULL;
}

const char *const *sonde_train_archs(void)
{
    return names;
}

const char *sonde_train_arch_about(const char *name)
{
    const struct sae_arch *a = sae_arch_find(name);
    return a ? a->about : NULL;
}
