/* SPDX-License-Identifier: MIT
 * Where activations come from: a store, a plain array, or a model run on text as one goes along. One
 * interface.
 *
 * A stream for training is endless and exact: epochs of windows of rows, each window permuted by
 * Philox(seed, epoch, window) and consumed whole; a position (epoch, window, row) is all there is to save. A
 * pass for measuring gives every row of a split once, in the order of the file or the text. */
#ifndef SONDE_SAE_SOURCE_H
#define SONDE_SAE_SOURCE_H

#include "../base/work.h"
#include "../model/hooks.h"
#include "../model/model.h"
#include "../text/corpus.h"

enum sonde_split { SONDE_SPLIT_TRAIN = 0, SONDE_SPLIT_HELDOUT, SONDE_SPLIT_ALL };

/* Which rows take part. Rows of tokens that are unknown (a bare array) are never excluded by token or
 * position. */
typedef struct sonde_row_filter {
    bool bos, special;  /* leave out rows of the BOS token, of special tokens */
    size_t first;       /* leave out the first positions of each context */
    const int32_t *ids; /* leave out rows of these tokens */
    size_t n_ids;
    double max_norm; /* leave out rows with a norm over this many times the median norm (of the first 65,536
                        rows of the train split); 0: none */
} sonde_row_filter;

typedef struct sonde_source_options {
    const char *hook;     /* the input; NULL where there is only one */
    const char *hook_out; /* transcoders: what is to be predicted; NULL: the input itself */
    sonde_row_filter filter;
    double
        holdout; /* share of documents held out, where the file marks none (text: as sonde_capture marks
                    them with this seed; stores: with the seed they were made with; arrays: the last rows) */
    uint64_t seed;
    size_t window_rows; /* 0: 65,536, or fewer where rows are wide (a window takes at most 128 MiB) */
    bool verify;        /* check a store's checksums while reading */
} sonde_source_options;

typedef struct sonde_source sonde_source;

/* Shape and identity. Strings live as long as the source. */
typedef struct sonde_source_info {
    size_t d_in, d_out;
    uint64_t n_rows;             /* rows there are */
    uint64_t n_train, n_heldout; /* that pass the filter (norms not counted) */
    bool has_tokens;
    bool knows_special; /* which ids are BOS and special; where not, the filter leaves none of them out */
    int32_t bos_id;     /* -1: there is none, or it is not known */
    const char *kind;   /* "store", "array", "model" */
    const char *hook, *hook_out; /* canonical names, "" for an array; hook_out NULL for an autoencoder */
    const char *identity; /* JSON object: hashes of data and model, hook, filter, split, seed ...: what must
                             be equal for a resume to make sense. Keys in fixed order; the path is not among
                             them, files may be moved */
    size_t n_context;     /* 0: unknown */
    bool prepend_bos;
    const char *model_name; /* for metadata; "" if unknown */
} sonde_source_info;

/* path: an acts.h5 (hook needed if it has several), "FILE.h5:/dataset" of any HDF5 file, or FILE.npy, rows
 * [N, ...] of float32, float16, bfloat16 or float64; trailing dimensions are flattened. Opens HDF5 in a
 * child: before threads start. Errors: SONDE_E_IO, SONDE_E_INPUT, SONDE_E_USAGE (a hook that is not there,
 * with near names; no row passes the filter). */
enum sonde_code sonde_source_open(const char *path, const sonde_source_options *o, sonde_budget *budget,
                                  sonde_source **out, sonde_err *err);

/* From a model and a corpus, both shared and outliving the source. tokenizer (or NULL) tells which ids are
 * special. */
enum sonde_code sonde_source_model(const sonde_model *m, const sonde_corpus *corpus,
                                   const sonde_tokenizer *tokenizer, const sonde_source_options *o,
                                   sonde_budget *budget, sonde_source **out, sonde_err *err);
void sonde_source_close(sonde_source *s); /* NULL is fine */

const sonde_source_info *sonde_source_about(const sonde_source *s);

/* ---- the stream (train split) ---------------------------------------------------------------- */

typedef struct sonde_source_position {
    uint64_t epoch, window, row;
} sonde_source_position;

/* The next n rows: x [n, d_in] and, where hook_out differs, y [n, d_out] (y NULL otherwise), contiguous.
 * token (or NULL) [n]: index of each row's token in the text, UINT64_MAX if unknown. A store's next window is
 * read ahead by a thread of its own. Errors: SONDE_E_NUMERIC (NaN or infinity: row and column named),
 * SONDE_E_INPUT, SONDE_E_IO, SONDE_E_STOPPED. */
enum sonde_code sonde_source_next(sonde_source *s, size_t n, float *x, float *y, uint64_t *token,
                                  const sonde_work *work, sonde_err *err);
sonde_source_position sonde_source_tell(const sonde_source *s);
enum sonde_code sonde_source_seek(sonde_source *s, sonde_source_position at, sonde_err *err);

/* ---- one pass in order ----------------------------------------------------------------------- */

/* Rows of one call. */
typedef struct sonde_pass_rows {
    size_t n;              /* 0: the pass is over */
    const float *x, *y;    /* [n, d_in], [n, d_out]; y is x for an autoencoder. Valid until the next call */
    const uint64_t *row;   /* [n] row number in the file (stores, arrays) */
    const uint64_t *token; /* [n] index of the token in the text, UINT64_MAX if unknown */
    const int32_t *id;     /* [n] its id, -1 if unknown */
} sonde_pass_rows;

/* A pass does not disturb the stream; one at a time. */
enum sonde_code sonde_source_pass_begin(sonde_source *s, enum sonde_split split, sonde_err *err);
enum sonde_code sonde_source_pass_next(sonde_source *s, size_t max_rows, sonde_pass_rows *out,
                                       const sonde_work *work, sonde_err *err);

/* For scores with the model in the loop: what the source was opened with, NULL for stores and arrays. */
const sonde_model *sonde_source_model_of(const sonde_source *s);
const sonde_corpus *sonde_source_corpus_of(const sonde_source *s);

/* Does token t of the corpus (of a model source) give a row in this split? */
bool sonde_source_takes(const sonde_source *s, uint64_t token, enum sonde_split split);

#endif
