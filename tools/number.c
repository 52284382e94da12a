/* SPDX-License-Identifier: MIT */
#include "number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct suffix {
    const char *name;
    uint64_t scale;
};

/* digits [. digits] suffix, exactly: whole * scale + fraction * scale / 10^n. */
static bool parse_scaled(const char *s, const struct suffix *suffix, size_t n_suffixes, uint64_t *out)
{
    uint64_t whole = 0, fraction = 0, unit = 1, scale = 1;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(whole, 10u, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
            return false;
    if (p == s)
        return false;
    if (*p == '.') {
        const char *first = ++p;
        for (; *p >= '0' && *p <= '9'; p++) {
            if (p - first >= 18)
                return false;
            fraction = fraction * 10 + (uint64_t)(*p - '0');
            unit *= 10;
        }
        if (p == first)
            return false;
    }
    if (*p) {
        size_t i = 0;
        while (i < n_suffixes && strcmp(p, suffix[i].name))
            i++;
        if (i == n_suffixes)
            return false;
        scale = suffix[i].scale;
    }
    uint64_t part;
    if (__builtin_mul_overflow(whole, scale, &whole))
        return false;
    while (unit > 1 && fraction % 10 == 0) {
        fraction /= 10;
        unit /= 10;
    }
    if (__builtin_mul_overflow(fraction, scale, &part) || part % unit)
        return false;
    return !__builtin_add_overflow(whole, part / unit, out);
}

bool number_parse_count(const char *s, uint64_t *out)
{
    static const struct suffix suffix[] = {{"k", 1000}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}};
    return parse_scaled(s, suffix, sizeof suffix / sizeof *suffix, out);
}

bool number_parse_bytes(const char *s, uint64_t *out)
{
    static const struct suffix suffix[] = {
        {"B", 1},           {"KiB", 1u << 10},  {"MiB", 1u << 20},  {"GiB", 1u << 30},    {"TiB", 1ull << 40},
        {" KiB", 1u << 10}, {" MiB", 1u << 20}, {" GiB", 1u << 30}, {" TiB", 1ull << 40},
    };
    return parse_scaled(s, suffix, sizeof suffix / sizeof *suffix, out);
}

bool number_parse_float(const char *s, double *out)
{
    if (!*s || strspn(s, "+-.0123456789eE") != strlen(s))
        return false;
    char *end;
    double x = strtod(s, &end);
    if (*end || end == s || !isfinite(x))
        return false;
    *out = x;
    return true;
}

char *number_print_float(double x, char buf[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, 32, "%.*g", digits, x);
        if (strtod(buf, NULL) == x)
            break;
    }
    return buf;
}

char *number_print_bytes(uint64_t n, char buf[32])
{
    static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (n < 1024) {
        snprintf(buf, 32, "%llu byte%s", (unsigned long long)n, n == 1 ? "" : "s");
        return buf;
    }
    double x = (double)n / 1024;
    size_t i = 0;
    for (; x >= 1023.95 && i + 1 < sizeof unit / sizeof *unit; i++)
        x /= 1024;
    snprintf(buf, 32, "%.1f %s", x, unit[i]);
    return buf;
}

char *number_print_short(double n, char buf[32])
{
    static const char unit[] = "\0kMGT";
    size_t i = 0;
    for (; n >= 999.5 && unit[i + 1]; i++)
        n /= 1000;
    int decimals = i == 0 && n == floor(n) ? 0 : n < 9.995 ? 2 : n < 99.95 ? 1 : 0;
    snprintf(buf, 32, "%.*f%.1s", decimals, n, unit + i);
    return buf;
}
