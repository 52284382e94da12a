/* SPDX-License-Identifier: MIT
 * The compression function of SHA-256 (FIPS 180-4 section 6.2), in C and with x86's SHA instructions. */
#ifndef SONDE_BASE_SHA256_IMPL_H
#define SONDE_BASE_SHA256_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fold n blocks of 64 bytes into h, the fastest way this CPU can. */
void sonde_sha256_blocks(uint32_t h[8], const unsigned char *p, size_t n);

/* The two ways, for tests. _x86 does nothing and returns false where the CPU lacks the instructions. */
void sonde_sha256_blocks_plain(uint32_t h[8], const unsigned char *p, size_t n);
bool sonde_sha256_blocks_x86(uint32_t h[8], const unsigned char *p, size_t n);

#endif
