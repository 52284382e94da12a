/* SPDX-License-Identifier: MIT
 * GGUF is walked twice: first to check and measure everything, then to fill one allocation. */
#include "gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "name_impl.h"
#include "tensors_impl.h"

#define GGUF_MAX_RANK 4u /* as ggml: no file has more */

/* Tensor types by their number in the file: `block` elements of the innermost dimension take `bytes` bytes.
 * The numbers without a name were removed from ggml (4, 5, 31-33, 36-38) or are never stored (Q8_1). */
static const struct tensor_type {
    const char *name;
    uint32_t block, bytes;
    enum sonde_dtype dtype;
} tensor_types[] = {
    [0] = {"F32", 1, 4, SONDE_F32},
    [1] = {"F16", 1, 2, SONDE_F16},
    [2] = {"Q4_0", 32, 18, SONDE_OPAQUE},
    [3] = {"Q4_1", 32, 20, SONDE_OPAQUE},
    [6] = {"Q5_0", 32, 22, SONDE_OPAQUE},
    [7] = {"Q5_1", 32, 24, SONDE_OPAQUE},
    [8] = {"Q8_0", 32, 34, SONDE_Q8_0},
    [10] = {"Q2_K", 256, 84, SONDE_OPAQUE},
    [11] = {"Q3_K", 256, 110, SONDE_OPAQUE},
    [12] = {"Q4_K", 256, 144, SONDE_OPAQUE},
    [13] = {"Q5_K", 256, 176, SONDE_OPAQUE},
    [14] = {"Q6_K", 256, 210, SONDE_OPAQUE},
    [15] = {"Q8_K", 256, 292, SONDE_OPAQUE},
    [16] = {"IQ2_XXS", 256, 66, SONDE_OPAQUE},
    [17] = {"IQ2_XS", 256, 74, SONDE_OPAQUE},
    [18] = {"IQ3_XXS", 256, 98, SONDE_OPAQUE},
    [19] = {"IQ1_S", 256, 50, SONDE_OPAQUE},
    [20] = {"IQ4_NL", 32, 18, SONDE_OPAQUE},
    [21] = {"IQ3_S", 256, 110, SONDE_OPAQUE},
    [22] = {"IQ2_S", 256, 82, SONDE_OPAQUE},
    [23] = {"IQ4_XS", 256, 136, SONDE_OPAQUE},
    [24] = {"I8", 1, 1, SONDE_I8},
    [25] = {"I16", 1, 2, SONDE_I16},
    [26] = {"I32", 1, 4, SONDE_I32},
    [27] = {"I64", 1, 8, SONDE_I64},
    [28] = {"F64", 1, 8, SONDE_F64},
    [29] = {"IQ1_M", 256, 56, SONDE_OPAQUE},
    [30] = {"BF16", 1, 2, SONDE_BF16},
    [34] = {"TQ1_0", 256, 54, SONDE_OPAQUE},
    [35] = {"TQ2_0", 256, 66, SONDE_OPAQUE},
    [39] = {"MXFP4", 32, 17, SONDE_OPAQUE},
    [40] = {"NVFP4", 64, 36, SONDE_OPAQUE},
    [41] = {"Q1_0", 128, 18, SONDE_OPAQUE},
};

/* Metadata types by their number in the file. */
enum { KV_U32 = 4, KV_BOOL = 7, KV_STRING = 8, KV_ARRAY = 9 };
static const struct value_type {
    const char *name;
    size_t n_bytes; /* of a scalar; 0 for strings and arrays */
    enum sonde_meta_type meta;
} value_types[] = {
    [0] = {"uint8", 1, SONDE_META_UINT},
    [1] = {"int8", 1, SONDE_META_INT},
    [2] = {"uint16", 2, SONDE_META_UINT},
    [3] = {"int16", 2, SONDE_META_INT},
    [KV_U32] = {"uint32", 4, SONDE_META_UINT},
    [5] = {"int32", 4, SONDE_META_INT},
    [6] = {"float32", 4, SONDE_META_FLOAT},
    [KV_BOOL] = {"bool", 1, SONDE_META_BOOL},
    [KV_STRING] = {"string", 0, SONDE_META_STRING},
    [KV_ARRAY] = {"array", 0, SONDE_META_ARRAY},
    [10] = {"uint64", 8, SONDE_META_UINT},
    [11] = {"int64", 8, SONDE_META_INT},
    [12] = {"float64", 8, SONDE_META_FLOAT},
};
#define N_OF(a) (sizeof(a) / sizeof *(a))

/* Where a tensor lies, from the start of the data. */
struct extent {
    uint64_t off;
    size_t n_bytes, tensor;
};

/* One walk over the header. Strings and array items are only counted while text and item are NULL; after that
 * they must fit in what was counted, which a file that changes under our hands could break. */
struct walk {
    const sonde_map *m;
    size_t at;
    sonde_err *err;
    char *text;
    unsigned char *item;
    size_t n_text, n_item;     /* bytes so far */
    size_t max_text, max_item; /* SIZE_MAX while counting */
    sonde_bytes name;          /* of the key or tensor at hand, for messages */
    size_t align;              /* general.alignment */
};

/* A name in a message, as %.*s: long ones are cut. */
#define NAMED(w) (int)((w)->name.n < 100 ? (w)->name.n : 100), (w)->name.s

static const unsigned char *take(struct walk *w, uint64_t n, const char *what)
{
    if (!sonde_inside(w->at, n, w->m->n_bytes)) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: %s at byte %zu takes %" PRIu64 " bytes, the file has %zu; it is cut short or damaged",
                   w->m->path, what, w->at, n, w->m->n_bytes);
        return NULL;
    }
    const unsigned char *p = w->m->data + w->at;
    w->at += (size_t)n;
    return p;
}

static bool take_u32(struct walk *w, const char *what, uint32_t *out)
{
    const unsigned char *p = take(w, sizeof *out, what);
    if (p)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

static bool take_u64(struct walk *w, const char *what, uint64_t *out)
{
    const unsigned char *p = take(w, sizeof *out, what);
    if (p)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

/* Count n more bytes of text or items. */
static bool reserve(struct walk *w, size_t *used, size_t max, size_t n)
{
    size_t sum;
    if (sonde_add(&sum, *used, n) && sum <= max) {
        *used = sum;
        return true;
    }
    sonde_fail(w->err, SONDE_E_INPUT,
               "%s: the metadata are larger than this machine can address, or the file is changing",
               w->m->path);
    return false;
}

/* A string: length and bytes. out->s is NUL-terminated once the text has a place. */
static bool take_string(struct walk *w, const char *what, sonde_bytes *out)
{
    uint64_t n;
    if (!take_u64(w, what, &n))
        return false;
    const unsigned char *p = take(w, n, what);
    if (!p)
        return false;
    size_t at = w->n_text;
    if (!reserve(w, &w->n_text, w->max_text, (size_t)n + 1)) /* n < the file's bytes: no wrap */
        return false;
    out->n = (size_t)n;
    out->s = (const char *)p;
    if (w->text) {
        out->s = memcpy(w->text + at, p, out->n);
        w->text[at + out->n] = '\0';
    }
    return true;
}

/* Keys and tensor names. */
static bool take_name(struct walk *w, const char *what)
{
    size_t start = w->at;
    if (!take_string(w, what, &w->name))
        return false;
    if (sonde_name_ok(w->name.s, w->name.n))
        return true;
    sonde_fail(w->err, SONDE_E_INPUT,
               "%s: %s at byte %zu is %zu bytes that are no name: 1 to %d bytes of UTF-8 without "
               "control characters are allowed",
               w->m->path, what, start, w->name.n, SONDE_MAX_NAME);
    return false;
}

static bool take_type(struct walk *w, const char *what, uint32_t *out)
{
    if (!take_u32(w, what, out))
        return false;
    if (*out < N_OF(value_types))
        return true;
    sonde_fail(w->err, SONDE_E_INPUT, "%s: %s at byte %zu is %" PRIu32 ", known are 0 to %zu", w->m->path,
               what, w->at - 4, *out, N_OF(value_types) - 1);
    return false;
}

/* A scalar at p as the three numbers of a metadata entry; false for a bool that is neither 0 nor 1. */
static bool decode(uint32_t type, const unsigned char *p, sonde_meta *v)
{
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    float f;
    size_t n = value_types[type].n_bytes;
    switch (value_types[type].meta) {
    case SONDE_META_INT:
        memcpy(&u, p, n);
        i = (int64_t)(u << (64 - 8 * n)) >> (64 - 8 * n); /* sign extension */
        u = i < 0 ? 0 : (uint64_t)i;
        d = (double)i;
        break;
    case SONDE_META_FLOAT:
        if (n == sizeof f) {
            memcpy(&f, p, n);
            d = (double)f;
        } else {
            memcpy(&d, p, n);
        }
        break;
    default:
        memcpy(&u, p, n);
        if (type == KV_BOOL && u > 1)
            return false;
        i = u > INT64_MAX ? INT64_MAX : (int64_t)u;
        d = (double)u;
    }
    v->i = i;
    v->u = u;
    v->f = d;
    return true;
}

static bool bad_bool(struct walk *w)
{
    sonde_fail(w->err, SONDE_E_INPUT, "%s: '%.*s': a bool before byte %zu is neither 0 nor 1", w->m->path,
               NAMED(w), w->at);
    return false;
}

/* n numbers as int64_t, uint64_t or double at `out` (NULL: only checked). Eight bytes each. */
static bool take_numbers(struct walk *w, uint32_t type, uint64_t n, unsigned char *out)
{
    size_t size = value_types[type].n_bytes; /* the caller saw that n of them fit in the file */
    const unsigned char *p = take(w, n * size, "an array's items");
    if (!p)
        return false;
    if (!out && type != KV_BOOL)
        return true;
    for (size_t k = 0; k < n; k++) {
        sonde_meta v;
        if (!decode(type, p + k * size, &v))
            return bad_bool(w);
        if (!out)
            continue;
        if (value_types[type].meta == SONDE_META_INT)
            memcpy(out + 8 * k, &v.i, 8);
        else if (value_types[type].meta == SONDE_META_FLOAT)
            memcpy(out + 8 * k, &v.f, 8);
        else
            memcpy(out + 8 * k, &v.u, 8);
    }
    return true;
}

static bool take_array(struct walk *w, sonde_meta *v)
{
    uint32_t type;
    uint64_t n;
    size_t bytes;
    if (!take_type(w, "an array's item type", &type) || !take_u64(w, "an array's length", &n))
        return false;
    if (type == KV_ARRAY) {
        sonde_fail(w->err, SONDE_E_INPUT, "%s: '%.*s' is an array of arrays, which sonde does not read",
                   w->m->path, NAMED(w));
        return false;
    }
    /* each item takes at least this much of the file: check before anything is done n times */
    size_t least = type == KV_STRING ? sizeof(uint64_t) : value_types[type].n_bytes;
    if (n > (w->m->n_bytes - w->at) / least) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: '%.*s' has %" PRIu64 " items of type %s, the %zu bytes that follow cannot hold them",
                   w->m->path, NAMED(w), n, value_types[type].name, w->m->n_bytes - w->at);
        return false;
    }
    v->item = value_types[type].meta;
    v->n_items = (size_t)n;
    unsigned char *out = w->item ? w->item + w->n_item : NULL;
    v->items = out;
    size_t each = type == KV_STRING ? sizeof(sonde_bytes) : sizeof(int64_t);
    if (!sonde_nbytes(&bytes, &n, 1, each))
        bytes = SIZE_MAX; /* refused by reserve */
    if (!reserve(w, &w->n_item, w->max_item, bytes))
        return false;
    if (type != KV_STRING)
        return take_numbers(w, type, n, out);
    for (size_t k = 0; k < n; k++) {
        sonde_bytes b;
        if (!take_string(w, "a string of an array", &b))
            return false;
        if (out)
            memcpy(out + k * sizeof b, &b, sizeof b);
    }
    return true;
}

/* general.alignment decides where tensors may lie. */
static bool take_alignment(struct walk *w, uint32_t type, const sonde_meta *v)
{
    static const char key[] = "general.alignment";
    if (w->name.n != sizeof key - 1 || memcmp(w->name.s, key, sizeof key - 1) != 0)
        return true;
    bool fine = type == KV_U32 && v->u >= 8 && v->u <= 4096 && (v->u & (v->u - 1)) == 0;
    if (fine)
        w->align = (size_t)v->u;
    else
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: general.alignment is %s %" PRIu64
                   ", it must be a uint32, a power of two from 8 to 4096",
                   w->m->path, value_types[type].name, v->u);
    return fine;
}

/* One key and its value. v begins as zeros. */
static bool take_meta(struct walk *w, sonde_meta *v)
{
    uint32_t type;
    if (!take_name(w, "a key") || !take_type(w, "a value's type", &type))
        return false;
    v->key = w->name.s;
    v->type = value_types[type].meta;
    if (type == KV_ARRAY) {
        if (!take_array(w, v))
            return false;
    } else if (type == KV_STRING) {
        sonde_bytes b;
        if (!take_string(w, "a string value", &b))
            return false;
        v->s = b.s;
        v->n_bytes = b.n;
    } else {
        const unsigned char *p = take(w, value_types[type].n_bytes, "a value");
        if (!p)
            return false;
        if (!decode(type, p, v))
            return bad_bool(w);
    }
    return take_alignment(w, type, v);
}

/* Check the type's number and what the shape takes of the file. */
static bool size_tensor(struct walk *w, uint32_t number, sonde_tensor *t)
{
    if (number >= N_OF(tensor_types) || !tensor_types[number].name) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: tensor '%.*s' is of type %" PRIu32
                   ", which is not known here; convert the model to F16, BF16, F32 or Q8_0",
                   w->m->path, NAMED(w), number);
        return false;
    }
    const struct tensor_type *type = &tensor_types[number];
    char shape[128];
    sonde_shape_text(t->dim, t->rank, shape, sizeof shape);
    uint64_t dim[GGUF_MAX_RANK] = {0}, inner = t->rank ? t->dim[t->rank - 1] : 1;
    if (inner % type->block) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: tensor '%.*s' %s of type %s: the last dimension must be a multiple of %" PRIu32,
                   w->m->path, NAMED(w), shape, type->name, type->block);
        return false;
    }
    for (int i = 0; i < t->rank; i++)
        dim[i] = t->dim[i];
    if (t->rank)
        dim[t->rank - 1] = inner / type->block;
    size_t count;
    if (!sonde_nbytes(&count, t->dim, t->rank, 1) || !sonde_nbytes(&t->n_bytes, dim, t->rank, type->bytes)) {
        sonde_fail(w->err, SONDE_E_INPUT, "%s: tensor '%.*s' %s is larger than this machine can address",
                   w->m->path, NAMED(w), shape);
        return false;
    }
    t->type_name = type->name;
    t->dtype = type->dtype;
    return true;
}

/* One tensor's name, shape, type and place; its data are set by place(). */
static bool take_tensor(struct walk *w, sonde_tensor *t, uint64_t *off)
{
    uint32_t rank, type;
    if (!take_name(w, "a tensor's name") || !take_u32(w, "a tensor's rank", &rank))
        return false;
    if (rank > GGUF_MAX_RANK) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: tensor '%.*s' has %" PRIu32 " dimensions, at most %u are allowed", w->m->path,
                   NAMED(w), rank, GGUF_MAX_RANK);
        return false;
    }
    for (uint32_t i = 0; i < rank; i++)
        if (!take_u64(w, "a tensor's dimension", &t->dim[rank - 1 - i])) /* innermost first in the file */
            return false;
    if (!take_u32(w, "a tensor's type", &type) || !take_u64(w, "a tensor's offset", off))
        return false;
    t->name = w->name.s;
    t->rank = (int)rank;
    return size_tensor(w, type, t);
}

static int by_key(const void *a, const void *b)
{
    const sonde_meta *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static int by_place(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Magic, version and the two counts, which must leave room for what they promise. */
static bool take_head(struct walk *w, uint64_t *n_tensors, uint64_t *n_meta)
{
    uint32_t version;
    const unsigned char *magic = take(w, 4, "the magic 'GGUF'");
    if (!magic)
        return false;
    if (memcmp(magic, "GGUF", 4) != 0) {
        sonde_fail(w->err, SONDE_E_INPUT, "%s: not a GGUF file (it does not begin with 'GGUF')", w->m->path);
        return false;
    }
    if (!take_u32(w, "the version", &version))
        return false;
    if (version != 0 && (version & 0xffffu) == 0) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: a big-endian GGUF; convert it with gguf-convert-endian, only little-endian is read",
                   w->m->path);
        return false;
    }
    if (version != 2 && version != 3) {
        sonde_fail(w->err, SONDE_E_INPUT, "%s: GGUF version %" PRIu32 ", versions 2 and 3 are read",
                   w->m->path, version);
        return false;
    }
    if (!take_u64(w, "the number of tensors", n_tensors) || !take_u64(w, "the number of keys", n_meta))
        return false;
    /* a tensor takes at least 8 + 1 + 4 + 4 + 8 bytes, a key with its value 8 + 1 + 4 + 1 */
    size_t rest = w->m->n_bytes - w->at;
    if (*n_tensors > rest / 25 || *n_meta > rest / 14 || *n_tensors >= UINT32_MAX) {
        sonde_fail(w->err, SONDE_E_INPUT,
                   "%s: %" PRIu64 " tensors and %" PRIu64 " keys cannot fit in the %zu bytes that follow",
                   w->m->path, *n_tensors, *n_meta, rest);
        return false;
    }
    return true;
}

/* The header after its counts. meta, tensor and extent are NULL while counting. */
static bool walk_header(struct walk *w, size_t n_meta, size_t n_tensors, sonde_meta *meta,
                        sonde_tensor *tensor, struct extent *extent)
{
    for (size_t i = 0; i < n_meta; i++) {
        sonde_meta v = {0};
        if (!take_meta(w, &v))
            return false;
        if (meta)
            meta[i] = v;
    }
    for (size_t i = 0; i < n_tensors; i++) {
        sonde_tensor t = {0};
        uint64_t off;
        if (!take_tensor(w, &t, &off))
            return false;
        if (tensor) {
            tensor[i] = t;
            extent[i] = (struct extent){off, t.n_bytes, i};
        }
    }
    return true;
}

static enum sonde_code refuse_duplicate_keys(const sonde_map *m, const sonde_meta *meta, size_t n,
                                             sonde_arena *scratch, sonde_err *err)
{
    const sonde_meta **sorted = sonde_arena_get(scratch, n, sizeof *sorted, err);
    if (!sorted)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &meta[i];
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: the key '%.100s' is there twice", m->path,
                              sorted[i]->key);
    return SONDE_OK;
}

/* Give every tensor its data. In the order of their offsets they must follow each other from the start of the
 * data to the end of the file with nothing between but padding to the alignment, as ggml demands too. */
static enum sonde_code place(const sonde_map *m, size_t header_bytes, size_t align, sonde_tensor *tensor,
                             struct extent *extent, size_t n, sonde_err *err)
{
    size_t start, end = 0; /* end: of the tensors so far, padded, from start */
    if (!sonde_round_up(&start, header_bytes, align))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the header is larger than this machine can address",
                          m->path);
    qsort(extent, n, sizeof *extent, by_place);
    size_t last = header_bytes; /* end of the contents, without padding, in the file */
    for (size_t i = 0; i < n; i++) {
        const struct extent *x = &extent[i];
        sonde_tensor *t = &tensor[x->tensor];
        if (x->off != end)
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: tensor '%.100s' is at offset %" PRIu64 ", it must be at %zu%s", m->path,
                              t->name, x->off, end,
                              x->off % align ? " (offsets are multiples of the alignment)"
                              : x->off < end ? " (it overlaps the one before)"
                                             : " (there is a hole before it)");
        size_t at;
        if (!sonde_add(&at, start, end) || (t->n_bytes && !sonde_inside(at, t->n_bytes, m->n_bytes)))
            return sonde_fail(
                err, SONDE_E_INPUT,
                "%s: tensor '%.100s' takes %zu bytes at offset %zu of the data, the file has %zu; "
                "it is cut short or damaged",
                m->path, t->name, t->n_bytes, end, m->n_bytes);
        t->data = m->data + (t->n_bytes ? at : m->n_bytes);
        if (t->n_bytes)
            last = at + t->n_bytes; /* inside the file */
        if (!sonde_add(&end, end, t->n_bytes) || !sonde_round_up(&end, end, align))
            return sonde_fail(err, SONDE_E_INPUT, "%s: the tensors are larger than this machine can address",
                              m->path);
    }
    size_t padded;
    if (!sonde_round_up(&padded, last, align) || m->n_bytes > padded)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu bytes follow the last tensor, only padding to %zu may",
                          m->path, m->n_bytes - last, align);
    return SONDE_OK;
}

static enum sonde_code fill(sonde_tensors *f, const sonde_map *m, struct walk *w, size_t at, size_t n_meta,
                            size_t n_tensors, sonde_arena *scratch, sonde_err *err)
{
    sonde_meta *meta = sonde_arena_get(f->arena, n_meta, sizeof *meta, err);
    sonde_tensor *tensor = meta ? sonde_arena_get(f->arena, n_tensors, sizeof *tensor, err) : NULL;
    w->item = tensor ? sonde_arena_get(f->arena, w->n_item, 1, err) : NULL;
    w->text = w->item ? sonde_arena_get(f->arena, w->n_text, 1, err) : NULL;
    struct extent *extent = w->text ? sonde_arena_get(scratch, n_tensors, sizeof *extent, err) : NULL;
    if (!extent)
        return SONDE_E_MEMORY;
    w->at = at;
    w->max_text = w->n_text;
    w->max_item = w->n_item;
    w->n_text = w->n_item = 0;
    if (!walk_header(w, n_meta, n_tensors, meta, tensor, extent))
        return SONDE_E_INPUT;
    f->meta = meta;
    f->n_meta = n_meta;
    f->tensor = tensor;
    f->n_tensors = n_tensors;
    enum sonde_code rc = refuse_duplicate_keys(m, meta, n_meta, scratch, err);
    return rc == SONDE_OK ? place(m, w->at, w->align, tensor, extent, n_tensors, err) : rc;
}

/* The first walk over m; then *f is made, and filled by the second. */
static enum sonde_code read_gguf(const sonde_map *m, sonde_budget *budget, sonde_tensors **f, sonde_err *err)
{
    struct walk w = {.m = m, .err = err, .align = 32, .max_text = SIZE_MAX, .max_item = SIZE_MAX};
    uint64_t n_tensors, n_meta;
    if (!take_head(&w, &n_tensors, &n_meta))
        return SONDE_E_INPUT;
    size_t at = w.at;
    if (!walk_header(&w, (size_t)n_meta, (size_t)n_tensors, NULL, NULL, NULL))
        return SONDE_E_INPUT;
    *f = sonde_tensors_new("gguf", 1, budget, err);
    sonde_arena *scratch = *f ? sonde_arena_new(budget, err) : NULL;
    enum sonde_code rc =
        scratch ? fill(*f, m, &w, at, (size_t)n_meta, (size_t)n_tensors, scratch, err) : SONDE_E_MEMORY;
    sonde_arena_free(scratch);
    return rc;
}

enum sonde_code sonde_gguf_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_tensors *f = NULL;
    enum sonde_code rc = read_gguf(m, budget, &f, err);
    return sonde_tensors_finish(f, m, rc, out, err);
}

enum sonde_code sonde_gguf_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_gguf_parse(m, budget, out, err) : rc;
}
