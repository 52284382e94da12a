/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "tool.h"

char *tool_visible(const char *s, size_t n)
{
    char *out = NULL;
    size_t n_out = 0;
    FILE *f = open_memstream(&out, &n_out);
    if (!f)
        return NULL;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (k <= 0) {
            fprintf(f, "\\x%02x", (unsigned char)s[i++]);
            continue;
        }
        if (c == '\n' || c == '\t' || c == '\r')
            fprintf(f, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
        else if (c == '\\')
            fputs("\\\\", f);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
                 (c >= 0x2066 && c <= 0x2069))
            for (utf8proc_ssize_t j = 0; j < k; j++)
                fprintf(f, "\\x%02x", (unsigned char)s[i + (size_t)j]);
        else
            fwrite(s + i, 1, (size_t)k, f);
        i += (size_t)k;
    }
    if (fclose(f)) {
        free(out);
        return NULL;
    }
    return out;
}
