/* SPDX-License-Identifier: MIT
 * What the pickle of torch.save becomes: a graph of values in one array. */
#ifndef SONDE_FILE_TORCHZIP_IMPL_H
#define SONDE_FILE_TORCHZIP_IMPL_H

#include "torchzip.h"
#include "zip_impl.h"

enum sonde_pick_kind {
    SONDE_PICK_NONE = 0,
    SONDE_PICK_BOOL,
    SONDE_PICK_INT,
    SONDE_PICK_FLOAT,
    SONDE_PICK_STRING,
    SONDE_PICK_TUPLE,
    SONDE_PICK_LIST,
    SONDE_PICK_DICT,
    SONDE_PICK_GLOBAL,
    SONDE_PICK_STORAGE,
    SONDE_PICK_TENSOR,
    SONDE_PICK_MARK /* only on the stack */
};

enum sonde_pick_role {
    SONDE_ROLE_DICT,
    SONDE_ROLE_TENSOR,
    SONDE_ROLE_PARAMETER,
    SONDE_ROLE_SIZE,
    SONDE_ROLE_DEVICE,
    SONDE_ROLE_STORAGE,
    SONDE_ROLE_DTYPE
};

/* A name that a pickle may mention. */
typedef struct sonde_pick_global {
    const char *module, *name;
    enum sonde_pick_role role;
    enum sonde_dtype dtype; /* of a storage */
    const char *text;       /* of a dtype: "torch.float32" */
} sonde_pick_global;

#define SONDE_PICK_END      UINT32_MAX
#define SONDE_PICK_MAX_STEM 1000 /* bytes */

/* One value. Items of containers are cells in a list, in order. */
typedef struct sonde_pick_value {
    uint32_t kind;
    uint32_t n; /* items, or bytes of the string, or the tensor's number */
    union {
        int64_t i;
        double f;
        const char *s;
        struct {
            uint32_t first, last; /* cells */
        } items;
        const sonde_pick_global *global;
        const sonde_zip_member *storage; /* its elements: those of dtype */
    } u;
    enum sonde_dtype dtype; /* of a storage */
} sonde_pick_value;

typedef struct sonde_pick_cell {
    uint32_t key; /* value; of a dictionary */
    uint32_t item, next;
} sonde_pick_cell;

/* The machine and what it has made. Everything lies in the arena. */
typedef struct sonde_pick {
    const sonde_zip *zip;
    const char *stem; /* first component of the members' names, n_stem bytes */
    size_t n_stem;
    bool has_checksums;
    bool *checked;      /* [members] */
    sonde_arena *arena; /* for tensors that are copied: lives as long as the result */
    size_t n_copied, max_copied;
    sonde_pick_value *value;
    sonde_pick_cell *cell;
    sonde_tensor *tensor; /* without names */
    uint32_t n_values, n_cells, n_tensors;
    uint32_t root;
} sonde_pick;

/* Run the pickle in p[0..n) (zip, stem, arena given in k); scratch is for the machine. */
enum sonde_code sonde_pick_run(sonde_pick *k, const unsigned char *p, size_t n, sonde_arena *scratch,
                               sonde_err *err);

/* The storage of a persistent id ('storage', type, key, location, count) as value number *out. */
enum sonde_code sonde_pick_storage(sonde_pick *k, uint32_t id, sonde_pick_value *out, sonde_err *err);

/* The tensor of (storage, offset, size, stride, ...) as value *out. */
enum sonde_code sonde_pick_tensor(sonde_pick *k, uint32_t args, sonde_pick_value *out, sonde_err *err);

/* Item i of a tuple or list; SONDE_PICK_END where there are fewer. */
uint32_t sonde_pick_item(const sonde_pick *k, uint32_t of, uint32_t i);

/* "PATH: data.pkl: what". */
enum sonde_code sonde_pick_damaged(const sonde_pick *k, const char *what, sonde_err *err);

#endif
