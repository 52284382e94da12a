/* SPDX-License-Identifier: MIT
 * One function per family: its config keys into an arch. */
#ifndef SONDE_MODEL_CONFIG_IMPL_H
#define SONDE_MODEL_CONFIG_IMPL_H

#include "families_impl.h"
#include "model.h"

typedef enum sonde_code configure_fn(const json_t *config, const char *path, sonde_arch *arch,
                                     sonde_arena *arena, sonde_err *err);
configure_fn configure_gpt2, configure_gpt_neo, configure_gpt_neox, configure_llama, configure_mistral,
    configure_qwen2, configure_qwen3, configure_gemma, configure_gemma2, configure_gemma3,
    configure_transformer_lens;

/* Reads keys of one object until the first error; later calls then do nothing and give the fallback. */
struct config_reader {
    const json_t *obj;
    const char *path;
    sonde_err *err;
    enum sonde_code code;
};

/* Is the key there and not null? */
bool config_has(const struct config_reader *r, const char *key);

/* Optional numbers, booleans and strings; a value of another type or outside [lo, hi] is refused. */
int64_t config_int(struct config_reader *r, const char *key, int64_t lo, int64_t hi, int64_t fallback);
double config_double(struct config_reader *r, const char *key, double lo, double hi, double fallback);
bool config_bool(struct config_reader *r, const char *key, bool fallback);
const char *config_string(struct config_reader *r, const char *key, const char *fallback);

/* A size in [1, hi] that must be there; 1 after an error, so that it can be divided by. */
size_t config_size(struct config_reader *r, const char *key, int64_t hi);

/* The value of a key that must be an object or a list (JSON_OBJECT, JSON_ARRAY); NULL when it is absent or
 * null. */
const json_t *config_container(struct config_reader *r, const char *key, json_type type);

/* Does one entry of a list of attention kinds mean a local layer? Any word but these two is refused. */
bool config_is_local(struct config_reader *r, const char *key, const json_t *entry, const char *global,
                     const char *local);

/* A list that names n layers must name them all. */
void config_count(struct config_reader *r, const char *key, size_t n, size_t n_layers);

/* "gelu_new", "silu", ... */
enum sonde_act config_act(struct config_reader *r, const char *name);

#endif
