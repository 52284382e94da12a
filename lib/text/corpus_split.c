/* SPDX-License-Identifier: MIT
 * Where the documents of a file are. */
#include <string.h>

#include "corpus_impl.h"

/* The line that begins at byte `at`: it ends at *end, without its newline; the next begins at the returned
 * byte. */
static size_t next_line(const sonde_map *m, size_t at, size_t *end)
{
    const unsigned char *nl = memchr(m->data + at, '\n', m->n_bytes - at);
    *end = nl ? (size_t)(nl - m->data) : m->n_bytes;
    return nl ? *end + 1 : m->n_bytes;
}

static bool is_separator(const char *separator, size_t n, const unsigned char *line, size_t n_line)
{
    if (n_line == n + 1 && line[n] == '\r')
        n_line--;
    return n_line == n && memcmp(line, separator, n) == 0;
}

/* Without the newline ("\n" or "\r\n") that ends [begin, end), if there is one. */
static size_t without_newline(const sonde_map *m, size_t begin, size_t end)
{
    if (end > begin && m->data[end - 1] == '\n')
        end--;
    else
        return end;
    return end > begin && m->data[end - 1] == '\r' ? end - 1 : end;
}

static enum sonde_code add(struct packer *p, size_t begin, size_t end, sonde_err *err)
{
    return end > begin ? sonde_pack_range(p, (int64_t)begin, (int64_t)end, err) : SONDE_OK;
}

enum sonde_code sonde_split_text(struct packer *p, const sonde_map *m, sonde_err *err)
{
    const char *separator = p->o->separator;
    if (!separator)
        return add(p, 0, m->n_bytes, err);
    size_t n = strlen(separator), begin = 0;
    enum sonde_code rc = SONDE_OK;
    for (size_t at = 0, next, end; at < m->n_bytes && rc == SONDE_OK; at = next) {
        next = next_line(m, at, &end);
        if (!is_separator(separator, n, m->data + at, end - at))
            continue;
        rc = add(p, begin, without_newline(m, begin, at), err);
        begin = next;
    }
    return rc == SONDE_OK ? add(p, begin, without_newline(m, begin, m->n_bytes), err) : rc;
}

static bool is_blank(const unsigned char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

enum sonde_code sonde_split_jsonl(struct packer *p, const sonde_map *m, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (size_t at = 0, next, end; at < m->n_bytes && rc == SONDE_OK; at = next) {
        next = next_line(m, at, &end);
        if (!is_blank(m->data + at, end - at))
            rc = sonde_pack_range(p, (int64_t)at, (int64_t)end, err);
    }
    return rc;
}
