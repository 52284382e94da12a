/* SPDX-License-Identifier: MIT
 * SHA-256 against the vectors of FIPS 180-4 and NIST CAVP, XXH3 against its own published values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/sha256_impl.h"

static const char *sha(const void *data, size_t n, size_t piece)
{
    static char hex[65];
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    for (size_t i = 0; i < n; i += piece)
        sonde_sha256_add(&s, (const char *)data + i, n - i < piece ? n - i : piece);
    sonde_sha256_end(&s, hex);
    return hex;
}

static void sha256_gives_the_published_digests(void **state)
{
    (void)state;
    static const char *const c[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmno"
         "pqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        assert_string_equal(sha(c[i][0], strlen(c[i][0]), 1000), c[i][1]);
    char *a = malloc(1000000);
    memset(a, 'a', 1000000);
    assert_string_equal(sha(a, 1000000, 1000000),
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_string_equal(sha(a, 1000000, 777),
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(a);
}

static void sha256_does_not_depend_on_the_pieces(void **state)
{
    (void)state;
    unsigned char data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 37);
    for (size_t n = 0; n <= sizeof data; n++) {
        char want[65];
        strcpy(want, sha(data, n, 1));
        for (size_t piece = 2; piece < 140; piece += 9)
            assert_string_equal(sha(data, n, piece), want);
    }
}

static void sha_instructions_equal_plain_c(void **state)
{
    (void)state;
    unsigned char data[64 * 9 + 1];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * i * 31 + 7);
    for (size_t n = 0; n < 9; n++) {
        uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 0xffffffff}, b[8];
        memcpy(b, a, sizeof a);
        if (!sonde_sha256_blocks_x86(a, data + 1, n))
            skip();
        sonde_sha256_blocks_plain(b, data + 1, n);
        assert_memory_equal(a, b, sizeof a);
    }
}

static void sha256_of_a_file_is_that_of_its_bytes(void **state)
{
    (void)state;
    char dir[] = "/tmp/sonde-test-XXXXXX", path[64], hex[65], *data = malloc(200001);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f", dir);
    for (int i = 0; i < 200001; i++)
        data[i] = (char)(i * 7);
    FILE *f = fopen(path, "wb");
    fwrite(data, 1, 200001, f);
    fclose(f);
    sonde_err err = {0};
    assert_int_equal(sonde_sha256_file(path, hex, &err), SONDE_OK);
    assert_string_equal(hex, sha(data, 200001, 200001));
    free(data);
    unlink(path);
    assert_int_equal(sonde_sha256_file(path, hex, &err), SONDE_E_IO);
    assert_int_equal(sonde_sha256_file(dir, hex, &err), SONDE_E_IO);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(sonde_sha256_file(path, hex, &err), SONDE_E_IO);
    unlink(path);
    rmdir(dir);
}

static void xxh3_gives_the_published_value_of_nothing(void **state)
{
    (void)state;
    assert_true(sonde_xxh3("", 0) == 0x2d06800538d394c2ull);
}

static void xxh3_in_pieces_equals_xxh3_at_once(void **state)
{
    (void)state;
    unsigned char data[3000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 91);
    sonde_xxh3_state *s = sonde_xxh3_new(NULL);
    for (size_t piece = 1; piece < sizeof data; piece = piece * 3 + 1) {
        sonde_xxh3_reset(s);
        for (size_t i = 0; i < sizeof data; i += piece)
            sonde_xxh3_add(s, data + i, sizeof data - i < piece ? sizeof data - i : piece);
        assert_true(sonde_xxh3_end(s) == sonde_xxh3(data, sizeof data));
    }
    sonde_xxh3_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_published_digests),
        cmocka_unit_test(sha256_does_not_depend_on_the_pieces),
        cmocka_unit_test(sha_instructions_equal_plain_c),
        cmocka_unit_test(sha256_of_a_file_is_that_of_its_bytes),
        cmocka_unit_test(xxh3_gives_the_published_value_of_nothing),
        cmocka_unit_test(xxh3_in_pieces_equals_xxh3_at_once),
    };
    return cmocka_run_group_tests_name("base_hash", tests, NULL, NULL);
}
