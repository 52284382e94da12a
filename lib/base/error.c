/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Length of the well-formed UTF-8 character at s, 1 for anything else (RFC 3629, table of section 4). */
static int utf8_length(const unsigned char *s)
{
    int n = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 1;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 1;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 1;
    return n;
}

/* Nothing that a terminal would obey is left: C0 and C1 controls, DEL and bytes that are not UTF-8 become
 * '?'. */
static void make_printable(char *text)
{
    for (unsigned char *s = (unsigned char *)text; *s;) {
        int n = utf8_length(s);
        if (n == 1 && (*s < 0x20 || *s >= 0x7f))
            *s = '?';
        else if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0)
            s[0] = s[1] = '?';
        s += n;
    }
}

enum sonde_code sonde_fail(sonde_err *err, enum sonde_code code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    err->code = code;
    make_printable(err->msg);
    return code;
}

enum sonde_code sonde_err_wrap(sonde_err *err, const char *fmt, ...)
{
    if (!err)
        return SONDE_E_IO;
    char head[240], whole[sizeof head + sizeof err->msg + 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", head, err->msg);
    whole[sizeof err->msg - 1] = '\0';
    memcpy(err->msg, whole, sizeof err->msg);
    make_printable(err->msg);
    return err->code;
}
