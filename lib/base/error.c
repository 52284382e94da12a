/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Bytes below space and DEL never reach a terminal; bytes above 0x7f may be UTF-8 of a path. */
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
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
