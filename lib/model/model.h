/* SPDX-License-Identifier: MIT
 * A model: config and packed weights, opened once and shared read-only by threads. */
#ifndef SONDE_MODEL_MODEL_H
#define SONDE_MODEL_MODEL_H

#include "../base/work.h"
#include "../file/tensors.h"
#include "../num/matmul.h"
#include "arch.h"

/* Weight processing as TransformerLens defines it. Bits of sonde_model_options.processing. */
enum sonde_processing {
    SONDE_FOLD_LN = 1, /* gamma and beta into the weights that read; LayerNorm: centre those over d as well */
    SONDE_CENTER_WRITING = 2, /* what writes to the residual minus its mean over d (LayerNorm models only) */
    SONDE_CENTER_UNEMBED = 4, /* unembedding minus its mean over the vocabulary (not with a final soft cap) */
    SONDE_FOLD_VALUE_BIASES = 8 /* b_O += b_V W_O, b_V = 0 */
};

typedef struct sonde_model_options {
    unsigned processing;          /* 0: the weights as they are */
    const sonde_kernels *kernels; /* NULL: the best */
    bool defer_unembed;             /* leave the unembedding unpacked until sonde_model_load_unembed: most captures
                                       never need it */
    bool strict_finite;           /* refuse NaN and infinity in weights (SONDE_E_NUMERIC naming the tensor) */
} sonde_model_options;

typedef struct sonde_affine {
    float *gamma, *beta; /* [n] or NULL */
} sonde_affine;

typedef struct sonde_layer {
    sonde_affine ln1, ln2, ln1_post, ln2_post, mlp_ln;
    sonde_packed qkv;       /* [d, (H + 2 Hk) dh]: q heads, k heads, v heads */
    float *qkv_bias;        /* or NULL */
    float *q_norm, *k_norm; /* [dh] */
    sonde_packed o;         /* [H dh, d] */
    float *o_bias;
    sonde_packed in; /* [d, m] or gated [d, 2m]: gate, then up */
    float *in_bias;
    sonde_packed out; /* [m, d] */
    float *out_bias;
} sonde_layer;

typedef struct sonde_model {
    sonde_arch arch;
    const sonde_kernels *kernels;
    unsigned processing;
    const char *path;
    const char *config_json; /* the config as the file has it (for llama2.c and GGUF: made from the header) */
    sonde_layer *layer;
    sonde_affine ln_final;
    sonde_tensor embed;   /* [V, d], in the file's type; use sonde_model_embed */
    bool embed_centred;   /* rows lose their mean (center_writing_weights) */
    float *position;      /* [n_ctx, d] or NULL */
    sonde_packed unembed; /* [d, V_out] */
    float *unembed_bias;
    uint64_t n_parameters;    /* elements of the tensors used; a tied embedding counts once */
    size_t n_unused;          /* tensors in the file that the family does not know */
    const char *first_unused; /* name of one of them, or NULL */
    sonde_tensors *file;
    const struct source *source; /* private: how the file is laid out */
    bool strict_finite;          /* private */
    sonde_affine ln_folded;      /* private: the final norm that fold_ln put into the unembedding */
    sonde_arena *arena;
} sonde_model;

/* Open a Hugging Face directory, a llama2.c .bin or a GGUF. Every tensor's shape is checked against the
 * config, both numbers in the message. work gives the threads that pack and the memory limit. Errors:
 * SONDE_E_IO, SONDE_E_INPUT, SONDE_E_USAGE (processing that this family does not allow), SONDE_E_MEMORY,
 * SONDE_E_NUMERIC. */
enum sonde_code sonde_model_open(const char *path, const sonde_model_options *options, const sonde_work *work,
                                 sonde_model **out, sonde_err *err);
void sonde_model_close(sonde_model *m); /* NULL is fine */

/* Pack the unembedding that was deferred; before the model is shared by threads. Nothing to do if it is there. */
enum sonde_code sonde_model_load_unembed(sonde_model *m, const sonde_work *work, sonde_err *err);

/* What a directory's config.json says, without opening the weights. *arch: its tables live in arena. Errors
 * as above. */
enum sonde_code sonde_model_config(const char *dir, sonde_arch *arch, sonde_arena *arena, sonde_err *err);

/* Does this tensor name carry nothing for the family of arch (a mask buffer, the second copy of a tied
 * embedding)? */
bool sonde_model_ignores(const sonde_arch *arch, const char *tensor_name);

/* Row `id` of the embedding, scaled and centred as the model asks, into out [d]. id must be in [0, n_vocab).
 */
void sonde_model_embed(const sonde_model *m, int32_t id, float *out);

/* A batch has been embedded: the pages of a large mapped embedding may go, so that memory stays near the
 * packed weights. */
void sonde_model_embed_done(const sonde_model *m);

/* Names of the processing bits, comma-separated ("fold_ln,center_writing_weights"), "none" for 0. */
char *sonde_processing_text(unsigned processing, char *buf, size_t n);
enum sonde_code sonde_processing_parse(const char *text, unsigned *out, sonde_err *err);

/* NULL-terminated list of the families that can be read. */
const char *const *sonde_families(void);

#endif
