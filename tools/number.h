/* SPDX-License-Identifier: MIT
 * Numbers as the command line spells them. The program never calls setlocale, so the C library's conversions
 * keep the decimal point whatever LANG says. */
#ifndef SONDE_TOOLS_NUMBER_H
#define SONDE_TOOLS_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "128", "10M", "1.5k": k, M and G are 10^3, 10^6 and 10^9; the result must be whole and fit. */
bool number_parse_count(const char *s, uint64_t *out);

/* "4096", "512MiB", "1.5 GiB": KiB, MiB, GiB and TiB are powers of 1024. */
bool number_parse_bytes(const char *s, uint64_t *out);

/* Decimal, finite; no hexadecimal, no spaces. */
bool number_parse_float(const char *s, double *out);

/* The fewest digits that read back as the same number. */
char *number_print_float(double x, char buf[32]);

/* "1234 bytes", "1.5 KiB", "13.2 GiB". */
char *number_print_bytes(uint64_t n, char buf[32]);

/* Three or four digits and a suffix: "950", "12.3k", "1.24M". */
char *number_print_short(double n, char buf[32]);

#endif
