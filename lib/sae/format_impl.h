/* SPDX-License-Identifier: MIT
 * What the formats of dictionaries share: the table, and how tensors become arrays. One format is one file
 * format_NAME.c that defines one row; dict_file.c lists the rows. */
#ifndef SONDE_SAE_FORMAT_IMPL_H
#define SONDE_SAE_FORMAT_IMPL_H

#include "../base/tensor.h"
#include "../file/tensors.h"
#include "dict_file.h"

#define SONDE_DICT_NOTE     400
#define SONDE_DICT_MAX_CFG  ((size_t)1 << 20)  /* bytes of a cfg.json */
#define SONDE_DICT_MAX_SIZE ((int64_t)1 << 40) /* of a width or a count that a config may name */

typedef struct sonde_dict_format {
    const char *name, *about;
    /* Does the path look like it? Cheap, and quiet: names of files, a few bytes. */
    bool (*probe)(const char *path);
    /* Read; note is appended to with sonde_dict_note, never NULL. Numbers and k are checked by the caller,
     * and the caller sets d->format. Messages begin with the path of the file at fault. */
    enum sonde_code (*read)(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err);
    /* NULL: cannot be written. d is finite. */
    enum sonde_code (*write)(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err);
} sonde_dict_format;

/* The rows; NULL at the end, in the order in which they are tried. */
extern const sonde_dict_format *const sonde_dict_format_table[];

/* Append a sentence to the note ("; " between); what does not fit is cut. */
void sonde_dict_note(char note[SONDE_DICT_NOTE], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- paths --------------------------------------------------------------------------------------- */

/* Is dir a directory that has `name` in it, or is path a regular file? Quiet. */
bool sonde_dict_has(const char *dir, const char *name);
bool sonde_dict_is_file(const char *path);
bool sonde_dict_is_dir(const char *path);

/* "dir/name", malloc'd. Errors: SONDE_E_MEMORY. */
enum sonde_code sonde_dict_join(const char *dir, const char *name, char **out, sonde_err *err);

/* The directory that the path means: itself, or the one that holds it where path is a file of this name
 * (config or weights). malloc'd. */
enum sonde_code sonde_dict_dir_of(const char *path, char **out, sonde_err *err);

/* Make path a directory to write names[0], names[1], ... (NULL at the end) into, the last of which makes it
 * whole. Errors: SONDE_E_USAGE if one of them is there and not overwrite, SONDE_E_IO. With overwrite the last
 * one is removed first. */
enum sonde_code sonde_dict_make_dir(const char *path, const char *const *names, bool overwrite,
                                    sonde_err *err);

/* Does the name end so? */
bool sonde_dict_ends(const char *path, const char *suffix);

/* Is it a regular file that begins as a zip, and do its first 64 KiB (the pickle of a file of torch.save)
 * hold all words (NULL at the end)? Quiet. */
bool sonde_dict_mentions(const char *path, const char *const *words);

/* ---- tensors to arrays --------------------------------------------------------------------------- */

/* Open a safetensors file in a directory (by the rule of sonde_map_open_in). */
enum sonde_code sonde_dict_open_tensors(const char *dir, const char *name, sonde_budget *budget,
                                        sonde_tensors **out, sonde_err *err);

/* The tensor with this name and this shape (rank 1: rows only; rank 0: neither). Errors: SONDE_E_INPUT: it is
 * missing (the message lists what there is), or its shape is another (both are named). */
enum sonde_code sonde_dict_find(const sonde_tensors *f, const char *path, const char *name, int rank,
                                size_t rows, size_t columns, const sonde_tensor **out, sonde_err *err);

/* A matrix whose shape decides the widths: the tensor, of rank 2 with no zero dimension. */
enum sonde_code sonde_dict_matrix(const sonde_tensors *f, const char *path, const char *name, size_t *rows,
                                  size_t *columns, sonde_err *err);

/* Find and read as float32 in one step. The third stores the transpose: [columns, rows]. */
enum sonde_code sonde_dict_read_vector(const sonde_tensors *f, const char *path, const char *name, size_t n,
                                       float *out, sonde_err *err);
enum sonde_code sonde_dict_read_matrix(const sonde_tensors *f, const char *path, const char *name,
                                       size_t rows, size_t columns, float *out, sonde_err *err);
enum sonde_code sonde_dict_read_transposed(const sonde_tensors *f, const char *path, const char *name,
                                           size_t rows, size_t columns, float *out, sonde_err *err);

/* The one number of a tensor of rank 0, or of one element. */
enum sonde_code sonde_dict_read_scalar(const sonde_tensors *f, const char *path, const char *name,
                                       double *out, sonde_err *err);

/* ---- arrays to tensors --------------------------------------------------------------------------- */

/* [columns, rows] from [rows, columns], malloc'd. Errors: SONDE_E_MEMORY. */
enum sonde_code sonde_dict_transpose(const float *x, size_t rows, size_t columns, float **out,
                                     sonde_err *err);

/* A float32 tensor over x; columns 0: a vector. */
sonde_tensor sonde_dict_tensor(const char *name, const float *x, size_t rows, size_t columns);

/* ---- facts --------------------------------------------------------------------------------------- */

/* Does it map one place of the model to another? Widths that differ, a skip connection, an output hook of its
 * own, or trained as a transcoder. */
bool sonde_dict_is_transcoder(const sonde_dict *d);

/* A copy of the text in the dictionary's arena. */
enum sonde_code sonde_dict_text(sonde_dict *d, const char *s, const char **out, sonde_err *err);

/* Set an entry of d->meta (value's reference is taken, NULL is out of memory); null values are left out. */
enum sonde_code sonde_dict_set_meta(sonde_dict *d, const char *key, json_t *value, sonde_err *err);

/* The text under a key of d->meta, or NULL. */
const char *sonde_dict_meta_text(const sonde_dict *d, const char *key);

/* N of a hook "blocks.N...", or -1 (also for NULL). */
int sonde_dict_layer_of(const char *hook);

/* d in the form that a format takes: b_dec subtracted or not, gates as they are or made thresholds. *use is d
 * itself or *copy, which the caller frees (NULL where d fits). */
enum sonde_code sonde_dict_in_form(const sonde_dict *d, bool pre_bias, bool gates, const sonde_dict **use,
                                   sonde_dict **copy, sonde_err *err);

/* A JSON object as a file: sorted keys, two spaces, 17 digits; the reference is taken. */
enum sonde_code sonde_dict_write_json(const char *path, json_t *object, bool overwrite, sonde_err *err);

extern const sonde_dict_format sonde_format_saelens;
extern const sonde_dict_format sonde_format_sparsify;
extern const sonde_dict_format sonde_format_openai;
extern const sonde_dict_format sonde_format_dl;
extern const sonde_dict_format sonde_format_gemma;
extern const sonde_dict_format sonde_format_gemma_2;
extern const sonde_dict_format sonde_format_circuit_tracer;

#endif
