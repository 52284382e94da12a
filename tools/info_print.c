/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "info.h"
#include "number.h"

#define MAX_COLUMNS 12

/* The columns that text takes on a terminal. */
static int width(const char *s)
{
    int n = 0;
    utf8proc_int32_t c;
    for (utf8proc_ssize_t k; *s; s += k > 0 ? k : 1) {
        k = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c);
        n += k > 0 ? utf8proc_charwidth(c) : 1;
    }
    return n;
}

/* One value as text without line breaks or control characters; malloc'd. */
static char *cell(const json_t *v)
{
    char *text = NULL, *whole;
    if (json_is_string(v))
        return tool_visible(json_string_value(v), json_string_length(v));
    text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (!text)
        return NULL;
    whole = tool_visible(text, strlen(text));
    free(text);
    return whole;
}

static bool is_table(const json_t *v)
{
    return json_is_array(v) && json_is_object(json_array_get(v, 0));
}

static void pad(int n)
{
    printf("%*s", n > 0 ? n : 0, "");
}

/* Numbers to the right, everything else to the left. */
static void put_cell(const json_t *v, const char *text, int columns, bool last)
{
    int rest = columns - width(text);
    if (json_is_number(v)) {
        pad(rest);
        fputs(text, stdout);
    } else {
        fputs(text, stdout);
        if (!last)
            pad(rest);
    }
    fputs(last ? "\n" : "  ", stdout);
}

static bool put_table(const json_t *rows)
{
    const char *key[MAX_COLUMNS];
    int columns[MAX_COLUMNS], n = 0;
    const char *k;
    json_t *v, *row;
    json_object_foreach(json_array_get(rows, 0), k, v) if (n < MAX_COLUMNS)
    {
        columns[n] = width(k);
        key[n++] = k;
    }
    size_t n_rows = json_array_size(rows);
    char **text = calloc(n_rows * (size_t)n + 1, sizeof *text);
    bool ok = text != NULL;
    for (size_t r = 0; ok && r < n_rows; r++)
        for (int i = 0; ok && i < n; i++) {
            const json_t *value = json_object_get(json_array_get(rows, r), key[i]);
            text[r * (size_t)n + (size_t)i] = value ? cell(value) : strdup("");
            ok = text[r * (size_t)n + (size_t)i] != NULL;
            if (ok && width(text[r * (size_t)n + (size_t)i]) > columns[i])
                columns[i] = width(text[r * (size_t)n + (size_t)i]);
        }
    size_t r;
    for (int i = 0; ok && i < n; i++) {
        printf("%s", i == 0 ? "  " : "");
        put_cell(json_is_number(json_object_get(json_array_get(rows, 0), key[i]))
                     ? json_object_get(json_array_get(rows, 0), key[i])
                     : NULL,
                 key[i], columns[i], i == n - 1);
    }
    if (ok)
        json_array_foreach(rows, r, row)
        {
            fputs("  ", stdout);
            for (int i = 0; i < n; i++)
                put_cell(json_object_get(row, key[i]), text[r * (size_t)n + (size_t)i], columns[i],
                         i == n - 1);
            if (tool_output_broken())
                break;
        }
    for (size_t i = 0; text && i < n_rows * (size_t)n; i++)
        free(text[i]);
    free(text);
    return ok;
}

static bool put_line(const char *key, const json_t *v, int indent, int columns)
{
    char *name = tool_visible(key, strlen(key)), *text = cell(v), size[32];
    bool ok = name && text;
    if (ok) {
        printf("%*s%s", indent, "", name);
        pad(columns - width(name));
        printf("  %s", text);
        if (!strcmp(key, "bytes") && json_integer_value(v) >= 1024)
            printf(" (%s)", number_print_bytes((uint64_t)json_integer_value(v), size));
        putchar('\n');
    }
    free(name);
    free(text);
    return ok;
}

static bool put_object(const json_t *object, int indent)
{
    const char *key;
    json_t *v;
    int columns = 0;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)object, key,
                        v) if (!json_is_object(v) && !is_table(v) && width(key) > columns && width(key) < 50)
        columns = width(key);
    json_object_foreach((json_t *)(uintptr_t)object, key, v)
    {
        if (!ok)
            break;
        if (json_is_object(v) && indent < 6) {
            printf("%*s%s\n", indent, "", key);
            ok = put_object(v, indent + 2);
        } else if (is_table(v)) {
            printf("%*s%s\n", indent, "", key);
            ok = put_table(v);
        } else {
            ok = put_line(key, v, indent, columns);
        }
    }
    return ok;
}

enum sonde_code info_print(const json_t *object, sonde_err *err)
{
    return put_object(object, 0) ? SONDE_OK
                                 : sonde_fail(err, SONDE_E_MEMORY, "no memory to print the result");
}
