/* SPDX-License-Identifier: MIT
 * HDF5, kept in a child process.
 *
 * This process never calls HDF5. What needs it (laying out a file, adding attributes, reading a stranger's
 * structure) runs as a job in a forked child that can open nothing, write nothing but its reply, and may use
 * little memory and time. So a crash inside HDF5 is a sentence and not the end of the program, the library's
 * global state stays out of the caller's process, and the parent checks every number of the reply as if it
 * came from a stranger. */
#ifndef SONDE_FILE_HDF5_IMPL_H
#define SONDE_FILE_HDF5_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "store.h"

/* ---- the reply: unsigned 64-bit numbers and byte strings, one after another -------------------- */

/* Written in the child; grows up to its limit and then remembers that it is full. */
typedef struct sonde_h5_reply {
    unsigned char *bytes;
    size_t n, room;
    bool full;
} sonde_h5_reply;

void sonde_h5_put(sonde_h5_reply *r, const void *bytes, size_t n);
void sonde_h5_put_u64(sonde_h5_reply *r, uint64_t v);
void sonde_h5_put_bytes(sonde_h5_reply *r, const void *bytes, size_t n); /* length first, a NUL behind */
void sonde_h5_put_text(sonde_h5_reply *r, const char *s);

/* Read in the parent. The first value that does not fit sets `bad`; values after that are 0 and "". */
typedef struct sonde_h5_cursor {
    const unsigned char *bytes;
    size_t n, at;
    bool bad;
} sonde_h5_cursor;

uint64_t sonde_h5_get_u64(sonde_h5_cursor *c);
const unsigned char *sonde_h5_get_bytes(sonde_h5_cursor *c, size_t *n);
const char *sonde_h5_get_text(sonde_h5_cursor *c); /* no NUL inside */

/* ---- running a job ----------------------------------------------------------------------------- */

/* What the child does: fd is the file, only ever read, or -1. */
typedef enum sonde_code sonde_h5_job(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err);

/* How it is run: a stranger's file takes the blame when the child dies. */
typedef struct sonde_h5_task {
    const char *path; /* for messages */
    int fd;
    bool stranger;
    unsigned cpu_s;
    size_t memory_bytes;
    sonde_h5_job *job;
    const void *arg;
} sonde_h5_task;

/* Run the job in a child and hand back its reply, which lies in the arena. Errors: those of the job; when the
 * child died SONDE_E_INPUT (a stranger's file) or SONDE_E_IO; SONDE_E_IO when there can be no child. */
enum sonde_code sonde_h5_run(const sonde_h5_task *task, sonde_arena *arena, sonde_h5_cursor *reply,
                             sonde_err *err);

/* ---- laying out -------------------------------------------------------------------------------- */

/* What to lay out, or (create false) what to add to the file that is there. */
typedef struct sonde_h5_layout {
    bool create;
    const sonde_store_dataset *dataset;
    size_t n_datasets;
    const sonde_store_attr *attr;
    size_t n_attrs;
} sonde_h5_layout;

/* The job. Its reply: bytes of the whole file; offset of each dataset; the number of writes; each write as
 * its offset and its bytes. The file itself is not touched: the parent makes the writes. */
enum sonde_code sonde_h5_lay_out(const void *layout, int fd, sonde_h5_reply *reply, sonde_err *err);

/* ---- reading a structure ----------------------------------------------------------------------- */

enum sonde_h5_kind {
    SONDE_H5_CONTIGUOUS = 0, /* readable: n_bytes at offset */
    SONDE_H5_COMPACT,        /* readable: n_bytes that came with the reply */
    SONDE_H5_CHUNKED,        /* listed; h5repack makes it readable */
    SONDE_H5_REFUSED,        /* listed; `note` says what it is */
    SONDE_H5_N_KINDS
};

typedef struct sonde_h5_dataset {
    sonde_store_dataset shape;
    enum sonde_h5_kind kind;
    const char *note; /* "big-endian float", "chunked, deflate", "an external link", ... */
    uint64_t offset;
    size_t n_bytes;
    const unsigned char *compact;
} sonde_h5_dataset;

/* Both sorted, by path and by (path, name). */
typedef struct sonde_h5_table {
    sonde_h5_dataset *dataset;
    size_t n_datasets;
    sonde_store_attr *attr;
    size_t n_attrs;
} sonde_h5_table;

/* The job; no argument. */
enum sonde_code sonde_h5_walk(const void *unused, int fd, sonde_h5_reply *reply, sonde_err *err);

/* The table that a reply of the walk describes, if every number of it is possible in a file of file_bytes;
 * strings stay in the reply. Errors: SONDE_E_INPUT, SONDE_E_MEMORY. */
enum sonde_code sonde_h5_table_parse(const char *path, sonde_h5_cursor reply, uint64_t file_bytes,
                                     sonde_arena *arena, sonde_h5_table *out, sonde_err *err);

/* Read the structure of fd, file_bytes long: run the walk and check what comes back. */
enum sonde_code sonde_h5_table_read(const char *path, int fd, uint64_t file_bytes, sonde_budget *budget,
                                    sonde_arena *arena, sonde_h5_table *out, sonde_err *err);

const sonde_h5_dataset *sonde_h5_dataset_find(const sonde_h5_table *t, const char *path);
const sonde_store_attr *sonde_h5_attr_find(const sonde_h5_table *t, const char *path, const char *name);

/* A path or an attribute name that may be shown and stored: valid UTF-8 of 1 to 1024 bytes without control
 * characters. */
bool sonde_h5_name_ok(const char *s);

#endif
